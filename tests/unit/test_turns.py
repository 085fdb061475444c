"""Jobs that wait for room: who makes them, in which order, and how many there are at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import pytest
from attempts import memory_store, put
from fake_cluster import COMPLETE, GONE, IDENTITY, RUNNING, FakeCluster, Heard, head_of
from memory_store import MemoryStore
from samples import STORE, spec

from s3runner.cluster.protocol import JobObject, Observation
from s3runner.errors import ClusterRefusedError, SettingsError
from s3runner.model import Destination, Job, Outcome
from s3runner.runner.cancel import cancel
from s3runner.runner.creation import newest_generation
from s3runner.runner.follow import wait
from s3runner.runner.head import Head
from s3runner.runner.report import Silence
from s3runner.runner.submission import new_job_id, submit
from s3runner.runner.turns import Room, make_job
from s3runner.staging.layout import StoreLayout
from s3runner.staging.manifest import document_digest, dump_document
from s3runner.staging.records import Commit, Generation, Result, Spec

LAYOUT = StoreLayout(STORE.prefix)
SPOT = Destination("spot", max_active=2)
PLACES = LAYOUT.queue("spot", document_digest(dump_document(IDENTITY)))
OLD, MIDDLE, YOUNG = (new_job_id(1_700_000_000_000 + day) for day in range(3))


class Slots(FakeCluster):
    """A cluster whose Jobs are active from their creation until the test ends them."""

    def __init__(self, *active: str, refuses: str = "") -> None:
        super().__init__(GONE)
        self.running = set(active)
        self.most = 0
        self.on_active: list[Callable[[], object]] = []
        self._refuses = refuses

    def submit(self, job: JobObject) -> str:
        if self._refuses and job["metadata"]["name"].startswith(self._refuses):
            raise ClusterRefusedError("quota")
        uid = super().submit(job)
        self.running.add(job["metadata"]["name"])
        self.most = max(self.most, len(self.running))
        return uid

    def active(self, destination: str) -> Collection[str]:
        counted = super().active(destination)
        if self.on_active:
            self.on_active.pop(0)()
        return counted


def stage(store: MemoryStore, job_id: str, **changes: object) -> Spec:
    """Store a job of `spot` as a submitter leaves it that finds no room: with its place."""
    staged = spec(job_id=job_id, destination=SPOT, **changes)
    keys = LAYOUT.job(job_id)
    body = staged.dump()
    put(store, keys.spec, body)
    put(store, keys.generation(1), Generation(1, f"{job_id}-g1", document_digest(body)).dump())
    put(store, f"{PLACES}{job_id}", b"{}")
    return staged


def waiting(store: MemoryStore) -> list[str]:
    """Return the jobs that have a place."""
    return sorted(key.rpartition("/")[2] for key in store.objects if "/queue/" in key)


def come_by(head: Head, job: Spec) -> Room | None:
    """Let a head that waits with a job do its part."""
    newest = newest_generation(head, job.job_id)
    assert newest is not None
    return make_job(head, job, newest)


def made(cluster: FakeCluster) -> list[str]:
    """Return the jobs whose Jobs were created, in that order."""
    return [name.removesuffix("-g1") for name in cluster.jobs]


def test_a_destination_without_a_bound_counts_nothing_and_keeps_no_queue() -> None:
    store, cluster = memory_store(), Slots("a", "b", "c")

    job_id = submit(head_of(store, cluster), Job(name="j", command="x"), Silence())

    assert made(cluster) == [job_id]
    assert "active" not in {call for call, _ in store.calls}
    assert not waiting(store)


def test_a_submitted_job_that_finds_no_room_is_stored_and_waits() -> None:
    store, cluster, heard = memory_store(), Slots("a", "b"), Heard()
    head = head_of(store, cluster, destination=SPOT)

    job_id = submit(head, Job(name="j", command="x"), heard)

    assert (made(cluster), waiting(store)) == ([], [job_id])
    assert heard.notes == ["waiting: 2 of 2 jobs active on destination spot"]
    assert LAYOUT.job(job_id).generation(1) in store.objects


def test_the_oldest_job_has_the_first_turn_whoever_comes_by() -> None:
    """Nobody waits for the old one, and a younger one's head makes it all the same."""
    store, cluster = memory_store(), Slots("a")
    young, _, _ = stage(store, YOUNG), stage(store, OLD), stage(store, MIDDLE)
    head = head_of(store, cluster)

    room = come_by(head, young)

    assert made(cluster) == [OLD]
    assert waiting(store) == [MIDDLE, YOUNG]
    assert room is not None
    assert (set(room.active), room.most, room.is_full) == ({"a", f"{OLD}-g1"}, 2, True)
    cluster.running.clear()
    assert come_by(head, young) is None
    assert made(cluster) == [OLD, MIDDLE, YOUNG]
    assert (waiting(store), cluster.most) == ([], 2)


