"""The Job controller, PodGC's and the TTL controller's part: one thread over all Jobs.

It stands apart from the rules, which are the product's own (`cluster.job_rules`): here is only when
they are asked, and what is done about their answer.
"""

from __future__ import annotations

import secrets
import threading
import uuid
from collections import defaultdict
from typing import Any

from kube_api.clock import Clock
from kube_api.objects import EVENTS, JOBS, PODS, Change, Objects, with_changes
from kube_api.removal import FOREGROUND, TRACKING, begin_pod_end, delete_job, owner_of, release
from s3runner.cluster import job_rules

KubernetesObject = dict[str, Any]

_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_POD_NAME_LENGTH = 63
_SUFFIX_LENGTH = 5


class JobController:
    """Keeps all Jobs; `pod_refusal` is what the API says to each pod it would create."""

    def __init__(self, objects: Objects, clock: Clock, first_backoff_s: float) -> None:
        self.first_backoff_s = first_backoff_s
        self.pod_refusal = ""
        self.pods_created = 0
        self._objects = objects
        self._clock = clock
        self._jobs: dict[str, KubernetesObject] = {}
        self._pods: dict[str, dict[str, KubernetesObject]] = defaultdict(dict)
        self._let_go: set[str] = set()
        self._dirty: set[str] = set()
        self._again_s: dict[str, float] = {}
        self._stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="job-controller")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._objects.changed:
            self._stopped = True
            self._objects.changed.notify_all()
        self._thread.join(10)

    def note(self, change: Change) -> None:
        """Take in a change; called with the lock held."""
        metadata = change.object["metadata"]
        if change.resource == JOBS:
            self._jobs[metadata["uid"]] = change.object
            if change.kind == "DELETED":
                del self._jobs[metadata["uid"]]
            self._dirty.add(metadata["uid"])
        elif change.resource == PODS and owner_of(change.object):
            pods = self._pods[owner_of(change.object)]
            pods[metadata["uid"]] = change.object
            if change.kind == "DELETED" and not job_rules.is_terminal(change.object):
                del pods[metadata["uid"]]
            self._dirty.add(owner_of(change.object))

    def look_again(self) -> None:
        """Look at every Job: the clock was moved, or a refusal has ended."""
        with self._objects.changed:
            self._dirty.update(self._jobs)
            self._objects.changed.notify_all()

    def _run(self) -> None:
        with self._objects.changed:
            while not self._stopped:
                now_s = self._clock.now_s()
                due = {uid for uid, at_s in self._again_s.items() if at_s <= now_s}
                todo, self._dirty = self._dirty | due, set()
                for uid in todo:
                    self._again_s.pop(uid, None)
                    self._keep(uid, now_s)
                if not self._dirty:
                    next_s = min(self._again_s.values(), default=None)
                    self._objects.changed.wait(None if next_s is None else max(0, next_s - now_s))

    def _keep(self, uid: str, now_s: float) -> None:
        job = self._jobs.get(uid)
        if job is None:
            self._collect(uid, now_s)
            return
        pods = [
            pod
            for pod in self._pods[uid].values()
            if pod["metadata"]["uid"] not in self._let_go or not job_rules.is_terminal(pod)
        ]
        step = job_rules.next_step(job, pods, now_s, self.first_backoff_s)
        status = _as_shown(step.status, self._pods[uid])
        if status != job.get("status"):
            job = self._objects.put(JOBS, {**job, "status": status})
        for pod in self._living(uid):
            if job_rules.is_terminal(pod) or job_rules.finished_condition(job):
                release(self._objects, pod)
        if step.action == job_rules.CREATE_POD:
            self._create_pod(job, now_s)
        elif step.action == job_rules.END_PODS:
            if job["spec"].get("suspend"):
                self._let_pods_go(uid)
            self._end_pods(uid, now_s)
        self._note_again(uid, step.again_at_s)
        self._remove_if_due(uid, job, now_s)

    def _living(self, uid: str) -> list[KubernetesObject]:
        """Return the pods of a Job that the API still shows."""
        known = [pod["metadata"] for pod in self._pods[uid].values()]
        found = [self._objects.find(PODS, one["namespace"], one["name"]) for one in known]
        return [pod for pod in found if pod is not None and owner_of(pod) == uid]

    def _let_pods_go(self, uid: str) -> None:
        """Take the finalizers off the pods that suspension ends: they are not counted."""
        for pod in self._living(uid):
            if not job_rules.is_terminal(pod) and "deletionTimestamp" not in pod["metadata"]:
                self._let_go.add(pod["metadata"]["uid"])
                release(self._objects, pod)

    def _end_pods(self, uid: str, now_s: float) -> None:
        for pod in self._living(uid):
            if not job_rules.is_terminal(pod):
                begin_pod_end(self._objects, pod, now_s)

    def _collect(self, uid: str, now_s: float) -> None:
        """Delete the pods of a Job that is gone."""
        for pod in self._living(uid):
            begin_pod_end(self._objects, pod, now_s)
        for pod in self._living(uid):
            release(self._objects, pod)

    def _create_pod(self, job: KubernetesObject, now_s: float) -> None:
        if self.pod_refusal:
            self.report_event(job, "FailedCreate", f"Error creating: {self.pod_refusal}")
            return
        suffix = "".join(secrets.choice(_SUFFIX_LETTERS) for _ in range(_SUFFIX_LENGTH))
        pod = job_rules.pod_of(job, str(uuid.uuid4()), suffix, now_s)
        room = _POD_NAME_LENGTH - _SUFFIX_LENGTH - 1
        prefix = f"{job['metadata']['name'][:room]}-"
        metadata = {
            "name": f"{prefix}{suffix}",
            "generateName": prefix,
            "generation": 1,
            "finalizers": [TRACKING],
        }
        spec = {
            "dnsPolicy": "ClusterFirst",
            "schedulerName": "default-scheduler",
            "serviceAccountName": "default",
            "preemptionPolicy": "PreemptLowerPriority",
            "priority": 0,
            **pod["spec"],
        }
        status = {"phase": "Pending", "qosClass": "Burstable"}
        self.pods_created += 1
        made = {**with_changes(pod, metadata=metadata), "spec": spec, "status": status}
        self._objects.put(PODS, made)
        self.report_event(job, "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")

    def _note_again(self, uid: str, at_s: float | None) -> None:
        if at_s is not None:
            self._again_s[uid] = min(at_s, self._again_s.get(uid, at_s))

    def _remove_if_due(self, uid: str, job: KubernetesObject, now_s: float) -> None:
        """Remove a Job whose pods had to go first, or whose time to live is over."""
        if FOREGROUND in job["metadata"].get("finalizers", ()):
            self._end_pods(uid, now_s)
            for pod in self._living(uid):
                release(self._objects, pod)
            if not self._living(uid):
                self._objects.remove(JOBS, job)
            return
        ended, ttl_s = job_rules.finished_condition(job), job["spec"].get("ttlSecondsAfterFinished")
        if ended is None or ttl_s is None:
            return
        due_s = job_rules.epoch_s(ended["lastTransitionTime"]) + ttl_s
        if due_s <= now_s:
            delete_job(self._objects, job, "Background", now_s)
        else:
            self._note_again(uid, due_s)

    def report_event(self, about: KubernetesObject, reason: str, message: str) -> None:
        """Leave an Event; the same one again counts up."""
        metadata = about["metadata"]
        namespace, now = metadata["namespace"], job_rules.timestamp(self._clock.now_s())
        told = f"{reason}{message}".encode().hex()[-24:]
        name = f"{metadata['name'][:200]}.{told}"
        before = self._objects.find(EVENTS, namespace, name)
        kind = about.get("kind", "Job")
        self._objects.put(
            EVENTS,
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "uid": str(uuid.uuid4()),
                    "creationTimestamp": now,
                },
                "involvedObject": {
                    "kind": kind,
                    "namespace": namespace,
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                },
                "reason": reason,
                "message": message,
                "type": "Normal" if reason.startswith("Success") else "Warning",
                "count": 1 if before is None else before["count"] + 1,
                "firstTimestamp": now if before is None else before["firstTimestamp"],
                "lastTimestamp": now,
                "source": {"component": "fake"},
            },
        )


def _as_shown(status: KubernetesObject, pods: dict[str, KubernetesObject]) -> KubernetesObject:
    """Return the status with what the rules leave out, because nothing of ours reads it."""
    ready = sum(
        condition["type"] == "Ready" and condition["status"] == "True"
        for pod in pods.values()
        for condition in pod["status"].get("conditions", ())
    )
    counts = {"ready": ready, "terminating": status.get("terminating", 0)}
    return {**status, **counts, "uncountedTerminatedPods": {}}
