"""The published files of one and two views load strictly, by name; other names of a tensor must agree."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from mammojax.models import petrini_weights
from mammojax.models.weights import PretrainedMismatch
from tests import petrini_files


@pytest.mark.parametrize(
    ("trunk", "task"), [("efficientnet_b0", "two_view"), ("efficientnet_b3", "whole"), ("convnext_base", "whole")]
)
def test_every_tensor_finds_its_place(trunk, task, tmp_path):
    variables = petrini_files.write(tmp_path / "net.safetensors", trunk, task)
    network = petrini_weights.load(tmp_path / "net.safetensors")
    assert (network.model["trunk"], network.model["task"], network.model["width"]) == (trunk, task, 8)
    assert network.model["normalise"] == ("image" if trunk == "convnext_base" else "unit")
    jax.tree.map(np.testing.assert_array_equal, network.variables, variables)
    if task == "two_view":
        aliases, unused = network.remarks
        assert aliases.endswith("tensors of the trunk stand under several names, with equal values")
        assert unused == "not used: 1 tensors of the single-view head"


def test_other_files_are_refused_in_a_sentence(tmp_path):
    arrays, _ = petrini_files.tensors("efficientnet_b0", "two_view")
    path = tmp_path / "net.safetensors"

    def refused(changed, match):
        save_file(changed, path)
        with pytest.raises(PretrainedMismatch, match=match):
            petrini_weights.load(path)

    core = "two_views_clf.single_clf_core._conv_head.weight"
    refused(arrays | {core: arrays[core] + 1}, r"_conv_head\.weight differs from the same tensor under another name")
    refused({name: array for name, array in arrays.items() if name != "fc.bias"}, r"missing: fc\.bias")
    refused(arrays | {"fc2.weight": np.zeros((2, 2), np.float32)}, r"surplus: fc2\.weight")
    refused(arrays | {"fc.bias": np.zeros(5, np.float32)}, r"of another shape: fc\.bias \(5,\) for \(2,\)")
    refused({"conv1.weight": arrays[core]}, "holds none of the published networks")


def test_torch_files_are_read_as_tensors_alone(tmp_path):
    torch = pytest.importorskip("torch")
    arrays, variables = petrini_files.tensors("efficientnet_b0", "whole")
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, tmp_path / "net.pt")
    jax.tree.map(np.testing.assert_array_equal, petrini_weights.load(tmp_path / "net.pt").variables, variables)
    torch.save(torch.nn.Linear(1, 1), tmp_path / "module.pt")
    with pytest.raises(ValueError, match=r"module\.pt is not a torch file of plain tensors by name"):
        petrini_weights.load(tmp_path / "module.pt")
