"""The kubelet's part: runs one pod on this machine and keeps its status.

It knows nothing of Jobs, so that the supervisor and the tests' API server share it.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from s3runner.cluster.job_rules import timestamp
from s3runner.cluster.local.container import plan_container
from s3runner.cluster.local.disk import watch_disk
from s3runner.cluster.local.memory import memory_limit, watch_memory
from s3runner.cluster.local.node import BUBBLEWRAP, Node
from s3runner.cluster.local.process import ContainerProcess, StartFailedError, start_container

DEFAULT_GRACE_S = 30.0
_EVICTION_GRACE_S = 1.0
"""What a kubelet leaves a pod that exceeds a disk limit, whatever the pod's own grace is."""

KubernetesObject = dict[str, Any]


class _Stop(NamedTuple):
    grace_s: float
    disruption: str


class _OverDisk(NamedTuple):
    message: str


class _Ended(NamedTuple):
    name: str


class _OverMemory(NamedTuple):
    name: str


_Event = _Stop | _OverDisk | _Ended | _OverMemory


class PodRun:
    """One pod, from its first container to its last.

    `pod` is changed in place: its status, and its deletionTimestamp when it is stopped. `report` is
    called after each change, in the thread that calls `run`. `home` is a directory for the pod's
    volumes, made and removed by `run`; `logs` is one for `<container>.stdout` and `.stderr`, of
    which the first MiB is kept.
    """

    def __init__(
        self,
        pod: KubernetesObject,
        node: Node,
        home: str,
        logs: str,
        report: Callable[[KubernetesObject], None],
    ) -> None:
        self._pod = pod
        self._node = node
        self._home = home
        self._logs = logs
        self._report = report
        self._events: SimpleQueue[_Event] = SimpleQueue()
        self._running: dict[str, ContainerProcess] = {}
        self._over_memory: set[str] = set()
        self._over_disk = ""
        self._kill_at_s: float | None = None

    def stop(self, grace_s: float | None = None, disruption: str = "") -> None:
        """End the pod: TERM to its containers, KILL after the grace (default: the pod's own).

        Safe in any thread and in signal handlers. `disruption` is the reason of a DisruptionTarget
        condition that the pod gets.
        """
        own = float(self._pod["spec"].get("terminationGracePeriodSeconds", DEFAULT_GRACE_S))
        self._events.put(_Stop(own if grace_s is None else grace_s, disruption))

    def run(self) -> KubernetesObject:
        """Run the pod and return it, phase Succeeded or Failed. Blocks until every process is gone.

        The calling thread must not end before: its death would be the containers'.
        """
        spec = self._pod["spec"]
        inits, mains = spec.get("initContainers", []), spec["containers"]
        self._prepare(inits, mains)
        self._report(self._pod)
        ended = threading.Event()
        watch_disk(
            spec,
            (self._volumes, self._logs),
            ended,
            lambda message: self._events.put(_OverDisk(message)),
        )
        try:
            succeeded = all(self._run_if_wanted("initContainerStatuses", [c]) for c in inits)
            if succeeded:
                self._set_condition("Initialized", "True")
                self._pod["status"]["phase"] = "Running"
                succeeded = self._run_if_wanted("containerStatuses", mains)
            self._conclude(succeeded=succeeded and not self._over_disk)
        finally:
            ended.set()
            for process in self._running.values():
                process.kill()
            remove_tree(self._home)
        return self._pod

    def _conclude(self, *, succeeded: bool) -> None:
        self._set_condition("Ready", "False", "PodCompleted" if succeeded else "PodFailed")
        self._pod["status"]["phase"] = "Succeeded" if succeeded else "Failed"
        if self._over_disk:
            self._pod["status"].update(reason="Evicted", message=self._over_disk)
        self._report(self._pod)

    def _prepare(
        self, inits: Sequence[KubernetesObject], mains: Sequence[KubernetesObject]
    ) -> None:
        for directory in (self._home, self._volumes, self._logs):
            os.makedirs(directory, exist_ok=True)
        for volume in self._pod["spec"].get("volumes", []):
            _make_open_directory(f"{self._volumes}/{volume['name']}")
        self._pod["status"] = {
            **self._pod.get("status", {}),
            "phase": "Pending",
            "startTime": timestamp(time.time()),
            "initContainerStatuses": [_waiting(container) for container in inits],
            "containerStatuses": [_waiting(container) for container in mains],
        }
        self._set_condition("PodScheduled", "True")
        if self._node.sandbox.kind != BUBBLEWRAP:
            for path, source in self._node.image.items():
                link = f"{self._home}/image/{path}"
                os.makedirs(os.path.dirname(link), exist_ok=True)
                os.symlink(source, link)

    @property
    def _volumes(self) -> str:
        return f"{self._home}/volumes"

    def _run_if_wanted(self, kind: str, containers: Sequence[KubernetesObject]) -> bool:
        """Run containers unless the pod was told to end; tell whether all of them succeeded."""
        return self._kill_at_s is None and self._run_together(kind, containers)

    def _run_together(self, kind: str, containers: Sequence[KubernetesObject]) -> bool:
        """Run containers at once until all have ended; tell whether all of them succeeded."""
        statuses = {status["name"]: status for status in self._pod["status"][kind]}
        for container in containers:
            self._start(container, statuses[container["name"]])
        self._report(self._pod)
        while self._running:
            event = self._next_event()
            if isinstance(event, _Stop):
                self._begin_stop(event)
            elif isinstance(event, _OverDisk):
                # Only known by its status, like a kubelet's: nobody deletes the pod.
                self._over_disk = event.message
                self._end_within(_EVICTION_GRACE_S)
            elif isinstance(event, _Ended):
                self._record_end(statuses[event.name])
            elif isinstance(event, _OverMemory):
                self._kill_for_memory(event.name)
            else:
                for process in self._running.values():
                    process.kill()
        return all(
            statuses[container["name"]]["state"]["terminated"]["exitCode"] == 0
            for container in containers
        )

    def _start(self, container: KubernetesObject, status: KubernetesObject) -> None:
        name = container["name"]
        plan = plan_container(self._pod, container, self._home, self._node)
        for mount in plan.mounts:
            if mount.source.startswith(self._volumes + "/"):
                _make_open_directory(mount.source)
        is_worker = container["image"] == self._node.worker_image
        now_s = time.time()
        try:
            process = start_container(plan, self._node, f"{self._logs}/{name}", is_worker=is_worker)
        except StartFailedError as error:
            _terminate(status, 128, "StartError", str(error))
            return
        self._running[name] = process
        status["started"] = status["ready"] = True
        status["state"] = {"running": {"startedAt": timestamp(now_s)}}
        ended = threading.Event()

        def tell_end() -> None:
            ended.set()
            self._events.put(_Ended(name))

        process.watch(tell_end)
        limit = memory_limit(container)
        if limit is not None:
            watch_memory(process, limit, ended, lambda: self._events.put(_OverMemory(name)))

    def _kill_for_memory(self, name: str) -> None:
        if name in self._running:
            self._over_memory.add(name)
            self._running[name].kill()

    def _next_event(self) -> _Event | None:
        """Wait for the next event; None when the grace is over, then each second until the end."""
        if self._kill_at_s is None:
            return self._events.get()
        left_s = self._kill_at_s - time.monotonic()
        try:
            return self._events.get(timeout=left_s if left_s > 0 else 1.0)
        except Empty:
            return None

    def _begin_stop(self, stop: _Stop) -> None:
        if stop.disruption:
            self._set_condition("DisruptionTarget", "True", stop.disruption)
        self._pod["metadata"].setdefault("deletionTimestamp", timestamp(time.time()))
        self._end_within(stop.grace_s)
        self._report(self._pod)

    def _end_within(self, grace_s: float) -> None:
        """Send TERM, unless that was done before, and let KILL follow after the shortest grace."""
        kill_at_s = time.monotonic() + grace_s
        if self._kill_at_s is None:
            for process in self._running.values():
                process.terminate()
        self._kill_at_s = min(kill_at_s, self._kill_at_s or kill_at_s)
        if grace_s <= 0:
            for process in self._running.values():
                process.kill()

    def _record_end(self, status: KubernetesObject) -> None:
        process = self._running.pop(status["name"])
        if status["name"] in self._over_memory:
            _terminate(status, 137, "OOMKilled")
        elif process.failed_to_start:
            _terminate(status, 128, "StartError", process.last_words())
        else:
            code = process.exit_code()
            _terminate(status, code, "Error" if code else "Completed")
        self._report(self._pod)

    def _set_condition(self, kind: str, status: str, reason: str = "") -> None:
        conditions = self._pod["status"].setdefault("conditions", [])
        conditions[:] = [condition for condition in conditions if condition["type"] != kind]
        moment = timestamp(time.time())
        condition = {"type": kind, "status": status, "lastTransitionTime": moment}
        conditions.append({**condition, "reason": reason} if reason else condition)


