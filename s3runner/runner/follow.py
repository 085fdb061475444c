"""Following a job to its end: observe the cluster, read the commit, decide where no pod did.

The cluster tells when to look; only the commit tells what happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from s3runner.cluster.outcome import (
    container_ended,
    count_pods,
    patience_of,
    pods_in_order,
    state_of,
)
from s3runner.cluster.protocol import Observation
from s3runner.errors import (
    ClusterRefusedError,
    ClusterUnavailableError,
    ObjectNotFoundError,
    SpecError,
)
from s3runner.runner.creation import (
    newest_generation,
    note_created,
    record_generation,
    was_created,
)
from s3runner.runner.decide import StoredResult, closing_record, first_generation, next_generation
from s3runner.runner.early_look import EarlyLook
from s3runner.runner.ending import describe
from s3runner.runner.head import Head, name_cluster
from s3runner.runner.holdup import Holdup, describe_attempt, describe_holdup
from s3runner.runner.report import JobEnd, Listener
from s3runner.runner.restaging import replace_lost_blobs
from s3runner.runner.turns import make_job
from s3runner.staging.manifest import document_digest
from s3runner.staging.records import Commit, Generation, Result, Spec
from s3runner.store.retrying import read

_LOOK_EVERY_S = 10.0
"""How long the head may go without asking the cluster or, for another's job, the store."""


def wait(
    head: Head, job_id: str, listener: Listener, clock: Callable[[], float] = time.monotonic
) -> JobEnd:
    """Follow a job until it has a commit, and return how it ended.

    A job of another cluster is only waited for. Raises SettingsError for an unknown job id.
    """
    follower = Follower(head, job_id, listener, clock)
    while True:
        end = follower.step()
        if end is not None:
            return end
        follower.pause()


def elsewhere(spec: Spec) -> str:
    """Say that a job is not this head's to go on with."""
    return f"it runs on another cluster ({name_cluster(spec)}): only its commit is waited for"


