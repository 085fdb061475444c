"""Watching the tool from the container beside it, through two FIFOs.

The stager learns three things: that the tool runs, that it has ended and how, or that its shim is
gone. It says one thing: end it. docs/protocol.md has the words that pass.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from s3runner.model import Outcome
from s3runner.worker.attempt import Attempt

_STAGE_OUT_RESERVE_S = 8
_SHORT_GRACE_S = 20
_SHORT_GRACE_SHARE = 0.6
_KILL_PATIENCE_S = 60
_LONGEST_PAUSE_S = 86400.0
"""poll takes a C int of milliseconds; to look once a day costs nothing."""
"""How long a killed tool may take to vanish (a process stuck in the kernel may never)."""

_TERM_LAG_S = 5.0
"""How much later than the shim the stager may be told to end: their containers are told one by one.

Longer than a busy node needs, and short of the time that a grace leaves. Not every TERM that a shim
gets is the pod's: a script that ends with `kill 0` sends one to all of its group.
"""

_KEPT = 4096
_DIGITS = 18
"""The shim's words are short; whatever is longer comes from the tool."""


@dataclass(frozen=True, slots=True)
class ToolEnd:
    """How the tool's run ended, as seen by the stager.

    `exit_code` None: the shim left none. `oom_grew` None: the kernel's count could not be read.
    `code_stored` False: a code came through the FIFO but its file could not be written. `alive`:
    even KILL has not ended it, so what it left may still change.
    """

    started: bool
    exit_code: int | None = None
    oom_grew: bool | None = None
    code_stored: bool = True
    walltime_spent: bool = False
    interrupted: bool = False
    alive: bool = False
    seconds: float = 0.0


def outcome_of_tool(end: ToolEnd) -> tuple[Outcome, bool]:
    """Return the tool's outcome, and whether a pod may commit it.

    | started | code | else                      | outcome            | pod may commit |
    |---------|------|---------------------------|--------------------|----------------|
    | any     | any  | TERM came                 | interrupted        | no             |
    | no      | -    |                           | tool_never_started | yes            |
    | yes     | any  | walltime spent            | walltime           | yes            |
    | yes     | none |                           | tool_vanished      | no             |
    | yes     | any  | code not stored           | no_space           | no             |
    | yes     | 0    |                           | succeeded          | yes            |
    | yes     | != 0 | OOM count grew            | out_of_memory      | no             |
    | yes     | 137  | OOM count unreadable      | tool_failed        | no             |
    | yes     | != 0 |                           | tool_failed        | yes            |

    A tool that was told to end may well exit with 0 and half an output, so TERM outweighs its code.
    Whether it then does commit is the generation record's business.
    """
    if end.interrupted:
        return Outcome.INTERRUPTED, False
    if not end.started:
        return Outcome.TOOL_NEVER_STARTED, True
    if end.walltime_spent:
        return Outcome.WALLTIME, True
    if end.exit_code is None:
        return Outcome.TOOL_VANISHED, False
    if not end.code_stored:
        return Outcome.NO_SPACE, False
    return _outcome_of_code(end.exit_code, oom_grew=end.oom_grew)


def _outcome_of_code(exit_code: int, *, oom_grew: bool | None) -> tuple[Outcome, bool]:
    if exit_code == 0:
        return Outcome.SUCCEEDED, True
    if oom_grew:
        return Outcome.OUT_OF_MEMORY, False
    # 128 + KILL is what the kernel's OOM killer leaves too: only a readable count can tell
    return Outcome.TOOL_FAILED, not (exit_code == 128 + 9 and oom_grew is None)


