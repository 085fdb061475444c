from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from attempts import (
    JOB,
    committed,
    end_of,
    finish,
    memory_store,
    open_attempt,
    put,
    store_job,
)
from fake_cluster import COMPLETE, FAILED, GONE, RUNNING, FakeCluster, Heard, head_of, job, pod
from memory_store import MemoryStore
from samples import JOB_ID, STORE

from s3runner.cluster.protocol import Observation
from s3runner.errors import (
    SettingsError,
    SpecError,
    StoreAccessError,
    StoreUnavailableError,
)
from s3runner.model import Destination, Input, Job, Outcome, Phase
from s3runner.runner.follow import wait
from s3runner.runner.report import Silence
from s3runner.runner.submission import submit
from s3runner.staging.manifest import document_digest
from s3runner.staging.records import Commit, Generation
from s3runner.worker.commit import publish
from s3runner.worker.fetch import fetch

NAME = JOB.job_name(1)
READS = ("get", "head", "list", "observe", "wait")


def writes(calls: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [call for call in calls if call[0] not in READS]


def followed(store: MemoryStore, cluster: FakeCluster) -> tuple[Outcome, Heard]:
    heard = Heard()
    return wait(head_of(store, cluster), JOB_ID, heard).outcome, heard


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(COMPLETE, id="the Job is complete"),
        pytest.param(FAILED, id="the Job failed afterwards"),
        pytest.param(GONE, id="the Job is gone"),
        pytest.param(Observation(job("Failed", "DeadlineExceeded")), id="no pod is left"),
    ],
)
def test_the_commit_decides_whatever_the_cluster_says(tmp_path: Path, seen: Observation) -> None:
    store = memory_store()
    store_job(store, outputs=())
    finish(open_attempt(tmp_path, store))

    end = wait(head_of(store, FakeCluster(seen)), JOB_ID, Silence())

    assert (end.outcome, end.code, end.tool_exit_code) == (Outcome.SUCCEEDED, 0, 0)
    assert (end.attempt, end.generation, end.error) == ("pod-1", 1, None)
    assert JOB.generation(2) not in store.objects


def test_a_complete_job_without_a_commit_has_not_succeeded() -> None:
    store = memory_store()
    store_job(store)

    outcome, _ = followed(store, FakeCluster(COMPLETE))

    assert outcome is Outcome.INTERNAL_ERROR


def test_the_head_waits_while_the_job_runs_and_tells_each_state_once(tmp_path: Path) -> None:
    store = memory_store()
    store_job(store, outputs=())
    attempt = open_attempt(tmp_path, store)
    cluster = FakeCluster(
        RUNNING, RUNNING, COMPLETE, meanwhile=[lambda: None, lambda: finish(attempt)]
    )

    outcome, heard = followed(store, cluster)

    assert outcome is Outcome.SUCCEEDED
    assert heard.states == ["queued", "ended"]


def test_the_job_is_deleted_once_it_is_committed_and_not_before() -> None:
    store = memory_store()
    store_job(store)

    followed(store, FakeCluster(FAILED))

    assert store.calls.index(("put_if_absent", JOB.commit)) < store.calls.index(("delete", NAME))


def test_without_a_commit_the_head_records_its_decision_and_then_commits_it(
    tmp_path: Path,
) -> None:
    store = memory_store()
    store_job(store)
    attempt = open_attempt(tmp_path, store)
    publish(attempt, end_of(attempt, Outcome.STORAGE_UNAVAILABLE, error={"reason": "no answer"}))
    store.calls.clear()

    end = wait(head_of(store, FakeCluster(FAILED)), JOB_ID, Silence())

    assert (end.outcome, end.code) == (Outcome.STORAGE_UNAVAILABLE, 30)
    assert end.error == {"reason": "no answer"}
    assert writes(store.calls) == [
        ("put_if_absent", JOB.generation(2)),
        ("put_if_absent", JOB.commit),
        ("delete", NAME),
    ]
    record = Generation.load(store.objects[JOB.generation(2)], "")
    commit = committed(store)
    assert commit is not None
    assert (record.number, record.end, record.job_name) == (2, commit, "")
    digest = document_digest(store.objects[attempt.keys.result])
    assert (commit.by, commit.attempt, commit.result_digest) == ("head", "pod-1", digest)


