"""The models of a job file: every key, what it takes, and what is refused.

They stand apart from `jobfile` because they are also its JSON Schema; they know no file system.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Tag, WithJsonSchema, field_validator, model_validator

from s3runner.cluster.quantity import parse_quantity
from s3runner.errors import SettingsError
from s3runner.model import Quantity
from s3runner.places import place_of
from s3runner.retry_fields import RetryFields
from s3runner.yamlfile import BY_FORM, Checked, Seconds

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LEAST_BYTES = 1024**2


def _text(value: str) -> str:
    if not value.strip() or "\0" in value:
        raise ValueError("must be text that is not blank and holds no NUL")
    return value


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


Written = Annotated[str, WithJsonSchema({"type": ["string", "number", "boolean"]})]
"""Text that other readers of YAML may take for a number."""

Number = Annotated[str, WithJsonSchema({"type": ["string", "number"]})]
Text = Annotated[str, AfterValidator(_text)]
Place = Annotated[str, AfterValidator(place_of)]
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
    """Room for inputs, outputs and scratch: `auto`, or such as `50Gi`."""

    gpu: CountForm = 0
    """Whole GPUs."""


class OutputFields(Checked):
    """One declared output."""

    path: Place
    """A path or a glob, relative to the working directory or absolute."""

    optional: bool = False
    """Whether the job succeeds without it."""


CommandForm = Annotated[
    Annotated[Text, Tag("<text>")]
    | Annotated[Annotated[list[Written], Field(min_length=1)], Tag("<list>")],
    BY_FORM,
]
OutputForm = Annotated[
    Annotated[Place, Tag("<text>")] | Annotated[OutputFields, Tag("<mapping>")], BY_FORM
]
PlacedReferences = Annotated[dict[Text, Place | None], Field(min_length=1)]
ReferenceForm = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[PlacedReferences, Tag("<mapping>")], BY_FORM
]
ReferencesForm = Annotated[
    Annotated[list[ReferenceForm], Tag("<list>")]
    | Annotated[PlacedReferences, Tag("<mapping>")]
    | Annotated[Literal[""], Tag("<text>")],
    BY_FORM,
]


class JobFile(Checked):
    """One job for s3runner."""

    name: str | None = None
    """Names the job and the directory its results land in; absent means the file's name."""

    image: Text | None = None
    """The container image of the tool; needed on Kubernetes only."""

    command: CommandForm
    """Text for `/bin/sh`, or a list: the program and its arguments."""

    inputs: dict[str, Text] = Field(default_factory=dict)
    """Place in the pod -> source: a file or directory beside the job file, or a URL."""

    references: ReferencesForm = Field(default_factory=list)
    """Names of the settings' references: a list of names or `name: place`, or a mapping."""

    outputs: list[OutputForm] = Field(default_factory=list)
    """Paths and globs to bring back."""

    resources: ResourceFields = Field(default_factory=ResourceFields)
    """What the tool needs."""

    retry: RetryFields = Field(default_factory=RetryFields)
    """When the job is tried again after a failure; what is not said here is the destination's."""

    walltime: Seconds | None = None
    """How long the tool may run in one attempt: `2h`, `30m`, `90s`, `1d`, or seconds."""

    env: dict[str, Written] = Field(default_factory=dict)
    """Environment variables of the tool."""

    @field_validator("name")
    @classmethod
    def _named(cls, value: str | None) -> str | None:
        if value is not None and not _NAME.fullmatch(value):
            raise ValueError("takes letters, digits, '.', '_' and '-', 63 at most")
        return value

    @field_validator("command")
    @classmethod
    def _runnable(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, list) and (not value[0] or any("\0" in word for word in value)):
            raise ValueError("begins with a program's name, and holds no NUL")
        return value
