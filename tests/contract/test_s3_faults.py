"""What the S3 adapter makes of answers that real stores give on a bad day.

A server of a few lines gives them, so that each is exactly what the table says.
"""

from __future__ import annotations

import contextlib
import http.server
import itertools
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from s3runner.errors import (
    InputError,
    IntegrityError,
    ObjectNotFoundError,
    S3RunnerError,
    SettingsError,
    StoreAccessError,
    StoreError,
    StoreUnavailableError,
    UnsupportedError,
)
from s3runner.model import Credentials, StoreConfig
from s3runner.store.obstore_store import ObstoreStore, endpoint_of
from s3runner.store.protocol import Chunks

KEYS = Credentials("key", "secret")
MIB = 1024 * 1024


@dataclass
class Answers:
    """A server that answers every request in the way that a test sets, and keeps what it got."""

    port: int = 0
    status: int = 200
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    write_body: Callable[[socket.socket], None] | None = None
    read_pause_s: float = 0.0
    by_method: dict[str, tuple[int, str]] = field(default_factory=dict)
    requests: list[dict[str, str]] = field(default_factory=list)

    @property
    def config(self) -> StoreConfig:
        return StoreConfig("b", endpoint=f"http://localhost:{self.port}", insecure_http=True)

    def store(self, stall_s: int = 30) -> ObstoreStore:
        return ObstoreStore(self.config, KEYS, stall_s)

    def respond(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self.requests.append({name.lower(): value for name, value in handler.headers.items()})
        missing = int(handler.headers.get("content-length") or 0)
        while missing:
            missing -= len(handler.rfile.read(min(missing, MIB)))
            time.sleep(self.read_pause_s)
        body = f"<?xml version='1.0'?><Error><Code>{self.code}</Code></Error>" if self.code else ""
        status, body = self.by_method.get(handler.command, (self.status, body))
        defaults = {"Content-Length": str(len(body)), "ETag": '"e"', "Last-Modified": _MODIFIED}
        handler.send_response(status)
        for name, value in (defaults | self.headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body.encode())
        if self.write_body is not None:
            self.write_body(handler.connection)


_MODIFIED = "Wed, 01 Jan 2025 00:00:00 GMT"


@pytest.fixture
def answers() -> Iterator[Answers]:
    told = Answers()

    class Handler(http.server.BaseHTTPRequestHandler):
        def respond(self) -> None:
            with contextlib.suppress(ConnectionError):
                told.respond(self)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = respond  # noqa: N815 # http.server's names

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


def joined(chunks: Chunks) -> bytes:
    return b"".join(chunks)


TABLE: list[tuple[int, str, type[S3RunnerError], str]] = [
    (503, "SlowDown", StoreUnavailableError, "the store said 503 SlowDown"),
    (500, "InternalError", StoreUnavailableError, "500 InternalError"),
    (502, "", StoreUnavailableError, "the store said 502"),
    (429, "", StoreUnavailableError, "429"),
    (408, "", StoreUnavailableError, "408"),
    (400, "RequestTimeout", StoreUnavailableError, "RequestTimeout"),
    (409, "ConditionalRequestConflict", StoreUnavailableError, "ConditionalRequestConflict"),
    (409, "OperationAborted", StoreUnavailableError, "OperationAborted"),
    (400, "BadDigest", IntegrityError, "damaged on the way"),
    (400, "XAmzContentSHA256Mismatch", IntegrityError, "damaged on the way"),
    (403, "AccessDenied", StoreAccessError, "access denied"),
    (403, "RequestTimeTooSkewed", StoreAccessError, "the clocks differ"),
    (400, "ExpiredToken", StoreAccessError, "token has expired"),
    (403, "QuotaExceeded", StoreAccessError, "quota"),
    (401, "", StoreAccessError, "access denied"),
    (404, "NoSuchBucket", StoreAccessError, "no such bucket"),
    (301, "PermanentRedirect", StoreAccessError, "another region than us-east-1"),
    (400, "AuthorizationHeaderMalformed", StoreAccessError, "the region us-east-1"),
    (403, "InvalidObjectState", UnsupportedError, "archived"),
    (501, "NotImplemented", StoreError, "the store said 501 NotImplemented"),
    (400, "InvalidArgument", StoreError, "the store said 400 InvalidArgument"),
]
IDS = [f"{status} {code}" for status, code, _, _ in TABLE]


@pytest.mark.parametrize(("status", "code", "kind", "reason"), TABLE, ids=IDS)
def test_an_answer_becomes_the_error_it_means(
    answers: Answers, status: int, code: str, kind: type[S3RunnerError], reason: str
) -> None:
    answers.status, answers.code = status, code
    store = answers.store()
    calls: dict[str, Callable[[], object]] = {
        "PutObject": lambda: store.put_if_absent("k", b"x"),
        "GetObject": lambda: store.get("k", joined),
    }
    for request, call in calls.items():
        with pytest.raises(kind, match=reason) as caught:
            call()
        assert type(caught.value) is kind
        assert caught.value.reason.endswith(f"({request})")
        assert "s3://b/k" in (caught.value.source, caught.value.target)
        assert "Debug source" not in str(caught.value)


def test_only_412_means_that_the_key_exists(answers: Answers) -> None:
    answers.status, answers.code = 412, "PreconditionFailed"
    assert answers.store().put_if_absent("k", b"x") is False


def test_a_404_on_delete_is_no_error_but_a_missing_bucket_is(answers: Answers) -> None:
    answers.status, answers.code = 404, "NoSuchKey"
    answers.store().delete("k")
    answers.code = "NoSuchBucket"
    with pytest.raises(StoreAccessError, match="no such bucket"):
        answers.store().delete("k")


def test_an_answer_that_breaks_off_is_temporary(answers: Answers) -> None:
    answers.headers = {"Content-Length": "100"}
    answers.write_body = lambda connection: connection.sendall(b"x" * 40)
    with pytest.raises(StoreUnavailableError) as caught:
        answers.store().get("k", joined)
    assert caught.value.source == "s3://b/k"


def test_a_download_that_trickles_is_given_up(answers: Answers) -> None:
    def trickle(connection: socket.socket) -> None:
        for _ in range(200):
            connection.sendall(b"x" * 40)
            time.sleep(0.1)

    answers.headers = {"Content-Length": "1000000"}
    answers.write_body = trickle
    with pytest.raises(StoreUnavailableError, match="stalled"):
        answers.store(stall_s=1).get("k", joined)


def test_a_slow_consumer_is_not_the_stores_fault(answers: Answers) -> None:
    answers.headers = {"Content-Length": "3"}

    def drip(connection: socket.socket) -> None:
        for byte in (b"a", b"b", b"c"):
            connection.sendall(byte)
            time.sleep(0.05)

    def slowly(chunks: Chunks) -> bytes:
        received = b""
        for chunk in chunks:
            received += chunk
            time.sleep(0.6)
        return received

    answers.write_body = drip
    assert answers.store(stall_s=1).get("k", slowly) == b"abc"


def test_a_store_that_keeps_silent_is_given_up(answers: Answers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answers.port = silent.getsockname()[1]
        with pytest.raises(StoreUnavailableError, match=r"no answer \(HeadObject\)"):
            answers.store(stall_s=1).head("k")


def test_a_large_body_on_a_slow_line_is_no_silence(answers: Answers) -> None:
    answers.read_pause_s = 0.4
    body = bytes(4 * MIB)
    answers.store(stall_s=1).put("k", lambda: iter([body]), size=len(body), part_size=len(body))
    assert answers.requests[0]["content-length"] == str(len(body))


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), InputError("the file changed")], ids=["ctrl-c", "ours"]
)
def test_a_body_that_raises_is_told_also_when_the_upload_cannot_be_aborted(
    answers: Answers, error: BaseException
) -> None:
    begun = "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
    answers.by_method = {"POST": (200, begun), "DELETE": (500, "")}

    def body() -> Iterator[bytes]:
        yield bytes(5 * MIB)
        raise error

    with pytest.raises(type(error)) as caught:
        answers.store().put("k", body, size=10 * MIB, part_size=5 * MIB)
    assert caught.value is error


