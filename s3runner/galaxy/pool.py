"""Threads of a bounded number that take tasks, and that nobody waits for when Galaxy ends.

Those of the standard library's executor are joined at the interpreter's end: a long upload would
keep Galaxy from stopping, though every job is taken up again by the one that starts next.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

_Task = tuple["Future[Any]", Callable[[], Any]]


class Pool:
    """At most `size` threads, begun as they are needed."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def submit(self, task: Callable[[], Any]) -> Future[Any]:
        """Have a task done by one of the threads."""
        future: Future[Any] = Future()
        self._tasks.put((future, task))
        with self._lock:
            if len(self._threads) < self._size:
                name = f"{self._name}-{len(self._threads)}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                thread.start()
                self._threads.append(thread)
        return future

    def _work(self) -> None:
        while True:
            future, task = self._tasks.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(task())
            except BaseException as error:  # noqa: BLE001  # it is raised where the result is taken
                future.set_exception(error)
