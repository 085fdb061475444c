"""Ending a job from outside: the commit first, then its Jobs, then the wait for its pods.

The commit fences: whatever a pod still does, it cannot decide the job any more. Only when no pod is
left does nothing come below the job's prefix any more.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from s3runner.cluster.job_rules import is_terminal
from s3runner.cluster.protocol import Observation
from s3runner.errors import ClusterUnavailableError, SettingsError
from s3runner.model import Outcome
from s3runner.runner.creation import newest_generation
from s3runner.runner.head import Head, name_cluster
from s3runner.runner.report import Listener
from s3runner.runner.turns import leave_queue
from s3runner.staging.records import Commit, Spec

MARGIN_S = 30
"""How long after their grace pods may take to vanish: a cluster has to notice, and to clean up."""

_PATIENCE_S = 1.0
"""How long nothing is said."""


def cancel(head: Head, spec: Spec, *, force: bool = False) -> tuple[Commit, bool]:
    """Commit the job as cancelled and delete its Jobs.

    Returns the commit that stands, and whether it is this one: a job that had ended before stays
    as it was. Raises SettingsError for a job of another cluster, whose pods we could not stop,
    unless it is by `force` that it ends.
    """
    is_here = is_within_reach(head, spec) if force else head.runs(spec)
    if not is_here and not force:
        raise SettingsError(
            f"job {spec.job_id} runs on another cluster ({name_cluster(spec)})",
            hint="cancel it from there, or with --destination and a destination of that cluster; "
            "if that cluster is gone, --force ends the job without stopping its pods",
        )
    try:
        return _commit(head, spec)
    finally:
        # also where the commit that stands cannot be read
        leave_queue(head, spec)
        for name in _job_names(head, spec) if is_here else ():
            head.cluster.delete(name)


def is_within_reach(head: Head, spec: Spec) -> bool:
    """Tell whether this head can stop a job's pods; a cluster that nothing leads to runs none."""
    try:
        return head.runs(spec)
    except SettingsError:
        return False


def _commit(head: Head, spec: Spec) -> tuple[Commit, bool]:
    keys = head.layout.job(spec.job_id)
    decision = Commit(
        by="head",
        outcome=Outcome.CANCELLED,
        attempt=None,
        result_digest=None,
        generation=max(1, _newest_number(head, spec)),
        # tells this call's commit from an earlier one's when the answer to the put was lost
        observation={"detail": "cancelled by the user", "call": secrets.token_hex(8)},
    )
    stands = decision
    if not head.store.put_if_absent(keys.commit, decision.dump()):
        stands = head.read_commit(spec.job_id) or decision
    return stands, stands == decision


def await_pods(
    head: Head, spec: Spec, listener: Listener, clock: Callable[[], float] = time.monotonic
) -> None:
    """Return when no pod of a job is left whose Jobs were deleted.

    Raises ClusterUnavailableError when one is still there MARGIN_S after its grace.
    """
    names = _job_names(head, spec)
    began_s = clock()
    patience_s = spec.destination.grace_s + MARGIN_S
    told = False
    while left := {n: seen for n, seen in _observe(head, names).items() if not _is_gone(seen)}:
        waited_s = clock() - began_s
        if waited_s >= patience_s:
            raise ClusterUnavailableError(
                f"the job is cancelled, but its pods have not ended within {patience_s} s",
                source=", ".join(left),
                target=", ".join(_places_of(left.values())),
                hint="nothing they still write counts; say `s3runner cancel` again to wait again",
            )
        if waited_s >= _PATIENCE_S and not told:
            told = True
            listener.note(f"waiting for its pods to end, {patience_s} s at most")
        until_s = patience_s if told else _PATIENCE_S
        head.cluster.wait(list(left), until_s - waited_s)


def _observe(head: Head, names: list[str]) -> Mapping[str, Observation]:
    return head.cluster.observe(names) if names else {}


def _places_of(left: Iterable[Observation]) -> Iterator[str]:
    """Yield where the pods are that do not end: a node that is lost cannot say that they have."""
    for seen in left:
        for pod in seen.pods:
            name = pod["metadata"].get("name") or pod["metadata"]["uid"]
            node = (pod.get("spec") or {}).get("nodeName")
            if not is_terminal(pod):
                yield f"pod {name} on node {node}" if node else f"pod {name}"


def _is_gone(seen: Observation) -> bool:
    """Tell whether nothing runs any more. A Job that is there may still make a pod."""
    return seen.job is None and all(is_terminal(pod) for pod in seen.pods)


def _job_names(head: Head, spec: Spec) -> list[str]:
    """Return the names of all Jobs that may have been made for the job.

    Read after the commit: who records another generation later finds the commit, and so do its pods
    before they do anything.
    """
    keys = head.layout.job(spec.job_id)
    return [keys.job_name(number + 1) for number in range(_newest_number(head, spec))]


def _newest_number(head: Head, spec: Spec) -> int:
    newest = newest_generation(head, spec.job_id)
    return newest.number if newest is not None else 0
