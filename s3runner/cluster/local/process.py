"""One container's processes: started in their sandbox, told to end, their streams kept.

It stands apart because every sandbox has its own way to reach the container's PID 1 and to say how
it ended; above it there is only "terminate", "kill" and an exit code.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable
from io import FileIO

from s3runner.cluster.local.container import Plan
from s3runner.cluster.local.node import BUBBLEWRAP, NO_SANDBOX, UNSHARE, Node
from s3runner.cluster.local.sandbox import wrap
from s3runner.cluster.local.subreaper import children_of

_LOG_LIMIT = 1024 * 1024
_LAST_WORDS = 2000
_PID_TIMEOUT_S = 5.0


class StartFailedError(Exception):
    """A container's program cannot be started; the text says why."""


def start_container(plan: Plan, node: Node, log: str, *, is_worker: bool) -> ContainerProcess:
    """Start a container; its streams go to `<log>.stdout` and `<log>.stderr`.

    Raises StartFailedError. In a sandbox with mounts a missing program shows only later, as
    `failed_to_start`.
    """
    status_read, status_write = os.pipe()
    launched = wrap(plan, node, is_worker=is_worker, status_fd=status_write)
    try:
        if node.sandbox.kind != BUBBLEWRAP:
            _refuse_missing(launched, len(node.sandbox.launcher))
        process = subprocess.Popen(  # noqa: S603  # running the job is what we are for
            launched.argv,
            env=launched.env,
            cwd=launched.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(status_write,) if node.sandbox.kind == BUBBLEWRAP else (),
            # Else a tool's `kill 0` would reach us.
            start_new_session=True,
            umask=0o022,
        )
    except OSError as error:
        os.close(status_read)
        raise StartFailedError(str(error)) from error
    except StartFailedError:
        os.close(status_read)
        raise
    finally:
        os.close(status_write)
    return ContainerProcess(process, node.sandbox.kind, status_read, log)


def _refuse_missing(plan: Plan, launcher_words: int) -> None:
    """Without mounts the program is where we see it too, so a missing one is known at once."""
    program = plan.argv[launcher_words] if len(plan.argv) > launcher_words else ""
    folders = [""] if "/" in program else plan.env["PATH"].split(":")
    if not any(os.access(os.path.join(folder, program), os.X_OK) for folder in folders):
        msg = f"exec: {program!r}: no such program"
        raise StartFailedError(msg)


def _open_log(path: str) -> FileIO:
    """Open a log to write; one that the disk has no room for is not kept."""
    try:
        return open(path, "wb", buffering=0)
    except OSError:
        return open(os.devnull, "wb", buffering=0)


class ContainerProcess:
    """A container that runs. `watch` must be called once."""

    def __init__(
        self, process: subprocess.Popen[bytes], sandbox: str, status_fd: int, log: str
    ) -> None:
        self._process = process
        self._sandbox = sandbox
        self._status_fd = status_fd
        self._log = log
        self._pid_known = threading.Event()
        self._pid = 0
        self._killed = False
        self._status_rest = b""
        self._has_run = sandbox != BUBBLEWRAP

    def watch(self, ended: Callable[[], None]) -> None:
        """Keep the streams and call back, from another thread, when all of it has ended."""

        def follow() -> None:
            try:
                self._follow()
            finally:
                self._process.wait()
                self._pid_known.set()
                ended()

        threading.Thread(target=follow, daemon=True).start()

    @property
    def launcher_pid(self) -> int:
        """The process that all of the container's are below."""
        return self._process.pid

    @property
    def failed_to_start(self) -> bool:
        """Whether the sandbox ended without having run the program; known after the end."""
        return not self._has_run and not self._killed

    def exit_code(self) -> int:
        """Return the exit code, 128 + n for a signal; known after the end."""
        code = self._process.returncode
        # Before it ran, the sandbox has no code of its program; and util-linux's unshare exits 1
        # where it cannot do to itself what was done to its child.
        unclear = not self._has_run or (self._sandbox == UNSHARE and code == 1)
        if self._killed and unclear:
            return 128 + signal.SIGKILL
        return code if code >= 0 else 128 - code

    def last_words(self) -> str:
        """Return the end of what the container wrote to stderr."""
        with contextlib.suppress(FileNotFoundError), open(f"{self._log}.stderr", "rb") as log:
            return log.read()[-_LAST_WORDS:].decode(errors="replace").strip()
        return ""

    def terminate(self) -> None:
        """Send TERM to the container's PID 1."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill all of the container's processes."""
        self._killed = True
        self._signal(signal.SIGQUIT if self._sandbox == NO_SANDBOX else signal.SIGKILL)

    def _signal(self, number: int) -> None:
        """Signal PID 1: its end is the end of its namespace, and the launcher waits for both."""
        pid = self._process.pid if self._sandbox == NO_SANDBOX else self._find_pid()
        if pid == 0 and number == signal.SIGKILL:
            pid = self._process.pid
        if pid and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _find_pid(self) -> int:
        """Return the PID 1 of the container as this machine numbers it; 0 if there is none."""
        if self._sandbox == BUBBLEWRAP:
            self._pid_known.wait(_PID_TIMEOUT_S)
            return self._pid
        found = children_of(self._process.pid)
        return found[0] if found else 0

    def _follow(self) -> None:
        """Copy the streams to their files, and read bubblewrap's status, until all are closed."""
        assert self._process.stdout is not None  # noqa: S101  # they are pipes
        assert self._process.stderr is not None  # noqa: S101  # likewise
        with (
            self._process.stdout as stdout,
            self._process.stderr as stderr,
            open(self._status_fd, "rb", buffering=0) as status,
            _open_log(f"{self._log}.stdout") as stdout_log,
            _open_log(f"{self._log}.stderr") as stderr_log,
        ):
            logs = {stdout.fileno(): stdout_log, stderr.fileno(): stderr_log}
            poller = select.poll()
            for fd in (*logs, status.fileno()):
                poller.register(fd, select.POLLIN)
            still_open = 1 + len(logs)
            while still_open:
                for fd, _ in poller.poll():
                    chunk = os.read(fd, 65536)
                    if not chunk:
                        poller.unregister(fd)
                        still_open -= 1
                    elif fd in logs:
                        with contextlib.suppress(OSError):  # a full disk costs the log only
                            logs[fd].write(chunk[: _LOG_LIMIT - logs[fd].tell()])
                    else:
                        self._read_status(chunk)

    def _read_status(self, chunk: bytes) -> None:
        """Take in bubblewrap's documents, one a line; the second comes only if the program ran."""
        *lines, self._status_rest = (self._status_rest + chunk).split(b"\n")
        for line in lines:
            document = json.loads(line)
            if "child-pid" in document:
                self._pid = document["child-pid"]
                self._pid_known.set()
            self._has_run = self._has_run or "exit-code" in document
