"""Settings follow the weights: adopted where the config leaves them at its default, refused where it contradicts."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file

from mammojax import convert, families, run
from mammojax.configs import (
    base,
    exam,
    exam_ensemble,
    exam_patch,
    exam_quickstart,
    inbreast,
    patch_resnet,
    patch_vgg,
    quickstart,
    whole_resnet,
    whole_vgg,
)
from mammojax.errors import BadConfig
from mammojax.models import classifiers
from mammojax.models.multi_view import MultiView
from mammojax.models.nyu_weights import Published
from mammojax.models.weights import TORCH_STD
from mammojax.start import DEFAULTS, settle, variables, with_start_mean
from mammojax.train.checkpoint import load_best
from tests.tiny import launch

PATCH = {  # what a run says that is not at its defaults
    "model.width": 16, "model.blocks": (2, 2, 2, 3), "model.stride_on": "3x3", "model.conv_bias": False,
    "model.bn_epsilon": 1e-5, "model.channels": 1, "data.size": (288, 224), "data.crop": "breast",
    "data.keep_aspect": True,
}  # fmt: skip
OTHERS = {"model.width": 8, "model.blocks": (1, 1, 1, 1), "model.bn_epsilon": 1e-4, "data.size": (96, 64)}
EXAM = {
    "model.width": 8, "model.blocks": (1, 1, 1, 1, 1), "model.padding": "code", "model.tie": "all",
    "exam.sizes.CC": (240, 160), "exam.sizes.MLO": (256, 160),
}  # fmt: skip


def _changed(config: ConfigDict, **changes: Any) -> ConfigDict:
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config


def _saved(folder: Path, config: ConfigDict, changes: dict[str, Any], mean: float | None = 52.18) -> str:
    """A run folder with no more than its config."""
    config.update_from_flattened_dict(changes)
    folder.mkdir(parents=True)
    saved = {"config": json.loads(config.to_json_best_effort()), "facts": {"mean": mean}}
    (folder / "config.json").write_text(json.dumps(saved))
    return str(folder)


def _field(config: ConfigDict, field: str) -> Any:
    for name in field.split("."):
        config = config[name]
    return config.to_dict() if isinstance(config, ConfigDict) else config


@pytest.mark.parametrize(
    "config",
    [patch_resnet.get_config(), patch_vgg.get_config(), whole_resnet.get_config(), inbreast.get_config(),
     exam.get_config("joint"), exam_patch.get_config()],
)  # fmt: skip
def test_the_defaults_are_the_configs_own(config: ConfigDict) -> None:
    for field, default in DEFAULTS[config.model.task].items():
        assert _field(config, field) == default, field


@pytest.mark.parametrize("new", [patch_resnet.get_config, whole_resnet.get_config, inbreast.get_config])
def test_a_setting_at_its_default_is_adopted(
    new: Callable[[], ConfigDict], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = _changed(new(), init_from=_saved(tmp_path / "patch", patch_resnet.get_config(), PATCH))
    settled = settle(config)
    for field, value in PATCH.items():
        assert _field(settled, field) == value
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f'config adopts from "{config.init_from}": model.width=16, ')
    assert "data.size=(288, 224)" in line
    assert json.loads(settled.to_json_best_effort())["model"]["stride_on"] == "3x3"
    assert config.model.width == 64  # the caller's is as it was
    assert settle(settled).to_json_best_effort() == settled.to_json_best_effort()
    assert capsys.readouterr().out == ""
    checked = run.check(config)
    assert checked.model.width == 16
    assert checked.is_locked == config.is_locked


@pytest.mark.parametrize(("field", "value"), OTHERS.items())
def test_a_contradicting_setting_is_refused(field: str, value: Any, tmp_path: Path) -> None:
    config = whole_resnet.get_config()
    config.init_from = _saved(tmp_path / "patch", patch_resnet.get_config(), PATCH)
    config.update_from_flattened_dict({field: value})
    message = f'config.{field} is {value}, but the weights of "{config.init_from}" are made for {PATCH[field]}; set'
    with pytest.raises(BadConfig, match=re.escape(message)):
        run.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_field_set_to_the_starts_value_just_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = whole_resnet.get_config()
    config.init_from = _saved(tmp_path / "patch", patch_resnet.get_config(), PATCH)
    config.update_from_flattened_dict(PATCH)
    assert settle(config).to_json_best_effort() == config.to_json_best_effort()
    assert capsys.readouterr().out == ""


def test_a_momentum_may_be_another(tmp_path: Path) -> None:
    start = _saved(tmp_path / "patch", patch_resnet.get_config(), {"model.bn_momentum": 0.9})
    assert settle(_changed(inbreast.get_config(), init_from=start)).model.bn_momentum == 0.9
    other = _changed(inbreast.get_config(), init_from=start, model__bn_momentum=0.95)
    assert settle(other).model.bn_momentum == 0.95


def test_starts_of_another_kind_are_refused(tmp_path: Path) -> None:
    mammogram = _saved(tmp_path / "patch", patch_resnet.get_config(), {})
    exams = _saved(tmp_path / "exam", base.exams("view-wise"), {})
    patches = _saved(tmp_path / "exam_patch", exam_patch.get_config(), {})
    for config, start, words in (
        (patch_vgg.get_config(), mammogram, "config.model.trunk is vgg16, but the weights of"),
        (whole_resnet.get_config(), exams, "with every image standardised, and this run of task"),
        (exam_patch.get_config(), mammogram, "with the training images' mean subtracted, and this run of task"),
        (exam.get_config("joint"), patches, "name a run of task exam."),
        (exam.get_config("joint+heatmaps"), tmp_path / "nowhere", "is not a run folder"),
    ):
        with pytest.raises(BadConfig, match=re.escape(words)):
            settle(_changed(config, init_from=str(start)))
    with pytest.raises(BadConfig, match="name a run of task exam_patch"):
        settle(_changed(exam.get_config("joint+heatmaps"), patch_run=mammogram, init_from=exams))


def test_an_older_run_without_a_field_is_a_start(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"config": {"model": {"width": 32}}, "facts": {}}')
    assert settle(_changed(whole_resnet.get_config(), init_from=str(tmp_path))).model.width == 32


def test_a_run_inside_the_config_and_the_config_agree(tmp_path: Path) -> None:
    config = _changed(whole_resnet.get_config(), patch__model__width=8, patch__model__stride_on="3x3")
    settled = settle(config)
    assert (settled.model.width, settled.model.stride_on) == (8, "3x3")
    with pytest.raises(
        BadConfig, match=re.escape("config.patch.model.stride_on is 1x1 and config.model.stride_on 3x3")
    ):
        settle(_changed(whole_resnet.get_config(), model__stride_on="3x3"))
    nested = _changed(
        whole_resnet.get_config(), patch__init_from=_saved(tmp_path / "a", patch_resnet.get_config(), PATCH)
    )
    settled = settle(nested)  # the patch run works on the whole-image run's data
    assert settled.data.size == (288, 224)
    assert settled.model.width == settled.patch.model.width == 16


def test_an_exam_network_adopts_its_pretraining_s(tmp_path: Path) -> None:
    config = exam.get_config("joint")
    config.init_from = _saved(tmp_path / "birads", base.exams("view-wise"), EXAM | {"model.target": "birads"})
    settled = settle(config)
    for field, value in EXAM.items():
        assert _field(settled, field) == value
    assert settled.exam.heatmaps == ("malignant", "benign")
    config = exam_quickstart.get_config("joint")
    config.init_from = _saved(tmp_path / "wide", base.exams("view-wise"), {})
    with pytest.raises(BadConfig, match=r"config.model.width is 8, but the weights of .* are made for 16"):
        settle(config)


def _published(out: Path, channels: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run of `mammojax convert nyu`; its weights, which are not looked at, are none."""
    network = Published(MultiView(padding="code"), channels, {"params": {"a": np.zeros(1)}, "batch_stats": {}})
    monkeypatch.setattr(convert.nyu_weights, "load", lambda file: network)
    convert.nyu(Path("file.p"), out)
    return str(out)


