"""Waiting for a real process to get somewhere: a bounded poll, for where there is no event."""

from __future__ import annotations

import fnmatch
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

DEADLINE_S = 120


def wait_until(
    condition: Callable[[], object], seconds: float = DEADLINE_S, *, every_s: float = 0.01
) -> None:
    """Return when something is so; fail when it takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(every_s)


def found_below(directory: Path, pattern: str = "*") -> list[Path]:
    """Return what lies below a directory that others change meanwhile, by its last name.

    `Path.rglob` raises FileNotFoundError when a directory goes between its listing and the look
    into it; here that one is left out.
    """

    def found() -> Iterator[Path]:
        for where, folders, files in os.walk(directory):
            for name in fnmatch.filter([*folders, *files], pattern):
                yield Path(where, name)

    return list(found())
