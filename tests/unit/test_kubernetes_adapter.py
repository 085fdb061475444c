"""The Kubernetes adapter over real sockets: what it asks, how often, and what it says is gone."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from observing import observed
from scripted_api import (
    Feed,
    ScriptedApi,
    Step,
    drop,
    in_turn,
    job,
    listing,
    not_found,
    pod,
    refuse,
    reply,
    write_kubeconfig,
)

from s3runner.cluster.kubernetes.adapter import KubernetesCluster
from s3runner.cluster.kubernetes.calls import OURS
from s3runner.cluster.kubernetes.complaints import Complaints
from s3runner.cluster.kubernetes.limits import Pace
from s3runner.cluster.kubernetes.transport import Connection, Place
from s3runner.cluster.kubernetes.watch import Rhythm
from s3runner.cluster.protocol import DESTINATION_LABEL, NO_IMAGE, Cluster, Observation
from s3runner.errors import ClusterRefusedError, ClusterUnavailableError, SettingsError
from s3runner.store.retrying import Retry
from s3runner.wiring import kubernetes_cluster

JsonObject = dict[str, Any]
RBAC = 'jobs.batch is forbidden: User "u" cannot {} resource "{}" in API group "" in the namespace'


class Desk:
    """A server, and an adapter that asks it."""

    def __init__(self, directory: Path) -> None:
        self.api = ScriptedApi()
        self.told: list[str] = []
        self.slept: list[float] = []
        self.kubeconfig = write_kubeconfig(directory / "kc", self.api.url)
        self._made: list[KubernetesCluster] = []
        self.cluster = self.make()

    def make(self, *, budget_s: float = 20.0, place: Place | None = None) -> KubernetesCluster:
        connection = Connection(place or Place(kubeconfig=self.kubeconfig), Pace(1e6, 1000))
        made = KubernetesCluster(
            connection,
            rhythm=Rhythm(first_pause_s=0.001, longest_pause_s=0.01),
            retry=Retry(budget_s=budget_s, sleep=self.slept.append),
            notify=self.told.append,
        )
        self._made.append(made)
        return made

    def close(self) -> None:
        for made in self._made:
            made.close()

    def one(self, name: str) -> Observation:
        return self.cluster.observe([name])[name]

    def await_news(self, name: str) -> None:
        """Wait; fail where nothing but the end of all waiting ends it."""
        given_up = threading.Event()

        def give_up() -> None:
            given_up.set()
            self.cluster.close()

        timer = threading.Timer(10, give_up)
        timer.start()
        self.cluster.wait([name], 60)
        timer.cancel()
        assert not given_up.is_set()

    def until(self, name: str, is_so: Callable[[Observation], object]) -> Observation:
        """Look again after each change until something is so."""
        for _ in range(100):
            seen = self.one(name)
            if is_so(seen):
                return seen
            self.cluster.wait([name], 0.2)
        raise AssertionError(self.one(name))


@pytest.fixture(name="desk")
def desk_with_a_server(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    with desk.api:
        yield desk
        desk.close()


def wanted(name: str = "j", digest: str | None = "sha256:0", image: str = "tool:1") -> JsonObject:
    annotations = {} if digest is None else {"s3runner/spec-digest": digest}
    containers = [{"name": "tool", "image": image}]
    return {
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"template": {"spec": {"containers": containers}}},
    }


# --- submit ------------------------------------------------------------------


def test_a_job_is_created_once_and_seen_at_once(desk: Desk) -> None:
    """Its maker need not wait for the watch, and asks for nothing more."""
    desk.api.on["create", "jobs"] = reply(job("j"), 201)
    desk.cluster.observe([])

    assert desk.cluster.submit(wanted()) == "uid-of-j"
    assert desk.one("j").job == job("j")

    (created,) = [request for request in desk.api.requests if request.verb == "create"]
    assert created.body == wanted()
    assert created.query == {"fieldManager": "s3runner", "fieldValidation": "Strict"}
    assert desk.api.count("get", "jobs") == 0


def test_a_job_of_the_same_spec_is_adopted(desk: Desk) -> None:
    desk.api.on["create", "jobs"] = refuse(409, "already exists", "AlreadyExists")
    desk.api.on["get", "jobs"] = reply(job("j"))

    assert desk.cluster.submit(wanted()) == "uid-of-j"


@pytest.mark.parametrize("digest", ["sha256:1", None], ids=["another", "none"])
def test_a_job_of_another_spec_is_refused_with_both_digests(digest: str | None, desk: Desk) -> None:
    desk.api.on["create", "jobs"] = refuse(409, "already exists", "AlreadyExists")
    desk.api.on["get", "jobs"] = reply(job("j"))

    with pytest.raises(ClusterRefusedError) as caught:
        desk.cluster.submit(wanted(digest=digest))

    assert "sha256:0" in caught.value.reason
    assert str(digest) in caught.value.reason
    assert desk.slept == []


def test_a_foreign_job_without_a_digest_is_not_adopted_by_a_job_without_one(desk: Desk) -> None:
    """Two absent digests agree about nothing."""
    there = job("j", metadata={"annotations": None})
    desk.api.on["create", "jobs"] = refuse(409, "already exists", "AlreadyExists")
    desk.api.on["get", "jobs"] = reply(there)

    with pytest.raises(ClusterRefusedError):
        desk.cluster.submit(wanted(digest=None))


def test_a_lost_answer_is_followed_by_another_try_that_finds_the_job(desk: Desk) -> None:
    """Created, and the connection broke: once is enough."""
    taken = refuse(409, "already exists", "AlreadyExists")
    desk.api.on["create", "jobs"] = in_turn(drop, taken)
    desk.api.on["get", "jobs"] = reply(job("j"))

    assert desk.cluster.submit(wanted()) == "uid-of-j"
    assert desk.api.count("create", "jobs") == 2


def test_a_job_that_is_deleted_between_two_looks_is_created_again(desk: Desk) -> None:
    taken = refuse(409, "already exists", "AlreadyExists")
    desk.api.on["create", "jobs"] = in_turn(taken, reply(job("j"), 201))

    assert desk.cluster.submit(wanted()) == "uid-of-j"


def test_a_job_that_is_being_deleted_is_not_adopted(desk: Desk) -> None:
    """It would vanish under us, and read as deleted by somebody."""
    leaving = job("j")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    taken = refuse(409, "already exists", "AlreadyExists")
    desk.api.on["create", "jobs"] = in_turn(taken, reply(job("j", metadata={"uid": "new"}), 201))
    desk.api.on["get", "jobs"] = reply(leaving)

    assert desk.cluster.submit(wanted()) == "new"


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(code: int, desk: Desk) -> None:
    later = refuse(code, "later")
    desk.api.on["create", "jobs"] = in_turn(later, later, reply(job("j"), 201))

    desk.cluster.submit(wanted())

    assert desk.api.count("create", "jobs") == 3
    assert len(desk.slept) == 2
    assert desk.slept[0] < desk.slept[1]


def test_what_does_not_pass_in_time_is_an_unavailable_cluster(desk: Desk) -> None:
    desk.api.on["create", "jobs"] = refuse(503, "later")

    with pytest.raises(ClusterUnavailableError, match="later") as caught:
        desk.make(budget_s=0.0).submit(wanted())

    assert caught.value.code == 31


def test_a_refusal_is_not_tried_again(desk: Desk) -> None:
    desk.api.on["create", "jobs"] = refuse(403, RBAC.format("create", "jobs"), "Forbidden")

    with pytest.raises(ClusterRefusedError) as caught:
        desk.cluster.submit(wanted())

    assert 'verbs: ["create"]' in caught.value.hint
    assert desk.api.count("create", "jobs") == 1


def test_a_job_without_an_image_is_refused_unasked(desk: Desk) -> None:
    with pytest.raises(ClusterRefusedError, match="image"):
        desk.cluster.submit(wanted(image=NO_IMAGE))

    assert desk.api.requests == []


# --- caveats -----------------------------------------------------------------


def test_the_cluster_checks_a_job_before_anything_is_uploaded(desk: Desk) -> None:
    """It makes nothing, and what it warns of is told."""
    warning = '299 - "would violate PodSecurity"'
    desk.api.on["create", "jobs"] = reply(job("j"), 201, Warning=warning)

    assert desk.cluster.caveats(wanted()) == ["the cluster warns: would violate PodSecurity"]
    assert desk.api.requests[0].query["dryRun"] == "All"
    assert desk.api.requests[0].query["fieldValidation"] == "Strict"


def test_a_job_that_the_cluster_would_refuse_is_refused_before(desk: Desk) -> None:
    invalid = 'Job.batch "j" is invalid: spec.backoffLimit: Invalid value: -1'
    desk.api.on["create", "jobs"] = refuse(422, invalid, "Invalid")

    with pytest.raises(ClusterRefusedError, match="backoffLimit"):
        desk.cluster.caveats(wanted())


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (drop, ["the cluster could not be asked"]),
        (refuse(400, 'admission webhook "w" does not support dry run'), []),
        (refuse(409, "already exists", "AlreadyExists"), []),
    ],
    ids=["away", "a webhook that knows no rehearsal", "there already"],
)
def test_a_cluster_that_cannot_check_now_may_take_the_job_later(
    step: Step, told: list[str], desk: Desk
) -> None:
    desk.api.on["create", "jobs"] = step

    found = desk.cluster.caveats(wanted())

    assert [text[: len(start)] for text, start in zip(found, told, strict=True)] == told
    assert desk.api.count("create", "jobs") == 1


# --- observe -----------------------------------------------------------------


def test_all_jobs_are_seen_by_one_list_and_one_stream_of_each_kind(desk: Desk) -> None:
    """However many there are, and however often they are looked at."""
    names = [f"j{number}" for number in range(50)]
    desk.api.on["list", "jobs"] = listing(*(job(name) for name in names))
    desk.api.on["list", "pods"] = listing(*(pod(f"p-{name}", name) for name in names))

    for _ in range(20):
        desk.cluster.observe(names)
    seen = desk.cluster.observe(names)

    assert {name: [p["metadata"]["uid"] for p in seen[name].pods] for name in names} == {
        name: [f"p-{name}"] for name in names
    }
    desk.api.await_count("watch", "jobs", 1)
    desk.api.await_count("watch", "pods", 1)
    assert len(desk.api.requests) == 4
    assert {request.query["labelSelector"] for request in desk.api.requests} == {OURS}


def test_a_job_that_the_watch_does_not_show_is_asked_for_before_it_is_gone(desk: Desk) -> None:
    desk.api.on["get", "jobs"] = reply(job("j"))

    assert desk.one("j").job == job("j")
    assert desk.one("j").job == job("j")
    assert desk.api.count("get", "jobs") == 1


def test_a_job_is_gone_when_the_api_says_so(desk: Desk) -> None:
    assert desk.one("j") == Observation(None)
    assert desk.api.count("get", "jobs") == 1


def test_a_wrong_404_is_no_absence(desk: Desk) -> None:
    desk.api.on["get", "jobs"] = reply(b"404 page not found", 404)

    with pytest.raises(ClusterRefusedError):
        desk.one("j")


def test_many_jobs_that_the_watch_does_not_show_are_asked_for_together(desk: Desk) -> None:
    names = [f"j{number}" for number in range(30)]
    desk.cluster.observe([])
    desk.api.on["list", "jobs"] = in_turn(
        listing(job("j0"), token="p2"),  # noqa: S106 # a page's
        refuse(410, "The provided continue parameter is too old", "Expired"),
        listing(job("j0"), token="p2"),  # noqa: S106
        listing(job("j7")),
    )

    seen = desk.cluster.observe(names)

    assert {name for name in names if seen[name].job is not None} == {"j0", "j7"}
    assert desk.api.count("get", "jobs") == 0
    assert desk.api.count("list", "jobs") == 5


def test_a_deleted_job_shows_the_pods_that_still_end(desk: Desk) -> None:
    """Who cancels looks here for what is left."""
    desk.api.on["list", "jobs"] = listing(job("j"))
    desk.api.on["list", "pods"] = listing(pod("p", "j"))
    desk.one("j")

    desk.api.feeds["jobs"].event("DELETED", job("j", "2"))
    assert [p["metadata"]["uid"] for p in desk.until("j", lambda s: s.job is None).pods] == ["p"]

    desk.api.feeds["pods"].event("DELETED", pod("p", "j", "3", "Failed"))
    assert desk.until("j", lambda s: not s.pods) == Observation(None)
    assert desk.api.count("get", "jobs") == 1


def test_a_job_that_was_never_there_is_asked_for_each_time(desk: Desk) -> None:
    """Another head may make it at any moment, and the watch may be late."""
    assert desk.one("j").job is None
    desk.api.on["get", "jobs"] = reply(job("j"))

    assert desk.one("j").job == job("j")


def test_a_job_that_is_made_again_is_there(desk: Desk) -> None:
    desk.cluster.delete("j")
    assert desk.one("j").job is None
    desk.api.on["create", "jobs"] = reply(job("j"), 201)

    desk.cluster.submit(wanted())

    assert desk.one("j").job == job("j")


def test_a_vanished_pod_of_a_job_that_is_there_is_shown_as_it_was_last_seen(desk: Desk) -> None:
    """Why it ended is evidence that nothing else keeps."""
    desk.api.on["list", "jobs"] = listing(job("j"))
    desk.api.on["list", "pods"] = listing(pod("p", "j"))
    desk.one("j")

    desk.api.feeds["pods"].event("DELETED", pod("p", "j", "3", "Failed"))
    desk.api.feeds["pods"].event("ADDED", pod("q", "j", "4"))
    seen = desk.until("j", lambda s: len(s.pods) == 2)

    assert [(p["metadata"]["uid"], p["status"]["phase"]) for p in seen.pods] == [
        ("p", "Failed"),
        ("q", "Running"),
    ]
    assert seen.vanished == {"p"}


def test_what_was_known_is_answered_while_the_api_is_away(desk: Desk) -> None:
    """Jobs go on, and the head catches up."""
    first = Feed()
    desk.api.on["list", "jobs"] = listing(job("j"))
    desk.api.on["watch", "jobs"] = in_turn(first, *[drop] * 10, desk.api.feeds["jobs"])
    desk.one("j")
    desk.api.on["get", "jobs"] = drop
    first.end()
    desk.api.await_count("watch", "jobs", 5)

    assert desk.one("j").job == job("j")
    desk.api.feeds["jobs"].event("MODIFIED", job("j", "9", "Complete"))
    desk.until("j", lambda s: s.job == job("j", "9", "Complete"))


def test_before_the_first_list_nothing_is_gone(desk: Desk) -> None:
    desk.api.on["list", "jobs"] = drop

    with pytest.raises(ClusterUnavailableError):
        desk.make(budget_s=0.1).observe(["j"])

    assert desk.api.count("get", "jobs") == 0


@pytest.mark.parametrize("resource", ["jobs", "pods"])
def test_a_right_that_is_missing_is_told_at_once(resource: str, desk: Desk) -> None:
    desk.api.on["list", resource] = refuse(403, RBAC.format("list", resource), "Forbidden")

    with pytest.raises(ClusterRefusedError) as caught:
        desk.one("j")

    assert f'resources: ["{resource}"], verbs: ["list"]' in caught.value.hint


def test_a_wrong_context_is_told_at_once(desk: Desk) -> None:
    with pytest.raises(SettingsError):
        desk.make(place=Place("elsewhere", None, desk.kubeconfig)).observe(["j"])


def test_an_ended_job_shows_the_pod_that_ended_it_though_its_stream_is_late(desk: Desk) -> None:
    """Two streams have no common order, and the last pod tells why the Job failed."""
    desk.api.on["list", "jobs"] = listing(job("j", "9", "Failed", failed=1))
    desk.api.on["list", "pods"] = in_turn(
        listing(pod("p", "j", "5")), listing(pod("p", "j", "8", "Failed"))
    )

    seen = desk.one("j")

    assert [p["status"]["phase"] for p in seen.pods] == ["Failed"]
    selectors = [r.query["labelSelector"] for r in desk.api.requests if r.verb == "list"]
    assert "batch.kubernetes.io/controller-uid=uid-of-j" in selectors
    desk.api.feeds["pods"].event("MODIFIED", pod("p", "j", "6"))
    desk.cluster.wait(["j"], 0.2)
    assert desk.one("j") == seen


def test_an_ended_job_whose_pods_are_known_costs_no_call(desk: Desk) -> None:
    desk.api.on["list", "jobs"] = listing(job("j", "9", "Failed", failed=1))
    desk.api.on["list", "pods"] = listing(pod("p", "j", "8", "Failed"))

    desk.one("j")

    assert desk.api.count("list", "pods") == 1


def test_pods_that_were_deleted_are_asked_for_once(desk: Desk) -> None:
    """They stay in the Job's count for ever."""
    desk.api.on["list", "jobs"] = listing(job("j", "9", "Failed", failed=3))

    for _ in range(3):
        desk.one("j")

    assert desk.api.count("list", "pods") == 2


