"""Files behind fsspec: a real s3fs, its HTTP client, and a file system with levers."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import S3Access
from memory_store import MemoryStore
from service_rule import missing_service
from web_server import serving

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
from s3runner.model import Kind, Manifest, StoreConfig
from s3runner.runner.sources import RemoteSources, weakly_named
from s3runner.staging.digest import PART, combine, sha256_hex
from s3runner.staging.download import materialise
from s3runner.staging.manifest import dump_manifest, load_manifest
from s3runner.store.meter import Meter
from s3runner.store.origin import Elsewhere
from s3runner.store.retrying import Retry

CONFIG = StoreConfig("memory", retry_budget_s=0)
LARGE = os.urandom(PART + 54321)
Tree = dict[str, tuple[bytes, object]]
NOON = datetime(2020, 11, 3, 12, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def _installed() -> None:
    if importlib.util.find_spec("s3fs") is None:
        missing_service("s3fs", "it is not installed")


@pytest.fixture(params=["moto_access", "rgw_access"])
def s3(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Access:
    """A bucket, and an s3fs that finds it by its own configuration."""
    import fsspec.config  # noqa: PLC0415 # part of what may not be installed

    access: S3Access = request.getfixturevalue(request.param)
    config, keys = access.config, access.credentials
    options: dict[str, Any] = {
        "endpoint_url": config.endpoint,
        "key": keys.access_key,
        "secret": keys.secret_key,
        "skip_instance_cache": True,
    }
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    return access


def put(s3: S3Access, key: str, body: bytes) -> str:
    size = len(body)
    s3.open().put(key, lambda: iter((body,)), size=size, part_size=max(1, size))
    return f"fs+s3://{s3.config.bucket}/{key}"


def submitted(url: str) -> Manifest:
    manifest = RemoteSources(MemoryStore(), CONFIG).resolve("in", url)
    return load_manifest(dump_manifest(manifest), "s3://b/m")


def fetched(manifest: Manifest, root: Path, *, meter: Meter | None = None) -> Manifest:
    meter = meter or Meter()
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    elsewhere = Elsewhere(Retry(20, clock=lambda: now[0], sleep=sleep), meter)
    return materialise(
        MemoryStore(), manifest, lambda path: str(root / path), meter=meter, elsewhere=elsewhere
    )


def failure_of(manifest: Manifest, root: Path) -> S3RunnerError:
    with pytest.raises(StagingError) as caught:
        fetched(manifest, root)
    return caught.value.failures[0]


@pytest.mark.parametrize("body", [b"", b"small", LARGE], ids=["empty", "one part", "two parts"])
def test_a_file_of_another_s3_comes_through_s3fs(s3: S3Access, tmp_path: Path, body: bytes) -> None:
    manifest = submitted(put(s3, "data/x", body))
    (entry,) = manifest.entries
    assert entry.at is not None
    assert (entry.size, entry.at.etag) == (len(body), s3.open().head("data/x").etag)
    meter = Meter()

    read = fetched(manifest, tmp_path, meter=meter)

    assert (tmp_path / "in").read_bytes() == body
    parts = [body[start : start + PART] for start in range(0, len(body) or 1, PART)]
    assert read.entries[0].digest == combine([sha256_hex(part) for part in parts])
    assert (meter.phase.bytes, meter.phase.files) == (len(body), 1)
    assert meter.phase.requests >= len(parts)


def test_a_directory_comes_with_all_below_it_and_no_neighbour(s3: S3Access, tmp_path: Path) -> None:
    for name in ("a", "b/c/d", "b-"):
        put(s3, f"set/{name}", name.encode())
    put(s3, "set2", b"a neighbour")

    manifest = submitted(f"fs+s3://{s3.config.bucket}/set/")
    fetched(manifest, tmp_path)

    assert [entry.path for entry in manifest.entries if entry.kind is Kind.FILE] == [
        "in/a",
        "in/b-",
        "in/b/c/d",
    ]
    assert (tmp_path / "in/b/c/d").read_text() == "b/c/d"
    assert sorted(os.listdir(tmp_path / "in")) == ["a", "b", "b-"]


@pytest.mark.parametrize("new", [b"longer", b"edit", b"s"], ids=["longer", "other", "shorter"])
def test_an_object_that_changed_is_an_input_failure(
    s3: S3Access, tmp_path: Path, new: bytes
) -> None:
    url = put(s3, "x", b"body")
    manifest = submitted(url)
    put(s3, "x", new)

    failure = failure_of(manifest, tmp_path)

    assert isinstance(failure, ObjectChangedError)
    assert failure.code == 21
    assert failure.source == url
    assert "expected 4 bytes" in failure.reason
    assert f"found {len(new)} bytes" in failure.reason
    assert os.listdir(tmp_path) == []


def test_an_object_that_went_is_an_input_failure(s3: S3Access, tmp_path: Path) -> None:
    manifest = submitted(put(s3, "x", b"body"))
    s3.open().delete("x")

    assert isinstance(failure_of(manifest, tmp_path), ObjectNotFoundError)
    with pytest.raises(ObjectNotFoundError):
        submitted(f"fs+s3://{s3.config.bucket}/gone")


def test_wrong_keys_are_access_denied(
    rgw_access: S3Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec.config  # noqa: PLC0415 # as above

    options = {"endpoint_url": rgw_access.config.endpoint, "key": "nobody", "secret": "x"}
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    put(rgw_access, "x", b"body")

    with pytest.raises(StoreAccessError) as caught:
        submitted(f"fs+s3://{rgw_access.config.bucket}/x")

    assert caught.value.code == 23


def test_the_prefix_lets_fsspec_read_what_s3runner_would(tmp_path: Path) -> None:
    with serving() as web:
        url = web.put("/x", b"body")
        manifest = submitted(f"fs+{url}")
        fetched(manifest, tmp_path)

    assert (tmp_path / "in").read_bytes() == b"body"
    assert "s3runner" not in web.asked[0].headers["user-agent"]


# --- a file system with levers --------------------------------------------------------------------


class Levers:
    """What the file system `lab://` holds, and how it fails."""

    tree: ClassVar[Tree] = {}
    fail: ClassVar[list[Exception]] = []
    meeting: ClassVar[threading.Barrier] = threading.Barrier(2)
    met: ClassVar[bool] = False
    reads: ClassVar[int] = 0
    changes_at: ClassVar[int] = 0
    kind: ClassVar[str] = "file"


def _info(path: str) -> dict[str, Any]:
    if Levers.fail:
        raise Levers.fail.pop(0)
    if path in Levers.tree:
        body, changed = Levers.tree[path]
        found = {"name": path, "size": len(body), "type": Levers.kind}
        return found if changed is None else {**found, "mtime": changed}
    if any(name.startswith(f"{path}/") for name in Levers.tree):
        return {"name": path, "size": 0, "type": "directory"}
    raise FileNotFoundError(path)


def _listed(above: str) -> list[dict[str, Any]]:
    names = {name[len(above) :].partition("/")[0] for name in Levers.tree if name.startswith(above)}
    return [_info(above + name) for name in sorted(names)]


def _piece(path: str, start: int, end: int) -> bytes:
    if Levers.fail:
        raise Levers.fail.pop(0)
    try:
        Levers.meeting.wait(0.1)
        Levers.met = True
    except threading.BrokenBarrierError:
        Levers.meeting.reset()
    piece = Levers.tree[path][0][start:end]
    Levers.reads += 1
    if Levers.reads == Levers.changes_at:
        Levers.tree[path] = (bytes(len(Levers.tree[path][0])), NOON.replace(hour=13))
    return piece


@pytest.fixture
def lab() -> type[Levers]:
    """Register `lab://`: not asynchronous, with times, without ETags, and it remembers."""
    from fsspec import AbstractFileSystem, register_implementation  # noqa: PLC0415 # as above

    class Lab(AbstractFileSystem):  # type: ignore[misc]
        protocol = "lab"
        cachable = False

        def info(self, path: str, **_: object) -> dict[str, Any]:
            seen: dict[str, Any] = self.__dict__.setdefault("seen", {})
            if path not in seen:
                seen[path] = _info(self._strip_protocol(path))
            found: dict[str, Any] = seen[path]
            return found

        def invalidate_cache(self, path: str | None = None) -> None:
            del path
            self.__dict__["seen"] = {}

        def ls(self, path: str, **_: object) -> list[dict[str, Any]]:
            return _listed(f"{self._strip_protocol(path)}/")

        def cat_file(self, path: str, start: int, end: int, **_: object) -> bytes:
            return _piece(self._strip_protocol(path), start, end)

    register_implementation("lab", Lab, clobber=True)
    Levers.tree, Levers.fail, Levers.met, Levers.kind = {}, [], False, "file"
    Levers.reads = Levers.changes_at = 0
    return Levers


def test_without_an_etag_the_time_of_change_decides(lab: type[Levers], tmp_path: Path) -> None:
    lab.tree["d/x"] = (b"body", NOON)
    manifest = submitted("lab://d/x")
    (entry,) = manifest.entries
    assert entry.mtime_ns == int(NOON.timestamp()) * 10**9
    assert [text.partition(":")[0] for text in weakly_named(manifest)] == ["lab"]

    fetched(manifest, tmp_path)
    assert (tmp_path / "in").read_bytes() == b"body"

    lab.tree["d/x"] = (b"edit", NOON.replace(hour=13))
    failure = failure_of(manifest, tmp_path)
    assert failure.code == 21
    assert "13:00:00" in failure.reason


def test_a_file_that_changes_at_its_last_byte_is_noticed(lab: type[Levers], tmp_path: Path) -> None:
    """Whatever the library remembers of the look after an earlier part."""
    lab.tree["x"] = (LARGE, NOON)
    manifest = submitted("lab://x")
    lab.changes_at = 5

    assert isinstance(failure_of(manifest, tmp_path), ObjectChangedError)
    assert lab.reads == 5


def test_a_tree_with_directories_comes_whole(lab: type[Levers], tmp_path: Path) -> None:
    lab.tree.update({f"d/{name}": (name.encode(), 1604397600.5) for name in ("a", "e/f", "e-")})

    manifest = submitted("lab://d")
    fetched(manifest, tmp_path)

    assert [(entry.path, entry.kind) for entry in manifest.entries] == [
        ("in", Kind.DIR),
        ("in/a", Kind.FILE),
        ("in/e", Kind.DIR),
        ("in/e-", Kind.FILE),
        ("in/e/f", Kind.FILE),
    ]
    assert manifest.entries[1].at is not None
    assert manifest.entries[1].at.url == "lab://d/a"
    assert (tmp_path / "in/e/f").read_text() == "e/f"


def test_what_has_one_connection_is_asked_by_one_thread_at_a_time(
    lab: type[Levers], tmp_path: Path
) -> None:
    lab.tree.update({f"d/{number}": (b"body", NOON) for number in range(4)})

    fetched(submitted("lab://d"), tmp_path)

    assert not lab.met
    assert (tmp_path / "in/3").read_bytes() == b"body"


def test_a_failure_that_may_pass_is_tried_again(lab: type[Levers], tmp_path: Path) -> None:
    lab.tree["x"] = (b"body", NOON)
    manifest = submitted("lab://x")
    lab.fail.extend([TimeoutError("slow"), ConnectionResetError("gone")])

    fetched(manifest, tmp_path)

    assert (tmp_path / "in").read_bytes() == b"body"
    lab.fail.extend([TimeoutError("slow")] * 1000)
    failure = failure_of(manifest, tmp_path)
    assert isinstance(failure, StoreUnavailableError)
    assert "TimeoutError: slow for 20 s" in failure.reason


class NoCredentialsError(Exception):
    """Named as botocore's own."""


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (PermissionError("no"), 23),
        (NoCredentialsError("no"), 23),
        (FileNotFoundError("no"), 21),
        (NotImplementedError("no"), 25),
        (TypeError("needs a host"), 20),
        (RuntimeError("who knows"), 30),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_a_library_raises_has_a_code(lab: type[Levers], raised: Exception, code: int) -> None:
    lab.tree["x?key=secret"] = (b"body", NOON)
    lab.fail.append(raised)

    with pytest.raises(S3RunnerError) as caught:
        submitted("lab://x?key=secret")

    assert caught.value.code == code
    assert caught.value.source == "lab://x?…"


