"""The models of `s3runner.yml`: every key, its unit, its default and the reason for it.

They stand apart from `settings` because they are the reference of docs/settings.md, which repeats
these very sentences (a test compares them).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, Tag, ValidationInfo, field_validator, model_validator

from s3runner.cluster.pod_paths import reference_variable
from s3runner.errors import SettingsError
from s3runner.kubernetes_fields import CREDENTIAL_FORMS, KubernetesFields, ThenFields
from s3runner.model import S3Uri
from s3runner.nearest import did_you_mean
from s3runner.places import place_of
from s3runner.resource_fields import ResourceFields
from s3runner.retry_fields import RetryFields
from s3runner.yamlfile import BY_FORM, Checked, Seconds

_CLUSTERS = ("local", "kubernetes")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}")
_MAX_PREFIX_BYTES = 200


def split_url(url: str) -> tuple[str, str]:
    """Return bucket and key (without a closing slash). Raises ValueError."""
    try:
        uri = S3Uri.parse(url)
    except SettingsError as error:
        raise ValueError(error.reason) from error
    return uri.bucket, uri.key.removesuffix("/")


def _check_s3(url: str) -> str:
    split_url(url)
    return url


S3Url = Annotated[str, AfterValidator(_check_s3)]


class StoreSettings(Checked):
    """The bucket that jobs move their files through."""

    url: S3Url
    """Bucket and prefix, `s3://bucket/prefix`; everything s3runner writes lies below it."""

    insecure_http: bool = False
    """Allow an `http://` endpoint. Off, because keys and data then cross the network readable."""

    endpoint: str | None = None
    """The store's address as this machine sees it; absent means AWS."""

    pod_endpoint: str | None = None
    """The same store's address as the pods see it; absent means `endpoint`."""

    region: str | None = None
    """The bucket's region; absent means `us-east-1`, which most stores other than AWS accept."""

    path_style: bool | None = None
    """Put the bucket into the URL's path, not into the host name; absent means: with an endpoint \
yes, on AWS no."""

    ca_bundle: str | None = None
    """A PEM file, relative to the settings file, with the CAs to trust for the endpoint. At most \
64 KiB, because it travels inside the Job object."""

    profile: str | None = None
    """The profile of the shared AWS files to take credentials from; absent means the usual chain, \
the environment first."""

    retry_budget_s: float = Field(default=300.0, ge=0)
    """Seconds to keep trying a request that fails for a temporary reason, counted from its first \
failure; long enough for a gateway's restart."""

    blob_ttl: Seconds = Field(default=2592000, ge=86400)
    """How long `gc` leaves staged inputs that no running job names; a third of it is how long \
jobs reuse them without sending them again. 30 days, at least one, and the same on every machine \
that uses this prefix."""

    job_ttl: Seconds = Field(default=7776000, ge=86400)
    """How long `gc` leaves a job after its end, outputs and logs included; 90 days, at least \
one."""

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        bucket, prefix = split_url(value)
        if not _BUCKET.fullmatch(bucket):
            raise ValueError(f"{bucket!r} is not a bucket's name")
        segments = prefix.split("/") if prefix else []
        if any(part in ("", ".", "..") or not part.isprintable() for part in segments):
            raise ValueError("the prefix has an empty, '.' or '..' segment, or a control character")
        if len(prefix.encode()) > _MAX_PREFIX_BYTES:
            raise ValueError(f"the prefix is longer than {_MAX_PREFIX_BYTES} bytes")
        return value

    @field_validator("endpoint", "pod_endpoint")
    @classmethod
    def _endpoint(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http:// or https:// URL")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("must have no user, password, query or fragment")
        if parts.scheme == "http" and not info.data.get("insecure_http"):
            raise ValueError(
                "is plain http; use https, or set insecure_http: true for a store on a "
                "trusted network"
            )
        return value.rstrip("/")


class ReferenceSettings(Checked):
    """Read-only shared data that jobs stage by name."""

    url: S3Url
    """Where the data lies: `s3://bucket/key`, with a closing slash for everything below it."""

    path: str | None = None
    """The place in the pod, absolute, or relative to the working directory; absent means a place \
of s3runner's own, told in `S3RUNNER_REF_<NAME>`."""

    @field_validator("path")
    @classmethod
    def _place(cls, value: str | None) -> str | None:
        return None if value is None else place_of(value)


class SpotSettings(Checked):
    """What to do when nodes are taken away."""

    max_evictions: int = Field(default=3, ge=0, le=100)
    """Pods that may be lost to evictions before the job ends; each starts again from its inputs."""

    then: list[ThenFields] = Field(default_factory=list)
    """Where the job goes on instead of ending, one after the other; on Kubernetes."""


class LocalSettings(Checked):
    """What belongs to `cluster: local` only."""

    read_only: list[str] = Field(default_factory=list)
    """Absolute directories of this machine that jobs may read in place, besides the system's own; \
none by default, so that a job works here only if it would work elsewhere."""

    @field_validator("read_only")
    @classmethod
    def _absolute(cls, value: list[str]) -> list[str]:
        for item in value:
            if not item.startswith("/") or "\0" in item:
                raise ValueError(f"{item!r} is not an absolute directory")
        return value


class DestinationFields(Checked):
    """What every destination has."""

    cluster: str = "local"
    """What runs the jobs: `local` (processes on this machine), or `kubernetes`."""

    worker_image: str = "s3runner-worker"
    """The image of the containers that fetch and stage out; the local cluster runs them from this \
installation instead."""

    grace: Seconds = 30
    """Time between TERM and KILL when a pod is ended; the streams and the result of an \
interrupted tool have to leave in it."""

    start_timeout: Seconds = 900
    """How long a pod whose inputs are there waits for its tool to start; 15 minutes cover a slow \
image pull."""

    staging_timeout: Seconds = 21600
    """How long the hops of one attempt may take together, as far as the net around a whole job is \
concerned; 6 hours move some terabytes."""

    pending_timeout: Seconds = 86400
    """How long a pod may wait for a node before the job ends, or goes on with `spot.then`; a day, \
for clusters that grow slowly."""

    walltime: Seconds = 172800
    """How long a tool may run in one attempt when its job does not say."""

    max_active: int | None = Field(default=None, ge=1)
    """How many jobs of this destination may be on its cluster at a time; the others wait in the \
order of their submission. Absent means no bound."""

    spot: SpotSettings = Field(default_factory=SpotSettings)
    """What to do when nodes are taken away."""

    resources: ResourceFields = Field(default_factory=ResourceFields)
    """What a job asks for that does not say."""

    retry: RetryFields = Field(default_factory=RetryFields)
    """When a job that failed is tried again."""

    local: LocalSettings = Field(default_factory=LocalSettings)
    """What belongs to `cluster: local` only."""

    @model_validator(mode="before")
    @classmethod
    def _known_cluster(cls, data: object) -> object:
        """Speak of an unknown cluster alone: its other keys would all be unknown too."""
        cluster = data.get("cluster", "local") if isinstance(data, Mapping) else "local"
        if cluster in _CLUSTERS or cluster is None:
            return data
        available = ", ".join(_CLUSTERS)
        near = did_you_mean(str(cluster), _CLUSTERS)
        raise ValueError(f"cluster: there is no {cluster!r}{near} (available: {available})")


class DestinationSettings(KubernetesFields, DestinationFields):
    """A named place to run jobs, with its limits."""

    @model_validator(mode="after")
    def _of_one_kind(self) -> DestinationSettings:
        if self.cluster == "kubernetes":
            if self.credentials is None:
                raise ValueError(f"cluster: kubernetes needs {CREDENTIAL_FORMS}")
            if "local" in self.model_fields_set:
                raise ValueError("local: belongs to cluster: local")
            return self
        foreign = [name for name in KubernetesFields.model_fields if name in self.model_fields_set]
        if self.spot.then:
            foreign.append("spot.then")
        if foreign:
            raise ValueError(f"{', '.join(foreign)}: on cluster: kubernetes only")
        return self


ReferenceForm = Annotated[
    Annotated[S3Url, Tag("<text>")] | Annotated[ReferenceSettings, Tag("<mapping>")],
    BY_FORM,
]


class SettingsFile(Checked):
    """The settings of s3runner."""

    store: StoreSettings
    """The bucket that jobs move their files through."""

    references: dict[str, ReferenceForm] = Field(default_factory=dict)
    """Read-only shared data by name: a URL, or a mapping."""

    destinations: dict[str, DestinationSettings] = Field(
        default_factory=lambda: {"default": DestinationSettings()}
    )
    """Places to run jobs, by name; without any there is `default`, on this machine."""

    @field_validator("references")
    @classmethod
    def _one_variable_each(cls, value: dict[str, Any]) -> dict[str, Any]:
        _check_names(value)
        variables: dict[str, str] = {}
        for name in value:
            other = variables.setdefault(reference_variable(name), name)
            if other != name:
                raise ValueError(f"{other!r} and {name!r} share {reference_variable(name)}")
        return value

    @field_validator("destinations")
    @classmethod
    def _named(cls, value: dict[str, Any]) -> dict[str, Any]:
        _check_names(value)
        if not value:
            raise ValueError("names no destination")
        for name in value:
            if not name[-1].isalnum():
                # a label of its Jobs, and Kubernetes refuses such a value
                raise ValueError(f"{name!r} must end with a letter or digit")
        return value


def _check_names(names: Mapping[str, object]) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name: letters, digits, '.', '_' and '-', 63 at most")