def test_a_ctrl_c_between_parts_is_told_also_when_the_upload_cannot_be_aborted(
    answers: Answers,
) -> None:
    begun = "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
    answers.by_method = {"POST": (200, begun), "DELETE": (500, "")}

    due = iter((False, True))

    def interrupt(_: socket.socket) -> None:
        # once, and while the client sends: it is raised when the client asks for the next part
        if next(due, False):
            signal.raise_signal(signal.SIGINT)

    answers.write_body = interrupt
    with pytest.raises(KeyboardInterrupt):
        answers.store().put(
            "k", lambda: itertools.repeat(bytes(5 * MIB), 40), size=200 * MIB, part_size=5 * MIB
        )


def test_payloads_are_signed(answers: Answers) -> None:
    answers.store().put("k", lambda: iter([b"abc"]), size=3, part_size=4)
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert answers.requests[0]["x-amz-content-sha256"] == expected


@pytest.mark.parametrize("kind", ["keys", "function"])
def test_the_environment_changes_nothing(
    answers: Answers, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "environment-key",
        "AWS_SECRET_ACCESS_KEY": "environment-secret",
        "AWS_SESSION_TOKEN": "environment-token",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_REGION": "eu-west-1",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_UNSIGNED_PAYLOAD": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
    }.items():
        monkeypatch.setenv(name, value)
    credentials = KEYS if kind == "keys" else lambda: KEYS
    ObstoreStore(answers.config, credentials).put_if_absent("k", b"x")
    (request,) = answers.requests
    assert "Credential=key/" in request["authorization"]
    assert "/us-east-1/s3/" in request["authorization"]
    assert "x-amz-security-token" not in request
    assert request["x-amz-content-sha256"] != "UNSIGNED-PAYLOAD"


