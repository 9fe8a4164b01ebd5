"""The commands of `mammojax`, each a thin call of what does the work."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from mammojax import extension
from mammojax.errors import BadDataset, BadManifest, UserError

_FIGURES = ("saliency", "heatmap", "confusion", "intensity", "loss")
_EXAM_FIGURES = ("lesions", "exam-heatmaps", "umap")


class _DataSets(tuple[str, ...]):
    """The data sets that `prepare` takes: those listed, and any of one's own, "package.module:name"."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or extension.named(str(name))


def _size(text: str) -> tuple[int, int]:
    """HEIGHTxWIDTH as two numbers."""
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f'"{text}" is not a size; write HEIGHTxWIDTH, such as 1152x896')
    return int(height), int(width)


def _share(text: str) -> float:
    """A number between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'"{text}" is not a share; write a number from 0 to 1')
    return value


def _count(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'"{text}" is not a number of things; write a whole number from 0 on')
    return int(text)


def _file(*suffixes: str) -> Callable[[str], Path]:
    """A file to write, by its ending; its folder is made."""

    def read(text: str) -> Path:
        path = Path(text)
        if path.suffix.lower() not in suffixes:
            raise argparse.ArgumentTypeError(f'"{text}" must end in {" or ".join(suffixes)}')
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    return read


def _folder(text: str) -> Path:
    """A folder to write into, which may not be there yet."""
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f'"{text}" is a file; name a folder')
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mammojax", description="Screening mammography in JAX.")
    commands = parser.add_subparsers(dest="command", required=True)

    prepare = commands.add_parser("prepare", help="make a data set of DICOMs ready for training")
    prepare.set_defaults(act=_prepare)
    prepare.add_argument("name", choices=_DataSets(("cbis_ddsm", "inbreast", "manifest", "phantom", "phantom_exams")))
    prepare.add_argument("--source", type=Path, help="the downloaded folder, or the manifest's CSV")
    prepare.add_argument("--data-dir", type=Path, default=Path.home() / "mammojax_data")
    prepare.add_argument(
        "--kinds", help="whole, patches_s10, patches_s1, patches_s1g; exams, exam_patches (default: the first two)"
    )
    prepare.add_argument("--size", type=_size, default=(1152, 896), metavar="HxW")
    prepare.add_argument("--patch-size", type=int, help="default: 224, of exams 256")
    prepare.add_argument(
        "--threshold", type=_count, help="of exams: tissue is above this gray value of 0 to 65535; else found by image"
    )
    prepare.add_argument("--iterations", type=_count, default=100, help="of exams: the crop's erosion in pixels")
    prepare.add_argument("--crop", choices=["none", "breast"], default="none")
    prepare.add_argument("--keep-aspect", action="store_true")
    prepare.add_argument("--split", choices=["shen", "official", "all"], default="shen")
    prepare.add_argument("--map", default="", help="a manifest's words for pathologies, such as 0=BENIGN,1=MALIGNANT")
    prepare.add_argument("--seed", type=int, default=0)
    prepare.add_argument("--workers", type=int, default=1)
    prepare.add_argument("--patients", type=int, default=340, help="of the phantom")
    prepare.add_argument("--exams", type=int, default=300, help="of the phantom exams")
    prepare.add_argument(
        "--first-exam", type=_count, default=0, help="of the phantom exams: other exams, other patients"
    )
    prepare.add_argument("--phantom-seed", type=int, default=0)
    prepare.add_argument("--contrast", type=float, default=1.0, help="factor of the phantom's lesion contrast")
    prepare.add_argument("--both-breasts", action="store_true", help="the phantom's normal breasts too, in a manifest")

    predict = commands.add_parser("predict", help="score mammograms with a trained run")
    predict.set_defaults(act=_predict)
    predict.add_argument("--run", type=Path, required=True, action="append", help="the run's folder; several average")
    predict.add_argument("--input", type=Path, required=True, help="a DICOM or 16-bit PNG, a folder, or a manifest")
    predict.add_argument("--output", type=_folder, required=True, help="folder for predictions.csv and rejected.csv")
    predict.add_argument("--tta", choices=["none", "flips", "random10"], default="none", help="random10: exams")
    predict.add_argument("--any-modality", action="store_true", help="DICOMs of other modalities than mammography too")
    predict.add_argument("--patch-run", type=Path, help="the patch network of exam networks that take heatmaps")
    predict.add_argument(
        "--threshold", type=_count, help="of exams: tissue is above this gray value of 0 to 65535; else as in training"
    )

    compare = commands.add_parser("compare", help="runs beside each other, their ensemble, two views, operating points")
    compare.set_defaults(act=_compare)
    compare.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a whole-image run")
    compare.add_argument("--split", choices=["test", "val"], default="test")
    compare.add_argument("--sensitivity", type=_share, default=0.86, help="what operating points aim at")
    compare.add_argument("--output", type=_folder, help="a folder for compare.html, compare.json and roc.png")

    populations = commands.add_parser("populations", help="exam runs by breast: screening, biopsied, subgroups")
    populations.set_defaults(act=_populations)
    populations.add_argument("--run", type=Path, required=True, action="append", help="an exam run; several average")
    populations.add_argument(
        "--split", choices=["test_random10", "test", "val_random10", "val"], default="test_random10"
    )
    populations.add_argument("--by", action="append", default=[], help="a column of the manifest, such as density")
    populations.add_argument("--readers", type=Path, help="a reader study's CSV: the breasts read are measured too")
    populations.add_argument("--output", type=_file(".json"), help="also write the numbers to this file")

    readers = commands.add_parser("readers", help="a reader study beside exam runs: curves, hybrids, Figs. 8 and 9")
    readers.set_defaults(act=_readers)
    readers.add_argument("--run", type=Path, required=True, action="append", help="an exam run; several average")
    readers.add_argument("--readers", type=Path, required=True, help="CSV of reader, exam_id, laterality, p_malignant")
    readers.add_argument("--split", choices=["test_random10", "test"], default="test_random10")
    readers.add_argument("--output", type=_folder, required=True)

    localise = commands.add_parser("localise", help="do saliency and heatmaps light up where the lesions are?")
    localise.set_defaults(act=_localise)
    localise.add_argument("--run", type=Path, required=True, help="a whole-image run whose data set has lesion masks")
    localise.add_argument("--split", choices=["test", "val"], default="test")
    localise.add_argument("--images", type=_count, default=0, help="only so many malignant and so many others")
    localise.add_argument("--tolerance", type=_count, default=0, help="of the pointing game, pixels")
    localise.add_argument("--json", type=_file(".json"), help="also write the numbers to this file")

    two_step = commands.add_parser("two-step", help="the random-forest baseline on the patch classifier's heatmaps")
    two_step.set_defaults(act=_two_step)
    two_step.add_argument("--run", type=Path, required=True, help="a whole-image run; it names the images")
    two_step.add_argument("--output", type=_folder, required=True)
    two_step.add_argument("--patch-run", type=Path, help="the patch classifier; else the one the run started from")
    two_step.add_argument("--min-split", type=int, default=300, help="images a node needs to split; the paper's 300")

    figure = commands.add_parser("figure", help="a figure of the papers from finished runs")
    figure.set_defaults(act=_figure)
    figure.add_argument("name", choices=[*_FIGURES, *_EXAM_FIGURES], help=f"of exams: {', '.join(_EXAM_FIGURES)}")
    figure.add_argument("--run", type=Path, required=True, action="append", help="a run's folder; some take several")
    figure.add_argument("--split", choices=["test", "val"], default="test")
    figure.add_argument("--readers", type=Path, help="of umap: colour by what readers say")
    figure.add_argument("--output", type=_file(".png", ".pdf", ".svg"), required=True)

    reproduce = commands.add_parser("reproduce", help="a paper's tables, its values beside those of your runs")
    reproduce.set_defaults(act=_reproduce)
    reproduce.add_argument("paper", choices=["shen2019", "wu2019"])
    reproduce.add_argument("--runs", type=Path, required=True, help="the folder that holds the run folders")
    reproduce.add_argument("--readers", type=Path, help="of wu2019: a reader study's CSV, for the hybrid rows")
    reproduce.add_argument("--output", type=_file(".html"), help="also write the tables to this .html file")

    convert = commands.add_parser("convert", help="files of published code as ours")
    convert.set_defaults(act=_convert)
    convert.add_argument(
        "kind", choices=["nyu", "nyu-exam-list"], help="nyu: published weights → a run; nyu-exam-list: → a manifest"
    )
    convert.add_argument("file", type=Path)
    convert.add_argument("--out", type=Path, required=True, help="the run folder, or the manifest, to write")
    return parser


def _prepare(args: argparse.Namespace) -> int:
    from mammojax.data.prepare import prepare
    from mammojax.data.recipe import PHANTOMS, Recipe

    if args.name not in PHANTOMS and args.source is None:
        raise BadDataset(f"prepare {args.name} needs --source: the folder or file to read.")
    usual = "exams,exam_patches" if args.name == "phantom_exams" else "whole,patches_s10"
    kinds = tuple((args.kinds or usual).split(","))
    recipe = Recipe(
        args.name, kinds[0], args.data_dir, args.source, split=args.split, seed=args.seed,
        patch_size=args.patch_size or (256 if "exam_patches" in kinds else 224), label_map=args.map, size=args.size,
        crop=args.crop, keep_aspect=args.keep_aspect, threshold=args.threshold, iterations=args.iterations,
        patients=args.patients, both_breasts=args.both_breasts, exams=args.exams, first_exam=args.first_exam,
        phantom_seed=args.phantom_seed, contrast=args.contrast,
    )  # fmt: skip
    for path in prepare(recipe, kinds, args.workers):
        print(path)
    return 0


def _predict(args: argparse.Namespace) -> int:
    from mammojax.evaluate import predict

    return predict.predict(
        args.run, args.input, args.output, args.tta, args.patch_run, args.any_modality, args.threshold
    )


def _compare(args: argparse.Namespace) -> int:
    from mammojax.evaluate import compare

    compare.write(args.runs, args.output, args.split, args.sensitivity)
    return 0


def _populations(args: argparse.Namespace) -> int:
    from mammojax.evaluate import populations

    populations.write(args.run, args.split, args.by, args.output, args.readers)
    return 0


def _readers(args: argparse.Namespace) -> int:
    from mammojax.evaluate import readers

    readers.write(args.run, args.readers, args.output, args.split)
    return 0


def _localise(args: argparse.Namespace) -> int:
    from mammojax.evaluate import localise

    localise.write(args.run, args.split, args.images, args.tolerance, args.json)
    return 0


def _two_step(args: argparse.Namespace) -> int:
    from mammojax.evaluate import two_step

    two_step.write(args.run, args.output, args.patch_run, args.min_split)
    return 0


def _figure(args: argparse.Namespace) -> int:
    if args.name in _EXAM_FIGURES:
        from mammojax.evaluate import exam_figures

        exam_figures.write(args.name, args.run[0], args.output, args.split, args.readers)
        return 0
    from mammojax.evaluate import figures

    figures.write(args.name, args.run, args.output, args.split)
    return 0


def _reproduce(args: argparse.Namespace) -> int:
    from mammojax.papers import tables

    tables.write(args.paper, args.runs, args.output, args.readers)
    return 0


def _convert(args: argparse.Namespace) -> int:
    if args.kind == "nyu":
        from mammojax import convert

        print(f"{convert.nyu(args.file, args.out)} → {args.out}", flush=True)
        return 0
    from mammojax.data import nyu_list

    if not args.file.is_file():
        raise BadManifest(f'there is no file "{args.file}"; give the pickled exam list.')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    print(f"{nyu_list.write_manifest(args.file, args.out)} images → {args.out}", flush=True)
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line; 0, 2 for a request that cannot work, 3 when no image could be predicted."""
    args = _parser().parse_args(argv)
    try:
        return args.act(args)
    except UserError as error:
        print(f"mammojax: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
