"""Every parameter that a job configuration of Galaxy may have here, and the setting it becomes.

It stands apart from `params` because docs/galaxy.md repeats it, and a test compares it with the
source of Galaxy's own Kubernetes runner.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from s3runner.galaxy import readings
from s3runner.galaxy.readings import Reading
from s3runner.kubernetes_values import Variable
from s3runner.pod_fields import Written
from s3runner.resource_fields import ResourceFields
from s3runner.settings_model import DestinationSettings, StoreSettings
from s3runner.yamlfile import Checked

Location = tuple[str, ...]

PREFIX = "s3runner_"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_TEXT = ("string", "number", "integer", "boolean", "null")


def _directory(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f"{value!r} is not an absolute directory")
    return os.path.normpath(value)


class OptionFields(Checked):
    """What a destination of Galaxy has besides the settings of `s3runner.yml`."""

    staging_workers: Annotated[int, Field(ge=1, le=64)] = 4
    """How many jobs stage in or sync at a time; of the runner, not of a destination."""

    missing_outputs: Literal["fail", "empty"] = "fail"
    """What a declared output that the tool never wrote is: an error, or an empty dataset."""

    sync: Literal["copy", "link"] = "copy"
    """Whether results come here, or are links to where the bucket is mounted."""

    mount: Annotated[str, AfterValidator(_directory)] | None = None
    """The directory of this machine that shows the bucket, from its root on."""

    evict_inputs: bool = False
    """Whether datasets that were staged in give way to links, too."""

    env: dict[Variable, Written] = Field(default_factory=dict)
    """Variables of the tool."""


@dataclass(frozen=True, slots=True)
class Param:
    """What becomes of a parameter: its place among the settings, and how its value is read.

    Without a place the value is only checked; `spread` says that it is several settings there.
    `told` is the documentation's sentence.
    """

    place: Location = ()
    read: Reading = readings.scalar
    told: str = ""
    spread: bool = False


@dataclass(frozen=True, slots=True)
class Tables:
    """The parameters by their names, those that are refused with the reason."""

    taken: Mapping[str, Param]
    refused: Mapping[str, str] = field(default_factory=dict)


def _destination(*keys: str) -> Location:
    return ("destination", *keys)


_INTERACTIVE = "interactive tools are not run: a pod has no way in"

KUBERNETES = Tables(
    taken={
        "k8s_config_path": Param(_destination("kubeconfig")),
        "k8s_use_service_account": Param(
            ("options", "in_cluster"),
            readings.truth,
            "Not needed: it is what s3runner does in a pod where there is no kubeconfig.",
        ),
        "k8s_persistent_volume_claims": Param(
            _destination("volumes"),
            readings.volumes,
            "Volumes for other data, such as indices: inputs that lie there are not staged. "
            "Galaxy's own directories need none, and a job that has to write into one is refused.",
        ),
        "k8s_namespace": Param(
            _destination("namespace"), told="Absent: the namespace of the context, or of the pod."
        ),
        "k8s_pod_priority_class": Param(_destination("priority_class")),
        "k8s_affinity": Param(_destination("affinity"), readings.structure),
        "k8s_node_selector": Param(_destination("node_selector"), readings.structure),
        "k8s_tolerations": Param(_destination("tolerations"), readings.structure),
        "k8s_extra_job_envs": Param(
            ("options", "env"), readings.mapping, "Also for jobs without resources."
        ),
        "k8s_galaxy_instance_id": Param(
            _destination("pod_labels", "app.kubernetes.io/instance"),
            readings.instance,
            "The pods' label `app.kubernetes.io/instance` is `gxy-` and this, as with Galaxy.",
        ),
        "k8s_job_api_version": Param((), readings.job_api, "`batch/v1`."),
        "k8s_job_ttl_secs_after_finished": Param(
            _destination("ttl_after_finished"), readings.seconds_to_keep, "0 is read as 1."
        ),
        "k8s_job_metadata": Param(
            _destination(),
            readings.job_metadata,
            "`labels` and `annotations`: `s3runner_pod_labels` and `s3runner_pod_annotations`.",
            spread=True,
        ),
        "k8s_supplemental_group_id": Param(
            _destination("patch", "spec", "securityContext", "supplementalGroups"),
            readings.more_groups,
            "`$gid` is the group of Galaxy's process.",
        ),
        "k8s_run_as_user_id": Param(
            _destination("run_as_user"),
            readings.user,
            "`$uid` is the user of Galaxy's process. Absent: 1000, not the image's user.",
        ),
        "k8s_run_as_group_id": Param(
            _destination("run_as_group"), readings.group, "`$gid` as above. Absent: 1000."
        ),
        "k8s_fs_group_id": Param(
            _destination("fs_group"), readings.group, "`$gid` as above. Absent: 1000."
        ),
        "k8s_pull_policy": Param(
            _destination("image_pull_policy"),
            readings.pull_policy,
            "`Default` leaves it to Kubernetes.",
        ),
        "k8s_cleanup_job": Param(
            (),
            readings.cleanup,
            "`always`; what a Job leaves behind, its streams included, lies in the bucket.",
        ),
        "k8s_pod_retries": Param(
            ("options", "pod_retries"),
            readings.whole,
            "With `k8s_job_spec_back_off_limit`: the smaller of both is `retry.tool`.",
        ),
        "k8s_job_spec_back_off_limit": Param(
            ("options", "back_off_limit"),
            readings.whole,
            "As above; lost nodes have a budget of their own, `spot.max_evictions`.",
        ),
        "k8s_walltime_limit": Param(
            _destination("walltime"),
            told="Of the tool's run in one attempt; waiting for a node does not count.",
        ),
        "k8s_unschedulable_walltime_limit": Param(
            _destination("pending_timeout"), readings.limit_or_none, "Absent: a day."
        ),
        "requests_cpu": Param(
            _destination("resources", "cpu", "request"), told="`500m` is right, too."
        ),
        "limits_cpu": Param(_destination("resources", "cpu", "limit")),
        "requests_memory": Param(
            _destination("resources", "memory", "request"),
            readings.bytes_of,
            "Galaxy's units: `4g` is `4G`, `4Gi` is more.",
        ),
        "limits_memory": Param(
            _destination("resources", "memory", "limit"), readings.bytes_of, "Likewise."
        ),
        "max_pod_retries": Param(
            ("options", "pod_retries"), readings.whole, "`k8s_pod_retries` of a destination."
        ),
    },
    refused={
        "k8s_working_volume_claim": "no volume is shared: job directories travel through S3",
        "k8s_data_volume_claim": "no volume is shared: datasets travel through S3",
        "k8s_timeout_seconds_job_deletion": "Galaxy does not start with it and uses it for "
        "nothing; s3runner_grace is how long a pod has to end",
        "k8s_interactivetools_use_ssl": _INTERACTIVE,
        "k8s_interactivetools_ingress_annotations": _INTERACTIVE,
        "k8s_interactivetools_ingress_class": _INTERACTIVE,
        "k8s_interactivetools_tls_secret": _INTERACTIVE,
        "k8s_ingress_api_version": _INTERACTIVE,
    },
)
"""The parameters of Galaxy's own Kubernetes runner."""

