"""Ending what other threads do for a command that was interrupted.

Python raises KeyboardInterrupt in the main thread only, so that a pause or a transfer in another
thread has to ask. Apart from `retrying` because whoever starts threads sets the signal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from s3runner.store.protocol import Chunks

_signal: ContextVar[threading.Event | None] = ContextVar("signal", default=None)


class StoppedError(Exception):
    """This thread's work is no longer wanted; no failure, since the one who stopped it has one."""


@contextmanager
def stopped_by(signal: threading.Event) -> Iterator[None]:
    """Let what this thread does inside end with StoppedError once the signal is set."""
    token = _signal.set(signal)
    try:
        yield
    finally:
        _signal.reset(token)


def pause(seconds: float) -> None:
    """Sleep. Raises StoppedError as soon as the thread is stopped."""
    signal = _signal.get()
    if signal is None:
        time.sleep(seconds)
    elif signal.wait(seconds):
        raise StoppedError


def check() -> None:
    """Raise StoppedError if the thread is stopped."""
    signal = _signal.get()
    if signal is not None and signal.is_set():
        raise StoppedError


def watched(chunks: Chunks) -> Chunks:
    """Yield the chunks. Raises StoppedError once the thread that takes them is stopped."""
    for chunk in chunks:
        check()
        yield chunk
        del chunk  # or the next one would be made while this one is still held
