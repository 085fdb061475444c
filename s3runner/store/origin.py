"""Where the bytes of one file come from: an object of the store, a web server, a library.

It stands between staging, which lays files out, and the clients, which are loaded only for a job
that names such a place: a pod's start is paid for each job.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeVar

from s3runner.errors import (
    IntegrityError,
    ObjectChangedError,
    ObjectNotFoundError,
    S3RunnerError,
)
from s3runner.model import S3Uri, StoredAt
from s3runner.store.meter import Meter
from s3runner.store.protocol import Chunks, ObjectStore
from s3runner.store.retrying import Retry
from s3runner.store.urls import check_url, is_web

if TYPE_CHECKING:
    from s3runner.store.fsspec_source import Library
    from s3runner.store.http_source import Web

T = TypeVar("T")

_HINT = "submit the job again if it is to take what is there now"


class Origin(Protocol):
    """One file, somewhere. Safe for threads; errors name it as their source."""

    @property
    def in_one_go(self) -> bool:
        """Tell whether it can only be read from its first byte to its last."""

    def get(self, consume: Callable[[Chunks], T], *, start: int, length: int) -> T:
        """Hand `length` bytes from `start` to `consume`, again from `start` where it has to be.

        Raises ObjectChangedError for a file that is not the one that was submitted.
        """


@dataclass(frozen=True, slots=True)
class Found:
    """What a server says of a file, or of a directory (`size` is None).

    `path` is relative to what was asked for, empty for that itself. `etag` and `modified` are the
    server's own words, None where it has none; `mtime_ns` is None where nobody knows.
    """

    path: str = ""
    size: int | None = None
    etag: str | None = None
    modified: str | None = None
    mtime_ns: int | None = None


def check_unchanged(found: Found, at: StoredAt, size: int, name: str) -> None:
    """Raise ObjectChangedError if a file is not the one that was submitted.

    The ETag decides where both sides have one, else the time of change; the size always does.
    What an answer leaves out counts as unchanged.
    """
    marks = [("ETag", at.etag, found.etag), ("modified", at.modified, found.modified)]
    compared = next((mark for mark in marks if None not in mark), ("", None, None))
    if (found.size is None or found.size == size) and compared[1] == compared[2]:
        return
    raise ObjectChangedError(
        "the file changed after submission: "
        f"expected {_described(size, compared[0], compared[1])}, "
        f"found {_described(found.size, compared[0], compared[2])}",
        source=name,
        hint=_HINT,
    )


def _described(size: int | None, mark: str, value: str | None) -> str:
    counted = "an unknown size" if size is None else f"{size} bytes"
    return f"{counted} ({mark} {value})" if mark else counted


class StoredFile:
    """An object of the store, or of another bucket at the same endpoint, or a member of a pack.

    Args:
        store: the bucket that holds it.
        at: its key and offset; with an ETag it is asked for with If-Match.
        size: its bytes, as far as the manifest says.
    """

    in_one_go = False

    def __init__(self, store: ObjectStore, at: StoredAt, size: int) -> None:
        self._store = store
        self._at = at
        self._size = size
        self._name = str(S3Uri(store.bucket, at.key))

    def get(self, consume: Callable[[Chunks], T], *, start: int, length: int) -> T:
        """Hand a range to `consume`, in one request a try."""
        etag = self._at.etag
        try:
            if length == 0 and etag is not None:
                # a range of nothing asks nothing of the store
                self._check_now()
            first = start + (self._at.offset or 0)
            return self._store.get(self._at.key, consume, start=first, length=length, if_match=etag)
        except S3RunnerError as error:
            if etag is not None and isinstance(error, ObjectChangedError | IntegrityError):
                self._check_now()
            error.source = self._name
            raise

    def _check_now(self) -> None:
        """Raise ObjectChangedError, telling what is there now, if it is something else."""
        try:
            there = self._store.head(self._at.key)
        except ObjectNotFoundError as error:
            error.source = self._name
            raise
        found = Found("", there.size, there.etag)
        check_unchanged(found, self._at, self._size, self._name)


class Elsewhere:
    """Files outside of the store, by URL.

    Args:
        retry: how long to go on trying.
        meter: gets the requests.
        ca_pem: CAs to trust in addition to the system's.
    """

    def __init__(self, retry: Retry, meter: Meter, ca_pem: str | None = None) -> None:
        self._retry = retry
        self._meter = meter
        self._ca_pem = ca_pem

    @cached_property
    def _web(self) -> Web:
        from s3runner.store.http_source import Web  # noqa: PLC0415 # only for such an input

        return Web(self._retry, self._meter, self._ca_pem)

    @cached_property
    def _library(self) -> Library:
        from s3runner.store.fsspec_source import Library  # noqa: PLC0415 # only for such an input

        return Library(self._retry, self._meter)

    def look(self, url: str) -> Sequence[Found]:
        """Return what a URL names and all below it, directories before what is in them.

        Raises SettingsError for a URL that cannot be an input, and what the server's answer means.
        """
        check_url(url)
        return (self._web.look(url),) if is_web(url) else self._library.look(url)

    def open(self, at: StoredAt, size: int) -> Origin:
        """Return the file that a manifest names by URL; asks nothing yet."""
        url = at.url or ""
        return self._web.open(at, size) if is_web(url) else self._library.open(at, size)