def test_only_results_of_attempts_are_read_as_results(tmp_path: Path) -> None:
    """A tool may call an output result.json."""
    store = memory_store()
    store_job(store)
    attempt = open_attempt(tmp_path, store)
    put(store, attempt.keys.out("result.json"), b"not ours")
    put(store, attempt.keys.out("deep/er/result.json"), b"not ours")

    assert followed(store, FakeCluster(FAILED))[0] is Outcome.STORAGE_UNAVAILABLE


def test_a_job_that_is_gone_with_no_word_was_deleted() -> None:
    store = memory_store()
    store_job(store)
    put(store, JOB.generation_created(1), b"{}")

    end = wait(head_of(store, FakeCluster(GONE)), JOB_ID, Silence())

    assert (end.outcome, end.code) == (Outcome.DELETED, None)
    assert end.error is not None


def test_the_decision_of_another_head_is_followed() -> None:
    store = memory_store()
    store_job(store)
    decision = Commit("head", Outcome.NO_SPACE, None, None, 1, {"job": "seen by another"})
    other = Generation(2, "", "", previous="no_space", end=decision)
    put(store, JOB.generation(2), other.dump())

    assert followed(store, FakeCluster(FAILED))[0] is Outcome.NO_SPACE
    assert committed(store) == decision


def test_a_job_that_was_never_created_is_created_by_whoever_waits() -> None:
    """The head that submitted it died between the spec and the Job."""
    store = memory_store()
    store_job(store)
    del store.objects[JOB.generation(1)]
    cluster = FakeCluster(GONE, FAILED, meanwhile=[lambda: None])

    assert followed(store, cluster)[0] is Outcome.STORAGE_UNAVAILABLE
    assert list(cluster.jobs) == [NAME]
    assert {JOB.generation(1), JOB.generation_created(1)} <= set(store.objects)


def test_a_damaged_result_counts_as_none(tmp_path: Path) -> None:
    store = memory_store()
    store_job(store)
    put(store, open_attempt(tmp_path, store).keys.result, b'{"protocol": 1}')

    assert followed(store, FakeCluster(FAILED))[0] is Outcome.STORAGE_UNAVAILABLE
    commit = committed(store)
    assert commit is not None
    assert commit.attempt is None


def running_beside(stager: int) -> Observation:
    """Return a Job whose stager has ended while its tool has not."""
    return Observation(job(), (pod(stager=stager),))


def test_a_commit_counts_although_the_tool_lives_on(tmp_path: Path) -> None:
    store = memory_store()
    store_job(store, outputs=())
    finish(open_attempt(tmp_path, store))
    cluster = FakeCluster(running_beside(0))

    assert followed(store, cluster)[0] is Outcome.SUCCEEDED
    assert ("delete", NAME) in store.calls


def test_a_tool_that_lives_on_without_its_stager_is_ended_after_the_grace() -> None:
    store = memory_store()
    store_job(store, destination=Destination(grace_s=0))
    cluster = FakeCluster(running_beside(70), meanwhile=[lambda: None] * 3)

    assert followed(store, cluster)[0] is Outcome.INTERNAL_ERROR
    assert ("delete", NAME) in store.calls


class Late(MemoryStore):
    """A store in which a pod commits between the head's decision and its commit."""

    def __init__(self, commit: Commit) -> None:
        super().__init__(STORE.bucket)
        self._late = commit

    def put_if_absent(self, key: str, body: bytes) -> bool:
        if key == JOB.commit:
            put(self, key, self._late.dump())
        return super().put_if_absent(key, body)


def test_a_pod_that_commits_after_the_heads_decision_has_won() -> None:
    store = Late(Commit("pod", Outcome.TOOL_FAILED, None, None, 1))
    store_job(store)

    assert followed(store, FakeCluster(FAILED))[0] is Outcome.TOOL_FAILED
    assert committed(store) == store._late


