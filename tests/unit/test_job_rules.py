"""The Job controller's rules: one test for each row of the tables in its docstrings."""

from __future__ import annotations

from typing import Any

import pytest

from s3runner.cluster.job_rules import (
    CREATE_POD,
    END_PODS,
    NOTHING,
    epoch_s,
    match_failure_policy,
    next_step,
    pod_of,
    timestamp,
)

NOW = 1_700_000_000.0
FETCH_RULE = {
    "action": "FailJob",
    "onExitCodes": {"containerName": "fetch", "operator": "In", "values": [20, 21]},
}
STAGER_RULE = {
    "action": "FailJob",
    "onExitCodes": {"containerName": "stager", "operator": "In", "values": [10, 26]},
}
COUNT_DISRUPTED = {"action": "Count", "onPodConditions": [{"type": "DisruptionTarget"}]}
IGNORE_DISRUPTED = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
TOOL_RULE = {
    "action": "FailJob",
    "onExitCodes": {"containerName": "tool", "operator": "In", "values": [128, 137]},
}


def make_job(*rules: dict[str, Any], **spec: Any) -> dict[str, Any]:
    if rules:
        spec["podFailurePolicy"] = {"rules": list(rules)}
    template = {"metadata": {"labels": {"app": "s3runner"}}, "spec": {"containers": []}}
    return {
        "metadata": {"name": "job-g1", "uid": "the-job"},
        "spec": {"backoffLimit": 3, "template": template, **spec},
    }


def make_pod(
    phase: str,
    *,
    codes: dict[str, int] | None = None,
    disrupted: bool = False,
    deleted: bool = False,
    ended_s: float = NOW,
) -> dict[str, Any]:
    def status(name: str, code: int) -> dict[str, Any]:
        return {
            "name": name,
            "state": {"terminated": {"exitCode": code, "finishedAt": timestamp(ended_s)}},
        }

    codes = codes or {}
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    pod: dict[str, Any] = {
        "metadata": {"name": "pod", "uid": "u", "creationTimestamp": timestamp(ended_s)},
        "status": {
            "phase": phase,
            "conditions": [condition] if disrupted else [],
            "initContainerStatuses": [status(n, c) for n, c in codes.items() if n == "fetch"],
            "containerStatuses": [status(n, c) for n, c in codes.items() if n != "fetch"],
        },
    }
    if deleted:
        pod["metadata"]["deletionTimestamp"] = timestamp(ended_s)
    return pod


def conditions(status: dict[str, Any]) -> dict[str, str]:
    assert all(condition["status"] == "True" for condition in status["conditions"])
    return {condition["type"]: condition["reason"] for condition in status["conditions"]}


def test_a_finished_job_stays_as_it_is() -> None:
    job = make_job()
    job["status"] = {"conditions": [{"type": "Failed", "status": "True"}], "failed": 7}
    assert next_step(job, [make_pod("Succeeded")], NOW) == (job["status"], NOTHING, None)


def test_a_new_job_starts_now_and_creates_its_pod() -> None:
    assert next_step(make_job(), [], NOW) == ({"startTime": timestamp(NOW)}, CREATE_POD, None)


def test_a_started_job_keeps_its_start_time() -> None:
    job = make_job()
    job["status"] = {"startTime": timestamp(NOW - 60)}
    assert next_step(job, [], NOW).status["startTime"] == timestamp(NOW - 60)


@pytest.mark.parametrize("phase", ["Pending", "Running"])
def test_a_job_with_an_active_pod_waits_until_its_deadline(phase: str) -> None:
    step = next_step(make_job(activeDeadlineSeconds=100), [make_pod(phase)], NOW)
    assert step.status["active"] == 1
    assert (step.action, step.again_at_s) == (NOTHING, NOW + 100)


@pytest.mark.parametrize("disrupted", [False, True])
def test_a_succeeded_pod_completes_the_job_even_with_a_disruption(*, disrupted: bool) -> None:
    pods = [make_pod("Succeeded", disrupted=disrupted)]
    step = next_step(make_job(COUNT_DISRUPTED, activeDeadlineSeconds=0), pods, NOW)
    assert conditions(step.status)["Complete"] == "CompletionsReached"
    assert step.status["succeeded"] == 1
    assert step.status["completionTime"] == timestamp(NOW)
    assert "failed" not in step.status
    assert step.action == NOTHING


@pytest.mark.parametrize(
    ("rule", "codes"), [(FETCH_RULE, {"fetch": 21}), (TOOL_RULE, {"tool": 137, "stager": 0})]
)
def test_a_rule_fail_job_fails_the_job(rule: dict[str, Any], codes: dict[str, int]) -> None:
    step = next_step(make_job(rule), [make_pod("Failed", codes=codes)], NOW)
    assert conditions(step.status)["Failed"] == "PodFailurePolicy"
    assert step.action == NOTHING
    failed = next(c for c in step.status["conditions"] if c["type"] == "Failed")
    name, code = next(iter(codes.items()))
    assert failed["message"] == (
        f"Container {name} for pod default/pod failed with exit code {code}"
        " matching FailJob rule at index 0"
    )


