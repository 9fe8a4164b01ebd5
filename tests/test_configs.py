"""Configs are found where the package is; a wrong name is answered with the nearest one."""

import subprocess
import sys

import pytest

from mammojax import cli, config_fields, configs
from mammojax.errors import BadConfig


def test_each_config_has_a_line_and_what_they_share_is_none_of_them() -> None:
    assert {"quickstart", "whole_resnet", "exam", "film"} <= set(configs.names())
    assert "base" not in configs.names()
    assert configs.line("film").startswith("Patch → whole image on any manifest of film mammograms")


@pytest.mark.parametrize(
    ("name", "argument", "words"),
    [
        ("quickstrat", "", "did you mean quickstart?"),
        ("zzz", "", "there are birads, exam,"),
        ("patch_resnet", "s2", "write s10, s1 or s1g"),
        ("quickstart", "s10", "takes no argument"),
    ],
)
def test_a_config_that_is_not_there_is_refused(name: str, argument: str, words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        configs.get(name, argument)


def test_a_reader_that_has_enough_ends_the_list_quietly() -> None:
    command = f"{sys.executable} -m mammojax.cli configs | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize("name", configs.names())
def test_every_field_has_a_meaning(name: str) -> None:
    fields = config_fields.fields(name)
    assert [field.name for field in fields if not field.meaning] == []
    assert len(fields) > 30


def test_no_meaning_is_of_a_field_that_no_experiment_has() -> None:
    used = {field.meaning for name in configs.names() for field in config_fields.fields(name)}
    assert set(config_fields.MEANINGS.values()) <= used


def test_an_experiment_is_printed_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["configs", "patch_resnet:s1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "Table 1 of Shen et al. 2019" in lines[0]
    at = lines.index("config.stages.stage3.epochs = 187 (without s1: 37)")
    assert lines[at + 1] == "    length of the stage [Shen et al. 2019]"
    assert cli.main(["configs", "patch_resnet:s2"]) == 2


@pytest.mark.parametrize(
    ("experiment", "field", "source"),
    [
        ("whole_resnet", "stages.stage2.learning_rate", "Shen et al. 2019"),
        ("whole_resnet", "patch.model.bn_epsilon", "published code of Shen et al. 2019"),
        ("whole_resnet", "gallery", "yours to set; no paper's"),
        ("whole_resnet", "augment.shear", "ours"),
        ("quickstart", "augment.flip_vertical", "Shen et al. 2019"),
        ("quickstart", "augment.rotation", "ours"),  # 10 degrees, where the paper has 25
        ("film", "data.patch_size", "ours"),
        ("exam", "stages.stage1.weight_decay", "Wu et al. 2019"),
        ("exam:view-wise+heatmaps", "patch.stages.stage1.learning_rate", "ours"),  # in no source
        ("exam:view-wise+heatmaps", "patch.model.padding", "published code of Wu et al. 2019"),
        ("exam_quickstart", "model.join", "Wu et al. 2019"),
        ("exam_quickstart", "stages.stage1.learning_rate", "ours"),
        ("birads", "batch", "Wu et al. 2019"),
        ("two_view:2025", "model.trunk", "Petrini & Kim 2025"),
        ("two_view:2022", "stages.stage1.schedule", "the later code of Petrini et al. 2022's authors"),
        ("two_view:quickstart", "model.width", "ours"),
    ],
)
def test_a_value_is_a_paper_s_where_the_paper_states_it(experiment: str, field: str, source: str) -> None:
    name, _, argument = experiment.partition(":")
    (of_field,) = [f for f in config_fields.fields(name, argument) if f.name == f"config.{field}"]
    assert of_field.source == source
