"""What only an event tells: why a Job has no pod, or why its pod does not start.

A quota for pods, or a rule of the cluster for them, refuses the Job controller, not us; and what a
kubelet lacks to start a container, a volume say, stands nowhere in the pod. Asked sparingly, and
never needed: without the right to list events all else works.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from s3runner.cluster.job_rules import epoch_s
from s3runner.cluster.kubernetes.calls import EVENTS, Call
from s3runner.cluster.kubernetes.transport import Connection
from s3runner.cluster.protocol import JobObject
from s3runner.errors import ClusterRefusedError, S3RunnerError

_ASK_AFTER_S = (15.0, 120.0)
_REMEMBERED = 1_000
_MOST = "50"


class Complaints:
    """The events about what does not go on: two calls at most for each Job or pod."""

    def __init__(self, connection: Connection, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._clock = clock
        self._lock = threading.Lock()
        self._since: dict[str, float] = {}
        self._asked: dict[str, int] = {}
        self._heard: dict[str, tuple[JobObject, ...]] = {}
        self._may_ask = True

    def about(self, stuck: JobObject) -> tuple[JobObject, ...]:
        """Return the events about a Job or a pod, the oldest first, as far as known."""
        uid = str(stuck["metadata"]["uid"])
        if self._is_due(stuck, uid):
            query = {"fieldSelector": f"involvedObject.uid={uid}", "limit": _MOST}
            try:
                found = self._connection.ask(Call("list", EVENTS), query).body["items"]
            except ClusterRefusedError:
                self._may_ask = False
            except S3RunnerError:
                pass  # it was worth one try
            else:
                with self._lock:
                    self._heard[uid] = tuple(sorted(found, key=_time_of))
        return self._heard.get(uid, ())

    def _is_due(self, stuck: JobObject, uid: str) -> bool:
        if (stuck.get("spec") or {}).get("suspend") or not self._may_ask:
            return False
        now_s = self._clock()
        with self._lock:
            # who looks once, as `status` does, goes by its age; a clock that is off costs a call
            # more, or 15 s
            before_s = min(_age_s(stuck), _ASK_AFTER_S[0])
            waited_s = now_s - self._since.setdefault(uid, now_s - before_s)
            asked = self._asked.get(uid, 0)
            is_due = asked < len(_ASK_AFTER_S) and waited_s >= _ASK_AFTER_S[asked]
            if is_due:
                self._asked[uid] = asked + 1
            if len(self._since) > _REMEMBERED:
                self._forget(next(iter(self._since)))
        return is_due

    def _forget(self, uid: str) -> None:
        for known in (self._since, self._asked, self._heard):
            known.pop(uid, None)


def _age_s(stuck: JobObject) -> float:
    made = stuck["metadata"].get("creationTimestamp")
    return 0.0 if made is None else max(0.0, time.time() - epoch_s(made))


def _time_of(event: JobObject) -> str:
    created = (event.get("metadata") or {}).get("creationTimestamp")
    return str(event.get("lastTimestamp") or event.get("eventTime") or created)
