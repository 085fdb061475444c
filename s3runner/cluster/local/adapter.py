"""The local cluster's adapter: submits, observes and deletes Jobs that run on this machine.

It stands apart from the supervisor that it starts for each Job: a head may end, its Jobs go on, and
the next head reads the same directory.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import socket
import sys
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from s3runner.cluster import job_rules
from s3runner.cluster.local.choice import choose_sandbox
from s3runner.cluster.local.container import refuse_unsupported
from s3runner.cluster.local.jobdir import JobDir, closing_fd
from s3runner.cluster.local.leftovers import DRAFT, creating
from s3runner.cluster.local.node import BUBBLEWRAP, Node
from s3runner.cluster.local.pod import mark_node_lost, remove_tree
from s3runner.cluster.local.supervisor import remove_job
from s3runner.cluster.protocol import DESTINATION_LABEL, NO_IMAGE, JobObject, Observation
from s3runner.errors import ClusterRefusedError, ClusterUnavailableError
from s3runner.installed import job_scripts_dir, package_dir

_DIGEST_ANNOTATION = "s3runner/spec-digest"
_JOB_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_POLL_S = 0.02
_POLL_S_A_JOB = 0.0005
_LIVENESS_POLLS = 25
_MAX_RESTARTS = 10
_DELETE_PATIENCE_S = 5.0
_RESET_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD)


class LocalCluster:
    """Jobs on this machine, kept in a directory; implements `cluster.protocol.Cluster`.

    `worker_secret_files` (name -> content) lie at /s3runner/secrets/<name> in the containers of
    `worker_image`, which also get `worker_env`; a value may name such a path. `read_only` are
    directories that every container sees. The environment variable S3RUNNER_LOCAL_SANDBOX
    (bubblewrap, unshare, none) forces a sandbox, S3RUNNER_LOCAL_BACKOFF_S the first back-off.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        worker_image: str,
        worker_secret_files: Mapping[str, str],
        worker_env: Mapping[str, str],
        read_only: Sequence[str],
    ) -> None:
        self._state_dir = state_dir.absolute()
        self._worker_image = worker_image
        self._worker_secret_files = dict(worker_secret_files)
        self._worker_env = dict(worker_env)
        self._read_only = tuple(read_only)
        self._first_backoff_s = os.environ.get(
            "S3RUNNER_LOCAL_BACKOFF_S", str(job_rules.FIRST_BACKOFF_S)
        )
        self._supervisors: set[int] = set()
        self._seen: dict[str, object] = {}

    @property
    def identity(self) -> Mapping[str, str]:
        """This machine and this directory."""
        try:
            machine = Path("/etc/machine-id").read_text("ascii").strip()
        except OSError:
            machine = ""
        return {
            "kind": "local",
            "machine": machine or socket.gethostname(),
            "state_dir": str(self._state_dir),
        }

    @property
    def sandbox(self) -> str:
        """How containers are kept apart here: `bubblewrap`, `unshare` or `none`."""
        return choose_sandbox(os.environ.get("S3RUNNER_LOCAL_SANDBOX", "")).kind

    def caveats(self, job: JobObject) -> list[str]:
        """Tell of an image that is ignored and of a sandbox that hides nothing.

        Raises ClusterRefusedError for a Job that cannot run here, ClusterUnavailableError where no
        Job can be kept, before anything is uploaded.
        """
        pod = job["spec"]["template"]["spec"]
        refuse_unsupported(pod, self.sandbox)
        self._refuse_unwritable()
        told = []
        if self.sandbox != BUBBLEWRAP:
            told.append(
                "without bubblewrap the job can read this machine's files, and only jobs with "
                "relative paths run (apt-get install bubblewrap)"
            )
        image = next(c["image"] for c in pod["containers"] if c["name"] == "tool")
        if image != NO_IMAGE:
            told.append(f"the local cluster runs this machine's programs; image {image} is ignored")
        return told

    def submit(self, job: JobObject) -> str:
        """Create the Job and start its supervisor; see the protocol."""
        name = job["metadata"]["name"]
        if not _JOB_NAME.fullmatch(name):
            msg = f"{name!r} is not a Job name"
            raise ClusterRefusedError(msg)
        refuse_unsupported(job["spec"]["template"]["spec"], self.sandbox)
        directory = self._directory(name)
        try:
            return self._adopt(directory, job)
        except FileNotFoundError:
            pass
        try:
            with creating(str(self._state_dir)):
                return self._create(directory, job)
        except FileExistsError:
            return self._adopt(directory, job)
        except OSError as error:
            raise self._unwritable(error.strerror) from error

    def observe(self, names: Collection[str]) -> dict[str, Observation]:
        """Return what is known; a Job whose supervisor died gets another one."""
        self._reap()
        return {name: self._observe_one(self._directory(name)) for name in names}

    def active(self, destination: str) -> list[str]:
        """Return the unfinished Jobs of a destination; without a supervisor a Job has no pod."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(f"{self._state_dir}/jobs"):
                directory = self._directory(name)
                with contextlib.suppress(FileNotFoundError):
                    signature = _signature(directory)
                    job = directory.read_state()["job"]
                    ours = job["metadata"].get("labels", {}).get(DESTINATION_LABEL) == destination
                    if ours and not job_rules.finished_condition(job) and directory.is_supervised():
                        self._seen[name] = signature
                        found.append(name)
        return found

    def wait(self, names: Collection[str], timeout_s: float) -> None:
        """Return when one of these Jobs differs from its last observation."""
        end_s = time.monotonic() + timeout_s
        polls = 0
        while time.monotonic() < end_s:
            polls += 1
            for name in names:
                directory = self._directory(name)
                if _signature(directory) != self._seen.get(name):
                    return
                if polls % _LIVENESS_POLLS == 0 and _is_abandoned(directory):
                    return
            pause_s = max(_POLL_S, _POLL_S_A_JOB * len(names))
            time.sleep(max(0.0, min(pause_s, end_s - time.monotonic())))

    def delete(self, name: str) -> None:
        """Ask for the Job's end; it is gone once its pods have ended."""
        directory = self._directory(name)
        end_s = time.monotonic() + _DELETE_PATIENCE_S
        with contextlib.suppress(FileNotFoundError):
            directory.ask_deletion()
            # who has the lock without a PID starts, leaves, or looks: within a moment there is one
            # to tell, or nobody
            while not _delete_now(directory) and time.monotonic() < end_s:
                time.sleep(_POLL_S)

    def _refuse_unwritable(self) -> None:
        """Look at the directory, or at the one that it would be made in; writes nothing."""
        jobs = self._state_dir / "jobs"
        nearest = next(place for place in (jobs, *jobs.parents) if os.path.lexists(place))
        if not nearest.is_dir():
            raise self._unwritable(f"{nearest} is no directory")
        for place in {nearest, self._state_dir} if nearest == jobs else {nearest}:
            if not os.access(place, os.W_OK | os.X_OK):
                raise self._unwritable(f"{place} is not writable")

    def _unwritable(self, reason: str | None) -> ClusterUnavailableError:
        return ClusterUnavailableError(
            f"cannot write below {self._state_dir}: {reason}",
            hint="make it writable, or name another directory with S3RUNNER_STATE_DIR",
        )

    def _directory(self, name: str) -> JobDir:
        return JobDir(f"{self._state_dir}/jobs/{name}")

    def _adopt(self, directory: JobDir, job: JobObject) -> str:
        """Return the UID of the Job that is there. Raises FileNotFoundError if there is none."""
        there = directory.read("job")["metadata"]
        digest = job["metadata"].get("annotations", {}).get(_DIGEST_ANNOTATION)
        if digest is None or digest != there.get("annotations", {}).get(_DIGEST_ANNOTATION):
            msg = f"a Job named {directory.name} is there already, of another spec"
            raise ClusterRefusedError(msg)
        return str(there["uid"])

    def _create(self, directory: JobDir, job: JobObject) -> str:
        """Make the whole directory aside and rename it. Raises FileExistsError."""
        uid = str(uuid.uuid4())
        metadata = {
            "namespace": "default",
            **job["metadata"],
            "uid": uid,
            "creationTimestamp": job_rules.timestamp(time.time()),
        }
        draft = JobDir(f"{self._state_dir}/{DRAFT}{uid}")
        Path(draft.path).mkdir(mode=0o700)
        draft.write("job", {**job, "metadata": metadata})
        draft.write("node", self._node(directory).to_json())
        draft.allow_deletion()
        self._write_secrets(draft)
        lock = draft.take_lock()
        if lock is None:  # nobody else knows the draft
            msg = f"{draft.path} is locked"
            raise ClusterUnavailableError(msg)
        with closing_fd(lock):
            try:
                os.rename(draft.path, directory.path)
            except OSError as error:
                remove_tree(draft.path)
                raise FileExistsError from error
            self._start_supervisor(directory, lock)
        return uid

    def _node(self, directory: JobDir) -> Node:
        prefixes = {os.path.realpath(sys.base_prefix), os.path.realpath(sys.base_exec_prefix)}
        return Node(
            sandbox=choose_sandbox(os.environ.get("S3RUNNER_LOCAL_SANDBOX", "")),
            worker_image=self._worker_image,
            python=os.path.realpath(sys.executable),
            prefixes=tuple(sorted(prefixes - {"/usr", "/usr/local"})),
            image={
                "site/s3runner": str(package_dir("s3runner")),
                "site/obstore": str(package_dir("obstore")),
                "site/job_scripts": str(job_scripts_dir()),
                **_packages(),
            },
            worker_env=self._worker_env,
            secrets=directory.secrets,
            read_only=self._read_only,
        )

    def _write_secrets(self, directory: JobDir) -> None:
        folder = Path(directory.secrets)
        folder.mkdir(mode=0o700, exist_ok=True)
        for name, content in self._worker_secret_files.items():
            fresh = folder / f".{name}.new"
            fresh.touch(mode=0o600)
            fresh.write_text(content, "utf-8")
            fresh.replace(folder / name)

    def _start_supervisor(self, directory: JobDir, lock: int) -> None:
        """Start a supervisor that inherits the lock: from here on somebody always holds it."""
        interpreter = os.path.realpath(sys.executable)
        module = "s3runner.cluster.local.supervisor"
        program = f"import sys; from {module} import main; main(*sys.argv[1:])"
        arguments = ["-S", "-s", "-c", program, directory.path, self._first_backoff_s]
        log_flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            pid = os.posix_spawn(
                interpreter,
                [interpreter, *arguments],
                {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": _import_root()},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, lock, 0),
                    (os.POSIX_SPAWN_OPEN, 1, directory.supervisor_log, log_flags, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=_RESET_SIGNALS,
            )
        except OSError as error:
            msg = f"cannot start a process: {error.strerror}"
            raise ClusterUnavailableError(msg) from error
        self._supervisors.add(pid)

    def _observe_one(self, directory: JobDir) -> Observation:
        self._seen[directory.name] = _signature(directory)
        try:
            state = self._revive(directory) or directory.read_state()
        except FileNotFoundError:
            return Observation(None)
        return Observation(state["job"], tuple(state["pods"]))

    def _revive(self, directory: JobDir) -> dict[str, Any] | None:
        """Start a supervisor where one died; return the state that the new one will begin with.

        Returns None where there is nothing to do. Raises FileNotFoundError for a Job that is gone,
        or goes now: its supervisor ended before it could see that it was to remove it.
        """
        lock = directory.take_lock() if _is_abandoned(directory) else None
        if lock is None:
            return None
        with closing_fd(lock):
            if directory.is_deletion_asked:
                remove_job(directory)
                raise FileNotFoundError(directory.path)
            if not _is_unfinished(directory):
                return None
            if self._worker_secret_files:
                self._write_secrets(directory)
            state = directory.read_state()
            if directory.count_start() > _MAX_RESTARTS:
                _give_up(directory, state)
                return state
            self._start_supervisor(directory, lock)
        for pod in state["pods"]:
            if not job_rules.is_terminal(pod):
                mark_node_lost(pod, time.time())
        return state

    def _reap(self) -> None:
        """Collect supervisors that ended: a long-lived head would have them as zombies."""
        for pid in tuple(self._supervisors):
            try:
                ended, _ = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                ended = pid
            if ended:
                self._supervisors.discard(pid)


def _delete_now(directory: JobDir) -> bool:
    """Remove the Job, or tell its supervisor to; False if that is not to be reached now.

    Raises FileNotFoundError for a Job that is gone.
    """
    lock = directory.take_lock()
    if lock is not None:
        with closing_fd(lock):
            remove_job(directory)
        return True
    pid = directory.supervisor_pid()
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    return pid != 0


def _import_root() -> str:
    return str(package_dir("s3runner").parent)


def _signature(directory: JobDir) -> object:
    """Return what differs after each change of a Job's status; None for a Job that is gone."""
    try:
        status = os.stat(directory.status)
    except FileNotFoundError:
        return Path(directory.path).is_dir()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _give_up(directory: JobDir, state: dict[str, Any]) -> None:
    """Fail a Job whose supervisors keep ending; the caller holds its lock."""
    now = job_rules.timestamp(time.time())
    condition = {
        "type": "Failed",
        "status": "True",
        "reason": "SupervisorFailed",
        "message": f"its supervisor does not stay up: see {directory.supervisor_log}",
        "lastProbeTime": now,
        "lastTransitionTime": now,
    }
    for pod in state["pods"]:
        if not job_rules.is_terminal(pod):
            mark_node_lost(pod, time.time())
    state["job"].setdefault("status", {}).setdefault("conditions", []).append(condition)
    directory.write("status", state)


def _is_unfinished(directory: JobDir) -> bool:
    return job_rules.finished_condition(directory.read_state()["job"]) is None


def _is_abandoned(directory: JobDir) -> bool:
    """Tell whether something is left to do for a Job and nobody does it."""
    try:
        return not directory.is_supervised() and (
            directory.is_deletion_asked or _is_unfinished(directory)
        )
    except FileNotFoundError:
        return False


def _packages() -> dict[str, str]:
    """Return where all packages lie, for pods whose inputs are read through fsspec; or nothing."""
    if importlib.util.find_spec("fsspec") is None:
        return {}
    return {"packages": str(package_dir("fsspec").parent)}
