"""The server's clock: real time that a test may push forward."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Real time plus what was skipped; `moved` is called after each skip."""

    def __init__(self) -> None:
        self._skipped_s = 0.0
        self.moved: Callable[[], None] = lambda: None

    def now_s(self) -> float:
        """Return the time in epoch seconds."""
        return time.time() + self._skipped_s

    def skip(self, seconds: float) -> None:
        """Let this time pass at once: back-offs, deadlines and times to live, not the pods'."""
        self._skipped_s += seconds
        self.moved()