def test_a_converted_network_brings_padding_and_order_of_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heatmaps = _published(tmp_path / "heatmaps", 3, monkeypatch)
    config = _changed(exam.get_config("view-wise+heatmaps"), init_from=heatmaps)
    settled = settle(config)
    assert settled.model.padding == "code"
    assert settled.exam.heatmaps == ("benign", "malignant")
    images = _published(tmp_path / "images", 1, monkeypatch)
    settled = settle(_changed(exam.get_config("joint+heatmaps"), init_from=images))
    assert (settled.model.padding, settled.exam.heatmaps) == ("code", ("malignant", "benign"))
    with pytest.raises(BadConfig, match=r"config.model.channels is 1, but the weights of .* are made for 3"):
        settle(_changed(exam.get_config("view-wise"), init_from=heatmaps))
    small = _changed(exam_quickstart.get_config("view-wise"), init_from=images, model__width=16)
    small.model.blocks = (2, 2, 2, 2, 2)
    with pytest.raises(BadConfig, match=re.escape("config.exam.sizes is {'CC': (240, 160)")):
        settle(small)


def test_heatmaps_slide_patches_of_the_size_that_was_learned(tmp_path: Path) -> None:
    start = _saved(tmp_path / "patch", exam_patch.get_config(), {"data.patch_size": 64})
    settled = run.check(_changed(exam.get_config("joint+heatmaps"), patch_run=start, exam__stride=32))
    assert settled.exam.patch == settled.data.patch_size == 64
    with pytest.raises(BadConfig, match=r"config.exam.patch is 48, but the weights of .* are made for 64"):
        settle(_changed(exam_quickstart.get_config(), patch_run=start))


