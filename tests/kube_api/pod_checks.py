"""What a pod's spec must be for the API server to take it.

Pure, and apart from the Job's own rules because it is where most of what users write ends up.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from typing import Any

from kube_api import syntax
from kube_api.syntax import Cause, wrong
from s3runner.cluster.quantity import parse_quantity
from s3runner.errors import SettingsError

KubernetesObject = dict[str, Any]

_MEDIUMS = ("", "Memory", "HugePages")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_FIELD_PATHS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName",
    "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
_STANDARD_RESOURCES = ("cpu", "memory", "ephemeral-storage")
_HIGHEST_ID = 2**31 - 1


def pod_causes(field: str, pod: KubernetesObject) -> Iterator[Cause]:
    """Yield what is wrong with a pod's spec."""
    volumes = pod.get("volumes") or []
    yield from _volume_causes(f"{field}.volumes", volumes)
    known = {volume.get("name") for volume in volumes}
    containers = pod.get("containers") or []
    if not containers:
        yield f"{field}.containers", "Required value"
    yield from _container_list_causes(field, pod, known)
    yield from syntax.labels(f"{field}.nodeSelector", pod.get("nodeSelector"))
    for index, toleration in enumerate(pod.get("tolerations") or ()):
        yield from _toleration_causes(f"{field}.tolerations[{index}]", toleration)
    for index, spread in enumerate(pod.get("topologySpreadConstraints") or ()):
        yield from _spread_causes(f"{field}.topologySpreadConstraints[{index}]", spread)
    yield from _node_affinity_causes(f"{field}.affinity.nodeAffinity", pod)
    yield from syntax.not_negative(
        f"{field}.terminationGracePeriodSeconds", pod.get("terminationGracePeriodSeconds")
    )
    if pod.get("serviceAccountName"):
        yield from syntax.dns_subdomain(f"{field}.serviceAccountName", pod["serviceAccountName"])
    yield from _id_causes(f"{field}.securityContext", pod.get("securityContext") or {})
    if pod.get("dnsPolicy"):
        allowed = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
        yield from syntax.one_of(f"{field}.dnsPolicy", pod["dnsPolicy"], *allowed)


def _container_list_causes(field: str, pod: KubernetesObject, volumes: set[Any]) -> Iterator[Cause]:
    seen: set[str] = set()
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(pod.get(kind) or ()):
            where = f"{field}.{kind}[{index}]"
            name = container.get("name")
            if name in seen:
                yield f"{where}.name", f'Duplicate value: "{name}"'
            seen.add(name)
            yield from _container_causes(where, container, volumes)
            restart = container.get("restartPolicy")
            if restart is not None and (kind != "initContainers" or restart != "Always"):
                yield f"{where}.restartPolicy", "Forbidden: may not be set for this container"


def _container_causes(
    field: str, container: KubernetesObject, volumes: set[Any]
) -> Iterator[Cause]:
    yield from syntax.dns_label(f"{field}.name", container.get("name"))
    image = container.get("image", "")
    if not image:
        yield f"{field}.image", "Required value"
    elif image != image.strip():
        yield f"{field}.image", wrong(image, "must not have leading or trailing whitespace")
    policy = container.get("imagePullPolicy")
    if policy is not None:
        yield from syntax.one_of(
            f"{field}.imagePullPolicy", policy, "Always", "IfNotPresent", "Never"
        )
    for index, variable in enumerate(container.get("env") or ()):
        yield from _env_causes(f"{field}.env[{index}]", variable)
    yield from _mount_causes(f"{field}.volumeMounts", container.get("volumeMounts") or (), volumes)
    yield from _resource_causes(f"{field}.resources", container.get("resources") or {})
    yield from _id_causes(f"{field}.securityContext", container.get("securityContext") or {})
    context = container.get("securityContext") or {}
    if context.get("privileged") and context.get("allowPrivilegeEscalation") is False:
        why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        yield f"{field}.securityContext", wrong("", why)


def _env_causes(field: str, variable: KubernetesObject) -> Iterator[Cause]:
    yield from syntax.env_name(f"{field}.name", variable.get("name"))
    source = variable.get("valueFrom")
    if source is None:
        return
    if variable.get("value"):
        yield f"{field}.valueFrom", wrong("", "may not be specified when `value` is not empty")
    if len(source) != 1:
        many = "may not have more than one field specified at a time"
        yield f"{field}.valueFrom", wrong("", many if source else "must specify one of: …")
    path = (source.get("fieldRef") or {}).get("fieldPath")
    if path is not None and not path.startswith(("metadata.labels[", "metadata.annotations[")):
        yield from syntax.one_of(f"{field}.valueFrom.fieldRef.fieldPath", path, *_FIELD_PATHS)
    for kind in {"secretKeyRef", "configMapKeyRef"} & set(source):
        for part in ("name", "key"):
            if not source[kind].get(part):
                yield f"{field}.valueFrom.{kind}.{part}", "Required value"


def _mount_causes(
    field: str, mounts: Iterable[KubernetesObject], volumes: set[Any]
) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        where = f"{field}[{index}]"
        if mount.get("name") not in volumes:
            yield f"{where}.name", f'Not found: "{mount.get("name")}"'
        path = mount.get("mountPath", "")
        if not path:
            yield f"{where}.mountPath", "Required value"
        elif path in seen:
            yield f"{where}.mountPath", wrong(path, "must be unique")
        elif ":" in path:
            yield f"{where}.mountPath", wrong(path, "must not contain ':'")
        seen.add(path)
        sub_path = mount.get("subPath", "")
        if posixpath.isabs(sub_path):
            yield f"{where}.subPath", wrong(sub_path, "must be a relative path")
        elif ".." in sub_path.split("/"):
            yield f"{where}.subPath", wrong(sub_path, "must not contain '..'")


