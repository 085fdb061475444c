"""A web server on this machine, with levers for all that web servers do to those who read them."""

from __future__ import annotations

import hashlib
import re
import ssl
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODIFIED = "Tue, 03 Nov 2020 10:00:00 GMT"


@dataclass
class Served:
    """What lies at one path. `etag` and `modified` are sent as they are, None is not sent."""

    body: bytes
    etag: str | None = ""
    modified: str | None = MODIFIED

    def __post_init__(self) -> None:
        if self.etag == "":
            self.etag = f'"{hashlib.sha256(self.body).hexdigest()[:16]}"'


@dataclass
class Asked:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def range(self) -> str:
        return self.headers.get("range", "")


@dataclass
class WebServer:
    """The server and its levers; what a test changes holds for the next request.

    `refusals` are answered, in order, instead of the next requests: (status, headers). `drops` cut
    the connection of the next answers with a body after so many bytes; None lets one be. `held`
    keeps every GET waiting until `let_go` is set.
    """

    port: int
    scheme: str = "http"
    files: dict[str, Served] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    refusals: deque[tuple[int, dict[str, str]]] = field(default_factory=deque)
    drops: deque[int | None] = field(default_factory=deque)
    head_status: int | None = None
    knows_ranges: bool = True
    keeps_conditions: bool = True
    chunked: bool = False
    encoding: str | None = None
    held: bool = False
    let_go: threading.Event = field(default_factory=threading.Event)
    asked: list[Asked] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"

    def put(self, path: str, body: bytes, **marks: str | None) -> str:
        self.files[path] = Served(body, **marks)
        return self.url(path)

    @property
    def methods(self) -> list[str]:
        return [item.method for item in self.asked]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: WebServer

    def do_HEAD(self) -> None:
        self._respond(self.web.head_status)

    def do_GET(self) -> None:
        if self.web.held:
            self.web.let_go.wait(60)
        self._respond(None)

    def _respond(self, refused: int | None) -> None:
        web = self.web
        headers = {name.lower(): value for name, value in self.headers.items()}
        web.asked.append(Asked(self.command, self.path, headers))
        if refused is not None:
            self._say(refused)
        elif web.refusals:
            self._say(*web.refusals.popleft())
        elif self.path in web.redirects:
            self._say(302, {"Location": web.redirects[self.path]})
        elif self.path not in web.files:
            self._say(404)
        else:
            self._serve(web.files[self.path], headers)

    def _serve(self, file: Served, asked: dict[str, str]) -> None:
        marks = {"ETag": file.etag, "Last-Modified": file.modified}
        marks["Content-Encoding"] = self.web.encoding
        headers = {name: value for name, value in marks.items() if value is not None}
        if self.web.keeps_conditions and not _holds(file, asked):
            self._say(412)
            return
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", asked.get("range", ""))
        if match is None or not self.web.knows_ranges:
            self._send(200, headers, file.body)
            return
        first, last, size = int(match[1]), int(match[2]), len(file.body)
        if first >= size:
            self._say(416, {"Content-Range": f"bytes */{size}"})
            return
        part = file.body[first : last + 1]
        headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{size}"
        self._send(206, headers, part)

    def _say(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        is_chunked = self.web.chunked and status == 200
        length = {"Transfer-Encoding": "chunked"} if is_chunked else {"Content-Length": len(body)}
        for name, value in {**headers, **length}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "HEAD":
            return
        if is_chunked:
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        # a probe for one byte is not what a test wants to break
        drop = self.web.drops.popleft() if self.web.drops and len(body) > 1 else None
        self.close_connection = self.close_connection or drop is not None
        self.wfile.write(body if drop is None else body[:drop])

    def log_message(self, *_: object) -> None:
        pass


def _holds(file: Served, asked: dict[str, str]) -> bool:
    if "if-match" in asked:
        return asked["if-match"] == file.etag and not str(file.etag).startswith("W/")
    return asked.get("if-unmodified-since", file.modified) == file.modified


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that has enough closes the connection; that is no error of a test."""


@contextmanager
def serving(certificate: Path | None = None) -> Iterator[WebServer]:
    """Run a server; with a PEM file of key and certificate it speaks TLS."""
    handler = type("Handler", (_Handler,), {})
    server = _Quiet(("127.0.0.1", 0), handler)
    web = WebServer(server.server_address[1])
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        web.scheme = "https"
    handler.web = web  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