def test_an_ignored_failure_is_not_counted_but_backs_off() -> None:
    pods = [make_pod("Failed", disrupted=True)] * 2
    step = next_step(make_job(IGNORE_DISRUPTED, backoffLimit=0), pods, NOW)
    assert "failed" not in step.status
    assert (step.action, step.again_at_s) == (NOTHING, NOW + 20)


def test_a_counted_failure_is_followed_by_a_pod_after_the_back_off() -> None:
    job, pods = make_job(COUNT_DISRUPTED), [make_pod("Failed", disrupted=True)]
    early = next_step(job, pods, NOW + 9)
    assert (early.status["failed"], early.action, early.again_at_s) == (1, NOTHING, NOW + 10)
    assert next_step(job, pods, NOW + 10).action == CREATE_POD


@pytest.mark.parametrize(("failures", "seconds"), [(1, 10), (2, 20), (3, 40), (6, 320), (9, 600)])
def test_the_back_off_doubles_up_to_ten_minutes(failures: int, seconds: int) -> None:
    pods = [make_pod("Failed", codes={"stager": 75})] * failures
    assert next_step(make_job(backoffLimit=99), pods, NOW).again_at_s == NOW + seconds


def test_the_back_off_ends_at_the_deadline_at_the_latest() -> None:
    job, pods = make_job(activeDeadlineSeconds=3), [make_pod("Failed")]
    assert next_step(job, pods, NOW).again_at_s == NOW + 3


def test_more_failures_than_the_limit_fail_the_job() -> None:
    pods = [make_pod("Failed", codes={"stager": 75}, ended_s=NOW - 9999)] * 3
    assert next_step(make_job(), pods, NOW).action == CREATE_POD
    step = next_step(make_job(), [*pods, pods[0]], NOW)
    assert conditions(step.status)["Failed"] == "BackoffLimitExceeded"
    assert (step.status["failed"], step.action) == (4, NOTHING)


def test_a_fatal_rule_goes_before_the_back_off_limit() -> None:
    pods = [make_pod("Failed", codes={"fetch": 21})]
    step = next_step(make_job(FETCH_RULE, backoffLimit=0), pods, NOW)
    assert conditions(step.status)["Failed"] == "PodFailurePolicy"


def test_a_passed_deadline_fails_the_job_also_between_its_pods() -> None:
    job = make_job(activeDeadlineSeconds=60)
    job["status"] = {"startTime": timestamp(NOW - 60)}
    step = next_step(job, [make_pod("Failed")], NOW)
    assert conditions(step.status)["Failed"] == "DeadlineExceeded"


def test_an_end_is_announced_while_a_pod_runs_and_said_when_it_has_ended() -> None:
    job = make_job(activeDeadlineSeconds=60)
    job["status"] = {"startTime": timestamp(NOW - 60)}
    step = next_step(job, [make_pod("Running")], NOW)
    assert conditions(step.status) == {"FailureTarget": "DeadlineExceeded"}
    assert step.action == END_PODS
    job["status"] = step.status
    step = next_step(job, [make_pod("Failed", deleted=True)], NOW + 5)
    assert conditions(step.status) == {
        "FailureTarget": "DeadlineExceeded",
        "Failed": "DeadlineExceeded",
    }
    assert (step.action, step.status["failed"]) == (NOTHING, 1)


def test_under_policy_failed_a_pod_that_is_being_deleted_is_waited_for() -> None:
    pods = [make_pod("Running", deleted=True)]
    step = next_step(make_job(COUNT_DISRUPTED), pods, NOW + 999)
    assert (step.action, step.status["terminating"]) == (NOTHING, 1)
    assert "failed" not in step.status


def test_under_the_other_policy_a_pod_that_is_being_deleted_has_failed() -> None:
    step = next_step(make_job(), [make_pod("Running", deleted=True)], NOW + 999)
    assert (step.action, step.status["failed"], step.status["terminating"]) == (CREATE_POD, 1, 1)


def test_a_job_that_is_being_deleted_ends_its_pods_and_makes_none() -> None:
    job = make_job()
    job["metadata"]["deletionTimestamp"] = timestamp(NOW)
    assert next_step(job, [make_pod("Running")], NOW).action == END_PODS
    assert next_step(job, [make_pod("Failed")], NOW + 999).action == NOTHING


@pytest.mark.parametrize(
    ("codes", "disrupted", "action"),
    [
        pytest.param({"fetch": 21}, False, "FailJob", id="an init container's code"),
        pytest.param({"tool": 21}, False, "Count", id="another container's code"),
        pytest.param({"stager": 26}, True, "FailJob", id="a final code before a disruption"),
        pytest.param({"tool": 137}, True, "Count", id="a disruption before the kill"),
        pytest.param({"tool": 137, "stager": 75}, False, "FailJob", id="killed without disruption"),
        pytest.param({"stager": 75}, False, "Count", id="no rule matches"),
        pytest.param({"tool": 0, "stager": 137}, False, "Count", id="over a limit, tool in time"),
        pytest.param({"tool": 137, "stager": 137}, False, "FailJob", id="over a limit, killed"),
        pytest.param({}, False, "Count", id="no status at all"),
    ],
)
def test_the_first_rule_that_matches_decides(
    codes: dict[str, int], action: str, *, disrupted: bool
) -> None:
    job = make_job(FETCH_RULE, STAGER_RULE, COUNT_DISRUPTED, TOOL_RULE)
    assert match_failure_policy(
        job, make_pod("Failed", codes=codes, disrupted=disrupted)
    ).action == (action)


