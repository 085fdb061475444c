"""When to look for a commit that the cluster has not told of yet.

A kubelet looks at its containers once a second: of the stager's end it tells up to a second, and of
a short tool's start and end up to three seconds, after the commit is stored. The commit itself is
what the head waits for, and a read of the store costs the API server nothing.
"""

from __future__ import annotations

from collections.abc import Callable

_AFTER_S = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Seconds from one look to the next: five a state, so a tool that runs for hours costs no more."""

_STATES = ("fetching", "running", "staging_out")
"""Those in which a pod may have committed meanwhile."""


class EarlyLook:
    """The looks that one head takes at one job, anew in each state. `clock` counts seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._state = ""
        self._taken = 0
        self._due_s = 0.0

    def is_due(self, state: str) -> bool:
        """Tell whether to look now, as the job is in this state (`report.STATES`)."""
        if state != self._state:
            self._state, self._taken = state, 0
            self._due_s = self._clock() + _AFTER_S[0]
            return False
        if self._left() is None or self._clock() < self._due_s:
            return False
        self._taken += 1
        if self._taken < len(_AFTER_S):
            self._due_s = self._clock() + _AFTER_S[self._taken]
        return True

    def shorten(self, pause_s: float) -> float:
        """Return how long to pause, in seconds: `pause_s`, or less if a look is due before."""
        if self._left() is None:
            return pause_s
        return min(pause_s, max(0.0, self._due_s - self._clock()))

    def _left(self) -> int | None:
        """Return how many looks are left in this state; None if there are none."""
        left = len(_AFTER_S) - self._taken if self._state in _STATES else 0
        return left or None