def test_a_function_of_keys_is_asked_again_before_they_end(answers: Answers) -> None:
    asked: list[int] = []

    def fresh() -> Credentials:
        asked.append(1)
        return Credentials("key", "secret", f"token-{len(asked)}")

    store = ObstoreStore(answers.config, fresh)
    assert asked == []
    store.delete("k")
    assert answers.requests[0]["x-amz-security-token"] == "token-1"


def test_keys_that_cannot_be_had_are_denied_access(answers: Answers) -> None:
    def fail() -> Credentials:
        raise StoreAccessError("the credentials cannot be renewed: signed out")

    with pytest.raises(StoreAccessError, match="cannot be renewed: signed out") as caught:
        ObstoreStore(answers.config, fail).head("k")
    assert "Traceback" not in str(caught.value)


def test_without_any_keys_it_says_so(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(StoreAccessError, match="no credentials") as caught:
        ObstoreStore(answers.config).head("k")
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint
    assert answers.requests == []


def test_a_head_without_a_reason_is_not_found(answers: Answers) -> None:
    answers.status = 404
    with pytest.raises(ObjectNotFoundError):
        answers.store().head("k")


def test_a_ca_bundle_without_a_certificate_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match=r"store\.ca_bundle"):
        ObstoreStore(StoreConfig("b", ca_pem="rubbish"), KEYS)


@pytest.mark.parametrize(
    ("config", "endpoint", "virtual"),
    [
        (StoreConfig("b"), "https://b.s3.us-east-1.amazonaws.com", True),
        (StoreConfig("b", region="cn-north-1"), "https://b.s3.cn-north-1.amazonaws.com.cn", True),
        (StoreConfig("b.c", region="eu-west-1"), "https://s3.eu-west-1.amazonaws.com", False),
        (StoreConfig("b", endpoint="https://minio:9000/"), "https://minio:9000", False),
        (
            StoreConfig("b", endpoint="https://minio:9000", path_style=False),
            "https://b.minio:9000",
            True,
        ),
        (StoreConfig("b", path_style=True), "https://s3.us-east-1.amazonaws.com", False),
    ],
    ids=["AWS", "China", "dots", "endpoint", "endpoint by host", "AWS by path"],
)
def test_the_bucket_goes_where_the_store_expects_it(
    config: StoreConfig, endpoint: str, *, virtual: bool
) -> None:
    assert endpoint_of(config) == (endpoint, virtual)