def test_the_active_jobs_of_a_destination_are_those_that_are_not_over(desk: Desk) -> None:
    def of(name: str, destination: str, condition: str = "") -> JsonObject:
        labels = {DESTINATION_LABEL: destination}
        return job(name, "1", condition, metadata={"labels": labels})

    desk.api.on["list", "jobs"] = listing(
        of("a", "here"), of("b", "there"), of("c", "here", "Complete"), of("d", "here"), job("e")
    )

    assert sorted(desk.cluster.active("here")) == ["a", "d"]


# --- wait --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jobs", "pods"])
def test_a_change_since_the_last_look_ends_the_wait(kind: str, desk: Desk) -> None:
    """Also one that came between look and wait."""
    desk.api.on["list", "jobs"] = listing(job("j"), job("other"))
    desk.api.on["list", "pods"] = listing(pod("p", "j"))
    desk.one("j")
    news = job("j", "2") if kind == "jobs" else pod("p", "j", "2")
    desk.api.feeds[kind].event("MODIFIED", news)

    desk.await_news("j")

    seen = desk.one("j")
    assert news in (seen.job, *seen.pods)


def test_another_jobs_change_does_not_end_the_wait(desk: Desk) -> None:
    desk.api.on["list", "jobs"] = listing(job("j"), job("other"))
    desk.one("j")
    returned = threading.Event()

    def wait() -> None:
        desk.one("j")
        desk.cluster.wait(["j"], 20)
        returned.set()

    thread = threading.Thread(target=wait)
    thread.start()
    desk.api.feeds["jobs"].event("MODIFIED", job("other", "2"))
    desk.until("other", lambda s: s.job == job("other", "2"))
    assert not returned.is_set()

    desk.api.feeds["jobs"].event("MODIFIED", job("j", "3"))
    thread.join(20)
    assert returned.is_set()


