"""What holds a job up: how long the head bears it, and what it says of it meanwhile.

It stands apart from following because it needs no store. Durations are counted from this head's
first look, by its own clock: that of the cluster need not agree with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from s3runner.cluster.outcome import last_pod_end, pod_end, pods_in_order, reason_of, state_of
from s3runner.cluster.pod_end import Patience, PodEnd
from s3runner.cluster.protocol import Observation
from s3runner.model import Destination
from s3runner.runner.decide import most_attempts
from s3runner.staging.records import Generation, Spec

_AFTER_GRACE_S = 120
_IMAGE_PULL_TIMEOUT_S = 600


class Holdup:
    """How long the same thing has kept a job from going on."""

    def __init__(self, where: Destination, clock: Callable[[], float]) -> None:
        self._where = where
        self._clock = clock
        self._what: tuple[object, ...] | None = None
        self._since_s = 0.0

    def is_over(self, observation: Observation, patience: Patience) -> bool:
        """Tell whether the head has to decide now how this generation ended."""
        if patience in (Patience.JOB, Patience.NONE):
            self._what = None
            return patience is Patience.NONE
        end = last_pod_end(observation)
        what = (end.uid if end else None, end.outcome if end else None, patience)
        if what != self._what:
            self._what, self._since_s = what, self._clock()
        return self._clock() > self._since_s + patience_s(patience, self._where)

    def forget(self) -> None:
        """Begin anew, with another Job."""
        self._what = None


def patience_s(patience: Patience, where: Destination) -> float:
    """Return how long something may last, in seconds."""
    place = where.kubernetes
    return {
        Patience.NONE: 0.0,
        Patience.JOB: float("inf"),
        Patience.GRACE: where.grace_s,
        Patience.TERMINATION: where.grace_s + _AFTER_GRACE_S,
        Patience.IMAGE_PULL: place.image_pull_timeout_s if place else _IMAGE_PULL_TIMEOUT_S,
        Patience.PENDING: where.pending_timeout_s,
    }[patience]


def describe_attempt(
    observation: Observation, seen: int, current: Generation, spec: Spec
) -> Iterator[str]:
    """Yield a line if there are more pods than were `seen`: which one it is, and why."""
    pods = pods_in_order(observation)
    if len(pods) > max(1, seen):
        before = pod_end(observation, pods[-2])
        number, most = current.attempts + len(pods), most_attempts(current, spec)
        yield f"attempt {number} of at most {most} ({before})"


def describe_holdup(observation: Observation) -> Iterator[tuple[str, str]]:
    """Yield what is waited for, with a key by which it is known when it is seen again."""
    reason, end = reason_of(observation), last_pod_end(observation)
    if reason is not None:
        yield _key_of(end), f"{state_of(observation)}: {reason}"


def _key_of(end: PodEnd | None) -> str:
    return f"{end.uid} {end.outcome.value}" if end is not None else ""
