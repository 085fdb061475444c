"""Looks for a commit before the cluster tells of it: soon at first, then seldom, and few in all."""

from __future__ import annotations

import pytest

from s3runner.runner.early_look import EarlyLook


class Clock:
    """Seconds that pass when a test says so."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def looks_within(look: EarlyLook, clock: Clock, state: str, seconds: float) -> list[float]:
    """Return when looks were taken, if the head pauses as it is told to, at most ten seconds."""
    began_s, taken = clock.now_s, []
    while clock.now_s < began_s + seconds:
        if look.is_due(state):
            taken.append(clock.now_s - began_s)
        clock.now_s += look.shorten(10.0)
    return taken


def test_looks_come_soon_then_seldom_and_end() -> None:
    clock = Clock()

    taken = looks_within(EarlyLook(clock), clock, "running", 3600)

    assert taken == [0.25, 0.75, 1.75, 3.75, 7.75]


def test_they_begin_anew_with_each_state() -> None:
    clock = Clock()
    look = EarlyLook(clock)
    looks_within(look, clock, "running", 600)

    assert looks_within(look, clock, "staging_out", 1) == [0.25, 0.75]


@pytest.mark.parametrize("state", ["staged", "queued", "pending", "ended"])
def test_where_no_pod_can_have_committed_there_are_none(state: str) -> None:
    clock = Clock()
    look = EarlyLook(clock)

    assert looks_within(look, clock, state, 600) == []
    assert look.shorten(10.0) == 10.0


def test_a_pause_is_never_longer_than_asked_for() -> None:
    clock = Clock()
    look = EarlyLook(clock)
    look.is_due("running")

    assert look.shorten(0.1) == 0.1
    clock.now_s += 5
    assert look.shorten(10.0) == 0.0
