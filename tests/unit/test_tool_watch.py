"""The stager's side of the two FIFOs, against a shim that the test plays."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from attempts import in_thread, memory_store, open_attempt, store_job

from s3runner.model import Destination, Outcome
from s3runner.worker.attempt import Attempt
from s3runner.worker.tool import ToolEnd, ToolWatch, outcome_of_tool

LONG_S = 3600


class Shim:
    """The shim's ends: `up` for writing, `down` for reading, opened when the test says so."""

    def __init__(self, attempt: Attempt, stack: ExitStack) -> None:
        self._attempt = attempt
        self._stack = stack
        self._up: int | None = None

    def start(self, *lines: bytes) -> None:
        self._up = os.open(self._attempt.control_file("up"), os.O_WRONLY)
        for line in lines:
            os.write(self._up, line)

    def write(self, line: bytes) -> None:
        assert self._up is not None
        os.write(self._up, line)

    def hang_up(self) -> None:
        assert self._up is not None
        os.close(self._up)

    def listen(self) -> int:
        descriptor = os.open(self._attempt.control_file("down"), os.O_RDONLY | os.O_NONBLOCK)
        self._stack.callback(os.close, descriptor)
        return descriptor

    def await_down(self) -> None:
        """Return when the stager has said the end and closed `down`."""
        with open(self._attempt.control_file("down"), "rb") as down:
            assert down.read() == b"end\n"

    def leave_code(self, text: str) -> None:
        Path(self._attempt.control_file("exit_code")).write_text(text)


