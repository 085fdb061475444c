"""Files on web servers, read from a real one: sizes, ranges, resuming, and what may not change."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from memory_store import MemoryStore
from service_rule import require_program
from web_server import Served, WebServer, serving

from s3runner.errors import (
    ObjectChangedError,
    ObjectNotFoundError,
    S3RunnerError,
    SettingsError,
    StagingError,
    StoreAccessError,
    StoreUnavailableError,
    UnsupportedError,
)
from s3runner.model import Entry, Kind, Manifest, StoreConfig
from s3runner.runner.sources import RemoteSources, weakly_named
from s3runner.staging.digest import PART, combine, part_count, sha256_hex
from s3runner.staging.download import materialise
from s3runner.staging.expiry import keys_named
from s3runner.staging.manifest import dump_manifest, load_manifest
from s3runner.store.http_source import Pace, Web
from s3runner.store.meter import Meter
from s3runner.store.origin import Elsewhere
from s3runner.store.retrying import Retry

CONFIG = StoreConfig("memory", insecure_http=True, retry_budget_s=5)
LARGE = os.urandom(2 * PART + 12345)


class Clock:
    """A clock that only pauses move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def retry(self, budget_s: float = 20.0) -> Retry:
        return Retry(budget_s, clock=lambda: self.now, sleep=self.sleep)


@pytest.fixture
def web() -> Iterator[WebServer]:
    with serving() as server:
        yield server


def submitted(url: str) -> Manifest:
    """Return the input as the head names it, after a journey through JSON."""
    manifest = RemoteSources(MemoryStore(), CONFIG).resolve("in", url)
    return load_manifest(dump_manifest(manifest), "s3://b/m")


def fetched(
    manifest: Manifest, root: Path, *, meter: Meter | None = None, clock: Clock | None = None
) -> Manifest:
    """Bring the input here, as a pod does."""
    meter = meter or Meter()
    elsewhere = Elsewhere((clock or Clock()).retry(), meter)
    return materialise(
        MemoryStore(), manifest, lambda path: str(root / path), meter=meter, elsewhere=elsewhere
    )


def failure_of(manifest: Manifest, root: Path, clock: Clock | None = None) -> S3RunnerError:
    with pytest.raises(StagingError) as caught:
        fetched(manifest, root, clock=clock)
    (failure,) = caught.value.failures
    assert failure.target == str(root / "in")
    assert list(root.iterdir()) == [], "nothing may be left of a file that failed"
    return failure


