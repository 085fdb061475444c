"""A gate between the pods and their store: it holds up the requests that a test names.

It speaks HTTP for both sides and serves as `store.pod_endpoint`. What it held is never sent on: who
asked may be dead by the time the gate opens.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}


class Gate:
    """Which requests wait (`GET /bucket/key…` as `hold` sees them), and how many do."""

    def __init__(self, endpoint: str) -> None:
        self.upstream = urlsplit(endpoint).netloc
        self.address = ""
        self.held = threading.Event()
        self._open = threading.Event()
        self._holds: Callable[[str], bool] = lambda _: False

    def hold(self, which: Callable[[str], bool]) -> None:
        """Let these requests wait from now on, until `open`."""
        self._holds = which

    def open(self) -> None:
        """Hold nothing any more; whatever was held is dropped."""
        self._holds = lambda _: False
        self._open.set()

    def lets_pass(self, request: str) -> bool:
        """Return at once for most requests; False, when the gate opens, for one that was held."""
        if not self._holds(request):
            return True
        self.held.set()
        self._open.wait()
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