def test_two_threads_that_follow_one_job_both_wake(desk: Desk) -> None:
    """The one that looks first must not take the news from the other."""
    desk.api.on["list", "jobs"] = listing(job("j"))
    desk.one("j")
    desk.api.feeds["jobs"].event("MODIFIED", job("j", "2"))

    def look() -> None:
        desk.until("j", lambda s: s.job == job("j", "2"))

    other = threading.Thread(target=look)
    other.start()
    other.join(20)
    desk.await_news("j")


def test_a_head_of_another_cluster_waits_without_a_call(desk: Desk) -> None:
    desk.cluster.wait([], 0.01)

    assert desk.api.requests == []


# --- delete, the whole life, the end -----------------------------------------


def test_a_job_is_deleted_with_its_pods(desk: Desk) -> None:
    desk.api.on["delete", "jobs"] = reply({"kind": "Status", "status": "Success"})

    desk.cluster.delete("j")

    (request,) = desk.api.requests
    assert (request.verb, request.name) == ("delete", "j")
    assert request.body["propagationPolicy"] == "Background"


def test_deleting_what_is_not_there_is_no_error(desk: Desk) -> None:
    desk.api.on["delete", "jobs"] = not_found("jobs", "j")

    desk.cluster.delete("j")

    assert desk.api.count("delete", "jobs") == 1


