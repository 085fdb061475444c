"""What destination and job may both add to a pod: containers, volumes, scratch, secrets, a patch.

It stands apart because a destination has these keys among its own, and a job file below `pod`.
"""

from __future__ import annotations

import posixpath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from s3runner.cluster.pod_paths import check_mount, check_root
from s3runner.errors import SettingsError
from s3runner.kubernetes_values import (
    Container,
    DnsLabel,
    DnsName,
    Entry,
    Raw,
    Variable,
)
from s3runner.pod_model import Directory, PodParts, SecretKey, Volume
from s3runner.resource_fields import Bytes
from s3runner.yamlfile import Checked


def _text(value: str) -> str:
    if not value.strip() or "\0" in value:
        raise ValueError("must be text that is not blank and holds no NUL")
    return value


def _mount(path: str) -> str:
    segments = path.split("/")[1:]
    if not path.startswith("/") or path == "/" or ":" in path or {"", ".", ".."} & {*segments[:-1]}:
        raise ValueError(f"{path!r} is no absolute path to mount at")
    place = posixpath.normpath(path)
    _said(lambda: check_mount(place, ()))
    return place


def _scratch(path: str) -> str:
    place = _mount(path)
    _said(lambda: check_root(place))
    return place


def _said(check: Any) -> None:
    try:
        check()
    except SettingsError as error:
        raise ValueError(f"{error.reason}; {error.hint}") from error


def _sub_path(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"{path!r} is no path in a volume: relative, without '..'")
    return path


Written = Annotated[str, WithJsonSchema({"type": ["string", "number", "boolean"]})]
"""Text that other readers of YAML may take for a number."""

Text = Annotated[str, AfterValidator(_text)]
MountPath = Annotated[str, AfterValidator(_mount)]
ScratchPath = Annotated[str, AfterValidator(_scratch)]
SubPath = Annotated[str, AfterValidator(_sub_path)]


class DirectoryFields(Checked):
    """A directory that lives as long as its pod."""

    medium: Literal["", "Memory"] = ""
    """`Memory` for a file system in memory; it counts for the memory of who writes to it, so that \
the tool's request and limit grow by its size."""

    size: Bytes | None = None
    """The most that it may hold; has to be said of one in memory."""

    @model_validator(mode="after")
    def _bounded(self) -> DirectoryFields:
        if self.medium and self.size is None:
            raise ValueError("a directory in memory needs a size")
        return self

    def directory(self) -> Directory:
        """Return it as plain values."""
        return Directory("", self.medium, self.size)


class ScratchFields(DirectoryFields):
    """A directory of the tool's own, that nothing is brought back from."""

    path: ScratchPath
    """Where the tool, and every container that was added, sees it."""

    def directory(self) -> Directory:
        """Return it as plain values."""
        return Directory(self.path, self.medium, self.size)


class VolumeFields(Checked):
    """A volume that is there already; exactly one of `pvc` to `source` says what it is."""

    name: DnsLabel
    """Its name in the pod."""

    mount: MountPath
    """Where the containers see it."""

    containers: list[DnsLabel] = Field(default_factory=lambda: ["tool"], min_length=1)
    """Which containers see it: `tool`, and those that were added, by their names."""

    read_only: bool = False
    """Whether nobody may write to it."""

    sub_path: SubPath | None = None
    """A directory of the volume to mount, not all of it."""

    pvc: DnsName | None = None
    """A PersistentVolumeClaim of the namespace."""

    host_path: MountPath | None = None
    """A directory of the node; the restricted Pod Security standard refuses it."""

    secret: DnsName | None = None
    """A Secret of the namespace: its entries as files."""

    config_map: DnsName | None = None
    """A ConfigMap of the namespace: its entries as files."""

    empty_dir: DirectoryFields | None = None
    """A directory of the pod, for containers to share."""

    source: Raw | None = None
    """Any other kind as Kubernetes writes it: `{nfs: {server: …, path: …}}`."""

    @model_validator(mode="after")
    def _one_source(self) -> VolumeFields:
        kinds = ("pvc", "host_path", "secret", "config_map", "empty_dir", "source")
        if sum(getattr(self, kind) is not None for kind in kinds) != 1:
            raise ValueError(f"needs exactly one of {', '.join(kinds)}")
        if self.source is not None and len(self.source) != 1:
            raise ValueError("source: names one kind of volume")
        return self

    def volume(self) -> Volume:
        """Return it as plain values."""
        return Volume(
            name=self.name,
            source=self._source(),
            mount=self.mount,
            read_only=self.read_only,
            sub_path=self.sub_path,
            containers=tuple(self.containers),
        )

    def _source(self) -> dict[str, Any]:
        if self.pvc is not None:
            claim: dict[str, Any] = {"claimName": self.pvc}
            # a claim of ReadOnlyMany can be mounted by its pods only so
            return {
                "persistentVolumeClaim": {**claim, "readOnly": True} if self.read_only else claim
            }
        if self.host_path is not None:
            return {"hostPath": {"path": self.host_path}}
        if self.secret is not None:
            return {"secret": {"secretName": self.secret}}
        if self.config_map is not None:
            return {"configMap": {"name": self.config_map}}
        if self.empty_dir is not None:
            made = {"medium": self.empty_dir.medium, "sizeLimit": self.empty_dir.size}
            return {"emptyDir": {key: value for key, value in made.items() if value}}
        return {**(self.source or {})}


class SecretKeyFields(Checked):
    """One entry of a Secret."""

    secret: DnsName
    """The Secret's name."""

    key: Entry
    """The entry's name in it."""


class PodFields(Checked):
    """What a pod gets besides the tool: a job's is added to its destination's."""

    init_containers: list[Container] = Field(default_factory=list)
    """Containers as Kubernetes writes them, which run after fetch and before the tool, one after \
the other: they see the inputs and the working directory, and may write there."""

    sidecars: list[Container] = Field(default_factory=list)
    """Containers that start after fetch, run beside the others and are ended when those have \
(`restartPolicy: Always`)."""

    containers: list[Container] = Field(default_factory=list)
    """Containers that run beside the tool and have to end by themselves: the pod waits for them. \
What they write counts only if the tool waits for it; how they end does not."""

    volumes: list[VolumeFields] = Field(default_factory=list)
    """Volumes that are there already, and where to mount them."""

    scratch: list[ScratchFields] = Field(default_factory=list)
    """Directories for the tool's temporary files, on the node's disk or in memory."""

    secret_env: dict[Variable, SecretKeyFields] = Field(default_factory=dict)
    """Environment variables of the tool that hold an entry of a Secret."""

    patch: Raw | None = None
    """A strategic-merge patch of the pod's template (`metadata`, `spec`), for all that has no key \
here; it must leave what s3runner needs."""

    def parts(self) -> PodParts:
        """Return them as plain values."""
        return PodParts(
            init_containers=tuple(self.init_containers),
            sidecars=tuple(self.sidecars),
            containers=tuple(self.containers),
            volumes=tuple(each.volume() for each in self.volumes),
            scratch=tuple(each.directory() for each in self.scratch),
            secret_env={
                name: SecretKey(item.secret, item.key) for name, item in self.secret_env.items()
            },
            patches=() if self.patch is None else (self.patch,),
        )