def test_a_place_that_was_lost_is_taken_again() -> None:
    store = memory_store()
    young = stage(store, YOUNG)
    store.delete(f"{PLACES}{YOUNG}")

    come_by(head_of(store, Slots("a", "b")), young)

    assert waiting(store) == [YOUNG]


def test_two_heads_that_see_the_same_queue_make_one_job() -> None:
    store, cluster = memory_store(), Slots("a")
    young, old = stage(store, YOUNG), stage(store, OLD)
    head = head_of(store, cluster)
    # the second head does all of its part between the count and the create of the first
    cluster.on_active = [lambda: come_by(head, old)]

    come_by(head, young)

    assert (made(cluster), cluster.most) == ([OLD], 2)
    assert waiting(store) == [YOUNG]


def ended(store: MemoryStore) -> None:
    put(store, LAYOUT.job(OLD).commit, Commit("head", Outcome.CANCELLED, None, None, 1).dump())


def created(store: MemoryStore) -> None:
    put(store, LAYOUT.job(OLD).generation_created(1), b"{}")


def decided(store: MemoryStore) -> None:
    end = Commit("head", Outcome.DELETED, None, None, 1)
    put(store, LAYOUT.job(OLD).generation(2), Generation(2, "", "", end=end).dump())


def gone(store: MemoryStore) -> None:
    for key in [key for key in store.objects if key.startswith(LAYOUT.job(OLD).root)]:
        store.delete(key)


@pytest.mark.parametrize("happens", [ended, created, decided, gone])
def test_a_place_that_nobody_needs_takes_no_room(happens: Callable[[MemoryStore], None]) -> None:
    store, cluster = memory_store(), Slots("a")
    young, _ = stage(store, YOUNG), stage(store, OLD)
    happens(store)

    assert come_by(head_of(store, cluster), young) is None

    assert (made(cluster), waiting(store)) == ([YOUNG], [])


def test_a_job_that_cannot_be_read_or_made_holds_up_no_other() -> None:
    store, cluster = memory_store(), Slots(refuses=MIDDLE)
    young, _, middle = stage(store, YOUNG), stage(store, OLD), stage(store, MIDDLE)
    put(store, LAYOUT.job(OLD).spec, b"{}")
    head = head_of(store, cluster)

    assert come_by(head, young) is None

    assert (made(cluster), waiting(store)) == ([YOUNG], [OLD, MIDDLE])
    with pytest.raises(ClusterRefusedError):
        come_by(head, middle)


def test_a_job_that_this_head_would_make_otherwise_waits_for_its_own() -> None:
    """The directories that every pod sees are those of the head's settings, not of the spec."""
    store, cluster = memory_store(), Slots()
    young, with_refs = stage(store, YOUNG), replace(SPOT, read_only=("/refs",))
    stage(store, OLD)
    put(store, LAYOUT.job(OLD).spec, spec(job_id=OLD, destination=with_refs).dump())
    head = head_of(store, cluster)

    assert come_by(head, young) is None

    assert (made(cluster), waiting(store)) == ([YOUNG], [OLD])
    cluster.running.clear()
    again = stage(store, MIDDLE)
    assert come_by(replace(head, destination=with_refs), again) is None
    assert made(cluster) == [YOUNG, OLD, MIDDLE]


def test_a_job_that_no_job_object_can_express_holds_up_no_other() -> None:
    store, cluster = memory_store(), Slots("a")
    young, old = stage(store, YOUNG), stage(store, OLD, env={"S3RUNNER_JOB_ID": "mine"})
    with pytest.raises(SettingsError):
        come_by(head_of(store, Slots()), old)

    assert come_by(head_of(store, cluster), young) is None

    assert made(cluster) == [YOUNG]


def test_jobs_of_another_destination_or_cluster_are_not_in_the_queue() -> None:
    store, cluster = memory_store(), Slots("a", "b")
    come_by(head_of(store, cluster), stage(store, OLD))
    elsewhere = spec(job_id=MIDDLE, destination=Destination("big", max_active=1))
    abroad = spec(job_id=MIDDLE, destination=SPOT, cluster={"kind": "local", "machine": "n"})
    record = Generation(1, f"{MIDDLE}-g1", "sha256:00")
    cluster.running.clear()

    assert make_job(head_of(store, cluster), elsewhere, record) is None
    cluster.running.clear()
    assert make_job(head_of(store, cluster), abroad, record) is None

    assert (made(cluster), waiting(store)) == ([MIDDLE], [OLD])