@pytest.mark.parametrize(
    ("operator", "code", "action"),
    [("In", 0, "Count"), ("In", 7, "Ignore"), ("NotIn", 0, "Count"), ("NotIn", 9, "Ignore")],
)
def test_exit_codes_never_match_0(operator: str, code: int, action: str) -> None:
    rule = {"action": "Ignore", "onExitCodes": {"operator": operator, "values": [0, 7]}}
    assert match_failure_policy(make_job(rule), make_pod("Failed", codes={"a": code})).action == (
        action
    )


@pytest.mark.parametrize(("status", "action"), [("True", "Ignore"), ("False", "Count")])
def test_a_condition_matches_by_type_and_status(status: str, action: str) -> None:
    rule = {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": status}],
    }
    assert match_failure_policy(make_job(rule), make_pod("Failed", disrupted=True)).action == action


def test_a_pod_belongs_to_its_job() -> None:
    pod = pod_of(make_job(), "uid-1", "abcde", NOW)
    assert pod["metadata"]["name"] == "job-g1-abcde"
    assert pod["metadata"]["labels"]["app"] == "s3runner"
    assert pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "job-g1"
    assert pod["metadata"]["ownerReferences"][0]["uid"] == "the-job"
    assert pod["status"] == {"phase": "Pending"}


def test_times_survive_being_written() -> None:
    assert timestamp(NOW) == "2023-11-14T22:13:20Z"
    assert epoch_s(timestamp(NOW)) == NOW


def test_a_lost_pods_back_off_runs_from_its_loss() -> None:
    pod = make_pod("Failed", codes={"fetch": 0}, ended_s=NOW - 3600)
    lost = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": timestamp(NOW)}
    pod["status"]["conditions"] = [lost]
    assert next_step(make_job(), [pod], NOW).again_at_s == NOW + 10


SUSPENDED = {"type": "Suspended", "status": "True", "reason": "JobSuspended"}


def test_a_suspended_job_starts_nothing_and_has_no_deadline() -> None:
    step = next_step(make_job(suspend=True, activeDeadlineSeconds=1), [], NOW)
    assert conditions(step.status) == {"Suspended": "JobSuspended"}
    assert "startTime" not in step.status
    assert (step.action, step.again_at_s) == (NOTHING, None)


@pytest.mark.parametrize(("deleted", "action"), [(False, END_PODS), (True, NOTHING)])
def test_a_job_that_is_suspended_ends_its_pods_once(*, deleted: bool, action: str) -> None:
    job = make_job(suspend=True, podReplacementPolicy="Failed")
    assert next_step(job, [make_pod("Running", deleted=deleted)], NOW).action == action


def test_a_failing_job_counts_a_pod_that_still_ends() -> None:
    """As a real one does: it is failed and terminating at once, and counted only once."""
    job = make_job(COUNT_DISRUPTED, activeDeadlineSeconds=60)
    job["status"] = {"startTime": timestamp(NOW - 60)}
    job["status"] = next_step(job, [make_pod("Running")], NOW).status
    assert "failed" not in job["status"]

    step = next_step(job, [make_pod("Running", deleted=True)], NOW + 1)
    assert (step.status["failed"], step.status["terminating"]) == (1, 1)
    assert list(conditions(step.status)) == ["FailureTarget"]
    job["status"] = step.status
    assert next_step(job, [make_pod("Failed", deleted=True)], NOW + 5).status["failed"] == 1


@pytest.mark.parametrize(
    ("rule", "spec", "failed"),
    [(IGNORE_DISRUPTED, {}, 0), (None, {"podReplacementPolicy": "TerminatingOrFailed"}, 1)],
    ids=["ignored", "counted before"],
)
def test_a_pod_that_still_ends_is_counted_by_the_rules(
    rule: dict[str, Any] | None, spec: dict[str, Any], failed: int
) -> None:
    job = make_job(*([rule] if rule else []), activeDeadlineSeconds=60, **spec)
    job["status"] = {"startTime": timestamp(NOW - 60)}
    step = next_step(job, [make_pod("Running", disrupted=True, deleted=True)], NOW)
    assert step.status.get("failed", 0) == failed


def test_a_resumed_job_starts_anew() -> None:
    job = make_job(activeDeadlineSeconds=100)
    job["status"] = {"startTime": timestamp(NOW - 9000), "conditions": [SUSPENDED]}
    step = next_step(job, [], NOW)

    (condition,) = step.status["conditions"]
    assert (condition["status"], condition["reason"]) == ("False", "JobResumed")
    assert step.status["startTime"] == timestamp(NOW)
    assert (step.action, step.again_at_s) == (CREATE_POD, NOW + 100)
    job["status"] = step.status
    assert next_step(job, [], NOW + 5).status == step.status
