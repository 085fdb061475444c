"""Reading a job's streams: while its tool runs, segment by segment, and afterwards whole.

Following is waiting: `runner.follow` does all that a head has to do, and whenever it waits for the
cluster, what is new is printed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from s3runner.cluster.protocol import Cluster, JobObject, Observation
from s3runner.runner import follow
from s3runner.runner.head import Head
from s3runner.runner.landing import STREAMS
from s3runner.runner.report import Silence
from s3runner.runner.segments import Segments, attempts_with_segments, cap_note
from s3runner.runner.sync import read_manifest
from s3runner.staging.layout import LOG_STREAMS
from s3runner.staging.records import Commit, Spec
from s3runner.staging.stream import verified_pieces

_LOOK_EVERY_S = 2.0
_LOOKS_A_LISTING = 5
"""While nothing new comes, every so many looks ask for new attempts too."""


class LogSink(Protocol):
    """Who takes the logs. `write` gets bytes as the tool wrote them, `note` a word of ours."""

    def write(self, stream: str, piece: bytes) -> None:
        """Take the next bytes of `stdout` or `stderr`."""

    def note(self, text: str) -> None:
        """Take what the user should know."""


def show_logs(head: Head, job_id: str, sink: LogSink) -> None:
    """Give what there is now: the committed attempt's streams, or the newest one's segments.

    Raises SettingsError for an unknown job id.
    """
    spec, _ = head.read_spec(job_id)
    printer = _Printer(head, spec, sink)
    commit = head.read_commit(job_id)
    if commit is None or not printer.print_committed(commit):
        printer.begin()
        printer.print_new()


def follow_logs(head: Head, job_id: str, sink: LogSink) -> None:
    """Give the newest attempt's streams while they grow, then the next one's, until the commit.

    Each byte comes once. Does what `follow.wait` does, and raises what it raises.
    """
    spec, _ = head.read_spec(job_id)
    printer = _Printer(head, spec, sink)
    commit = head.read_commit(job_id)
    if commit is None:
        if not head.runs(spec):
            sink.note(follow.elsewhere(spec))
        printer.begin()
        watching = replace(head, cluster=_WatchedCluster(head.cluster, printer.look))
        follow.wait(watching, job_id, Silence())
        commit = head.read_commit(job_id)
        printer.print_new()
    if commit is None or not printer.print_committed(commit):
        printer.begin()
        printer.print_new()


class _Printer:
    """What was printed so far, of which attempts."""

    def __init__(self, head: Head, spec: Spec, sink: LogSink) -> None:
        self._head = head
        self._spec = spec
        self._sink = sink
        self._job = head.layout.job(spec.job_id)
        self._begun = False
        self._passed: set[str] = set()
        self._segments: dict[str, Segments] = {}
        self._current: str | None = None
        self._noted: set[tuple[str, str]] = set()
        self._quiet_looks = 0

    def begin(self) -> None:
        """Pass over all attempts but the newest; once."""
        if not self._begun:
            self._begun = True
            self._passed.update(attempts_with_segments(self._head.store, self._job)[:-1])

    def look(self) -> None:
        """Print what is new, at a price that allows to call it every few seconds."""
        if self._print_current():
            self._quiet_looks = 0
        elif self._current is None or self._quiet_looks % _LOOKS_A_LISTING == 0:
            self.print_new()
        self._quiet_looks += 1

    def print_new(self) -> None:
        """Print all segments that are new, those of new attempts too."""
        self._print_current()
        for uid in attempts_with_segments(self._head.store, self._job):
            if uid not in self._passed:
                self._passed.add(uid)
                self._current = uid
                self._segments[uid] = Segments(self._head.store, self._job.attempt(uid))
                self._print_current()

    def _print_current(self) -> bool:
        """Tell whether there was anything."""
        if self._current is None:
            return False
        segments, found = self._segments[self._current], False
        for stream in LOG_STREAMS:
            for piece in segments.new(stream):
                found = True
                self._sink.write(stream, piece)
            self._note_cap(self._current, stream)
        return found

    def _note_cap(self, uid: str, stream: str) -> None:
        if (uid, stream) not in self._noted and self._segments[uid].are_capped(stream):
            self._noted.add((uid, stream))
            self._sink.note(cap_note(stream))

    def print_committed(self, commit: Commit) -> bool:
        """Print what is not printed yet of the committed streams; False if there are none."""
        result = self._head.read_committed_result(self._spec.job_id, commit)
        if result is None or result.manifest_digest is None:
            return False
        manifest = read_manifest(self._head, self._head.store, self._spec, result)
        entries = {entry.path: entry for entry in manifest.entries}
        for stream in LOG_STREAMS:
            entry = entries.get(f"{STREAMS}/{stream}")
            read = self._segments.get(result.attempt)
            if entry is not None:
                start = read.taken[stream] if read else 0
                for piece in verified_pieces(self._head.store, entry, start):
                    self._sink.write(stream, piece)
        return True


class _WatchedCluster:
    """A cluster, with something to do while one waits for it."""

    def __init__(self, cluster: Cluster, meanwhile: Callable[[], None]) -> None:
        self._cluster = cluster
        self._meanwhile = meanwhile

    @property
    def identity(self) -> Mapping[str, str]:
        return self._cluster.identity

    def caveats(self, job: JobObject) -> Sequence[str]:
        return self._cluster.caveats(job)

    def submit(self, job: JobObject) -> str:
        return self._cluster.submit(job)

    def observe(self, names: Collection[str]) -> dict[str, Observation]:
        return self._cluster.observe(names)

    def active(self, destination: str) -> Collection[str]:
        return self._cluster.active(destination)

    def wait(self, names: Collection[str], timeout_s: float) -> None:
        self._meanwhile()
        self._cluster.wait(names, min(timeout_s, _LOOK_EVERY_S))

    def delete(self, name: str) -> None:
        self._cluster.delete(name)