class Watched(Slots):
    """A cluster whose waits are watched; a Job that was created runs until it is in `over`."""

    def __init__(self, *active: str) -> None:
        super().__init__(*active)
        self.waits: list[list[str]] = []
        self.over: set[str] = set()
        self.asked: list[str] = []

    def observe(self, names: Collection[str]) -> dict[str, Observation]:
        self.asked += names
        return {name: self._see(name) for name in names}

    def _see(self, name: str) -> Observation:
        if name not in self.jobs:
            return GONE
        return COMPLETE if name in self.over else RUNNING

    def wait(self, names: Collection[str], timeout_s: float) -> None:
        self.waits.append(sorted(names))
        super().wait(names, timeout_s)


def test_a_head_that_waits_for_room_wakes_when_a_job_before_it_changes() -> None:
    store, heard = memory_store(), Heard()
    stage(store, YOUNG)
    cluster = Watched("a", "b")

    def end_one() -> None:
        cluster.running.discard("a")

    def finish() -> None:
        done = Commit("pod", Outcome.TOOL_FAILED, None, None, 1)
        put(store, LAYOUT.job(YOUNG).commit, done.dump())
        cluster.over.add(f"{YOUNG}-g1")

    cluster._meanwhile = [lambda: None, end_one, finish]

    end = wait(head_of(store, cluster), YOUNG, heard)

    assert end.outcome is Outcome.TOOL_FAILED
    name = f"{YOUNG}-g1"
    assert cluster.waits == [sorted(["a", "b", name])] * 2 + [[name]]
    assert heard.states == ["staged", "ended"]
    assert heard.notes == ["waiting: 2 of 2 jobs active on destination spot"]


def test_a_job_that_another_head_makes_waits_for_no_other_job_any_more() -> None:
    store = memory_store()
    waits = stage(store, YOUNG)
    name = f"{YOUNG}-g1"
    cluster = Watched("a", "b")
    head = head_of(store, cluster)

    def make() -> None:
        cluster.running.clear()
        come_by(head, waits)

    def finish() -> None:
        done = Commit("pod", Outcome.TOOL_FAILED, None, None, 1)
        put(store, LAYOUT.job(YOUNG).commit, done.dump())
        cluster.over.add(name)

    cluster._meanwhile = [make, lambda: None, finish]

    wait(head, YOUNG, Silence())

    assert cluster.waits == [sorted(["a", "b", name]), [name], [name]]


def test_a_cluster_is_not_asked_for_a_job_that_was_never_made() -> None:
    """Each such question may be a request, of every job in a long queue, at every look."""
    store = memory_store()
    stage(store, YOUNG)
    cluster = Watched("a", "b")

    def end_it() -> None:
        done = Commit("head", Outcome.CANCELLED, None, None, 1)
        put(store, LAYOUT.job(YOUNG).commit, done.dump())

    cluster._meanwhile = [*[lambda: None] * 5, end_it]

    end = wait(head_of(store, cluster), YOUNG, Silence())

    assert (end.outcome, made(cluster)) == (Outcome.CANCELLED, [])
    assert cluster.asked == [f"{YOUNG}-g1"]


def test_the_next_generation_waits_for_room_too() -> None:
    store, heard = memory_store(), Heard()
    stage(store, OLD)
    created(store)
    cluster = Watched("a", "b")
    first = f"{OLD}-g1"
    cluster.jobs[first] = {}
    cluster.over.add(first)
    put(store, LAYOUT.job(OLD).attempt("pod-1").result, result_of(OLD))

    def end_it() -> None:
        assert list(cluster.jobs) == [first]
        cancel(head_of(store, cluster), spec(job_id=OLD, destination=SPOT))

    cluster._meanwhile = [end_it]

    end = wait(head_of(store, cluster), OLD, heard)

    assert (end.outcome, heard.notes) == (
        Outcome.CANCELLED,
        ["waiting: 2 of 2 jobs active on destination spot"],
    )
    assert list(cluster.jobs) == [first]


def result_of(job_id: str) -> bytes:
    return Result(job_id, 1, "pod-1", Outcome.INTEGRITY_FAILED).dump()


def test_a_waiting_job_that_is_cancelled_is_never_made() -> None:
    store, cluster = memory_store(), Slots("a", "b")
    old, young = stage(store, OLD), stage(store, YOUNG)
    head = head_of(store, cluster)

    commit, ours = cancel(head, old)

    assert (commit.outcome, ours, waiting(store)) == (Outcome.CANCELLED, True, [YOUNG])
    cluster.running.clear()
    assert come_by(head, young) is None
    assert made(cluster) == [YOUNG]
