"""The verbs on a job, one method each; what the command line and Galaxy call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from s3runner.model import Job
from s3runner.runner import follow, submission
from s3runner.runner import sync as syncing
from s3runner.runner.head import Head
from s3runner.runner.report import JobEnd, Listener, PlanReport, SyncResult


@dataclass(frozen=True)
class Runner:
    """The verbs, each one step of a job's walk; between them everything is in the store."""

    head: Head

    def plan(self, job: Job) -> PlanReport:
        """Tell what submitting would do; writes nothing."""
        return submission.plan(self.head, job)

    def submit(self, job: Job, listener: Listener) -> str:
        """Stage in, store the spec, create the Job; return the job id."""
        return submission.submit(self.head, job, listener)

    def wait(self, job_id: str, listener: Listener) -> JobEnd:
        """Follow the job to its commit."""
        return follow.wait(self.head, job_id, listener)

    def sync(
        self, job_id: str, into: Path | None, listener: Listener, *, overwrite: bool = False
    ) -> SyncResult:
        """Bring the results here: below `into`, by default `./<job name>`."""
        spec, _ = self.head.read_spec(job_id)
        places = syncing.Places(into or Path(spec.name), gather_absolute=into is not None)
        return syncing.sync(self.head, job_id, places, listener, overwrite=overwrite)

    def check_places(self, job: Job, into: Path | None) -> None:
        """Refuse now what sync would refuse later: literal outputs whose place is taken (28)."""
        places = syncing.Places(into or Path(job.name), gather_absolute=into is not None)
        syncing.check_places(job.outputs, places)
