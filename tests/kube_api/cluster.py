"""The front: one cluster with its API server, its controller, its nodes, and the tests' levers.

It stands apart from the parts so that a test reads what it does to a cluster in one vocabulary.
"""

from __future__ import annotations

import base64
import os
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from kube_api.clock import Clock
from kube_api.controller import JobController
from kube_api.faults import Faults
from kube_api.hurdles import Hurdle
from kube_api.kubelet import End, Kubelet
from kube_api.objects import JOBS, NAMESPACES, PODS, SECRETS, Objects, with_changes
from kube_api.pod_status import set_condition
from kube_api.rbac import Rbac
from kube_api.removal import begin_pod_end, delete_job
from kube_api.routes import Routes
from kube_api.server import ApiServer
from kube_api.watching import Watching
from s3runner.cluster.job_rules import timestamp
from s3runner.cluster.local.choice import choose_sandbox
from s3runner.cluster.local.node import Node
from s3runner.installed import job_scripts_dir, package_dir

KubernetesObject = dict[str, Any]

NAMESPACE = "s3runner"
WORKER_IMAGE = "s3runner-worker"
_NODE_GONE = "PodGC: node no longer exists"
_SHUTDOWN = "Pod was terminated in response to imminent node shutdown."


class FakeKube:
    """A cluster with one namespace, `NAMESPACE`; a context manager.

    Containers of `worker_image` run our own code, all others this machine's programs;
    `injected_env` reaches the former as a webhook's would (IRSA, workload identity).
    Its parts are levers too: `faults` (the API's), `rbac`, `watching`, `clock`, `hurdles`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        worker_image: str = WORKER_IMAGE,
        injected_env: Mapping[str, str] | None = None,
        first_backoff_s: float = 0.0,
    ) -> None:
        self.clock = Clock()
        self.rbac = Rbac()
        self.objects = Objects()
        self.faults = Faults(self._wake)
        self.watching = Watching(self.objects, self.faults)
        node = _node(directory, worker_image, injected_env or {})
        self.kubelet = Kubelet(self.objects, self.clock, node, directory)
        self.controller = JobController(self.objects, self.clock, first_backoff_s)
        logs = directory / "logs"
        self.routes = Routes(self.objects, self.clock, self.rbac, self.watching, logs)
        self.server = ApiServer(self.routes, self.faults)
        self.objects.listeners += [self.controller.note, self.kubelet.note]
        self.clock.moved = self.controller.look_again
        self._directory = directory
        self.add_namespace(NAMESPACE)

    def __enter__(self) -> FakeKube:  # noqa: PYI034  # Self is Python 3.11
        self.controller.start()
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.watching.stopped = True
        self.faults.come_up()
        self.faults.let_go()
        self.kubelet.stop()
        self.controller.stop()
        self.server.stop()
        assert not self.server.broken, "\n".join(self.server.broken)

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def hurdles(self) -> Any:
        """What keeps pods from starting; after a change call `look_again`."""
        return self.kubelet.hurdles

    def kubeconfig(self, context: str = "test") -> Path:
        """Write a kubeconfig with one context and return its path."""
        user = {"token": self.faults.token} if self.faults.token else {}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "head", "user": user}],
            "contexts": [
                {
                    "name": context,
                    "context": {"cluster": "fake", "user": "head", "namespace": NAMESPACE},
                }
            ],
            "current-context": context,
        }
        path = self._directory / "kubeconfig"
        path.write_text(yaml.safe_dump(document))
        path.chmod(0o600)
        return path

    def add_namespace(self, name: str) -> None:
        """Let a namespace be there."""
        labels = {"kubernetes.io/metadata.name": name}
        self._put(NAMESPACES, "Namespace", {"name": name, "labels": labels}, {})

    def add_secret(self, name: str, values: Mapping[str, str], namespace: str = NAMESPACE) -> None:
        """Let a Secret be there."""
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        self._put(SECRETS, "Secret", {"name": name, "namespace": namespace}, {"data": data})

    def _put(self, resource: str, kind: str, metadata: KubernetesObject, more: Any) -> None:
        made = {
            "uid": str(uuid.uuid4()),
            "creationTimestamp": timestamp(self.clock.now_s()),
            **metadata,
        }
        self.objects.put(resource, {"apiVersion": "v1", "kind": kind, "metadata": made, **more})

    def job(self, name: str, namespace: str = NAMESPACE) -> KubernetesObject | None:
        """Return a Job as the API shows it."""
        return self.objects.find(JOBS, namespace, name)

    def jobs(self) -> list[KubernetesObject]:
        return self.objects.of(JOBS)

    def pods(self, job: str | None = None) -> list[KubernetesObject]:
        """Return the pods that the API shows, of one Job or of all."""
        return [
            pod
            for pod in self.objects.of(PODS)
            if job in (None, pod["metadata"]["labels"].get("batch.kubernetes.io/job-name"))
        ]

    def await_state(self, condition: Callable[[], Any], timeout_s: float = 60) -> Any:
        """Return the condition's value as soon as a change of the cluster makes it true."""
        with self.objects.changed:
            found = self.objects.changed.wait_for(condition, timeout_s)
        assert found, f"the cluster did not get there: {[p['status'] for p in self.pods()]}"
        return found

    def await_pod(self, container: str, state: str = "running", job: str | None = None) -> Any:
        """Return the first pod in which a container has this state."""

        def look() -> KubernetesObject | None:
            return next((p for p in self.pods(job) if state in _state_of(p, container)), None)

        return self.await_state(look)

    def await_condition(self, job: str, kind: str) -> KubernetesObject:
        """Return a Job's condition once it is true."""

        def look() -> KubernetesObject | None:
            conditions = ((self.job(job) or {}).get("status") or {}).get("conditions") or ()
            wanted = [c for c in conditions if c["type"] == kind and c["status"] == "True"]
            return wanted[0] if wanted else None

        found: KubernetesObject = self.await_state(look)
        return found

    def evict(self, pod: KubernetesObject, grace_s: int | None = None) -> None:
        """Evict a pod by the eviction API."""
        with self.objects.changed:
            now = self._now(pod)
            if now is not None:
                self.routes.evict(now, grace_s)

    def drain(self, node: str, grace_s: int | None = None) -> None:
        """Evict all pods of a node."""
        with self.objects.changed:
            for pod in self.pods():
                if pod["spec"].get("nodeName") == node:
                    self.evict(pod, grace_s)

    def preempt(self, pod: KubernetesObject) -> None:
        """Make room for a pod of higher priority."""
        self._disrupt(pod, "PreemptionByScheduler", "default-scheduler: preempting to accommodate")

    def taint(self, pod: KubernetesObject) -> None:
        """Delete a pod whose node is not ready for longer than it tolerates."""
        told = "Taint manager: deleting due to NoExecute taint"
        self._disrupt(pod, "DeletionByTaintManager", told)

    def run_out_of_memory(self, pod: KubernetesObject, container: str) -> None:
        """Let the kernel kill a container: OOMKilled, 137."""
        self.kubelet.run_of(pod["metadata"]["uid"]).run_out_of_memory(container)

    def shut_node_down(self, pod: KubernetesObject, grace_s: float = 2) -> None:
        """Shut a pod's node down gracefully: the object stays, Failed, reason Terminated."""
        self.kubelet.end(pod["metadata"]["uid"], End("Terminated", _SHUTDOWN, True), grace_s)

    def press_node(self, pod: KubernetesObject, resource: str = "memory") -> None:
        """Evict a pod because its node runs out of something: the least grace."""
        told = f"The node was low on resource: {resource}. Threshold quantity: 100Mi."
        self.kubelet.end(pod["metadata"]["uid"], End("Evicted", told, True), 1)

    def exceed_disk_limit(self, pod: KubernetesObject, message: str) -> None:
        """Evict a pod that is over a disk limit of its own: no DisruptionTarget."""
        self.kubelet.end(pod["metadata"]["uid"], End("Evicted", message, False), 1)

    def lose_node(self, pod: KubernetesObject, *, processes_die: bool = True) -> None:
        """Cut a pod's node off: the pod stays as it was told last.

        Without `processes_die` it works on, and may commit, while the cluster takes it for lost.
        """
        self.kubelet.lose(pod["metadata"]["uid"], processes_die=processes_die)

    def collect(self, pod: KubernetesObject) -> None:
        """Do what PodGC does when the node's object is gone."""
        with self.objects.changed:
            now = self._now(pod)
            if now is None:
                return
            status = {**now["status"], "phase": "Failed"}
            status["conditions"] = [dict(c) for c in status.get("conditions", ())]
            moment = timestamp(self.clock.now_s())
            set_condition(status, "DisruptionTarget", "True", moment, "DeletionByPodGC", _NODE_GONE)
            self.objects.put(PODS, {**now, "status": status})
            self.delete_pod(pod, grace_s=0)

    def delete_pod(self, pod: KubernetesObject, grace_s: int | None = None) -> None:
        """Delete a pod as a person would, with `grace_s=0` by force."""
        with self.objects.changed:
            now = self._now(pod)
            if now is not None:
                begin_pod_end(self.objects, now, self.clock.now_s(), grace_s)

    def vanish(self, pod: KubernetesObject) -> None:
        """Let a pod's object be gone at once, finalizers or not, and its processes with it."""
        with self.objects.changed:
            now = self._now(pod)
            if now is not None:
                self.objects.remove(PODS, now)

    def delete_job(self, name: str, policy: str = "Background") -> None:
        """Delete a Job as somebody else would."""
        with self.objects.changed:
            found = self.job(name)
            if found is not None:
                delete_job(self.objects, found, policy, self.clock.now_s())

    def suspend(self, name: str, *, suspended: bool = True) -> None:
        """Suspend a Job, or resume it, as Kueue does."""
        with self.objects.changed:
            found = self.job(name)
            assert found is not None, name
            self.objects.put(JOBS, with_changes(found, spec={"suspend": suspended}))

    def hold_up(self, container: str, hurdle: Hurdle) -> None:
        """Keep a container of every pod from running from now on."""
        self.hurdles.containers[container] = hurdle

    def lack_nodes(self, message: str) -> None:
        """Let the scheduler find no node from now on, and say this."""
        self.hurdles.unschedulable = message

    def refuse_pods(self, message: str) -> None:
        """Let the API refuse every pod that the Job controller would create (quota, security)."""
        self.controller.pod_refusal = message

    def clear(self) -> None:
        """Take all hurdles away and let what waits go on."""
        self.hurdles.containers.clear()
        self.hurdles.unschedulable = ""
        self.controller.pod_refusal = ""
        self.kubelet.look_again()
        self.controller.look_again()

    def _disrupt(self, pod: KubernetesObject, reason: str, message: str) -> None:
        with self.objects.changed:
            now = self._now(pod)
            if now is not None:
                self.routes.disrupt(now, reason, message)
                self.delete_pod(pod)

    def _now(self, pod: KubernetesObject) -> KubernetesObject | None:
        metadata = pod["metadata"]
        found = self.objects.find(PODS, metadata["namespace"], metadata["name"])
        same = found is not None and found["metadata"]["uid"] == metadata["uid"]
        return found if same else None

    def _wake(self) -> None:
        with self.objects.changed:
            self.objects.changed.notify_all()


def _state_of(pod: KubernetesObject, container: str) -> KubernetesObject:
    status = pod.get("status", {})
    for kind in ("initContainerStatuses", "containerStatuses"):
        for one in status.get(kind) or ():
            if one["name"] == container:
                state: KubernetesObject = one["state"]
                return state
    return {}


def _node(directory: Path, worker_image: str, env: Mapping[str, str]) -> Node:
    """Describe this machine as the local cluster does, with nothing but its system to see."""
    secrets = directory / "secrets"
    secrets.mkdir(parents=True, exist_ok=True)
    prefixes = {os.path.realpath(sys.base_prefix), os.path.realpath(sys.base_exec_prefix)}
    return Node(
        sandbox=choose_sandbox(os.environ.get("S3RUNNER_LOCAL_SANDBOX", "")),
        worker_image=worker_image,
        python=os.path.realpath(sys.executable),
        prefixes=tuple(sorted(prefixes - {"/usr", "/usr/local"})),
        image={
            "site/s3runner": str(package_dir("s3runner")),
            "site/obstore": str(package_dir("obstore")),
            "site/job_scripts": str(job_scripts_dir()),
        },
        worker_env=dict(env),
        secrets=str(secrets),
    )
