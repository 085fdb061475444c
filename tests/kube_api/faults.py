"""What the API server does wrong when a test says so: it is away, slow, full, or forgetful.

It stands apart from the routes, which ask it once for each request and once for each watch event.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kube_api.answers import RefusedError

KubernetesObject = dict[str, Any]


@dataclass
class Fault:
    """What happens to the next `times` requests of a verb and a resource (None: any).

    A dry run's verb is `rehearse` here, so that a fault for `create` meets what is stored.
    `refusal` is answered; without one the request `hangs`, or its connection is closed without an
    answer. With `after_the_fact` the server first does what it was asked for.
    """

    times: int
    verb: str | None = None
    resource: str | None = None
    refusal: RefusedError | None = None
    hangs: bool = False
    after_the_fact: bool = False

    def is_for(self, verb: str, resource: str) -> bool:
        return self.times > 0 and self.verb in (None, verb) and self.resource in (None, resource)


class DroppedError(Exception):
    """The connection ends here, without an answer."""


class Faults:
    """The levers on the API itself; all safe in any thread."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._planned: list[Fault] = []
        self._up = threading.Event()
        self._up.set()
        self._unhang = threading.Event()
        self._unstalled = threading.Event()
        self._unstalled.set()
        self.stream_epoch = 0
        self.stream_life_s: float | None = None
        self.repeats_events = False
        self.repeats_stale_events = False
        self.token: str | None = None

    def go_down(self) -> None:
        """Take no request, and cut every stream, until `come_up`."""
        self._up.clear()
        self.cut_streams()

    def come_up(self) -> None:
        self._up.set()

    def answer(
        self,
        code: int,
        times: int = 1,
        *,
        verb: str | None = None,
        resource: str | None = None,
        retry_after_s: int | None = None,
        message: str = "",
    ) -> None:
        """Answer the next requests with a Status of this code."""
        refusal = RefusedError(code, message, retry_after_s=retry_after_s)
        self._plan(Fault(times, verb, resource, refusal))

    def hang(self, times: int = 1, *, verb: str | None = None, resource: str | None = None) -> None:
        """Answer the next requests not at all, until `let_go`."""
        self._unhang.clear()
        self._plan(Fault(times, verb, resource, hangs=True))

    def let_go(self) -> None:
        """Close what hangs, and send what stalled."""
        self._unhang.set()
        self._unstalled.set()
        self._wake()

    def heal(self) -> None:
        """Let nothing that was planned happen any more, and close what hangs."""
        with self._lock:
            self._planned.clear()
        self.come_up()
        self.let_go()

    def drop(self, times: int = 1, *, verb: str | None = None, resource: str | None = None) -> None:
        """Close the connections of the next requests without an answer."""
        self._plan(Fault(times, verb, resource))

    def lose_answer(
        self, verb: str, times: int = 1, *, resource: str | None = None, code: int | None = None
    ) -> None:
        """Do what is asked for, then close the connection, or answer `code` (504) all the same."""
        refusal = RefusedError(code) if code else None
        self._plan(Fault(times, verb, resource, refusal, after_the_fact=True))

    def cut_streams(self) -> None:
        """Close every watch that is open now."""
        self.stream_epoch += 1
        self._wake()

    def stall_streams(self) -> None:
        """Send nothing on any watch, bookmarks neither, with the connections open: see `let_go`."""
        self._unstalled.clear()

    def on_request(self, verb: str, resource: str) -> Fault | None:
        """Raise what is to happen to a request; return the fault that comes after the fact."""
        if not self._up.is_set():
            raise DroppedError
        fault = self._take(verb, resource)
        if fault is None or fault.after_the_fact:
            return fault
        if fault.hangs:
            self._unhang.wait()
        if fault.refusal is None:
            raise DroppedError
        raise fault.refusal

    def on_answer(self, fault: Fault | None) -> None:
        """Raise what takes the place of an answer."""
        if fault is not None:
            raise fault.refusal or DroppedError

    @property
    def is_stalled(self) -> bool:
        return not self._unstalled.is_set()

    def _plan(self, fault: Fault) -> None:
        with self._lock:
            self._planned.append(fault)

    def _take(self, verb: str, resource: str) -> Fault | None:
        with self._lock:
            for fault in self._planned:
                if fault.is_for(verb, resource):
                    fault.times -= 1
                    return fault
        return None
