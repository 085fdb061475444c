"""What people read on stderr: lines made from values, and the Listener that prints them.

It stands apart from the verbs so that the wording of errors and ends has one home. Whatever came
from a file, a store or a tool is escaped here, at the latest.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TextIO

from s3runner.errors import (
    ClusterUnavailableError,
    S3RunnerError,
    SettingsError,
    StagingError,
    printable,
)
from s3runner.model import Outcome, Phase
from s3runner.runner.report import PHASES, JobEnd, JobReport, PlanReport

TAIL_LINES = 20
TAIL_BYTES = 8192
SAY_AGAIN_S = 15.0
"""Seconds between two plain lines of one hop: a log should show life, not be filled by it."""

_SIGNAL_BASE = 128
_KIB = 1024

SENTENCES = {
    Outcome.SUCCEEDED: "the tool ended well and all outputs are stored",
    Outcome.TOOL_FAILED: "the tool failed",
    Outcome.OUT_OF_MEMORY: "the tool was killed because its memory limit was reached",
    Outcome.WALLTIME: "the tool ran longer than its walltime",
    Outcome.BAD_SPEC: "the job's documents could not be understood",
    Outcome.INPUT_FAILED: "an input is missing or has changed",
    Outcome.INTEGRITY_FAILED: "bytes arrived that are not the ones that were sent",
    Outcome.ACCESS_DENIED: "the store denied access",
    Outcome.NO_SPACE: "a disk of the pod is full",
    Outcome.UNSUPPORTED: "there is a file that cannot be carried unchanged",
    Outcome.OUTPUT_MISSING: "the tool ended well but did not write a declared output",
    Outcome.TOOL_NEVER_STARTED: "the tool's container did not start in time",
    Outcome.OUTPUT_CONFLICT: "an existing directory differs from the output that would replace it",
    Outcome.STORAGE_UNAVAILABLE: "the store did not answer for too long",
    Outcome.CLUSTER_UNAVAILABLE: "the cluster did not answer for too long",
    Outcome.CLUSTER_REFUSED: "the cluster refused the job",
    Outcome.INTERNAL_ERROR: "s3runner has a fault",
    Outcome.EVICTED: "its pod was evicted",
    Outcome.INTERRUPTED: "its pod was told to end",
    Outcome.TOOL_VANISHED: "the tool's container went away without an exit code",
    Outcome.CANCELLED: "it was cancelled",
    Outcome.BUDGETS_SPENT: "it was tried again as often as is allowed",
    Outcome.IMAGE_PULL_FAILED: "the container image could not be pulled",
    Outcome.CONFIG_ERROR: "the cluster cannot run the pod as it is described",
    Outcome.UNSCHEDULABLE: "no node could take the pod in time",
    Outcome.DELETED: "somebody deleted it from the cluster",
}


def error_lines(error: S3RunnerError) -> list[str]:
    """Return a line for each thing that went wrong, then the hints, each once."""
    failures = error.failures if isinstance(error, StagingError) else (error,)
    lines: list[str] = []
    hints: dict[str, None] = {}
    for failure in failures:
        text = str(failure.during(error.operation))
        # A settings error lists mistakes line by line; anywhere else a newline is somebody's data.
        told = text.splitlines() if isinstance(failure, SettingsError) else [text]
        lines += [f"s3runner: {printable(line)} [E{failure.code}]" for line in told]
        hints[failure.hint] = None
    shown = (f"hint: {hint}".splitlines() for hint in hints if hint)
    return [*lines, *(printable(line) for hint in shown for line in hint)]


def cluster_lines(problems: Iterable[S3RunnerError | None]) -> list[str]:
    """Return a warning for each time that a cluster was asked in vain, whatever jobs it was for."""
    found = {
        f"s3runner: warning: the cluster did not answer: {printable(str(problem))} "
        f"[E{problem.code}]"
        for problem in problems
        if isinstance(problem, ClusterUnavailableError)
    }
    return sorted(found)


def end_lines(report: JobReport) -> list[str]:
    """Return what to say of a job that has ended; reads the tail of its stderr if that failed."""
    end = report.end
    if end is None:
        return []
    lines = [_verdict(end)]
    if end.outcome is Outcome.SUCCEEDED:
        lines += _where(report)
    else:
        lines += [*_error(end), *_streams(report)]
    return [*lines, *_costs(report)]


def plan_lines(plan: PlanReport) -> list[str]:
    """Return the plan without its Job object."""
    lines = [f"  upload   {_planned(item.source, item.size, item.reason)}" for item in plan.uploads]
    lines += [
        f"  present  {_planned(item.source, item.size, item.reason)}" for item in plan.present
    ]
    lines += [
        f"  fetch    {_planned(item.source, item.size, f'{item.uri}: {item.reason}')}"
        for item in plan.elsewhere
    ]
    disk = "left to the destination" if plan.disk_bytes is None else show_size(plan.disk_bytes)
    total = (
        f"{show_count(len(plan.uploads), 'object')} ({show_size(plan.upload_bytes)}) to upload, "
        f"{len(plan.present)} there already, {show_count(plan.requests, 'request')}; disk: {disk}"
    )
    warnings = [f"s3runner: warning: {printable(text)}" for text in plan.warnings]
    return [f"s3runner: plan: {total}", *lines, *warnings]


def show_size(size: int) -> str:
    """Write bytes for people: `0 B`, `1.5 KiB`, `12 GiB`."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < _KIB or unit == "TiB":
            break
        value /= _KIB
    shown = f"{value:.0f}" if unit == "B" or value >= 10 else f"{value:.1f}"  # noqa: PLR2004  two digits are enough
    return f"{shown} {unit}"


