"""Ending a job from outside: the commit first, then its Job.

The commit fences: whatever a pod still does, it cannot decide the job any more.
"""

from __future__ import annotations

import secrets

from s3runner.errors import SettingsError
from s3runner.model import Outcome
from s3runner.runner.creation import newest_generation
from s3runner.runner.head import Head
from s3runner.staging.records import Commit, Spec


def cancel(head: Head, spec: Spec) -> tuple[Commit, bool]:
    """Commit the job as cancelled and delete its Job.

    Returns the commit that stands, and whether it is this one: a job that had ended before stays
    as it was. Raises SettingsError for a job of another cluster, whose pods we could not stop.
    """
    if dict(spec.cluster) != dict(head.cluster.identity):
        known = ", ".join(f"{name} {value}" for name, value in spec.cluster.items())
        raise SettingsError(
            f"job {spec.job_id} runs on another cluster ({known})",
            hint="cancel it from there, or with --destination and a destination of that cluster",
        )
    keys = head.layout.job(spec.job_id)
    newest = newest_generation(head, spec.job_id)
    number = newest.number if newest is not None else 1
    decision = Commit(
        by="head",
        outcome=Outcome.CANCELLED,
        attempt=None,
        result_digest=None,
        generation=number,
        # tells this call's commit from an earlier one's when the answer to the put was lost
        observation={"detail": "cancelled by the user", "call": secrets.token_hex(8)},
    )
    stands = decision
    if not head.store.put_if_absent(keys.commit, decision.dump()):
        stands = head.read_commit(spec.job_id) or decision
    for generation in range(1, number + 1):
        head.cluster.delete(keys.job_name(generation))
    return stands, stands == decision
