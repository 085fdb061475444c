"""The one home of retries against the store: by time, not by count.

It wraps any `ObjectStore`, so that adapters try once and callers do not retry at all.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from s3runner.errors import (
    IntegrityError,
    ObjectNotFoundError,
    S3RunnerError,
    SpecError,
    StoreUnavailableError,
)
from s3runner.store import stopping
from s3runner.store.meter import Meter
from s3runner.store.protocol import Chunks, ObjectStore, StoredObject

T = TypeVar("T")

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
DAMAGED_TRIES = 5
"""How often bytes may arrive damaged: a flaw that stays is no matter of time."""

DOCUMENT_LIMIT = 256 * 1024 * 1024
_PAGE = 1000


@dataclass(frozen=True)
class Retry:
    """How long to go on trying what failed for a reason that may pass.

    `budget_s` counts from the first failure in a row. `jitter` gives numbers from 0 to 1 that
    spread the pauses, so that many pods do not come back at once. `sleep` may raise to end it all.
    """

    budget_s: float = 300.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = stopping.pause
    jitter: Callable[[], float] = random.random

    def call(self, attempt: Callable[[], T]) -> T:
        """Return what `attempt` returns, calling it again after each temporary error.

        The last error is raised as it came, with its `tries`, and with the time in its reason
        when that ran out.
        """
        failures = Failures(self)
        while True:
            try:
                return attempt()
            except S3RunnerError as error:  # noqa: PERF203 # the loop is the retry
                failures.wait_or_raise(error)


class Failures:
    """The failures in a row of one call."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._count = 0
        self._since: float | None = None

    def forget(self) -> None:
        """Start anew: there was progress."""
        self._count = 0
        self._since = None

    def wait_or_raise(self, error: S3RunnerError) -> None:
        """Pause before the next try, or raise the error when no more try is due."""
        self._count += 1
        error.tries = self._count
        now = self._retry.clock()
        self._since = now if self._since is None else self._since
        left = self._since + self._retry.budget_s - now
        if not error.temporary:
            raise error
        if isinstance(error, IntegrityError) and self._count >= DAMAGED_TRIES:
            raise error
        if left <= 0:
            if self._count > 1:
                error.reason = f"{error.reason} for {now - self._since:.0f} s"
            raise error
        pause = min(FIRST_PAUSE_S * 2 ** min(self._count - 1, 20), LONGEST_PAUSE_S)
        pause *= 0.5 + self._retry.jitter() / 2
        if isinstance(error, StoreUnavailableError):
            pause = max(pause, error.wait_s)
        self._retry.sleep(min(pause, left))


