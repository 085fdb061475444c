"""The tool's streams while it runs: sent as segments that any head can read, and told in short.

Apart from staging out because nothing here may matter to the job: what cannot be sent is left to
`rest.tar`, which brings the whole streams at the end.
"""

from __future__ import annotations

import os
import signal
import stat
import threading
import time

from s3runner.errors import S3RunnerError, UnsupportedError, printable
from s3runner.staging.layout import LOG_LIMIT, LOG_STREAMS
from s3runner.staging.reading import open_beneath
from s3runner.worker.attempt import Attempt

_SEGMENT = 1024**2
"""The largest segment, in bytes."""

_SHORTEST_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 10.0
_PAUSE_A_SEGMENT_S = 0.01
"""Pauses grow with the segments there are, or a day's logs would be 40,000 objects."""

_HURRIED_PAUSE_S = 0.5

_LAST_PATIENCE_S = 3.0
"""How long the end of an attempt may take for its last segments."""

_ECHO_LINES, _ECHO_LINE, _ECHO_BYTES = 5, 200, 4096
_ECHO_LIMIT = 64 * 1024
"""Characters of a stream that the container's own log gets while the tool runs."""


class LiveLogs:
    """Sends what the tool's streams gain, from a thread of its own; a context manager.

    Each segment `logs/<stream>/<n>` is written once and holds what follows segment n - 1. Leaving
    sends what is not there yet, within `_LAST_PATIENCE_S`, unless `leave_rest` was called. Never
    raises for what the store or the tool does.
    """

    def __init__(self, attempt: Attempt, pause_s: float = _SHORTEST_PAUSE_S) -> None:
        self._attempt = attempt
        # what cannot be sent is tried again after the next pause
        self._store = attempt.store.with_budget(0)
        self._streams = [_Stream(attempt.control, name) for name in LOG_STREAMS]
        self._pause_s = pause_s
        self._wake = threading.Event()
        self._over = False
        self._give_up_at = float("inf")
        self._patience_s = _LAST_PATIENCE_S
        self._broken = False
        self._warned = False
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)

    def __enter__(self) -> LiveLogs:  # noqa: PYI034 # typing.Self is Python 3.11
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._give_up_at = time.monotonic() + self._patience_s
        self._over = True
        self._wake.set()
        self._thread.join(_LAST_PATIENCE_S)
        for stream in self._streams:
            stream.tell_end()

    def hurry(self) -> None:
        """Send what is new now, and from now on often: the pod may be killed any moment."""
        self._pause_s = _HURRIED_PAUSE_S
        self._wake.set()

    def leave_rest(self) -> None:
        """Send nothing more: nobody will read segments of this attempt any more."""
        self._patience_s = 0.0

    def send_new(self) -> None:
        """Send what is new, up to LOG_LIMIT bytes of each stream."""
        try:
            for stream in self._streams:
                self._send(stream)
        except S3RunnerError as error:
            self._broken = not error.temporary
            if not self._warned:
                self._warned = True
                print(f"s3runner: warning: live logs: {error}", flush=True)

    def _run(self) -> None:
        # the watch can only be woken by a signal that its own thread gets
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        while not self._over:
            self._wake.wait(self._pause())
            self._wake.clear()
            self.send_new()
        self.send_new()

    def _pause(self) -> float:
        segments = sum(stream.segments for stream in self._streams)
        return min(self._pause_s + _PAUSE_A_SEGMENT_S * segments, _LONGEST_PAUSE_S)

    def _send(self, stream: _Stream) -> None:
        while not self._broken and time.monotonic() < self._give_up_at:
            piece = stream.next_piece()
            if not piece:
                return
            if stream.is_full:
                self._put(self._attempt.keys.log_capped(stream.name), self._notice(stream.name))
            else:
                self._put(self._attempt.keys.log(stream.name, stream.segments), piece)
            stream.confirm()

    def _notice(self, name: str) -> bytes:
        rest = self._attempt.config.uri(self._attempt.keys.rest)
        text = f"{name} has more than {LOG_LIMIT} bytes: all of it is in {rest} after the end\n"
        return text.encode()

    def _put(self, key: str, body: bytes) -> None:
        self._store.put(key, lambda: iter((body,)), size=len(body), part_size=len(body))


class _Stream:
    """How far one stream was sent, and told."""

    def __init__(self, control: str, name: str) -> None:
        self.name = name
        self.segments = 0
        self._control = control
        self._sent = 0
        self._told = 0
        self._told_characters = 0
        self._piece = b""
        self._done = False

    @property
    def is_full(self) -> bool:
        """Tell whether LOG_LIMIT bytes were sent."""
        return self._sent >= LOG_LIMIT

    def next_piece(self) -> bytes:
        """Return what is to be sent next; the same bytes until they are confirmed.

        A piece of a stream that is full is only a sign that there is more.
        """
        if not self._piece and not self._done:
            limit = 1 if self.is_full else min(_SEGMENT, LOG_LIMIT - self._sent)
            self._piece = _read(self._control, self.name, self._sent, limit)
            if self._piece and self._told_characters < _ECHO_LIMIT:
                self._tell(self._piece)
                self._told = self._sent + len(self._piece)
        return self._piece

    def confirm(self) -> None:
        """Take note that the piece was stored."""
        if self.is_full:
            self._done = True
        else:
            self._sent += len(self._piece)
            self.segments += 1
        self._piece = b""

    def tell_end(self) -> None:
        """Tell the last lines, if they were not told."""
        self._tell(_read(self._control, self.name, self._told, _ECHO_BYTES, tail=True))

    def _tell(self, piece: bytes) -> None:
        text = piece[-_ECHO_BYTES:].decode("utf-8", "surrogateescape")
        for line in text.splitlines()[-_ECHO_LINES:]:
            shown = printable(line[-_ECHO_LINE:])
            self._told_characters += len(shown)
            print(f"s3runner: {self.name}: {shown}\n", end="", flush=True)


def _read(control: str, name: str, start: int, limit: int, *, tail: bool = False) -> bytes:
    """Return at most `limit` bytes from `start`, or with `tail` the last of those behind it.

    Nothing where there is no such file: the tool may put anything in its place, at any time.
    """
    try:
        descriptor = open_beneath(control, f"{control}/{name}")
    except (OSError, UnsupportedError):
        return b""
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return b""
        return os.pread(descriptor, limit, max(start, found.st_size - limit) if tail else start)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
