"""The pace of calls, told with a clock that the test moves."""

from __future__ import annotations

import pytest

from s3runner.cluster.kubernetes.limits import LONGEST_HOLD_S, Pace


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        if seconds > 1e-6:  # less is what subtracting floats leaves
            self.slept.append(round(seconds, 6))
        self.now_s += seconds


def pace_of(clock: Clock) -> Pace:
    return Pace(10.0, 3, clock=lambda: clock.now_s, sleep=clock.sleep)


def test_a_burst_goes_at_once_and_then_one_call_follows_another_at_the_rate() -> None:
    clock = Clock()
    pace = pace_of(clock)

    for _ in range(5):
        pace.take()

    assert clock.slept == [0.1, 0.1]


def test_a_pause_earns_another_burst_and_no_more() -> None:
    clock = Clock()
    pace = pace_of(clock)
    for _ in range(3):
        pace.take()
    clock.now_s += 3600

    for _ in range(4):
        pace.take()

    assert clock.slept == [0.1]


def test_what_the_server_asks_of_one_call_holds_all() -> None:
    clock = Clock()
    pace = pace_of(clock)

    pace.hold(7)
    pace.take()
    pace.take()

    assert clock.slept == [7]


@pytest.mark.parametrize("asked_s", [3600 * 24, float("inf")])
def test_a_server_that_asks_for_a_day_gets_a_minute(asked_s: float) -> None:
    clock = Clock()
    pace = pace_of(clock)

    pace.hold(asked_s)
    pace.take()

    assert clock.slept == [LONGEST_HOLD_S]
