"""The room over HTTP: for whoever has the token, from this machine, read-only unless marks are kept; blind is blind."""

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest

from mammojax import cli
from mammojax.evaluate import reader_file
from mammojax.evaluate.predictor import ImagePredictor
from mammojax.reading.marks import FILE, READS
from mammojax.reading.server import RoomServer
from mammojax.view import open_room
from tests.evaluate.conftest import films  # noqa: F401

Ask = Callable[..., tuple[int, bytes]]


@pytest.fixture
def serve() -> Iterator[Callable[..., Ask]]:
    """Open a room on a free port; the result asks it for a path behind the token: the status and the body."""
    with ExitStack() as stack:

        def start(*args: object, **settings: object) -> Ask:
            server = stack.enter_context(RoomServer(open_room(*args, **settings)))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)

            def ask(
                path: str, body: bytes | None = None, token: str = server.token, **headers: str
            ) -> tuple[int, bytes]:
                connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=120)
                connection.request("GET" if body is None else "POST", f"/{token or server.token}/{path}", body, headers)
                answer = connection.getresponse()
                content = answer.read()
                assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
                connection.close()
                return answer.status, content

            return ask

        yield start


def test_the_page_the_tiles_and_the_heatmap_of_a_run(serve: Callable[..., Ask], finished: Path) -> None:
    ask = serve(finished)
    status, page = ask("")
    assert status == 200
    assert b"http" not in page  # nothing is loaded from elsewhere
    assert all(ask(name)[0] == 200 for name in ("room.js", "room.css", "openseadragon.min.js"))
    room = json.loads(ask("room.json")[1])
    assert (room["mark"], room["blind"], room["predict"]) == (False, False, True)
    index = room["cases"][0]["images"][0]["id"]
    image = json.loads(ask(f"image/{index}.json")[1])
    tile = cv2.imdecode(np.frombuffer(ask(f"tile/{index}/0_0_0.png?low=0&high=65535")[1], np.uint8), -1)
    inverted = cv2.imdecode(np.frombuffer(ask(f"tile/{index}/0_0_0.png?low=65535&high=0")[1], np.uint8), -1)
    assert tile.shape == (image["height"], image["width"])
    assert np.abs(255 - tile.astype(int) - inverted).max() <= 1
    status, heat = ask(f"heat/{index}.png")
    assert status == 200
    assert cv2.imdecode(np.frombuffer(heat, np.uint8), -1).shape == (*tile.shape, 4)
    lesions = [
        case
        for case in room["cases"]
        for i in case["images"]
        if json.loads(ask(f"image/{i['id']}.json")[1])["outlines"]
    ]
    assert lesions
    for path in (
        "image/9999.json",
        "tile/0/9_0_0.png",
        "tile/0/0_0_0.png?low=x",
        "heat/9999.png",
        "../config.json",
        "marks.csv",
    ):
        assert ask(path)[0] == 404, path


def test_only_this_machine_with_the_token_is_answered(serve: Callable[..., Ask], finished: Path) -> None:
    ask = serve(finished)
    for token in ("x", "%C3%A4", "x/../"):
        assert ask("room.json", token=token)[0] == 404
    assert ask("room.json", Host="evil.example")[0] == 404
    assert ask("mark", b"{}", Origin="http://evil.example")[0] == 404


def test_nothing_is_changed_without_mark(serve: Callable[..., Ask], finished: Path) -> None:
    ask = serve(finished)
    status, answer = ask("mark", json.dumps({"image": 0, "tags": [], "comment": "x"}).encode())
    assert (status, b"--mark FOLDER" in answer) == (403, True)
    assert ask("read", json.dumps({"image": 0, "p": 0.5}).encode())[0] == 403


def test_a_dropped_file_is_scored_as_the_run_scores_it(
    serve: Callable[..., Ask], finished: Path, films: list[Path]  # noqa: F811
) -> None:  # fmt: skip
    ask = serve(films[0].parent, run=finished)
    status, answer = ask("predict", films[0].read_bytes())
    assert status == 200
    image = json.loads(answer)
    assert image["score"] == pytest.approx(float(ImagePredictor.restore(finished).predict([films[0]])[0]))
    assert ask(f"image/{image['id']}.json")[0] == 200
    assert ask(f"heat/{image['id']}.png")[0] == 200
    status, answer = ask("predict", b"no image")
    assert (status, b"neither DICOM nor PNG" in answer) == (400, True)


def test_marks_come_back_as_csv(serve: Callable[..., Ask], finished: Path, tmp_path: Path) -> None:
    ask = serve(finished, mark=tmp_path / "marks")
    assert ask("mark", json.dumps({"image": 1, "tags": ["artefact"], "comment": "a <b>"}).encode())[0] == 200
    assert ask("mark", json.dumps({"image": 1, "tags": ["ugly"], "comment": ""}).encode())[0] == 400
    assert b"artefact,a <b>" in ask("marks.csv")[1]
    images = [image for case in json.loads(ask("room.json")[1])["cases"] for image in case["images"]]
    assert [image["comment"] for image in images if image["id"] == 1] == ["a <b>"]


def test_a_blind_reader_sees_the_pixels_alone(serve: Callable[..., Ask], finished: Path, tmp_path: Path) -> None:
    open_ = json.loads(serve(finished)("room.json")[1])
    ask = serve(finished, mark=tmp_path, blind="ann")
    overview = ask("room.json")[1].decode()
    room = json.loads(overview)
    for case in open_["cases"]:
        for secret in (case["name"], *(image["name"] for image in case["images"])):
            assert secret not in overview
    assert set(room["cases"][0]["images"][0]) == {"id", "laterality", "view"}
    assert (room["operating"], room["predict"], room["name"]) == (None, False, "")
    for case in room["cases"]:
        for image in case["images"]:
            assert json.loads(ask(f"image/{image['id']}.json")[1])["outlines"] == []
        for side in case["reads"]:
            index = next(image["id"] for image in case["images"] if image["laterality"] == side)
            assert ask("read", json.dumps({"image": index, "p": 0.3}).encode())[0] == 200
    assert ask("heat/0.png")[0] == 403
    assert ask(FILE)[0] == 404
    assert ask("mark", json.dumps({"image": 0, "tags": [], "comment": ""}).encode())[0] == 403
    assert len(reader_file.read(tmp_path / READS).scores) == sum(len(case["reads"]) for case in room["cases"])
    again = json.loads(serve(finished, mark=tmp_path, blind="ann")("room.json")[1])
    assert [list(case["reads"].values()) for case in again["cases"]] == [[0.3] * len(c["reads"]) for c in room["cases"]]
    assert again["cases"][0]["images"] == room["cases"][0]["images"]  # the same order when the reader goes on


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["/no/such"], "there is no such file"),
        (["RUN", "--blind", "ann"], "name a folder with --mark"),
        (["RUN", "--scores", "RUN/config.json"], "a run has its own scores"),
        (["RUN/predictions", "--scores", "no.csv"], "no mammogram"),
        (["RUN", "--port", "70000"], "name another one with --port"),
    ],
)
def test_a_mistake_is_one_sentence(
    extra: list[str], words: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["view", *(word.replace("RUN", str(finished)) for word in extra)]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert len(message.splitlines()) == 1