def test_a_deletion_that_is_refused_is_an_error(desk: Desk) -> None:
    desk.api.on["delete", "jobs"] = refuse(403, RBAC.format("delete", "jobs"), "Forbidden")

    with pytest.raises(ClusterRefusedError):
        desk.cluster.delete("j")


def test_a_jobs_whole_life_costs_three_calls_beside_the_watches(desk: Desk) -> None:
    desk.api.on["create", "jobs"] = reply(job("j"), 201)
    desk.api.on["delete", "jobs"] = reply({"kind": "Status", "status": "Success"})
    desk.cluster.observe([])

    desk.cluster.caveats(wanted())
    desk.cluster.submit(wanted())
    for number in range(1, 12):
        kind = "MODIFIED" if number > 1 else "ADDED"
        desk.api.feeds["jobs"].event(kind, job("j", f"{number}"))
        desk.until("j", lambda s, v=str(number): s.job["metadata"]["resourceVersion"] == v)  # type: ignore[misc]
    desk.cluster.delete("j")

    calls = desk.cluster._connection.calls
    watching = {("list", kind): 1 for kind in ("jobs", "pods")}
    watching |= {("watch", kind): 1 for kind in ("jobs", "pods")}
    assert calls == {**watching, ("create", "jobs"): 2, ("delete", "jobs"): 1}