def _torchvision(file: Path, width: int = 4, units: int = 1) -> str:
    """A ResNet50 of random weights under torchvision's names."""
    rng, arrays, inside = np.random.default_rng(0), {}, width

    def put(name: str, *shape: int) -> None:
        arrays[name] = rng.normal(0, 0.3, shape).astype(np.float32)

    def norm(name: str, channels: int) -> None:
        for leaf in ("weight", "bias", "running_mean"):
            put(f"{name}.{leaf}", channels)
        arrays[f"{name}.running_var"] = np.ones(channels, np.float32)

    put("conv1.weight", width, 3, 7, 7)
    norm("bn1", width)
    for s in range(4):
        narrow = width * 2**s
        for u in range(units):
            unit = f"layer{s + 1}.{u}"
            for k, shape in enumerate(((narrow, inside, 1, 1), (narrow, narrow, 3, 3), (4 * narrow, narrow, 1, 1))):
                put(f"{unit}.conv{k + 1}.weight", *shape)
                norm(f"{unit}.bn{k + 1}", shape[0])
            if u == 0:
                put(f"{unit}.downsample.0.weight", 4 * narrow, inside, 1, 1)
                norm(f"{unit}.downsample.1", 4 * narrow)
            inside = 4 * narrow
    save_file(arrays, file)
    return str(file)


def test_a_file_s_settings_are_set_and_contradictions_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _torchvision(tmp_path / "net.safetensors", units=2)
    settled = settle(_changed(patch_resnet.get_config(), model__pretrained=file))
    model = settled.model
    assert (model.width, model.blocks, model.stride_on, model.conv_bias) == (4, (2, 2, 2, 2), "3x3", False)
    assert (model.bn_epsilon, model.pretrained_std, model.channels) == (1e-5, TORCH_STD, 3)
    assert str(tmp_path) not in capsys.readouterr().out
    assert settle(settled).to_json_best_effort() == settled.to_json_best_effort()
    for field, value in (("bn_epsilon", 1.001e-5), ("pretrained_std", (0.229, 0.224, 0.225)), ("channels", 1)):
        message = f'config.model.{field} is {value}, but the weights of "net.safetensors" are made for'
        with pytest.raises(BadConfig, match=re.escape(message)):
            settle(_changed(patch_resnet.get_config(), **{"model__pretrained": file, f"model__{field}": value}))
    with pytest.raises(BadConfig, match=r"config.model.trunk is vgg16, but the weights of"):
        settle(_changed(patch_vgg.get_config(), model__pretrained=file))
    with pytest.raises(BadConfig, match=r"config.patch.model.pretrained: there is no file"):
        settle(_changed(whole_vgg.get_config(), model__pretrained="nowhere.h5"))
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(BadConfig, match=r"config.model.pretrained: other.safetensors holds no first convolution"):
        settle(_changed(patch_resnet.get_config(), model__pretrained=str(tmp_path / "other.safetensors")))


def test_standardised_patches_are_not_divided_again(tmp_path: Path) -> None:
    save_file({"features.conv0.weight": np.zeros((64, 3, 7, 7), np.float32)}, tmp_path / "net.safetensors")
    config = _changed(exam_patch.get_config(), model__pretrained=str(tmp_path / "net.safetensors"))
    config.model.blocks = (0, 0, 0, 0)  # the file's dense layers are left out
    assert settle(config).model.pretrained_std == ()
    assert settle(config).model.padding == "torch"