def test_a_lost_answer_to_the_heads_own_commit_is_still_its_commit() -> None:
    store = memory_store(lose=[("put_if_absent", 1), ("put_if_absent", 3)])
    store_job(store)

    assert followed(store, FakeCluster(FAILED))[0] is Outcome.STORAGE_UNAVAILABLE


def test_a_store_that_does_not_answer_is_no_outcome() -> None:
    # the first read is the spec's
    errors = {("get", number): StoreUnavailableError("no answer") for number in range(2, 99)}
    store = memory_store(fail=errors)
    store_job(store)

    with pytest.raises(StoreUnavailableError):
        wait(head_of(store, FakeCluster(FAILED)), JOB_ID, Silence())

    assert writes(store.calls) == []


def test_a_job_of_another_cluster_is_only_waited_for(tmp_path: Path) -> None:
    store = memory_store()
    store_job(store, outputs=())
    attempt = open_attempt(tmp_path, store)
    cluster = FakeCluster(
        identity={"kind": "local", "machine": "another"},
        meanwhile=[lambda: None, lambda: finish(attempt)],
    )

    outcome, heard = followed(store, cluster)

    assert outcome is Outcome.SUCCEEDED
    assert heard.states == ["ended"]
    asked = {name for name, _ in store.calls}
    assert asked.isdisjoint({"observe", "delete", "submit"})


def test_a_second_head_finishes_what_a_first_one_began(tmp_path: Path) -> None:
    store = memory_store()
    (tmp_path / "in").write_text("x")
    reads = Job(name="reads", command="x", inputs=(Input("in", str(tmp_path / "in")),))
    job_id = submit(head_of(store, FakeCluster()), reads, Silence())
    attempt = open_attempt(tmp_path, store, job_id=job_id)
    fetch(attempt)
    finish(attempt)

    end = wait(head_of(store, FakeCluster(COMPLETE)), job_id, Silence())

    assert end.outcome is Outcome.SUCCEEDED
    staged = end.phases["stage_in"]
    assert isinstance(staged, Phase)
    assert staged.files == 1


def test_attempts_are_the_pods_that_were_made() -> None:
    store = memory_store()
    store_job(store)
    pods = (pod("a"), pod("b", created="2026-01-01T00:00:01Z", fetch=23))

    end = wait(head_of(store, FakeCluster(Observation(job("Failed"), pods))), JOB_ID, Silence())

    assert (end.attempts, end.outcome) == (2, Outcome.ACCESS_DENIED)


def test_a_result_that_is_not_the_committed_one_is_refused(tmp_path: Path) -> None:
    store = memory_store()
    store_job(store, outputs=())
    attempt = open_attempt(tmp_path, store)
    finish(attempt)
    store.damage(attempt.keys.result, end_of(attempt, Outcome.SUCCEEDED).dump())

    with pytest.raises(SpecError, match="digest"):
        wait(head_of(store, FakeCluster(COMPLETE)), JOB_ID, Silence())


def test_an_unknown_job_id_is_a_usage_error() -> None:
    with pytest.raises(SettingsError, match="there is no job nothing"):
        wait(head_of(memory_store(), FakeCluster()), "nothing", Silence())


def test_a_store_that_denies_is_no_unknown_job() -> None:
    store = memory_store(fail={("get", 1): StoreAccessError("denied")})

    with pytest.raises(StoreAccessError):
        wait(head_of(store, FakeCluster()), JOB_ID, Silence())


def test_what_the_pod_warned_of_is_told(tmp_path: Path) -> None:
    store = memory_store()
    store_job(store)
    attempt = open_attempt(tmp_path, store)
    publish(attempt, end_of(attempt, Outcome.TOOL_FAILED, warnings=("a bit is dropped",)))

    _, heard = followed(store, FakeCluster(COMPLETE))

    assert heard.warnings == ["a bit is dropped"]