def show_count(number: int, thing: str) -> str:
    """Write `1 file`, `2 files`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def show_age(seconds: float) -> str:
    """Write a span of time for people, in its largest unit: `40 s`, `3 min`, `2 h`, `5 d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0, int(seconds))} s"


def show_phase(phase: Phase) -> str:
    """Write what a hop cost."""
    counts = f"{show_count(phase.files, 'file')}, {show_size(phase.bytes)}"
    return f"{counts}, {show_count(phase.requests, 'request')}, {phase.seconds:.1f} s"


def hop_name(phase: str) -> str:
    """Return a phase's name as people know it: `stage_in` is `stage-in`."""
    return phase.replace("_", "-")


def tail_of(path: Path) -> list[str]:
    """Return the last lines of a stream, escaped; none when it is empty or not there."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            data = file.read(TAIL_BYTES)
    except OSError:
        return []
    lines = data.decode("utf-8", "backslashreplace").rstrip().split("\n")
    if size > TAIL_BYTES and len(lines) > 1:
        del lines[0]
    # What a carriage return has overwritten was not to be read.
    shown = [line.rstrip("\r").rpartition("\r")[2].expandtabs() for line in lines]
    return [printable(line) for line in shown[-TAIL_LINES:]] if data.strip() else []


class LogLines(logging.Handler):
    """Prints what the layers below log like every other line on stderr.

    The stream is looked up each time: while bars are shown it is theirs, and prints above them.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line. One that nobody can read is lost, and ends nothing."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"s3runner: {printable(record.getMessage())}\n")
            sys.stderr.flush()


class PlainLines:
    """The Listener for logs: a line when something happens, and now and then one while it lasts.

    Also where the command line says anything else while a job is under way. It remembers the job
    id and the phases, for whoever has to report after a failure.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self.current_job: str | None = None
        self.phases: dict[str, Phase] = {}
        self.announce: Callable[[str], object] = str
        """Called with the job's id once it is stored, for a verb that has more to do with it."""
        self._stream = stream
        self._clock = clock
        self._lock = threading.Lock()
        self._open: str | None = None
        self._said_at = 0.0
        self._state = ""
        self._noted = ""

    def say(self, text: str) -> None:
        """Print one line (or several)."""
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        """Say what is still unsaid; may be called more than once."""
        with self._lock:
            self._finish()

    def job_id(self, job_id: str) -> None:
        """Print the line by which a job can be taken up again."""
        with self._lock:
            self._finish()
            self.current_job = job_id
            self.say(f"job {printable(job_id)}")
            self.announce(job_id)

    def phase(
        self, name: str, phase: Phase, total_bytes: int | None, total_files: int | None
    ) -> None:
        """Remember the phase; print it when it is over, and now and then before that."""
        with self._lock:
            if self._open != name:
                self._finish()
                self._open, self._said_at = name, self._clock()
            # Threads may tell their news out of order: the larger count is the later one.
            if phase.bytes >= self.phases.get(name, Phase()).bytes:
                self.phases[name] = phase
            self._show(name, total_bytes, total_files)

    def state(self, name: str) -> None:
        """Print the job's state when it is a new one."""
        with self._lock:
            self._finish()
            if name != self._state:
                self.say(f"s3runner: {printable(name)}")
            self._state = name

    def note(self, text: str) -> None:
        """Print what is being waited for, when it is a new word."""
        with self._lock:
            self._finish()
            if text != self._noted:
                self.say(f"s3runner: {printable(text)}")
            self._noted = text

    def warning(self, text: str) -> None:
        """Print a warning."""
        with self._lock:
            self.say(f"s3runner: warning: {printable(text)}")

    def _show(self, name: str, total_bytes: int | None, total_files: int | None) -> None:
        now = self._clock()
        if now - self._said_at < SAY_AGAIN_S:
            return
        self._said_at = now
        done = self.phases[name]
        of_bytes = f" of {show_size(total_bytes)}" if total_bytes is not None else ""
        of_files = f" of {total_files}" if total_files is not None else ""
        amount = f"{show_size(done.bytes)}{of_bytes}, {done.files}{of_files} files"
        self.say(f"s3runner: {hop_name(name)}: {amount} so far")

    def _finish(self) -> None:
        if self._open is not None:
            self.say(f"s3runner: {hop_name(self._open)}: {show_phase(self.phases[self._open])}")
            self._open = None


def listener_for(stream: TextIO) -> PlainLines:
    """Return the Listener that suits the stream: bars on a terminal, lines elsewhere."""
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return PlainLines(stream)
    from s3runner.cli.progress import ProgressBars  # noqa: PLC0415  rich costs start-up time

    return ProgressBars(stream)


def _verdict(end: JobEnd) -> str:
    sentence = SENTENCES[end.outcome]
    code = end.tool_exit_code
    if end.outcome is Outcome.TOOL_FAILED and code is not None:
        sentence = f"the tool ended with exit code {code}{_signal_of(code)}"
    tag = f" [E{end.code}]" if end.code else ""
    tries = f" ({show_count(end.attempts, 'attempt')})" if end.attempts > 1 else ""
    return f"s3runner: {end.outcome.value}: {sentence}{tries}{tag}"


def _signal_of(code: int) -> str:
    try:
        return f" (killed by {signal.Signals(code - _SIGNAL_BASE).name})"
    except ValueError:
        return ""


def _error(end: JobEnd) -> Iterator[str]:
    if end.error is None:
        return
    told = {name: str(value) for name, value in end.error.items() if value}
    error = S3RunnerError(
        told.get("reason", "no reason is known"),
        operation=told.get("operation", ""),
        source=told.get("source", ""),
        target=told.get("target", ""),
    )
    yield f"  {printable(str(error))}"
    if "hint" in told:
        yield f"hint: {printable(told['hint'])}"


def _streams(report: JobReport) -> Iterator[str]:
    streams = report.sync.streams if report.sync is not None else None
    if streams is None:
        return
    for name in ("stdout", "stderr"):
        if (streams / name).exists():
            yield f"  {name}: {printable(str(streams / name))}"
    tail = tail_of(streams / "stderr")
    if tail:
        yield "  the last lines of stderr:"
        yield from (f"  | {line}" for line in tail)


def _where(report: JobReport) -> Iterator[str]:
    if report.sync is not None:
        outputs = report.sync.outputs
        size = show_size(sum(output.size for output in outputs))
        into = printable(str(report.sync.into))
        yield f"  {show_count(len(outputs), 'output')}, {size}, in {into}"


def _costs(report: JobReport) -> Iterator[str]:
    phases = report.phases()
    for name in PHASES:
        phase = phases[name]
        if phase is not None and name == "run":
            yield f"  {hop_name(name):9} {phase.seconds:.1f} s"
        elif phase is not None:
            yield f"  {hop_name(name):9} {show_phase(phase)}"


def _planned(source: str, size: int, reason: str) -> str:
    return f"{printable(source)} ({show_size(size)}): {printable(reason)}"
