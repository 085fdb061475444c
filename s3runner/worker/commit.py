"""Saying what an attempt did, and deciding the job if this attempt may.

The commit is one conditional put and the last write of all. Whoever finds another's commit there
has nothing more to say.
"""

from __future__ import annotations

from s3runner.errors import ObjectNotFoundError
from s3runner.model import Outcome, code_of
from s3runner.staging.manifest import document_digest
from s3runner.staging.records import Commit, Result
from s3runner.store.retrying import read
from s3runner.worker.attempt import Attempt

_INTERNAL_ERROR = 70


def read_commit(attempt: Attempt) -> Commit | None:
    """Return the job's commit, None while there is none."""
    try:
        body = read(attempt.store, attempt.job.commit)
    except ObjectNotFoundError:
        return None
    return Commit.load(body, attempt.config.uri(attempt.job.commit))


def publish(attempt: Attempt, result: Result, *, may_be_final: bool = True) -> int:
    """Write result.json and, if the generation lets a pod decide this outcome, the commit.

    Returns the code to exit with: the outcome's, or 0 when another attempt had committed before
    (then what this one did counts for nothing). 0 is never returned without a commit.
    """
    body = result.dump()
    attempt.store.put(
        attempt.keys.result, lambda: iter((body,)), size=len(body), part_size=len(body)
    )
    code = code_of(result.outcome)
    if not may_be_final or result.outcome not in attempt.generation.final:
        return code or _INTERNAL_ERROR
    commit = Commit(
        by="pod",
        outcome=result.outcome,
        attempt=attempt.uid,
        result_digest=document_digest(body),
        generation=attempt.generation_number,
    )
    if not attempt.store.put_if_absent(attempt.job.commit, commit.dump()):
        # 412 after a lost answer can be our own commit: only reading it back tells
        there = read_commit(attempt)
        if there != commit:
            return 0
    return _INTERNAL_ERROR if code is None else code


def failed(attempt: Attempt, outcome: Outcome, error: dict[str, object] | None) -> Result:
    """Return the result of an attempt that brought nothing out."""
    return Result(
        job_id=attempt.job_id,
        generation=attempt.generation_number,
        attempt=attempt.uid,
        outcome=outcome,
        error=error,
    )