def _volume_causes(field: str, volumes: Iterable[KubernetesObject]) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        where = f"{field}[{index}]"
        name = volume.get("name")
        yield from syntax.dns_label(f"{where}.name", name)
        if name in seen:
            yield f"{where}.name", f'Duplicate value: "{name}"'
        seen.add(str(name))
        kinds = sorted(set(volume) - {"name"})
        if not kinds:
            yield where, "Required value: must specify a volume type"
        for kind in kinds[1:]:
            yield f"{where}.{kind}", "Forbidden: may not specify more than 1 volume type"
        directory = volume.get("emptyDir")
        if directory is not None:
            yield from _empty_dir_causes(f"{where}.emptyDir", directory)
        claim = volume.get("persistentVolumeClaim")
        if claim is not None and not claim.get("claimName"):
            yield f"{where}.persistentVolumeClaim.claimName", "Required value"


def _empty_dir_causes(field: str, directory: KubernetesObject) -> Iterator[Cause]:
    medium = directory.get("medium", "")
    if medium not in _MEDIUMS and not medium.startswith("HugePages-"):
        yield f"{field}.medium", f'Unsupported value: "{medium}"'
    if directory.get("sizeLimit") is not None:
        yield from syntax.quantity(f"{field}.sizeLimit", directory["sizeLimit"])


def _resource_causes(field: str, resources: KubernetesObject) -> Iterator[Cause]:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for kind, amounts in (("requests", requests), ("limits", limits)):
        for name, amount in amounts.items():
            yield from _amount_causes(f"{field}.{kind}", name, amount)
    for name, amount in requests.items():
        most = limits.get(name)
        own = "/" in name
        if own and most is None:
            yield (
                f"{field}.limits",
                "Required value: Limit must be set for non overcommitable resources",
            )
        if most is not None and _number(amount) > _number(most):
            less = f"must be less than or equal to {name} limit of {most}"
            yield f"{field}.requests", wrong(str(amount), less)
        elif own and most is not None and _number(amount) != _number(most):
            equal = f"must be equal to {name} limit of {most}"
            yield f"{field}.requests", wrong(str(amount), equal)


def _amount_causes(field: str, name: str, amount: object) -> Iterator[Cause]:
    yield from syntax.qualified_name(field, name)
    if "/" not in name and name not in _STANDARD_RESOURCES and not name.startswith("hugepages-"):
        yield f"{field}[{name}]", wrong(name, "must be a standard resource for containers")
    bad = [*syntax.quantity(f"{field}[{name}]", amount)]
    yield from bad
    if not bad and "/" in name and _number(amount) % 1:
        yield f"{field}[{name}]", wrong(str(amount), "must be an integer")


def _number(amount: object) -> Any:
    try:
        return parse_quantity(str(amount))
    except SettingsError:
        return 0


def _toleration_causes(field: str, toleration: KubernetesObject) -> Iterator[Cause]:
    key, operator = toleration.get("key"), toleration.get("operator") or "Equal"
    if key:
        yield from syntax.qualified_name(f"{field}.key", key)
    elif operator != "Exists":
        why = "operator must be Exists when `key` is empty"
        yield f"{field}.operator", wrong(operator, why)
    yield from syntax.one_of(f"{field}.operator", operator, "Equal", "Exists")
    if operator == "Exists" and toleration.get("value"):
        why = "value must be empty when `operator` is 'Exists'"
        yield f"{field}.operator", wrong(toleration["value"], why)
    if toleration.get("effect"):
        yield from syntax.one_of(f"{field}.effect", toleration["effect"], *_EFFECTS)
    if toleration.get("tolerationSeconds") is not None and toleration.get("effect") != "NoExecute":
        why = "effect must be 'NoExecute' when `tolerationSeconds` is set"
        yield f"{field}.effect", wrong(toleration.get("effect", ""), why)


def _spread_causes(field: str, spread: KubernetesObject) -> Iterator[Cause]:
    if (spread.get("maxSkew") or 0) <= 0:
        yield f"{field}.maxSkew", wrong(spread.get("maxSkew", 0), "must be greater than zero")
    if not spread.get("topologyKey"):
        yield f"{field}.topologyKey", "Required value: can not be empty"
    whens = ("DoNotSchedule", "ScheduleAnyway")
    yield from syntax.one_of(f"{field}.whenUnsatisfiable", spread.get("whenUnsatisfiable"), *whens)


def _node_affinity_causes(field: str, pod: KubernetesObject) -> Iterator[Cause]:
    affinity = ((pod.get("affinity") or {}).get("nodeAffinity")) or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return
    terms = required.get("nodeSelectorTerms") or []
    where = f"{field}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
    if not terms:
        yield where, "Required value: must have at least one node selector term"
    allowed = ("DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn")
    for index, term in enumerate(terms):
        for number, wanted in enumerate(term.get("matchExpressions") or ()):
            inner = f"{where}[{index}].matchExpressions[{number}]"
            yield from syntax.qualified_name(f"{inner}.key", wanted.get("key", ""))
            yield from syntax.one_of(f"{inner}.operator", wanted.get("operator"), *allowed)
            if wanted.get("operator") in ("In", "NotIn") and not wanted.get("values"):
                told = "must be specified when `operator` is 'In' or 'NotIn'"
                yield f"{inner}.values", f"Required value: {told}"


def _id_causes(field: str, context: KubernetesObject) -> Iterator[Cause]:
    for name in ("runAsUser", "runAsGroup", "fsGroup"):
        value = context.get(name)
        if value is not None and not 0 <= value <= _HIGHEST_ID:
            yield f"{field}.{name}", wrong(value, "must be between 0 and 2147483647, inclusive")
