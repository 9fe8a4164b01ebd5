"""The published files load strictly, by name, and nothing but tensors is read from a pickle."""

import json
import pickle
import runpy

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from mammojax.models.nyu_weights import load
from mammojax.models.weights import PretrainedMismatch


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    """A view-wise file's arrays by the names that the published files have, each tensor under its first name only."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, channels: int) -> None:
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{leaf}"] = (channels,)
        shapes[f"{name}.num_batches_tracked"] = ()

    for angle in ("cc", "mlo"):
        column = f"four_view_resnet.{angle}"
        shapes[f"{column}.first_conv.weight"] = (16, 1, 7, 7)
        inputs = 16
        for s in range(5):
            channels = 16 * 2**s
            for u in range(2):
                unit = f"{column}.layer_list.{s}.{u}"
                norm(f"{unit}.bn1", inputs)
                shapes[f"{unit}.conv1.weight"] = (channels, inputs, 3, 3)
                norm(f"{unit}.bn2", channels)
                shapes[f"{unit}.conv2.weight"] = (channels, channels, 3, 3)
                if u == 0:
                    shapes[f"{unit}.downsample.0.weight"] = (channels, inputs, 1, 1)
                inputs = channels
        norm(f"{column}.final_bn", 256)
        for name, outputs in ((f"fc1_{angle}", 512), (f"output_layer_{angle}.fc_layer", 8)):
            shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, 512), (outputs,)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def saved(state, folder):
    save_file(state, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def assert_same(ours, theirs):
    ours, theirs = flatten_dict(ours), flatten_dict(theirs)
    assert ours.keys() == theirs.keys()
    for leaf in ours:
        np.testing.assert_array_equal(ours[leaf], theirs[leaf], err_msg="/".join(leaf))


def with_aliases(state):
    column = "four_view_resnet."
    names = [name for name in state if name.startswith(column)]
    return state | {name.replace(column, f"{column}{side}_"): state[name] for name in names for side in "lr"}


def test_every_tensor_finds_its_place(state, tmp_path):
    network, channels, variables = load(saved(state, tmp_path))
    assert (network.join, network.padding, channels) == ("view-wise", "code", 1)
    leaves = flatten_dict(variables)
    assert len(leaves) == sum(not name.endswith("num_batches_tracked") for name in state)
    unit = "four_view_resnet.mlo.layer_list.3.0"
    np.testing.assert_array_equal(
        leaves["params", "column_MLO", "stage4_unit1", "conv1", "kernel"],
        state[f"{unit}.conv1.weight"].transpose(2, 3, 1, 0),
    )
    np.testing.assert_array_equal(
        leaves["batch_stats", "column_MLO", "stage4_unit1", "bn2", "var"], state[f"{unit}.bn2.running_var"]
    )
    np.testing.assert_array_equal(leaves["params", "CC_logits", "kernel"], state["output_layer_cc.fc_layer.weight"].T)


def test_other_names_of_a_column_are_accepted_where_they_agree(state, tmp_path):
    alone = load(saved(state, tmp_path)).variables
    both = with_aliases(state)
    assert_same(load(saved(both, tmp_path)).variables, alone)
    name = "four_view_resnet.r_cc.layer_list.0.0.conv1.weight"
    with pytest.raises(PretrainedMismatch, match=rf"{name} differs from its other name four_view_resnet\.cc\."):
        load(saved(both | {name: both[name] + 1}, tmp_path))


def test_mismatches_are_listed_by_name(state, tmp_path):
    wrong = {name: array for name, array in state.items() if name != "fc1_mlo.bias"}
    wrong |= {"fc2_cc.weight": wrong["fc1_cc.weight"], "output_layer_cc.fc_layer.bias": np.zeros(3, np.float32)}
    with pytest.raises(PretrainedMismatch) as caught:
        load(saved(wrong, tmp_path))
    for part in (
        "missing: fc1_mlo.bias;",
        "surplus: fc2_cc.weight;",
        "of another shape: output_layer_cc.fc_layer.bias (3,) for (8,).",
    ):
        assert part in str(caught.value)


def test_other_networks_and_files_are_refused_in_a_sentence(state, tmp_path):
    with pytest.raises(PretrainedMismatch, match="holds none of the published networks"):
        load(saved({"conv1.weight": state["fc1_cc.weight"]}, tmp_path))
    stem = "four_view_resnet.cc.first_conv.weight"
    with pytest.raises(PretrainedMismatch, match=r"first_conv\.weight is of shape \(16, 2, 7, 7\)"):
        load(saved(state | {stem: np.zeros((16, 2, 7, 7), np.float32)}, tmp_path))
    with pytest.raises(ValueError, match=r"absent\.p: there is no such file"):
        load(tmp_path / "absent.p")
    for name, match in {"weights.ckpt": r"\.ckpt is unknown", "broken.safetensors": "cannot be read"}.items():
        (tmp_path / name).write_bytes(b"no weights")
        with pytest.raises(ValueError, match=match):
            load(tmp_path / name)


def test_torch_files(state, tmp_path):
    torch = pytest.importorskip("torch")
    expected = load(saved(state, tmp_path)).variables
    tensors = {name: torch.from_numpy(array) for name, array in with_aliases(state).items()}
    torch.save({"model": tensors}, tmp_path / "weights.p")
    assert_same(load(tmp_path / "weights.p").variables, expected)


def test_a_pickled_object_is_not_unpickled(tmp_path):
    torch = pytest.importorskip("torch")
    ran = tmp_path / "ran"

    class Harm:
        def __reduce__(self):
            return (ran.touch, ())

    (tmp_path / "pickle.p").write_bytes(pickle.dumps({"model": Harm()}))
    torch.save({"model": Harm()}, tmp_path / "torch.p")
    torch.save([1, 2], tmp_path / "list.p")
    for name in ("pickle", "torch", "list"):
        with pytest.raises(ValueError, match=rf"{name}\.p is not a torch file of plain tensors by name"):
            load(tmp_path / f"{name}.p")
    assert not ran.exists()


def test_the_patch_files_names_old_and_new(shared, tmp_path):
    golden = shared / "golden" / "nyu"
    formula = runpy.run_path(str(golden / "formula_weights.py"))["formula"]
    keys = json.loads((golden / "state_dict_keys.json").read_text())["patch"]
    new = {key: np.ascontiguousarray(formula(key, shape)) for key, shape in keys}
    old = {}
    for name, array in new.items():
        for part in ("norm1", "norm2", "conv1", "conv2"):
            if "denselayer" in name:
                name = name.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        old[name] = array
    assert old.keys() != new.keys()
    assert_same(load(saved(old, tmp_path)).variables, load(saved(new, tmp_path)).variables)
