"""Reading logs: segments of live attempts, whole streams of the committed one, each byte once."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest
from attempts import JOB, end_of, finish, memory_store, open_attempt, put, store_job
from fake_cluster import COMPLETE, RUNNING, FakeCluster, Heard, head_of
from memory_store import MemoryStore
from samples import JOB_ID

from s3runner.cluster.protocol import Observation
from s3runner.errors import IntegrityError, SettingsError
from s3runner.model import Outcome
from s3runner.runner.landing import Places
from s3runner.runner.logs import follow_logs, show_logs
from s3runner.runner.sync import sync
from s3runner.staging.digest import PART
from s3runner.staging.records import Commit
from s3runner.worker.attempt import Attempt
from s3runner.worker.commit import publish
from s3runner.worker.logs import LiveLogs

CANCELLED = Commit("head", Outcome.CANCELLED, None, None, 1)


class Printed:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.stdout = b""
        self.stderr = b""
        self.notes: list[str] = []

    def write(self, stream: str, piece: bytes) -> None:
        assert piece
        setattr(self, stream, getattr(self, stream) + piece)

    def note(self, text: str) -> None:
        self.notes.append(text)


class Pod:
    """An attempt whose tool says what the test lets it say."""

    def __init__(self, root: Path, store: MemoryStore, uid: str = "pod-1") -> None:
        self.attempt: Attempt = open_attempt(root, store, uid=uid)
        self.live = LiveLogs(self.attempt)

    def write(self, text: bytes, stream: str = "stdout") -> None:
        with open(self.attempt.control_file(stream), "ab") as file:
            file.write(text)

    def say(self, text: bytes, stream: str = "stdout") -> None:
        self.write(text, stream)
        self.live.send_new()


class Bucket:
    """A store whose clock goes on with each look at it."""

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 1, tzinfo=timezone.utc)
        self.printed = Printed()
        self.store = memory_store(clock=self._tick)
        store_job(self.store, outputs=())

    def _tick(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now

    def shown(self) -> Printed:
        printed = Printed()
        show_logs(head_of(self.store, FakeCluster()), JOB_ID, printed)
        return printed

    def followed(self, *meanwhile: Callable[[], object]) -> Printed:
        """Follow while these things happen one after another, the last of them the job's end."""
        seen: list[Observation] = [*([RUNNING] * len(meanwhile)), COMPLETE]
        cluster = FakeCluster(*seen, meanwhile=meanwhile)
        follow_logs(head_of(self.store, cluster), JOB_ID, self.printed)
        return self.printed


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


def test_an_unknown_job_is_a_settings_error(bucket: Bucket) -> None:
    with pytest.raises(SettingsError, match="no job"):
        show_logs(head_of(bucket.store, FakeCluster()), "nope", Printed())


def test_a_job_without_a_word_shows_nothing(bucket: Bucket) -> None:
    printed = bucket.shown()

    assert (printed.stdout, printed.stderr, printed.notes) == (b"", b"", [])


def test_a_live_job_shows_the_newest_attempts_segments(tmp_path: Path, bucket: Bucket) -> None:
    # the names' order is not the attempts'
    Pod(tmp_path, bucket.store, "z").say(b"old")
    pod = Pod(tmp_path, bucket.store, "a")
    pod.say(b"\x00one\n")
    pod.say(b"oops\n", "stderr")
    pod.say(b"two\n")

    printed = bucket.shown()

    assert (printed.stdout, printed.stderr) == (b"\x00one\ntwo\n", b"oops\n")


def test_more_than_a_thousand_segments_stay_in_order(tmp_path: Path, bucket: Bucket) -> None:
    pod = Pod(tmp_path, bucket.store)
    for number in range(1100):
        pod.say(b"%d\n" % number)

    assert bucket.shown().stdout.split() == [b"%d" % number for number in range(1100)]


def test_a_committed_job_shows_its_whole_streams(tmp_path: Path, bucket: Bucket) -> None:
    pod = Pod(tmp_path, bucket.store)
    pod.say(b"one\n")
    pod.write(b"two\n")
    pod.write(b"err\n", "stderr")
    finish(pod.attempt)
    Pod(tmp_path, bucket.store, "pod-2").say(b"too late\n")

    printed = bucket.shown()

    assert (printed.stdout, printed.stderr) == (b"one\ntwo\n", b"err\n")


