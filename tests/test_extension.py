"""Parts from outside the package: the examples of docs/extend.md train a network; what cannot be loaded is refused."""

import json
import re
from pathlib import Path

import pytest

from mammojax import extension
from mammojax.configs import quickstart
from mammojax.errors import BadConfig
from mammojax.models import classifiers
from mammojax.train.checkpoint import restore_best
from tests.tiny import ROOT, launch


def examples(folder: Path) -> list[str]:
    """Write the Python blocks of docs/extend.md, each to the file that its first line names; the modules."""
    blocks = re.findall(r"```python\n# (\w+)\.py\n(.*?)```", (ROOT / "docs" / "extend.md").read_text(), re.DOTALL)
    for name, code in blocks:
        (folder / f"{name}.py").write_text(code)
    return [name for name, _ in blocks]


@pytest.mark.slow
def test_the_examples_train_a_network(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"my_trunk", "my_head", "my_loss"} <= set(examples(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    workdir = tmp_path / "run"
    done = launch(
        workdir, "--config.model.trunk=my_trunk:FiveConvolutions", "--config.model.head=my_head:MeanAndMaximum",
        "--config.patch.model.trunk=my_trunk:FiveConvolutions", "--config.loss=my_loss:focal",
        f"--config.data.data_dir={finished.parent}/data",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    monkeypatch.syspath_prepend(tmp_path)
    config, _, variables = restore_best(workdir)
    assert config.model.trunk == "my_trunk:FiveConvolutions"
    assert set(variables["params"]["trunk"]) == {f"{kind}{k}" for kind in ("conv", "bn") for k in range(5)}
    assert variables["params"]["head"]["logits"]["kernel"].shape == (8, 2)
    log = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = {row["kind"]: row["loss"] for row in log}
    assert losses["train"] < 0.5 * losses["val"]  # the focal loss of p = 1/2 is a quarter of its cross-entropy


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("trunk", "no_such_module:Net", r'config\.model\.trunk: "no_such_module" cannot be imported'),
        ("trunk", "json:Net", 'the module "json" has no "Net"'),
        ("head", "json:dumps", "is no flax.linen.Module class"),
        ("trunk", "resnet51", "is unknown; use resnet50 or vgg16 or densenet121"),
    ],
)
def test_names_that_load_no_part_are_refused(field: str, value: str, words: str) -> None:
    config = quickstart.get_config()
    config.model[field] = value
    with pytest.raises(ValueError, match=words):
        classifiers.build(config.model)


def test_a_name_is_told_from_a_word() -> None:
    assert extension.named("package.module:Class")
    assert not any(extension.named(text) for text in ("resnet50", "512-512-1024x2,512-512-1024x2", "a:", ":b", "a b:c"))
    with pytest.raises(BadConfig):
        extension.load("tests.nowhere:Net", "config.model.trunk")