def test_a_file_is_named_by_size_and_etag_and_nothing_of_it_passes_the_head(
    web: WebServer,
) -> None:
    url = web.put("/x.bin", LARGE)

    (entry,) = submitted(url).entries

    assert (entry.path, entry.kind, entry.size, entry.digest) == ("in", Kind.FILE, len(LARGE), "")
    assert entry.at is not None
    assert (entry.at.url, entry.at.etag) == (url, web.files["/x.bin"].etag)
    assert entry.mtime_ns == 1604397600 * 10**9
    assert web.methods == ["HEAD"]
    assert web.asked[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("body", [b"", b"small", LARGE], ids=["empty", "one part", "three parts"])
@pytest.mark.parametrize("knows_ranges", [True, False], ids=["ranges", "no ranges"])
def test_the_bytes_arrive_and_are_hashed(
    web: WebServer, tmp_path: Path, body: bytes, *, knows_ranges: bool
) -> None:
    web.knows_ranges = knows_ranges
    manifest = submitted(web.put("/x", body))
    web.asked.clear()
    meter = Meter()

    read = fetched(manifest, tmp_path, meter=meter)

    assert (tmp_path / "in").read_bytes() == body
    assert int((tmp_path / "in").stat().st_mtime) == 1604397600
    parts = [body[start : start + PART] for start in range(0, len(body) or 1, PART)]
    assert read.entries[0].digest == combine([sha256_hex(part) for part in parts])
    assert (meter.phase.bytes, meter.phase.files) == (len(body), 1)
    assert meter.phase.requests == len(web.asked)


def test_parts_are_asked_for_by_range_under_the_condition_of_the_etag(
    web: WebServer, tmp_path: Path
) -> None:
    manifest = submitted(web.put("/x", LARGE))
    web.asked.clear()

    fetched(manifest, tmp_path)

    gets = [item for item in web.asked if item.range != "bytes=0-0"]
    assert {item.range for item in gets} == {
        f"bytes=0-{PART - 1}",
        f"bytes={PART}-{2 * PART - 1}",
        f"bytes={2 * PART}-{len(LARGE) - 1}",
    }
    assert {item.headers["if-match"] for item in gets} == {web.files["/x"].etag}


def test_a_broken_connection_goes_on_where_it_was(web: WebServer, tmp_path: Path) -> None:
    body = LARGE[:PART]
    manifest = submitted(web.put("/x", body))
    web.asked.clear()
    web.drops.extend([1_000_000, 2_000_000])

    fetched(manifest, tmp_path)

    assert (tmp_path / "in").read_bytes() == body
    last = PART - 1
    assert [item.range for item in web.asked] == [
        f"bytes=0-{last}",
        f"bytes=1000000-{last}",
        f"bytes=3000000-{last}",
    ]


@pytest.mark.parametrize("body", [LARGE[:PART], LARGE], ids=["one part", "three parts"])
def test_a_stream_without_ranges_begins_anew_when_it_breaks_off(
    web: WebServer, tmp_path: Path, body: bytes
) -> None:
    web.knows_ranges = False
    manifest = submitted(web.put("/x", body))
    # the second drop is for the request that asks to go on, and gets the whole file
    web.drops.extend([1_000_000, 10, None])
    if part_count(len(body)) > 1:
        web.drops.appendleft(5)

    read = fetched(manifest, tmp_path)

    assert (tmp_path / "in").read_bytes() == body
    assert read.entries[0].digest.endswith("-3") is (len(body) > PART)


def test_a_stream_that_always_breaks_off_at_one_place_is_given_up(
    web: WebServer, tmp_path: Path
) -> None:
    web.knows_ranges = False
    manifest = submitted(web.put("/x", b"x" * 1000))
    web.drops.extend([500] * 1000)

    failure = failure_of(manifest, tmp_path)

    assert isinstance(failure, StoreUnavailableError)
    assert len(web.drops) > 0


def test_a_server_that_is_busy_is_left_alone_for_as_long_as_it_asks(
    web: WebServer, tmp_path: Path
) -> None:
    manifest = submitted(web.put("/x", b"body"))
    web.refusals.extend([(503, {"Retry-After": "7"}), (429, {}), (500, {})])
    clock = Clock()

    fetched(manifest, tmp_path, clock=clock)

    assert (tmp_path / "in").read_bytes() == b"body"
    assert clock.pauses[0] == 7
    assert len(clock.pauses) == 3
    assert max(clock.pauses[1:]) < 1


def test_a_server_that_stays_busy_is_storage_unavailable(web: WebServer, tmp_path: Path) -> None:
    manifest = submitted(web.put("/x", b"body"))
    web.refusals.extend([(503, {})] * 1000)

    failure = failure_of(manifest, tmp_path)

    assert failure.code == 30
    assert "HTTP 503" in failure.reason
    assert "for 20 s" in failure.reason
    assert failure.source == web.url("/x")
    assert failure.tries > 1


CHANGES = {
    "another size": (Served(b"longer than before"), "expected 4 bytes", "found 18 bytes"),
    "another ETag": (Served(b"edit"), 'ETag "', "found 4 bytes"),
    "shorter": (Served(b"s"), "expected 4 bytes", "found 1 bytes"),
    "empty": (Served(b""), "expected 4 bytes", "found 0 bytes"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("keeps_conditions", [True, False], ids=["If-Match", "headers only"])
def test_a_file_that_changed_is_an_input_failure_that_tells_both(
    web: WebServer, tmp_path: Path, change: str, *, keeps_conditions: bool
) -> None:
    manifest = submitted(web.put("/x", b"body"))
    web.keeps_conditions = keeps_conditions
    web.files["/x"], *words = CHANGES[change]

    failure = failure_of(manifest, tmp_path)

    assert isinstance(failure, ObjectChangedError)
    assert failure.code == 21
    assert failure.source == web.url("/x")
    for word in words:
        assert word in failure.reason


def test_a_large_file_that_changes_between_its_parts_is_no_mixture(
    web: WebServer, tmp_path: Path
) -> None:
    manifest = submitted(web.put("/x", LARGE))
    web.keeps_conditions = False
    changed = bytes(len(LARGE))

    class Turning(dict[str, Served]):
        """The first answer is of the old file, all others of the new one."""

        reads = 0

        def __getitem__(self, path: str) -> Served:
            self.reads += 1
            return super().__getitem__(path) if self.reads == 1 else Served(changed)

    web.files = Turning(web.files)

    assert isinstance(failure_of(manifest, tmp_path), ObjectChangedError)


def test_an_empty_file_that_has_grown_is_noticed(web: WebServer, tmp_path: Path) -> None:
    manifest = submitted(web.put("/x", b""))
    web.put("/x", b"more")

    assert isinstance(failure_of(manifest, tmp_path), ObjectChangedError)


def test_without_an_etag_the_time_of_change_decides_and_the_user_is_told(
    web: WebServer, tmp_path: Path
) -> None:
    manifest = submitted(web.put("/x?sig=secret", b"body", etag=None))
    (entry,) = manifest.entries
    assert entry.at is not None
    assert (entry.at.etag, entry.at.modified) == (None, web.files["/x?sig=secret"].modified)
    (warning,) = weakly_named(manifest)
    assert warning.startswith(f"{web.url('/x')}?… has no ETag: its time of change")

    web.put("/x?sig=secret", b"edit", etag=None, modified="Wed, 04 Nov 2020 10:00:00 GMT")
    failure = failure_of(manifest, tmp_path)

    assert failure.code == 21
    assert "Wed, 04 Nov 2020" in failure.reason
    assert "secret" not in str(failure)


def test_with_nothing_but_a_size_the_size_decides(web: WebServer, tmp_path: Path) -> None:
    manifest = submitted(web.put("/x", b"body", etag=None, modified=None))
    (warning,) = weakly_named(manifest)
    assert "its size alone" in warning
    assert manifest.entries[0].mtime_ns > 0

    fetched(manifest, tmp_path)
    assert (tmp_path / "in").read_bytes() == b"body"
    (tmp_path / "in").unlink()

    web.put("/x", b"bodies", etag=None, modified=None)
    assert failure_of(manifest, tmp_path).code == 21


def test_an_etag_brings_no_warning(web: WebServer) -> None:
    assert list(weakly_named(submitted(web.put("/x", b"body")))) == []


def test_a_weak_etag_is_compared_and_never_made_a_condition(web: WebServer, tmp_path: Path) -> None:
    manifest = submitted(web.put("/x", b"body", etag='W/"1"'))

    fetched(manifest, tmp_path)
    assert (tmp_path / "in").read_bytes() == b"body"
    (tmp_path / "in").unlink()

    web.put("/x", b"edit", etag='W/"2"')
    assert failure_of(manifest, tmp_path).code == 21


def test_a_server_that_refuses_its_own_etag_is_read_without_the_condition(
    web: WebServer, tmp_path: Path
) -> None:
    manifest = submitted(web.put("/x", b"body"))
    web.refusals.append((412, {}))

    fetched(manifest, tmp_path)

    assert (tmp_path / "in").read_bytes() == b"body"
    assert "if-match" not in web.asked[-1].headers


@pytest.mark.parametrize("status", [403, 405, 501])
def test_where_head_is_refused_one_byte_tells_the_size(
    web: WebServer, tmp_path: Path, status: int
) -> None:
    web.head_status = status
    manifest = submitted(web.put("/x", b"body"))

    assert manifest.entries[0].size == 4
    assert [(item.method, item.range) for item in web.asked] == [
        ("HEAD", ""),
        ("GET", "bytes=0-0"),
    ]
    fetched(manifest, tmp_path)
    assert (tmp_path / "in").read_bytes() == b"body"


@pytest.mark.parametrize("body", [b"", b"body"], ids=["empty", "some bytes"])
def test_where_neither_head_nor_ranges_are_known_the_length_tells_the_size(
    web: WebServer, body: bytes
) -> None:
    web.head_status, web.knows_ranges = 405, False

    assert submitted(web.put("/x", body)).entries[0].size == len(body)


def test_a_file_of_unknown_size_is_refused_with_a_way_out(web: WebServer) -> None:
    web.chunked, web.knows_ranges = True, False
    url = web.put("/x", b"body")

    with pytest.raises(UnsupportedError, match="does not say how large") as caught:
        submitted(url)

    assert caught.value.source == url
    assert "download it" in caught.value.hint


def test_an_encoding_that_nobody_asked_for_is_refused(web: WebServer) -> None:
    web.encoding = "gzip"

    with pytest.raises(UnsupportedError, match="gzip"):
        submitted(web.put("/x", b"body"))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, StoreAccessError),
        (403, StoreAccessError),
        (404, ObjectNotFoundError),
        (410, ObjectNotFoundError),
    ],
)
def test_a_refusal_is_told_at_once_and_without_the_query(
    web: WebServer, status: int, kind: type[S3RunnerError]
) -> None:
    web.refusals.extend([(status, {})] * 2)

    with pytest.raises(kind) as caught:
        submitted(web.url("/x?X-Amz-Signature=secret"))

    assert caught.value.code == (21 if kind is ObjectNotFoundError else 23)
    assert caught.value.source == f"{web.url('/x')}?…"
    assert "secret" not in str(caught.value)
    assert len(web.asked) <= 2


