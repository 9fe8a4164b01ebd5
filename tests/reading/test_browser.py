"""The reading room in a browser: it opens, zooms, pans, slides the threshold, marks, exports, scores a dropped file."""

import base64
import csv
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mammojax import cli
from mammojax.data.dataset import Prepared
from mammojax.evaluate import reader_file
from mammojax.reading.marks import FILE, READS
from tests.evaluate.conftest import data, exam_run, films  # noqa: F401
from tests.tiny import ROOT, environment

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRAWN = "() => views.length > 0 && views.every((view) => view.items.length === 1)"
PLACE = "() => [views[0].viewer.viewport.getCenter().x, views[0].viewer.viewport.getZoom()]"
EDGES = """() => views.map((view) => {
    const { x, width } = view.viewer.viewport.getBounds();
    return view.image.laterality === "R" ? 1 - (x + width) : x;
})"""
PLACES = """() => views.map((view) => {
    const { left, top, width, height } = view.panel.getBoundingClientRect();
    const strip = document.createElement("canvas").getContext("2d");
    const canvas = view.panel.querySelector("canvas");
    strip.drawImage(canvas, 0, 0, 9, 9);
    const gray = strip.getImageData(0, 0, 9, 9).data;
    const rows = [...Array(9).keys()];
    const sum = (columns) => columns.reduce((s, x) => s + rows.reduce((t, y) => t + gray[4 * (9 * y + x)], 0), 0);
    return { name: `${view.image.laterality}-${view.image.view}`, x: left + width / 2, y: top + height / 2,
             left: sum([0, 1, 2, 3]), right: sum([5, 6, 7, 8]) };
})"""
DROP = """(text) => {
    const data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], "dropped.dcm"));
    return data;
}"""

LATE = """() => {
    const send = window.fetch;
    window.fetch = async (...request) => {
        const answer = await send(...request);
        if (request[1]?.method === "POST") await new Promise((wake) => setTimeout(wake, 1000));
        return answer;
    };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if BROWSER is None:
        pytest.skip("there is no Chromium on the path")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def _until(page: Any, condition: str, seconds: float = 120) -> None:
    """Wait until a function of the page is true; the page's own policy forbids playwright's way of waiting for that."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(100)


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """Start `mammojax view` with arguments and open its page; errors of the page and requests to elsewhere fail."""
    servers, wrong = [], []

    def start(*arguments: str) -> Any:
        line = [sys.executable, "-m", "mammojax.cli", "view", *arguments]
        # a program in the background of a script ignores Ctrl-C, and so would what it starts
        line = ["env", "--default-signal=INT", *line]
        server = subprocess.Popen(line, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)
        servers.append(server)
        address = next(printed.strip() for printed in server.stdout if printed.startswith("http://127.0.0.1:"))
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        own = (address, "blob:http://127.0.0.1", "data:")
        page.on("request", lambda asked: None if asked.url.startswith(own) else wrong.append(asked.url))
        page.goto(address)
        page.wait_for_selector("#list button[aria-current=true]")
        _until(page, DRAWN)
        return page

    yield start
    for server in servers:
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
        server.stdout.close()
    assert wrong == []