def mark_node_lost(pod: KubernetesObject, now_s: float) -> None:
    """Make a pod Failed whose processes died with what kept them, as PodGC does for a lost node."""
    status = pod.setdefault("status", {})
    status["phase"] = "Failed"
    status["reason"] = "NodeLost"
    status["message"] = "what ran the pod on this machine has ended"
    status.setdefault("conditions", []).append(
        {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByPodGC",
            "message": status["message"],
            "lastTransitionTime": timestamp(now_s),
        }
    )


def remove_tree(path: str) -> None:
    """Remove a directory, whatever a tool made of it: deep trees, directories without rights."""
    for command in (["rm", "-rf"], ["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
        if os.path.lexists(path):
            subprocess.run(  # noqa: S603  # they take any depth, a walk of ours would not
                [*command, "--", path], stderr=subprocess.DEVNULL, check=False
            )


def _waiting(container: KubernetesObject) -> KubernetesObject:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": False,
        "started": False,
        "restartCount": 0,
        "lastState": {},
        "state": {"waiting": {"reason": "PodInitializing"}},
    }


def _terminate(status: KubernetesObject, code: int, reason: str, message: str = "") -> None:
    now = timestamp(time.time())
    started = status["state"].get("running", {}).get("startedAt", now)
    terminated = {"exitCode": code, "reason": reason, "startedAt": started, "finishedAt": now}
    if message:
        terminated["message"] = message
    status.update(ready=False, started=False, state={"terminated": terminated})


def _make_open_directory(path: str) -> None:
    """Make a directory that every user of the pod may write to, whatever our umask."""
    if not os.path.isdir(path):
        os.makedirs(path)
        os.chmod(path, 0o777)  # noqa: S103  # as the kubelet makes them; its parents are private
