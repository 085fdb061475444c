"""What s3runner asks of a cluster, and nothing more.

Job and pod are plain dicts in Kubernetes' own JSON form, whatever runs them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

JobObject = dict[str, Any]

NO_IMAGE = "none"
"""Stands in the object of a job without an image, which only the local cluster runs."""

DESTINATION_LABEL = "s3runner/destination"
"""By this label of a Job its destination's Jobs are found and counted."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What the cluster says about one Job now: `job` is None when there is none by that name.

    `pods` may hold, while the Job is there, some that are not there any more, each as it was last
    seen: their UIDs stand in `vanished`. `events` say why a Job has no pod, or why its pod
    does not start, where that is known.
    """

    job: JobObject | None
    pods: tuple[JobObject, ...] = ()
    vanished: frozenset[str] = frozenset()
    events: tuple[JobObject, ...] = ()


class Cluster(Protocol):
    """A place that runs Job objects. Safe for concurrent use by threads.

    Methods raise ClusterUnavailableError (31, temporary) or ClusterRefusedError (32).
    """

    @property
    def identity(self) -> Mapping[str, str]:
        """What tells this cluster from another; stands in the spec."""

    def caveats(self, job: JobObject) -> Sequence[str]:
        """Return what the user should know of how this cluster would run the Job."""

    def submit(self, job: JobObject) -> str:
        """Create the Job and return its UID.

        A Job of the same name is adopted if its annotation `s3runner/spec-digest` agrees, and
        refused otherwise: submitting twice creates once.
        """

    def observe(self, names: Collection[str]) -> dict[str, Observation]:
        """Return what is known of these Jobs, one Observation for each name asked for."""

    def active(self, destination: str) -> Collection[str]:
        """Return the names of the Jobs with this DESTINATION_LABEL that are not over: one request.

        Counts as an observation of them: `wait` returns when one of them may have changed since.
        """

    def wait(self, names: Collection[str], timeout_s: float) -> None:
        """Return when one of these Jobs may have changed, after `timeout_s` at the latest."""

    def delete(self, name: str) -> None:
        """Delete the Job and its pods (TERM, grace, KILL); one that is not there is no error."""
