"""Ending what other threads do for a command that was interrupted, or a job that was cancelled.

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


class Signal:
    """Ends what threads do inside `stopped_by` it. Set once; safe for threads."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._others: list[Signal] = []
        self._lock = threading.Lock()

    def set(self) -> None:
        """Stop the threads, and those that they have started."""
        with self._lock:
            self._event.set()
            others = tuple(self._others)
        for other in others:
            other.set()

    def is_set(self) -> bool:
        """Tell whether the threads are stopped."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait until it is set, so long at most; tell whether it is."""
        return self._event.wait(seconds)

    @contextmanager
    def setting(self, other: Signal) -> Iterator[None]:
        """Let this signal set another one, too, inside."""
        with self._lock:
            self._others.append(other)
            is_set = self._event.is_set()
        if is_set:
            other.set()
        try:
            yield
        finally:
            with self._lock:
                self._others.remove(other)


_signal: ContextVar[Signal | None] = ContextVar("signal", default=None)


class StoppedError(Exception):
    """This thread's work is no longer wanted; no failure, since the one who stopped it has one."""


@contextmanager
def stopped_by(signal: Signal) -> Iterator[None]:
    """Let what this thread does inside end with StoppedError once the signal is set."""
    token = _signal.set(signal)
    try:
        yield
    finally:
        _signal.reset(token)


@contextmanager
def passed_on_to(signal: Signal) -> Iterator[None]:
    """Let what stops this thread set a signal, too: that of threads which it starts."""
    above = _signal.get()
    if above is None:
        yield
    else:
        with above.setting(signal):
            yield


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
