"""What is known of jobs without waiting: from the store, and from one look at the cluster."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from attempts import memory_store, put
from fake_cluster import COMPLETE, GONE, IDENTITY, FakeCluster, head_of, job, pod
from memory_store import MemoryStore
from observing import observed
from samples import JOB_ID, STORE, spec

from s3runner.cluster.outcome import since_of, state_of
from s3runner.cluster.protocol import JobObject, Observation
from s3runner.errors import (
    ClusterUnavailableError,
    SettingsError,
    StagingError,
    StoreUnavailableError,
)
from s3runner.model import Destination, Outcome, Phase
from s3runner.runner.job_status import JobRow, JobStatus, Wanted, born
from s3runner.runner.queries import list_jobs, look_up
from s3runner.runner.report import STATES, JobReport
from s3runner.runner.submission import new_job_id
from s3runner.staging.layout import StoreLayout
from s3runner.staging.manifest import document_digest
from s3runner.staging.records import Commit, Generation, Result

LAYOUT = StoreLayout(STORE.prefix)
NOW = datetime(2026, 5, 1, tzinfo=timezone.utc)
READS = {"get", "head", "list", "list_folders", "observe"}


class ManyJobs(FakeCluster):
    """A cluster that runs several jobs, and calls `on_observe` when it is asked for them."""

    def __init__(
        self, shown: Mapping[str, Observation], on_observe: Callable[[], object] = lambda: None
    ) -> None:
        super().__init__(GONE)
        self.shown = shown
        self.on_observe = on_observe
        self.asked: list[list[str]] = []

    def observe(self, names: Collection[str]) -> dict[str, Observation]:
        self.asked.append(list(names))
        self.on_observe()
        return {name: self.shown.get(name, GONE) for name in names}


def at(age: timedelta) -> str:
    """Return a job id made so long before NOW."""
    return new_job_id(int((NOW - age).timestamp() * 1000))


def store_job(
    store: MemoryStore,
    job_id: str = JOB_ID,
    *,
    made: bool = True,
    outcome: Outcome | None = None,
    **changes: Any,
) -> str:
    """Store a job whose Job was created, unless not `made`; with an outcome it is over."""
    keys = LAYOUT.job(job_id)
    body = spec(job_id=job_id, **changes).dump()
    put(store, keys.spec, body)
    record_generation(store, job_id)
    if made:
        put(store, keys.generation_created(1), b"{}")
    if outcome is not None:
        commit(store, job_id, outcome)
    return job_id


def record_generation(store: MemoryStore, job_id: str = JOB_ID, **changes: Any) -> None:
    first = Generation(1, f"{job_id}-g1", "sha256:00")
    record = replace(first, **changes)
    put(store, LAYOUT.job(job_id).generation(record.number), record.dump())


def commit(store: MemoryStore, job_id: str, outcome: Outcome, **changes: Any) -> None:
    decision = replace(Commit("head", outcome, None, None, 1), **changes)
    put(store, LAYOUT.job(job_id).commit, decision.dump())


def looked_up(store: MemoryStore, cluster: FakeCluster, job_id: str = JOB_ID) -> JobStatus:
    (status,) = look_up(head_of(store, cluster), [job_id])
    return status


def listed(store: MemoryStore, cluster: FakeCluster | None = None, **wanted: Any) -> list[JobRow]:
    return list_jobs(head_of(store, cluster or ManyJobs({})), Wanted(**wanted))


def requests(store: MemoryStore, part: str) -> list[tuple[str, str]]:
    return [call for call in store.calls if part in call[1]]


# --- one job -------------------------------------------------------------------------------------


def containers(**states: Mapping[str, object]) -> Observation:
    """Return a Job with a pod whose containers are in these states, begun at 1, 2, 3 o'clock."""
    running = pod(created="2026-01-01T01:00:00Z")
    running["status"] = {
        "initContainerStatuses": [{"name": "fetch", "state": states.get("fetch", {})}],
        "containerStatuses": [{"name": "tool", "state": states.get("tool", {})}],
    }
    return Observation(job(), (running,))


def begun(hour: int) -> dict[str, object]:
    return {"running": {"startedAt": f"2026-01-01T0{hour}:00:00Z"}}


