"""What news of the cluster's objects counts, whatever order they come in."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from scripted_api import job, pod

from s3runner.cluster.kubernetes.adapter import job_of_pod
from s3runner.cluster.kubernetes.mirror import Changes, Mirror


def mirror_of_pods(remembered: int = 10) -> Mirror:
    return Mirror(Changes(), job_of_pod, remembered)


def mirror_of_jobs() -> Mirror:
    return Mirror(Changes(), lambda item: str(item["metadata"]["name"]), 0)


def versions(mirror: Mirror, name: str) -> list[str]:
    return [item["metadata"]["resourceVersion"] for item in mirror.of_job(name)]


def test_a_list_is_the_truth_what_is_not_in_it_has_vanished() -> None:
    """It is remembered as it was last seen."""
    pods = mirror_of_pods()
    pods.replace([pod("a", "j"), pod("b", "j")])

    pods.replace([pod("b", "j", "2")])

    assert versions(pods, "j") == ["2"]
    assert [item["metadata"]["uid"] for item in pods.vanished_of_job("j")] == ["a"]
    assert pods.is_synced


def test_a_deleted_pod_is_remembered_with_its_last_words() -> None:
    pods = mirror_of_pods()
    pods.apply("ADDED", pod("a", "j"))
    pods.apply("DELETED", pod("a", "j", "2", "Failed"))

    assert pods.of_job("j") == []
    assert [item["status"]["phase"] for item in pods.vanished_of_job("j")] == ["Failed"]


def test_the_vanished_pods_of_the_longest_forgotten_jobs_are_dropped() -> None:
    """A head that lives for months must not remember every pod."""
    pods = mirror_of_pods(remembered=2)
    for name in ("x", "y", "z"):
        pods.apply("ADDED", pod(name, name))
        pods.apply("DELETED", pod(name, name, "2"))

    assert [len(pods.vanished_of_job(name)) for name in ("x", "y", "z")] == [0, 1, 1]


@pytest.mark.parametrize(
    ("held", "news"),
    [
        pytest.param(job("j", "5", "Failed"), job("j", "4"), id="an ended job goes on"),
        pytest.param(
            job("j", "5", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}),
            job("j", "4"),
            id="a job that is being deleted stays",
        ),
    ],
)
def test_news_that_can_only_be_old_is_not_taken(held: dict[str, Any], news: dict[str, Any]) -> None:
    jobs = mirror_of_jobs()
    jobs.apply("ADDED", held)

    jobs.apply("MODIFIED", news)

    assert versions(jobs, "j") == ["5"]


def test_an_ended_pod_does_not_run_again() -> None:
    pods = mirror_of_pods()
    pods.apply("ADDED", pod("a", "j", "5", "Succeeded"))

    pods.apply("MODIFIED", pod("a", "j", "4", "Running"))

    assert versions(pods, "j") == ["5"]


def test_a_state_that_was_replaced_does_not_come_back() -> None:
    """Versions are no numbers: only having seen it before tells that it is old."""
    jobs = mirror_of_jobs()
    for version in ("b", "c", "a", "b", "c"):
        jobs.apply("MODIFIED", job("j", version))

    assert versions(jobs, "j") == ["a"]


def test_an_event_that_comes_after_the_deletion_brings_nothing_back() -> None:
    jobs = mirror_of_jobs()
    jobs.apply("ADDED", job("j", "1"))
    jobs.apply("DELETED", job("j", "2"))

    jobs.apply("MODIFIED", job("j", "1"))
    jobs.apply("ADDED", job("j", "3"))

    assert jobs.of_job("j") == []


def test_a_later_list_brings_back_what_the_stream_said_was_deleted() -> None:
    """The label may have been taken away and given back."""
    jobs = mirror_of_jobs()
    jobs.apply("ADDED", job("j", "1"))
    jobs.apply("DELETED", job("j", "2"))

    jobs.replace([job("j", "3")])
    jobs.apply("MODIFIED", job("j", "4"))

    assert versions(jobs, "j") == ["4"]


def test_an_answer_to_a_call_is_seen_at_once() -> None:
    jobs = mirror_of_jobs()

    jobs.learn([job("j", "7")], jobs.mark())

    assert versions(jobs, "j") == ["7"]


def test_the_stream_does_not_lead_back_behind_an_answer_and_takes_over_where_it_reaches_it() -> (
    None
):
    """An answer may be ahead of the stream, which then tells the past first."""
    jobs = mirror_of_jobs()
    jobs.learn([job("j", "7")], jobs.mark())

    for version, shown in [("5", "7"), ("6", "7"), ("7", "7"), ("9", "9")]:
        jobs.apply("MODIFIED", job("j", version))
        assert versions(jobs, "j") == [shown]


def test_an_end_is_news_also_where_the_stream_is_behind_an_answer() -> None:
    """Nothing that is waited for may depend on a version that never comes."""
    jobs = mirror_of_jobs()
    jobs.learn([job("j", "7")], jobs.mark())

    jobs.apply("MODIFIED", job("j", "8", "Complete"))
    jobs.apply("MODIFIED", job("j", "9", "Complete", succeeded=1))

    assert versions(jobs, "j") == ["9"]


def test_the_stream_may_delete_what_an_answer_showed() -> None:
    jobs = mirror_of_jobs()
    jobs.learn([job("j", "7")], jobs.mark())

    jobs.apply("DELETED", job("j", "8"))

    assert jobs.of_job("j") == []


@pytest.mark.parametrize("meanwhile", ["event", "deletion", "list", "deletion of the unknown"])
def test_an_answer_that_something_newer_overtook_is_not_taken(meanwhile: str) -> None:
    """It would bring back what is gone, and no event would ever correct it."""
    jobs = mirror_of_jobs()
    if meanwhile != "deletion of the unknown":
        jobs.apply("ADDED", job("j", "1"))
    since = jobs.mark()
    if meanwhile == "event":
        jobs.apply("MODIFIED", job("j", "3"))
    elif meanwhile == "list":
        jobs.replace([])
    else:
        jobs.apply("DELETED", job("j", "3"))

    jobs.learn([job("j", "2")], since)

    assert versions(jobs, "j") == (["3"] if meanwhile == "event" else [])


def test_only_what_differs_counts_as_a_change() -> None:
    """A list that says what is known wakes nobody."""
    jobs = mirror_of_jobs()
    jobs.replace([job("j", "1")])
    before = jobs.changes.of("j")

    jobs.replace([job("j", "1")])
    jobs.apply("MODIFIED", job("j", "1"))
    assert jobs.changes.of("j") == before

    jobs.apply("MODIFIED", job("j", "2"))
    assert jobs.changes.of("j") != before


def test_a_change_wakes_who_waits() -> None:
    jobs = mirror_of_jobs()
    woken = threading.Event()
    waiting = threading.Event()

    def wait() -> None:
        with jobs.changes.condition:
            waiting.set()
            if jobs.changes.condition.wait_for(lambda: jobs.changes.of("j"), 20):
                woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(20)
    jobs.apply("ADDED", job("j"))
    thread.join(20)

    assert woken.is_set()


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ({"ownerReferences": [{"kind": "Job", "name": "j", "controller": True}]}, "j"),
        ({"ownerReferences": [{"kind": "Node", "name": "n", "controller": True}]}, None),
        ({"labels": {"batch.kubernetes.io/job-name": "j"}}, "j"),
        ({}, None),
    ],
    ids=["owned", "owned by another", "orphaned", "of nobody"],
)
def test_a_pod_belongs_to_the_job_that_made_it(metadata: dict[str, Any], name: str | None) -> None:
    assert job_of_pod({"metadata": metadata}) == name
