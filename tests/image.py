"""The worker image under test: the archive that `make image` leaves, and containers made of it.

A container is what a restricted pod has: the image as a read-only root, UID 1000, no capability, no
other process, and nothing writable but its volumes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from service_rule import missing_service, require_program

from s3runner.cluster.local.container import Mount, plan_container
from s3runner.cluster.local.node import BUBBLEWRAP, Node, Sandbox

ROOT = Path(__file__).parents[1]
ARCHIVE = ROOT / "dist" / "s3runner-worker.tar"

UID = 1000
DEADLINE_S = 240

NAMES = ("/etc/hosts", "/etc/resolv.conf")
"""A runtime gives these files to every container."""

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class Image:
    """An image's configuration, its files as its layers describe them, and where they lie."""

    name: str
    config: JsonObject
    files: Mapping[str, tarfile.TarInfo]
    root: Path

    @property
    def env(self) -> dict[str, str]:
        """The environment that it gives to every container."""
        return dict(item.split("=", 1) for item in self.config["Env"])


def unpack(archive: Path, root: Path) -> Image:
    """Lay an OCI archive out as a container runtime does; its devices are the runtime's."""
    files: dict[str, tarfile.TarInfo] = {}
    with tarfile.open(archive) as outer:
        (listed,) = _document(outer, "index.json")["manifests"]
        manifest = _document(outer, _blob(listed["digest"]))
        config = _document(outer, _blob(manifest["config"]["digest"]))["config"]
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=_open(outer, _blob(layer["digest"]))) as inner:
                for member in inner:
                    _lay(inner, member, root, files)
    for path in NAMES:
        (root / path.lstrip("/")).touch()
    return Image(listed["annotations"]["org.opencontainers.image.ref.name"], config, files, root)


def _lay(
    layer: tarfile.TarFile, member: tarfile.TarInfo, root: Path, files: dict[str, tarfile.TarInfo]
) -> None:
    path = member.name.removeprefix("./")
    folder, _, name = path.rpartition("/")
    if name.startswith(".wh."):
        hidden = f"{folder}/{name.removeprefix('.wh.')}".lstrip("/")
        for gone in [each for each in files if f"{each}/".startswith(f"{hidden}/")]:
            del files[gone]
        place = root / hidden
        shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
        return
    files[path] = member
    if not member.isdev():
        # by default from Python 3.14 on only what a stranger's archive may hold
        layer.extraction_filter = staticmethod(lambda member, _path: member)
        layer.extract(member, root)


def _open(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    found = archive.extractfile(name)
    assert found is not None, name
    return found


def _document(archive: tarfile.TarFile, name: str) -> JsonObject:
    found: JsonObject = json.loads(_open(archive, name).read())
    return found


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def require_image(root: Path) -> Image:
    """Return the image of this very tree, laid out below `root`."""
    require_program("bwrap")
    if not ARCHIVE.exists():
        missing_service("worker image", "`make image` builds it")
    image = unpack(ARCHIVE, root)
    inside = root / "opt" / "s3runner" / "s3runner"
    for package, folder in (("s3runner", inside), ("job_scripts", inside / "_job_scripts")):
        for source in (ROOT / package).rglob("*.*"):
            copy = folder / source.relative_to(ROOT / package)
            if source.suffix in {".py", ".sh"} and not _is_same(source, copy):
                missing_service(
                    "worker image",
                    f"not of {source.relative_to(ROOT)} as it is now: `make image` again",
                )
    return image


def _is_same(source: Path, copy: Path) -> bool:
    return copy.is_file() and copy.read_bytes() == source.read_bytes()


def start(
    image: Image,
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    mounts: Sequence[Mount] = (),
    options: Sequence[str] = (),
) -> subprocess.Popen[str]:
    """Start a container of the image; its mounts are the only places that it can write to."""
    for mount in mounts:
        # as a runtime does before it makes the root read-only
        (image.root / mount.path.lstrip("/")).mkdir(parents=True, exist_ok=True)
    variables = {**image.env, **(env or {})}
    command = [
        *("bwrap", "--unshare-all", "--share-net", "--unshare-user", "--as-pid-1"),
        *("--uid", str(UID), "--gid", str(UID), "--cap-drop", "ALL", "--die-with-parent"),
        *("--ro-bind", str(image.root), "/", "--proc", "/proc", "--dev", "/dev"),
        *(word for path in NAMES for word in ("--ro-bind", os.path.realpath(path), path)),
        *(word for mount in mounts for word in _bind(mount)),
        *options,
        "--clearenv",
        *(word for name, value in variables.items() for word in ("--setenv", name, value)),
        "--",
        *argv,
    ]
    as_user: JsonObject = {"user": UID, "group": UID, "extra_groups": ()}
    return subprocess.Popen(
        command,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **(as_user if os.geteuid() == 0 else {}),
    )


def _bind(mount: Mount) -> tuple[str, str, str]:
    return "--ro-bind" if mount.read_only else "--bind", mount.source, mount.path


@dataclass
class Ran:
    """A container that has ended: its exit code, and what it printed."""

    code: int
    output: str


def run(image: Image, argv: Sequence[str], **how: Any) -> Ran:
    """Run a container to its end."""
    return finish(start(image, argv, **how))


def finish(process: subprocess.Popen[str]) -> Ran:
    """Wait for a container's end."""
    with process:
        output, _ = process.communicate(timeout=DEADLINE_S)
    return Ran(process.returncode, output)


@dataclass
class ImagePod:
    """A kubelet for one pod, each container of which is made of the image, the tool's too.

    `secret` is what a Secret would give to fetch and stager.
    """

    image: Image
    volumes: Path
    secret: Mapping[str, str]
    ran: dict[str, Ran] = field(default_factory=dict)

    def run(self, job: JsonObject) -> None:
        """Run the pod of a Job: its init containers, and if those succeed its containers."""
        spec = job["spec"]["template"]["spec"]
        pod = {"metadata": {"uid": str(uuid.uuid4())}, "spec": spec}
        for container in spec["initContainers"]:
            self.ran[container["name"]] = finish(self._start(pod, container))
            if self.ran[container["name"]].code != 0:
                return
        started = {each["name"]: self._start(pod, each) for each in spec["containers"]}
        for name, process in started.items():
            self.ran[name] = finish(process)

    def _start(self, pod: JsonObject, container: JsonObject) -> subprocess.Popen[str]:
        node = Node(Sandbox(BUBBLEWRAP, ()), "none of these", "", (), {}, {}, "")
        plan = plan_container(pod, container, str(self.volumes), node)
        for mount in plan.mounts:
            place = Path(mount.source)
            for folder in (place, *place.parents):
                if folder == self.volumes.parent:
                    break
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o777)  # as a kubelet makes them
        declared = {name: value for name, value in plan.env.items() if name not in self.image.env}
        keys = {} if container["name"] == "tool" else self.secret
        working = ("--chdir", plan.cwd)
        return start(
            self.image,
            plan.argv,
            env={**declared, **keys},
            mounts=plan.mounts,
            options=working,
        )


def copy_packages(names: Sequence[str], folder: Path) -> None:
    """Copy installed pure Python packages, to be mounted into a container."""
    for name in names:
        found = importlib.util.find_spec(name)
        assert found is not None, name
        assert found.origin is not None, name
        origin = Path(found.origin)
        if origin.name == "__init__.py":
            shutil.copytree(
                origin.parent, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(origin, folder)
