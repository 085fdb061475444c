from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import samples

from s3runner.cluster.outcome import is_over, last_pod_end, patience_of, state_of
from s3runner.cluster.pod_end import Patience
from s3runner.cluster.protocol import Observation
from s3runner.model import (
    MAX_GENERATIONS,
    Destination,
    Outcome,
    Quantity,
    Resources,
    Retry,
    code_of,
)
from s3runner.pod_model import KubernetesPlace, NodeChoice, Placement, PodCredentials
from s3runner.runner.decide import (
    StoredResult,
    decide_end,
    first_generation,
    most_attempts,
    next_generation,
)
from s3runner.staging.records import Generation, Result, Spec

FAILED = {
    "status": {
        "conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]
    }
}
OOM = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}


def pod(
    uid: str = "new",
    created: str = "2026-01-01T00:00:02Z",
    conditions: tuple[dict[str, str], ...] = (),
    **containers: dict[str, Any],
) -> dict[str, Any]:
    statuses = [
        {"name": name, "state": state} for name, state in containers.items() if name != "fetch"
    ]
    init = [{"name": "fetch", "state": containers["fetch"]}] if "fetch" in containers else []
    return {
        "metadata": {"uid": uid, "creationTimestamp": created},
        "status": {
            "conditions": list(conditions),
            "initContainerStatuses": init,
            "containerStatuses": statuses,
        },
    }


def exited(code: int) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}