class ToolWatch:
    """The stager's ends of the two FIFOs, from before the tool starts until the shim is gone.

    `wake` is a descriptor that becomes readable when the pod is asked to end (SIGTERM), which
    `on_term` is told.
    """

    def __init__(
        self,
        attempt: Attempt,
        wake: int,
        clock: Callable[[], float] = time.monotonic,
        on_term: Callable[[], object] = lambda: None,
        term_lag_s: float = _TERM_LAG_S,
    ) -> None:
        self._attempt = attempt
        self._wake = wake
        self._clock = clock
        self._on_term = on_term
        self._term_lag_s = term_lag_s
        self._up = os.open(attempt.control_file("up"), os.O_RDONLY | os.O_NONBLOCK)
        # opened for both, so that it never waits for the shim
        self._down = os.open(attempt.control_file("down"), os.O_RDWR)
        self._lines = b""
        self._opened_at = clock()
        self._started_at: float | None = None
        self._term_at: float | None = None
        self._told_to_end_at: float | None = None
        self._walltime_spent = False
        self._closed = False

    def close(self) -> None:
        """Close both ends, once; with `down` goes the tool."""
        self._tell_to_end()
        if not self._closed:
            self._closed = True
            os.close(self._up)

    def wait(self) -> ToolEnd:
        """Block until the tool has ended, its shim is gone, or it did not start in time."""
        poller = select.poll()
        poller.register(self._up, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        while True:
            pause_s = max(0.0, self._next_deadline() - self._clock())
            pause_ms = min(pause_s, _LONGEST_PAUSE_S) * 1000 + 1
            events = {descriptor for descriptor, _ in poller.poll(pause_ms)}
            if self._wake in events:
                os.read(self._wake, 512)
                self._term_at = self._term_at or self._clock()
                self._on_term()
            if self._up in events and self._hung_up():
                return self._end(hung_up=True)
            if self._clock() >= self._next_deadline() and self._times_up():
                return self._end(hung_up=False)

    def _next_deadline(self) -> float:
        """Return when the next thing must happen although nobody says anything."""
        if self._told_to_end_at is not None:
            return self._told_to_end_at + _KILL_PATIENCE_S
        spec = self._attempt.spec
        if self._started_at is None:
            patience_ends = self._opened_at + spec.destination.start_timeout_s
        else:
            patience_ends = self._started_at + spec.walltime_s
        if self._term_at is None:
            return patience_ends
        return min(patience_ends, self._term_at + term_patience_s(spec.destination.grace_s))

    def _times_up(self) -> bool:
        """Act on a deadline that has passed; True when there is nothing more to wait for."""
        if self._started_at is None or self._told_to_end_at is not None:
            return True
        self._walltime_spent = self._clock() >= self._started_at + self._attempt.spec.walltime_s
        self._tell_to_end()
        return False

    def _tell_to_end(self) -> None:
        if self._told_to_end_at is None:
            self._told_to_end_at = self._clock()
            # a tool that holds this FIFO open itself keeps the end of file away, not the line
            with contextlib.suppress(BlockingIOError):
                os.set_blocking(self._down, False)
                os.write(self._down, b"end\n")
            os.close(self._down)

    def _hung_up(self) -> bool:
        """Take what the shim wrote; True when it holds the FIFO no longer."""
        chunk = os.read(self._up, _KEPT)
        # the tool can write here too, as much as it likes
        self._lines = (self._lines + chunk)[-_KEPT:]
        if self._started_at is None:
            # a hang-up also means that there was a writer
            self._started_at = self._clock()
        return not chunk

    def _await_term(self) -> None:
        """Let the TERM that the shim was sent arrive here too: the tool was told to end."""
        if self._term_at is None and select.select([self._wake], [], [], self._term_lag_s)[0]:
            os.read(self._wake, 512)
            self._term_at = self._clock()
            self._on_term()

    def _end(self, *, hung_up: bool) -> ToolEnd:
        stored = self._attempt.control_file("exit_code")
        # when the shim wrote its line, nothing else was left to write one behind it
        _, said, line = self._lines.rpartition(b"exit ")
        if not said:
            # the shim may have been killed between the file and the line
            with contextlib.suppress(OSError):
                line = read_piece(stored)
        words = line.split()
        code, *counts = [_number(word) for word in words[:3]] or [None]
        if words[3:4] == [b"term"]:
            self._await_term()
        seconds = 0.0 if self._started_at is None else self._clock() - self._started_at
        return ToolEnd(
            started=self._started_at is not None,
            exit_code=code,
            oom_grew=_grew(counts),
            code_stored=Path(stored).exists(),
            walltime_spent=self._walltime_spent,
            interrupted=self._term_at is not None,
            alive=self._started_at is not None and not hung_up,
            seconds=seconds,
        )


def term_patience_s(grace_s: int) -> float:
    """Return how long after TERM the tool may go on, so that time is left to stage out."""
    if grace_s < _SHORT_GRACE_S:
        return grace_s * _SHORT_GRACE_SHARE
    return grace_s - _STAGE_OUT_RESERVE_S


def read_piece(path: str) -> bytes:
    """Return the beginning of a file that the tool may have replaced by anything. Raises OSError.

    It never waits, not even for the writer of a FIFO.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(descriptor, _KEPT)
    finally:
        os.close(descriptor)


def _number(word: bytes) -> int | None:
    return int(word) if word.isdigit() and len(word) <= _DIGITS else None


def _grew(counts: list[int | None]) -> bool | None:
    if len(counts) != 2 or counts[0] is None or counts[1] is None:  # noqa: PLR2004  # a pair
        return None
    return counts[1] > counts[0]
