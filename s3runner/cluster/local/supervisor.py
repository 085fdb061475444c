"""The process that keeps one local Job: the Job controller of a cluster with one Job.

It is started detached, with its Job's lock as standard input, and imports little: its start is part
of every job's time. When it is killed its pods die with it, and the next one goes on.

| event | what it does |
|---|---|
| TERM, and the Job is deleted | ends the pod, removes the Job's directory |
| TERM, and it is not | the machine goes down: ends the pod as disrupted, another goes on later |
| a Job that has ended | removes the secrets and exits |
| the Job's directory is gone | kills the pod and exits |
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
import threading
import time
from queue import Empty, SimpleQueue
from typing import Any

from s3runner.cluster import job_rules
from s3runner.cluster.local.jobdir import JobDir, closing_fd
from s3runner.cluster.local.node import Node
from s3runner.cluster.local.pod import PodRun, mark_node_lost, remove_tree

_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_LOCK_FD = 0
_SHOW_AGAIN_S = 1.0
_LOOK_S = 2.0
"""How often the supervisor looks whether its Job's directory is still there."""


class Supervisor:
    """Keeps one Job, from whatever state its directory is in."""

    def __init__(self, directory: JobDir, first_backoff_s: float) -> None:
        state = directory.read_state()
        self._directory = directory
        self._first_backoff_s = first_backoff_s
        self._node = Node.from_json(directory.read("node"))
        self._job: dict[str, Any] = state["job"]
        self._pods: list[dict[str, Any]] = state["pods"]
        self._current: PodRun | None = None
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._told_to_end = False
        self._is_shown = True

    def tell_to_end(self) -> None:
        """End the pod and return from `run`; safe in a signal handler."""
        self._told_to_end = True
        self._wake.put(None)
        if self._current is not None:
            self._end_pod(self._current)

    def abandon(self) -> None:
        """Kill the pod and make `run` find out that the Job's directory is gone."""
        self._told_to_end = True
        self._wake.put(None)
        run = self._current
        if run is not None:
            run.stop(grace_s=0)

    def run(self) -> None:
        """Work until the Job has ended, was deleted, or this process is told to end."""
        remove_tree(f"{self._directory.path}/pods")
        for pod in self._pods:
            if not job_rules.is_terminal(pod):
                mark_node_lost(pod, time.time())
        while True:
            self._note_deletion()
            step = self._update()
            if self._told_to_end or self._is_deleted:
                return
            if not self._is_shown:
                self._sleep_until(time.time() + _SHOW_AGAIN_S)
                continue
            if self._is_finished:
                return
            if step.action == job_rules.CREATE_POD:
                self._run_pod(step.again_at_s)
            else:
                self._sleep_until(step.again_at_s)

    def clear(self) -> None:
        """Leave what the Job's state asks for: nothing of a deleted one, no secrets of an ended."""
        self._note_deletion()
        if self._is_deleted:
            remove_job(self._directory)
        elif self._is_finished:
            remove_tree(self._directory.secrets)
            self._directory.write("node", self._node._replace(worker_env={}).to_json())

    @property
    def _is_finished(self) -> bool:
        return job_rules.finished_condition(self._job) is not None

    @property
    def _is_deleted(self) -> bool:
        return "deletionTimestamp" in self._job["metadata"]

    def _note_deletion(self) -> None:
        if self._directory.is_deletion_asked and not self._is_deleted:
            self._job["metadata"]["deletionTimestamp"] = job_rules.timestamp(time.time())

    def _update(self) -> job_rules.Step:
        """Apply the rules to what is known and show it; a full disk lets it be seen later.

        That is with the next change, or when the pod has ended and its volumes are gone.
        """
        step = job_rules.next_step(self._job, self._pods, time.time(), self._first_backoff_s)
        self._job["status"] = step.status
        try:
            self._directory.write("status", {"job": self._job, "pods": self._pods})
            self._is_shown = True
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._is_shown = False
        return step

    def _run_pod(self, deadline_s: float | None) -> None:
        pod = job_rules.pod_of(self._job, _new_uid(), _new_suffix(), time.time())
        self._pods.append(pod)
        uid = pod["metadata"]["uid"]
        path = self._directory.path
        run = PodRun(pod, self._node, f"{path}/pods/{uid}", f"{path}/logs/{uid}", self._show)
        timer = None
        if deadline_s is not None:
            timer = threading.Timer(max(0.0, deadline_s - time.time()), run.stop)
            timer.daemon = True
            timer.start()
        self._current = run
        if self._told_to_end:  # between the last look and here
            self._end_pod(run)
        run.run()
        self._current = None
        if timer is not None:
            timer.cancel()

    def _show(self, _pod: dict[str, Any]) -> None:
        self._note_deletion()
        self._update()

    def _end_pod(self, run: PodRun) -> None:
        deleted = self._directory.is_deletion_asked
        run.stop(disruption="" if deleted else "TerminationByKubelet")

    def _sleep_until(self, moment_s: float | None) -> None:
        try:
            self._wake.get(timeout=None if moment_s is None else max(0.0, moment_s - time.time()))
        except Empty:
            return


def remove_job(directory: JobDir) -> None:
    """Make a deleted Job vanish in one step, then remove the rest; the caller holds its lock."""
    if not directory.is_deletion_asked:  # another of this name, made since
        return
    state_dir = os.path.dirname(os.path.dirname(directory.path))
    grave = f"{state_dir}/removed-{_new_uid()}"
    os.rename(directory.path, grave)
    remove_tree(grave)


def _new_uid() -> str:
    """Return a random UUID; the kernel makes it without an import."""
    with open("/proc/sys/kernel/random/uuid", encoding="ascii") as kernel:
        return kernel.read().strip()


def _new_suffix() -> str:
    return "".join(_SUFFIX_LETTERS[byte % len(_SUFFIX_LETTERS)] for byte in os.urandom(5))


def let_go(directory: JobDir, lock: int) -> None:
    """Unlock, and remove a Job whose deletion was asked for while nobody looked any more.

    Who asks leaves word before finding it locked, and we look after unlocking: one of both removes
    the Job. The PID goes first, so that who finds it locked by another tells nobody who is leaving.
    """
    os.ftruncate(lock, 0)
    fcntl.flock(lock, fcntl.LOCK_UN)
    if not directory.is_deletion_asked:
        return
    try:
        again = directory.take_lock()
    except FileNotFoundError:
        return
    if again is not None:
        with closing_fd(again):
            remove_job(directory)


def _watch(directory: JobDir, supervisor: Supervisor) -> None:
    while directory.is_lock(_LOCK_FD):
        time.sleep(_LOOK_S)
    supervisor.abandon()


def main(path: str, first_backoff_s: str) -> None:
    """Keep the Job of a directory. Standard input is its lock."""
    os.chdir("/")
    os.umask(0o077)
    directory = JobDir(path)
    supervisor = Supervisor(directory, float(first_backoff_s))
    signal.signal(signal.SIGTERM, lambda *_: supervisor.tell_to_end())
    # The PID comes after the handler, and deletion is looked for after the PID: whoever asks for it
    # is either seen, or sees whom to tell.
    directory.write_pid(_LOCK_FD)
    threading.Thread(target=_watch, args=(directory, supervisor), daemon=True).start()
    try:
        supervisor.run()
        supervisor.clear()
    except FileNotFoundError:
        if directory.is_lock(_LOCK_FD):
            raise
    finally:
        let_go(directory, _LOCK_FD)


if __name__ == "__main__":
    main(*sys.argv[1:])
