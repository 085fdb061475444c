"""Waiting for a real process to get somewhere: a bounded poll, for where there is no event."""

from __future__ import annotations

import time
from collections.abc import Callable

DEADLINE_S = 30


def wait_until(condition: Callable[[], object], seconds: float = DEADLINE_S) -> None:
    """Return when something is so; fail when it takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)