def over(hour: int) -> dict[str, object]:
    times = {
        "startedAt": f"2026-01-01T0{hour}:00:00Z",
        "finishedAt": f"2026-01-01T0{hour + 1}:00:00Z",
    }
    return {"terminated": {"exitCode": 0, **times}}


def queued() -> JobObject:
    return {**job(), "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}}


def ended() -> JobObject:
    shown = job("Complete")
    shown["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-01T05:00:00Z"
    return shown


@pytest.mark.parametrize(
    ("seen", "state", "hour"),
    [
        pytest.param(Observation(queued()), "queued", 0, id="a Job without a pod"),
        pytest.param(containers(), "pending", 1, id="a pod without a container"),
        pytest.param(containers(fetch=begun(2)), "fetching", 2, id="fetch runs"),
        pytest.param(containers(fetch=over(2)), "fetching", 2, id="fetch has ended"),
        pytest.param(containers(fetch=over(1), tool=begun(3)), "running", 3, id="the tool runs"),
        pytest.param(containers(tool=over(3)), "staging_out", 4, id="the tool has ended"),
        pytest.param(Observation(ended()), "ended", 5, id="the Job is over"),
        pytest.param(Observation(job()), "queued", None, id="nobody knows since when"),
    ],
)
def test_a_job_is_in_the_state_that_its_cluster_shows(
    seen: Observation, state: str, hour: int | None
) -> None:
    store = memory_store()
    store_job(store)

    status = looked_up(store, ManyJobs({f"{JOB_ID}-g1": seen}))

    assert status.row.state == state
    assert status.end is None
    assert status.since == (
        None if hour is None else datetime(2026, 1, 1, hour, tzinfo=timezone.utc)
    )
    assert status.row.state in STATES
    assert (status.attempts, status.generation) == (len(seen.pods), 1)
    assert {name for name, _ in store.calls} <= READS


def test_every_state_of_the_cluster_has_a_beginning() -> None:
    seen = Observation(None)
    assert (state_of(seen), since_of(seen)) == ("ended", None)


def test_a_job_that_nobody_created_yet_is_staged() -> None:
    store = memory_store()
    recorded = store_job(store, at(timedelta(hours=1)), made=False)
    stored = store_job(store, at(timedelta(hours=2)), made=False)
    store.delete(LAYOUT.job(stored).generation(1))

    found = look_up(head_of(store, ManyJobs({})), [recorded, stored])

    assert [(status.row.state, status.generation) for status in found] == [
        ("staged", 1),
        ("staged", 0),
    ]
    assert [status.since for status in found] == [born(recorded), born(stored)]


def test_a_staged_job_of_a_bounded_destination_tells_what_it_waits_for() -> None:
    store, cluster = memory_store(), ManyJobs({})
    cluster.running = {"a", "b"}
    bounded = Destination("spot", max_active=2)
    waits = store_job(store, at(timedelta(hours=1)), made=False, destination=bounded)
    runs = store_job(store, at(timedelta(hours=2)), destination=bounded)
    free = store_job(store, at(timedelta(hours=3)), made=False)

    found = look_up(head_of(store, cluster), [waits, runs, free])

    told = "2 of 2 jobs active on destination spot"
    assert [status.to_json()["waiting"] for status in found] == [told, None, None]
    assert [call for call in store.calls if call[0] == "active"] == [("active", "spot")]


@pytest.mark.parametrize(
    ("name", "state", "told", "attempts", "spent"),
    [
        ("unschedulable", "pending", "0/1 nodes are available", 1, {}),
        ("image-back-off", "pending", "ImagePullBackOff: Back-off pulling image", 1, {}),
        ("suspended", "queued", "the Job is suspended", 0, {}),
        ("pod-gone", "pending", "the next pod is to come", 1, {"evicted": 1}),
        ("pod-gone-next-runs", "running", None, 2, {"evicted": 1}),
    ],
)
def test_what_a_job_waits_for_is_told_with_what_it_has_been_through(
    name: str, state: str, told: str | None, attempts: int, spent: dict[str, int]
) -> None:
    store = memory_store()
    store_job(store)
    record_generation(store, spent={"no_space": 1})

    status = looked_up(store, ManyJobs({f"{JOB_ID}-g1": observed(name)})).to_json()

    assert (status["state"], status["attempts"]) == (state, attempts)
    assert status["spent"] == {"no_space": 1, **spent}
    assert (status["waiting"] or "").startswith(told or "")
    assert (status["waiting"] is None) == (told is None)


def test_a_job_whose_commit_cannot_be_read_is_listed_by_its_name() -> None:
    store = memory_store()
    damaged = store_job(store, at(timedelta(hours=1)), name="sort-bam")
    put(store, LAYOUT.job(damaged).commit, b"{}")

    (row,) = listed(store, name="sort-*")

    assert (row.job_id, row.name, row.state) == (damaged, "sort-bam", None)
    assert row.problem is not None
    assert listed(store, name="align-*") == []


@pytest.mark.parametrize("seen", [COMPLETE, GONE], ids=["complete", "gone"])
def test_a_job_that_is_over_has_no_outcome_before_its_commit(seen: Observation) -> None:
    store = memory_store()
    store_job(store)
    status = looked_up(store, ManyJobs({f"{JOB_ID}-g1": seen}))
    assert (status.row.state, status.row.outcome, status.end) == ("ended", None, None)
    assert not requests(store, "put")


def test_a_job_that_another_head_makes_while_the_cluster_is_asked_has_not_ended() -> None:
    """What the cluster did not show then says nothing of it."""
    store = memory_store()
    store_job(store, made=False)
    made = LAYOUT.job(JOB_ID).generation_created(1)
    cluster = ManyJobs({}, on_observe=lambda: put(store, made, b"{}"))

    assert looked_up(store, cluster).row.state == "staged"
    store.delete(made)
    assert [row.state for row in listed(store, cluster)] == ["staged"]


def test_a_recorded_end_is_no_outcome_and_asks_no_cluster() -> None:
    store, cluster = memory_store(), ManyJobs({})
    store_job(store)
    end = Commit("head", Outcome.OUT_OF_MEMORY, None, None, 1)
    record_generation(store, number=2, job_name="", end=end, attempts=3, spent={"out_of_memory": 1})

    status = looked_up(store, cluster)

    assert (status.row.state, status.end, cluster.asked) == ("ended", None, [])
    assert (status.attempts, status.generation) == (3, 1)
    assert status.spent == {"out_of_memory": 1}


def test_the_newest_generation_is_looked_at() -> None:
    store = memory_store()
    store_job(store)
    record_generation(store, number=2, job_name=f"{JOB_ID}-g2", attempts=1, spent={"no_space": 1})
    cluster = ManyJobs({f"{JOB_ID}-g2": containers(tool=begun(1))})

    status = looked_up(store, cluster)

    assert (status.row.state, status.generation, status.attempts) == ("running", 2, 2)
    assert status.to_json()["spent"] == {"no_space": 1}


def test_a_commit_that_comes_while_the_cluster_is_asked_counts() -> None:
    store = memory_store()
    store_job(store)
    cluster = ManyJobs({}, on_observe=lambda: commit(store, JOB_ID, Outcome.SUCCEEDED))
    assert looked_up(store, cluster).row.outcome is Outcome.SUCCEEDED
    store.delete(LAYOUT.job(JOB_ID).commit)
    assert [row.outcome for row in listed(store, cluster)] == [Outcome.SUCCEEDED]


def test_an_ended_job_shows_what_its_result_says() -> None:
    store, cluster = memory_store(), ManyJobs({})
    store_job(store)
    attempt = LAYOUT.job(JOB_ID).attempt("pod-2")
    cost = {"run": Phase(seconds=2.0)}
    result = Result(JOB_ID, 1, "pod-2", Outcome.TOOL_FAILED, tool_exit_code=3, phases=cost).dump()
    put(store, attempt.result, result)
    put(store, LAYOUT.job(JOB_ID).attempt("pod-1").log("stdout", 0), b"")
    decided = {"attempt": "pod-2", "result_digest": document_digest(result)}
    commit(store, JOB_ID, Outcome.TOOL_FAILED, **decided)

    told = looked_up(store, cluster).to_json()

    assert cluster.asked == []
    assert set(JobReport().to_json()) < set(told)
    expected = {"state": "ended", "outcome": "tool_failed", "code": 10, "tool_exit_code": 3}
    assert {**told, **expected, "attempts": 2, "name": "sort-bam", "error": None} == told
    assert told["phases"]["run"]["seconds"] == 2.0
    since = datetime.fromisoformat(told["since"])
    assert abs(datetime.now(timezone.utc) - since) < timedelta(minutes=1)


def test_why_we_failed_is_told() -> None:
    store = memory_store()
    store_job(store)
    error = {"operation": "fetch", "reason": "gone"}
    result = Result(JOB_ID, 1, "pod-1", Outcome.INPUT_FAILED, error=error).dump()
    put(store, LAYOUT.job(JOB_ID).attempt("pod-1").result, result)
    decided = {"attempt": "pod-1", "result_digest": document_digest(result)}
    commit(store, JOB_ID, Outcome.INPUT_FAILED, **decided)
    assert looked_up(store, ManyJobs({})).to_json()["error"] == error


@pytest.mark.parametrize(
    ("outcome", "state"), [(None, None), (Outcome.CANCELLED, "ended")], ids=["alive", "ended"]
)
def test_another_clusters_job_is_known_from_the_store_only(
    outcome: Outcome | None, state: str | None
) -> None:
    store, cluster = memory_store(), ManyJobs({})
    store_job(store, cluster={**IDENTITY, "machine": "other"}, outcome=outcome)
    status = looked_up(store, cluster)
    assert (status.row.state, status.row.outcome) == (state, outcome)
    assert [row.state for row in listed(store, cluster)] == [state]
    assert cluster.asked == []


def test_every_unknown_job_is_named() -> None:
    store = memory_store()
    store_job(store)
    with pytest.raises(SettingsError) as caught:
        look_up(head_of(store, ManyJobs({})), ["nobody", JOB_ID, "../x"])
    first, second = caught.value.reason.splitlines()
    assert "nobody" in first
    assert "../x" in second


def test_several_jobs_are_told_in_the_order_of_asking_after_one_look_at_the_cluster() -> None:
    store, cluster = memory_store(), ManyJobs({})
    ids = [store_job(store, at(timedelta(hours=age))) for age in (2, 1, 3)]
    found = look_up(head_of(store, cluster), ids)
    assert [status.row.job_id for status in found] == ids
    assert [sorted(names) for names in cluster.asked] == [sorted(f"{name}-g1" for name in ids)]


class AwayCluster(ManyJobs):
    """A cluster that does not answer."""

    def __init__(self, on_observe: Callable[[], object] = lambda: None) -> None:
        super().__init__({}, on_observe)
        self.error = ClusterUnavailableError("no answer")

    def observe(self, names: Collection[str]) -> dict[str, Observation]:
        super().observe(names)
        raise self.error

    def active(self, destination: str) -> Collection[str]:
        super().active(destination)
        raise self.error


def test_what_the_store_knows_is_told_when_the_cluster_does_not_answer() -> None:
    """What only the cluster could tell is unknown: a job may have been made and not be noted."""
    store, cluster = memory_store(), AwayCluster()
    made, noted_by_nobody, over, unmade, decided = (at(timedelta(hours=h)) for h in range(5))
    store_job(store, made)
    record_generation(store, made, number=2, attempts=3, spent={"evicted": 3})
    store_job(store, noted_by_nobody, made=False)
    store_job(store, over, outcome=Outcome.SUCCEEDED)
    store_job(store, unmade, made=False)
    store.delete(LAYOUT.job(unmade).generation(1))
    store_job(store, decided)
    end = Commit("head", Outcome.OUT_OF_MEMORY, None, None, 1)
    record_generation(store, decided, number=2, job_name="", end=end)

    found = look_up(head_of(store, cluster), [made, noted_by_nobody, over, unmade, decided])

    states = [(status.row.state, status.row.outcome) for status in found]
    unknown = (None, None)
    assert states[:2] == [unknown, unknown]
    assert states[2:] == [("ended", Outcome.SUCCEEDED), ("staged", None), ("ended", None)]
    told = [status.to_json() for status in found]
    assert [document["code"] for document in told] == [31, 31, 0, None, None]
    assert [(document["error"] or {}).get("reason") for document in told[:3]] == [
        *["no answer"] * 2,
        None,
    ]
    assert [told[0][key] for key in ("attempts", "generation", "spent")] == [3, 2, {"evicted": 3}]
    assert len(cluster.asked) == 1


def test_a_commit_that_comes_while_the_cluster_is_asked_in_vain_counts() -> None:
    store = memory_store()
    store_job(store)
    cluster = AwayCluster(on_observe=lambda: commit(store, JOB_ID, Outcome.CANCELLED))

    status = looked_up(store, cluster)

    assert (status.row.state, status.row.outcome, status.row.problem) == (
        *("ended", Outcome.CANCELLED),
        None,
    )


@pytest.mark.parametrize("others", [0, 1])
def test_a_cluster_that_does_not_answer_is_waited_for_once(others: int) -> None:
    """Also where a job waits for room, for which the cluster is asked in another way."""
    store, cluster = memory_store(), AwayCluster()
    waits = store_job(store, made=False, destination=Destination("spot", max_active=2))
    store.delete(LAYOUT.job(waits).generation(1))
    ids = [waits, *(store_job(store, at(timedelta(hours=1))) for _ in range(others))]

    status, *_ = look_up(head_of(store, cluster), ids)

    assert (status.row.state, status.room, status.to_json()["code"]) == ("staged", None, 31)
    assert len([name for name, _ in store.calls if name == "active"]) + len(cluster.asked) == 1


# --- all jobs ------------------------------------------------------------------------------------


def ages(rows: Sequence[JobRow]) -> list[float]:
    return [(NOW - row.created).total_seconds() / 3600 for row in rows if row.created is not None]


@pytest.fixture
def full() -> tuple[MemoryStore, ManyJobs]:
    """Five jobs, 1 to 5 hours old: queued, running, succeeded, failed, another cluster's."""
    store = memory_store()
    ids = [at(timedelta(hours=age)) for age in range(1, 6)]
    store_job(store, ids[0], name="align-1")
    store_job(store, ids[1], name="align-2")
    store_job(store, ids[2], name="sort", outcome=Outcome.SUCCEEDED)
    store_job(store, ids[3], name="align-4", outcome=Outcome.TOOL_FAILED)
    store_job(store, ids[4], name="align-5", cluster={"kind": "kubernetes"})
    store.calls.clear()
    shown = {f"{ids[0]}-g1": Observation(job()), f"{ids[1]}-g1": containers(tool=begun(1))}
    return store, ManyJobs(shown)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param({}, [1, 2, 3, 4, 5], id="all, the newest first"),
        pytest.param({"states": frozenset({"running"})}, [2], id="a state"),
        pytest.param({"states": frozenset({"queued", "ended"})}, [1, 3, 4], id="two states"),
        pytest.param({"name": "align-*"}, [1, 2, 4, 5], id="a pattern"),
        pytest.param({"name": "align"}, [], id="a pattern is for the whole name"),
        pytest.param({"after": NOW - timedelta(hours=2.5)}, [1, 2], id="newer than"),
        pytest.param({"before": NOW - timedelta(hours=2.5)}, [3, 4, 5], id="older than"),
        pytest.param(
            {
                "after": NOW - timedelta(hours=4.5),
                "before": NOW - timedelta(hours=1.5),
                "name": "align*",
                "states": frozenset({"ended"}),
            },
            [4],
            id="all of it",
        ),
    ],
)
def test_a_list_shows_what_was_asked_for(
    full: tuple[MemoryStore, ManyJobs], wanted: dict[str, Any], expected: list[float]
) -> None:
    store, cluster = full
    assert ages(listed(store, cluster, **wanted)) == expected
    assert {name for name, _ in store.calls} <= READS


