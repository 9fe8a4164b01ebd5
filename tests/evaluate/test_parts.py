"""Prediction in parts, by several processes or Beam's workers: the files of one process, byte for byte."""

import contextlib
import json
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import pytest

from mammojax import cli, processes
from mammojax.data import phantom_exams
from mammojax.errors import BadCheckpoint, BadConfig
from mammojax.evaluate import parts, predict
from tests import untrained
from tests.tiny import ROOT, together


class _Workers:
    """What Beam's runner does, without Beam: tasks are pickled, done in any order, and one of them twice."""

    def each(self, work: Callable[[Any], None], items: Sequence[Any]) -> None:
        for item in [*reversed(items), *items[:1]]:
            pickle.loads(pickle.dumps(work))(pickle.loads(pickle.dumps(item)))  # noqa: S301


WORKERS: Any = _Workers()
_batches: list[list[int]] = []


def _nothing() -> None:
    return None


def _doubled(_: None, items: parts.Numbered, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, len(items), size):
        _batches.append([position for position, _ in items[start : start + size]])
        yield from ((position, 2 * item) for position, item in items[start : start + size])


DOUBLED = parts.Work(_nothing, (), _doubled, ())


@pytest.mark.parametrize("items", [0, 1, 7, 24])
@pytest.mark.parametrize("count", [1, 2, 4, None])
def test_each_item_is_in_one_part_and_its_batch_is_that_of_one_process(
    items: int, count: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`count` None: Beam's workers. Processes are tried one after the other, the first one last, as it waits."""
    given, results = [10 + k for k in range(items)], []

    def write(scored: Iterator[Any]) -> int:
        results.extend(tuple(result) for result in scored)
        return 7

    _batches.clear()
    for k in reversed(range(count or 1)):
        with monkeypatch.context() as patch:
            if count and count > 1:
                patch.setattr(jax, "process_count", lambda: count)
                patch.setattr(jax, "process_index", lambda k=k: k)
                patch.setattr(processes, "in_turn", lambda k=k: contextlib.nullcontext(not k))
                patch.setattr(processes, "of_first", lambda codes: {"code": 7})
            runner = None if count else WORKERS
            patch.setattr(parts, "MOST", 3)
            assert parts.run(DOUBLED, None, given, 3, tmp_path, "item", write, runner) == 7
    assert results == [(k, 2 * item) for k, item in enumerate(given)]
    alone = [list(range(start, min(start + 3, items))) for start in range(0, items, 3)]
    once = _batches if count else _batches[: len(alone)]  # the last ones are of the part that is done twice
    assert sorted(once) == alone
    assert not (tmp_path / parts.FOLDER).exists()


RUNS = {"whole": untrained.whole, "pairs": untrained.pairs, "exams": untrained.exams}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images/, of which one is broken, their manifest, and untrained runs of each kind."""
    folder = tmp_path_factory.mktemp("study")
    phantom_exams.write_exams(folder, exams=3, image_size=(96, 64))
    sorted((folder / "images").glob("*.dcm"))[5].write_bytes(b"no DICOM")
    for name, save in RUNS.items():
        path = save(folder / name) / "config.json"
        contents = json.loads(path.read_text())
        contents["config"]["eval_batch"] = 3
        path.write_text(json.dumps(contents))
    return folder


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def _assert_equal(ours: Path, theirs: Path) -> None:
    files, reference = _files(ours), _files(theirs)
    assert list(files) == list(reference)
    assert [name for name in reference if files[name] != reference[name]] == []


def _predict(study: Path, kind: str, out: Path, runner: Any) -> int:
    """Images from their manifest with overlays; pairs and exams from a folder, by headers with ids as they are."""
    source = study / ("manifest.csv" if kind == "whole" else "images")
    drawn = "heatmap" if kind == "whole" else ""
    return predict.predict([study / kind], source, out, drawn=drawn, asymmetry=True, ids="keep", runner=runner)


@pytest.mark.parametrize("kind", RUNS)
def test_workers_write_the_files_of_one_process(study: Path, kind: str, tmp_path: Path) -> None:
    assert _predict(study, kind, tmp_path / "plain", None) == 0
    assert _predict(study, kind, tmp_path / "workers", WORKERS) == 0
    _assert_equal(tmp_path / "workers", tmp_path / "plain")
    rejected = (tmp_path / "plain" / "rejected.csv").read_text()
    assert rejected.count("E_00002_2_L_CC.dcm,") == 1
    if kind == "whole":
        rows = (tmp_path / "plain" / "predictions.csv").read_text().splitlines()[1:]
        assert sorted(path.name for path in (tmp_path / "plain" / "overlays").iterdir()) == sorted(
            f"{k + 1}.png" for k in range(len(rows))
        )


@pytest.mark.filterwarnings("ignore")  # Beam's and its dependencies' own
def test_beam_writes_the_files_of_one_process(study: Path, tmp_path: Path) -> None:
    pytest.importorskip("apache_beam", reason="Beam is not installed: pip install 'mammojax[beam]'")
    command = ["predict", "--run", str(study / "whole"), "--input", str(study / "manifest.csv"), "--overlays"]
    assert cli.main([*command, "--output", str(tmp_path / "plain")]) == 0
    assert cli.main([*command, "--output", str(tmp_path / "beam"), "--beam-runner", "DirectRunner"]) == 0
    _assert_equal(tmp_path / "beam", tmp_path / "plain")


def test_what_cannot_be_shared_is_refused(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "in.zip"
    archive.write_bytes(b"")
    with pytest.raises(ValueError, match=r"unpack it and give the folder"):
        predict.predict([study / "whole"], archive, tmp_path / "out", runner=WORKERS)
    contents = json.loads((study / "exams" / "config.json").read_text())
    contents["config"]["exam"]["random"] = "published"
    run = untrained.exams(tmp_path / "exams")
    (run / "config.json").write_text(json.dumps(contents))
    with pytest.raises(BadCheckpoint, match="draws all windows from one stream"):
        predict.predict([run], study / "manifest.csv", tmp_path / "out", runner=WORKERS)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(processes, "several", lambda: True)
    with pytest.raises(BadConfig, match="start one process"):
        parts.run(DOUBLED, None, [1], 1, tmp_path, "item", len, WORKERS)  # type: ignore[arg-type]


PROGRAM = """
import sys
from pathlib import Path
from mammojax import cli
from mammojax.evaluate import predict
study, out, joined = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
command = ["predict", "--run", str(study / "whole"), "--input", str(study / "manifest.csv"), "--overlays"]
code = cli.main([*command, "--output", str(out / "whole"), "--asymmetry", *joined])
for kind in ("pairs", "exams"):  # by headers
    code = code or predict.predict([study / kind], study / "images", out / kind, asymmetry=True, ids="keep")
sys.exit(code)
"""


@pytest.mark.slow
def test_two_and_four_processes_write_the_files_of_one(study: Path, tmp_path: Path) -> None:
    settings = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    for count in (1, 2, 4):
        line = [sys.executable, "-c", PROGRAM, str(study), str(tmp_path / str(count))]
        printed = together(line, count, settings, 900)
        assert [text.count("predicted, ") for text in printed] == [3] + [0] * (count - 1)  # one process prints
        _assert_equal(tmp_path / str(count), tmp_path / "1")
