"""What every object store promises, held against memory, moto and a Ceph gateway (HTTP, TLS)."""

from __future__ import annotations

import hashlib
import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from conftest import S3Access
from memory_store import MemoryStore

from s3runner.errors import (
    InputError,
    IntegrityError,
    ObjectChangedError,
    ObjectNotFoundError,
    StoreAccessError,
    StoreUnavailableError,
    UnsupportedError,
)
from s3runner.model import Credentials, StoreConfig
from s3runner.store.obstore_store import ObstoreStore
from s3runner.store.protocol import Chunks, ObjectStore

MIB = 1024 * 1024
PART = 5 * MIB  # the least that S3 takes for a part


def joined(chunks: Chunks) -> bytes:
    return b"".join(chunks)


def put_bytes(store: ObjectStore, key: str, body: bytes, part_size: int = PART) -> None:
    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), part_size):
            yield body[start : start + part_size]

    store.put(key, pieces, size=len(body), part_size=part_size)


def noise(size: int) -> bytes:
    """Bytes that differ at every offset of interest, the same at each run."""
    return hashlib.shake_128(str(size).encode()).digest(size)


@pytest.fixture
def other_client(s3_access: S3Access, tmp_path: Path) -> Any:
    """Another client than the one under test, to look behind its back."""
    access = s3_access
    bundle = tmp_path / "ca.pem"
    bundle.write_text(access.config.ca_pem or "")
    return boto3.client(
        "s3",
        endpoint_url=access.config.endpoint,
        verify=str(bundle) if access.config.ca_pem else None,
        region_name="us-east-1",
        aws_access_key_id=access.credentials.access_key,
        aws_secret_access_key=access.credentials.secret_key,
        config=Config(s3={"addressing_style": "path"}),
    )


@pytest.mark.parametrize(
    "size",
    [0, 1, PART - 1, PART, PART + 1, 3 * PART],
    ids=["empty", "one byte", "below a part", "one part", "two parts", "three whole parts"],
)
def test_what_was_put_comes_back(store: ObjectStore, size: int) -> None:
    body = noise(size)
    put_bytes(store, "a/b", body)
    assert store.get("a/b", joined) == body
    assert store.head("a/b").size == size


def test_a_put_replaces_the_object(store: ObjectStore) -> None:
    put_bytes(store, "k", b"old")
    put_bytes(store, "k", b"new!")
    assert store.get("k", joined) == b"new!"


def test_head_tells_size_etag_and_an_age_by_the_stores_clock(store: ObjectStore) -> None:
    put_bytes(store, "k", b"12345")
    stored = store.head("k")
    assert (stored.key, stored.size) == ("k", 5)
    assert stored.etag
    age = datetime.now(timezone.utc) - stored.modified
    assert abs(age) < timedelta(minutes=2)


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (0, 4, slice(0, 4)),
        (3, 5, slice(3, 8)),
        (999_990, 10, slice(999_990, 1_000_000)),
        (600_000, None, slice(600_000, None)),
        (0, 1_000_000, slice(None)),
    ],
    ids=["head", "middle", "tail", "open end", "all of it"],
)
def test_a_range_is_exactly_what_was_asked_for(
    store: ObjectStore, start: int, length: int | None, expected: slice
) -> None:
    body = noise(1_000_000)
    put_bytes(store, "k", body)
    assert store.get("k", joined, start=start, length=length) == body[expected]


def test_a_length_of_nothing_asks_nothing(store: ObjectStore) -> None:
    assert store.get("there/is/no/such/key", joined, start=7, length=0) == b""


@pytest.mark.parametrize(("start", "length"), [(3, 10), (10, 5)], ids=["its tail", "all of it"])
def test_a_range_beyond_the_object_is_an_integrity_error(
    store: ObjectStore, start: int, length: int
) -> None:
    put_bytes(store, "k", b"12345")
    with pytest.raises(IntegrityError, match="shorter") as caught:
        store.get("k", joined, start=start, length=length)
    assert caught.value.source == f"s3://{store.bucket}/k"


