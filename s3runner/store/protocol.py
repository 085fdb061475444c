"""What s3runner asks of an object store, and nothing more.

Two adapters implement it (obstore for S3, memory for tests) and `RetryingStore` wraps either.
An adapter tries once and reports; it never retries by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from s3runner.errors import S3RunnerError

T = TypeVar("T")

Chunks = Iterator[bytes]
"""A stream of bytes; chunk sizes mean nothing."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What the store says about an object. `modified` is by the store's clock, with a zone."""

    key: str
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """A multipart upload that was begun and not completed. `size` is what has arrived of it."""

    key: str
    upload_id: str
    size: int


class StoreControl(Protocol):
    """What gc asks of a bucket beside its objects. Each method tries once."""

    def now(self) -> datetime:
        """Return the time by the store's own clock."""

    def idle_uploads(self, prefix: str, before: datetime) -> Sequence[OpenUpload]:
        """Return the uploads below `prefix` that nobody has begun or added to since `before`."""

    def delete(self, keys: Sequence[str]) -> Mapping[str, S3RunnerError]:
        """Delete objects, many a request; return by its key why one is left there.

        One that is not there is no error.
        """

    def abort(self, uploads: Sequence[OpenUpload]) -> None:
        """Abort uploads and free what has arrived; one that is over is no error."""


class ObjectStore(Protocol):
    """One bucket. Safe for concurrent use by threads. Keys are full keys, never with a prefix.

    Every method may raise StoreAccessError (23: denied, clock, no such bucket),
    StoreUnavailableError (30, temporary) or StoreError; 404 on a key is ObjectNotFoundError and
    nothing else is.
    """

    @property
    def bucket(self) -> str:
        """The bucket's name."""

    def in_bucket(self, bucket: str) -> ObjectStore:
        """Return the same endpoint and credentials with another bucket."""

    def head(self, key: str) -> StoredObject:
        """Ask for an object's size, ETag and age. Raises ObjectNotFoundError."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield every object whose key starts with `prefix` (which ends in `/`), all pages."""

    def list_folders(self, prefix: str) -> Sequence[str]:
        """Return the names one level below `prefix` (which ends in `/`) that hold something.

        All pages, sorted, without slashes; what lies below a name costs nothing.
        """

    def get(
        self,
        key: str,
        consume: Callable[[Chunks], T],
        *,
        start: int = 0,
        length: int | None = None,
        if_match: str | None = None,
    ) -> T:
        """Hand `length` bytes from `start` to `consume`, in one request; return what it returns.

        `consume` may be called again from the start when the adapter is wrapped by a retry, so it
        begins anew each time. A length of 0 asks nothing of the store. An answer that breaks off
        raises StoreUnavailableError, an object that ends before the range does IntegrityError.
        Raises ObjectNotFoundError, ObjectChangedError (If-Match).
        """

    def put(self, key: str, body: Callable[[], Chunks], *, size: int, part_size: int) -> None:
        """Store `size` bytes: one request up to `part_size`, else parts of exactly that size.

        `body` is called once per try and yields chunks of exactly `part_size` bytes but the last.
        An exception it raises passes through unchanged and leaves neither an object nor an open
        upload. The object appears whole or not at all.
        """

    def put_if_absent(self, key: str, body: bytes) -> bool:
        """Store a small document unless the key exists (If-None-Match: *, one PutObject).

        Returns False when the store answered 412: something is there (perhaps ours, when an
        earlier answer was lost: the caller reads it back).
        """

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error."""
