"""The keys of a destination that only Kubernetes has, and the plain values that they become.

They stand apart from the other settings because `cluster: local` refuses each of them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from s3runner.kubernetes_values import (
    DnsLabel,
    DnsName,
    Entry,
    LabelValue,
    OwnLabel,
    Qualified,
    Raw,
)
from s3runner.pod_fields import DirectoryFields, PodFields, Text, Written
from s3runner.pod_model import (
    KubernetesPlace,
    NodeChoice,
    Placement,
    PodCredentials,
    PodShape,
)
from s3runner.resource_fields import Bytes, WorkerResourceFields
from s3runner.yamlfile import Checked, Seconds

_HIGHEST_ID = 2**31 - 1
CREDENTIAL_FORMS = (
    "credentials: {service_account: NAME} or credentials: {secret: NAME, access_key: KEY, "
    "secret_key: KEY}"
)

_UserId = Annotated[int, Field(ge=0, le=_HIGHEST_ID)]


class CredentialFields(Checked):
    """Where fetch and stager, and no other container, get the store's keys from."""

    service_account: DnsName | None = None
    """A ServiceAccount of the namespace whose role may use the bucket (IRSA, workload identity)."""

    secret: DnsName | None = None
    """A Secret of the namespace that holds the keys."""

    access_key: Entry = "AWS_ACCESS_KEY_ID"
    """The Secret's entry with the access key."""

    secret_key: Entry = "AWS_SECRET_ACCESS_KEY"  # noqa: S105  # an entry's name
    """The Secret's entry with the secret key."""

    session_token: Entry | None = None
    """The Secret's entry with a session token, where there is one."""

    @model_validator(mode="after")
    def _one_form(self) -> CredentialFields:
        keys = {"access_key", "secret_key", "session_token"} & self.model_fields_set
        if (self.service_account is None) == (self.secret is None) or (keys and not self.secret):
            raise ValueError(f"has two forms: {CREDENTIAL_FORMS}")
        return self


class NodeFields(Checked):
    """Which nodes a pod may run on."""

    node_selector: dict[Qualified, LabelValue | None] = Field(default_factory=dict)
    """Labels that a node must have. In `spot.then` a label without a value is taken out."""

    affinity: Raw | None = None
    """Node, pod and anti-affinity, as Kubernetes writes it."""

    tolerations: list[Raw] | None = None
    """Taints of nodes that do not keep the pod away, as Kubernetes writes them."""

    priority_class: DnsName | None = None
    """The PriorityClass of the pods."""

    topology_spread: list[Raw] | None = None
    """How pods spread over zones or nodes: `topologySpreadConstraints`, as Kubernetes writes it."""

    gpu_product: LabelValue | None = None
    """The GPU that a job with one needs, by the node's label `nvidia.com/gpu.product`."""

    def choice(self) -> NodeChoice:
        """Return them as plain values."""
        return NodeChoice(
            node_selector={**self.node_selector},
            affinity=self.affinity,
            tolerations=None if self.tolerations is None else tuple(self.tolerations),
            priority_class=self.priority_class,
            topology_spread=None if self.topology_spread is None else tuple(self.topology_spread),
            gpu_product=self.gpu_product,
        )


class ThenFields(NodeFields):
    """Where a job goes on when its nodes were taken away too often."""

    max_evictions: int | None = Field(default=None, ge=0, le=100)
    """Pods that may be lost there; absent means as many as before."""

    def placement(self) -> Placement:
        """Return it as plain values."""
        return Placement(self.choice(), self.max_evictions)


class PlaceFields(Checked):
    """Which cluster, by whose leave, and where its images come from."""

    context: Text | None = None
    """The kubeconfig's context; absent means its current one, or in a pod the cluster around it."""

    namespace: DnsLabel | None = None
    """The namespace of the Jobs; absent means the context's own."""

    kubeconfig: Text | None = None
    """The kubeconfig, relative to the settings file; absent means `$KUBECONFIG`, then \
`~/.kube/config`."""

    credentials: CredentialFields | None = None
    """Where fetch and stager, and no other container, get the store's keys from; needed."""

    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """When nodes pull images; absent means what Kubernetes makes of an image's tag."""

    image_pull_secrets: list[DnsName] = Field(default_factory=list)
    """Secrets of the namespace with the registries' keys."""

    image_pull_timeout: Seconds = 600
    """How long an image that cannot be pulled is tried again before the job ends; a typing error \
should not take a day, a registry that is away for some minutes no job."""