def test_a_process_ends_while_a_watch_is_open(desk: Desk) -> None:
    program = (
        "from s3runner.wiring import kubernetes_cluster\n"
        f"cluster = kubernetes_cluster(kubeconfig={desk.kubeconfig!r})\n"
        "assert cluster.observe(['j'])['j'].job['metadata']['name'] == 'j'\n"
    )
    desk.api.on["list", "jobs"] = listing(job("j"))

    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_the_wiring_builds_it_from_plain_values(desk: Desk) -> None:
    cluster: Cluster = kubernetes_cluster(
        context="here", namespace="mine", kubeconfig=desk.kubeconfig
    )

    assert cluster.identity == {
        "kind": "kubernetes",
        "context": "here",
        "namespace": "mine",
        "server": desk.api.url,
    }
    assert desk.api.requests == []


# --- why a Job has no pod ------------------------------------------------------

QUOTA = {
    "reason": "FailedCreate",
    "message": 'pods "j-x" is forbidden: exceeded quota: small',
    "lastTimestamp": "2026-01-01T00:00:02Z",
}
EARLIER = {**QUOTA, "lastTimestamp": "2026-01-01T00:00:01Z"}


class Moment:
    now_s = 0.0


@pytest.fixture(name="moment")
def a_clock() -> Moment:
    return Moment()


