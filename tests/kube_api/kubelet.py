"""Scheduler and kubelet: every pod runs as processes of this machine, and its status is told.

It stands apart from the Job controller, which only sees what is told: a lost node tells nothing.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from kube_api.clock import Clock
from kube_api.hurdles import Hurdles
from kube_api.objects import CONFIG_MAPS, PODS, SECRETS, Change, Objects, with_changes
from kube_api.pod_status import as_kubelet_shows, set_condition
from kube_api.removal import leave_if_done
from s3runner.cluster.job_rules import is_terminal, timestamp
from s3runner.cluster.local.node import Node
from s3runner.cluster.local.pod import PodRun, _Ended, _OverMemory, _terminate
from s3runner.cluster.local.process import ContainerProcess

KubernetesObject = dict[str, Any]

NODES = ("node-1", "node-2", "node-3")
_LEAST_GRACE_S = 2.0
"""What a kubelet leaves every pod that the API still shows, deleted by force or not."""
_UNKNOWN = "The container could not be located when the pod was terminated"


class End(NamedTuple):
    """How the kubelet itself ends a pod: what its status says afterwards."""

    reason: str
    message: str
    disrupted: bool


class _Stuck(ContainerProcess):
    """A container that waits for its image or its secrets."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.tries_again = False

    def try_again(self) -> None:
        self.tries_again = True
        self._wake()

    def terminate(self) -> None:
        self._wake()

    def kill(self) -> None:
        self._wake()


class KubePod(PodRun):
    """A pod whose containers may be held up."""

    hurdles: Hurdles

    def run_out_of_memory(self, container: str) -> None:
        """Do to a container what the kernel does to one over its limit."""
        self._events.put(_OverMemory(container))

    def try_again(self) -> None:
        """Let what waits look again."""
        for process in [*self._running.values()]:
            if isinstance(process, _Stuck):
                process.try_again()

    def _start(self, container: KubernetesObject, status: KubernetesObject) -> None:
        hurdle = self.hurdles.of(self._pod, container)
        if hurdle is None:
            super()._start(self.hurdles.with_values(self._pod, container), status)
        elif hurdle.exit_code is not None:
            _terminate(status, hurdle.exit_code, hurdle.reason, hurdle.message)
        else:
            name = container["name"]
            self._running[name] = _Stuck(lambda: self._events.put(_Ended(name)))
            status["state"] = {"waiting": {"reason": hurdle.reason, "message": hurdle.message}}

    def _record_end(self, status: KubernetesObject) -> None:
        name = status["name"]
        process = self._running.get(name)
        if process is None:  # it was told to end twice
            return
        if not isinstance(process, _Stuck):
            super()._record_end(status)
            return
        del self._running[name]
        if process.tries_again:
            spec = self._pod["spec"]
            containers = [*spec.get("initContainers", ()), *spec["containers"]]
            self._start(next(c for c in containers if c["name"] == name), status)
        else:
            _terminate(status, 137, "ContainerStatusUnknown", _UNKNOWN)
        self._report(self._pod)