def test_an_error_of_the_consumer_passes_through(store: ObjectStore) -> None:
    put_bytes(store, "k", noise(2 * MIB))

    def consume(chunks: Chunks) -> None:
        next(chunks)
        raise FileNotFoundError("the consumer's own")

    with pytest.raises(FileNotFoundError, match="the consumer's own"):
        store.get("k", consume)


@pytest.mark.parametrize("request_name", ["head", "get"])
def test_a_key_that_is_not_there_is_not_found(store: ObjectStore, request_name: str) -> None:
    calls: dict[str, Callable[[], object]] = {
        "head": lambda: store.head("no/such"),
        "get": lambda: store.get("no/such", joined),
    }
    with pytest.raises(ObjectNotFoundError, match="no such object") as caught:
        calls[request_name]()
    assert caught.value.source == f"s3://{store.bucket}/no/such"


def test_if_match_takes_the_named_object_and_refuses_another(store: ObjectStore) -> None:
    put_bytes(store, "k", b"first")
    etag = store.head("k").etag
    assert store.get("k", joined, if_match=etag) == b"first"
    assert store.get("k", joined, start=1, length=2, if_match=etag) == b"ir"
    put_bytes(store, "k", b"other")
    with pytest.raises(ObjectChangedError, match="the object changed"):
        store.get("k", joined, if_match=etag)


@pytest.mark.parametrize(
    "error",
    [
        InputError("the file changed"),
        FileNotFoundError("the file went away"),
        KeyError("a bug"),
        KeyboardInterrupt(),
    ],
    ids=["ours", "like a 404", "a bug", "ctrl-c"],
)
@pytest.mark.parametrize("chunks", [1, 3], ids=["in one request", "in parts"])
def test_a_body_that_raises_leaves_no_object_and_its_error_as_it_was(
    store: ObjectStore, error: BaseException, chunks: int
) -> None:
    def body() -> Iterator[bytes]:
        yield from itertools.repeat(noise(PART), chunks)
        raise error

    with pytest.raises(type(error)) as caught:
        store.put("k", body, size=chunks * PART, part_size=PART)
    assert caught.value is error
    with pytest.raises(ObjectNotFoundError):
        store.head("k")


@pytest.mark.parametrize("size", [5, 2 * PART], ids=["in one request", "in parts"])
def test_ctrl_c_while_the_store_asks_for_keys_is_not_taken_for_a_refusal(
    moto_access: S3Access, size: int
) -> None:
    def interrupted() -> Credentials:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        put_bytes(ObstoreStore(moto_access.config, interrupted), "k", noise(size))


def test_a_real_ctrl_c_in_an_upload_is_raised_as_such(s3_access: S3Access) -> None:
    parts = 0

    def body() -> Iterator[bytes]:
        nonlocal parts
        for parts in range(1, 40):
            if parts == 5:
                # from another thread, so that it may come while the store's client is at work
                threading.Thread(target=signal.raise_signal, args=[signal.SIGINT]).start()
            yield noise(PART)

    with pytest.raises(KeyboardInterrupt):
        s3_access.open().put("k", body, size=40 * PART, part_size=PART)
    assert parts < 39
    with pytest.raises(ObjectNotFoundError):
        s3_access.open().head("k")


def test_a_body_that_raises_leaves_no_open_upload(s3_access: S3Access, other_client: Any) -> None:
    def body() -> Iterator[bytes]:
        yield noise(PART)
        yield noise(PART)
        raise InputError("the file changed")

    with pytest.raises(InputError):
        s3_access.open().put("k", body, size=5 * PART, part_size=PART)
    uploads = other_client.list_multipart_uploads(Bucket=s3_access.config.bucket)
    assert uploads.get("Uploads", []) == []


def test_a_large_put_has_parts_of_exactly_the_size_asked_for(
    s3_access: S3Access, other_client: Any
) -> None:
    body = noise(3 * PART + 17)
    put_bytes(s3_access.open(), "k", body)
    head = other_client.head_object(Bucket=s3_access.config.bucket, Key="k")
    sums = [
        hashlib.md5(body[at : at + PART], usedforsecurity=False).digest()
        for at in range(0, len(body), PART)
    ]
    whole = hashlib.md5(b"".join(sums), usedforsecurity=False).hexdigest()
    assert head["ETag"].strip('"') == f"{whole}-4"


