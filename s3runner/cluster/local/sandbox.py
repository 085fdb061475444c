"""The command lines that keep a container apart: bubblewrap, unshare, or our own subreaper.

| sandbox | mounts | PID namespace | what the container sees of this machine |
|---|---|---|---|
| bubblewrap | yes | yes | /usr, /bin, /lib*, /etc, /opt and `read_only` |
| unshare | no: paths are rewritten | yes | everything |
| none | no: paths are rewritten | no: a subreaper kills what is left | everything |
"""

from __future__ import annotations

import os

from s3runner.cluster.local.container import Plan, relocate
from s3runner.cluster.local.node import BUBBLEWRAP, Node

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt")


def wrap(plan: Plan, node: Node, *, is_worker: bool, status_fd: int) -> Plan:
    """Return the plan in this machine's paths, sandbox included; its mounts are part of argv.

    `status_fd` is the descriptor on which bubblewrap tells the container's PID and exit code.
    """
    if node.sandbox.kind != BUBBLEWRAP:
        moved = relocate(plan)
        return moved._replace(argv=(*node.sandbox.launcher, *moved.argv))
    argv = [
        *node.sandbox.launcher,
        *("--json-status-fd", str(status_fd)),
        *bubblewrap_view(),
        *(word for path in sorted(node.read_only) for word in ("--ro-bind", path, path)),
    ]
    if is_worker:
        for prefix in node.prefixes:
            argv += ["--ro-bind", prefix, prefix]
    for mount in plan.mounts:
        argv += ["--ro-bind" if mount.read_only else "--bind", mount.source, mount.path]
    return Plan((*argv, "--chdir", plan.cwd, "--", *plan.argv), plan.env, "/", ())


def bubblewrap_view() -> list[str]:
    """Return the options that show the system's directories, and nothing of anybody's data."""
    options = []
    for path in _SYSTEM:
        if os.path.islink(path):
            options += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            options += ["--ro-bind", path, path]
    # Names are resolved through this file, which often is a link to below /run.
    resolver = os.path.realpath("/etc/resolv.conf")
    if not resolver.startswith("/etc/"):
        options += ["--ro-bind-try", resolver, resolver]
    # Thread libraries count the processors here.
    cpus = "/sys/devices/system"
    options += ["--ro-bind-try", cpus, cpus, "--proc", "/proc", "--dev", "/dev"]
    return [*options, "--tmpfs", "/tmp"]  # noqa: S108  # the container's own
