"""`mammojax export`: a run's network as one file for programs without this package, and its facts beside it."""

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export as jax_export
from safetensors.numpy import save

from mammojax.data.recipe import patch_side
from mammojax.errors import BadCheckpoint
from mammojax.evaluate import provenance
from mammojax.evaluate.calibration import FILE as CALIBRATION
from mammojax.evaluate.calibration import Calibration
from mammojax.models import classifiers, multi_view, torch_trunk
from mammojax.train.checkpoint import restore_best
from mammojax.vocabulary import BIRADS, LABELS, PAIRS, VIEWS

FORMATS = ("stablehlo", "onnx", "safetensors")
PLATFORMS = ("cpu", "cuda", "tpu")
_GRAY = "gray values 0 … 65535 of {}, [batch, height, width, 1]"
_NO_ONNX = (
    "no exporter to ONNX fits these networks: jax2onnx, the one that is kept up, needs another orbax-checkpoint than "
    "this package; write --format stablehlo, which every XLA reads, or --format safetensors for the trunk."
)


def stablehlo(run: Path, file: Path) -> dict[str, Any]:
    """Write a run's network as StableHLO, from stored gray values to class probabilities, for any batch.

    `jax.export.deserialize(bytes).call(input)` runs it, without this package. The input is the image as `prepare` and
    `ImagePredictor.frame` have it; the mean, the scale and the softmax are inside. A two-view network takes {"CC":
    images, "MLO": images}, an exam network {"L-CC": windows, …} as `ExamPredictor.windows` makes them.

    Args:
        run: a finished run.
        file: to write; FILE.json gets the facts that are returned.

    Raises:
        BadCheckpoint: the run cannot be exported.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise BadCheckpoint("writing StableHLO needs flatbuffers: pip install 'mammojax[export]'.")
    config, facts, variables = restore_best(run)
    inputs, meaning = _inputs(config, facts)
    exported = jax_export.export(jax.jit(_network(config, facts, variables)), platforms=PLATFORMS)(inputs)
    file.write_bytes(exported.serialize())
    target = config.model.get("target", "")
    classes = list(BIRADS) if target == "birads" else ["absent", "present"] if target else facts["classes"]
    return _write_facts(
        run, provenance.of_run(run), file, "stablehlo", facts,
        input={"dtype": str(jax.tree.leaves(inputs)[0].dtype), "meaning": meaning, "shape": _shapes(inputs)},
        output={"dtype": "float32", "meaning": "probabilities", "shape": _shapes(exported.out_avals[0]),
                "classes": classes, **({"rows": list(LABELS)} if target == "cancer" else {})},
        platforms=list(PLATFORMS), jax=jax.__version__,
    )  # fmt: skip


def _inputs(config: Any, facts: dict[str, Any]) -> tuple[Any, str]:
    """Shapes and dtypes of the network's inputs, with a symbolic batch, and their meaning."""
    (batch,) = jax_export.symbolic_shape("batch")
    if config.model.task == "exam":
        views = [view for view in VIEWS if view[2:] in config.model.angles]
        shapes = {view: (batch, *config.exam.sizes[view[2:]], config.model.channels) for view in views}
        meaning = "windows of cropped images that face right, as ExamPredictor.windows makes them: the image "
        meaning += "standardised, and the two heatmaps where there are three channels"
        return {view: jax.ShapeDtypeStruct(shape, jnp.float32) for view, shape in shapes.items()}, meaning
    if config.model.task in ("patch", "exam_patch"):
        side = patch_side(config.data.kind, config.data.patch_size, config.data.get("context", 0))
        size, what = (side, side), "a patch, not resized"
    else:
        size, what = facts["framing"]["size"], "a mammogram brought to the network's size, see framing"
    if facts["mean"] is None:
        image = jax.ShapeDtypeStruct((batch, *size, 1), jnp.float32)
        return image, "patches of a standardised image (mean 0, standard deviation 1), [batch, height, width, 1]"
    image = jax.ShapeDtypeStruct((batch, *size, 1), jnp.uint16)
    if config.model.task == "two_view":
        return dict.fromkeys(PAIRS[config.model.get("pair", "views")], image), _GRAY.format(what)
    return image, _GRAY.format(what)


