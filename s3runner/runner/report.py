"""What the runner tells those who asked: while it works (Listener), and at the end (JobReport).

It stands apart from the runner because the command line prints these values, and must be able to
print one for a failure that happened before a runner was built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from s3runner.cluster.protocol import JobObject
from s3runner.errors import S3RunnerError, printable
from s3runner.model import Kind, Outcome, Phase

STAGE_IN, FETCH, RUN, STAGE_OUT, SYNC = "stage_in", "fetch", "run", "stage_out", "sync"

PHASES = (STAGE_IN, FETCH, RUN, STAGE_OUT, SYNC)
"""The four hops and the tool's run, in order; the keys of `phases` in the JSON."""

STATES = ("staged", "queued", "pending", "fetching", "running", "staging_out", "ended")
"""What a job is doing, as far as the head can see."""


class Listener(Protocol):
    """Who is told what happens while it happens. Methods return at once and raise nothing.

    `phase` is called by several threads; the others by the thread that called the runner.
    """

    def job_id(self, job_id: str) -> None:
        """Take note that the job exists: its spec is stored, and any head can finish it."""

    def phase(
        self, name: str, phase: Phase, total_bytes: int | None, total_files: int | None
    ) -> None:
        """Take note of what one hop has cost so far; totals are None where nobody knows them."""

    def state(self, name: str) -> None:
        """Take note of the job's state, one of STATES; told again only when it changes."""

    def note(self, text: str) -> None:
        """Take note of what is being waited for."""

    def warning(self, text: str) -> None:
        """Take note of what the user should know although nothing failed."""


class Silence:
    """The Listener that hears nothing."""

    def job_id(self, job_id: str) -> None:
        """Do nothing."""

    def phase(
        self, name: str, phase: Phase, total_bytes: int | None, total_files: int | None
    ) -> None:
        """Do nothing."""

    def state(self, name: str) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def warning(self, text: str) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a job ended, as its commit says.

    `code` is the outcome's number (None for those that only a head reaches). `attempts` counts
    pods of all generations; `attempt` is the committed one's UID, None if none was. `error` is the
    error object of its result (`S3RunnerError.to_json`). `phases` are the committed attempt's,
    with the job's stage-in.
    """

    outcome: Outcome
    code: int | None
    tool_exit_code: int | None = None
    attempts: int = 0
    generation: int = 0
    attempt: str | None = None
    error: Mapping[str, object] | None = None
    phases: Mapping[str, Phase | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SyncedOutput:
    """One output as it came back: `path` as in the job, `uri` where the store keeps it.

    `digest` and `uri` are empty for what has no bytes of its own (a directory, a link).
    """

    path: str
    kind: Kind
    size: int = 0
    digest: str = ""
    uri: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the object of `outputs` in the JSON; undecodable path bytes show as hex."""
        path = self.path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return {
            "path": path,
            "kind": self.kind.value,
            "size": self.size,
            "digest": self.digest or None,
            "uri": self.uri or None,
        }


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What sync brought to this machine.

    `into` is the directory the relative outputs landed in; `streams` the one that holds `stdout`,
    `stderr` and `result.json`, None when the job left none (it never started).
    """

    outputs: tuple[SyncedOutput, ...]
    phase: Phase
    into: Path
    streams: Path | None = None


@dataclass(frozen=True, slots=True)
class PlannedObject:
    """One object of stage-in: `source` says what is in it, `reason` why it goes up or does not."""

    uri: str
    size: int
    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What submitting a job would do. `requests` are stage-in's; sizes are in bytes.

    `elsewhere` are inputs that no hop of the head's touches: the pod fetches them.
    `disk_bytes` is what the pod's volume is asked to hold, None where the destination decides.
    """

    uploads: tuple[PlannedObject, ...]
    present: tuple[PlannedObject, ...]
    requests: int
    disk_bytes: int | None
    job_object: JobObject
    elsewhere: tuple[PlannedObject, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def upload_bytes(self) -> int:
        """What would go up."""
        return sum(item.size for item in self.uploads)

    def to_json(self) -> dict[str, Any]:
        """Return the object of `plan --json`."""
        return {
            "uploads": [_planned_json(item) for item in self.uploads],
            "present": [_planned_json(item) for item in self.present],
            "elsewhere": [_planned_json(item) for item in self.elsewhere],
            "bytes": self.upload_bytes,
            "requests": self.requests,
            "disk_bytes": self.disk_bytes,
            "job_object": self.job_object,
            "warnings": list(self.warnings),
        }


def _planned_json(item: PlannedObject) -> dict[str, Any]:
    return {
        "uri": item.uri,
        "size": item.size,
        "source": printable(item.source),
        "reason": item.reason,
    }


@dataclass(frozen=True, slots=True)
class JobReport:
    """All that `--json` says of one job; every field may be missing, and its keys never are.

    `failure` is an error of ours. It gives `code` and `error`, but never an outcome: that is the
    commit's alone, so an ended job whose sync failed has both.
    """

    job_id: str | None = None
    end: JobEnd | None = None
    sync: SyncResult | None = None
    failure: S3RunnerError | None = None
    stage_in: Phase | None = None

    @property
    def code(self) -> int | None:
        """The number of docs/cli.md's table: our failure's, else the outcome's."""
        if self.failure is not None:
            return self.failure.code
        return self.end.code if self.end is not None else None

    def to_json(self) -> dict[str, Any]:
        """Return the object of `--json`."""
        end = self.end
        error = self.failure.to_json() if self.failure is not None else None
        if error is None and end is not None and end.error is not None:
            error = dict(end.error)
        return {
            "job_id": self.job_id,
            "outcome": end.outcome.value if end is not None else None,
            "code": self.code,
            "tool_exit_code": end.tool_exit_code if end is not None else None,
            "attempts": end.attempts if end is not None else 0,
            "generation": end.generation if end is not None else 0,
            "outputs": [o.to_json() for o in self.sync.outputs] if self.sync is not None else [],
            "phases": {
                name: phase.to_json() if phase is not None else None
                for name, phase in self.phases().items()
            },
            "error": error,
        }

    def phases(self) -> dict[str, Phase | None]:
        """Return what each of PHASES cost, as far as is known."""
        phases: dict[str, Phase | None] = dict.fromkeys(PHASES)
        phases.update(self.end.phases if self.end is not None else {})
        phases[STAGE_IN] = self.stage_in or phases[STAGE_IN]
        phases[SYNC] = self.sync.phase if self.sync is not None else None
        return phases
