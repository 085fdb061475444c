"""What a head that is killed leaves in the cluster's directory: Jobs half made, or half removed.

It stands apart because it is about no Job: whoever creates one clears up after those who could not.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from s3runner.cluster.local.pod import remove_tree

DRAFT, REMOVED = "draft-", "removed-"
"""What the names begin with of Jobs that are not there yet, and not any more."""


@contextlib.contextmanager
def creating(state_dir: str) -> Iterator[None]:
    """Let drafts stay while this lasts; before it, remove those that nobody works on any more.

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