class KubernetesFields(PodFields, NodeFields, PlaceFields):
    """What only `cluster: kubernetes` has."""

    labels: dict[OwnLabel, LabelValue] = Field(default_factory=dict)
    """Labels of the Job, such as Kueue's `kueue.x-k8s.io/queue-name`."""

    annotations: dict[Qualified, Written] = Field(default_factory=dict)
    """Annotations of the Job."""

    pod_labels: dict[OwnLabel, LabelValue] = Field(default_factory=dict)
    """Labels of the pods."""

    pod_annotations: dict[Qualified, Written] = Field(default_factory=dict)
    """Annotations of the pods."""

    ttl_after_finished: Seconds | None = Field(default=None, le=_HIGHEST_ID)
    """How long the cluster keeps a Job that is over, should no head have removed it; absent means \
for ever."""

    do_not_disrupt: bool = True
    """Ask Karpenter and the cluster autoscaler not to empty a node while a job runs on it: the \
job would begin again."""

    run_as_user: _UserId = 1000
    """The user of all containers."""

    run_as_group: _UserId = 1000
    """The group of all containers."""

    fs_group: _UserId = 1000
    """The group that owns the pod's volumes."""

    tool_user: Literal["worker", "image"] = "worker"
    """`image` leaves the tool the user that its image names; fetch and stager then run as root \
with CHOWN, DAC_OVERRIDE and FOWNER only, which the restricted Pod Security standard refuses."""

    worker_resources: WorkerResourceFields = Field(default_factory=WorkerResourceFields)
    """What stager may use; fetch may use what the main containers may use together."""

    gpu_resource: Qualified = "nvidia.com/gpu"
    """What a GPU is called in the cluster; MIG slices have names such as \
`nvidia.com/mig-1g.5gb`."""

    work_volume: DirectoryFields = Field(default_factory=DirectoryFields)
    """Where inputs, outputs and the working directory lie: the node's disk, or memory."""

    disk_floor: Bytes = "1Gi"
    """The disk that `disk: auto` sets aside besides that for the inputs."""

    def place(
        self, then: tuple[Placement, ...], disk_factor: float | None
    ) -> KubernetesPlace | None:
        """Return them as plain values; None without credentials."""
        if self.credentials is None:
            return None
        timeout_s, ttl_s = round(self.image_pull_timeout), self.ttl_after_finished
        return KubernetesPlace(
            credentials=PodCredentials(**self.credentials.model_dump()),
            context=self.context,
            namespace=self.namespace,
            image_pull_timeout_s=max(1, timeout_s),
            pod=self._shape(None if ttl_s is None else round(ttl_s), disk_factor),
            then=then,
        )

    def _shape(self, ttl_s: int | None, disk_factor: float | None) -> PodShape:
        defaults = PodShape()
        return PodShape(
            nodes=self.choice(),
            parts=self.parts(),
            image_pull_policy=self.image_pull_policy,
            image_pull_secrets=tuple(self.image_pull_secrets),
            labels=self.labels,
            annotations=self.annotations,
            pod_labels=self.pod_labels,
            pod_annotations=self.pod_annotations,
            ttl_after_finished_s=ttl_s,
            do_not_disrupt=self.do_not_disrupt,
            run_as_user=self.run_as_user,
            run_as_group=self.run_as_group,
            fs_group=self.fs_group,
            tool_user=self.tool_user,
            worker_resources=self.worker_resources.written(),
            gpu_resource=self.gpu_resource,
            work_volume=self.work_volume.directory(),
            disk_factor=defaults.disk_factor if disk_factor is None else disk_factor,
            disk_floor=self.disk_floor,
        )