def test_a_list_of_a_state_has_the_jobs_whose_state_nobody_can_tell(
    full: tuple[MemoryStore, ManyJobs],
) -> None:
    """Else a list that is empty would say that nothing runs."""
    store, _ = full
    rows = listed(store, AwayCluster(), states=frozenset({"running"}))
    assert [(row.name, row.state, row.to_json()["code"]) for row in rows] == [
        ("align-1", None, 31),
        ("align-2", None, 31),
    ]


def test_a_list_shows_each_job_as_it_is(full: tuple[MemoryStore, ManyJobs]) -> None:
    rows = listed(*full)
    assert [(row.name, row.state, row.outcome) for row in rows] == [
        ("align-1", "queued", None),
        ("align-2", "running", None),
        ("sort", "ended", Outcome.SUCCEEDED),
        ("align-4", "ended", Outcome.TOOL_FAILED),
        ("align-5", None, None),
    ]
    assert rows[3].to_json() == {
        "job_id": rows[3].job_id,
        "name": "align-4",
        "state": "ended",
        "outcome": "tool_failed",
        "code": 10,
        "created": "2026-04-30T20:00:00+00:00",
        "error": None,
    }


def test_a_list_asks_the_cluster_once_and_nothing_of_a_job_that_its_id_rules_out(
    full: tuple[MemoryStore, ManyJobs],
) -> None:
    store, cluster = full
    rows = listed(store, cluster, after=NOW - timedelta(hours=2.5))
    assert len(cluster.asked) == 1
    touched = {key.split("/")[2] for name, key in store.calls if name in ("get", "head", "list")}
    assert touched == {row.job_id for row in rows}


