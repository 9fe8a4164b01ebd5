"""The reading room's server: HTTP on the loopback interface alone, for whoever has the token in the address.

Every path begins with the token. A request must name the loopback address as its host, so that no other site can reach
the server by a name of its own that leads here (DNS rebinding), and a change must come from the page itself. Nothing
may be cached, framed or loaded from elsewhere.
"""

import json
import re
import secrets
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mammojax.errors import BadConfig, UserError
from mammojax.reading.room import Forbidden, Room
from mammojax.reading.tiles import BLACK, WHITE

HOST = "127.0.0.1"
LARGEST = 2**29  # bytes of a request: a dropped file
FILES = {
    "": ("page.html", "text/html; charset=utf-8"),
    "room.css": ("room.css", "text/css; charset=utf-8"),
    "room.js": ("room.js", "text/javascript; charset=utf-8"),
    "openseadragon.min.js": ("openseadragon.min.js", "text/javascript; charset=utf-8"),
}
"""Paths of the page's own files → name in mammojax/reading/page, type."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' blob: data:; connect-src 'self'; frame-ancestors 'none'; form-action 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class RoomServer(ThreadingHTTPServer):
    """A server of one room.

    Attributes:
        room: what it serves.
        token: without which every path is unknown.
    """

    daemon_threads = True

    def __init__(self, room: Room, port: int = 0) -> None:
        """Bind to a port of the loopback interface; 0: any free one.

        Raises:
            BadConfig: the port is in use, or may not be used.
        """
        self.room, self.token = room, secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise BadConfig(f"port {port} cannot be used ({error}); name another one with --port.") from None

    @property
    def address(self) -> str:
        """The page's address, token included."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: RoomServer
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a silent connection stays open

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: paths hold the token."""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, respond: Callable[[str, dict[str, list[str]]], tuple[bytes, str]]) -> None:
        """Send what `respond` gives for the path behind the token, or why it gives nothing."""
        try:
            path = self._path()
            url = urlsplit(path)
            body, kind = respond(url.path, parse_qs(url.query))
            status = HTTPStatus.OK
        except UserError as error:
            status = HTTPStatus.FORBIDDEN if isinstance(error, Forbidden) else HTTPStatus.BAD_REQUEST
            body, kind = _json({"error": str(error)})
        except (LookupError, ValueError):
            status, (body, kind) = HTTPStatus.NOT_FOUND, _json({"error": "there is nothing of that name"})
        if status != HTTPStatus.OK:
            self.close_connection = True  # a body may be left unread
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _path(self) -> str:
        """The path behind the token. Raises LookupError for a wrong host, token or origin."""
        hosts = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}
        token, _, path = self.path.removeprefix("/").partition("/")
        if self.headers.get("Host") not in hosts or not secrets.compare_digest(
            token.encode(), self.server.token.encode()
        ):
            raise LookupError(path)
        if self.headers.get("Origin", "").removeprefix("http://") not in {"", *hosts}:
            raise LookupError(path)
        return path

    def _get(self, path: str, query: dict[str, list[str]]) -> tuple[bytes, str]:
        room = self.server.room
        if path in FILES:
            name, kind = FILES[path]
            return (resources.files("mammojax.reading") / "page" / name).read_bytes(), kind
        if path == "room.json":
            return _json(room.overview())
        if match := re.fullmatch(r"image/(\d+)\.json", path):
            return _json(room.image(int(match[1])))
        if match := re.fullmatch(r"tile/(\d+)/(\d+)_(\d+)_(\d+)\.png", path):
            low, high = (int(query.get(name, [str(value)])[0]) for name, value in (("low", BLACK), ("high", WHITE)))
            index, level, column, row = (int(number) for number in match.groups())
            return room.tile(index, level, column, row, low, high), "image/png"
        if match := re.fullmatch(r"heat/(\d+)\.png", path):
            return room.heat(int(match[1])), "image/png"
        return room.csv(path), "text/csv; charset=utf-8"

    def _post(self, path: str, query: dict[str, list[str]]) -> tuple[bytes, str]:
        size = int(self.headers.get("Content-Length", ""))
        if not 0 < size <= LARGEST:
            raise Forbidden(f"a request may have up to {LARGEST // 2**20} MiB.")
        body, room = self.rfile.read(size), self.server.room
        if path == "predict":
            return _json(room.predict(body))
        said = json.loads(body)
        if path == "mark":
            room.mark(int(said["image"]), [str(tag) for tag in said["tags"]], str(said["comment"]))
        elif path == "read":
            room.read(int(said["image"]), float(said["p"]))
        else:
            raise LookupError(path)
        return _json({})


def _json(value: Any) -> tuple[bytes, str]:
    return json.dumps(value, allow_nan=False).encode(), "application/json"
