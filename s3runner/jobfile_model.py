"""The models of a job file: every key, what it takes, and what is refused.

They stand apart from `jobfile` because they are also its JSON Schema; they know no file system.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Tag, field_validator

from s3runner.places import place_of
from s3runner.pod_fields import PodFields, Text, Written
from s3runner.resource_fields import ResourceFields
from s3runner.retry_fields import RetryFields
from s3runner.yamlfile import BY_FORM, Checked, Seconds

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


Place = Annotated[str, AfterValidator(place_of)]


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

    pod: PodFields = Field(default_factory=PodFields)
    """What the job adds to its pods on Kubernetes, besides what its destination does."""

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
