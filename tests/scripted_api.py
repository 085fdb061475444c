"""An HTTP server that answers as the test says, one step for each request of a kind.

It knows nothing of Kubernetes but paths: what a step sends is exactly what the client gets, also
what no API server would send.
"""

from __future__ import annotations

import json
import queue
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

JsonObject = dict[str, Any]
Step = Callable[["_Handler"], None]

NAMESPACE = "jobs-here"


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    verb: str
    resource: str
    name: str
    query: dict[str, str]
    headers: dict[str, str]
    body: JsonObject


def reply(body: object, status: int = 200, **headers: str) -> Step:
    """Answer with JSON, or with the bytes given."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    def step(handler: _Handler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return step


def refuse(code: int, message: str, reason: str = "", **details: object) -> Step:
    """Answer with a Status."""
    return reply(status_of(code, message, reason, **details), code)


def status_of(code: int, message: str, reason: str = "", **details: object) -> JsonObject:
    """Return a Status of failure."""
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**status, "message": message, "reason": reason, "details": details, "code": code}


def drop(handler: _Handler) -> None:
    """Close the connection without an answer."""
    handler.close_connection = True


def in_turn(*steps: Step) -> Step:
    """Do one step a request, the last one for ever."""
    left = list(steps)
    lock = threading.Lock()

    def step(handler: _Handler) -> None:
        with lock:
            chosen = left.pop(0) if len(left) > 1 else left[0]
        chosen(handler)

    return step


@dataclass
class Feed:
    """A stream that a test writes; `opened` counts the requests for it."""

    sent: queue.Queue[bytes | None] = field(default_factory=queue.Queue)
    opened: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def send(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self.sent.put(chunk)

    def event(self, kind: str, item: JsonObject) -> None:
        self.send(json.dumps({"type": kind, "object": item}).encode() + b"\n")

    def end(self) -> None:
        """End the stream that is open, as a server does when its time is over."""
        self.sent.put(None)

    def __call__(self, handler: _Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.flush()
        self.opened.release()
        while (chunk := self.sent.get()) is not None:
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        handler.wfile.write(b"0\r\n\r\n")


class ScriptedApi:
    """The server; a context manager. `on["create", "jobs"]` is the step for such a request.

    Without one a list is empty, a stream is the resource's `feeds`, and all else is 404.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.on: dict[tuple[str, str], Step] = {}
        self.feeds = {"jobs": Feed(), "pods": Feed()}
        self.changed = threading.Condition()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.api = self
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=lambda: serve(poll_interval=0.02), daemon=True)

    def __enter__(self) -> ScriptedApi:  # noqa: PYI034 # Self is Python 3.11
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for feed in self.feeds.values():
            feed.end()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def wrap(self, context: ssl.SSLContext) -> None:
        """Speak TLS."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def count(self, verb: str, resource: str) -> int:
        with self.changed:
            return sum((r.verb, r.resource) == (verb, resource) for r in self.requests)

    def await_count(self, verb: str, resource: str, least: int) -> None:
        """Return when so many requests of a kind have come."""
        with self.changed:
            came = self.changed.wait_for(lambda: self.count(verb, resource) >= least, 20)
        assert came, f"{self.count(verb, resource)} of {least} {verb} {resource}"

    def step_for(self, request: Request) -> Step:
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()
        found = self.on.get((request.verb, request.resource))
        if found is not None:
            return found
        if request.verb == "watch":
            return self.feeds[request.resource]
        if request.verb == "list":
            return listing()
        return not_found(request.resource, request.name)


class _Server(ThreadingHTTPServer):
    api: ScriptedApi
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may leave when they like."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def do_DELETE(self) -> None:
        self._respond()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        _, _, rest = parts.path.partition(f"/namespaces/{NAMESPACE}/")
        resource, _, name = rest.partition("/")
        verb = {"POST": "create", "DELETE": "delete"}.get(self.command, "get" if name else "list")
        if query.get("watch") == "true":
            verb = "watch"
        headers = {key.lower(): value for key, value in self.headers.items()}
        request = Request(verb, resource, name, query, headers, json.loads(body) if body else {})
        self.server.api.step_for(request)(self)


def not_found(resource: str, name: str) -> Step:
    """Say that there is no such object."""
    return refuse(404, f'{resource} "{name}" not found', "NotFound", name=name, kind=resource)


def listing(*items: JsonObject, version: str = "1", token: str = "") -> Step:
    """Answer with a page of a list."""
    metadata = {"resourceVersion": version, **({"continue": token} if token else {})}
    return reply({"kind": "List", "metadata": metadata, "items": list(items)})


def job(name: str, version: str = "1", condition: str = "", **more: Any) -> JsonObject:
    """Return a Job as an API server has it, over if it has a condition (Complete, Failed)."""
    conditions = [{"type": condition, "status": "True", "reason": "Told"}] if condition else []
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-of-{name}",
            "resourceVersion": version,
            "annotations": {"s3runner/spec-digest": "sha256:0"},
            **more.pop("metadata", {}),
        },
        "spec": {"template": {"spec": {"containers": [{"name": "tool", "image": "tool:1"}]}}},
        "status": {"conditions": conditions, **more},
    }


def pod(uid: str, of: str, version: str = "1", phase: str = "Running", **more: Any) -> JsonObject:
    """Return a pod of a Job as an API server has it."""
    owner = {"kind": "Job", "name": of, "uid": f"uid-of-{of}", "controller": True}
    metadata = {
        "name": f"{of}-{uid}",
        "uid": uid,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "resourceVersion": version,
        **more,
    }
    return {"metadata": {**metadata, "ownerReferences": [owner]}, "status": {"phase": phase}}


def write_kubeconfig(
    path: Path, server: str, *, user: JsonObject | None = None, **cluster: Any
) -> str:
    """Write a kubeconfig whose context `here` leads to a server; return its path."""
    context = {"cluster": "c", "user": "u", "namespace": NAMESPACE}
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "contexts": [{"name": "here", "context": context}],
                "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
                "users": [{"name": "u", "user": user or {}}],
            }
        )
    )
    return str(path)
