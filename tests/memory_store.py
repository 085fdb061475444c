"""An object store in memory that is as strict as the real ones, with levers for faults.

It implements `s3runner.store.protocol.ObjectStore`, so tests of everything above the store run
without a server; the contract suite holds it to the same promises as S3.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TypeVar

from s3runner.errors import (
    IntegrityError,
    ObjectChangedError,
    ObjectNotFoundError,
    S3RunnerError,
    StoreAccessError,
    StoreUnavailableError,
    UnsupportedError,
)
from s3runner.store.protocol import Chunks, OpenUpload, StoredObject

T = TypeVar("T")
Call = tuple[str, int]
"""A method's name and which call of it (1 is the first), over all buckets: `("put", 3)`."""


def _now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass
class _World:
    """What all stores made by `in_bucket` share."""

    buckets: dict[str, dict[str, tuple[bytes, datetime]]]
    fail: Mapping[Call, Exception]
    lose: Collection[Call]
    clock: Callable[[], datetime]
    lock: threading.RLock = field(default_factory=threading.RLock)
    calls: list[tuple[str, str]] = field(default_factory=list)


class MemoryStore:
    """One bucket in memory.

    Args:
        bucket: its name; it exists, others only if `buckets` names them.
        buckets: further buckets that exist.
        fail: these calls raise the error and change nothing: `{("put", 3): error}`.
        lose: these calls do their work, then raise StoreUnavailableError: a lost answer.
        clock: the store's own clock, for `modified`.
    """

    def __init__(
        self,
        bucket: str = "memory",
        *,
        buckets: Collection[str] = (),
        fail: Mapping[Call, Exception] | None = None,
        lose: Collection[Call] = (),
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._bucket = bucket
        self._world = _World({name: {} for name in (bucket, *buckets)}, fail or {}, lose, clock)

    @property
    def bucket(self) -> str:
        return self._bucket

    @property
    def calls(self) -> list[tuple[str, str]]:
        """Every call so far, as (method, key or prefix), failed ones included."""
        return self._world.calls

    @property
    def objects(self) -> dict[str, bytes]:
        """A copy of what the bucket holds."""
        with self._world.lock:
            return {key: body for key, (body, _) in self._objects().items()}

    def damage(self, key: str, body: bytes) -> None:
        """Replace an object's bytes behind everyone's back; its age stays."""
        with self._world.lock:
            objects = self._objects()
            objects[key] = (body, objects[key][1])

    def in_bucket(self, bucket: str) -> MemoryStore:
        other = MemoryStore(bucket)
        other._world = self._world
        return other

    def head(self, key: str) -> StoredObject:
        lost = self._begin("head", key)
        stored = self._stored(key)
        self._answer(lost)
        return stored

    def list(self, prefix: str) -> Iterator[StoredObject]:
        assert prefix.endswith("/"), "a prefix ends in a slash"
        lost = self._begin("list", prefix)
        with self._world.lock:
            keys = sorted(key for key in self._objects() if key.startswith(prefix))
            found = [self._stored(key) for key in keys]
        self._answer(lost)
        yield from found

    def list_folders(self, prefix: str) -> Sequence[str]:
        assert prefix.endswith("/"), "a prefix ends in a slash"
        lost = self._begin("list_folders", prefix)
        with self._world.lock:
            below = [key[len(prefix) :] for key in self._objects() if key.startswith(prefix)]
        self._answer(lost)
        return sorted({name.partition("/")[0] for name in below if "/" in name})

    def get(
        self,
        key: str,
        consume: Callable[[Chunks], T],
        *,
        start: int = 0,
        length: int | None = None,
        if_match: str | None = None,
    ) -> T:
        if length == 0:
            return consume(iter(()))
        lost = self._begin("get", key)
        with self._world.lock:
            stored = self._stored(key)
            body = self._objects()[key][0]
        if if_match is not None and if_match != stored.etag:
            raise ObjectChangedError("the object changed", source=self._uri(key))
        wanted = len(body) - start if length is None else length
        if start + wanted > len(body) or wanted < 0:
            raise IntegrityError("the object is shorter than it should be", source=self._uri(key))
        ranged = body[start : start + wanted]
        return consume(_broken(ranged[: wanted // 2]) if lost else _pieces(ranged))

    def put(self, key: str, body: Callable[[], Chunks], *, size: int, part_size: int) -> None:
        lost = self._begin("put", key)
        chunks = list(body())
        sizes = [len(chunk) for chunk in chunks]
        assert sum(sizes) == size, f"{size} bytes were announced, {sum(sizes)} came"
        assert all(length == part_size for length in sizes[:-1]), f"uneven parts: {sizes}"
        assert all(length <= part_size for length in sizes[-1:]), f"too long a part: {sizes}"
        with self._world.lock:
            self._objects()[key] = (b"".join(chunks), self._world.clock())
        self._answer(lost)

    def put_if_absent(self, key: str, body: bytes) -> bool:
        lost = self._begin("put_if_absent", key)
        with self._world.lock:
            absent = key not in self._objects()
            if absent:
                self._objects()[key] = (body, self._world.clock())
        self._answer(lost)
        return absent

    def delete(self, key: str) -> None:
        lost = self._begin("delete", key)
        with self._world.lock:
            self._objects().pop(key, None)
        self._answer(lost)

    def _objects(self) -> dict[str, tuple[bytes, datetime]]:
        if self._bucket not in self._world.buckets:
            raise StoreAccessError(f"no such bucket: {self._bucket}")
        return self._world.buckets[self._bucket]

    def _uri(self, key: str) -> str:
        return f"s3://{self._bucket}/{key}"

    def _stored(self, key: str) -> StoredObject:
        with self._world.lock:
            if key not in self._objects():
                raise ObjectNotFoundError("no such object", source=self._uri(key))
            body, modified = self._objects()[key]
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        return StoredObject(key, len(body), f'"{etag}"', modified)

    def _begin(self, method: str, key: str) -> bool:
        """Count the call, fail it if it is one of those; return whether its answer gets lost."""
        if method not in ("list", "list_folders"):
            _check_key(key)
        with self._world.lock:
            self._world.calls.append((method, key))
            number = sum(name == method for name, _ in self._world.calls)
        error = self._world.fail.get((method, number))
        if error is not None:
            raise error
        return (method, number) in self._world.lose

    def _answer(self, lost: bool) -> None:  # two words of one lever
        if lost:
            raise StoreUnavailableError("no answer")


@dataclass
class MemoryControl:
    """What gc asks of a bucket in memory beside its objects (`StoreControl`).

    `uploads` are open ones with their ages, `fail` is raised by `now`, one error a call, what
    `keep` names cannot be deleted, and `deleted` holds what each call was about.
    """

    store: MemoryStore
    uploads: list[tuple[OpenUpload, datetime]] = field(default_factory=list)
    fail: list[S3RunnerError] = field(default_factory=list)
    keep: dict[str, S3RunnerError] = field(default_factory=dict)
    deleted: list[Sequence[str]] = field(default_factory=list)

    def now(self) -> datetime:
        if self.fail:
            raise self.fail.pop()
        return self.store._world.clock()

    def idle_uploads(self, prefix: str, before: datetime) -> Sequence[OpenUpload]:
        return [up for up, at in self.uploads if up.key.startswith(prefix) and at < before]

    def delete(self, keys: Sequence[str]) -> dict[str, S3RunnerError]:
        """Delete one by one, so that the store's levers work between any two."""
        self.deleted.append(keys)
        for key in keys:
            if key not in self.keep:
                self.store.delete(key)
        return {key: self.keep[key] for key in keys if key in self.keep}

    def abort(self, uploads: Sequence[OpenUpload]) -> None:
        self.uploads = [(up, at) for up, at in self.uploads if up not in uploads]


def _broken(body: bytes) -> Chunks:
    yield from _pieces(body)
    raise StoreUnavailableError("the answer broke off")


def _pieces(body: bytes) -> Chunks:
    """Cut where nobody expects it."""
    sizes = itertools.cycle((1, 70_000, 300_000, 7))
    position = 0
    while position < len(body):
        size = next(sizes)
        yield body[position : position + size]
        position += size


def _check_key(key: str) -> None:
    segments = key.split("/")
    try:
        raw = key.encode()
    except UnicodeEncodeError as error:
        raise UnsupportedError("a key that is not UTF-8") from error
    control = any(byte < 0x20 or byte == 0x7F for byte in raw)
    if control or len(raw) > 1024 or any(segment in ("", ".", "..") for segment in segments):
        raise UnsupportedError("a key that the store client cannot name")
