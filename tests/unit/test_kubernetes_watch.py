"""The shared watch, over real sockets against a server that does what the test says."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from scripted_api import (
    Feed,
    ScriptedApi,
    Step,
    drop,
    in_turn,
    job,
    listing,
    refuse,
    status_of,
    write_kubeconfig,
)
from waiting import wait_until

from s3runner.cluster.kubernetes.calls import JOBS, OURS
from s3runner.cluster.kubernetes.limits import Pace
from s3runner.cluster.kubernetes.mirror import Changes, Mirror
from s3runner.cluster.kubernetes.transport import Connection, Place
from s3runner.cluster.kubernetes.watch import Health, Rhythm, Watch, lines
from s3runner.errors import ClusterRefusedError, ClusterUnavailableError

QUICK = Rhythm(first_pause_s=0.001, longest_pause_s=0.01)


class Watched:
    """A server, a watch of its Jobs, and what came of it."""

    def __init__(self, directory: Path) -> None:
        self.api = ScriptedApi()
        self.told: list[str] = []
        self.jobs = Mirror(Changes(), lambda item: str(item["metadata"]["name"]), 0)
        self._kubeconfig = write_kubeconfig(directory / "kc", self.api.url)
        self._watch: Watch | None = None

    def start(self, rhythm: Rhythm = QUICK) -> None:
        connection = Connection(Place(kubeconfig=self._kubeconfig), Pace(1e6, 1000))
        self.health = Health(rhythm, self.told.append)
        self._watch = Watch(connection, JOBS, self.jobs, self.health)
        self._watch.start()

    def stop(self) -> None:
        if self._watch is not None:
            self._watch.stop()

    def shows(self, name: str, version: str) -> None:
        """Return once the mirror has this version of a Job; fail if that takes too long."""
        with self.jobs.changes.condition:
            shown = self.jobs.changes.condition.wait_for(
                lambda: (
                    [j["metadata"]["resourceVersion"] for j in self.jobs.of_job(name)] == [version]
                ),
                20,
            )
        assert shown, self.jobs.of_job(name)

    def versions_asked_for(self) -> list[str]:
        found = [request for request in self.api.requests if request.verb == "watch"]
        return [request.query["resourceVersion"] for request in found]


@pytest.fixture(name="watched")
def watched_jobs(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path)
    with watched.api:
        yield watched
        watched.stop()


def streams(*feeds: Step) -> Step:
    """Give each request for a stream the next feed, and then one that stays open."""
    return in_turn(*feeds, Feed())


def test_a_list_is_followed_by_one_stream_from_its_version(watched: Watched) -> None:
    watched.api.on["list", "jobs"] = listing(job("j", "4"), version="7")
    watched.start()
    watched.shows("j", "4")

    watched.api.feeds["jobs"].event("MODIFIED", job("j", "8"))
    watched.shows("j", "8")

    asked = watched.api.requests
    assert [(r.verb, r.query["labelSelector"]) for r in asked] == [("list", OURS), ("watch", OURS)]
    assert asked[0].query["limit"] == "500"
    assert asked[1].query["resourceVersion"] == "7"
    assert asked[1].query["allowWatchBookmarks"] == "true"
    assert 200 < int(asked[1].query["timeoutSeconds"]) <= 290


def test_every_page_of_the_list_counts(watched: Watched) -> None:
    watched.api.on["list", "jobs"] = in_turn(
        listing(job("a"), token="p2"),  # noqa: S106 # a page's
        listing(job("b"), version="9"),
    )
    watched.start()
    watched.shows("b", "1")

    assert watched.jobs.of_job("a")
    assert [r.query.get("continue") for r in watched.api.requests[:2]] == [None, "p2"]
    watched.api.await_count("watch", "jobs", 1)
    assert watched.versions_asked_for() == ["9"]


def test_a_page_that_has_expired_begins_the_list_anew(watched: Watched) -> None:
    watched.api.on["list", "jobs"] = in_turn(
        listing(job("a"), token="p2"),  # noqa: S106
        refuse(410, "The provided continue parameter is too old", "Expired"),
        listing(job("b")),
    )
    watched.start()
    watched.shows("b", "1")

    assert watched.jobs.of_job("a") == []


@pytest.mark.parametrize("way", ["its time is over", "it breaks"])
def test_a_stream_that_ends_goes_on_where_it_was(way: str, watched: Watched) -> None:
    first = Feed()
    watched.api.on["list", "jobs"] = listing(version="7")
    watched.api.on["watch", "jobs"] = streams(first)
    watched.start()
    first.event("ADDED", job("j", "8"))
    watched.shows("j", "8")

    if way == "it breaks":
        first.send(b'{"type": "MODIFIED", "obj')
    first.end()
    watched.api.await_count("watch", "jobs", 2)

    assert watched.versions_asked_for() == ["7", "8"]
    assert watched.api.count("list", "jobs") == 1


def test_a_bookmark_moves_the_point_to_go_on_from_and_nothing_else(watched: Watched) -> None:
    first = Feed()
    watched.api.on["list", "jobs"] = listing(job("j", "4"), version="7")
    watched.api.on["watch", "jobs"] = streams(first)
    first.event("BOOKMARK", {"metadata": {"resourceVersion": "99", "creationTimestamp": None}})
    first.end()
    watched.start()
    watched.api.await_count("watch", "jobs", 2)

    assert watched.versions_asked_for() == ["7", "99"]
    watched.shows("j", "4")


def gone_in_the_stream() -> Step:
    feed = Feed()
    feed.event("ERROR", status_of(410, "too old resource version: 7 (90)", "Expired"))
    feed.end()
    return feed


@pytest.mark.parametrize(
    "gone",
    [lambda: refuse(410, "too old resource version", "Expired"), gone_in_the_stream],
    ids=["as the answer", "in the stream"],
)
def test_a_point_that_is_too_long_ago_is_followed_by_a_new_list(
    gone: Callable[[], Step], watched: Watched
) -> None:
    """What was missed is in the list, what was deleted is not."""
    first = Feed()
    watched.api.on["list", "jobs"] = in_turn(
        listing(job("old"), version="7"), listing(job("new"), version="91")
    )
    watched.api.on["watch", "jobs"] = in_turn(first, gone(), Feed())
    first.end()
    watched.start()
    watched.shows("new", "1")
    watched.api.await_count("watch", "jobs", 3)

    assert watched.jobs.of_job("old") == []
    assert watched.versions_asked_for() == ["7", "7", "91"]


def test_another_error_in_the_stream_goes_on_where_it_was(watched: Watched) -> None:
    first = Feed()
    watched.api.on["list", "jobs"] = listing(version="7")
    watched.api.on["watch", "jobs"] = streams(first)
    first.event("ERROR", status_of(500, "etcdserver: leader changed", "InternalError"))
    first.end()
    watched.start()
    watched.api.await_count("watch", "jobs", 2)

    assert watched.versions_asked_for() == ["7", "7"]
    assert watched.api.count("list", "jobs") == 1


def test_a_stream_that_falls_silent_is_replaced(watched: Watched) -> None:
    """The connection is open, and nothing comes: a firewall forgot it."""
    silent, fresh = Feed(), Feed()
    watched.api.on["list", "jobs"] = listing(version="7")
    watched.api.on["watch", "jobs"] = in_turn(silent, fresh)
    fresh.event("ADDED", job("j", "8"))
    watched.start(replace(QUICK, silence_s=0.2))
    watched.shows("j", "8")
    silent.end()

    assert watched.versions_asked_for()[:2] == ["7", "7"]
    assert watched.told == []


def test_a_server_that_closes_at_once_is_asked_less_and_less_often() -> None:
    rhythm = Rhythm(jitter=lambda: 1.0)

    pauses = [rhythm.pause_s(failures) for failures in range(1, 12)]

    assert pauses[:4] == [0.2, 0.4, 0.8, 1.6]
    assert pauses[-1] == 30.0
    assert Rhythm(jitter=lambda: 0.0).pause_s(1) == 0.1


def test_a_stream_that_lives_for_a_moment_counts_as_a_failure(watched: Watched) -> None:
    """Whatever it brought: else a server that closes at once is asked without end."""
    feed = Feed()
    for number in range(20):
        feed.event("MODIFIED", job("j", f"v{number}"))
        feed.end()
    watched.api.on["watch", "jobs"] = feed
    asked: list[int] = []

    class Counting(Rhythm):
        def pause_s(self, failures: int) -> float:
            asked.append(failures)
            return 0.0

    watched.start(Counting(short_s=3600.0))
    watched.shows("j", "v19")

    assert asked[:15] == list(range(1, 16))


def test_a_stream_that_lived_is_followed_by_another_at_once(watched: Watched) -> None:
    feed = Feed()
    for _ in range(5):
        feed.end()
    watched.api.on["watch", "jobs"] = feed
    asked: list[int] = []

    class Counting(Rhythm):
        def pause_s(self, failures: int) -> float:
            asked.append(failures)
            return 0.0

    watched.start(Counting(short_s=0.0))
    watched.api.await_count("watch", "jobs", 6)

    assert asked == []


@pytest.mark.parametrize(
    "nonsense",
    [b"<html>\n", b"[]\n", b'{"type": "ADDED"}\n', b'{"type": "ADDED", "object": {}}\n'],
    ids=["no JSON", "no object", "half an event", "no metadata"],
)
def test_nonsense_in_the_stream_is_followed_by_a_new_list(
    nonsense: bytes, watched: Watched
) -> None:
    """The thread must not die of it: silence would look like a cluster where nothing happens."""
    first = Feed()
    watched.api.on["list", "jobs"] = in_turn(listing(version="7"), listing(job("j"), version="8"))
    watched.api.on["watch", "jobs"] = streams(first)
    first.send(nonsense)
    first.end()
    watched.start()

    watched.shows("j", "1")


def test_an_outage_is_told_once_and_so_is_its_end(watched: Watched) -> None:
    """The thread goes on through it, and what was known stays known."""
    first = Feed()
    watched.api.on["list", "jobs"] = listing(job("j", "4"), version="7")
    watched.api.on["watch", "jobs"] = in_turn(first, *[drop] * 20, Feed())
    ticks = itertools.count(step=3.0)
    watched.start(replace(QUICK, clock=lambda: next(ticks)))
    watched.shows("j", "4")
    first.end()
    watched.api.await_count("watch", "jobs", 22)
    wait_until(lambda: len(watched.told) == 2)

    assert "has not answered for" in watched.told[0]
    assert "connection broke" in watched.told[0]
    assert watched.told[1] == "the cluster's API answers again"
    watched.shows("j", "4")


def test_a_short_outage_is_not_worth_a_word() -> None:
    now_s = 0.0
    told: list[str] = []
    health = Health(Rhythm(clock=lambda: now_s), told.append)
    away = ClusterUnavailableError("away")

    health.failed("jobs", away)
    now_s = 9.0
    health.failed("jobs", away)
    health.answered("jobs")
    assert told == []

    health.failed("jobs", away)
    assert health.failure("jobs") == (0.0, away)
    assert health.failure("pods") == (0.0, None)


def test_an_outage_ends_when_the_last_one_gets_an_answer() -> None:
    now_s = 0.0
    told: list[str] = []
    health = Health(Rhythm(clock=lambda: now_s), told.append)
    for who in ("jobs", "pods"):
        health.failed(who, ClusterRefusedError("no"))
    now_s = 11.0
    for who in ("jobs", "pods"):
        health.failed(who, ClusterRefusedError("no"))

    health.answered("jobs")
    assert len(told) == 1
    health.answered("pods")
    assert len(told) == 2


def test_a_watch_that_waits_for_news_can_be_stopped(watched: Watched) -> None:
    watched.start()
    watched.api.await_count("watch", "jobs", 1)
    assert watched.api.feeds["jobs"].opened.acquire(timeout=20)

    watched.stop()

    assert watched._watch is not None
    assert not watched._watch._thread.is_alive()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
def test_lines_may_be_cut_anywhere(size: int) -> None:
    text = b'{"a": 1}\n\n{"b": "' + "ü".encode() * 50 + b'"}\n{"unfinished'

    chunks = [text[at : at + size] for at in range(0, len(text), size)]

    assert [json.loads(line) for line in lines(chunks)] == [{"a": 1}, {"b": "ü" * 50}]


def test_a_line_of_megabytes_takes_no_more_than_its_length() -> None:
    """It is put together once, not again with every chunk."""
    line = b"x" * 4_000_000
    chunks = (line[at : at + 1000] for at in range(0, len(line), 1000))

    assert list(lines(itertools.chain(chunks, [b"\n"]))) == [line]
