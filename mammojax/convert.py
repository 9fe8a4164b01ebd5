"""Published weights as run folders, which `mammojax predict --run` and `mammojax.restore` take like any other."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mammojax import configs
from mammojax.data import nyu_list
from mammojax.data.breast import ITERATIONS, Framing
from mammojax.data.sliding import PATCH, STRIDE
from mammojax.data.window import NOISE, SIZES
from mammojax.errors import BadCheckpoint, BadManifest
from mammojax.models import nyu_weights, petrini_weights
from mammojax.models.multi_view import MultiView
from mammojax.train.checkpoint import save_best
from mammojax.vocabulary import EXAM_PATCH_CLASSES

MEAN = 13369 / 257
"""The gray value that Petrini et al. subtract from images of CBIS-DDSM, 13369 of 65535, on the scale of 0 … 255."""


def nyu(file: Path, out: Path) -> str:
    """Write a run folder of one of the files that Wu et al. 2019 published.

    The config has the published code's settings where they differ from the paper's: the padding, one stream of random
    numbers for a whole run (windows as well as the steps of heatmaps), and the order of the heatmap channels.

    Args:
        file: a view-wise, image-wise or patch file; torch's, or its tensors as safetensors.
        out: a new folder.

    Returns:
        The contents of the file, in words.

    Raises:
        BadCheckpoint: the file is none of them, or the folder is a run already.
    """
    published = _load(nyu_weights.load, file, out)
    network = published.network
    model: dict[str, Any]
    if isinstance(network, MultiView):
        fields = ("join", "angles", "tie", "target", "width", "blocks", "padding", "noise")
        model = {"task": "exam", "channels": published.channels, "dtype": "float32"}
        model |= {field: getattr(network, field) for field in fields}
        contents = f"{network.join} network, {'image and heatmaps' if published.channels == 3 else 'image only'}"
    else:
        model = {"task": "exam_patch", "trunk": "densenet121", "width": 64, "blocks": (6, 12, 24, 16),
                 "padding": "same", "channels": published.channels, "classes": len(EXAM_PATCH_CLASSES),
                 "dropout": 0.0, "dtype": "float32"}  # fmt: skip
        contents = "patch network"
    exam = {"sizes": SIZES, "noise": NOISE, "random": "published", "patch": PATCH, "stride": STRIDE,
            "heatmaps": ("benign", "malignant")}  # fmt: skip
    config = {"row": "", "seed": 0, "model": model, "exam": exam}
    # None, not the code's 0: on the code's images the computed threshold is 0, and on others 0 would crop nothing.
    facts = {"name": "nyu", "crop": {"threshold": None, "iterations": ITERATIONS}}
    _write(out, config, facts, published.variables)
    return contents


def petrini(file: Path, out: Path) -> str:
    """Write a run folder of one of the files of Petrini et al. 2022 or Petrini & Kim 2025.

    The config is that of configs/single_view.py or configs/two_view.py for the file's network, with the published
    code's preprocessing: the whole image brought to 1152 × 896, no crop, no flip, on the scale of 0 … 1 minus
    13369/65535; for the network of VinDr-Mammo each image standardised. The published code reads 16-bit PNGs of that
    size; a DICOM is brought to it by area averaging.

    Args:
        file: of one or two views; torch's, or its tensors as safetensors.
        out: a new folder.

    Returns:
        The contents of the file, in words, and what of it is not used.

    Raises:
        BadCheckpoint: the file is none of them, or the folder is a run already.
    """
    network = _load(petrini_weights.load, file, out)
    trunk, task = network.model["trunk"], network.model["task"]
    row, learned = {
        "efficientnet_b0": ("2022", "cbis_ddsm"), "efficientnet_b3": ("2025", "cbis_ddsm"),
        "convnext_base": ("vindr", "vindr"),
    }[trunk]  # fmt: skip
    config = configs.get("two_view" if task == "two_view" else "single_view", row)
    for inner in ("patch", "single_view"):
        if inner in config:
            del config[inner]
    config.row = ""
    config.model.update(network.model)
    facts = {
        "name": "petrini", "kind": "whole", "split": config.data.split, "patch_size": config.data.patch_size,
        "mean": MEAN, "framing": Framing(tuple(config.data.size)).to_json(), "classes": ["not malignant", "malignant"],
        "learned_from": learned,
    }  # fmt: skip
    _write(out, json.loads(config.to_json_best_effort()), facts, network.variables)
    views = "two views" if task == "two_view" else "one view"
    where = {"cbis_ddsm": "CBIS-DDSM, official training patients", "vindr": "VinDr-Mammo"}[learned]
    return "; ".join([f"network of {views} on {trunk}, as published for {where}", *network.remarks])


def _load(load: Callable[[Path], Any], file: Path, out: Path) -> Any:
    """The network of a file, before anything is written; BadCheckpoint where there is none or `out` is a run."""
    if (out / "config.json").exists():
        raise BadCheckpoint(f'"{out}" is a run folder already; give another --out.')
    try:
        return load(file)
    except (ValueError, ModuleNotFoundError) as error:
        raise BadCheckpoint(str(error)) from None


def _write(out: Path, config: Mapping[str, Any], facts: Mapping[str, Any], variables: Any) -> None:
    """Write the run folder: config.json and the weights."""
    out.mkdir(parents=True, exist_ok=True)
    save_best(out, variables)
    (out / "config.json").write_text(json.dumps({"config": config, "facts": facts}, indent=2) + "\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mammojax convert`."""
    parser.add_argument(
        "kind",
        choices=["nyu", "petrini", "nyu-exam-list"],
        help="nyu, petrini: published weights → a run; nyu-exam-list: → a manifest",
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the run folder, or the manifest, to write")


def main(args: argparse.Namespace) -> int:
    """Run `mammojax convert`: write a run folder from published weights, or a manifest from an exam list."""
    if args.kind in ("nyu", "petrini"):
        contents = {"nyu": nyu, "petrini": petrini}[args.kind](args.file, args.out)
        print(f"{contents} → {args.out}", flush=True)
        return 0
    if not args.file.is_file():
        raise BadManifest(f'there is no file "{args.file}"; give the pickled exam list.')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    print(f"{nyu_list.write_manifest(args.file, args.out)} images → {args.out}", flush=True)
    return 0
