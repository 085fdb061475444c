"""Cancelling: the commit, the Jobs, and the wait until nothing of the job runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest
from attempts import JOB, committed, memory_store, put, store_job
from fake_cluster import GONE, FakeCluster, Heard, head_of, job, pod
from memory_store import MemoryStore
from samples import JOB_ID, spec

from s3runner.cluster.protocol import JobObject, Observation
from s3runner.errors import ClusterUnavailableError, SettingsError, SpecError
from s3runner.model import Destination, Outcome
from s3runner.runner.cancel import MARGIN_S, await_pods, cancel
from s3runner.runner.runner import Runner
from s3runner.staging.records import Commit, Generation

RUNS = pod("pod-1")
ENDED: JobObject = {**pod("pod-1"), "status": {"phase": "Failed"}}
GRACE_S = 3


class Stubborn(FakeCluster):
    """A cluster that shows each Job as the next of its list; a clock moves with the waits."""

    def __init__(self, **shown: list[Observation]) -> None:
        super().__init__(GONE)
        self.now_s = 0.0
        self.waits: list[tuple[list[str], float]] = []
        self._shown = {JOB.job_name(int(name[1:])): list(seen) for name, seen in shown.items()}

    def observe(self, names: Collection[str]) -> dict[str, Observation]:
        self.journal.append(("observe", " ".join(names)))
        return {name: self._next(name) for name in names}

    def _next(self, name: str) -> Observation:
        seen = self._shown.get(name, [GONE])
        return seen.pop(0) if len(seen) > 1 else seen[0]

    def wait(self, names: Collection[str], timeout_s: float) -> None:
        self.waits.append((list(names), timeout_s))
        self.now_s += timeout_s


def waited(store: MemoryStore, cluster: Stubborn) -> Heard:
    heard = Heard()
    job_spec = spec(destination=Destination(grace_s=GRACE_S))
    await_pods(head_of(store, cluster), job_spec, heard, lambda: cluster.now_s)
    return heard


def record(store: MemoryStore, number: int) -> None:
    put(store, JOB.generation(number), Generation(number, JOB.job_name(number), "d").dump())


def test_the_commit_stands_before_a_job_is_deleted() -> None:
    store = memory_store()
    asked = store_job(store)

    commit, ours = cancel(head_of(store, FakeCluster(GONE)), asked)

    assert (commit.outcome, commit.by, ours) == (Outcome.CANCELLED, "head", True)
    assert committed(store) == commit
    calls = store.calls
    deleted = ("delete", JOB.job_name(1))
    assert calls.index(("put_if_absent", JOB.commit)) < calls.index(deleted)


class Racing(MemoryStore):
    """A store in which another head records the next generation just before the commit."""

    def put_if_absent(self, key: str, body: bytes) -> bool:
        if key == JOB.commit:
            record(self, 2)
        return super().put_if_absent(key, body)


def test_a_generation_that_another_head_records_meanwhile_is_ended_too() -> None:
    store = Racing("runs")
    asked = store_job(store)

    cancel(head_of(store, FakeCluster(GONE)), asked)

    assert ("delete", JOB.job_name(2)) in store.calls


def test_a_job_that_had_ended_stays_as_it_was() -> None:
    store = memory_store()
    asked = store_job(store)
    before = Commit("pod", Outcome.TOOL_FAILED, None, None, 1)
    put(store, JOB.commit, before.dump())

    assert cancel(head_of(store, FakeCluster(GONE)), asked) == (before, False)


def test_a_job_of_another_cluster_is_not_touched() -> None:
    store = memory_store()
    asked = store_job(store)
    abroad = FakeCluster(GONE, identity={"kind": "local", "machine": "another"})

    with pytest.raises(SettingsError, match="runs on another cluster"):
        cancel(head_of(store, abroad), asked)

    assert committed(store) is None


class Nowhere(FakeCluster):
    """A cluster that no configuration leads to any more."""

    @property
    def identity(self) -> Mapping[str, str]:
        raise SettingsError("there is no context prod")

    @identity.setter
    def identity(self, value: Mapping[str, str]) -> None:
        del value


@pytest.mark.parametrize(
    "cluster",
    [FakeCluster(GONE, identity={"kind": "local", "machine": "another"}), Nowhere(GONE)],
    ids=["another", "nowhere"],
)
def test_by_force_a_job_ends_whose_cluster_is_out_of_reach(cluster: FakeCluster) -> None:
    store = memory_store()
    asked = store_job(store)
    head = head_of(store, cluster)
    with pytest.raises(SettingsError):
        cancel(head, asked)

    commit, ours = cancel(head, asked, force=True)

    assert (commit.outcome, ours, committed(store)) == (Outcome.CANCELLED, True, commit)
    assert {"delete", "observe"}.isdisjoint({call for call, _ in store.calls})
    assert Runner(head).await_pods(JOB_ID, Heard()) is False


def test_the_refusal_names_the_force() -> None:
    store = memory_store()
    abroad = FakeCluster(GONE, identity={"kind": "local", "machine": "another"})

    with pytest.raises(SettingsError) as raised:
        cancel(head_of(store, abroad), store_job(store))

    assert "--force" in raised.value.hint


def test_by_force_a_job_of_this_cluster_is_stopped_like_any_other() -> None:
    store = memory_store()
    asked = store_job(store)

    cancel(head_of(store, FakeCluster(GONE)), asked, force=True)

    assert ("delete", JOB.job_name(1)) in store.calls


def test_a_commit_that_cannot_be_read_keeps_no_pod_alive() -> None:
    store = memory_store()
    asked = store_job(store)
    put(store, JOB.commit, b"{}")

    with pytest.raises(SpecError):
        cancel(head_of(store, FakeCluster(GONE)), asked)

    assert ("delete", JOB.job_name(1)) in store.calls


def test_cancel_tells_of_the_end_as_every_verb_does() -> None:
    store = memory_store()
    store_job(store)
    put(store, JOB.generation_created(1), b"{}")
    runner = Runner(head_of(store, FakeCluster(GONE)))

    end, ours = runner.cancel(JOB_ID)

    assert (end.outcome, end.attempts, end.generation, ours) == (Outcome.CANCELLED, 1, 1, True)
    assert runner.wait(JOB_ID, Heard()) == end
    assert runner.cancel(JOB_ID) == (end, False)


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(Observation(job(), (RUNS,)), id="it runs"),
        pytest.param(Observation(None, (RUNS,)), id="the Job went before its pod"),
        pytest.param(Observation(job()), id="a Job without a pod may still make one"),
    ],
)
def test_the_wait_ends_when_nothing_is_left(last: Observation) -> None:
    store = memory_store()
    store_job(store)
    cluster = Stubborn(g1=[last, last, GONE])

    heard = waited(store, cluster)

    name = JOB.job_name(1)
    assert cluster.waits == [([name], 1.0), ([name], GRACE_S + MARGIN_S - 1.0)]
    assert heard.notes == [f"waiting for its pods to end, {GRACE_S + MARGIN_S} s at most"]


@pytest.mark.parametrize("seen", [GONE, Observation(None, (ENDED,))], ids=["gone", "a dead pod"])
def test_nothing_is_said_where_nothing_runs(seen: Observation) -> None:
    store = memory_store()
    store_job(store)
    cluster = Stubborn(g1=[seen])

    assert (waited(store, cluster).notes, cluster.waits) == ([], [])


def test_the_pods_of_every_generation_are_waited_for() -> None:
    store = memory_store()
    store_job(store)
    record(store, 2)
    cluster = Stubborn(g1=[Observation(None, (RUNS,)), GONE], g2=[GONE])

    waited(store, cluster)

    assert cluster.waits == [([JOB.job_name(1)], 1.0)]


def test_a_pod_that_does_not_end_is_told_of() -> None:
    store = memory_store()
    store_job(store)
    cluster = Stubborn(g1=[Observation(job(), (RUNS,))])

    with pytest.raises(ClusterUnavailableError) as raised:
        waited(store, cluster)

    assert cluster.now_s == GRACE_S + MARGIN_S
    assert raised.value.source == JOB.job_name(1)
    assert raised.value.target == "pod pod-1"
    assert JOB_ID in str(raised.value)
    assert raised.value.hint


def test_a_pod_on_a_dead_node_is_told_of_by_name_and_node() -> None:
    """Nobody is there to end it: the wait is over all the same."""
    store = memory_store()
    store_job(store)
    stuck = {**RUNS, "metadata": {**RUNS["metadata"], "name": "j-g1-x"}, "spec": {"nodeName": "n7"}}
    cluster = Stubborn(g1=[Observation(None, (stuck, ENDED))])

    with pytest.raises(ClusterUnavailableError, match="pod j-g1-x on node n7: the job is cancel"):
        waited(store, cluster)

    assert cluster.now_s == GRACE_S + MARGIN_S
