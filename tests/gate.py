"""A gate between the pods and their store: it holds up the requests that a test names.

It speaks HTTP for both sides and serves as `store.pod_endpoint`. What it held is never sent on: who
asked may be dead by the time the gate opens. It also refuses requests, as a store that is away.
"""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}


class Requests:
    """Requests that contain a pattern, such as `^GET .*/out/`; `seen` once there was one."""

    def __init__(self, pattern: str) -> None:
        self._pattern = re.compile(pattern)
        self.seen = threading.Event()

    def __call__(self, request: str) -> bool:
        """Tell whether a request is one of these."""
        is_one = self._pattern.search(request) is not None
        if is_one:
            self.seen.set()
        return is_one


class Gate:
    """Which requests wait (`GET /bucket/key…` as `hold` sees them), and how many do."""

    def __init__(self, endpoint: str) -> None:
        self.upstream = urlsplit(endpoint).netloc
        self.address = ""
        self.held = threading.Event()
        self._open = threading.Event()
        self._holds: Callable[[str], bool] = lambda _: False
        self._refuses: Callable[[str], bool] = lambda _: False

    def hold(self, which: Callable[[str], bool]) -> None:
        """Let these requests wait from now on, until `open`."""
        self.held, self._open = threading.Event(), threading.Event()
        self._holds = which

    def refuse(self, which: Callable[[str], bool]) -> None:
        """Close the connections of these requests from now on, until `open`."""
        self._refuses = which

    def open(self) -> None:
        """Hold and refuse nothing any more; whatever was held is dropped."""
        self._holds = self._refuses = lambda _: False
        self._open.set()

    def lets_pass(self, request: str) -> bool:
        """Return at once for most requests; False, when the gate opens, for one that was held."""
        opened = self._open
        if self._refuses(request):
            return False
        if not self._holds(request):
            return True
        self.held.set()
        opened.wait()
        return False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    gate: Gate

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.gate.lets_pass(f"{self.command} {self.path}"):
            self.close_connection = True
            return
        store = http.client.HTTPConnection(self.gate.upstream)
        store.request(self.command, self.path, body, dict(self.headers.items()))
        with store.getresponse() as answer:
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in {*_HOP_BY_HOP, "content-length", "date", "server"}:
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        store.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward  # noqa: N815  # http.server's names

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def gate_before(endpoint: str) -> Iterator[Gate]:
    """Run a gate before a store for as long as the test lasts."""
    gate = Gate(endpoint)
    handler = type("Handler", (_Handler,), {"gate": gate})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    gate.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield gate
    finally:
        gate.open()
        server.shutdown()
        server.server_close()
        thread.join()
