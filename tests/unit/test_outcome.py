"""What observations mean: each file of tests/observed is one as a cluster leaves it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from observing import RECORDED, load, observed

from s3runner.cluster.outcome import (
    count_pods,
    is_over,
    last_pod_end,
    patience_of,
    reason_of,
    since_of,
    state_of,
)
from s3runner.cluster.pod_end import Patience


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_an_observation_is_read_as_its_file_says(path: Path) -> None:
    seen, expected = load(path)
    end = last_pod_end(seen)
    reason = reason_of(seen)

    assert is_over(seen) == expected["over"]
    assert state_of(seen) == expected["state"]
    assert patience_of(seen) is Patience(expected["action"])
    assert (None if end is None else end.outcome.value) == expected["outcome"]
    assert (expected["detail"] or "") in ("" if end is None else end.detail)
    assert (expected["reason"] or "") in (reason or "")


def test_every_outcome_of_the_table_and_every_patience_is_recorded() -> None:
    expected = [load(path)[1] for path in RECORDED]
    assert {one["action"] for one in expected} == {one.value for one in Patience}
    assert {one["state"] for one in expected} == {
        "queued",
        "pending",
        "fetching",
        "running",
        "staging_out",
        "ended",
    }


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_each_file_says_whether_a_server_was_recorded(path: Path) -> None:
    """One that was written shows nothing but our knowledge: a reader has to know."""
    source = yaml.safe_load(path.read_text())["source"]

    assert re.fullmatch(r"written|recorded, Kubernetes \d+\.\d+\.\d+, cgroup v[12]", source)


def test_a_pod_that_still_ends_is_not_counted_twice() -> None:
    """A Job that fails counts it as failed and as terminating."""
    seen = observed("deadline-target")

    assert seen.job is not None
    assert (seen.job["status"]["failed"], seen.job["status"]["terminating"]) == (1, 1)
    assert count_pods(seen) == 1


def test_a_pod_that_ends_for_another_reason_is_counted() -> None:
    seen = observed("evicted-in-fetch")
    assert count_pods(replace(seen, pods=())) == 1


def test_a_pod_that_merely_starts_is_held_up_by_nothing_worth_telling() -> None:
    seen = observed("volume-missing")
    assert reason_of(seen) is None


def test_what_comes_after_a_failed_pod_is_pending_since_that_pods_end() -> None:
    seen = observed("between-two-pods")
    ended = seen.pods[0]["status"]["initContainerStatuses"][0]["state"]["terminated"]
    assert since_of(seen) == ended["finishedAt"]
