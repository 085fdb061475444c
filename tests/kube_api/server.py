"""The HTTP side: sockets, chunks and connections that end when a fault says so.

It stands apart from the routes so that they can be read without it.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from kube_api.answers import RefusedError
from kube_api.faults import DroppedError, Faults
from kube_api.routes import Answer, Request, Routes, parse

KubernetesObject = dict[str, Any]


class ApiServer(ThreadingHTTPServer):
    """The server on a port of its own; `broken` holds what failed in ways that it should not."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, routes: Routes, faults: Faults) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.routes = routes
        self.faults = faults
        self.broken: list[str] = []
        self._port = self.server_address[1]
        self._thread = self._accepting()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def listen_again(self) -> None:
        """Be there again, at the same port, after `stop`."""
        self.socket = socket.create_server(("127.0.0.1", self._port), backlog=128)
        self._thread = self._accepting()
        self._thread.start()

    def _accepting(self) -> threading.Thread:
        return threading.Thread(
            target=lambda: self.serve_forever(poll_interval=0.05), daemon=True, name="kube-api"
        )

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may leave when they like; anything else is a bug of this server."""
        del request, client_address
        if not isinstance(sys.exc_info()[1], ConnectionError):
            self.broken.append(traceback.format_exc())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ApiServer

    def do_GET(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def do_DELETE(self) -> None:
        self._respond()

    def do_PUT(self) -> None:
        self._respond()

    def do_PATCH(self) -> None:
        self._respond()

    def log_message(self, *_: object) -> None:
        """Say nothing: `Rbac.calls` is the log."""

    def _respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            try:
                self._send(self._answer(body))
            except RefusedError as refused:
                self._send_refusal(refused)
        except DroppedError:
            self.close_connection = True

    def _answer(self, body: bytes) -> Answer:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self._authenticate()
        request = parse(self.command, unquote(parts.path), query, body)
        if isinstance(request, Answer):
            self.server.faults.on_request("get", "")
            return request
        return self._answer_with_faults(request)

    def _answer_with_faults(self, request: Request) -> Answer:
        verb = "rehearse" if "dryRun" in request.query else request.verb
        after = self.server.faults.on_request(verb, request.resource)
        answer = self.server.routes.answer(request)
        self.server.faults.on_answer(after)
        return answer

    def _authenticate(self) -> None:
        token = self.server.faults.token
        if token is not None and self.headers.get("Authorization") != f"Bearer {token}":
            raise RefusedError(401)

    def _send_refusal(self, refused: RefusedError) -> None:
        headers = {}
        if refused.retry_after_s is not None:
            headers["Retry-After"] = str(refused.retry_after_s)
        self._send_bytes(refused.code, _json(refused.status), "application/json", headers)

    def _send(self, answer: Answer) -> None:
        if answer.events is not None:
            self._send_events(answer.events)
            return
        quoted = [text.replace('"', r"\"") for text in answer.warnings]
        headers = {"Warning": ", ".join(f'299 - "{text}"' for text in quoted)} if quoted else {}
        if answer.text is not None:
            self._send_bytes(answer.code, answer.text, "text/plain", headers)
        else:
            self._send_bytes(answer.code, _json(answer.document), "application/json", headers)

    def _send_bytes(self, code: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _send_events(self, events: Iterator[KubernetesObject | None]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events:
            if event is None:
                if self._client_left():
                    raise DroppedError
            else:
                self._send_chunk(_json(event) + b"\n")
        self._send_chunk(b"")

    def _send_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _client_left(self) -> bool:
        """Tell whether the client closed its side; it sends nothing while it watches."""
        # unlike select, it also takes descriptors from 1024 on
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        return bool(poll.poll(0))


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