def test_a_file_goes_to_the_patch_run_inside(tmp_path: Path) -> None:
    file = _torchvision(tmp_path / "net.safetensors")
    settled = settle(_changed(whole_resnet.get_config(), model__pretrained=file, model__pretrained_std=TORCH_STD))
    assert (settled.model.pretrained, settled.model.pretrained_std) == ("", ())
    assert (settled.patch.model.pretrained, settled.patch.model.pretrained_std) == (file, TORCH_STD)
    assert settled.model.stride_on == settled.patch.model.stride_on == "3x3"
    network = classifiers.build(settled.patch.model)
    started = variables(settled.patch, network, (64, 64), None)["params"]["trunk"]
    stem = np.asarray(started["stem_conv"]["kernel"]).transpose(3, 2, 0, 1) * np.float32(TORCH_STD)[None, :, None, None]
    np.testing.assert_allclose(stem, load_file(file)["conv1.weight"], rtol=1e-6)
    other = _changed(whole_resnet.get_config(), model__pretrained=file, patch__model__pretrained="other.h5")
    with pytest.raises(BadConfig, match="two starts; the patch run inside this config"):
        settle(other)


def test_two_starts_are_refused(tmp_path: Path) -> None:
    file = _torchvision(tmp_path / "net.safetensors")
    start = _saved(tmp_path / "patch", patch_resnet.get_config(), {})
    for name, config in (
        ("", patch_resnet.get_config()),
        ("", whole_resnet.get_config()),
        ("patch.", quickstart.get_config()),
    ):
        _changed(config, **{"init_from": start, f"{name}model.pretrained": file})
        with pytest.raises(BadConfig, match=rf"config.init_from is .* config.{name}model.pretrained .*: two starts"):
            settle(config)
    config = _changed(exam.get_config("joint+heatmaps"), patch_run=start, patch__model__pretrained=file)
    with pytest.raises(BadConfig, match=r"config.patch_run is .* config.patch.model.pretrained .*: two starts"):
        settle(config)


def test_the_mean_is_that_of_the_data_and_the_start_s_is_a_fact(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = _saved(tmp_path / "patch", patch_resnet.get_config(), {}, mean=52.18)
    assert with_start_mean({"mean": 44.33}, start) == {"mean": 44.33, "start_mean": 52.18}
    assert "mean subtracted: 44.33, of this data; the start's was 52.18" in capsys.readouterr().out
    for facts, folder in (({"mean": 52.18}, start), ({"mean": 44.33}, None), ({"mean": 44.33}, "")):
        assert with_start_mean(facts, folder) is facts


def test_a_file_starts_the_first_member_s_patch_network_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = exam_ensemble.get_config("quickstart")
    config.patch.model.pretrained = "net.safetensors"
    calls = []

    def see(member: ConfigDict, folder: Path) -> None:
        calls.append((member.patch_run, member.patch.model.pretrained))
        if len(calls) == 2:
            raise BadConfig("both were seen")

    monkeypatch.setattr(families.run, "check", lambda member: member)
    monkeypatch.setattr(families.run, "run", see)
    with pytest.raises(BadConfig, match="both were seen"):
        families.members(config, tmp_path)
    assert calls == [("", "net.safetensors"), (str(tmp_path / "view-wise_0" / "patch"), "")]


@pytest.mark.slow
def test_a_file_reaches_the_patch_network_s_weights(finished: Path, tmp_path: Path) -> None:
    """The tiny run again, from a file: learning at rate 0, both of its networks keep the file's kernels."""
    file = _torchvision(tmp_path / "net.safetensors")
    still = [f"--config.{part}stages.stage{k}.learning_rate=0.0" for part, k in (("patch.", 1), ("", 1), ("", 2))]
    done = launch(
        tmp_path / "run", f"--config.model.pretrained={file}", "--config.model.channels=3",
        "--config.patch.model.channels=3", f"--config.data.data_dir={finished.parent}/data",
        "--config.stages.stage1.epochs=1", "--config.stages.stage2.epochs=0", *still,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = (
        line for line in done.stdout.splitlines() if line.startswith('config.patch adopts from "net.safetensors"')
    )
    assert line.endswith("model.pretrained_std=(58.395, 57.12, 57.375), model.stride_on=3x3, model.conv_bias=False")
    config = json.loads((tmp_path / "run" / "patch" / "config.json").read_text())["config"]
    assert config["model"]["stride_on"] == "3x3"
    whole, patch = (load_best(tmp_path / "run" / inside)["params"]["trunk"] for inside in ("", "patch"))
    kernel = whole["stage4_unit1"]["conv2"]["kernel"]
    np.testing.assert_array_equal(kernel, patch["stage4_unit1"]["conv2"]["kernel"])
    np.testing.assert_array_equal(kernel.transpose(3, 2, 0, 1), load_file(file)["layer4.0.conv2.weight"])