EVICTED = ({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"},)


def stored(outcome: Outcome, attempt: str = "new") -> StoredResult:
    return StoredResult(Result("job", 1, attempt, outcome), f"sha256:{attempt}")


def killed_by_kubelet(message: str, exit_code: int = 137) -> dict[str, Any]:
    made = pod(tool=exited(exit_code))
    made["status"].update(phase="Failed", reason="Evicted", message=message)
    return made


OVER_POD_LIMIT = "Pod ephemeral local storage usage exceeds the total limit of containers 20Mi. "
NODE_IS_LOW = (
    "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 9Mi. "
    "Container rate-limiter was using 2Gi, which exceeds its request of 0. "
)

REFUSED = {"reason": "FailedCreate", "message": "pods are forbidden: exceeded quota: compute"}

OLD = pod("old", "2026-01-01T00:00:01Z", fetch=exited(30))

ROWS = [
    pytest.param(
        Observation(FAILED, (pod(tool=OOM, stager=exited(75)),)),
        [stored(Outcome.TOOL_VANISHED)],
        (Outcome.OUT_OF_MEMORY, "new"),
        id="the kernel's word on memory beats what the stager could see",
    ),
    pytest.param(
        Observation(FAILED, (OLD, pod(stager=exited(24)))),
        [stored(Outcome.STORAGE_UNAVAILABLE, "old"), stored(Outcome.NO_SPACE)],
        (Outcome.NO_SPACE, "new"),
        id="the newest attempt's result",
    ),
    pytest.param(
        Observation(FAILED, (pod(stager=exited(75)),)),
        [stored(Outcome.INTERRUPTED)],
        (Outcome.BUDGETS_SPENT, "new"),
        id="interrupted as often as allowed",
    ),
    pytest.param(
        Observation(None),
        [stored(Outcome.STORAGE_UNAVAILABLE, "old"), stored(Outcome.INTEGRITY_FAILED)],
        (Outcome.INTEGRITY_FAILED, "new"),
        id="the Job is gone, the last result is not",
    ),
    pytest.param(
        Observation(FAILED, (pod(conditions=EVICTED),)),
        [],
        (Outcome.BUDGETS_SPENT, None),
        id="evicted without a word",
    ),
    pytest.param(
        Observation(FAILED, (pod(fetch=exited(23)),)),
        [],
        (Outcome.ACCESS_DENIED, None),
        id="fetch could not even write its result",
    ),
    pytest.param(
        Observation(FAILED, (OLD, pod(tool=exited(0), stager=exited(70)))),
        [stored(Outcome.STORAGE_UNAVAILABLE, "old")],
        (Outcome.INTERNAL_ERROR, None),
        id="an older attempt's result does not speak for the newest",
    ),
    pytest.param(
        Observation({"status": {}}, (killed_by_kubelet(OVER_POD_LIMIT, 0),)),
        [stored(Outcome.INTERRUPTED)],
        (Outcome.NO_SPACE, "new"),
        id="over its disk limit, and the stager saw only that it was to end",
    ),
    pytest.param(
        Observation(FAILED, (killed_by_kubelet(OVER_POD_LIMIT),)),
        [],
        (Outcome.NO_SPACE, None),
        id="over its disk limit without a word",
    ),
    pytest.param(
        Observation(FAILED, (killed_by_kubelet(NODE_IS_LOW),)),
        [],
        (Outcome.BUDGETS_SPENT, None),
        id="evicted because others filled the node",
    ),
    pytest.param(Observation(None), [], (Outcome.DELETED, None), id="deleted by somebody"),
    pytest.param(
        Observation(None),
        [stored(Outcome.INTERRUPTED)],
        (Outcome.DELETED, "new"),
        id="deleted by somebody, and its pod was told to end",
    ),
    pytest.param(
        Observation(None, (pod(tool={"running": {}}),)),
        [],
        (Outcome.DELETED, None),
        id="deleted by somebody, and its pod hangs on a dead node",
    ),
    pytest.param(
        Observation(FAILED, (pod(conditions=EVICTED, tool=exited(0)),)),
        [stored(Outcome.TOOL_VANISHED)],
        (Outcome.BUDGETS_SPENT, "new"),
        id="an eviction is why the tool was gone",
    ),
    pytest.param(
        Observation({"status": {}}, events=(REFUSED,)),
        [],
        (Outcome.CLUSTER_REFUSED, None),
        id="the API refuses its pods",
    ),
    pytest.param(Observation(FAILED), [], (Outcome.BUDGETS_SPENT, None), id="never scheduled"),
]


@pytest.mark.parametrize(("observation", "results", "expected"), ROWS)
def test_the_head_decides_what_no_pod_did(
    observation: Observation, results: list[StoredResult], expected: tuple[Outcome, str | None]
) -> None:
    commit = decide_end(observation, results, 1)

    assert (commit.outcome, commit.attempt) == expected
    assert commit.by == "head"
    assert (commit.result_digest is None) == (commit.attempt is None)
    assert commit.observation is not None


def test_a_job_between_two_pods_is_not_over() -> None:
    job = {"status": {"active": 0, "failed": 1, "conditions": []}}
    assert not is_over(Observation(job, (OLD,)))


def test_a_job_without_a_status_is_not_over() -> None:
    assert not is_over(Observation({"metadata": {}}))


@pytest.mark.parametrize(
    ("containers", "state"),
    [
        ({}, "pending"),
        ({"fetch": {"running": {}}}, "fetching"),
        ({"fetch": exited(0), "tool": {"waiting": {}}}, "fetching"),
        ({"fetch": exited(0), "tool": {"running": {}}}, "running"),
        ({"fetch": exited(0), "tool": exited(0), "stager": {"running": {}}}, "staging_out"),
    ],
    ids=str,
)
def test_the_state_follows_the_containers(containers: dict[str, Any], state: str) -> None:
    assert state_of(Observation({"status": {}}, (pod(**containers),))) == state


def test_a_job_without_a_pod_is_queued() -> None:
    assert state_of(Observation({"status": {}})) == "queued"
    assert last_pod_end(Observation({"status": {}})) is None


@pytest.mark.parametrize(
    ("message", "outcome"),
    [
        (OVER_POD_LIMIT, Outcome.NO_SPACE),
        ('Usage of EmptyDir volume "work" exceeds the limit "1Gi". ', Outcome.NO_SPACE),
        (
            'Container tool exceeded its local ephemeral storage limit "1Gi". ',
            Outcome.NO_SPACE,
        ),
        (NODE_IS_LOW, Outcome.EVICTED),
        ("Pod was rejected: The node had condition: [DiskPressure]. ", Outcome.EVICTED),
        (None, Outcome.EVICTED),
    ],
)
def test_an_eviction_over_a_limit_is_told_from_any_other(
    message: str | None, outcome: Outcome
) -> None:
    """Only the first kind would meet the Job's next pod too: the head goes on at once."""
    seen = Observation({"status": {}}, (killed_by_kubelet(message or ""),))
    if message is None:
        del seen.pods[0]["status"]["message"]

    end = last_pod_end(seen)

    assert end is not None
    assert end.outcome is outcome
    assert end.detail == f"pod evicted: {message or ''}".strip()
    assert (patience_of(seen) is Patience.NONE) == (outcome is Outcome.NO_SPACE)


def test_a_pod_that_is_still_ending_has_not_ended_over_its_limit() -> None:
    seen = killed_by_kubelet(OVER_POD_LIMIT)
    seen["status"]["phase"] = "Running"
    assert patience_of(Observation({"status": {}}, (seen,))) is not Patience.NONE


def test_only_the_newest_pod_tells_what_would_repeat() -> None:
    before = killed_by_kubelet(OVER_POD_LIMIT)
    before["metadata"]["creationTimestamp"] = "2026-01-01T00:00:01Z"
    assert patience_of(Observation({"status": {}}, (before, pod()))) is Patience.JOB
    assert patience_of(Observation({"status": {}})) is Patience.JOB


def test_no_space_gets_more_disk_up_to_the_cap_and_spends_nothing_else() -> None:
    seen = Observation({"status": {}}, (killed_by_kubelet(OVER_POD_LIMIT),))
    spec = samples.spec(
        resources=Resources(disk=Quantity("20Mi", "20Mi")),
        retry=Retry(disk_factor=4, disk_cap="100Mi"),
    )
    found = [first_generation(spec, "sha256:0", "job-g1")]
    while found[-1].end is None:
        found.append(next_generation(seen, [], found[-1], spec))

    limits = [record.resources.disk.limit for record in found]
    assert limits[:3] == ["20Mi", str(80 * 1024**2), str(100 * 1024**2)]
    assert [dict(record.spent) for record in found] == [{}, *({"no_space": n} for n in (1, 2, 3))]
    assert found[-1].end is not None
    assert found[-1].end.outcome is Outcome.NO_SPACE


@pytest.mark.parametrize(
    ("cause", "more"),
    [
        (Outcome.STORAGE_UNAVAILABLE, 1),
        (Outcome.INTEGRITY_FAILED, 1),
        (Outcome.TOOL_VANISHED, 1),
        (Outcome.INTERNAL_ERROR, 1),
        (Outcome.INPUT_FAILED, 0),
        (Outcome.BAD_SPEC, 0),
    ],
)
def test_what_a_new_pod_may_not_meet_again_gets_one_more(cause: Outcome, more: int) -> None:
    seen = Observation(FAILED, (pod(stager=exited(code_of(cause) or 0)),))
    found = [first_generation(samples.spec(), "sha256:0", "job-g1")]
    while found[-1].end is None:
        found.append(next_generation(seen, [stored(cause)], found[-1], samples.spec()))

    spent = [{cause.value: times} for times in range(1, more + 2)]
    assert [dict(record.spent) for record in found] == [{}, *spent]
    assert found[-1].end is not None
    assert found[-1].end.outcome is cause


def test_a_pod_whose_keys_were_refused_for_everything_is_followed_by_one_more() -> None:
    """Keys may end while a tool runs; the next pod gets the head's, once."""
    seen = Observation(FAILED, (pod(stager=exited(23)),))
    found = [first_generation(samples.spec(), "sha256:0", "job-g1")]
    while found[-1].end is None:
        found.append(next_generation(seen, [], found[-1], samples.spec()))

    assert [dict(record.spent) for record in found] == [{}, *({"access_denied": n} for n in (1, 2))]


def test_a_pod_that_could_say_what_it_was_denied_is_the_last() -> None:
    seen = Observation(FAILED, (pod(fetch=exited(23)),))
    first = first_generation(samples.spec(), "sha256:0", "job-g1")

    second = next_generation(seen, [stored(Outcome.ACCESS_DENIED)], first, samples.spec())

    assert second.end is not None
    assert second.end.outcome is Outcome.ACCESS_DENIED


def spot(*then: int | None, max_evictions: int = 3, **changes: object) -> Spec:
    """Return a job whose destination goes on elsewhere, with these numbers of evictions."""
    places = tuple(Placement(NodeChoice(), number) for number in then)
    where = KubernetesPlace(PodCredentials(service_account="s3"), then=places)
    destination = Destination(max_evictions=max_evictions, kubernetes=where)
    return samples.spec(destination=destination, **changes)


def evicted(times: int, reason: str = "BackoffLimitExceeded") -> Observation:
    """Return a Job whose pods were all evicted; without a reason it goes on."""
    pods = tuple(
        pod(str(number), f"2026-01-01T00:00:0{number}Z", EVICTED) for number in range(times)
    )
    conditions = [{"type": "Failed", "status": "True", "reason": reason}] if reason else []
    return Observation({"status": {"conditions": conditions}}, pods)


def followed(seen: Observation, spec: Spec) -> list[Generation]:
    """Return all records of a job whose Jobs all end alike."""
    found = [first_generation(spec, "sha256:0", "job-g1")]
    while found[-1].end is None:
        found.append(next_generation(seen, [], found[-1], spec))
    return found


def test_spent_evictions_lead_to_the_next_nodes_and_then_to_the_end() -> None:
    found = followed(evicted(4), spot(1, None, retry=Retry(tool=2)))

    assert [record.placement for record in found] == [0, 1, 2, 2]
    assert [dict(record.spent) for record in found] == [{}, *({"evicted": n} for n in (4, 8, 12))]
    assert [record.previous for record in found[1:]] == ["evicted"] * 3
    assert found[-1].end is not None
    assert found[-1].end.outcome is Outcome.BUDGETS_SPENT
    assert found[-1].end.observation is not None
    assert "EvictionByEvictionAPI" in found[-1].end.observation["detail"]


def test_an_eviction_costs_no_try_of_the_tool() -> None:
    spec = spot(None, retry=Retry(tool=1))
    second = next_generation(evicted(4), [], first_generation(spec, "sha256:0", "job-g1"), spec)

    assert Outcome.TOOL_FAILED not in second.final
    assert second.resources == spec.resources
    failed = Observation(FAILED, (pod(stager=exited(10)),))
    third = next_generation(failed, [stored(Outcome.TOOL_FAILED)], second, spec)
    assert (third.end, third.placement) == (None, 1)
    assert third.spent == {"evicted": 4, "tool_failed": 1}


def test_pods_that_the_job_does_not_count_are_counted_by_the_head() -> None:
    """A pod on a dead node: its Job would wait for it for ever."""
    stuck = pod(conditions=EVICTED, tool={"running": {}})
    stuck["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:09Z"
    found = followed(Observation({"status": {}}, (stuck,)), spot(0, max_evictions=2))

    assert [record.placement for record in found] == [0, 0, 0, 1, 1]
    assert found[-1].end is not None
    assert found[-1].end.outcome is Outcome.BUDGETS_SPENT


def test_evictions_of_a_jobs_earlier_pods_are_counted_whatever_ended_it() -> None:
    before = evicted(2).pods
    seen = Observation(FAILED, (*before, pod("new", "2026-01-01T00:00:08Z", stager=exited(11))))
    spec = samples.spec()

    second = next_generation(seen, [], first_generation(spec, "sha256:0", "job-g1"), spec)

    assert second.spent == {"evicted": 2, "out_of_memory": 1}
    assert second.attempts == 3


def test_pods_that_nobody_has_seen_are_counted_by_the_jobs_own_count() -> None:
    job = {"status": {**FAILED["status"], "failed": 4}}
    spec = spot(None)

    second = next_generation(
        Observation(job), [], first_generation(spec, "sha256:0", "job-g1"), spec
    )

    assert (second.end, second.placement, second.attempts) == (None, 1, 4)


def test_no_nodes_in_time_lead_to_other_nodes_once_each() -> None:
    told = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}
    seen = Observation({"status": {}}, (pod(conditions=(told,)),))

    found = followed(seen, spot(None))

    assert [record.placement for record in found] == [0, 1, 1]
    assert found[-1].end is not None
    assert found[-1].end.outcome is Outcome.UNSCHEDULABLE


def test_a_deadline_is_the_end_although_the_pod_was_disrupted() -> None:
    found = followed(evicted(1, "DeadlineExceeded"), spot(None))

    assert len(found) == 2
    assert found[-1].end is not None
    assert found[-1].end.outcome is Outcome.BUDGETS_SPENT


def test_no_budget_is_larger_than_the_number_of_generations() -> None:
    found = followed(evicted(1), spot(*[0] * 20, max_evictions=0))
    assert len(found) == MAX_GENERATIONS + 1


def test_a_complete_job_without_a_commit_is_tried_once_more() -> None:
    job = {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    seen = Observation(job, (pod(tool=exited(0), stager=exited(0)),))

    found = followed(seen, samples.spec())

    assert [dict(record.spent) for record in found] == [
        {},
        *({"internal_error": n} for n in (1, 2)),
    ]
    assert found[-1].end is not None
    assert found[-1].end.observation is not None
    assert "no committed result" in found[-1].end.observation["detail"]


@pytest.mark.parametrize(("placement", "most"), [(0, 9), (1, 7), (2, 9)])
def test_a_generation_tells_how_many_pods_there_may_be(placement: int, most: int) -> None:
    spec = spot(1, None)
    first = first_generation(spec, "sha256:0", "job-g1")
    assert most_attempts(replace(first, attempts=5, placement=placement), spec) == most
