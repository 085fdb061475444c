from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
from observing import observed
from samples import JOB_ID, STORE

from s3runner.cluster.protocol import Observation
from s3runner.errors import (
    SettingsError,
    SpecError,
    StoreAccessError,
    StoreUnavailableError,
)
from s3runner.model import (
    Destination,
    Input,
    Job,
    Outcome,
    Phase,
    Quantity,
    Resources,
    Retry,
)
from s3runner.pod_model import KubernetesPlace, NodeChoice, Placement, PodCredentials
from s3runner.runner.creation import note_created
from s3runner.runner.decide import first_generation
from s3runner.runner.follow import Follower, wait
from s3runner.runner.report import JobEnd, Silence
from s3runner.runner.submission import submit
from s3runner.staging.manifest import document_digest
from s3runner.staging.records import Commit, Generation, Result
from s3runner.worker.commit import publish
from s3runner.worker.fetch import fetch

NAME = JOB.job_name(1)
LOOKS = ("observe", "wait")
READS = ("get", "head", "list", "list_folders", "observe", "wait")


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
    publish(attempt, end_of(attempt, Outcome.BAD_SPEC, error={"reason": "no answer"}))
    store.calls.clear()

    end = wait(head_of(store, FakeCluster(FAILED)), JOB_ID, Silence())

    assert (end.outcome, end.code) == (Outcome.BAD_SPEC, 20)
    assert end.error == {"reason": "no answer"}
    assert writes(store.calls) == [
        ("put_if_absent", JOB.generation_created(1)),
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

    assert followed(store, FakeCluster(FAILED))[0] is Outcome.BAD_SPEC


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
    store.delete(JOB.generation(1))
    assert JOB.generation(1) not in store.objects
    cluster = FakeCluster(GONE, FAILED, meanwhile=[lambda: None])

    assert followed(store, cluster)[0] is Outcome.BAD_SPEC
    assert list(cluster.jobs) == [NAME]
    assert {JOB.generation(1), JOB.generation_created(1)} <= set(store.objects)


def test_a_damaged_result_counts_as_none(tmp_path: Path) -> None:
    store = memory_store()
    store_job(store)
    put(store, open_attempt(tmp_path, store).keys.result, b'{"protocol": 1}')

    assert followed(store, FakeCluster(FAILED))[0] is Outcome.BAD_SPEC
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
    cluster = FakeCluster(running_beside(20), meanwhile=[lambda: None] * 3)

    assert followed(store, cluster)[0] is Outcome.BAD_SPEC
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

    assert followed(store, FakeCluster(FAILED))[0] is Outcome.BAD_SPEC


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
    pods = (pod("a"), pod("b", created="2026-01-01T00:00:01Z", fetch=20))

    end = wait(head_of(store, FakeCluster(Observation(job("Failed"), pods))), JOB_ID, Silence())

    assert (end.attempts, end.outcome) == (2, Outcome.BAD_SPEC)


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


def generations(store: MemoryStore) -> list[Generation]:
    """Return the records of a job, in order."""
    found: list[Generation] = []
    while (body := store.objects.get(JOB.generation(len(found) + 1))) is not None:
        found.append(Generation.load(body, ""))
    return found


def failed_with(code: int, uid: str, reason: str = "Error") -> Observation:
    """Return a Job that failed because the tool, or the stager, ended so."""
    ended = {"terminated": {"exitCode": code, "reason": reason}}
    status = {"containerStatuses": [{"name": "tool", "state": ended}]}
    metadata = {"uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return Observation(
        job("Failed", "PodFailurePolicy"), ({"metadata": metadata, "status": status},)
    )


def test_more_memory_is_tried_up_to_the_cap() -> None:
    store = memory_store()
    retry = Retry(memory_factor=2, memory_cap="20Gi")
    store_job(store, retry=retry, resources=Resources(memory=Quantity("4Gi", "8Gi")))
    record = generations(store)[0]
    memory = Resources(memory=Quantity("4Gi", "8Gi"))
    put(store, JOB.generation(1), replace(record, resources=memory).dump())
    seen = [failed_with(137, f"pod-{number}", "OOMKilled") for number in range(3)]
    cluster = FakeCluster(*seen)

    end = wait(head_of(store, cluster), JOB_ID, Heard())

    assert end.outcome is Outcome.OUT_OF_MEMORY
    assert end.attempts == 3
    limits = [item.resources.memory.limit for item in generations(store)[:3]]
    assert limits == ["8Gi", str(16 * 1024**3), str(20 * 1024**3)]
    assert list(cluster.jobs) == [JOB.job_name(2), JOB.job_name(3)]
    tool = cluster.jobs[JOB.job_name(3)]["spec"]["template"]["spec"]["containers"][0]
    assert tool["resources"]["limits"]["memory"] == str(20 * 1024**3)
    assert {"name": "MEMORY_MB", "value": "20480"} in tool["env"]


def test_a_failed_tool_runs_again_as_often_as_asked() -> None:
    store = memory_store()
    spec = store_job(store, retry=Retry(tool=2))
    digest = document_digest(store.objects[JOB.spec])
    put(store, JOB.generation(1), first_generation(spec, digest, NAME).dump())

    def end_attempt(number: int) -> None:
        result = Result(JOB_ID, number, f"pod-{number}", Outcome.TOOL_FAILED, 3)
        put(store, JOB.attempt(f"pod-{number}").result, result.dump())

    for number in (1, 2, 3):
        end_attempt(number)
    seen = [Observation(job("Failed"), (pod(f"pod-{number}", stager=10),)) for number in (1, 2, 3)]

    end = wait(head_of(store, FakeCluster(*seen)), JOB_ID, Heard())

    assert (end.outcome, end.tool_exit_code, end.generation) == (Outcome.TOOL_FAILED, 3, 3)
    records = generations(store)
    may_fail = [Outcome.TOOL_FAILED in record.final for record in records[:3]]
    assert may_fail == [False, False, True]
    assert [dict(record.spent) for record in records] == [
        {},
        {"tool_failed": 1},
        {"tool_failed": 2},
        {"tool_failed": 3},
    ]


def test_no_job_gets_more_generations_than_ten() -> None:
    store = memory_store()
    store_job(store, retry=Retry(tool=9), destination=Destination())
    newest = replace(generations(store)[0], number=10, job_name=JOB.job_name(10), final=())
    put(store, JOB.generation(10), newest.dump())
    result = Result(JOB_ID, 10, "pod-1", Outcome.TOOL_FAILED, 3)
    put(store, JOB.attempt("pod-1").result, result.dump())
    seen = Observation(job("Failed"), (pod("pod-1", stager=10),))

    assert followed(store, FakeCluster(seen))[0] is Outcome.TOOL_FAILED


def test_a_head_that_comes_late_goes_on_from_the_newest_generation() -> None:
    store = memory_store()
    store_job(store)
    second = replace(generations(store)[0], number=2, job_name=JOB.job_name(2), attempts=4)
    put(store, JOB.generation(2), second.dump())
    cluster = FakeCluster(GONE, FAILED, meanwhile=[lambda: None])

    end = wait(head_of(store, cluster), JOB_ID, Heard())

    assert list(cluster.jobs) == [JOB.job_name(2)]
    assert (end.generation, end.attempts) == (2, 5)


def test_a_pod_over_its_disk_limit_ends_its_generation_while_the_job_goes_on() -> None:
    """The Job's next pod would have no more disk: the head makes a Job that has."""
    store = memory_store()
    spec = store_job(store, resources=Resources(disk=Quantity("20Mi", "20Mi")))
    first = first_generation(spec, document_digest(store.objects[JOB.spec]), NAME)
    put(store, JOB.generation(1), first.dump())
    evicted = pod(tool=0, stager=137)
    words = "Pod ephemeral local storage usage exceeds the total limit of containers 20Mi. "
    evicted["status"].update(phase="Failed", reason="Evicted", message=words)
    cluster = FakeCluster(Observation(job(), (evicted,)), FAILED)

    outcome, heard = followed(store, cluster)

    assert outcome is Outcome.BAD_SPEC
    assert "generation 1 ended as no_space" in heard.warnings[0]
    second = Generation.load(store.objects[JOB.generation(2)], "")
    assert (second.attempts, second.spent) == (1, {"no_space": 1})
    assert ("delete", NAME) in store.calls
    assert list(cluster.jobs) == [JOB.job_name(2)]


def test_no_space_at_the_cap_says_what_to_ask_for() -> None:
    store = memory_store()
    store_job(store)
    put(store, JOB.generation_created(1), b"{}")
    full = Observation(job("Failed", "PodFailurePolicy"), (pod(fetch=24),))

    end = wait(head_of(store, FakeCluster(full)), JOB_ID, Silence())

    assert (end.outcome, end.code) == (Outcome.NO_SPACE, 24)
    assert end.error is not None
    assert "resources.disk" in str(end.error["hint"])


class Waiting:
    """A clock that only the waits of a cluster move."""

    def __init__(self, *seen: Observation, waits: int = 99, step_s: float = 10.0) -> None:
        self.now_s = 0.0
        self._step_s = step_s
        self.cluster = FakeCluster(*seen, meanwhile=[self._pass] * waits)

    def _pass(self) -> None:
        self.now_s += self._step_s

    def follow(self, store: MemoryStore) -> tuple[JobEnd, Heard]:
        heard = Heard()
        head = head_of(store, self.cluster)
        return wait(head, JOB_ID, heard, clock=lambda: self.now_s), heard


def kubernetes(image_pull_timeout_s: int = 40, **changes: object) -> Destination:
    place = KubernetesPlace(
        PodCredentials(service_account="s3"), image_pull_timeout_s=image_pull_timeout_s
    )
    return replace(Destination(grace_s=20, pending_timeout_s=60, kubernetes=place), **changes)  # type: ignore[arg-type]


HELD_UP = {
    "no-shell": (Outcome.CONFIG_ERROR, 0, "/bin/sh"),
    "image-invalid-name": (Outcome.IMAGE_PULL_FAILED, 0, "invalid reference format"),
    "image-never-pull": (Outcome.IMAGE_PULL_FAILED, 0, "pull policy of Never"),
    "image-back-off": (Outcome.IMAGE_PULL_FAILED, 40, "lookup registry.example"),
    "secret-missing": (Outcome.CONFIG_ERROR, 40, 'secret "s3-absent" not found'),
    "unschedulable": (Outcome.UNSCHEDULABLE, 60, "1 Insufficient cpu"),
    "volume-missing": (Outcome.TOOL_NEVER_STARTED, 60, "no container has started"),
    "oom-init-stays": (Outcome.OUT_OF_MEMORY, 20, "OOMKilled (container fetch)"),
    "terminating-on-a-dead-node": (Outcome.BUDGETS_SPENT, 140, "DeletionByTaintManager"),
    "quota-for-pods": (Outcome.CLUSTER_REFUSED, 60, "exceeded quota: q"),
    "pod-security": (Outcome.CLUSTER_REFUSED, 40, "violates PodSecurity"),
    "job-gone-pod-ends": (Outcome.DELETED, 140, "the pod was deleted"),
}
"""What each comes to, after how many seconds, and what the user is told."""


@pytest.mark.parametrize("name", HELD_UP)
def test_what_does_not_go_on_is_ended_when_its_time_is_over(name: str) -> None:
    store = memory_store()
    retry = Retry(memory_cap="1Mi")
    store_job(store, destination=kubernetes(max_evictions=0), retry=retry)
    put(store, JOB.generation_created(1), b"{}")
    waiting = Waiting(observed(name))

    end, _ = waiting.follow(store)

    outcome, after_s, words = HELD_UP[name]
    # the bound itself has to be over, and the next look comes 10 s later
    assert (end.outcome, waiting.now_s) == (outcome, after_s + 10 if after_s else 0)
    assert end.error is not None
    assert words in str(end.error["reason"])
    told_what_to_do = end.outcome not in (Outcome.OUT_OF_MEMORY, Outcome.TOOL_NEVER_STARTED)
    assert bool(end.error["hint"]) == told_what_to_do
    assert ("delete", NAME) in store.calls


def test_what_is_held_up_by_another_thing_gets_its_time_anew() -> None:
    store = memory_store()
    store_job(store, destination=kubernetes())
    first, second = observed("secret-missing"), observed("image-of-the-worker")
    waiting = Waiting(*[first] * 4, *[RUNNING] * 2, *[first] * 4, *[second] * 4, FAILED)
    put(store, JOB.generation_created(1), b"{}")

    end, _ = waiting.follow(store)

    assert (end.outcome, waiting.now_s) == (Outcome.BAD_SPEC, 140)


def test_a_back_off_between_two_pulls_is_the_same_trouble() -> None:
    store = memory_store()
    store_job(store, destination=kubernetes())
    pulls = [observed("image-err-pull"), observed("image-back-off")] * 9
    waiting = Waiting(*pulls)

    end, heard = waiting.follow(store)

    assert (end.outcome, waiting.now_s) == (Outcome.IMAGE_PULL_FAILED, 50)
    assert [note.partition(": ")[0] for note in heard.notes] == ["pending"]


def test_the_user_is_told_once_what_a_job_waits_for() -> None:
    store = memory_store()
    store_job(store, destination=kubernetes(), outputs=())
    seen = [observed(name) for name in ("suspended", "unschedulable", "unschedulable", "fetching")]
    waiting = Waiting(*seen, FAILED)

    _, heard = waiting.follow(store)

    assert heard.states == ["queued", "pending", "fetching", "ended"]
    assert [note.split(" are")[0] for note in heard.notes] == [
        "queued: the Job is suspended: its queue has not admitted it",
        "pending: 0/1 nodes",
    ]


def test_a_queue_may_take_as_long_as_it_likes() -> None:
    store = memory_store()
    store_job(store, destination=kubernetes())
    waiting = Waiting(*[observed("suspended")] * 90, FAILED)

    assert waiting.follow(store)[0].outcome is Outcome.BAD_SPEC
    assert waiting.now_s == 900


def test_a_pod_of_a_deleted_job_may_still_commit(tmp_path: Path) -> None:
    store = memory_store()
    store_job(store, outputs=())
    put(store, JOB.generation_created(1), b"{}")
    attempt = open_attempt(tmp_path, store)
    ending = observed("job-gone-pod-ends")
    cluster = FakeCluster(ending, GONE, meanwhile=[lambda: finish(attempt)])

    outcome, heard = followed(store, cluster)

    assert (outcome, heard.warnings) == (Outcome.SUCCEEDED, [])
    assert heard.states == ["ended"]


def test_each_pod_after_the_first_is_told_of_with_its_reason() -> None:
    store = memory_store()
    store_job(store, destination=kubernetes(), outputs=())
    second = observed("pod-gone-next-runs")
    waiting = Waiting(observed("pod-gone"), second, second, FAILED)

    _, heard = waiting.follow(store)

    told = "evicted from node spot-7: pod disrupted: EvictionByEvictionAPI: Eviction API: evicting"
    assert heard.warnings == [f"attempt 2 of at most 4 ({told})"]
    assert heard.states == ["pending", "running", "ended"]


def reads_while(store: MemoryStore, *names: str) -> list[tuple[str, str]]:
    """Return what the store is asked between the first look and the last, 20 of each state."""
    waiting = Waiting(*[observed(name) for name in names for _ in range(20)], FAILED)
    waiting.follow(store)
    looks = [number for number, call in enumerate(store.calls) if call[0] == "observe"]
    return [call for call in store.calls[looks[0] : looks[-1]] if call[0] not in LOOKS]


AT_FIRST = [("get", JOB.commit), ("put_if_absent", JOB.generation_created(1))]
"""Has it been decided already? And that the Job is there is noted."""


def test_looking_costs_no_request_to_the_store_while_nothing_has_begun() -> None:
    store = memory_store()
    store_job(store, destination=kubernetes(pending_timeout_s=9_999))

    assert reads_while(store, "unschedulable", "quota-for-pods", "suspended") == AT_FIRST


def test_a_pod_that_may_have_committed_costs_five_reads_a_state() -> None:
    store = memory_store()
    store_job(store, destination=kubernetes())

    reads = reads_while(store, "fetching", "running", "staging-out")

    assert reads == AT_FIRST + 15 * [("get", JOB.commit)]


def test_a_job_that_another_head_made_right_after_the_look_is_not_taken_for_deleted(
    tmp_path: Path,
) -> None:
    """The cluster is asked, then the Job is made and noted, then the note is read."""
    store = memory_store()
    store_job(store, outputs=())
    attempt = open_attempt(tmp_path, store)
    cluster = FakeCluster(GONE, RUNNING, COMPLETE, meanwhile=[lambda: finish(attempt)])
    head = head_of(store, cluster)
    note_created(head, JOB_ID, 1, "uid-of-another-heads")

    end = wait(head, JOB_ID, Silence())

    assert (end.outcome, end.generation) == (Outcome.SUCCEEDED, 1)
    assert [call for call in store.calls if call[0] == "submit"] == []


def test_a_commit_is_found_before_the_kubelet_tells_of_the_stagers_end(tmp_path: Path) -> None:
    store = memory_store()
    store_job(store, outputs=())
    attempt = open_attempt(tmp_path, store)
    now_s = iter(range(100))
    cluster = FakeCluster(observed("running"), meanwhile=[lambda: finish(attempt)])
    heard = Heard()

    end = wait(head_of(store, cluster), JOB_ID, heard, clock=lambda: next(now_s))

    assert end.outcome is Outcome.SUCCEEDED
    assert heard.states == ["running", "ended"]


def test_spent_evictions_are_followed_by_other_nodes() -> None:
    store = memory_store()
    place = KubernetesPlace(
        PodCredentials(service_account="s3"), then=(Placement(NodeChoice({"pool": "calm"})),)
    )
    store_job(store, destination=Destination(kubernetes=place))
    cluster = FakeCluster(observed("eviction-spent"), FAILED)

    _, heard = followed(store, cluster)

    assert heard.warnings == [
        "generation 1 ended as evicted; trying again as generation 2 on other nodes"
    ]
    made = cluster.jobs[JOB.job_name(2)]["spec"]["template"]["spec"]
    assert made["nodeSelector"] == {"pool": "calm"}
    assert generations(store)[1].spent == {"evicted": 4}


def test_a_job_can_be_followed_step_by_step_without_waiting(tmp_path: Path) -> None:
    """A monitor of many jobs looks at each in turn, and never waits for one."""
    store = memory_store()
    store_job(store, outputs=())
    attempt = open_attempt(tmp_path, store)
    follower = Follower(head_of(store, FakeCluster(RUNNING, RUNNING, COMPLETE)), JOB_ID, Silence())

    assert follower.step() is None
    assert follower.step() is None
    finish(attempt)
    end = follower.step()

    assert end is not None
    assert end.outcome is Outcome.SUCCEEDED
    assert not [call for call in store.calls if call[0] == "wait"]


def test_a_step_that_failed_can_be_taken_again(tmp_path: Path) -> None:
    """A store that is away for a moment says nothing of the job."""
    store = memory_store()
    store_job(store, outputs=())
    finish(open_attempt(tmp_path, store))
    follower = Follower(head_of(store, FakeCluster(COMPLETE)), JOB_ID, Silence())
    following = 1 + sum(method == "get" for method, _ in store.calls)
    store._world.fail = {("get", following): StoreAccessError("denied for a moment")}

    with pytest.raises(StoreAccessError):
        follower.step()

    end = follower.step()
    assert end is not None
    assert end.outcome is Outcome.SUCCEEDED
