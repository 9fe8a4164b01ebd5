"""Published weights as run folders, which `mammojax predict --run` and `mammojax.restore` take like any other."""

import argparse
import json
from pathlib import Path
from typing import Any

from mammojax.data import nyu_list
from mammojax.data.breast import ITERATIONS
from mammojax.data.sliding import PATCH, STRIDE
from mammojax.data.window import NOISE, SIZES
from mammojax.errors import BadCheckpoint, BadManifest
from mammojax.models import nyu_weights
from mammojax.models.multi_view import MultiView
from mammojax.train.checkpoint import save_best
from mammojax.vocabulary import EXAM_PATCH_CLASSES


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
    if (out / "config.json").exists():
        raise BadCheckpoint(f'"{out}" is a run folder already; give another --out.')
    try:
        published = nyu_weights.load(file)
    except (ValueError, ModuleNotFoundError) as error:
        raise BadCheckpoint(str(error)) from None
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
    out.mkdir(parents=True, exist_ok=True)
    save_best(out, published.variables)
    # None, not the code's 0: on the code's images the computed threshold is 0, and on others 0 would crop nothing.
    facts = {"name": "nyu", "crop": {"threshold": None, "iterations": ITERATIONS}}
    (out / "config.json").write_text(json.dumps({"config": config, "facts": facts}, indent=2) + "\n")
    return contents


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mammojax convert`."""
    parser.add_argument(
        "kind", choices=["nyu", "nyu-exam-list"], help="nyu: published weights → a run; nyu-exam-list: → a manifest"
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the run folder, or the manifest, to write")


def main(args: argparse.Namespace) -> int:
    """Run `mammojax convert`: write a run folder from published weights, or a manifest from an exam list."""
    if args.kind == "nyu":
        print(f"{nyu(args.file, args.out)} → {args.out}", flush=True)
        return 0
    if not args.file.is_file():
        raise BadManifest(f'there is no file "{args.file}"; give the pickled exam list.')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    print(f"{nyu_list.write_manifest(args.file, args.out)} images → {args.out}", flush=True)
    return 0