FORK = Tables(
    taken={
        "gg_storage_bucket": Param(("store", "bucket")),
        "gg_workspace_bucket": Param(("store", "bucket")),
        "gg_instance_name": Param(("store", "prefix")),
        "gg_setup_env": Param((), readings.setup_env),
    }
)
"""What the Globus Genomics fork has in galaxy.yml; of two buckets the workspace's is taken."""

SETTINGS_FILE = (f"{PREFIX}settings", f"{PREFIX}destination")
"""A file `s3runner.yml` that lies below all parameters, and which of its destinations."""

OF_THE_RUNNER = (f"{PREFIX}staging_workers",)
"""What no destination may say for itself."""


@functools.cache
def own_params() -> Tables:
    """Return s3runner's own parameters: each setting of `s3runner.yml` behind the prefix."""
    destination = set(DestinationSettings.model_fields) - {"resources"}
    found = {
        **dict(_fields(StoreSettings, set(StoreSettings.model_fields) - {"url"}, ("store",))),
        "bucket": Param(("store", "bucket")),
        "prefix": Param(("store", "prefix")),
        "references": Param(("references",), readings.structure),
        **dict(_fields(DestinationSettings, destination, _destination())),
        **dict(
            _fields(ResourceFields, set(ResourceFields.model_fields), _destination("resources"))
        ),
        "queue": Param(_destination("labels", QUEUE_LABEL)),
        **dict(_fields(OptionFields, set(OptionFields.model_fields) - {"env"}, ("options",))),
        "evict_inputs": Param(("options", "evict_inputs"), readings.truth),
    }
    file = {name: Param() for name in SETTINGS_FILE}
    return Tables({**{f"{PREFIX}{name}": param for name, param in found.items()}, **file})


def _fields(
    model: type[BaseModel], names: set[str], place: Location
) -> Iterator[tuple[str, Param]]:
    properties = model.model_json_schema()["properties"]
    for name in sorted(names):
        read = readings.scalar if _is_text(properties[name]) else readings.structure
        yield name, Param((*place, name), read)


def _is_text(schema: Mapping[str, Any]) -> bool:
    """Tell whether a setting takes nothing but one word or number."""
    if "anyOf" in schema:
        return all(_is_text(form) for form in schema["anyOf"])
    kinds = schema.get("type")
    return {kinds} <= set(_TEXT) if isinstance(kinds, str) else isinstance(kinds, list)
