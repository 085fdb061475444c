"""Counting what a hop costs, while it happens.

A meter is handed down to whoever moves bytes, so that two jobs staging at once do not count each
other's, and a progress bar can listen without the movers knowing of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from s3runner.model import Phase


class Meter:
    """Bytes, files and requests of one phase, and its seconds from the first to the last of them.

    Safe for threads. `listener` (may be set later) is called, outside the lock, after every change
    with the Phase so far; `clock` gives seconds and is replaced in tests.
    """

    def __init__(
        self,
        listener: Callable[[Phase], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.listener = listener
        self._clock = clock
        self._lock = threading.Lock()
        self._first: float | None = None
        self._last = 0.0
        self._bytes = self._files = self._requests = 0
        self._expected: tuple[int, int] | None = None

    def start(self) -> None:
        """Begin the phase's time; without it the first `add` does."""
        self.add()

    def add(self, *, size: int = 0, files: int = 0, requests: int = 0) -> None:
        """Count payload bytes, whole files, and requests that were sent (each try is one)."""
        with self._lock:
            now = self._clock()
            self._first = now if self._first is None else self._first
            self._last = now
            self._bytes += size
            self._files += files
            self._requests += requests
        self._tell()

    def expect(self, size: int, files: int) -> None:
        """Add to what the phase will have counted at its end; less than 0 takes it off again."""
        with self._lock:
            known_size, known_files = self._expected or (0, 0)
            self._expected = (known_size + size, known_files + files)
        self._tell()

    def _tell(self) -> None:
        if self.listener is not None:
            self.listener(self.phase)

    @property
    def expected_bytes(self) -> int | None:
        """Payload bytes at the end of the phase; None while nobody has told."""
        with self._lock:
            return None if self._expected is None else self._expected[0]

    @property
    def expected_files(self) -> int | None:
        """Files at the end of the phase; None while nobody has told."""
        with self._lock:
            return None if self._expected is None else self._expected[1]

    @property
    def phase(self) -> Phase:
        """What has been counted so far."""
        with self._lock:
            seconds = 0.0 if self._first is None else self._last - self._first
            return Phase(seconds, self._bytes, self._files, self._requests)
