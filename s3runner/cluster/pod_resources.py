"""How much of a node each container of a pod asks for.

Pure, and apart from the pod's object because it is arithmetic on quantities, which settings, plan
and retries need too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Any

from s3runner.cluster.quantity import parse_quantity, whole
from s3runner.model import Quantity, Resources
from s3runner.pod_model import Directory, PodParts, PodShape

JsonObject = dict[str, Any]

CPU, MEMORY, DISK = "cpu", "memory", "ephemeral-storage"
_MIB = 1024**2
_BLOCK = 4096
"""What a file occupies at least, and a multiple of."""


def effective_resources(resources: Resources) -> Resources:
    """Fill in what the job left open: one core and 2 GiB, requested, without a limit."""
    cpu, memory = resources.cpu, resources.memory
    return Resources(
        cpu=cpu if _is_said(cpu) else Quantity(request="1"),
        memory=memory if _is_said(memory) else Quantity(request="2Gi"),
        disk=resources.disk,
        gpu=resources.gpu,
    )


def resources_of(job: Resources, default: Resources) -> Resources:
    """Return what a job asks for, and for the rest what its destination says."""
    return Resources(
        cpu=job.cpu if _is_said(job.cpu) else default.cpu,
        memory=job.memory if _is_said(job.memory) else default.memory,
        disk=job.disk if _is_said(job.disk) else default.disk,
        gpu=job.gpu or default.gpu,
    )


def automatic_disk(
    sizes: Iterable[int], shape: PodShape, parts: PodParts, factor: float | None
) -> Quantity:
    """Return the disk for inputs of these sizes, request and limit: a job's `disk: auto`.

    It is the floor, the inputs times the factor, and every other directory of the pod that has a
    size and lies on disk.
    """
    blocks = sum(-(-size // _BLOCK) * _BLOCK for size in sizes)
    times = Decimal(str(shape.disk_factor if factor is None else factor))
    inputs = Decimal(0) if shape.work_volume.in_memory else blocks * times
    beside = [each.size for each in _directories(parts) if each.size and not each.in_memory]
    total = parse_quantity(shape.disk_floor) + inputs + sum(map(parse_quantity, beside), Decimal(0))
    text = bytes_text(total)
    return Quantity(text, text)


def memory_of_volumes(work: Directory, parts: PodParts) -> Decimal:
    """Return the bytes of the directories that lie in memory, which count for who writes them."""
    held = [each.size for each in (work, *_directories(parts)) if each.in_memory and each.size]
    return sum(map(parse_quantity, held), Decimal(0))


def tool_resources(resources: Resources, shape: PodShape, parts: PodParts) -> JsonObject:
    """Return what the tool's container asks for: its own, and the memory of the pod's volumes."""
    volumes = memory_of_volumes(shape.work_volume, parts)
    named = {
        CPU: resources.cpu,
        MEMORY: _plus(resources.memory, volumes),
        DISK: resources.disk,
    }
    asked = {name: item.request or item.limit for name, item in named.items()}
    requests = {name: quantity for name, quantity in asked.items() if quantity}
    limits = {name: item.limit for name, item in named.items() if item.limit}
    if resources.gpu:
        limits[shape.gpu_resource] = str(resources.gpu)
    return {"requests": requests, "limits": limits} if limits else {"requests": requests}


def fetch_resources(mains: Sequence[Mapping[str, Any]]) -> JsonObject:
    """Return what fetch asks for: as much as the main containers together, which run after it.

    A scheduler takes the larger of both, so it costs nothing. Where one of them has no limit the
    sum has none.
    """
    given = [container.get("resources") or {} for container in mains]
    limits = [each.get("limits") or {} for each in given]
    requests = [{**most, **(each.get("requests") or {})} for each, most in zip(given, limits)]  # noqa: B905  # two views of one list
    found = {
        "requests": {name: _sum(name, requests) for name in (CPU, MEMORY, DISK)},
        "limits": {
            name: _sum(name, limits)
            for name in (CPU, MEMORY, DISK)
            if all(name in each for each in limits)
        },
    }
    named = {kind: {k: v for k, v in sums.items() if v} for kind, sums in found.items()}
    return {kind: sums for kind, sums in named.items() if sums}


def bytes_text(number: Decimal) -> str:
    """Write bytes as people do: whole mebibytes, rounded up."""
    return f"{int((number / _MIB).to_integral_value(ROUND_CEILING))}Mi"


def _directories(parts: PodParts) -> Iterable[Directory]:
    """Yield every emptyDir that parts ask for."""
    yield from parts.scratch
    for volume in parts.volumes:
        made = volume.source.get("emptyDir")
        if made is not None:
            size = made.get("sizeLimit")
            yield Directory("", made.get("medium") or "", None if size is None else str(size))


def _plus(quantity: Quantity, more: Decimal) -> Quantity:
    if not more:
        return quantity
    return Quantity(*(text and bytes_text(parse_quantity(text) + more) for text in _both(quantity)))


def _both(quantity: Quantity) -> tuple[str | None, str | None]:
    return quantity.request, quantity.limit


def _sum(name: str, amounts: Iterable[Mapping[str, Any]]) -> str | None:
    texts = [str(each[name]) for each in amounts if name in each]
    if len(texts) < 2:  # noqa: PLR2004  # one is its own sum, as it was written
        return texts[0] if texts else None
    total = sum(map(parse_quantity, texts), Decimal(0))
    if name != CPU:
        return bytes_text(total)
    return str(int(total)) if total == int(total) else f"{whole(str(total * 1000))}m"


def _is_said(quantity: Quantity) -> bool:
    return quantity.request is not None or quantity.limit is not None
