"""The Kubernetes adapter: submits and deletes Jobs, and answers from what two watches have seen.

Whatever the number of jobs, and however often they are looked at, the API is asked to make each, to
delete each, and once more where the watches cannot be sure: a wrong "it is gone" would end a job.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TypeVar

from s3runner.cluster.job_rules import finished_condition, is_terminal
from s3runner.cluster.kubernetes import creation
from s3runner.cluster.kubernetes.api_errors import NotThereError
from s3runner.cluster.kubernetes.calls import JOBS, OURS, PODS, Call, Resource
from s3runner.cluster.kubernetes.complaints import Complaints
from s3runner.cluster.kubernetes.mirror import Changes, Mirror, trim
from s3runner.cluster.kubernetes.transport import Connection
from s3runner.cluster.kubernetes.watch import Health, Rhythm, Watch, list_all
from s3runner.cluster.outcome import is_silent, newest_pod
from s3runner.cluster.protocol import DESTINATION_LABEL, JobObject, Observation
from s3runner.errors import ClusterUnavailableError
from s3runner.store.retrying import Retry

T = TypeVar("T")

BUDGET_S = 600.0
"""How long a call is tried again while the API is away."""

_VANISHED_OF_JOBS = 1_000
_REMEMBERED = 10_000
_LIST_FROM = 4
"""From so many Jobs to confirm one list costs less than asking for each."""

_DELETION = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
_CALLS = "calls"
_log = logging.getLogger(__name__)


class KubernetesCluster:
    """Jobs in one namespace; implements `cluster.protocol.Cluster`.

    Nothing is asked before the first call, and nothing watched before the first observation.
    `notify` gets a sentence when the API does not answer for a while, and when it does again.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        rhythm: Rhythm | None = None,
        retry: Retry | None = None,
        notify: Callable[[str], None] = _log.warning,
    ) -> None:
        self._connection = connection
        self._retry = retry or Retry(budget_s=BUDGET_S)
        self._health = Health(rhythm or Rhythm(), notify)
        self._changes = Changes()
        self._jobs = Mirror(self._changes, _name_of, 0)
        self._pods = Mirror(self._changes, job_of_pod, _VANISHED_OF_JOBS)
        self._complaints = Complaints(connection, self._health.rhythm.clock)
        self._looked_up: dict[str, None] = {}
        # a Job that was there once and is gone stays gone: no head makes it again
        self._was_there: dict[str, None] = {}
        self._is_gone: dict[str, None] = {}
        self._watches: tuple[Watch, ...] = ()
        self._starting = threading.Lock()
        self._closed = threading.Event()
        # each thread waits for what differs from its own last look
        self._seen = threading.local()

    @property
    def identity(self) -> Mapping[str, str]:
        """The kubeconfig's context, the namespace and the server; a pod has a context of its own.

        Raises SettingsError if there is no way to a cluster.
        """
        return self._connection.identity

    @property
    def calls(self) -> Mapping[tuple[str, str], int]:
        """How often the API was asked so far, by verb and resource."""
        return self._connection.calls

    def caveats(self, job: JobObject) -> list[str]:
        """Return what the cluster warns of when it is asked whether it would take the Job.

        Raises ClusterRefusedError if it would not, before anything is uploaded.
        """
        return creation.rehearse(self._connection, job)

    def submit(self, job: JobObject) -> str:
        """Create the Job; see the protocol. A lost answer is followed by another try, and found."""
        creation.refuse_without_image(job)
        since = self._jobs.mark()
        there = self._tried(lambda: creation.create(self._connection, job))
        self._jobs.learn([there], since)
        self._is_gone.pop(job["metadata"]["name"], None)
        return str(there["metadata"]["uid"])

    def observe(self, names: Collection[str]) -> dict[str, Observation]:
        """Return the last known state of these Jobs, also while the API is away.

        That a Job is gone is said only after the API has confirmed it: for each call anew, unless
        it was there before.
        """
        self._await_lists()
        for name in names:
            self._look_at(name)
        # of two Jobs of one name the one that is being deleted became known first
        jobs = {name: found[-1] for name in names if (found := self._jobs.of_job(name))}
        missing = [name for name in names if name not in jobs]
        jobs |= self._confirm([name for name in missing if name not in self._is_gone])
        for name in names:
            if name in jobs:
                self._was_there[name] = None
            elif name in self._was_there:
                self._is_gone[name] = None
        trim(self._was_there, _REMEMBERED)
        trim(self._is_gone, _REMEMBERED)
        return {name: self._observation(name, jobs.get(name)) for name in names}

    def active(self, destination: str) -> list[str]:
        """Return the unfinished Jobs of a destination as far as the watch has come: no request."""
        self._await_lists()
        found = []
        for job in self._jobs.all():
            ours = (job["metadata"].get("labels") or {}).get(DESTINATION_LABEL) == destination
            if ours and finished_condition(job) is None:
                found.append(_name_of(job))
                self._look_at(found[-1])
        return found

    def wait(self, names: Collection[str], timeout_s: float) -> None:
        """Return when one of these Jobs differs from this thread's last look at it."""
        if not names:
            self._closed.wait(timeout_s)
            return
        self._start()
        changes, looks = self._changes, self._looks()
        with changes.condition:
            before = {name: looks.get(name, changes.of(name)) for name in names}
            changes.condition.wait_for(
                lambda: (
                    self._closed.is_set()
                    or any(changes.of(name) != count for name, count in before.items())
                ),
                timeout_s,
            )

    def delete(self, name: str) -> None:
        """Delete the Job; the cluster ends its pods, each with its own grace."""
        call = Call("delete", JOBS, name)
        with contextlib.suppress(NotThereError):
            self._tried(lambda: self._connection.ask(call, body=_DELETION))
        self._was_there[name] = None

    def close(self) -> None:
        """End the watches. Not needed at the end of a process, which they do not hold up."""
        self._closed.set()
        with self._changes.condition:
            self._changes.condition.notify_all()
        for watch in self._watches:
            watch.stop()

    def _start(self) -> None:
        with self._starting:
            if not self._watches:
                self._watches = (
                    Watch(self._connection, JOBS, self._jobs, self._health),
                    Watch(self._connection, PODS, self._pods, self._health),
                )
                for watch in self._watches:
                    watch.start()

    def _await_lists(self) -> None:
        """Return when both lists have come once. Raises the error that keeps them away.

        One that trying again does not help ends the wait at once. Of a watch that has worked such
        an error has to last as long as a call is tried: there is something to answer from.
        """
        server = self._connection.identity.get("server", "the API server")
        self._start()
        clock, budget_s = self._health.rhythm.clock, self._retry.budget_s
        end_s = clock() + budget_s
        with self._changes.condition:
            while True:
                is_synced = self._jobs.is_synced and self._pods.is_synced
                left_s = end_s - clock()
                for watch in self._watches:
                    lasted_s, error = self._health.failure(watch.resource.plural)
                    patience_s = budget_s if watch.has_followed else 0.0
                    if error is not None and not error.temporary and lasted_s >= patience_s:
                        raise error
                    if error is not None and not is_synced and left_s <= 0:
                        raise error
                if is_synced:
                    return
                if left_s <= 0:
                    raise ClusterUnavailableError(f"no answer from {server} in {budget_s:.0f} s")
                self._changes.condition.wait(left_s)

    def _confirm(self, names: list[str]) -> dict[str, JobObject]:
        """Ask the API itself for Jobs that the watch does not show; return those that there are."""
        since = self._jobs.mark()
        if len(names) < _LIST_FROM:
            there = [job for name in names for job in self._get(name)]
        else:
            wanted = set(names)
            there = [job for job in self._list(JOBS, OURS) if _name_of(job) in wanted]
        self._jobs.learn(there, since)
        return {_name_of(job): job for job in there}

    def _get(self, name: str) -> list[JobObject]:
        try:
            return [self._tried(lambda: self._connection.ask(Call("get", JOBS, name)).body)]
        except NotThereError:
            return []

    def _list(self, resource: Resource, selector: str) -> list[JobObject]:
        return self._tried(lambda: list_all(self._connection, resource, selector)[0])

    def _observation(self, name: str, job: JobObject | None) -> Observation:
        if job is None:
            return Observation(None, tuple(self._pods.of_job(name)))
        if self._are_pods_late(job):
            self._look_up_pods(job)
        with self._changes.condition:
            there, vanished = self._pods.of_job(name), self._pods.vanished_of_job(name)
        seen = Observation(
            job,
            (*vanished, *there),
            vanished=frozenset(str(pod["metadata"]["uid"]) for pod in vanished),
        )
        if not is_silent(seen):
            return seen
        return replace(seen, events=self._complaints.about(newest_pod(seen) or job))

    def _are_pods_late(self, job: JobObject) -> bool:
        """Tell whether an ended Job counts pods whose end the watch does not show.

        Two streams have no common order, and why the last pod ended is decided by what it shows.
        """
        if finished_condition(job) is None or job["metadata"]["uid"] in self._looked_up:
            return False
        name, status = _name_of(job), job["status"]
        with self._changes.condition:
            ended = len(self._pods.vanished_of_job(name))
            ended += sum(is_terminal(pod) for pod in self._pods.of_job(name))
        return ended < int(status.get("succeeded") or 0) + int(status.get("failed") or 0)

    def _look_up_pods(self, job: JobObject) -> None:
        """Ask for a Job's pods; once, since pods that were deleted stay in its count."""
        uid = str(job["metadata"]["uid"])
        since = self._pods.mark()
        self._pods.learn(self._list(PODS, f"batch.kubernetes.io/controller-uid={uid}"), since)
        self._looked_up[uid] = None
        trim(self._looked_up, _REMEMBERED)

    def _tried(self, attempt: Callable[[], T]) -> T:
        """Try by the budget; the one home of tries again, but for the watches' own."""

        def noted() -> T:
            try:
                found = attempt()
            except ClusterUnavailableError as error:
                self._health.failed(_CALLS, error)
                raise
            self._health.answered(_CALLS)
            return found

        return self._retry.call(noted)

    def _look_at(self, name: str) -> None:
        with self._changes.condition:
            looks = self._looks()
            looks.pop(name, None)
            looks[name] = self._changes.of(name)
            trim(looks, _REMEMBERED)

    def _looks(self) -> dict[str, int]:
        if not hasattr(self._seen, "looks"):
            self._seen.looks = {}
        found: dict[str, int] = self._seen.looks
        return found


def job_of_pod(pod: JobObject) -> str | None:
    """Return the name of the Job that a pod belongs to, also of one whose Job is gone."""
    metadata = pod["metadata"]
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("kind") == "Job" and owner.get("controller"):
            return str(owner["name"])
    name = (metadata.get("labels") or {}).get("batch.kubernetes.io/job-name")
    return None if name is None else str(name)


def _name_of(job: JobObject) -> str:
    return str(job["metadata"]["name"])
