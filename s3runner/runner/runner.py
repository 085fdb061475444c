"""The verbs on a job, one method each; what the command line and Galaxy call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from s3runner.errors import S3RunnerError, SettingsError
from s3runner.model import Job
from s3runner.runner import follow, submission
from s3runner.runner import sync as syncing
from s3runner.runner.browse import list_job, list_uri, read_uri
from s3runner.runner.cancel import await_pods, cancel, is_within_reach
from s3runner.runner.creation import newest_generation
from s3runner.runner.ending import describe
from s3runner.runner.head import Head
from s3runner.runner.landing import Places, check_places
from s3runner.runner.linking import Links
from s3runner.runner.logs import LogSink, follow_logs, show_logs
from s3runner.runner.report import JobEnd, Listener, PlanReport, SyncedOutput, SyncResult

if TYPE_CHECKING:  # what no running job needs is imported by the verb that does
    from s3runner.runner.job_status import JobRow, JobStatus, Wanted


@dataclass(frozen=True)
class Runner:
    """The verbs, each one step of a job's walk; between them everything is in the store."""

    head: Head

    def plan(self, job: Job) -> PlanReport:
        """Tell what submitting would do; writes nothing."""
        with _named("plan"):
            return submission.plan(self.head, job)

    def check(self, job: Job) -> None:
        """Refuse now what `submit` would refuse before it uploads anything; writes nothing."""
        with _named("submit"):
            submission.check(self.head, job)

    def check_places(self, job: Job, into: Path | None, *, overwrite: bool) -> None:
        """Refuse now what sync would refuse later: outputs whose place is taken (28)."""
        places = Places(into or Path(job.name), gather_absolute=into is not None)
        check_places(job.outputs, places, overwrite=overwrite)

    def check_landing(self, job_id: str, into: Path | None) -> None:
        """Refuse now what sync of this job would refuse later, whatever it might replace (28)."""
        with _named("sync"):
            spec, _ = self.head.read_spec(job_id)
            places = Places(into or Path(spec.name), gather_absolute=into is not None)
            # what is there may be what an earlier sync brought
            check_places(spec.outputs, places, overwrite=True)

    def submit(self, job: Job, listener: Listener, job_id: str | None = None) -> str:
        """Stage in, store the spec, create the Job; return the job id.

        Who has to note the id before anything is stored makes it with `submission.new_job_id`.
        """
        with _named("submit"):
            return submission.submit(self.head, job, listener, job_id)

    def wait(self, job_id: str, listener: Listener) -> JobEnd:
        """Follow the job to its commit. Raises SettingsError for an unknown job id."""
        with _named("wait"):
            return follow.wait(self.head, job_id, listener)

    def follow(self, job_id: str, listener: Listener) -> follow.Follower:
        """Return what `wait` does as single steps. Raises SettingsError for an unknown job id."""
        with _named("wait"):
            return follow.Follower(self.head, job_id, listener)

    def sync_in_place(
        self, job_id: str, streams: Path, listener: Listener, links: Links | None = None
    ) -> SyncResult:
        """Bring the results here: absolute ones to their own places, the others below `streams`.

        Those of `links` stay in the bucket, and what comes is a link to where it is mounted.
        """
        with _named("sync"):
            spec, _ = self.head.read_spec(job_id)
            places = Places(streams, gather_absolute=False)
            return syncing.sync(self.head, spec, places, listener, overwrite=True, links=links)

    def hand_over(self, job_id: str, links: Links, listener: Listener) -> None:
        """Put links in the places of the job's local inputs, after reading them back."""
        from s3runner.runner.handing_over import hand_over  # noqa: PLC0415

        with _named("hand over"):
            spec, _ = self.head.read_spec(job_id)
            hand_over(self.head, spec, links, listener)

    def sync(
        self, job_id: str, into: Path | None, listener: Listener, *, overwrite: bool = False
    ) -> SyncResult:
        """Bring the results here: below `into`, by default `./<job name>`."""
        with _named("sync"):
            spec, _ = self.head.read_spec(job_id)
            places = Places(into or Path(spec.name), gather_absolute=into is not None)
            return syncing.sync(self.head, spec, places, listener, overwrite=overwrite)

    def look_up(self, job_ids: Sequence[str]) -> list[JobStatus]:
        """Tell what is known of jobs now. Raises SettingsError for unknown ids."""
        from s3runner.runner.queries import look_up  # noqa: PLC0415

        with _named("status"):
            return look_up(self.head, job_ids)

    def list_jobs(self, wanted: Wanted) -> list[JobRow]:
        """Return this prefix's jobs that are wanted, the newest first."""
        from s3runner.runner.queries import list_jobs  # noqa: PLC0415

        with _named("list"):
            return list_jobs(self.head, wanted)

    def logs(self, job_id: str, sink: LogSink, *, follow: bool = False) -> None:
        """Give what the tool wrote so far; with `follow`, all that comes until the job's commit."""
        with _named("logs"):
            give = follow_logs if follow else show_logs
            give(self.head, job_id, sink)

    def outputs_of(self, name: str) -> list[SyncedOutput]:
        """Return the outputs of a job by its id, or what lies at an `s3://` URI."""
        with _named("ls"):
            return list_uri(self.head, name) if "://" in name else list_job(self.head, name)

    def read(self, uri: str) -> Iterator[bytes]:
        """Yield a stored file's bytes, verified."""
        with _named("cat"):
            yield from read_uri(self.head, uri)

    def cancel(self, job_id: str, *, force: bool = False) -> tuple[JobEnd, bool]:
        """End the job; return how it ended, and whether it is this call's doing.

        Its pods are told to end; `await_pods` returns when they have. With `force` it ends also
        where they are on a cluster that is out of reach.
        """
        with _named("cancel"):
            spec, _ = self.head.read_spec(job_id)
            commit, ours = cancel(self.head, spec, force=force)
            result = self.head.read_committed_result(job_id, commit)
            newest = newest_generation(self.head, job_id)
            return describe(self.head, job_id, commit, result, newest), ours

    def await_pods(self, job_id: str, listener: Listener) -> bool:
        """Return when no pod of a cancelled job is left, and so nothing more of it is stored.

        Returns False at once where they are on another cluster. Raises ClusterUnavailableError
        when they take much longer than their grace.
        """
        with _named("cancel"):
            spec, _ = self.head.read_spec(job_id)
            if not is_within_reach(self.head, spec):
                return False
            await_pods(self.head, spec, listener)
            return True


@contextlib.contextmanager
def _named(operation: str) -> Iterator[None]:
    """Name the operation in errors that the layers below could not name."""
    try:
        yield
    except SettingsError:
        raise
    except S3RunnerError as error:
        error.during(operation)
        raise
