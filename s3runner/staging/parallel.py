"""Doing many transfers at once, and telling all failures together.

Apart from upload and download because both need the same three rules: every failure is collected,
a failure that must hit every file stops the rest, and memory for parts in flight has one bound.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from s3runner.errors import (
    NoSpaceError,
    S3RunnerError,
    StagingError,
    StoreAccessError,
    StoreUnavailableError,
)
from s3runner.store.stopping import Signal, StoppedError, passed_on_to, stopped_by

if TYPE_CHECKING:  # see run_all
    from concurrent.futures import Future

T = TypeVar("T")

THREADS = 8
"""Files (or parts) in flight; more gained nothing against a gateway on the same machine."""

MEMORY = 64 * 1024**2
"""Bytes of parts that one process holds in its own buffers."""

_MMAP_THRESHOLD = -3
_MAPPED_FROM = 4 * 1024**2

HOPELESS = (NoSpaceError, StoreAccessError, StoreUnavailableError)
"""After one of these the next file would only fail the same way, after another retry budget."""


def run_all(operation: str, tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Run the tasks in threads; return their results in order.

    Raises StagingError with the failures of all that ran; any other exception as it is, after which
    tasks end at their next pause, request or part: an interrupted command is not to go on waiting.
    So do they when the thread that called is stopped, which raises StoppedError.
    """
    if len(tasks) <= 1:
        return [_run_one(operation, task) for task in tasks]
    # a pod of a small job is short enough to feel what importing this costs
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    halt = _Halt()
    with passed_on_to(halt.end_now), ThreadPoolExecutor(THREADS) as pool:
        try:
            futures = [pool.submit(_unless_halted, halt, task) for task in tasks]
            return _results(operation, futures)
        except S3RunnerError:
            raise
        except BaseException:
            halt.end_now.set()
            raise
        finally:
            halt.begin_no_more.set()


class _Halt:
    """What tells the tasks of one `run_all` to stop."""

    def __init__(self) -> None:
        self.begin_no_more = threading.Event()
        self.end_now = Signal()


def _run_one(operation: str, task: Callable[[], T]) -> T:
    try:
        return task()
    except StagingError:
        raise
    except S3RunnerError as error:
        raise StagingError(operation, [error]) from error


def _unless_halted(halt: _Halt, task: Callable[[], T]) -> T:
    if halt.begin_no_more.is_set() or halt.end_now.is_set():
        raise StoppedError
    try:
        with stopped_by(halt.end_now):
            return task()
    except HOPELESS:
        halt.begin_no_more.set()
        raise
    except S3RunnerError:
        raise
    except BaseException:
        # a bug: the caller sees it, and the other tasks need not go on
        halt.end_now.set()
        raise


def _results(operation: str, futures: Sequence[Future[T]]) -> list[T]:
    results: list[T] = []
    failures: list[S3RunnerError] = []
    stopped: StoppedError | None = None
    for future in futures:
        try:
            results.append(future.result())
        except StoppedError as error:
            stopped = error
        except StagingError as error:
            failures += error.failures
        except S3RunnerError as error:
            failures.append(error)
    if failures:
        raise StagingError(operation, failures) from failures[0]
    if stopped is not None:
        raise stopped
    return results


class ByteBudget:
    """A bound on bytes held at once by all threads; who asks for more waits."""

    def __init__(self, limit: int = MEMORY) -> None:
        self._limit = limit
        self._free = limit
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Hold `size` bytes; more than the whole budget is the whole budget, for one at a time."""
        if size >= _MAPPED_FROM:
            _return_freed_parts()
        size = min(size, self._limit)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= size)
            self._free -= size
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify_all()


@functools.cache
def _return_freed_parts() -> None:
    """Make the C library give buffers of 4 MiB and more back as soon as they are freed.

    glibc otherwise keeps freed parts in one heap for each thread: measured, an upload of four
    256 MiB files held 300 MB instead of 148. Process-wide; other C libraries do not have it
    (https://man7.org/linux/man-pages/man3/mallopt.3.html).
    """
    import ctypes  # noqa: PLC0415  # most processes hold small parts only

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _MAPPED_FROM)