@pytest.mark.slow
def test_a_run_is_looked_at_and_marked(visit: Any, finished: Path, films: list[Path], tmp_path: Path) -> None:  # noqa: F811
    page = visit(str(finished), "--mark", str(tmp_path))

    before = page.evaluate(PLACE)
    box = page.locator(".view").first.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.wheel(0, -500)
    page.wait_for_timeout(800)
    page.mouse.down()
    page.mouse.move(middle[0] + 60, middle[1] + 40, steps=6)
    page.mouse.up()
    page.wait_for_timeout(800)
    x, zoom = page.evaluate(PLACE)
    assert zoom > before[1]
    assert x < before[0] - 0.01

    rows = page.locator("#measures tr")
    page.locator("#threshold").fill("0")
    assert "100 %" in rows.nth(0).inner_text()
    signs = page.locator("#list .sign").all_inner_texts()
    page.locator("#threshold").fill(page.locator("#threshold").get_attribute("max"))
    assert "0 %" in rows.nth(0).inner_text()
    assert "100 %" in rows.nth(1).inner_text()
    assert page.locator("#list .sign").all_inner_texts() != signs

    page.check("#heat")
    page.wait_for_selector("[data-heat]")
    page.locator("#opacity").fill("0.9")
    assert page.evaluate("() => views.find((view) => view.heat).heat.getOpacity()") == 0.9
    page.click("#invert")
    page.wait_for_timeout(500)
    _until(page, DRAWN)
    address = page.evaluate("() => views[0].items[0].source.getTileUrl(0, 0, 0)")
    low, high = (int(number) for number in re.findall(r"=(\d+)", address))
    assert low > high

    page.click("#tags button >> text=artefact")
    page.fill("#comment", "=a <b>")
    page.click("#name")
    _until(page, "() => fetch('marks.csv').then((answer) => answer.text()).then((text) => text.includes('<b>'))")
    with page.expect_download() as download:
        page.click("#export")
    with Path(download.value.path()).open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["tags"], row["comment"]) == ("artefact", "'=a <b>")
    assert (tmp_path / FILE).read_bytes() == Path(download.value.path()).read_bytes()

    dropped = page.evaluate_handle(DROP, base64.b64encode(films[0].read_bytes()).decode())
    page.dispatch_event("#stage", "drop", {"dataTransfer": dropped})
    _until(page, "() => current.name === 'dropped.dcm' && views.length === 1 && views[0].items.length === 1")
    assert "p 0." in page.locator(".caption").inner_text()


@pytest.mark.slow
def test_a_blind_reading_is_a_readers_file(visit: Any, finished: Path, tmp_path: Path) -> None:
    page = visit(str(finished), "--mark", str(tmp_path), "--blind", "ann")
    assert not page.locator("#threshold-box:visible, #heat-box:visible, #sort:visible, #outlines:visible").count()
    page.evaluate(LATE)  # a reader who is faster than the server
    for _ in range(page.locator("#list button").count()):
        for breast in page.locator("#breasts input").all():
            breast.fill("70")
        page.click("#next")
    _until(page, "() => room.cases.every((item) => Object.values(item.reads).every((p) => p === 0.7))")
    assert set(reader_file.read(tmp_path / READS).scores["reader 1"]) == {0.7}


@pytest.mark.slow
def test_an_exam_hangs_with_its_four_views_and_its_blind_reading_goes_into_the_reader_study(
    visit: Any,
    data: Prepared,  # noqa: F811
    tmp_path: Path,
) -> None:
    run = exam_run(tmp_path / "run", data)
    page = visit(str(run))
    assert page.locator(".view").count() == 4
    page.wait_for_timeout(1500)
    places = {place["name"]: place for place in page.evaluate(PLACES)}
    assert set(places) == {"R-CC", "L-CC", "R-MLO", "L-MLO"}
    for angle in ("CC", "MLO"):
        right, left = places[f"R-{angle}"], places[f"L-{angle}"]
        assert right["x"] < left["x"]
        assert right["y"] == left["y"]
        assert right["right"] > right["left"]  # the chest walls are in the middle
        assert left["left"] > left["right"]
    assert places["R-CC"]["y"] < places["R-MLO"]["y"]
    assert page.evaluate(EDGES) == pytest.approx([0] * 4, abs=1e-6)  # and meet there
    assert "other breasts" in page.locator("#threshold-box").inner_text()
    page.screenshot(path=tmp_path / "exam.png")
    page.locator(".view").first.dblclick()
    _until(page, "() => views.length === 1")

    page = visit(str(run), "--mark", str(tmp_path), "--blind", "ann")
    assert page.locator(".view").count() == 4
    assert "malignant" not in page.locator("body").inner_text()
    for _ in range(page.locator("#list button").count()):
        for k, breast in enumerate(page.locator("#breasts input").all()):
            breast.fill(str(20 + 40 * k))
        page.click("#next")
    _until(page, "() => room.cases.every((item) => Object.values(item.reads).every((p) => p !== null))")
    study = ["readers", "--run", str(run), "--readers", str(tmp_path / READS), "--output", str(tmp_path / "study")]
    assert cli.main(study) == 0
    assert "reader 1" in (tmp_path / "study" / "readers.html").read_text()
