"""The documents of a job: spec, generation record, result and commit, as values and as JSON.

Pure. Head and pod read and write them through this module only, so the two halves of each wire
format stand side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from s3runner.errors import DamagedDocumentError, SpecError
from s3runner.model import (
    POD_FINAL,
    Destination,
    Manifest,
    Outcome,
    Output,
    Phase,
    Quantity,
    Resources,
    Retry,
)
from s3runner.pod_model import KubernetesPlace, PodParts
from s3runner.staging.manifest import (
    DAMAGE_HINT,
    document_digest,
    dump_document,
    dump_manifest,
    load_manifest,
    parse_document,
)

INLINE_LIMIT = 64 * 1024
"""A manifest smaller than this many bytes of JSON stands in the spec itself."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ExternalManifest:
    """An input manifest that lies beside the spec: its key and its document's digest."""

    key: str
    digest: str


@dataclass(frozen=True, slots=True)
class Spec:
    """`spec.json`: what one job is, complete, with everything resolved but the secrets.

    `references` maps a name to its absolute path in the pod; `roots` are the directories outside
    s3runner's own that the pod mounts (see `cluster.pod_paths.roots`). `sources` maps the inputs
    that were staged from the head's disk to their places there; no pod looks at it. `pod` is what
    the job itself adds to its pods.
    """

    job_id: str
    name: str
    command: str | tuple[str, ...]
    image: str | None
    env: Mapping[str, str]
    inputs: Manifest | ExternalManifest
    outputs: tuple[Output, ...]
    references: Mapping[str, str]
    roots: tuple[str, ...]
    resources: Resources
    walltime_s: float
    retry: Retry
    destination: Destination
    cluster: Mapping[str, str]
    created: str
    version: str
    sources: Mapping[str, str] = field(default_factory=dict)
    pod: PodParts = field(default_factory=PodParts)

    def dump(self) -> bytes:
        """Return the document."""
        inputs = (
            asdict(self.inputs)
            if isinstance(self.inputs, ExternalManifest)
            else dump_manifest(self.inputs)
        )
        command = self.command if isinstance(self.command, str) else list(self.command)
        return dump_document(
            {
                "job_id": self.job_id,
                "name": self.name,
                "command": command,
                "image": self.image,
                "env": dict(self.env),
                "inputs": inputs,
                "outputs": [asdict(output) for output in self.outputs],
                "references": dict(self.references),
                "roots": list(self.roots),
                "resources": asdict(self.resources),
                "walltime_s": self.walltime_s,
                "retry": asdict(self.retry),
                "destination": asdict(self.destination),
                "cluster": dict(self.cluster),
                "created": self.created,
                "version": self.version,
                "sources": dict(self.sources),
                "pod": asdict(self.pod),
            }
        )

    @classmethod
    def load(cls, body: bytes, origin: str) -> Spec:
        """Read the document back. Raises SpecError naming `origin` (a URI)."""
        return _read(origin, body, cls._from_json)

    @classmethod
    def _from_json(cls, document: dict[str, Any], origin: str) -> Spec:
        command = document["command"]
        inputs = document["inputs"]
        return cls(
            job_id=document["job_id"],
            name=document["name"],
            command=command if isinstance(command, str) else tuple(command),
            image=document["image"],
            env=document["env"],
            inputs=ExternalManifest(inputs["key"], inputs["digest"])
            if "key" in inputs
            else load_manifest(inputs, origin),
            outputs=tuple(Output(**output) for output in document["outputs"]),
            references=document["references"],
            roots=tuple(document["roots"]),
            resources=_resources(document["resources"]),
            walltime_s=float(document["walltime_s"]),
            retry=Retry(**document["retry"]),
            destination=_destination(document["destination"]),
            cluster=document["cluster"],
            created=document["created"],
            version=document["version"],
            sources=document["sources"],
            pod=PodParts.from_json(document["pod"]),
        )