def test_put_if_absent_keeps_the_first(store: ObjectStore) -> None:
    assert store.put_if_absent("commit.json", b"one") is True
    assert store.put_if_absent("commit.json", b"two") is False
    assert store.get("commit.json", joined) == b"one"


# moto looks and then writes, without a lock: it keeps the promise for one writer at a time
@pytest.mark.parametrize("store", ["memory", "rgw-http", "rgw-tls"], indirect=True)
def test_of_sixteen_put_if_absent_at_once_one_wins(store: ObjectStore) -> None:
    start = threading.Barrier(16)

    def write(number: int) -> int | None:
        start.wait()
        # an answer that says "later" is no decision
        for _ in range(50):
            try:
                return number if store.put_if_absent("commit.json", b"%d" % number) else None
            except StoreUnavailableError:  # noqa: PERF203 # ask until there is one
                continue
        raise AssertionError("no decision")

    with ThreadPoolExecutor(16) as threads:
        winners = [number for number in threads.map(write, range(16)) if number is not None]
    assert len(winners) == 1
    assert store.get("commit.json", joined) == b"%d" % winners[0]


def test_delete_takes_the_object_away_and_again_is_no_error(store: ObjectStore) -> None:
    put_bytes(store, "k", b"x")
    store.delete("k")
    with pytest.raises(ObjectNotFoundError):
        store.head("k")
    store.delete("k")


def test_list_yields_what_is_below_the_prefix_and_nothing_beside_it(store: ObjectStore) -> None:
    for key in ("a/b", "a/b/c", "a/bc", "a/b/d/e", "ab/c", "a b/c", "z"):
        put_bytes(store, key, key.encode())
    assert [stored.key for stored in store.list("a/b/")] == ["a/b/c", "a/b/d/e"]
    assert {stored.key for stored in store.list("a/")} == {"a/b", "a/b/c", "a/bc", "a/b/d/e"}
    assert list(store.list("b/")) == []


def test_list_tells_what_head_tells(store: ObjectStore) -> None:
    put_bytes(store, "a/b", b"123")
    (listed,) = store.list("a/")
    head = store.head("a/b")
    assert (listed.key, listed.size, listed.etag) == (head.key, head.size, head.etag)
    assert abs(listed.modified - head.modified) < timedelta(seconds=2)


def test_list_goes_on_after_the_first_thousand_keys(store: ObjectStore) -> None:
    keys = [f"many/{number:04d}" for number in range(1001)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda key: store.put_if_absent(key, b""), keys))
    assert sorted(stored.key for stored in store.list("many/")) == keys


def test_folders_are_the_names_one_level_below_whatever_they_hold(store: ObjectStore) -> None:
    for key in ("j/b/1", "j/b/2/3", "j/a b/1", "j/é/1", "j/file", "ju/c/1", "j/b.c/1"):
        put_bytes(store, key, b"")
    assert list(store.list_folders("j/")) == ["a b", "b", "b.c", "é"]
    assert list(store.list_folders("j/b/")) == ["2"]
    assert list(store.list_folders("nothing/")) == []


def test_folders_go_on_after_the_first_thousand(store: ObjectStore) -> None:
    names = [f"{number:04d}" for number in range(1001)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: store.put_if_absent(f"j/{name}/x", b""), names))
    assert list(store.list_folders("j/")) == names


def test_folders_of_a_bucket_that_is_not_there_are_an_access_error(store: ObjectStore) -> None:
    with pytest.raises(StoreAccessError):
        store.in_bucket("no-such-bucket-here").list_folders("j/")


HOSTILE = [
    "a%20b/%2F%0A%25",
    "blank and + plus",
    "quote'\"`$( );&|",
    "#?=@:,[]{}<>^~!*",
    "-dash/--help",
    "ünï/日本語/🙂",
    "a/...",
    "x" * 200 + "/" + "y" * 600,
    "back\\slash",
    "aws-chunked/.hidden/~",
]


