"""What a Job must be for the API server to take it; each rule yields a field and a message.

Pure. Not checked: what s3runner and its settings have no word for (probes, ports, resource claims).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kube_api import syntax
from kube_api.pod_checks import pod_causes
from kube_api.syntax import Cause, wrong

KubernetesObject = dict[str, Any]

_RULES_MOST, _VALUES_MOST, _PATTERNS_MOST = 20, 255, 20
_NAME_LENGTH = 63
_LONGEST_TTL = 2**31 - 1


def job_causes(job: KubernetesObject) -> Iterator[Cause]:
    """Yield what is wrong with a Job that is to be created."""
    metadata, spec = job.get("metadata", {}), job.get("spec") or {}
    name = metadata.get("name")
    yield from syntax.dns_subdomain("metadata.name", name)
    yield from syntax.labels("metadata.labels", metadata.get("labels"))
    yield from syntax.annotation_map("metadata.annotations", metadata.get("annotations"))
    if len(name or "") > _NAME_LENGTH:
        limit = f"must be no more than {_NAME_LENGTH} bytes"
        yield "spec.template.labels", wrong(name, limit)
    numbers = ("parallelism", "completions", "backoffLimit", "activeDeadlineSeconds")
    for field in (*numbers, "ttlSecondsAfterFinished", "maxFailedIndexes"):
        yield from syntax.not_negative(f"spec.{field}", spec.get(field))
        if (spec.get(field) or 0) > _LONGEST_TTL:
            yield f"spec.{field}", wrong(spec[field], "must be less than or equal to 2147483647")
    if "selector" in spec and not spec.get("manualSelector"):
        yield "spec.selector", wrong("", "`selector` not auto-generated")
    yield from _template_causes(spec)
    yield from _replacement_causes(spec)
    if spec.get("podFailurePolicy") is not None:
        yield from _policy_causes(spec)


def _template_causes(spec: KubernetesObject) -> Iterator[Cause]:
    template = spec.get("template")
    if not template:
        yield "spec.template.spec.containers", "Required value"
        return
    metadata, pod = template.get("metadata") or {}, template.get("spec") or {}
    yield from syntax.labels("spec.template.labels", metadata.get("labels"))
    yield from syntax.annotation_map("spec.template.annotations", metadata.get("annotations"))
    restart = pod.get("restartPolicy", "Always")
    field = "spec.template.spec.restartPolicy"
    if restart == "Always":
        yield field, 'Required value: valid values: "OnFailure", "Never"'
    elif restart != "Never" and spec.get("podFailurePolicy") is not None:
        yield field, wrong(restart, 'only "Never" is supported when podFailurePolicy is specified')
    yield from pod_causes("spec.template.spec", pod)


def _replacement_causes(spec: KubernetesObject) -> Iterator[Cause]:
    policy = spec.get("podReplacementPolicy")
    if policy is None:
        return
    allowed = ["Failed"] if spec.get("podFailurePolicy") else ["Failed", "TerminatingOrFailed"]
    yield from syntax.one_of("spec.podReplacementPolicy", policy, *allowed)


def _policy_causes(spec: KubernetesObject) -> Iterator[Cause]:
    field = "spec.podFailurePolicy.rules"
    rules = spec["podFailurePolicy"].get("rules") or []
    if len(rules) > _RULES_MOST:
        yield field, f"Too many: {len(rules)}: must have at most {_RULES_MOST} items"
    pod = (spec.get("template") or {}).get("spec") or {}
    names = {c.get("name") for k in ("initContainers", "containers") for c in pod.get(k) or ()}
    for index, rule in enumerate(rules):
        yield from _rule_causes(f"{field}[{index}]", rule, names)


def _rule_causes(field: str, rule: KubernetesObject, names: set[Any]) -> Iterator[Cause]:
    yield from syntax.one_of(f"{field}.action", rule.get("action"), "Count", "FailJob", "Ignore")
    codes, patterns = rule.get("onExitCodes"), rule.get("onPodConditions") or []
    if codes is not None and patterns:
        yield field, wrong("", "specifying both OnExitCodes and OnPodConditions is not supported")
    elif codes is None and not patterns:
        yield field, wrong("", "specifying one of OnExitCodes and OnPodConditions is required")
    if codes is not None:
        yield from _exit_code_causes(f"{field}.onExitCodes", codes, names)
    if len(patterns) > _PATTERNS_MOST:
        yield f"{field}.onPodConditions", f"Too many: {len(patterns)}: must have at most 20 items"
    for index, pattern in enumerate(patterns):
        where = f"{field}.onPodConditions[{index}]"
        yield from syntax.qualified_name(f"{where}.type", pattern.get("type", ""))
        status = pattern.get("status", "True")
        yield from syntax.one_of(f"{where}.status", status, "False", "True", "Unknown")


def _exit_code_causes(field: str, codes: KubernetesObject, names: set[Any]) -> Iterator[Cause]:
    yield from syntax.one_of(f"{field}.operator", codes.get("operator"), "In", "NotIn")
    container = codes.get("containerName")
    if container is not None and container not in names:
        known = "must be one of the container or initContainer names in the pod template"
        yield f"{field}.containerName", wrong(container, known)
    values = codes.get("values") or []
    where = f"{field}.values"
    if not values:
        yield where, wrong("[]", "at least one value is required")
    if len(values) > _VALUES_MOST:
        yield where, f"Too many: {len(values)}: must have at most {_VALUES_MOST} items"
    if codes.get("operator") == "In" and 0 in values:
        yield where, wrong(0, "must not be 0 for the In operator")
    if len(set(values)) < len(values):
        yield where, f"Duplicate value: {next(v for v in values if values.count(v) > 1)}"
    elif sorted(values) != values:
        yield where, wrong(values, "must be ordered")
