"""Where things lie in a pod, and which directories a job may have there.

Pure. Apart from the pod's object because job files and settings are checked by the same rules.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence

from s3runner.errors import SettingsError
from s3runner.staging.records import Spec

HOME = "/s3runner"
CONTROL = f"{HOME}/control"
WORK = f"{HOME}/work"
TMP = f"{HOME}/tmp"  # noqa: S108  # the pod's own, made for this job
REFERENCES = f"{HOME}/references"

FORBIDDEN_ROOTS = ("/usr", "/bin", "/etc", "/opt", "/dev", "/proc", "/sys", "/sbin")
"""A mount at, above or below these would hide the image's own files."""


def roots(paths: Iterable[str], above: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the directories to mount so that every absolute path among `paths` lies in one.

    Each is the parent of a declared path, or the one of `above` that the path lies in, and none
    lies in another. Raises SettingsError for one that would hide the image's own files.
    """
    absolute = (path for path in paths if path.startswith("/"))
    parents = sorted({_root_of(posixpath.dirname(path), above) for path in absolute})
    chosen: list[str] = []
    for parent in parents:
        check_root(parent)
        if not any(lies_in(parent, root) for root in chosen):
            chosen.append(parent)
    return tuple(chosen)


def declared_roots(
    spec: Spec, input_paths: Iterable[str], above: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the roots of a job: of its absolute inputs, outputs and references."""
    placed = (*input_paths, *(o.path for o in spec.outputs), *spec.references.values())
    return roots((path for path in placed if not path.startswith(f"{HOME}/")), above)


def _root_of(parent: str, above: Sequence[str]) -> str:
    return min((root for root in above if lies_in(parent, root)), key=len, default=parent)


def check_root(root: str) -> None:
    """Raise SettingsError for a directory that hides the image's own files when it is mounted."""
    inside = any(lies_in(root, bad) for bad in FORBIDDEN_ROOTS)
    if root == "/" or inside or root.startswith(("/lib", HOME)):
        raise SettingsError(
            f"an absolute path in {root} would hide the image's own files",
            hint="put absolute inputs and outputs into a directory of their own, such as /data/x",
        )


def check_mount(path: str, ours: Iterable[str]) -> None:
    """Raise SettingsError for a mount that hides one of `ours`, or would lie in one."""
    for own in (HOME, *ours):
        if lies_in(path, own) or lies_in(own, path):
            raise SettingsError(
                f"a volume at {path} and s3runner's own directory {own} would hide each other",
                hint="mount it at a path of its own, such as /mnt/x",
            )


def lies_in(path: str, directory: str) -> bool:
    """Tell whether a path is `directory` itself or lies below it."""
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")


def reference_variable(name: str) -> str:
    """Return the tool's variable that holds a reference's path: `hg38` -> `S3RUNNER_REF_HG38`."""
    safe = "".join(char if char.isalnum() and char.isascii() else "_" for char in name)
    return f"S3RUNNER_REF_{safe.upper()}"
