"""What nobody removes from the cluster's directory: Jobs half made, half removed, or forgotten.

It stands apart because it is about no Job: whoever creates one clears up after those who could not.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from s3runner.cluster.job_rules import finished_condition
from s3runner.cluster.local.jobdir import JobDir, closing_fd
from s3runner.cluster.local.pod import remove_tree
from s3runner.cluster.local.supervisor import remove_job

DRAFT, REMOVED = "draft-", "removed-"
"""What the names begin with of Jobs that are not there yet, and not any more."""

FORGOTTEN_AFTER_S = 7 * 24 * 3600
"""So long an ended Job waits for a head to take note of it. What its pods stored stays stored."""


@contextlib.contextmanager
def creating(state_dir: str) -> Iterator[None]:
    """Let drafts stay while this lasts; before it, remove what nobody works on any more.

    Who creates locks the directory of Jobs with others, who clears up locks it alone.
    """
    jobs = f"{state_dir}/jobs"
    os.makedirs(jobs, mode=0o700, exist_ok=True)
    lock = os.open(jobs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_leftovers(state_dir)
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)


def _remove_leftovers(state_dir: str) -> None:
    for name in os.listdir(state_dir):
        if name.startswith((DRAFT, REMOVED)):
            remove_tree(f"{state_dir}/{name}")
    for name in os.listdir(f"{state_dir}/jobs"):
        with contextlib.suppress(OSError):
            _remove_forgotten(JobDir(f"{state_dir}/jobs/{name}"))


def _remove_forgotten(directory: JobDir) -> None:
    """Remove a Job that ended long ago; those that nobody waits for would stay for ever."""
    if time.time() - os.stat(directory.status).st_mtime < FORGOTTEN_AFTER_S:
        return
    if finished_condition(directory.read_state()["job"]) is None:
        return
    lock = directory.take_lock()
    if lock is not None:
        with closing_fd(lock):
            directory.ask_deletion()
            remove_job(directory)
