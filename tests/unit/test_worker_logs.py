"""What the stager sends of the tool's streams while the tool runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from attempts import (
    JOB,
    in_thread,
    memory_store,
    open_attempt,
    play_shim,
    put,
    store_job,
)
from memory_store import MemoryStore
from waiting import wait_until

from s3runner.errors import S3RunnerError, StoreAccessError, StoreUnavailableError
from s3runner.model import Outcome
from s3runner.staging.layout import LOG_LIMIT
from s3runner.staging.records import Commit
from s3runner.worker.attempt import Attempt
from s3runner.worker.fetch import fetch
from s3runner.worker.logs import LiveLogs
from s3runner.worker.stager import stage

NEVER_S = 3600.0


@pytest.fixture
def store() -> MemoryStore:
    store = memory_store()
    store_job(store, outputs=())
    return store


@pytest.fixture
def attempt(tmp_path: Path, store: MemoryStore) -> Attempt:
    return open_attempt(tmp_path, store)


def say(attempt: Attempt, text: bytes, stream: str = "stdout") -> None:
    with open(attempt.control_file(stream), "ab") as file:
        file.write(text)


def segments(store: MemoryStore, attempt: Attempt, stream: str = "stdout") -> list[bytes]:
    found = {key: body for key, body in store.objects.items() if f"/logs/{stream}/" in key}
    assert list(found) == [attempt.keys.log(stream, number) for number in range(len(found))]
    return list(found.values())


def test_each_segment_continues_where_the_last_one_ended(
    store: MemoryStore, attempt: Attempt
) -> None:
    logs = LiveLogs(attempt)
    logs.send_new()
    say(attempt, b"one\ntw")
    logs.send_new()
    logs.send_new()
    say(attempt, b"o\n\xff\x00")
    say(attempt, b"oops\n", "stderr")
    logs.send_new()

    assert segments(store, attempt) == [b"one\ntw", b"o\n\xff\x00"]
    assert segments(store, attempt, "stderr") == [b"oops\n"]


def test_a_lot_at_once_goes_up_in_pieces(store: MemoryStore, attempt: Attempt) -> None:
    text = os.urandom(3 * 1024**2 + 5)
    say(attempt, text)

    LiveLogs(attempt).send_new()

    pieces = segments(store, attempt)
    assert b"".join(pieces) == text
    assert [len(piece) for piece in pieces] == [1024**2] * 3 + [5]


def test_a_stream_beyond_the_limit_is_cut_and_said_to_be(
    store: MemoryStore, attempt: Attempt
) -> None:
    say(attempt, b"x")
    os.truncate(attempt.control_file("stdout"), 2**40)
    logs = LiveLogs(attempt)

    logs.send_new()
    calls = len(store.calls)
    logs.send_new()

    assert len(store.calls) == calls
    notice = store.objects[attempt.keys.log_capped("stdout")]
    assert attempt.keys.rest.encode() in notice
    sent = [body for key, body in store.objects.items() if "/logs/stdout/0" in key]
    assert sum(map(len, sent)) == LOG_LIMIT


def test_a_stream_of_just_the_limit_is_not_said_to_be_cut(
    store: MemoryStore, attempt: Attempt
) -> None:
    say(attempt, bytes(LOG_LIMIT))

    LiveLogs(attempt).send_new()

    assert sum(map(len, segments(store, attempt))) == LOG_LIMIT


def replace_by_link(path: str) -> None:
    Path(path).with_name("secret").write_text("secret")
    os.symlink("secret", path)


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, replace_by_link], ids=["a FIFO", "a directory", "a link"]
)
def test_something_else_in_a_streams_place_is_not_read(
    store: MemoryStore, attempt: Attempt, make: Callable[[str], None]
) -> None:
    make(attempt.control_file("stdout"))
    say(attempt, b"still\n", "stderr")

    LiveLogs(attempt).send_new()

    assert segments(store, attempt) == []
    assert segments(store, attempt, "stderr") == [b"still\n"]


def test_what_could_not_be_sent_is_sent_again_as_it_was(
    store: MemoryStore, attempt: Attempt, capsys: pytest.CaptureFixture[str]
) -> None:
    store._world.fail = {("put", number): StoreUnavailableError("no answer") for number in (1, 2)}
    store._world.lose = [("put", 3)]
    logs = LiveLogs(attempt)
    for text in (b"a\n", b"b\n", b"c\n"):
        say(attempt, text)
        logs.send_new()
    assert [call for call, _ in store.calls] == ["put"] * 3, "one try each time"

    logs.send_new()

    # the third put arrived although its answer did not: a reader may have seen that segment
    assert segments(store, attempt) == [b"a\n", b"b\nc\n"]
    assert capsys.readouterr().out.count("warning") == 1


def test_a_store_that_denies_log_segments_is_asked_once(
    store: MemoryStore, attempt: Attempt, capsys: pytest.CaptureFixture[str]
) -> None:
    store._world.fail = {("put", 1): StoreAccessError("denied")}
    logs = LiveLogs(attempt)
    say(attempt, b"a\n")

    logs.send_new()
    logs.send_new()

    assert len(store.calls) == 1
    assert "live logs" in capsys.readouterr().out


def test_the_containers_own_log_gets_the_last_lines_escaped(
    attempt: Attempt, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = LiveLogs(attempt)
    say(attempt, b"".join(b"line %d\n" % number for number in range(1000)))
    logs.send_new()
    assert capsys.readouterr().out.splitlines() == [
        f"s3runner: stdout: line {number}" for number in range(995, 1000)
    ]

    with logs:
        logs.leave_rest()
        say(attempt, b"x" * 9999 + b"\n\x1b[31mred \xff")

    out = capsys.readouterr().out
    assert out.endswith("s3runner: stdout: \\x1b[31mred \\xff\n")
    assert len(out) < 1000


def test_the_containers_own_log_is_bounded(
    attempt: Attempt, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = LiveLogs(attempt)
    for _ in range(600):
        say(attempt, b"y" * 300 + b"\n")
        logs.send_new()

    assert len(capsys.readouterr().out) < 100_000


@pytest.mark.parametrize("leave", [True, False])
def test_the_end_sends_the_rest_unless_nobody_will_read_it(
    store: MemoryStore,
    attempt: Attempt,
    leave: bool,
) -> None:
    with LiveLogs(attempt, NEVER_S) as logs:
        say(attempt, b"last words\n")
        if leave:
            logs.leave_rest()

    assert segments(store, attempt) == ([] if leave else [b"last words\n"])


def test_a_pod_that_is_told_to_end_sends_what_is_new_at_once(
    store: MemoryStore, attempt: Attempt
) -> None:
    """It may be killed before its tool has ended."""
    with LiveLogs(attempt, NEVER_S) as logs:
        say(attempt, b"before\n")
        logs.hurry()
        wait_until(lambda: segments(store, attempt) == [b"before\n"])
        assert logs._pause() < 1


@pytest.fixture
def _keep_the_signal_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def run(
    attempt: Attempt, exit_code: int = 0, work: Callable[[], object] = lambda: None
) -> int | S3RunnerError:
    fetch(attempt)
    shim = in_thread(
        partial(play_shim, attempt, exit_code=exit_code, work=lambda: (work(), None)[1])
    )
    try:
        return stage(attempt)
    except S3RunnerError as error:
        return error
    finally:
        shim.join()


@pytest.mark.usefixtures("_keep_the_signal_handler")
def test_a_short_tool_whose_streams_are_committed_costs_no_segment(
    store: MemoryStore, attempt: Attempt
) -> None:
    assert run(attempt) == 0

    assert segments(store, attempt) == []


@pytest.mark.usefixtures("_keep_the_signal_handler")
def test_an_attempt_that_commits_nothing_leaves_its_segments(
    tmp_path: Path, store: MemoryStore
) -> None:
    store_job(store, outputs=(), final=(Outcome.SUCCEEDED,))
    attempt = open_attempt(tmp_path, store)

    assert run(attempt, exit_code=3) == 10

    assert segments(store, attempt) == [b"said\n"]


@pytest.mark.usefixtures("_keep_the_signal_handler")
def test_a_cancelled_attempt_leaves_its_segments_and_nothing_else(
    store: MemoryStore, attempt: Attempt
) -> None:
    cancelled = Commit("head", Outcome.CANCELLED, None, None, 1)

    assert run(attempt, work=partial(put, store, JOB.commit, cancelled.dump())) == 0

    assert segments(store, attempt) == [b"said\n"]
    assert attempt.keys.result not in store.objects


@pytest.mark.usefixtures("_keep_the_signal_handler")
def test_logs_that_cannot_be_sent_change_nothing_for_the_job(
    tmp_path: Path, store: MemoryStore
) -> None:
    store_job(store, outputs=(), final=(Outcome.SUCCEEDED,))
    attempt = open_attempt(tmp_path, store)
    # the puts are: rest.tar, the manifest, the segment, the result
    store._world.fail = {("put", 3): StoreAccessError("denied")}

    assert run(attempt, exit_code=3) == 10

    assert segments(store, attempt) == []
    assert attempt.keys.result in store.objects