@dataclass(frozen=True, slots=True)
class Commit:
    """`commit.json`: the one decision. `by` is `pod` or `head`.

    A head commits with no attempt when none left a result; `observation` is then what it saw.
    """

    by: str
    outcome: Outcome
    attempt: str | None
    result_digest: str | None
    generation: int
    observation: Mapping[str, Any] | None = None

    def dump(self) -> bytes:
        """Return the document."""
        return dump_document(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return the document's fields."""
        return {**asdict(self), "outcome": self.outcome.value}

    @classmethod
    def load(cls, body: bytes, origin: str) -> Commit:
        """Read the document back. Raises SpecError naming `origin`."""
        return _read(origin, body, lambda document, _: cls.from_json(document))

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Commit:
        """Return the commit of these fields. Raises KeyError, TypeError, ValueError."""
        return cls(
            by=document["by"],
            outcome=Outcome(document["outcome"]),
            attempt=document["attempt"],
            result_digest=document["result_digest"],
            generation=document["generation"],
            observation=document["observation"],
        )


@dataclass(frozen=True, slots=True)
class Generation:
    """`generations/<n>.json`: written before its Kubernetes Job is created.

    `resources` are this generation's own. `placement` says on which nodes: 0 is the destination's
    own choice, k its `spot.then[k - 1]`. `spent` counts by cause why earlier ones ended, and
    `attempts` the pods they took.
    With `end` it makes no Job: it is the head's decision on how the job ends, which every head then
    commits word for word. `stage_in` is what that hop cost, kept so that any head can report it.
    """

    number: int
    job_name: str
    spec_digest: str
    final: tuple[Outcome, ...] = POD_FINAL
    spent: Mapping[str, int] = field(default_factory=dict)
    previous: str | None = None
    end: Commit | None = None
    stage_in: Phase | None = None
    resources: Resources = field(default_factory=Resources)
    attempts: int = 0
    placement: int = 0

    def dump(self) -> bytes:
        """Return the document."""
        return dump_document(
            {
                "generation": self.number,
                "job_name": self.job_name,
                "spec_digest": self.spec_digest,
                "resources": asdict(self.resources),
                "final": [outcome.value for outcome in self.final],
                "spent": dict(self.spent),
                "attempts": self.attempts,
                "placement": self.placement,
                "previous": self.previous,
                "end": self.end.to_json() if self.end else None,
                "stage_in": self.stage_in.to_json() if self.stage_in else None,
            }
        )

    @classmethod
    def load(cls, body: bytes, origin: str) -> Generation:
        """Read the document back. Raises SpecError naming `origin`."""
        return _read(
            origin,
            body,
            lambda document, _: cls(
                number=document["generation"],
                job_name=document["job_name"],
                spec_digest=document["spec_digest"],
                resources=_resources(document["resources"]),
                final=tuple(Outcome(name) for name in document["final"]),
                spent=document["spent"],
                attempts=document["attempts"],
                placement=document["placement"],
                previous=document["previous"],
                end=Commit.from_json(document["end"]) if document["end"] else None,
                stage_in=Phase(**document["stage_in"]) if document["stage_in"] else None,
            ),
        )


@dataclass(frozen=True, slots=True)
class Result:
    """`attempts/<uid>/result.json`: what one attempt did.

    `error` is `S3RunnerError.to_json`; `spent` are the counters of the attempt's generation.
    """

    job_id: str
    generation: int
    attempt: str
    outcome: Outcome
    tool_exit_code: int | None = None
    manifest_digest: str | None = None
    phases: Mapping[str, Phase] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    spent: Mapping[str, int] = field(default_factory=dict)

    def dump(self) -> bytes:
        """Return the document."""
        return dump_document(
            {
                "job_id": self.job_id,
                "generation": self.generation,
                "attempt": self.attempt,
                "outcome": self.outcome.value,
                "tool_exit_code": self.tool_exit_code,
                "manifest_digest": self.manifest_digest,
                "phases": {name: phase.to_json() for name, phase in self.phases.items()},
                "error": self.error,
                "warnings": list(self.warnings),
                "spent": dict(self.spent),
            }
        )

    @classmethod
    def load(cls, body: bytes, origin: str) -> Result:
        """Read the document back. Raises SpecError naming `origin`."""
        return _read(
            origin,
            body,
            lambda document, _: cls(
                job_id=document["job_id"],
                generation=document["generation"],
                attempt=document["attempt"],
                outcome=Outcome(document["outcome"]),
                tool_exit_code=document["tool_exit_code"],
                manifest_digest=document["manifest_digest"],
                phases={name: Phase(**cost) for name, cost in document["phases"].items()},
                error=document["error"],
                warnings=tuple(document["warnings"]),
                spent=document["spent"],
            ),
        )


def check_digest(body: bytes, expected: str, origin: str) -> bytes:
    """Return `body` if it is the document that was named. Raises DamagedDocumentError."""
    found = document_digest(body)
    if found != expected:
        reason = f"damaged document: digest {found}, expected {expected}"
        raise DamagedDocumentError(reason, source=origin, hint=DAMAGE_HINT)
    return body


def _read(origin: str, body: bytes, build: Callable[[dict[str, Any], str], T]) -> T:
    document = parse_document(body, origin)
    try:
        return build(document, origin)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"damaged document ({type(error).__name__}: {error})"
        raise SpecError(reason, source=origin, hint=DAMAGE_HINT) from error


def _resources(document: Mapping[str, Any]) -> Resources:
    return Resources(
        Quantity(**document["cpu"]),
        Quantity(**document["memory"]),
        Quantity(**document["disk"]),
        document["gpu"],
    )


def _destination(document: Mapping[str, Any]) -> Destination:
    known = {item.name for item in fields(Destination)}
    values = {name: value for name, value in document.items() if name in known}
    place, resources = document.get("kubernetes"), document.get("resources")
    nested = {
        "read_only": tuple(values["read_only"]),
        "retry": Retry(**values["retry"]),
        "resources": _resources(resources) if resources else Resources(),
        "kubernetes": KubernetesPlace.from_json(place) if place else None,
    }
    return Destination(**{**values, **nested})
