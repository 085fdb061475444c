"""What a sync that is killed leaves beside the places of its outputs, and who takes it away.

It stands apart from sync because it must be sure that nobody still works on what it removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from s3runner.runner.landing import STREAMS, is_directory
from s3runner.staging.placing import beginning_of


@contextlib.contextmanager
def landing(into: Path, job_id: str, directories: Iterable[Path]) -> Iterator[None]:
    """Let what this sync fills stay while it lands; before, remove what earlier ones left.

    Syncs that land lock the directory `into` together, who clears up locks it alone: where another
    sync is at work, or the file system has no locks, everything stays.
    """
    into.mkdir(parents=True, exist_ok=True)
    lock = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _clear_up(job_id, {into, into / STREAMS, *directories})
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)


def _clear_up(job_id: str, directories: Iterable[Path]) -> None:
    for directory in directories:
        for path in directory.iterdir() if directory.is_dir() else ():
            if path.name.startswith(beginning_of(job_id)):
                remove(path)


def remove(path: Path) -> None:
    """Remove a tree of ours, or one the user gave up, read-only directories and all."""
    if is_directory(str(path)):
        for directory, _, _ in os.walk(path):
            Path(directory).chmod(0o700)
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