def _network(config: Any, facts: dict[str, Any], variables: Any) -> Callable[[Any], jax.Array]:
    """The function that is written: the inputs of `_inputs` → probabilities."""
    model = config.model
    if model.task == "exam":
        views = multi_view.build(model)
        return lambda images: multi_view.probabilities(views.apply(variables, images)[0])
    network = classifiers.build(model)

    def probabilities(images: Any) -> jax.Array:
        x = classifiers.as_input(images, facts["mean"], model.channels, model.get("normalise", "mean"))
        return jax.nn.softmax(network.apply(variables, x)[0], axis=-1)

    return probabilities


def _shapes(tree: Any) -> Any:
    """The shapes of arrays, as JSON has them: "batch" for the symbolic one."""
    if isinstance(tree, dict):
        return {name: _shapes(leaf) for name, leaf in tree.items()}
    return [n if isinstance(n, int) else str(n) for n in tree.shape]


def safetensors(run: Path, file: Path) -> dict[str, Any]:
    """Write a run's trunk by the names of torchvision's networks (of EfficientNet-Lite's port, for those).

    Args, Raises: as `stablehlo`.
    """
    config, facts, variables = restore_best(run)
    if config.model.task == "exam":
        raise BadCheckpoint(
            f'"{run}" is an exam network: torchvision has none like it; write --format stablehlo, or its patch run.'
        )
    try:
        trunk = torch_trunk.of(config.model, variables)
    except ValueError as error:
        raise BadCheckpoint(f'"{run}": {error}, or write --format stablehlo.') from None
    origin = provenance.of_run(run)
    labels = {"use": origin["use"], "config_sha256": origin["config_sha256"]}
    file.write_bytes(save(trunk.arrays, labels))  # save_file would make a file that its owner alone may read
    scale = {"mean": "0 … 255", "unit": "0 … 1", "image": "each image standardised"}[
        config.model.get("normalise", "mean")
    ]
    loads_in = trunk.loads_in or "none: no published network has this width and number of blocks"
    return _write_facts(
        run, origin, file, "safetensors", facts,
        input={"dtype": "float32", "meaning": "the gray image three times, less the mean, divided by std",
               "scale": scale, "std": list(trunk.std), "shape": ["batch", 3, "height", "width"]},
        loads_in=loads_in, classifier=trunk.classifier, remarks=trunk.remarks,
        left_out=[name for name in variables["params"] if name not in ("trunk", "classifier" * bool(trunk.classifier))],
    )  # fmt: skip


def _write_facts(
    run: Path, origin: dict[str, Any], file: Path, kind: str, facts: dict[str, Any], **more: Any
) -> dict[str, Any]:  # fmt: skip
    """Write FILE.json: what the file holds and takes, and where it comes from, which is printed too; return it."""
    calibration = Calibration.load(run)
    contents = {
        "file": file.name, "format": kind, **more,
        "framing": facts.get("framing"), "mean": facts["mean"], "classes": facts["classes"],
        "operating_points": calibration.points if calibration else [],
        "temperature": calibration.temperature if calibration else None,
        "operating_points_hold_for": f"scores with --tta {calibration.tta}, see {CALIBRATION}" if calibration else None,
    }  # fmt: skip
    provenance.write(file.with_name(f"{file.name}.json"), [origin], **contents)
    print(provenance.sentence(origin))
    return contents


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mammojax export`."""
    parser.add_argument("--run", type=Path, required=True, help="a finished run")
    parser.add_argument("--output", type=Path, required=True, help="the file to write; facts go into FILE.json")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        required=True,
        help="stablehlo: the whole network; safetensors: its trunk for torch",
    )


def main(args: argparse.Namespace) -> int:
    """Run `mammojax export`; see `stablehlo` and `safetensors`."""
    if args.format == "onnx":
        raise BadCheckpoint(_NO_ONNX)
    if args.output.is_dir():
        raise BadCheckpoint(f'"{args.output}" is a folder; give --output a file.')
    args.output.parent.mkdir(parents=True, exist_ok=True)
    contents = {"stablehlo": stablehlo, "safetensors": safetensors}[args.format](args.run, args.output)
    if args.format == "safetensors":
        print(f"loads in {contents['loads_in']}" + "".join(f"; {remark}" for remark in contents["remarks"]))
    print(f"→ {args.output}, {args.output}.json", flush=True)
    return 0