def test_streams_of_several_parts_come_whole(tmp_path: Path, bucket: Bucket) -> None:
    text = os.urandom(1000) * (2 * PART // 1000 + 7)
    pod = Pod(tmp_path, bucket.store)
    pod.write(text)
    finish(pod.attempt)

    assert bucket.shown().stdout == text


def test_damaged_bytes_are_not_shown(tmp_path: Path, bucket: Bucket) -> None:
    pod = Pod(tmp_path, bucket.store)
    pod.write(b"the truth\n")
    finish(pod.attempt)
    key = pod.attempt.keys.rest
    bucket.store.damage(key, bucket.store.objects[key].replace(b"the truth", b"not truth"))

    with pytest.raises(IntegrityError):
        bucket.shown()


def test_a_job_without_a_committed_attempt_shows_the_newest_ones_segments(
    tmp_path: Path, bucket: Bucket
) -> None:
    Pod(tmp_path, bucket.store).say(b"before the end\n")
    put(bucket.store, JOB.commit, CANCELLED.dump())

    assert bucket.shown().stdout == b"before the end\n"


def test_an_attempt_that_could_not_store_its_streams_shows_its_segments(
    tmp_path: Path, bucket: Bucket
) -> None:
    pod = Pod(tmp_path, bucket.store)
    pod.say(b"before the store failed\n")
    publish(pod.attempt, end_of(pod.attempt, Outcome.TOOL_FAILED))

    assert bucket.shown().stdout == b"before the store failed\n"


def test_following_gives_each_byte_once(tmp_path: Path, bucket: Bucket) -> None:
    pod = Pod(tmp_path, bucket.store)
    pod.say(b"before\n")

    printed = bucket.followed(
        partial(pod.say, b"one\n"),
        lambda: None,
        partial(pod.say, b"oops\n", "stderr"),
        partial(pod.say, b"two\n"),
        partial(pod.write, b"never a segment\n"),
        partial(finish, pod.attempt),
    )

    assert printed.stdout == b"before\none\ntwo\nnever a segment\n"
    assert printed.stderr == b"oops\n"


@pytest.mark.parametrize("extra", [0, 1, 1000])
def test_following_goes_on_within_a_part_and_behind_it(
    tmp_path: Path, bucket: Bucket, extra: int
) -> None:
    """The live part of a long stream ends at the limit, which is a part's end too."""
    pod = Pod(tmp_path, bucket.store)
    text = os.urandom(1000) * (PART // 1000) + bytes(range(PART % 1000 % 256)) + b"!" * extra

    printed = bucket.followed(partial(pod.say, text), partial(finish, pod.attempt))

    assert printed.stdout == text


def test_a_live_stream_beyond_the_limit_is_noted_once(tmp_path: Path, bucket: Bucket) -> None:
    pod = Pod(tmp_path, bucket.store)
    text = bytes(PART + 5)

    printed = bucket.followed(
        partial(pod.say, text), lambda: None, lambda: None, partial(finish, pod.attempt)
    )

    assert printed.stdout == text
    assert len(printed.notes) == 1
    assert "stdout" in printed.notes[0]


def test_following_goes_on_to_the_next_attempt(tmp_path: Path, bucket: Bucket) -> None:
    Pod(tmp_path, bucket.store, "pod-0").say(b"long ago\n")
    first, second = (Pod(tmp_path, bucket.store, uid) for uid in ("z", "a"))
    first.say(b"first\n")

    def is_quiet() -> None:
        """Nothing new comes for some looks."""

    def has_come() -> None:
        assert bucket.printed.stdout.endswith(b"second\n")

    printed = bucket.followed(
        partial(first.say, b"evicted\n"),
        partial(second.say, b"second\n"),
        *([is_quiet] * 6),
        has_come,
        partial(second.say, b"again\n"),
        partial(finish, second.attempt),
    )

    assert printed.stdout == b"first\nevicted\nsecond\nagain\n"


def test_the_first_words_of_a_job_come_at_the_next_look(tmp_path: Path, bucket: Bucket) -> None:
    pod = Pod(tmp_path, bucket.store)

    def has_come() -> None:
        assert bucket.printed.stdout == b"one\n"

    bucket.followed(
        lambda: None, partial(pod.say, b"one\n"), has_come, partial(finish, pod.attempt)
    )


def test_following_shows_attempts_that_came_and_went_between_two_looks(
    tmp_path: Path, bucket: Bucket
) -> None:
    first, second, third = (Pod(tmp_path, bucket.store, uid) for uid in "cab")
    first.say(b"1\n")

    def come_and_go() -> None:
        first.say(b"end of 1\n")
        second.say(b"2\n")
        third.say(b"3\n")
        finish(third.attempt)

    assert bucket.followed(come_and_go).stdout == b"1\nend of 1\n2\n3\n"


def test_following_a_job_that_is_cancelled_ends_with_its_segments(
    tmp_path: Path, bucket: Bucket
) -> None:
    pod = Pod(tmp_path, bucket.store)

    def cancel() -> None:
        pod.say(b"last\n")
        put(bucket.store, JOB.commit, CANCELLED.dump())

    assert bucket.followed(partial(pod.say, b"one\n"), cancel).stdout == b"one\nlast\n"


def test_following_an_ended_job_shows_it(tmp_path: Path, bucket: Bucket) -> None:
    pod = Pod(tmp_path, bucket.store)
    pod.say(b"one\n")
    finish(pod.attempt)

    assert bucket.followed().stdout == b"one\n"


def test_sync_of_segments_that_are_capped_says_so(tmp_path: Path, bucket: Bucket) -> None:
    Pod(tmp_path, bucket.store).say(bytes(PART + 1))
    put(bucket.store, JOB.commit, CANCELLED.dump())
    head, heard = head_of(bucket.store, FakeCluster()), Heard()
    places = Places(tmp_path / "results", gather_absolute=False)

    sync(head, head.read_spec(JOB_ID)[0], places, heard, overwrite=False)

    assert (tmp_path / "results" / ".s3runner" / "stdout").stat().st_size == PART
    (warning,) = heard.warnings
    assert "stdout" in warning


def test_sync_without_a_committed_attempt_brings_the_newest_ones_segments(
    tmp_path: Path, bucket: Bucket
) -> None:
    Pod(tmp_path, bucket.store, "z").say(b"old\n")
    pod = Pod(tmp_path, bucket.store, "a")
    pod.say(b"one\n")
    pod.say(b"two\n")
    put(bucket.store, JOB.commit, CANCELLED.dump())
    head = head_of(bucket.store, FakeCluster())
    places = Places(tmp_path / "results", gather_absolute=False)

    result = sync(head, head.read_spec(JOB_ID)[0], places, Heard(), overwrite=False)

    streams = tmp_path / "results" / ".s3runner"
    assert result.streams == streams
    assert (streams / "stdout").read_bytes() == b"one\ntwo\n"
    assert (streams / "stderr").read_bytes() == b""
    assert sorted(os.listdir(streams)) == ["stderr", "stdout"]