class Follower:
    """A job that is followed step by step, by one thread at a time.

    Raises SettingsError for an unknown job id.
    """

    def __init__(
        self,
        head: Head,
        job_id: str,
        listener: Listener,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        spec, digest = head.read_spec(job_id)
        self._head = head
        self._job_id = job_id
        self._listener = listener
        self._generations = (
            _Generations(head, spec, digest, listener, clock) if head.runs(spec) else None
        )
        if self._generations is None and head.read_commit(job_id) is None:
            listener.note(elsewhere(spec))

    def step(self) -> JobEnd | None:
        """Look once and do what is for the head to do now; return the job's end if it has one.

        May be taken again after an error: what is done already is found done.
        """
        found: tuple[Commit, Generation | None] | None
        found = self._generations.look() if self._generations else self._find_commit()
        if found is None:
            return None
        commit, newest = found
        result = self._head.read_committed_result(self._job_id, commit)
        for warning in result.warnings if result is not None else ():
            self._listener.warning(warning)
        return describe(self._head, self._job_id, commit, result, newest)

    def pause(self) -> None:
        """Return when another step may find more than the last one."""
        if self._generations is None:
            self._head.cluster.wait((), _LOOK_EVERY_S)
        elif self._generations.awaited is not None:
            self._head.cluster.wait(self._generations.awaited, self._generations.pause_s)

    def _find_commit(self) -> tuple[Commit, Generation | None] | None:
        commit = self._head.read_commit(self._job_id)
        if commit is None:
            return None
        self._listener.state("ended")
        return commit, newest_generation(self._head, self._job_id)


class _Generations:
    """A job of this head's cluster, while it is followed through its generations."""

    def __init__(
        self,
        head: Head,
        spec: Spec,
        spec_digest: str,
        listener: Listener,
        clock: Callable[[], float],
    ) -> None:
        self._head = head
        self._spec = spec
        self._listener = listener
        self._keys = head.layout.job(spec.job_id)
        self._current = newest_generation(head, spec.job_id) or record_generation(
            head, spec.job_id, first_generation(spec, spec_digest, self._keys.job_name(1))
        )
        self._state = ""
        self._has_looked = False
        self._told: set[str] = set()
        self._pods_seen = 1
        # the generation whose Job this head has made or seen, or knows to have been made
        self._noted = 0
        self._holdup = Holdup(spec.destination, clock)
        self._early = EarlyLook(clock)
        # the Jobs that take the room this one waits for
        self._before: tuple[str, ...] | None = None
        # whether what was seen may have been outdated when it was judged
        self._is_stale = False
        # the Jobs whose change calls for the next look; None calls for it now
        self.awaited: tuple[str, ...] | None = None

    @property
    def pause_s(self) -> float:
        """For how many seconds there is nothing to do, if the awaited Jobs do not change."""
        return self._early.shorten(_LOOK_EVERY_S)

    def look(self) -> tuple[Commit, Generation] | None:
        """Return the job's commit and its newest record, if it has one; no Job is left then."""
        if self._current.end is not None:
            self._tell("ended")
            commit = self._commit(self._current.end)
            self._remove_jobs(self._current.number - 1)
            return commit, self._current
        number, name = self._current.number, self._current.job_name
        self._is_stale = False
        observation = Observation(None)
        if self._waits_for_room():
            found = self._start_unless_ended()
        else:
            observation = self._head.cluster.observe([name])[name]
            found = self._look(observation)
        if found is not None:
            self._tell("ended")
            self._close(found, observation)
            self._remove_jobs(number)
            return found, self._current
        is_stale = self._is_stale or self._current.number != number
        self.awaited = None if is_stale else (name, *(self._before or ()))
        return None

    def _close(self, commit: Commit, observation: Observation) -> None:
        """Record the pods of a generation that a pod has ended, where nothing else tells of them.

        The Job is about to go, and a pod that stored nothing leaves no other trace.
        """
        if commit.attempt is not None and count_pods(observation) > 1:
            closing = closing_record(commit, observation, self._current)
            self._current = record_generation(self._head, self._spec.job_id, closing)

    def _remove_jobs(self, newest: int) -> None:
        """Delete the newest Job, and those before it that a head which died has left.

        The job has its commit: a Job that stays can do no harm.
        """
        cluster = self._head.cluster
        name, *before = [self._keys.job_name(number) for number in range(newest, 0, -1)]
        try:
            cluster.delete(name)
            seen = cluster.observe(before) if before else {}
            for name in (older for older in before if seen[older].job is not None):
                cluster.delete(name)
        except (ClusterUnavailableError, ClusterRefusedError) as error:
            hint = f"; {error.hint}" if error.hint else ""
            self._listener.warning(f"the Job {name} stays: {error}{hint}")

    def _waits_for_room(self) -> bool:
        """Tell whether the Job is still to be made: then the cluster need not be asked for it."""
        if self._before is None:
            return False
        if was_created(self._head, self._spec.job_id, self._current.number):
            self._before = None
        return self._before is not None

    def _start_unless_ended(self) -> Commit | None:
        commit = self._head.read_commit(self._spec.job_id)
        if commit is None:
            self._start()
        return commit

    def _look(self, observation: Observation) -> Commit | None:
        """Return the commit if there is one; else do what is for the head to do now."""
        job_id = self._spec.job_id
        patience = patience_of(observation)
        is_due = self._holdup.is_over(observation, patience)
        is_early = self._early.is_due(state_of(observation))
        # at first, since a job may have been cancelled by one who could not delete its Job
        is_first = not self._has_looked
        if is_due or is_first or is_early or container_ended(observation, "stager"):
            self._has_looked = True
            commit = self._head.read_commit(job_id)
            if commit is not None:
                return commit
        self._note_created(observation)
        if not is_due:
            self._tell_progress(observation)
            return None
        is_gone = observation.job is None and not observation.pods
        if not is_gone or self._noted == self._current.number:
            self._go_on(observation)
        elif was_created(self._head, job_id, self._current.number):
            # perhaps by another head, after we looked: only the next look tells whether it is gone
            self._noted = self._current.number
            self._is_stale = True
        else:
            self._start()
        return None

    def _note_created(self, observation: Observation) -> None:
        """Note a Job that another head made, which may have died before it could."""
        if observation.job is not None and self._noted != self._current.number:
            uid = str(observation.job["metadata"]["uid"])
            note_created(self._head, self._spec.job_id, self._current.number, uid)
            self._noted = self._current.number

    def _start(self) -> None:
        """Make the recorded generation's Job, or let those that are `_before` it wake us."""
        room = make_job(self._head, self._spec, self._current)
        self._before = room.active if room is not None else None
        self._noted = self._current.number if room is None else 0
        if room is not None and self._state != "staged":
            self._tell("staged")
            self._listener.note(f"waiting: {room}")

    def _tell_progress(self, observation: Observation) -> None:
        """Tell of the state, of what holds it up, and of each pod after the first."""
        if observation.job is None:
            return
        for line in describe_attempt(observation, self._pods_seen, self._current, self._spec):
            self._listener.warning(line)
        self._pods_seen = max(self._pods_seen, len(observation.pods))
        self._tell(state_of(observation))
        for key, line in describe_holdup(observation):
            if key not in self._told:
                self._told.add(key)
                self._listener.note(line)

    def _tell(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._listener.state(state)

    def _go_on(self, observation: Observation) -> None:
        """Record what follows this generation, and make it so; another head's record counts."""
        head, spec, results = self._head, self._spec, list(self._results(observation))
        decided = next_generation(observation, results, self._current, spec)
        decided = replace_lost_blobs(head, spec, decided, results, self._listener)
        following = record_generation(head, spec.job_id, decided)
        ended, self._current = self._current, following
        self._holdup.forget()
        self._pods_seen = 1
        if following.end is None:
            self._head.cluster.delete(ended.job_name)
            elsewhere = " on other nodes" if following.placement != ended.placement else ""
            self._listener.warning(
                f"generation {following.number - 1} ended as {following.previous}; "
                f"trying again as generation {following.number}{elsewhere}"
            )
            self._start()

    def _commit(self, decision: Commit) -> Commit:
        if self._head.store.put_if_absent(self._keys.commit, decision.dump()):
            return decision
        return self._head.read_commit(self._spec.job_id) or decision

    def _results(self, observation: Observation) -> Iterator[StoredResult]:
        """Yield what this generation's attempts left, oldest first; damaged ones left out."""
        for key in self._result_keys(observation):
            try:
                body = read(self._head.store, key)
                result = Result.load(body, self._head.config.uri(key))
            except (ObjectNotFoundError, SpecError):
                continue
            ours = self._keys.attempt(result.attempt).result == key
            if ours and result.generation == self._current.number:
                yield StoredResult(result, document_digest(body))

    def _result_keys(self, observation: Observation) -> list[str]:
        if observation.pods:
            pods = pods_in_order(observation)
            return [self._keys.attempt(pod["metadata"]["uid"]).result for pod in pods]
        depth = self._keys.attempt("uid").result.count("/")
        found = [
            item
            for item in self._head.store.list(self._keys.attempts_prefix)
            if item.key.endswith("/result.json") and item.key.count("/") == depth
        ]
        return [item.key for item in sorted(found, key=lambda item: item.modified)]