def test_a_list_does_not_look_at_what_a_job_brought_out() -> None:
    store = memory_store()
    store_job(store, outcome=Outcome.SUCCEEDED)
    for number in range(20):
        put(store, LAYOUT.job(JOB_ID).attempt("pod").out(f"o{number}"), b"")
    assert len(listed(store)) == 1
    assert len(store.calls) == 3, store.calls


def test_what_is_no_job_is_not_in_the_list() -> None:
    store = memory_store()
    put(store, f"{LAYOUT.jobs_prefix}not a job/spec.json", b"{}")
    put(store, LAYOUT.job(at(timedelta(hours=1))).inputs, b"{}")
    put(store, f"{LAYOUT.jobs_prefix}file", b"")
    assert listed(store) == []


def test_a_job_that_cannot_be_read_does_not_hide_the_others() -> None:
    store = memory_store()
    store_job(store, at(timedelta(hours=2)))
    damaged = store_job(store, at(timedelta(hours=1)))
    store.damage(LAYOUT.job(damaged).spec, b'{"protocol": 99}')

    bad, good = listed(store)

    assert (bad.job_id, bad.name, bad.state) == (damaged, None, None)
    assert bad.problem is not None
    assert bad.to_json()["code"] == 20
    assert "protocol" in bad.to_json()["error"]["reason"]
    assert good.problem is None
    assert [row.problem for row in listed(store, name="*")] == [None]
    assert [row.problem for row in listed(store, states=frozenset({"ended"}))] == [None]
    with pytest.raises(StagingError, match="protocol"):
        look_up(head_of(store, ManyJobs({})), [damaged])