class RetryingStore:
    """An `ObjectStore` that tries again, and counts each request that it sends.

    Args:
        store: what does the work, one try a call.
        retry: for how long.
        meter: gets the requests: one a try, parts and two for a multipart upload, one a page.
    """

    def __init__(
        self, store: ObjectStore, retry: Retry | None = None, meter: Meter | None = None
    ) -> None:
        self._store = store
        self._retry = retry or Retry()
        self._meter = meter or Meter()

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._store.bucket

    @property
    def meter(self) -> Meter:
        """What counts the requests."""
        return self._meter

    def in_bucket(self, bucket: str) -> RetryingStore:
        """Return the same with another bucket."""
        return RetryingStore(self._store.in_bucket(bucket), self._retry, self._meter)

    def with_meter(self, meter: Meter) -> RetryingStore:
        """Return the same, counting into another meter."""
        return RetryingStore(self._store, self._retry, meter)

    def with_budget(self, budget_s: float) -> RetryingStore:
        """Return the same, trying again for another time; 0 is one try."""
        return RetryingStore(self._store, replace(self._retry, budget_s=budget_s), self._meter)

    def head(self, key: str) -> StoredObject:
        """Ask for an object's size, ETag and age."""
        return self._sent(lambda: self._store.head(key))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield every object once, also when the listing had to begin anew."""
        failures = Failures(self._retry)
        seen: set[str] = set()
        while True:
            self._begin(1)
            try:
                for stored in self._store.list(prefix):
                    if stored.key in seen:
                        continue
                    seen.add(stored.key)
                    failures.forget()
                    if len(seen) % _PAGE == 0:
                        self._meter.add(requests=1)
                    yield stored
            except S3RunnerError as error:
                failures.wait_or_raise(error)
            else:
                return

    def list_folders(self, prefix: str) -> Sequence[str]:
        """Return the names one level below `prefix`; counts as one request, whatever its pages."""
        return self._sent(lambda: self._store.list_folders(prefix))

    def get(
        self,
        key: str,
        consume: Callable[[Chunks], T],
        *,
        start: int = 0,
        length: int | None = None,
        if_match: str | None = None,
    ) -> T:
        """Hand a range to `consume`, from its start again after each failure.

        A temporary error that `consume` raises counts too: an IntegrityError asks for the bytes
        again, `DAMAGED_TRIES` times at most.
        """
        return self._sent(
            lambda: self._store.get(
                key,
                lambda chunks: consume(stopping.watched(chunks)),
                start=start,
                length=length,
                if_match=if_match,
            ),
            requests=0 if length == 0 else 1,
        )

    def put(self, key: str, body: Callable[[], Chunks], *, size: int, part_size: int) -> None:
        """Store `size` bytes; a failed upload is sent again as a whole."""
        requests = put_requests(size, part_size)

        def watched_body() -> Chunks:
            return stopping.watched(body())

        self._sent(
            lambda: self._store.put(key, watched_body, size=size, part_size=part_size),
            requests=requests,
        )

    def put_if_absent(self, key: str, body: bytes) -> bool:
        """Store a small document unless the key exists.

        False does not say who wrote it: when the answer to an earlier try was lost, the object
        may be ours. Whoever gets False reads the object back and compares.
        """
        return self._sent(lambda: self._store.put_if_absent(key, body))

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error."""
        self._sent(lambda: self._store.delete(key))

    def delete_unless_renewed(self, found: StoredObject) -> bool:
        """Delete an object unless it was put again since it was `found`; say whether it is gone.

        Every try looks first, so a repeated one does not hit what came meanwhile. S3 has no
        conditional delete that all stores keep: a put between look and delete is lost.
        """

        def attempt() -> bool:
            self._begin(2)
            try:
                # a HEAD has whole seconds, so it may well say less than the listing did
                if self._store.head(found.key).modified > found.modified:
                    return False
            except ObjectNotFoundError:
                return True
            self._store.delete(found.key)
            return True

        return self._retry.call(attempt)

    def _sent(self, call: Callable[[], T], requests: int = 1) -> T:
        def attempt() -> T:
            self._begin(requests)
            return call()

        return self._retry.call(attempt)

    def _begin(self, requests: int) -> None:
        stopping.check()
        self._meter.add(requests=requests)


def put_requests(size: int, part_size: int) -> int:
    """Return how many requests a put of `size` bytes costs: one, or its parts and two."""
    return 1 if size <= part_size else -(-size // part_size) + 2


def read(
    store: ObjectStore,
    key: str,
    *,
    limit: int = DOCUMENT_LIMIT,
    check: Callable[[bytes], object] | None = None,
) -> bytes:
    """Return a whole document. Raises SpecError when it has more than `limit` bytes.

    `check` may raise an IntegrityError, so that the bytes are asked for again.
    """

    def collect(chunks: Chunks) -> bytes:
        collected = bytearray()
        for chunk in chunks:
            collected += chunk
            if len(collected) > limit:
                reason = f"a document of more than {limit} bytes"
                raise SpecError(reason, source=f"s3://{store.bucket}/{key}")
        body = bytes(collected)
        if check is not None:
            check(body)
        return body

    return store.get(key, collect)
