from __future__ import annotations

from typing import Any

import pytest

from s3runner.cluster.outcome import is_over, last_pod_end, state_of
from s3runner.cluster.protocol import Observation
from s3runner.model import Outcome
from s3runner.runner.decide import StoredResult, decide_end
from s3runner.staging.records import Result

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
    pytest.param(Observation(None), [], (Outcome.DELETED, None), id="deleted by somebody"),
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
