"""One call of the command line: what it was asked, and what it will say on stdout at the end.

It stands apart from the verbs so that exactly one object is printed with `--json`, by one place,
whether the verb came to its end or not.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from s3runner.errors import S3RunnerError
from s3runner.model import Phase
from s3runner.runner.report import JobEnd, JobReport, SyncResult


class InterruptedByUserError(S3RunnerError):
    """The user pressed Ctrl-C; a job that was submitted goes on without us."""

    code = 75


@dataclass
class Invocation:
    """What the verbs share. They fill in `report` as they learn of it, or put a `document` there.

    `document` is the object of a verb that is about no one job (`plan`). `submitted` are the
    finished reports of a verb that submits several, one after another; None for any other verb.
    """

    wants_json: bool = False
    debug: bool = False
    settings: Path | None = None
    job_conf: Path | None = None
    galaxy_config: Path | None = None
    destination: str | None = None
    report: JobReport = field(default_factory=JobReport)
    document: Mapping[str, Any] | None = None
    submitted: list[JobReport] | None = None
    ended: bool = False

    @classmethod
    def of(cls, arguments: Sequence[str]) -> Invocation:
        """Look for the flags that matter even when the rest of the line cannot be understood."""
        words = list(arguments)
        options = words[: words.index("--")] if "--" in words else words
        return cls(wants_json="--json" in options, debug="--debug" in options)

    def learn(
        self,
        *,
        job_id: str | None = None,
        stage_in: Phase | None = None,
        end: JobEnd | None = None,
        sync: SyncResult | None = None,
    ) -> None:
        """Add to the report what is now known."""
        known = {"job_id": job_id, "stage_in": stage_in, "end": end, "sync": sync}
        new: dict[str, Any] = {name: value for name, value in known.items() if value is not None}
        self.report = replace(self.report, **new)
        self.ended = self.ended or end is not None

    def fail(self, error: S3RunnerError) -> None:
        """Make the report say what went wrong."""
        self.document = None
        self.report = replace(self.report, failure=error)
        self.ended = True

    def write(self, stdout: TextIO) -> None:
        """Print the object, if it was asked for and there is one (`--help` has none)."""
        if self.wants_json and (self.document is not None or self.ended):
            stdout.write(json.dumps(self._result()) + "\n")

    def _result(self) -> Mapping[str, Any]:
        if self.document is not None:
            return self.document
        if self.submitted is None:
            return self.report.to_json()
        stored = [report.to_json() for report in self.submitted]
        if self.report.failure is None:
            return {"jobs": stored}
        failed = self.report.to_json()
        # one that failed after its spec was stored is a job like the others
        return {**failed, "jobs": [*stored, *([failed] if self.report.job_id else [])]}

    def command_for(self, verb: str, job_id: str) -> str:
        """Return the command line that goes on with a job from here."""
        words = ["s3runner", verb, job_id]
        flags = {
            "--settings": self.settings,
            "--job-conf": self.job_conf,
            "--galaxy-config": self.galaxy_config,
            "--destination": self.destination,
        }
        for flag, value in flags.items():
            words += [flag, str(value)] if value is not None else []
        return shlex.join(words)
