"""What a Kubernetes destination makes of a pod: frozen values, names of Secrets but no secret.

They stand apart from `model` because nothing but the Job object reads them. What is Kubernetes' own
(a toleration, a container, a patch) stays in Kubernetes' own JSON form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Raw = Mapping[str, Any]
"""A piece of an object as Kubernetes writes it."""

AS_WORKER = "worker"
AS_IMAGE = "image"
"""Whose user the tool runs as: that of fetch and stager, or the one of its own image."""


@dataclass(frozen=True, slots=True)
class PodCredentials:
    """Where fetch and stager find the store's keys: a service account's role, or a Secret."""

    service_account: str | None = None
    secret: str | None = None
    access_key: str = "AWS_ACCESS_KEY_ID"
    secret_key: str = "AWS_SECRET_ACCESS_KEY"  # noqa: S105  # the name of a Secret's entry
    session_token: str | None = None


@dataclass(frozen=True, slots=True)
class Directory:
    """An emptyDir: on the node's disk, or in memory (medium `Memory`), then with a size.

    `path` is where a scratch directory is mounted; empty for the working directory.
    """

    path: str = ""
    medium: str = ""
    size: str | None = None

    @property
    def in_memory(self) -> bool:
        """Tell whether what it holds counts as memory of who wrote it."""
        return self.medium != ""


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume that the pod gets besides s3runner's own, and where its containers see it."""

    name: str
    source: Raw
    mount: str
    read_only: bool = False
    sub_path: str | None = None
    containers: tuple[str, ...] = ("tool",)


@dataclass(frozen=True, slots=True)
class SecretKey:
    """One entry of a Secret."""

    secret: str
    key: str


@dataclass(frozen=True, slots=True)
class PodParts:
    """What destination and job may both add to a pod.

    `init_containers` run after fetch, one after the other; `sidecars` start after fetch and end
    with the pod; `containers` run beside the tool and have to end by themselves.
    """

    init_containers: tuple[Raw, ...] = ()
    sidecars: tuple[Raw, ...] = ()
    containers: tuple[Raw, ...] = ()
    volumes: tuple[Volume, ...] = ()
    scratch: tuple[Directory, ...] = ()
    secret_env: Mapping[str, SecretKey] = field(default_factory=dict)
    patches: tuple[Raw, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether there is anything."""
        return self != PodParts()

    def plus(self, other: PodParts) -> PodParts:
        """Return these parts, then the other's."""
        return PodParts(
            init_containers=(*self.init_containers, *other.init_containers),
            sidecars=(*self.sidecars, *other.sidecars),
            containers=(*self.containers, *other.containers),
            volumes=(*self.volumes, *other.volumes),
            scratch=(*self.scratch, *other.scratch),
            secret_env={**self.secret_env, **other.secret_env},
            patches=(*self.patches, *other.patches),
        )

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> PodParts:
        """Return the parts of these fields."""
        return cls(
            init_containers=tuple(document["init_containers"]),
            sidecars=tuple(document["sidecars"]),
            containers=tuple(document["containers"]),
            volumes=tuple(
                Volume(**{**item, "containers": tuple(item["containers"])})
                for item in document["volumes"]
            ),
            scratch=tuple(Directory(**item) for item in document["scratch"]),
            secret_env={name: SecretKey(**key) for name, key in document["secret_env"].items()},
            patches=tuple(document["patches"]),
        )


@dataclass(frozen=True, slots=True)
class NodeChoice:
    """Which nodes a pod may run on; None leaves it to whoever else says something.

    In `node_selector` None takes a label out that was asked for elsewhere.
    """

    node_selector: Mapping[str, str | None] = field(default_factory=dict)
    affinity: Raw | None = None
    tolerations: tuple[Raw, ...] | None = None
    priority_class: str | None = None
    topology_spread: tuple[Raw, ...] | None = None
    gpu_product: str | None = None

    def over(self, other: NodeChoice) -> NodeChoice:
        """Return what this choice says, and for the rest what the other says."""
        selector = {**other.node_selector, **self.node_selector}
        return NodeChoice(
            {key: value for key, value in selector.items() if value is not None},
            other.affinity if self.affinity is None else self.affinity,
            other.tolerations if self.tolerations is None else self.tolerations,
            self.priority_class or other.priority_class,
            other.topology_spread if self.topology_spread is None else self.topology_spread,
            self.gpu_product or other.gpu_product,
        )

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> NodeChoice:
        """Return the choice of these fields."""
        lists = {
            name: None if document[name] is None else tuple(document[name])
            for name in ("tolerations", "topology_spread")
        }
        return cls(**{**document, **lists})


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a job goes on after too many evictions; None: as many as before."""

    nodes: NodeChoice
    max_evictions: int | None = None


@dataclass(frozen=True, slots=True)
class PodShape:
    """Everything about the pods of a destination that the Job object says.

    `worker_resources` are stager's, as Kubernetes writes them; fetch may use what the main
    containers may use together. `disk_factor` and `disk_floor` make a size of `disk: auto`.
    """

    nodes: NodeChoice = NodeChoice()
    parts: PodParts = PodParts()
    image_pull_policy: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    pod_labels: Mapping[str, str] = field(default_factory=dict)
    pod_annotations: Mapping[str, str] = field(default_factory=dict)
    ttl_after_finished_s: int | None = None
    do_not_disrupt: bool = True
    run_as_user: int = 1000
    run_as_group: int = 1000
    fs_group: int = 1000
    tool_user: str = AS_WORKER
    worker_resources: Raw = field(
        default_factory=lambda: {"requests": {"cpu": "10m", "memory": "96Mi"}}
    )
    gpu_resource: str = "nvidia.com/gpu"
    work_volume: Directory = Directory()
    disk_factor: float = 3.0
    disk_floor: str = "1Gi"

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> PodShape:
        """Return the shape of these fields."""
        values = {
            "nodes": NodeChoice.from_json(document["nodes"]),
            "parts": PodParts.from_json(document["parts"]),
            "image_pull_secrets": tuple(document["image_pull_secrets"]),
            "work_volume": Directory(**document["work_volume"]),
        }
        return cls(**{**document, **values})


@dataclass(frozen=True, slots=True)
class KubernetesPlace:
    """A namespace of a Kubernetes cluster, and the pods to make there.

    None stands for what kubectl would take. `then` is where a job goes on, one after the other,
    when a placement's evictions are spent.
    """

    credentials: PodCredentials
    context: str | None = None
    namespace: str | None = None
    image_pull_timeout_s: int = 600
    pod: PodShape = PodShape()
    then: tuple[Placement, ...] = ()

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> KubernetesPlace:
        """Return the place of these fields."""
        values = {
            "credentials": PodCredentials(**document["credentials"]),
            "pod": PodShape.from_json(document["pod"]),
            "then": tuple(
                Placement(NodeChoice.from_json(item["nodes"]), item["max_evictions"])
                for item in document["then"]
            ),
        }
        return cls(**{**document, **values})
