"""The init process of a container where the kernel gives no PID namespace.

It stands apart as a script of its own, run with `python -I -S` in front of the container's program:
what that program leaves behind becomes its child (PR_SET_CHILD_SUBREAPER) and dies with it.

| signal | what it does |
|---|---|
| TERM, INT | passes it on to the program, as a container's PID 1 would get it |
| USR1 | sends TERM to every process below it, but the program |
| USR2 | sends KILL to every process below it but the program, and answers it with USR2 |
| QUIT | sends KILL to every process below it, the program too; its parent's death counts as QUIT |
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Collection, Sequence

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGQUIT,
    signal.SIGCHLD,
)


def parents() -> dict[int, int]:
    """Return the parent of every process of this machine that is not a zombie."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stat:
                    state, parent = stat.read().rpartition(b")")[2].split()[:2]
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
            if state not in b"ZX":
                found[int(name)] = int(parent)
    return found


def children_of(pid: int) -> list[int]:
    """Return the living children of a process."""
    return [child for child, parent in parents().items() if parent == pid]


def descendants_of(pid: int, spared: Collection[int] = ()) -> list[int]:
    """Return the living processes below one, without the spared (but with what is below those)."""
    family = parents()
    found: list[int] = []
    frontier = {pid}
    while frontier:
        frontier = {child for child, parent in family.items() if parent in frontier}
        found.extend(frontier - set(spared))
    return found


def send(pids: Collection[int], number: int) -> None:
    """Send a signal to processes, some of which may have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_below(pid: int, spared: Collection[int] = ()) -> None:
    """Send KILL until nothing is left below a process but the spared: some may fork as we look."""
    while remaining := descendants_of(pid, spared):
        send(remaining, signal.SIGKILL)


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process. Raises OSError."""
    import ctypes  # noqa: PLC0415  # the supervisor, which needs the rest of this file, starts without

    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _initial_environment() -> dict[bytes, bytes]:
    """Return the environment as it was at our start: Python itself adds LC_CTYPE to it."""
    with open("/proc/self/environ", "rb") as environ:
        pairs = (item.partition(b"=") for item in environ.read().split(b"\0") if item)
        return {name: value for name, _, value in pairs}


def _exec(argv: Sequence[str]) -> None:
    # Python ignores these two from its start on, and an ignored signal stays so in the program.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execvpe(argv[0], list(argv), _initial_environment())  # noqa: S606  # no shell is meant
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def _collect(program: int) -> int | None:
    """Reap whatever has ended; return the program's wait status if it is among them."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == program:
            return status
        if pid == 0:
            return None


def _answer(number: int, program: int) -> None:
    me = os.getpid()
    if number in (signal.SIGTERM, signal.SIGINT):
        send([program], number)
    elif number == signal.SIGUSR1:
        send(descendants_of(me, spared=[program]), signal.SIGTERM)
    elif number == signal.SIGUSR2:
        kill_below(me, spared=[program])
        send([program], signal.SIGUSR2)
    elif number == signal.SIGQUIT:
        kill_below(me)


def main(argv: Sequence[str]) -> int:
    """Run a program and end all that it started; return its exit code (128 + n for a signal)."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    program = os.fork()
    if program == 0:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _exec(argv)
    status = None
    while status is None:
        number = signal.sigwait(_SIGNALS)
        if number != signal.SIGCHLD:
            _answer(number, program)
        status = _collect(program)
    kill_below(os.getpid())
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
