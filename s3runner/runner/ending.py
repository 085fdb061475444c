"""How a job ended, told in full from what the store holds, whichever verb asks.

It stands apart from following because jobs are asked for long after their Jobs are gone.
"""

from __future__ import annotations

from s3runner.errors import ObjectNotFoundError, S3RunnerError
from s3runner.model import Outcome, Phase, code_of
from s3runner.runner.creation import was_created
from s3runner.runner.head import Head
from s3runner.runner.report import PHASES, STAGE_IN, JobEnd
from s3runner.staging.records import Commit, Generation, Result
from s3runner.store.retrying import read

_HINTS = {
    Outcome.NO_SPACE: "ask for more with resources.disk; "
    "retry.disk_cap is the most that a retry asks for",
    Outcome.IMAGE_PULL_FAILED: "check the image's name and tag, and image_pull_secrets",
    Outcome.CONFIG_ERROR: "change what it names, in the job, the destination or the namespace",
    Outcome.UNSCHEDULABLE: "compare resources, node_selector and tolerations with the nodes; "
    "pending_timeout is how long a pod may wait for one",
    Outcome.CLUSTER_REFUSED: "ask the cluster's administrator, or use another namespace",
    Outcome.BUDGETS_SPENT: "spot.max_evictions and spot.then say how often and where it goes on",
    Outcome.DELETED: "submit the job again",
}
"""What to do about the ends that only a head can tell."""


def describe(
    head: Head, job_id: str, commit: Commit, result: Result | None, newest: Generation | None
) -> JobEnd:
    """Return a job's end in full: its commit, that one's result, and what it cost and took.

    `newest` is the record with the highest number.
    """
    phases = dict.fromkeys(PHASES) | {STAGE_IN: _stage_in_cost(head, job_id)}
    if result is not None:
        phases |= {name: cost for name, cost in result.phases.items() if name in phases}
    return JobEnd(
        outcome=commit.outcome,
        code=code_of(commit.outcome),
        tool_exit_code=result.tool_exit_code if result else None,
        attempts=_count_attempts(head, job_id, commit, newest),
        generation=commit.generation,
        attempt=commit.attempt,
        error=_explain(commit, result),
        phases=phases,
    )


def _count_attempts(head: Head, job_id: str, commit: Commit, newest: Generation | None) -> int:
    """Return how many pods the job took, from what is stored: whoever asks hears the same.

    What the records count, with one for a last Job that was made and nobody has recorded the end
    of; or the pods that have stored something, if those are more. A pod that no head has seen and
    that stored nothing is not among them.
    """
    recorded = newest.attempts if newest is not None else 0
    if newest is not None and newest.end is None:
        has_run = commit.attempt is not None or was_created(head, job_id, newest.number)
        recorded += int(has_run)
    traces = set(head.store.list_folders(head.layout.job(job_id).attempts_prefix))
    return max(recorded, len(traces))


def _stage_in_cost(head: Head, job_id: str) -> Phase | None:
    key = head.layout.job(job_id).generation(1)
    try:
        return Generation.load(read(head.store, key), head.config.uri(key)).stage_in
    except ObjectNotFoundError:
        return None


def _explain(commit: Commit, result: Result | None) -> dict[str, object] | None:
    """Return the error object of an end that is ours to explain; a tool's own failure has none."""
    if commit.outcome in (Outcome.SUCCEEDED, Outcome.TOOL_FAILED):
        return None
    evidence = commit.observation or {}
    if evidence.get("error"):
        return dict(evidence["error"])
    if result is not None and result.error is not None and result.outcome is commit.outcome:
        return dict(result.error)
    seen = evidence.get("detail") or evidence.get("job")
    reason = f"the job ended as {commit.outcome.value}" + (f" ({seen})" if seen else "")
    hint = _HINTS.get(commit.outcome, "")
    return S3RunnerError(reason, operation="run", hint=hint).to_json()
