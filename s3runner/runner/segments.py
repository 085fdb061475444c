"""What attempts left of their streams while their tools ran: numbered segments (docs/protocol.md).

Apart from the logs verb because sync brings them too, where no attempt was committed.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from s3runner.errors import ObjectNotFoundError
from s3runner.staging.layout import LOG_LIMIT, LOG_STREAMS, AttemptLayout, JobLayout
from s3runner.store.retrying import RetryingStore, read


class Segments:
    """One attempt's segments, each read once; whoever asks again gets what is new."""

    def __init__(self, store: RetryingStore, keys: AttemptLayout) -> None:
        self._store = store
        self._keys = keys
        self._next = dict.fromkeys(LOG_STREAMS, 0)
        self.taken = dict.fromkeys(LOG_STREAMS, 0)
        """Bytes of each stream so far, which is also where the next one stands in it."""

    def new(self, stream: str) -> Iterator[bytes]:
        """Yield the segments that there are and that were not read yet."""
        while True:
            key = self._keys.log(stream, self._next[stream])
            try:
                piece = read(self._store, key, limit=LOG_LIMIT)
            except ObjectNotFoundError:
                return
            self._next[stream] += 1
            self.taken[stream] += len(piece)
            yield piece

    def are_capped(self, stream: str) -> bool:
        """Tell whether all segments were read and the stream had more."""
        if self.taken[stream] < LOG_LIMIT:
            return False
        try:
            self._store.head(self._keys.log_capped(stream))
        except ObjectNotFoundError:
            return False
        return True


def cap_note(stream: str) -> str:
    """Return what to say of a stream whose segments are capped."""
    return (
        f"these are the first {LOG_LIMIT} bytes of {stream}; "
        "the rest is kept only if this attempt decides the job"
    )


def attempts_with_segments(store: RetryingStore, job: JobLayout) -> list[str]:
    """Return the attempts (pod UIDs) that left segments, by their first one's age, oldest first."""
    began: dict[str, datetime] = {}
    for stored in store.list(job.attempts_prefix):
        uid, _, name = stored.key.removeprefix(job.attempts_prefix).partition("/")
        if name.startswith("logs/"):
            began[uid] = min(began.get(uid, stored.modified), stored.modified)
    return sorted(began, key=lambda uid: (began[uid], uid))
