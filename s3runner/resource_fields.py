"""The `resources` block, which a destination and a job file share.

Quantities are checked here as strictly as Kubernetes does, so that a wrong one has a line number.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, Field, Tag, WithJsonSchema, model_validator

from s3runner.cluster.quantity import parse_quantity
from s3runner.errors import SettingsError
from s3runner.model import Quantity, Resources
from s3runner.yamlfile import BY_FORM, Checked

_LEAST_BYTES = 1024**2


def _cores(value: str) -> str:
    if not re.fullmatch(r"[\d.]+m?", value) or _number(value) <= 0:
        raise ValueError(f"{value!r} is no number of cores; write 4, 0.5 or 500m")
    return value


def _bytes(value: str) -> str:
    if value.endswith("m"):
        raise ValueError(f"{value!r} counts thousandths of a byte; write 500Mi")
    if _number(value) < _LEAST_BYTES:
        raise ValueError(f"{value!r} is less than 1Mi; write the unit, such as 500Mi or 8Gi")
    return value


def _disk(value: str) -> str:
    return value if value == "auto" else _bytes(value)


def _number(value: str) -> Decimal:
    try:
        return parse_quantity(value)
    except SettingsError as error:
        raise ValueError(error.reason) from error


Number = Annotated[str, WithJsonSchema({"type": ["string", "number"]})]
Cores = Annotated[Number, AfterValidator(_cores)]
Bytes = Annotated[Number, AfterValidator(_bytes)]
Count = Annotated[int, Field(ge=0, le=64)]


class Pair(Checked):
    """What the scheduler sets aside, and what the tool may not exceed."""

    @model_validator(mode="after")
    def _in_order(self) -> Pair:
        quantity = self.quantity()
        if quantity.request is None and quantity.limit is None:
            raise ValueError("needs a request, a limit, or both")
        request, limit = (quantity.request or "0"), (quantity.limit or quantity.request or "0")
        if parse_quantity(request) > parse_quantity(limit):
            raise ValueError(f"the request {request} is more than the limit {limit}")
        return self

    def quantity(self) -> Quantity:
        """Return the pair as plain values."""
        fields = self.model_dump()
        return Quantity(fields["request"], fields["limit"])


class CoresPair(Pair):
    """Cores, set aside and at most."""

    request: Cores | None = None
    """Cores that the scheduler sets aside."""

    limit: Cores | None = None
    """Cores that the tool is held to."""


class BytesPair(Pair):
    """Bytes, set aside and at most."""

    request: Bytes | None = None
    """Bytes that the scheduler sets aside."""

    limit: Bytes | None = None
    """Bytes past which the tool is ended."""


class CountPair(Checked):
    """Whole devices: Kubernetes wants both numbers to agree."""

    request: Count | None = None
    """Devices that the scheduler sets aside."""

    limit: Count | None = None
    """Devices that the tool may use; the same number."""

    @model_validator(mode="after")
    def _agree(self) -> CountPair:
        if self.request is not None and self.limit is not None and self.request != self.limit:
            raise ValueError("request and limit of a gpu must be the same number")
        return self


CoresForm = Annotated[
    Annotated[Cores, Tag("<text>")] | Annotated[CoresPair, Tag("<mapping>")], BY_FORM
]
BytesForm = Annotated[
    Annotated[Bytes, Tag("<text>")] | Annotated[BytesPair, Tag("<mapping>")], BY_FORM
]
DiskText = Annotated[Number, AfterValidator(_disk)]
DiskForm = Annotated[
    Annotated[DiskText, Tag("<text>")] | Annotated[BytesPair, Tag("<mapping>")], BY_FORM
]
CountForm = Annotated[
    Annotated[Count, Tag("<text>")] | Annotated[CountPair, Tag("<mapping>")], BY_FORM
]


class ResourceFields(Checked):
    """What the tool needs; a plain value is both request and limit."""

    cpu: CoresForm | None = None
    """Cores: `4`, `0.5`, `500m`."""

    memory: BytesForm | None = None
    """Memory: `8Gi`, `500Mi`."""

    disk: DiskForm = "auto"
    """Room for inputs, outputs and scratch: such as `50Gi`; `auto` is made of the inputs' size on \
Kubernetes, and no limit on `cluster: local`."""

    disk_factor: float | None = Field(default=None, ge=1, le=1000)
    """How many times the size of its inputs a job gets by `disk: auto`; absent means 3."""

    gpu: CountForm = 0
    """Whole GPUs."""

    def values(self) -> Resources:
        """Return them as plain values; nothing for what is not said."""
        gpu = self.gpu
        if isinstance(gpu, CountPair):
            gpu = gpu.limit or gpu.request or 0
        return Resources(
            cpu=quantity_of(self.cpu),
            memory=quantity_of(self.memory),
            disk=quantity_of(None if self.disk == "auto" else self.disk),
            gpu=gpu,
        )


class WorkerResourceFields(Checked):
    """What stager may use, beside the tool; a plain value is both request and limit."""

    cpu: CoresForm | None = None
    """Cores; absent means `10m` set aside, and no limit."""

    memory: BytesForm | None = None
    """Memory; absent means `96Mi` set aside, and no limit."""

    disk: BytesForm | None = None
    """Disk for its log; absent means that it asks for none. A quota may want one of each."""

    def written(self) -> dict[str, dict[str, str]]:
        """Return them as Kubernetes writes them."""
        named = {
            "cpu": quantity_of(self.cpu or CoresPair(request="10m")),
            "memory": quantity_of(self.memory or BytesPair(request="96Mi")),
            "ephemeral-storage": quantity_of(self.disk),
        }
        asked = {name: item.request or item.limit for name, item in named.items()}
        found = {
            "requests": {name: text for name, text in asked.items() if text},
            "limits": {name: item.limit for name, item in named.items() if item.limit},
        }
        return {kind: amounts for kind, amounts in found.items() if amounts}


def quantity_of(value: str | Pair | None) -> Quantity:
    """Return a plain value, a pair, or nothing as plain values."""
    if isinstance(value, Pair):
        return value.quantity()
    return Quantity(value, value)