def test_a_presigned_url_is_sent_whole_and_stored_whole(web: WebServer, tmp_path: Path) -> None:
    """Such a URL answers GET alone."""
    web.head_status = 403
    url = web.put("/a%20b/c?X-Sig=a%2Fb&n=1", b"body")

    manifest = submitted(url)
    fetched(manifest, tmp_path)

    assert (tmp_path / "in").read_bytes() == b"body"
    assert manifest.entries[0].at is not None
    assert manifest.entries[0].at.url == url
    assert {item.target for item in web.asked} == {"/a%20b/c?X-Sig=a%2Fb&n=1"}


def test_a_redirect_is_followed_and_what_the_user_wrote_is_stored(
    web: WebServer, tmp_path: Path
) -> None:
    web.put("/real?signed=1", LARGE)
    web.redirects["/x"] = "/real?signed=1"

    manifest = submitted(web.url("/x"))
    fetched(manifest, tmp_path)

    assert (tmp_path / "in").read_bytes() == LARGE
    assert manifest.entries[0].at is not None
    assert manifest.entries[0].at.url == web.url("/x")
    assert web.methods[:2] == ["HEAD", "HEAD"], "a HEAD stays one"


@pytest.mark.parametrize("target", ["/x", "file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_to_nowhere_is_refused(web: WebServer, target: str) -> None:
    web.redirects["/x"] = target

    with pytest.raises(UnsupportedError, match="redirects too often, or to what is no web address"):
        submitted(web.url("/x"))


def test_a_server_that_is_away_is_no_missing_file(tmp_path: Path) -> None:
    with serving() as server:
        manifest = submitted(server.put("/x", b"body"))

    failure = failure_of(manifest, tmp_path)

    assert failure.code == 30
    assert failure.reason.startswith("no connection (GET)")


def test_silence_is_no_end() -> None:
    """A server that accepts a connection and says nothing is given up, and asked again."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        clock = Clock()
        with pytest.raises(StoreUnavailableError, match="no answer for 0 s"):
            Web(clock.retry(1), Meter(), stall_s=0.05).look(url)
    assert clock.pauses


@pytest.mark.parametrize(("size", "stalls"), [(900, True), (2000, False)])
def test_an_answer_that_trickles_is_replaced(size: int, *, stalls: bool) -> None:
    """The reader's own time does not count: it is not the server that makes us wait then."""
    clock = Clock()
    pace = Pace(30, lambda: clock.now)
    told = []
    for _ in range(30):
        with pace:
            clock.now += 1
        clock.now += 1000
        try:
            pace.check(size)
        except StoreUnavailableError as error:
            told.append(error.reason)

    assert told == (["the answer stalled"] if stalls else [])


def test_gc_knows_that_it_names_no_key(web: WebServer) -> None:
    assert keys_named(submitted(web.put("/x", b"body")), "memory") == set()


def test_plain_staging_may_not_be_led_out_of_the_store(web: WebServer, tmp_path: Path) -> None:
    """What sync brings comes from a pod: its manifest may name no server."""
    manifest = submitted(web.put("/x", b"body"))
    web.asked.clear()

    with pytest.raises(S3RunnerError, match="outside of the store"):
        materialise(MemoryStore(), manifest, lambda path: str(tmp_path / path), meter=Meter())

    assert web.asked == []


def test_a_certificate_must_be_trusted_and_the_stores_ca_bundle_counts(tmp_path: Path) -> None:
    openssl = require_program("openssl")
    pem = tmp_path / "server.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"),
            *("-keyout", tmp_path / "key", "-out", tmp_path / "crt"),
        ],
        check=True,
        capture_output=True,
    )
    pem.write_text((tmp_path / "key").read_text() + (tmp_path / "crt").read_text())
    with serving(pem) as server:
        url = server.put("/x", b"body")
        with pytest.raises(StoreAccessError, match="certificate is not trusted") as caught:
            submitted(url)
        trusting = replace(CONFIG, ca_pem=(tmp_path / "crt").read_text())
        found = RemoteSources(MemoryStore(), trusting).resolve("in", url)

    assert "store.ca_bundle" in caught.value.hint
    assert found.entries[0].size == 4


@pytest.mark.parametrize("url", ["http://user:pw@host/x", "https://token@host/x", "http:///x"])
def test_what_no_input_can_be_is_refused_before_anything_is_asked(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        submitted(url)

    assert "pw" not in str(caught.value)
    assert "token@" not in str(caught.value)


def test_a_proxy_of_the_environment_is_used(
    web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy is asked for whole URLs."""
    monkeypatch.setenv("http_proxy", web.url(""))
    monkeypatch.setenv("no_proxy", "")
    web.files["http://far.example/x"] = Served(b"body")

    (entry,) = submitted("http://far.example/x").entries

    assert entry.size == 4


def test_a_file_without_a_digest_needs_no_etag_in_its_manifest(web: WebServer) -> None:
    manifest = submitted(web.put("/x", b"body", etag=None, modified=None))

    assert isinstance(manifest.entries[0], Entry)
    assert dump_manifest(manifest)["entries"][0]["at"] == {"url": web.url("/x")}