class Pod:
    """A pod whose tool's container the test plays."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self._root = root
        self._stack = stack
        reader, self._term = os.pipe()
        self._wake = reader
        stack.callback(os.close, reader)
        stack.callback(os.close, self._term)

    def term(self) -> None:
        """Do what the SIGTERM handler does."""
        os.write(self._term, b"t")

    def watch(
        self,
        *,
        start_timeout_s: int = LONG_S,
        walltime_s: float = LONG_S,
        grace_s: int = 1,
        clock: Callable[[], float] = time.monotonic,
        on_term: Callable[[], object] = lambda: None,
        term_lag_s: float = LONG_S,
    ) -> tuple[ToolWatch, Shim]:
        store = memory_store()
        where = Destination(start_timeout_s=start_timeout_s, grace_s=grace_s)
        store_job(store, walltime_s=walltime_s, destination=where)
        attempt = open_attempt(self._root, store)
        for name in ("up", "down"):
            os.mkfifo(attempt.control_file(name))
        watch = ToolWatch(attempt, self._wake, clock, on_term, term_lag_s)
        self._stack.callback(watch.close)
        return watch, Shim(attempt, self._stack)


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    with ExitStack() as stack:
        yield Pod(tmp_path, stack)


class Leaping:
    """A clock that leaps over every deadline between two looks."""

    def __init__(self, leap_s: float) -> None:
        self._now = 0.0
        self._leap_s = leap_s

    def __call__(self) -> float:
        self._now += self._leap_s
        return self._now


def test_a_walltime_of_months_can_be_waited_for(pod: Pod) -> None:
    """A pause of more milliseconds than fit into a C int ended the stager."""
    watch, shim = pod.watch(walltime_s=90 * 86400.0, start_timeout_s=90 * 86400)

    def end() -> None:
        shim.start(b"started\n", b"exit 0 - -\n")
        shim.leave_code("0")
        shim.hang_up()

    in_thread(end)

    assert watch.wait().exit_code == 0


@pytest.mark.parametrize(
    ("line", "end"),
    [
        (b"exit 0 5 5\n", ToolEnd(True, 0, oom_grew=False)),
        (b"exit 3 - -\n", ToolEnd(True, 3, oom_grew=None)),
        (b"exit 137 5 6\n", ToolEnd(True, 137, oom_grew=True)),
        (b"exit 1 7\n", ToolEnd(True, 1, oom_grew=None)),
    ],
    ids=str,
)
def test_the_exit_line_is_the_end(pod: Pod, line: bytes, end: ToolEnd) -> None:
    watch, shim = pod.watch()
    shim.start(b"started\n", line)
    shim.leave_code("x")
    shim.hang_up()

    found = watch.wait()

    assert (found.started, found.exit_code, found.oom_grew) == (True, end.exit_code, end.oom_grew)
    assert not found.interrupted
    assert not found.walltime_spent


def test_an_exit_line_in_pieces_is_one_line(pod: Pod) -> None:
    watch, shim = pod.watch()
    shim.leave_code("x")

    def trickle() -> None:
        shim.start()
        for number in b"started\nexit 12 0 0\n":
            shim.write(bytes((number,)))
        shim.hang_up()

    thread = in_thread(trickle)
    assert watch.wait().exit_code == 12
    thread.join()


def test_the_line_without_the_file_is_no_space(pod: Pod) -> None:
    watch, shim = pod.watch()
    shim.start(b"started\n", b"exit 0 0 0\n")
    shim.hang_up()

    end = watch.wait()

    assert (end.exit_code, end.code_stored) == (0, False)
    assert outcome_of_tool(end)[0] is Outcome.NO_SPACE


def test_the_file_without_the_line_is_the_code(pod: Pod) -> None:
    """A shim that was killed between the two."""
    watch, shim = pod.watch()
    shim.start(b"started\n")
    shim.leave_code("4 0 0\n")
    shim.hang_up()

    end = watch.wait()

    assert (end.exit_code, end.oom_grew, end.code_stored) == (4, False, True)


def test_a_hang_up_without_a_code_is_a_tool_that_vanished(pod: Pod) -> None:
    watch, shim = pod.watch()
    shim.start(b"started\n")
    shim.hang_up()

    assert outcome_of_tool(watch.wait()) == (Outcome.TOOL_VANISHED, False)


def test_a_shim_that_hangs_up_without_a_word_has_been_there(pod: Pod) -> None:
    watch, shim = pod.watch()
    shim.start()
    shim.hang_up()

    assert outcome_of_tool(watch.wait()) == (Outcome.TOOL_VANISHED, False)


def test_no_writer_in_time_is_a_tool_that_never_started(pod: Pod) -> None:
    watch, _ = pod.watch(start_timeout_s=1)

    end = watch.wait()

    assert not end.started
    assert outcome_of_tool(end) == (Outcome.TOOL_NEVER_STARTED, True)


def test_a_tool_that_started_is_not_bound_by_the_start_timeout(pod: Pod) -> None:
    watch, shim = pod.watch(start_timeout_s=0)
    shim.start(b"started\n")
    shim.leave_code("x")
    waiting = in_thread(partial(shim.write, b"exit 0 0 0\n"), shim.hang_up)

    end = watch.wait()

    waiting.join()
    assert (end.started, end.exit_code) == (True, 0)


def test_term_before_the_start_waits_for_no_tool(pod: Pod) -> None:
    watch, _ = pod.watch(grace_s=1)
    pod.term()

    end = watch.wait()

    assert outcome_of_tool(end) == (Outcome.INTERRUPTED, False)


def test_a_tool_that_was_told_to_end_is_interrupted_whatever_its_code(pod: Pod) -> None:
    watch, shim = pod.watch(grace_s=1000)
    shim.start(b"started\n", b"exit 0 0 0\n")
    shim.leave_code("x")
    pod.term()
    shim.hang_up()

    end = watch.wait()

    assert end.exit_code == 0
    assert outcome_of_tool(end) == (Outcome.INTERRUPTED, False)


@pytest.mark.parametrize("code", [0, 143])
def test_term_that_reaches_the_shim_first_is_waited_for(pod: Pod, code: int) -> None:
    """A kubelet tells its containers one by one: the tool may be gone when the stager hears."""
    told: list[str] = []
    # the third look at the clock is at the hang-up: the TERM comes when there is no tool any more
    looks = iter([lambda: None, lambda: None, pod.term])

    def clock() -> float:
        next(looks, lambda: None)()
        return time.monotonic()

    watch, shim = pod.watch(grace_s=1000, clock=clock, on_term=lambda: told.append("term"))
    shim.start()
    shim.leave_code(f"{code} 0 0 term\n")
    shim.hang_up()

    end = watch.wait()

    assert next(looks, None) is None
    assert (end.exit_code, outcome_of_tool(end)) == (code, (Outcome.INTERRUPTED, False))
    assert told == ["term"]


def test_a_tool_that_tells_its_own_group_to_end_is_not_interrupted(pod: Pod) -> None:
    watch, shim = pod.watch(term_lag_s=0)
    shim.start(b"started\n", b"exit 0 0 0 term\n")
    shim.leave_code("x")
    shim.hang_up()

    assert outcome_of_tool(watch.wait()) == (Outcome.SUCCEEDED, True)


def test_a_tool_that_ignores_term_is_told_to_end_in_time(pod: Pod) -> None:
    watch, shim = pod.watch(grace_s=1)
    shim.start(b"started\n")
    pod.term()

    def obey() -> None:
        shim.await_down()
        shim.leave_code("x")
        shim.write(b"exit 137 0 0\n")
        shim.hang_up()

    thread = in_thread(obey)
    end = watch.wait()

    thread.join()
    assert (end.interrupted, end.walltime_spent, end.exit_code) == (True, False, 137)
    assert outcome_of_tool(end) == (Outcome.INTERRUPTED, False)


def test_term_wakes_the_stager_at_once(pod: Pod) -> None:
    """It does not wait for the walltime, or for the tool to speak, to begin counting the grace."""
    told: list[str] = []
    watch, shim = pod.watch(walltime_s=10_000, grace_s=0, on_term=lambda: told.append("term"))
    shim.start(b"started\n")
    thread = in_thread(pod.term, shim.await_down, shim.hang_up)

    assert watch.wait().interrupted
    thread.join()
    assert told == ["term"]


def test_the_walltime_closes_down_and_waits_for_the_tools_end(pod: Pod) -> None:
    watch, shim = pod.watch(walltime_s=0.2)
    shim.start(b"started\n")

    def obey() -> None:
        shim.await_down()
        shim.leave_code("143 0 0")
        shim.write(b"exit 143 0 0\n")
        shim.hang_up()

    thread = in_thread(obey)
    end = watch.wait()

    thread.join()
    assert (end.walltime_spent, end.exit_code) == (True, 143)
    assert end.seconds >= 0.2
    assert outcome_of_tool(end) == (Outcome.WALLTIME, True)


def test_down_stays_open_until_the_tool_has_to_end(pod: Pod) -> None:
    watch, shim = pod.watch()
    down = shim.listen()
    with pytest.raises(BlockingIOError):
        os.read(down, 1)

    watch.close()

    assert os.read(down, 9) == b"end\n"
    assert os.read(down, 9) == b""


def test_a_tool_that_nothing_can_kill_is_waited_for_a_while_only(pod: Pod) -> None:
    watch, shim = pod.watch(walltime_s=50, clock=Leaping(100))
    down = shim.listen()
    shim.start(b"started\n")

    end = watch.wait()

    assert os.read(down, 9) == b"end\n"
    assert (end.walltime_spent, end.exit_code, end.alive) == (True, None, True)
    assert outcome_of_tool(end) == (Outcome.WALLTIME, True)
    shim.hang_up()


def test_a_watch_may_be_closed_twice(pod: Pod) -> None:
    watch, _ = pod.watch()

    watch.close()
    watch.close()


GARBAGE = {
    "bytes": bytes(range(256)) * 10,
    "no number": b"exit zero 0 0\n",
    "negative": b"exit -1 0 0\n",
    "other digits": "exit \u0663 \u00b2 0\n".encode(),
    "an endless number": b"exit " + b"9" * 4000 + b" 0 0\n",
    "an endless count": b"exit 1 0 " + b"9" * 4000 + b"\n",
    "exit alone": b"exit",
    "many exits": b"exit exit exit\n" * 200,
    "a flood": b"x" * 65_000,
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_from_a_hostile_tool_ends_in_an_outcome(pod: Pod, name: str) -> None:
    """The FIFO is open to everyone, so the tool can write to it too."""
    watch, shim = pod.watch()
    shim.leave_code(GARBAGE[name].decode("latin-1"))
    thread = in_thread(partial(shim.start, GARBAGE[name]), shim.hang_up)

    end = watch.wait()

    thread.join()
    assert end.started
    assert end.exit_code in (None, 1)
    assert outcome_of_tool(end)[0] in (Outcome.TOOL_VANISHED, Outcome.TOOL_FAILED)


@pytest.mark.parametrize("lie", [b"exit 0 0 0\n", b"exit 0 0 0\n" + b"x" * 60_000 + b" "])
def test_the_shim_has_the_last_word_on_the_code(pod: Pod, lie: bytes) -> None:
    watch, shim = pod.watch()
    shim.leave_code("x")
    thread = in_thread(partial(shim.start, lie), partial(shim.write, b"exit 9 0 0\n"), shim.hang_up)

    assert watch.wait().exit_code == 9
    thread.join()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a FIFO", "a directory"])
def test_something_else_in_the_exit_codes_place_is_no_code(
    pod: Pod, make: Callable[[str], None]
) -> None:
    watch, shim = pod.watch()
    make(watch._attempt.control_file("exit_code"))
    shim.start(b"started\n")
    shim.hang_up()

    assert watch.wait().exit_code is None


def test_a_flood_on_the_fifo_is_not_kept(pod: Pod) -> None:
    watch, shim = pod.watch()
    shim.leave_code("x")

    def flood() -> None:
        shim.start()
        for _ in range(300):
            shim.write(b"y" * 4096)
        shim.write(b"\nexit 2 0 0\n")
        shim.hang_up()

    thread = in_thread(flood)
    assert watch.wait().exit_code == 2
    thread.join()
    assert len(watch._lines) < 100_000