class Kubelet:
    """All nodes of the cluster. Pods run in threads of this process, below `directory`."""

    def __init__(self, objects: Objects, clock: Clock, node: Node, directory: Path) -> None:
        self.hurdles = Hurdles(objects)
        self.directory = directory
        self._objects = objects
        self._clock = clock
        self._node = node
        self._runs: dict[str, KubePod] = {}
        self._threads: list[threading.Thread] = []
        self._silent: set[str] = set()
        self._ends: dict[str, End] = {}
        self._stopped = False
        self._bound = 0

    def note(self, change: Change) -> None:
        """Take in a change; called with the lock held."""
        if change.resource in (SECRETS, CONFIG_MAPS):
            self.look_again()
        if change.resource != PODS:
            return
        pod, uid = change.object, change.object["metadata"]["uid"]
        if change.kind == "ADDED":
            thread = threading.Thread(target=self._run_pod, args=(pod,), daemon=True)
            self._threads.append(thread)
            thread.start()
        elif uid in self._runs and uid not in self._silent:
            grace = pod["metadata"].get("deletionGracePeriodSeconds")
            before = (change.before or pod)["metadata"].get("deletionGracePeriodSeconds")
            if change.kind == "DELETED":
                self._runs[uid].stop(0)
            elif grace is not None and grace != before:
                self._runs[uid].stop(max(grace, _LEAST_GRACE_S))

    def look_again(self) -> None:
        """Let all that waits see whether its hurdle is gone."""
        with self._objects.changed:
            for run in self._runs.values():
                run.try_again()
            self._objects.changed.notify_all()

    def stop(self) -> None:
        """Kill every pod; what they say then is told to nobody."""
        with self._objects.changed:
            self._stopped = True
            for run in self._runs.values():
                run.stop(0)
            self._objects.changed.notify_all()
        for thread in self._threads:
            thread.join(20)

    def run_of(self, uid: str) -> KubePod:
        return self._runs[uid]

    def end(self, uid: str, end: End, grace_s: float | None = None) -> None:
        """End a pod as the kubelet does for reasons of its node: the object stays, Failed."""
        with self._objects.changed:
            self._ends[uid] = end
            self._runs[uid].stop(None if grace_s is None else max(grace_s, _LEAST_GRACE_S))

    def lose(self, uid: str, *, processes_die: bool) -> None:
        """Cut a pod's node off: nothing is told of the pod any more, nor anything to it."""
        with self._objects.changed:
            self._silent.add(uid)
        if processes_die:
            self._runs[uid].stop(0)

    def _run_pod(self, pod: KubernetesObject) -> None:
        bound = self._schedule(pod)
        if bound is None:
            return
        uid = bound["metadata"]["uid"]
        own = copy.deepcopy(bound)  # the run changes it in place
        home, logs = f"{self.directory}/pods/{uid}", f"{self.directory}/logs/{uid}"
        run = KubePod(own, self._node, home, logs, self._show)
        run.hurdles = self.hurdles
        with self._objects.changed:
            self._runs[uid] = run
            now = self._objects.find(PODS, own["metadata"]["namespace"], own["metadata"]["name"])
            if now is None or "deletionTimestamp" in now["metadata"] or self._stopped:
                grace = (now or own)["metadata"].get("deletionGracePeriodSeconds", 0)
                least = 0 if self._stopped or now is None else max(grace, _LEAST_GRACE_S)
                run.stop(least)
        run.run()

    def _schedule(self, pod: KubernetesObject) -> KubernetesObject | None:
        """Give a pod its node as soon as there is one; None if it was deleted before."""
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        with self._objects.changed:
            while True:
                now = self._objects.find(PODS, namespace, name)
                if now is None or self._stopped:
                    return None
                if "deletionTimestamp" in now["metadata"]:
                    failed = with_changes(now, status={"phase": "Failed"})
                    leave_if_done(self._objects, self._objects.put(PODS, failed))
                    return None
                if not self.hurdles.unschedulable:
                    break
                self._tell_unschedulable(now)
                self._objects.changed.wait()
            node = NODES[self._bound % len(NODES)]
            self._bound += 1
            return self._objects.put(PODS, with_changes(now, spec={"nodeName": node}))

    def _tell_unschedulable(self, pod: KubernetesObject) -> None:
        status = copy.deepcopy(pod["status"])
        moment = timestamp(self._clock.now_s())
        message = self.hurdles.unschedulable
        set_condition(status, "PodScheduled", "False", moment, "Unschedulable", message)
        self._objects.put(PODS, {**pod, "status": status})

    def _show(self, run: KubernetesObject) -> None:
        """Tell the API how a pod is."""
        metadata = run["metadata"]
        uid = metadata["uid"]
        with self._objects.changed:
            stored = self._objects.find(PODS, metadata["namespace"], metadata["name"])
            ours = stored is not None and stored["metadata"]["uid"] == uid
            if stored is None or not ours or uid in self._silent or self._stopped:
                return
            if is_terminal(stored):
                return
            status = as_kubelet_shows(stored, run["status"], timestamp(self._clock.now_s()))
            end = self._ends.get(uid)
            if end is not None and is_terminal({"status": status}):
                self._conclude(status, end)
            leave_if_done(self._objects, self._objects.put(PODS, {**stored, "status": status}))

    def _conclude(self, status: KubernetesObject, end: End) -> None:
        status.update(phase="Failed", reason=end.reason, message=end.message)
        if end.disrupted:
            moment = timestamp(self._clock.now_s())
            reason = "TerminationByKubelet"
            set_condition(status, "DisruptionTarget", "True", moment, reason, end.message)