def test_a_job_whose_id_has_no_time_is_as_old_as_its_spec_says() -> None:
    store = memory_store()
    store_job(store, "galaxy-17", created="2026-04-30T23:00:00+00:00")
    store_job(store, "galaxy-18", created="some day")
    store_job(store, at(timedelta(hours=2)))
    rows = listed(store)
    assert [row.job_id for row in rows][::2] == ["galaxy-17", "galaxy-18"]
    assert ages(listed(store, after=NOW - timedelta(hours=1.5))) == [1]
    assert ages(listed(store, before=NOW - timedelta(hours=1.5))) == [2]


def test_a_store_that_fails_for_a_moment_is_asked_again() -> None:
    store = memory_store(fail={("list_folders", 1): StoreUnavailableError("busy")})
    store_job(store, outcome=Outcome.SUCCEEDED)
    assert len(listed(store)) == 1


def test_an_empty_store_has_no_jobs() -> None:
    cluster = ManyJobs({})
    assert listed(memory_store(), cluster) == []
    assert cluster.asked == []


@pytest.mark.parametrize(
    ("job_id", "expected"),
    [
        (new_job_id(1_700_000_000_123), datetime(2023, 11, 14, 22, 13, 20, 123000, timezone.utc)),
        ("galaxy-17", None),
        ("6ba7b810-9dad-11d1-80b4-00c04fd430c8", None),
        ("ffffffff-ffff-7fff-bfff-ffffffffffff", None),
    ],
    ids=["UUIDv7", "no UUID", "another version", "after the end of time"],
)
def test_a_job_id_carries_its_time(job_id: str, expected: datetime | None) -> None:
    assert born(job_id) == expected
