"""`mammojax view`: mammograms on a local web page, with what a run says of them; reader studies; notes on errors."""

import argparse
import contextlib
from pathlib import Path

import pandas as pd

from mammojax import arguments
from mammojax.data import archive, manifest
from mammojax.errors import BadConfig
from mammojax.evaluate import table
from mammojax.reading import worklist
from mammojax.reading.marks import Marks
from mammojax.reading.room import Room
from mammojax.reading.server import RoomServer
from mammojax.train.checkpoint import read_config


def open_room(
    source: Path, run: Path | None = None, scores: Path | None = None, split: str = "test", mark: Path | None = None,
    blind: str = "", words: str = "",
) -> Room:  # fmt: skip
    """The reading room of a run, a manifest, a folder or an image.

    Args:
        source: a run folder, of which the images of a split are shown with their scores; or images.
        run: a whole-image run for heatmaps and dropped files; None: the source, if that is one.
        scores: a table that `mammojax predict` or a run wrote of these images.
        split: of a run.
        mark: the folder of what is marked; None: nothing can be.
        blind: the reader of a blind reading.
        words: the meaning of a manifest's words for pathologies, see `manifest.read_map`.

    Raises:
        UserError: one of them cannot be used.
    """
    if blind and mark is None:
        raise BadConfig("a blind reading has to be kept: name a folder with --mark.")
    marks = Marks(mark) if mark else None
    if (source / "config.json").is_file():
        if scores:
            raise BadConfig("a run has its own scores; give --scores with a manifest or a folder.")
        listed = worklist.of_run(source, split)
        run = run or source
    else:
        listed = worklist.of_input(source, manifest.read_map(words), mark)
        if scores:
            listed = worklist.joined(listed, _scores(scores))
    if run and read_config(run)[0].model.task != "whole":
        print("no heatmaps and no dropped files: they are for runs of single mammograms", flush=True)
        run = None
    return Room(listed, run, marks, blind)


def _scores(path: Path) -> pd.DataFrame:
    frame = table.read_csv(path) if path.is_file() else None
    if frame is None or "p_malignant" not in frame or not {"image", "exam_id"} & set(frame):
        raise BadConfig(f'"{path}": it is no table of predictions; give a predictions.csv or a breasts.csv.')
    return frame


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mammojax view`."""
    parser.add_argument("input", metavar="RUN|MANIFEST|FOLDER", type=Path, help="what to look at; a .zip or a file too")
    parser.add_argument("--run", type=Path, help="a whole-image run for heatmaps and for files dropped on the page")
    parser.add_argument("--scores", type=Path, metavar="CSV", help="a predictions.csv or breasts.csv of these images")
    parser.add_argument("--split", choices=["test", "val", "test_flips", "val_flips"], default="test", help="of a run")
    parser.add_argument("--map", default="", help="a manifest's words for pathologies, such as 0=BENIGN,1=MALIGNANT")
    parser.add_argument("--mark", type=arguments.folder, metavar="FOLDER", help="keep tags, comments and readings here")
    parser.add_argument("--blind", default="", metavar="READER", help="a reading without labels, scores and names")
    parser.add_argument("--port", type=int, default=0, help="of the loopback interface; any free one where not given")


def main(args: argparse.Namespace) -> int:
    """Run `mammojax view` until it is interrupted."""
    with contextlib.ExitStack() as stack:
        source = args.input
        if source.suffix.lower() == ".zip":
            source = stack.enter_context(archive.as_folder(source))
        room = open_room(source, args.run, args.scores, args.split, args.mark, args.blind, args.map)
        server = stack.enter_context(RoomServer(room, args.port))
        for file, reason in room.worklist.rejected[:5]:
            print(f"not shown: {file}: {reason}")
        count, rest = len(room.worklist.images), len(room.worklist.rejected)
        print(f"{count} images of {len(room.worklist.cases)} exams" + (f"; {rest} not shown" if rest else ""))
        print(f"{server.address}\nopen it in a browser on this machine; Ctrl-C ends it. Research use only.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0