def test_a_library_that_repeats_the_url_shows_no_query(lab: type[Levers]) -> None:
    lab.fail.append(RuntimeError("cannot open lab://x?key=secret"))

    with pytest.raises(StoreUnavailableError) as caught:
        submitted("lab://x?key=secret")

    assert "secret" not in str(caught.value)


def test_what_is_no_file_is_refused(lab: type[Levers]) -> None:
    lab.tree["x"] = (b"body", NOON)
    lab.kind = "link"

    with pytest.raises(UnsupportedError, match="link"):
        submitted("lab://x")


def test_a_scheme_that_nobody_knows_gets_the_nearest_one() -> None:
    with pytest.raises(SettingsError, match=r"htps:// .*did you mean 'https'"):
        submitted("htps://host/x")


def test_a_scheme_whose_package_is_missing_names_it() -> None:
    if importlib.util.find_spec("gcsfs") is not None:
        pytest.skip("gcsfs is installed")

    with pytest.raises(SettingsError, match="gcsfs") as caught:
        submitted("gs://bucket/x")

    assert "s3runner[fs]" in caught.value.hint


def test_without_fsspec_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, lab: type[Levers], tmp_path: Path
) -> None:
    lab.tree["x"] = (b"body", NOON)
    manifest = submitted("lab://x")
    monkeypatch.setitem(sys.modules, "fsspec", None)

    with pytest.raises(SettingsError, match="read through fsspec, which is not installed") as at:
        submitted("lab://x")
    with pytest.raises(S3RunnerError) as caught:
        fetched(manifest, tmp_path)

    assert "pip install 's3runner[fs]'" in at.value.hint
    assert caught.value.code == 20
