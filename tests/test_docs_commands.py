"""The commands of README and docs run, small: each line runs here, or in another test, or says what it needs."""

import csv
import shlex
from pathlib import Path

import pytest

from mammojax import cli
from mammojax.data import phantom_exams
from mammojax.data.dataset import Prepared
from mammojax.evaluate import table
from mammojax.reading.server import RoomServer
from tests.evaluate.conftest import data, exam_run  # noqa: F401
from tests.test_docs import PAGES, _blocks
from tests.tiny import IMAGES

# ml_collections loads a config's file by a method that Python 3.12 removes.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
SMALL = {
    "mammojax prepare cbis_ddsm": "--size 96x64 --patch-size 32 --workers 1 --data-dir cbis",
    "mammojax prepare phantom": "--patients 6 --size 96x64 --patch-size 32 --workers 1 --data-dir phantoms",
    "mammojax prepare manifest": "--patch-size 48 --iterations 5 --workers 1 --data-dir exams",
}
"""What makes a command small enough; options that are given twice count as the second time."""
RUN_HERE = (
    *SMALL, "mammojax predict --run runs/quickstart", "mammojax view", "mammojax readers", "mammojax reproduce",
)  # fmt: skip
ELSEWHERE = {
    "python launch.py --config configs/quickstart.py": "the fixture `finished` runs it, small",
    "PYTHONPATH=.": "tests/test_extension.py runs the parts of docs/extend.md",
    "python -m venv": "the test command and CI install so",
    ". .venv": "the test command and CI install so",
    "pip install": "the test command and CI install so",
    "pytest": "the test command",
    "mkdocs": "tests/test_docs.py builds the site",
    "pre-commit": "CONTRIBUTING.md, of a checkout",
}
NEEDS = {
    "mammojax prepare inbreast": "INbreast's images",
    "mammojax convert petrini": "published weights",
    "mammojax predict --run runs/petrini_two": "published weights",
    "MAMMOJAX_WEIGHTS=": "published weights",
    "mammojax predict --run RUN --patch-run": "published weights",
    "mammojax prepare manifest --source images.csv": "Apache Beam (tests/data/test_beam.py)",
    "mammojax predict --run runs/whole --input images.csv": "several machines (tests/evaluate/test_parts.py)",
    "mammojax matrix --runs end_to_end_0_0_0": "film mammograms, and hours",
    "mammojax train whole_resnet": "CBIS-DDSM's images, and two machines",
    "python launch.py --config configs/": "a data set at the paper's size, and hours",
    "python -m benchmarks": "film mammograms, and hours",
}
"""Commands that are parsed only (tests/test_docs.py), and what they need."""


def _starts(line: str, of: object) -> bool:
    return any(line.startswith(start) for start in of)  # type: ignore[attr-defined]


def _lines() -> list[str]:
    """The lines of all pages but docs/your-data.md, which a test of tests/test_docs.py follows."""
    return list(dict.fromkeys(line for page in PAGES if page.stem != "your-data" for line in _blocks(page)))


def test_every_command_runs_somewhere_or_says_what_it_needs() -> None:
    for line in _lines():
        assert _starts(line, RUN_HERE) or _starts(line, ELSEWHERE) or _starts(line, NEEDS), line
    for start in (*RUN_HERE, *NEEDS):
        assert any(line.startswith(start) for line in _lines()), start
    assert IMAGES[0] == "--config=configs/quickstart.py"


@pytest.mark.slow
def test_the_commands_run(
    finished: Path, data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    """One after the other, in a folder that holds what they name."""
    (tmp_path / "runs").mkdir()
    for name in ("quickstart", "whole_resnet"):
        (tmp_path / "runs" / name).symlink_to(finished)
    tree = next((finished.parent / "data").rglob("calc_case_description_test_set.csv")).parent
    for name in ("DIR", "CBIS-DDSM"):
        (tmp_path / name).symlink_to(tree)
    films = sorted((p for p in tree.rglob("*.dcm") if p.stat().st_size > 5_000), key=lambda p: -p.stat().st_size)
    (tmp_path / "FOLDER").mkdir()
    for k, film in enumerate(films[:4]):
        (tmp_path / "FOLDER" / f"{k}.dcm").symlink_to(film)
    phantom_exams.write_exams(tmp_path, exams=12, image_size=(144, 96))
    exam_run(tmp_path / "RUN", data)
    breasts = table.read_csv(tmp_path / "RUN" / "predictions" / "test.csv")
    (tmp_path / "readings").mkdir()
    with (tmp_path / "readings" / "readers.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("reader", "exam_id", "laterality", "p_malignant"))
        writer.writerows(("ann", row.exam_id, row.laterality, 0.01 * k) for k, row in enumerate(breasts.itertuples()))

    def interrupted(server: RoomServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RoomServer, "serve_forever", interrupted)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for line in (line for line in _lines() if _starts(line, RUN_HERE) and not _starts(line, NEEDS)):
        more = next((options for start, options in SMALL.items() if line.startswith(start)), "")
        assert cli.main(shlex.split(f"{line} {more}")[1:]) == 0, line
    for name in ("scores/predictions.html", "study/readers.html", "shen2019.html", "petrini2025.html"):
        assert (tmp_path / name).is_file()
