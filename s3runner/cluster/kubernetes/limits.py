"""The pace of calls to the API: a bucket of tokens, and the server's own "not before".

Apart from the transport so that it can be told with a clock that a test moves.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from s3runner.store import stopping

CALLS_PER_S = 20.0
BURST = 30
LONGEST_HOLD_S = 60.0
"""A server that asks for more gets this: a wrong number must not stop a head for a day."""


class Pace:
    """Lets calls through at a rate, a burst of them at once. Safe for concurrent use by threads."""

    def __init__(
        self,
        calls_per_s: float = CALLS_PER_S,
        burst: int = BURST,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = stopping.pause,
    ) -> None:
        self._gap_s = 1.0 / calls_per_s
        self._slack_s = (burst - 1) / calls_per_s
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._due_s = 0.0
        self._held_until_s = 0.0

    def take(self) -> None:
        """Return when the next call may go out."""
        with self._lock:
            now_s = self._clock()
            start_s = max(now_s, self._held_until_s)
            self._due_s = max(self._due_s, start_s)
            pause_s = max(start_s, self._due_s - self._slack_s) - now_s
            self._due_s += self._gap_s
        if pause_s > 0:
            self._sleep(pause_s)

    def hold(self, seconds: float) -> None:
        """Let no call out for so long: what the server says to one goes for all."""
        with self._lock:
            until_s = self._clock() + min(seconds, LONGEST_HOLD_S)
            self._held_until_s = max(self._held_until_s, until_s)
