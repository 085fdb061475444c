"""Which sandbox this machine can give: tried once, by running a program in each.

It stands apart from building command lines, because it starts processes.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache

from s3runner.cluster.local import subreaper
from s3runner.cluster.local.node import BUBBLEWRAP, NO_SANDBOX, UNSHARE, Sandbox
from s3runner.cluster.local.sandbox import bubblewrap_view
from s3runner.errors import ClusterRefusedError

_TRIAL_TIMEOUT_S = 20
_log = logging.getLogger(__name__)


@cache
def choose_sandbox(forced: str = "") -> Sandbox:
    """Return the best sandbox that works here, or the forced one.

    Raises ClusterRefusedError where the forced one does not work.
    """
    for sandbox in _candidates():
        if forced in ("", sandbox.kind) and _works(sandbox):
            _log.info("local cluster: containers are kept apart by %s", sandbox.kind)
            return sandbox
    msg = f"the sandbox {forced!r} does not work here"
    raise ClusterRefusedError(msg, hint="leave S3RUNNER_LOCAL_SANDBOX unset")


def _candidates() -> Iterator[Sandbox]:
    as_user = os.geteuid() != 0
    bubblewrap, unshare = shutil.which("bwrap"), shutil.which("unshare")
    if bubblewrap:
        options = [
            *("--unshare-pid", "--as-pid-1", "--unshare-ipc", "--die-with-parent"),
            *("--new-session", "--cap-drop", "ALL"),
            *(["--unshare-user"] if as_user else []),
        ]
        yield Sandbox(BUBBLEWRAP, (bubblewrap, *options))
    if unshare:
        options = [
            *(["--user", "--map-current-user"] if as_user else []),
            *("--pid", "--fork", "--kill-child", "--"),
        ]
        # Where setpriv is missing, the containers of a killed supervisor run on until they end.
        setpriv = shutil.which("setpriv")
        dying = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
        yield Sandbox(UNSHARE, (*dying, unshare, *options))
    interpreter = os.path.realpath(sys.executable)
    script = os.path.realpath(subreaper.__file__)
    yield Sandbox(NO_SANDBOX, (interpreter, "-I", "-S", script))


def _works(sandbox: Sandbox) -> bool:
    """Try it on `true`, with the mounts that every container has."""
    view = [*bubblewrap_view(), "--"] if sandbox.kind == BUBBLEWRAP else []
    try:
        done = subprocess.run(  # noqa: S603  # our own command line
            [*sandbox.launcher, *view, "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TRIAL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.info("local cluster: %s cannot be used: %s", sandbox.kind, error)
        return False
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip()
        _log.info("local cluster: %s cannot be used: %s", sandbox.kind, reason)
    return done.returncode == 0
