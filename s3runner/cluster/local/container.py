"""What a container of a pod is to run: program, environment and mounts, as Kubernetes reads them.

Pure, and apart from what starts processes, so that each rule can be tested by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from s3runner.cluster.local.node import BUBBLEWRAP, IMAGE_PATH, NO_SANDBOX, SECRETS_PATH, Node
from s3runner.errors import ClusterRefusedError

_DEFAULT_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/",
}
_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
_WORKER_PROGRAM = "execute_job.py"

KubernetesObject = dict[str, Any]


class Mount(NamedTuple):
    """A directory of this machine at a path of the container."""

    path: str
    source: str
    read_only: bool = False


class Plan(NamedTuple):
    """What to run, in the container's own paths."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    mounts: tuple[Mount, ...]


def plan_container(
    pod: KubernetesObject, container: KubernetesObject, home: str, node: Node
) -> Plan:
    """Return what to run; `home` holds the pod's `volumes` and, without mounts, its `image`."""
    is_worker = container["image"] == node.worker_image
    declared = _declared_env(pod, container)
    env = {**_DEFAULT_ENV, **(_worker_env(node) if is_worker else {}), **declared}
    if node.sandbox.kind == NO_SANDBOX:
        env["S3RUNNER_SHIM"] = "no-pidns"
    words = [*container.get("command", []), *container.get("args", [])]
    argv = [expand(word, declared) for word in words]
    if is_worker and argv[:1] == [_WORKER_PROGRAM]:
        script = f"{IMAGE_PATH}/site/job_scripts/{_WORKER_PROGRAM}"
        argv = [node.python, "-S", "-s", script, *argv[1:]]
    mounts = [
        *_volume_mounts(container, f"{home}/volumes"),
        *(_worker_mounts(node, home) if is_worker else []),
    ]
    cwd = container.get("workingDir", "/")
    return Plan(tuple(argv), env, cwd, tuple(sorted(mounts, key=lambda mount: mount.path)))


def expand(text: str, known: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by a known variable and `$$` by `$`; an unknown name stays as it is."""

    def replacement(match: re.Match[str]) -> str:
        name = match.group(1)
        return "$" if name is None else known.get(name, match.group(0))

    return _REFERENCE.sub(replacement, text)


def relocate(plan: Plan) -> Plan:
    """Rewrite a plan for a container without mounts: its paths become those of this machine.

    A word, a value or the working directory is rewritten if it is a mounted path or lies below one;
    of nested ones the longest decides. A path inside a longer text is left alone.
    """
    longest_first = sorted(plan.mounts, key=lambda mount: -len(mount.path))

    def moved(text: str) -> str:
        for mount in longest_first:
            if text == mount.path or text.startswith(mount.path + "/"):
                return mount.source + text[len(mount.path) :]
        return text

    return Plan(
        tuple(map(moved, plan.argv)),
        {name: moved(value) for name, value in plan.env.items()},
        moved(plan.cwd),
        (),
    )


def refuse_unsupported(pod_spec: KubernetesObject, sandbox: str) -> None:
    """Raise ClusterRefusedError for a pod that this machine cannot run as it is meant."""
    if pod_spec.get("restartPolicy") != "Never":
        raise ClusterRefusedError("the local cluster runs pods of restartPolicy Never only")
    for volume in pod_spec.get("volumes", []):
        if "emptyDir" not in volume:
            kinds = ", ".join(sorted(set(volume) - {"name"}))
            msg = f"volume {volume['name']}: the local cluster has no volumes of kind {kinds}"
            raise ClusterRefusedError(msg)
    for container in (*pod_spec.get("initContainers", []), *pod_spec["containers"]):
        for mount in container.get("volumeMounts", []):
            _refuse_mount(mount, sandbox)


def _refuse_mount(mount: KubernetesObject, sandbox: str) -> None:
    path, sub_path = mount["mountPath"], mount.get("subPath", "")
    if not path.startswith("/") or ".." in (*path.split("/"), *sub_path.split("/")):
        raise ClusterRefusedError(f"volume mount {path} ({sub_path}): cannot be mounted")
    if sandbox != BUBBLEWRAP and not path.startswith("/s3runner/"):
        hint = "install bubblewrap (the program bwrap), or name paths relative to the work dir"
        raise ClusterRefusedError(f"{path}: absolute paths need bubblewrap", hint=hint)


def _worker_env(node: Node) -> dict[str, str]:
    return {
        "PYTHONPATH": f"{IMAGE_PATH}/site",
        "PYTHONUTF8": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        **({"S3RUNNER_PACKAGES": f"{IMAGE_PATH}/packages"} if "packages" in node.image else {}),
        **node.worker_env,
    }


def _worker_mounts(node: Node, home: str) -> Iterable[Mount]:
    yield Mount(SECRETS_PATH, node.secrets, read_only=True)
    if node.sandbox.kind == BUBBLEWRAP:
        for path, source in node.image.items():
            yield Mount(f"{IMAGE_PATH}/{path}", source, read_only=True)
    else:
        yield Mount(IMAGE_PATH, f"{home}/image", read_only=True)


def _volume_mounts(container: KubernetesObject, volumes: str) -> Iterable[Mount]:
    for mount in container.get("volumeMounts", []):
        sub_path = mount.get("subPath", "")
        source = "/".join(part for part in (volumes, mount["name"], sub_path) if part)
        path = "/" + mount["mountPath"].strip("/")
        yield Mount(path, source, read_only=mount.get("readOnly", False))


def _declared_env(pod: KubernetesObject, container: KubernetesObject) -> dict[str, str]:
    """Return the declared variables; each may use those declared before it."""
    env: dict[str, str] = {}
    declared: Sequence[KubernetesObject] = container.get("env", [])
    for variable in declared:
        if "valueFrom" in variable:
            path = variable["valueFrom"]["fieldRef"]["fieldPath"]
            value = str(pod["metadata"].get(path.removeprefix("metadata."), ""))
        else:
            value = expand(variable.get("value", ""), env)
        env[variable["name"]] = value
    return env