@pytest.fixture(name="complaints")
def what_events_say(desk: Desk, moment: Moment) -> Complaints:
    connection = Connection(Place(kubeconfig=desk.kubeconfig))
    return Complaints(connection, lambda: moment.now_s)


def test_a_job_that_stays_without_a_pod_is_asked_about_twice(
    desk: Desk, moment: Moment, complaints: Complaints
) -> None:
    desk.api.on["list", "events"] = in_turn(listing(EARLIER), listing(QUOTA, EARLIER))
    heard = []
    for now_s in (0, 14, 16, 100, 121, 1000, 5000):
        moment.now_s = now_s
        heard.append(len(complaints.about(job("j"))))

    assert heard == [0, 0, 1, 1, 2, 2, 2]
    assert complaints.about(job("j"))[-1] == QUOTA
    assert desk.api.requests[0].query["fieldSelector"] == "involvedObject.uid=uid-of-j"
    assert desk.api.count("list", "events") == 2


@pytest.mark.parametrize(
    ("step", "calls"),
    [(refuse(403, RBAC.format("list", "events"), "Forbidden"), 1), (drop, 2)],
    ids=["no right to", "away"],
)
def test_without_events_all_else_works(
    step: Step, calls: int, desk: Desk, moment: Moment, complaints: Complaints
) -> None:
    desk.api.on["list", "events"] = step
    for now_s in (0, 20, 200, 300):
        moment.now_s = now_s
        assert complaints.about(job("j")) == ()

    assert desk.api.count("list", "events") == calls


@pytest.mark.parametrize(
    ("name", "asked"),
    [("volume-missing", 1), ("unschedulable", 0), ("fetching", 0), ("running", 0)],
)
def test_only_about_a_pod_that_does_not_start_the_events_are_asked_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, name: str, asked: int
) -> None:
    monkeypatch.setattr(f"{Complaints.__module__}._ASK_AFTER_S", (0.0, 1000.0))
    recorded = observed(name)
    assert recorded.job is not None
    desk.api.on["list", "jobs"] = listing(recorded.job)
    desk.api.on["list", "pods"] = listing(*recorded.pods)
    desk.api.on["list", "events"] = listing(QUOTA)

    seen = desk.one(recorded.job["metadata"]["name"])

    assert len(seen.events) == asked
    about = [each.query["fieldSelector"] for each in desk.api.requests if each.resource == "events"]
    assert about == asked * [f"involvedObject.uid={recorded.pods[0]['metadata']['uid']}"]


def test_a_suspended_job_has_no_pod_for_a_known_reason(
    desk: Desk, moment: Moment, complaints: Complaints
) -> None:
    suspended = job("j")
    suspended["spec"]["suspend"] = True
    for now_s in (0, 500):
        moment.now_s = now_s
        assert complaints.about(suspended) == ()

    assert desk.api.requests == []
