"""What later heads make of a job: one left half-way, one that is over, one of another cluster."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest
from attempts import JOB, finish, memory_store, open_attempt, put, store_job
from fake_cluster import COMPLETE, FAILED, GONE, RUNNING, FakeCluster, Heard, head_of, job, pod
from memory_store import MemoryStore
from samples import JOB_ID

from s3runner.cluster.protocol import JobObject, Observation
from s3runner.errors import ClusterUnavailableError
from s3runner.model import Outcome, Retry
from s3runner.runner.cancel import cancel
from s3runner.runner.follow import wait
from s3runner.runner.logs import follow_logs
from s3runner.runner.queries import look_up
from s3runner.runner.report import Silence
from s3runner.staging.records import Commit, Generation, Result

NAME = JOB.job_name(1)


def followed(store: MemoryStore, cluster: FakeCluster) -> tuple[Outcome, Heard]:
    heard = Heard()
    return wait(head_of(store, cluster), JOB_ID, heard).outcome, heard


class Mortal(FakeCluster):
    """A cluster whose head dies when it has made a Job, or deletes one."""

    def __init__(self, *seen: Observation, dies: str = "submit") -> None:
        super().__init__(*seen)
        self._dies = dies

    def submit(self, job: JobObject) -> str:
        uid = super().submit(job)
        if self._dies == "submit":
            raise KeyboardInterrupt
        return uid

    def delete(self, name: str) -> None:
        if self._dies == "delete":
            raise KeyboardInterrupt
        super().delete(name)


def test_a_job_that_a_waiter_has_seen_is_never_made_again() -> None:
    """The head that made it died before it could note that, and then somebody deleted the Job."""
    store = memory_store()
    store_job(store)
    with pytest.raises(KeyboardInterrupt):
        wait(head_of(store, Mortal(GONE)), JOB_ID, Silence())
    assert JOB.generation_created(1) not in store.objects
    cluster = FakeCluster(RUNNING, GONE, meanwhile=[lambda: None])

    outcome, _ = followed(store, cluster)

    assert (outcome, list(cluster.jobs)) == (Outcome.DELETED, [])


def test_the_job_before_goes_although_the_head_that_recorded_the_next_one_died() -> None:
    store = memory_store()
    store_job(store, retry=Retry(tool=1), final=())
    put(store, JOB.attempt("pod-1").result, tool_failed("pod-1", 1))
    with pytest.raises(KeyboardInterrupt):
        wait(head_of(store, Mortal(FAILED, dies="delete")), JOB_ID, Silence())
    assert JOB.generation(2) in store.objects
    store.calls.clear()
    put(store, JOB.attempt("pod-2").result, tool_failed("pod-2", 2))
    last = Observation(job("Failed"), (pod("pod-2", stager=10),))
    cluster = FakeCluster(GONE, last, GONE, meanwhile=[lambda: None])

    followed(store, cluster)

    changes = [call for call in store.calls if call[0] in ("submit", "delete")]
    assert changes == [("delete", NAME), ("submit", JOB.job_name(2)), ("delete", JOB.job_name(2))]


def tool_failed(uid: str, number: int) -> bytes:
    return Result(JOB_ID, number, uid, Outcome.TOOL_FAILED, 3).dump()


class Several(FakeCluster):
    """A cluster that shows each Job by its name."""

    def __init__(self, **shown: Observation) -> None:
        super().__init__(GONE)
        self._shown = {JOB.job_name(int(name[1:])): seen for name, seen in shown.items()}

    def observe(self, names: Collection[str]) -> dict[str, Observation]:
        return {name: self._shown.get(name, GONE) for name in names}


def test_older_jobs_that_are_still_there_go_with_the_commit_and_no_others() -> None:
    store = memory_store()
    store_job(store)
    named = Generation(3, JOB.job_name(3), "sha256:00")
    put(store, JOB.generation(3), named.dump())
    put(store, JOB.commit, Commit("pod", Outcome.TOOL_FAILED, None, None, 3).dump())

    followed(store, Several(g1=RUNNING, g3=COMPLETE))

    deleted = [name for call, name in store.calls if call == "delete"]
    assert deleted == [JOB.job_name(3), JOB.job_name(1)]


def test_a_job_that_cannot_be_deleted_after_its_end_is_told_of() -> None:
    store = memory_store()
    store_job(store)

    class Away(FakeCluster):
        def delete(self, name: str) -> None:
            super().delete(name)
            raise ClusterUnavailableError("no answer", hint="look at it")

    outcome, heard = followed(store, Away(FAILED))

    assert outcome is Outcome.BAD_SPEC
    assert heard.warnings == [f"the Job {NAME} stays: no answer; look at it"]


def test_whoever_asks_later_hears_of_as_many_attempts(tmp_path: Path) -> None:
    """The first pod has stored nothing, and when the Job is gone nothing but a record tells."""
    store = memory_store()
    store_job(store, outputs=())
    finish(open_attempt(tmp_path, store))
    pods = (pod("silent"), pod("pod-1", created="2026-01-01T00:00:01Z", stager=0))
    complete = Observation(job("Complete"), pods)

    first = wait(head_of(store, FakeCluster(complete)), JOB_ID, Silence())
    second = wait(head_of(store, FakeCluster(GONE)), JOB_ID, Silence())
    (status,) = look_up(head_of(store, FakeCluster(GONE)), [JOB_ID])

    assert (first.attempts, second.attempts, status.attempts) == (2, 2, 2)
    assert first == second == status.end
    assert (status.generation, status.to_json()["spent"]) == (1, {})


def test_one_pod_is_not_recorded_twice(tmp_path: Path) -> None:
    store = memory_store()
    store_job(store, outputs=())
    finish(open_attempt(tmp_path, store))

    end = wait(head_of(store, FakeCluster(COMPLETE)), JOB_ID, Silence())

    assert (end.attempts, JOB.generation(2) in store.objects) == (1, False)


@pytest.mark.parametrize("was_made", [True, False])
def test_a_cancelled_job_counts_a_pod_if_its_job_was_made(was_made: bool) -> None:
    store = memory_store()
    asked = store_job(store)
    if was_made:
        put(store, JOB.generation_created(1), b"{}")
    head = head_of(store, FakeCluster(GONE))
    cancel(head, asked)

    end = wait(head, JOB_ID, Silence())
    (status,) = look_up(head, [JOB_ID])

    assert (end.attempts, status.attempts, end.generation) == (int(was_made), int(was_made), 1)


def test_it_is_said_that_a_job_runs_on_another_cluster() -> None:
    store = memory_store()
    store_job(store)

    def finish_it() -> None:
        put(store, JOB.commit, Commit("head", Outcome.CANCELLED, None, None, 1).dump())

    cluster = FakeCluster(identity={"kind": "local"}, meanwhile=[finish_it])

    _, heard = followed(store, cluster)

    known = "kind local, machine m, state_dir /s"
    assert heard.notes == [
        f"it runs on another cluster ({known}): only its commit is waited for",
    ]


def test_logs_that_follow_a_job_of_another_cluster_say_so() -> None:
    store = memory_store()
    store_job(store)

    def finish_it() -> None:
        put(store, JOB.commit, Commit("head", Outcome.CANCELLED, None, None, 1).dump())

    cluster = FakeCluster(identity={"kind": "local"}, meanwhile=[finish_it])
    sink = Noted()

    follow_logs(head_of(store, cluster), JOB_ID, sink)

    assert [note.partition(" (")[0] for note in sink.notes] == ["it runs on another cluster"]


class Noted:
    """Takes the logs of a job without any."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def write(self, stream: str, piece: bytes) -> None:
        raise AssertionError(f"{stream}: {piece!r}")

    def note(self, text: str) -> None:
        self.notes.append(text)
