"""What is known of a job at one moment, as verbs show it: values, and their JSON.

Apart from the queries that find it out, which need a store and a cluster.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from typing import Any

from s3runner.errors import S3RunnerError
from s3runner.model import Outcome, code_of
from s3runner.runner.report import JobEnd, JobReport
from s3runner.runner.turns import Room


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job in a list.

    `state` is one of STATES, or None: only its own cluster could tell, or (`problem`) its documents
    cannot be read, or its cluster did not answer. `ended` without an outcome means that no pod runs
    any more and no head has decided yet. `created` is by the clock of the head that submitted it.
    """

    job_id: str
    name: str | None = None
    state: str | None = None
    outcome: Outcome | None = None
    created: datetime | None = None
    problem: S3RunnerError | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the object of `list --json`; times are UTC."""
        code = code_of(self.outcome) if self.outcome is not None else None
        return {
            "job_id": self.job_id,
            "name": self.name,
            "state": self.state,
            "outcome": self.outcome.value if self.outcome is not None else None,
            "code": self.problem.code if self.problem is not None else code,
            "created": _show_time(self.created),
            "error": self.problem.to_json() if self.problem is not None else None,
        }


@dataclass(frozen=True, slots=True)
class JobStatus:
    """All that is known of one job now.

    `since` is when its state began, by the cluster's clock, or by the store's when it has ended;
    None where nobody knows. `end` is its commit's. `attempts` counts the pods that are known,
    `generation` the Jobs that were made for it, `spent` by cause why earlier ones did not suffice.
    `room` is told of a staged job whose destination has a bound, `reason` of one that is queued or
    pending where the cluster says why.
    """

    row: JobRow
    since: datetime | None = None
    end: JobEnd | None = None
    attempts: int = 0
    generation: int = 0
    spent: Mapping[str, int] = field(default_factory=dict)
    room: Room | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the object of `status --json`: that of every verb, and the job's state."""
        row = self.row
        report = JobReport(job_id=row.job_id, end=self.end, failure=row.problem).to_json()
        return {
            **report,
            "attempts": self.attempts,
            "generation": self.generation,
            "name": row.name,
            "state": row.state,
            "since": _show_time(self.since),
            "created": _show_time(row.created),
            "spent": dict(self.spent),
            "waiting": str(self.room) if self.room is not None else self.reason,
        }


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs a list is to show; what is empty or None does not matter.

    `name` is a shell pattern; times are aware and compared with `JobRow.created`.
    """

    states: frozenset[str] = frozenset()
    name: str | None = None
    after: datetime | None = None
    before: datetime | None = None

    def takes_age(self, created: datetime | None) -> bool:
        """Tell whether a job of this age is wanted."""
        if self.after is None and self.before is None:
            return True
        late = self.after is None or (created is not None and created >= self.after)
        early = self.before is None or (created is not None and created <= self.before)
        return late and early

    def takes_name(self, name: str) -> bool:
        """Tell whether a job of this name is wanted."""
        return self.name is None or fnmatchcase(name, self.name)

    def takes_state(self, state: str | None) -> bool:
        """Tell whether a job in this state is wanted."""
        return not self.states or state in self.states


def born(job_id: str) -> datetime | None:
    """Return the time that a UUIDv7 carries, None for any other id."""
    try:
        value = uuid.UUID(job_id)
        moment = datetime.fromtimestamp((value.int >> 80) / 1000, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None
    return moment if value.version == 7 else None  # noqa: PLR2004  # its layout, RFC 9562


def read_time(text: str | None) -> datetime | None:
    """Read a time as specs (`+00:00`) and Kubernetes (`Z`) write it; None if it is none."""
    try:
        moment = datetime.fromisoformat((text or "").replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)


def _show_time(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(timezone.utc).isoformat(timespec="seconds")
