"""The directory that holds a local Job: what lies in it, and who may work on it.

| name | written by | holds |
|---|---|---|
| `job.json`, `node.json` | submit | the Job object, and what its pods find on this machine |
| `status.json` | supervisor | `{"job": …, "pods": […]}` as the cluster shows them |
| `lock` | supervisor | its PID, once it can be told to end; locked while it lives |
| `stay` | submit | nothing: it becomes `delete`, on a full disk too |
| `delete` | delete | nothing: the Job is to end and to vanish |
| `secrets/` | submit | the worker's secret files, until the Job has ended |
| `pods/<uid>/` | supervisor | a pod's volumes, until the pod has ended |
| `logs/<uid>/` | supervisor | a pod's container logs |
| `supervisor.log`, `starts` | observe | the supervisor's messages; one byte for each restart |
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from typing import Any

_LOOKS = 1000
_LOOK_S = 0.001


class JobDir:
    """The names in one Job's directory, and its lock."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.status = f"{path}/status.json"
        self.secrets = f"{path}/secrets"
        self.supervisor_log = f"{path}/supervisor.log"
        self._stay = f"{path}/stay"
        self._deletion = f"{path}/delete"
        self._lock = f"{path}/lock"

    @property
    def name(self) -> str:
        """The Job's name."""
        return os.path.basename(self.path)

    def read(self, name: str) -> Any:
        """Return a JSON document of the directory. Raises FileNotFoundError."""
        with open(f"{self.path}/{name}.json", encoding="utf-8") as file:
            return json.load(file)

    def write(self, name: str, document: Any) -> None:
        """Replace a JSON document in one step."""
        path = f"{self.path}/{name}.json"
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump(document, file)
        os.replace(f"{path}.new", path)

    def read_state(self) -> dict[str, Any]:
        """Return `{"job": …, "pods": […]}`; before the first status, as submitted."""
        try:
            state: dict[str, Any] = self.read("status")
        except FileNotFoundError:
            state = {"job": self.read("job"), "pods": []}
        return state

    def allow_deletion(self) -> None:
        """Make what `ask_deletion` renames."""
        with open(self._stay, "wb"):
            pass

    def ask_deletion(self) -> None:
        """Leave word that the Job is to vanish, by a rename: a disk may be too full for a new file.

        Raises FileNotFoundError when the directory is gone.
        """
        try:
            os.rename(self._stay, self._deletion)
        except FileNotFoundError:
            # asked before, or gone
            with open(self._deletion, "ab"):
                pass

    @property
    def is_deletion_asked(self) -> bool:
        """Whether somebody deleted the Job."""
        return os.path.exists(self._deletion)

    def count_start(self) -> int:
        """Note one more restart of the supervisor and return how many there were."""
        with open(f"{self.path}/starts", "ab") as file:
            file.write(b".")
            file.flush()
            return file.tell()

    def take_lock(self) -> int | None:
        """Return a descriptor that holds the lock, None while another holds it.

        It is 10 or above, so that it can be handed over as any of the lower ones. No PID stands in
        the file: the last one's is not to be taken for the next one's.
        Raises FileNotFoundError when the directory is gone.
        """
        first = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            descriptor = fcntl.fcntl(first, fcntl.F_DUPFD_CLOEXEC, 10)
        finally:
            os.close(first)
        try:
            taken = _lock_alone(descriptor)
            if taken:
                self._claim(descriptor)
        except BaseException:
            # whatever ends us, a lock that nobody owns must not stay taken
            os.close(descriptor)
            raise
        if taken:
            return descriptor
        os.close(descriptor)
        return None

    def _claim(self, descriptor: int) -> None:
        """Forget the last PID. Raises FileNotFoundError if the lock was removed meanwhile."""
        os.ftruncate(descriptor, 0)
        if not self.is_lock(descriptor):
            raise FileNotFoundError(self._lock)

    def is_lock(self, descriptor: int) -> bool:
        """Tell whether this descriptor is of the lock that lies there now."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._lock))
        except FileNotFoundError:
            return False

    def write_pid(self, descriptor: int) -> None:
        """Say in the lock which process to tell that the Job is to end."""
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)

    def is_supervised(self) -> bool:
        """Tell whether a supervisor lives; False also when the directory is gone."""
        with contextlib.suppress(FileNotFoundError), open(self._lock, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def supervisor_pid(self) -> int:
        """Return the PID that the lock's holder wrote, 0 before it did and where nobody holds it.

        Raises FileNotFoundError when the directory is gone.
        """
        with open(self._lock, "rb") as file:
            return int(file.read() or b"0")


def _lock_alone(descriptor: int) -> bool:
    """Lock unless another has; a look of `is_supervised`, which takes no time, is waited for."""
    for _ in range(_LOOKS):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        time.sleep(_LOOK_S)
    return False


@contextlib.contextmanager
def closing_fd(descriptor: int) -> Iterator[int]:
    """Close a descriptor at the end, and with it release its lock unless another has it too."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)