@pytest.mark.parametrize("key", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_key_is_kept_as_it_is(store: ObjectStore, key: str) -> None:
    put_bytes(store, f"in/{key}", b"body")
    assert store.get(f"in/{key}", joined) == b"body"
    assert [stored.key for stored in store.list("in/")] == [f"in/{key}"]
    store.delete(f"in/{key}")
    assert list(store.list("in/")) == []


UNNAMEABLE = [
    "/a",
    "a/",
    "a//b",
    "a/./b",
    "../a",
    "a\nb",
    "a\x00",
    "a\x7f",
    "\udcff",
    "k" * 1025,
    "",
]


@pytest.mark.parametrize("key", UNNAMEABLE, ids=range(len(UNNAMEABLE)))
def test_a_key_that_cannot_be_named_is_refused_not_changed(store: ObjectStore, key: str) -> None:
    with pytest.raises(UnsupportedError):
        put_bytes(store, key, b"body")
    with pytest.raises(UnsupportedError):
        store.head(key)


def test_another_bucket_by_the_same_keys(store: ObjectStore) -> None:
    with pytest.raises(StoreAccessError, match="no such bucket"):
        put_bytes(store.in_bucket("no-such-bucket-here"), "k", b"x")
    put_bytes(store, "k", b"x")
    assert store.in_bucket(store.bucket).get("k", joined) == b"x"


MISSING_BUCKET: dict[str, Callable[[ObjectStore], object]] = {
    "get": lambda store: store.get("k", joined),
    "put": lambda store: put_bytes(store, "k", b"x"),
    "put in parts": lambda store: put_bytes(store, "k", noise(2 * PART)),
    "put_if_absent": lambda store: store.put_if_absent("k", b"x"),
    "list": lambda store: list(store.list("k/")),
    "delete": lambda store: store.delete("k"),
}


@pytest.mark.parametrize("call", MISSING_BUCKET.values(), ids=MISSING_BUCKET.keys())
def test_a_missing_bucket_is_denied_access_not_a_missing_object(
    store: ObjectStore, call: Callable[[ObjectStore], object]
) -> None:
    with pytest.raises(StoreAccessError, match="no such bucket") as caught:
        call(store.in_bucket("no-such-bucket-here"))
    assert caught.value.code == 23


@pytest.mark.parametrize(
    ("credentials", "meaning"),
    [
        (Credentials("nobody", "secret"), "unknown access key"),
        (Credentials("s3runnertest", "wrong"), "wrong secret key"),
    ],
    ids=["unknown key", "wrong secret"],
)
@pytest.mark.parametrize("call", MISSING_BUCKET.values(), ids=MISSING_BUCKET.keys())
def test_wrong_keys_are_told_as_such(
    rgw_access: S3Access,
    credentials: Credentials,
    meaning: str,
    call: Callable[[ObjectStore], object],
) -> None:
    with pytest.raises(StoreAccessError, match=meaning) as caught:
        call(ObstoreStore(rgw_access.config, credentials))
    assert caught.value.code == 23
    assert not caught.value.temporary
    assert caught.value.hint


def test_wrong_keys_on_head_say_that_there_is_no_reason(rgw_access: S3Access) -> None:
    with pytest.raises(StoreAccessError, match="access denied") as caught:
        ObstoreStore(rgw_access.config, Credentials("nobody", "secret")).head("k")
    assert "clock" in caught.value.hint


@pytest.mark.parametrize("call", MISSING_BUCKET.values(), ids=MISSING_BUCKET.keys())
def test_a_store_that_is_down_is_temporary(call: Callable[[ObjectStore], object]) -> None:
    config = StoreConfig("bucket", endpoint="http://127.0.0.1:1", insecure_http=True)
    store = ObstoreStore(config, Credentials("key", "secret"))
    with pytest.raises(StoreUnavailableError, match="no connection") as caught:
        call(store)
    assert caught.value.temporary


def test_a_certificate_of_an_unknown_authority_is_refused_with_a_hint(
    rgw_tls_access: S3Access,
) -> None:
    config = replace(rgw_tls_access.config, ca_pem=None)
    with pytest.raises(StoreAccessError, match="not trusted") as caught:
        ObstoreStore(config, rgw_tls_access.credentials).head("k")
    assert "ca_bundle" in caught.value.hint


def test_memory_announces_a_wrong_size() -> None:
    with pytest.raises(AssertionError, match="announced"):
        MemoryStore().put("k", lambda: iter([b"abc"]), size=4, part_size=4)
