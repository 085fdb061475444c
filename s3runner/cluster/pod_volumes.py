"""The pod's volumes, and what each container sees of them.

Pure. Control and work are s3runner's own; the others are what destination and job ask for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from s3runner.cluster.pod_paths import CONTROL, REFERENCES, TMP, WORK, check_mount, check_root
from s3runner.errors import SettingsError
from s3runner.model import Quantity
from s3runner.pod_model import Directory, PodParts, PodShape, Volume

JsonObject = dict[str, Any]


def volumes(shape: PodShape, parts: PodParts, disk: Quantity | None) -> list[JsonObject]:
    """Return the pod's volumes. `disk` is what the working directory may grow to on disk.

    Raises SettingsError for two volumes of one name.
    """
    work = shape.work_volume
    if not work.in_memory and work.size is None and disk is not None:
        work = Directory("", "", disk.limit)
    made = [
        {"name": "control", "emptyDir": {}},
        {"name": "work", "emptyDir": _empty_dir(work)},
        *(
            {"name": f"scratch-{number}", "emptyDir": _empty_dir(each)}
            for number, each in enumerate(parts.scratch)
        ),
    ]
    ours = {each["name"] for each in made}
    extra: dict[str, JsonObject] = {}
    for volume in parts.volumes:
        found = {"name": volume.name, **volume.source}
        if volume.name in ours:
            raise SettingsError(f"volumes: the name {volume.name} is s3runner's own")
        # one volume may be mounted in two places
        if extra.setdefault(volume.name, found) != found:
            raise SettingsError(f"volumes: there are two different ones named {volume.name}")
    return [*made, *extra.values()]


def work_mounts(roots: Sequence[str]) -> list[JsonObject]:
    """Return where every container sees the job's files."""
    return [
        {"name": "work", "mountPath": WORK, "subPath": "work"},
        {"name": "work", "mountPath": TMP, "subPath": "tmp"},
        *(
            {"name": "work", "mountPath": root, "subPath": f"roots/{number}"}
            for number, root in enumerate(roots)
        ),
    ]


def control_mount() -> JsonObject:
    """Return where s3runner's containers and the shim meet."""
    return {"name": "control", "mountPath": CONTROL}


def reference_mount(*, read_only: bool) -> JsonObject:
    """Return where the references lie; only fetch writes there."""
    mount: JsonObject = {"name": "work", "mountPath": REFERENCES, "subPath": "references"}
    return {**mount, "readOnly": True} if read_only else mount


def extra_mounts(parts: PodParts, container: str, roots: Sequence[str]) -> list[JsonObject]:
    """Return what a container sees besides the job's files.

    Raises SettingsError for a place where it would hide them.
    """
    wanted = [each for each in parts.volumes if container in each.containers]
    for path in (*(each.path for each in parts.scratch), *(each.mount for each in wanted)):
        check_mount(path, roots)
    for each in parts.scratch:
        check_root(each.path)
    return [
        *(
            {"name": f"scratch-{number}", "mountPath": each.path}
            for number, each in enumerate(parts.scratch)
        ),
        *map(_mount, wanted),
    ]


def unknown_containers(parts: PodParts, names: Iterable[str]) -> None:
    """Raise SettingsError for a volume that is to be mounted in a container that is not there."""
    known = {*names}
    for volume in parts.volumes:
        for name in volume.containers:
            if name not in known:
                raise SettingsError(
                    f"volumes: {volume.name} is to be mounted in {name}, which is no container",
                    hint=f"there are: {', '.join(sorted(known))}",
                )


def _mount(volume: Volume) -> JsonObject:
    mount: JsonObject = {"name": volume.name, "mountPath": volume.mount}
    if volume.sub_path is not None:
        mount["subPath"] = volume.sub_path
    if volume.read_only:
        mount["readOnly"] = True
    return mount


def _empty_dir(directory: Directory) -> JsonObject:
    made: JsonObject = {}
    if directory.medium:
        made["medium"] = directory.medium
    if directory.size is not None:
        made["sizeLimit"] = directory.size
    return made
