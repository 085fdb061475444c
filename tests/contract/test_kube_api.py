"""The tests' API server answers as a real one does, to the official client and to plain requests.

What is true here is what the cluster suite may rely on: each lever has a test that sees it work.
"""

from __future__ import annotations

import copy
import importlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kube_api import FakeKube
from kube_api import hurdles as hurdle
from kube_api.cluster import NAMESPACE
from waiting import wait_until

JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
DISRUPTED = {"action": "Count", "onPodConditions": [{"type": "DisruptionTarget"}]}

RUNS = "sleep 600"

Json = dict[str, Any]


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[FakeKube]:
    with FakeKube(tmp_path) as running:
        yield running


class Client:
    """Plain requests, so that also what the official client would refuse can be sent."""

    def __init__(self, kube: FakeKube) -> None:
        self._pool = urllib3.PoolManager(retries=False, timeout=30)
        self._url = kube.url

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, Json]:
        url = self._url + path
        if method == "GET":
            answer = self._pool.request("GET", url, fields=query)
        else:
            answer = self._pool.request(method, url, body=_encoded(body))
        return answer.status, json.loads(answer.data)

    def create(self, job: Json, strict: str = "Strict") -> tuple[int, Json]:
        return self.ask("POST", f"{JOBS}?fieldValidation={strict}", job)

    def watch(self, path: str = JOBS, **query: Any) -> Iterator[Json]:
        answer = self._pool.request(
            "GET",
            self._url + path,
            fields={"watch": "true", **query},
            preload_content=False,
        )
        try:
            if answer.status != 200:
                yield {"http": answer.status, **json.loads(answer.read())}
                return
            rest = b""
            for chunk in answer.stream():
                *lines, rest = (rest + chunk).split(b"\n")
                yield from map(json.loads, lines)
        finally:
            answer.close()


def _encoded(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode() if body else b""


@pytest.fixture
def client(kube: FakeKube) -> Client:
    return Client(kube)


def make_job(name: str = "j-g1", command: str = "true", **spec: Any) -> Json:
    """Return a small Job; its container is named `tool`."""
    container = {"name": "tool", "image": "img:1", "command": ["sh", "-c", command]}
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "s3runner"}},
        "spec": {
            "backoffLimit": 2,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": [DISRUPTED]},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod},
            **spec,
        },
    }


def changed(path: str, value: Any) -> Json:
    """Return a Job with one value set, at a path such as `spec.template.spec.volumes`."""
    job = make_job()
    target: Any = job
    *parents, last = path.split(".")
    for part in parents:
        target = target[int(part)] if part.isdigit() else target.setdefault(part, {})
    target[last] = value
    return job


TOOL = "spec.template.spec.containers.0"


# Life


def test_a_job_runs_its_pod_as_a_process_and_completes(kube: FakeKube, client: Client) -> None:
    assert client.create(make_job(command="echo hello"))[0] == 201
    complete = kube.await_condition("j-g1", "Complete")
    (pod,) = kube.pods()

    assert complete["reason"] == "CompletionsReached"
    assert pod["status"]["phase"] == "Succeeded"
    assert pod["metadata"]["name"].startswith("j-g1-")
    log = urllib3.request("GET", f"{kube.url}{PODS}/{pod['metadata']['name']}/log")
    assert log.data == b"hello\n"


def test_the_official_client_reads_whatever_the_server_shows(kube: FakeKube) -> None:
    official: Any = importlib.import_module("kubernetes")
    config = importlib.import_module("kubernetes.config")
    watch = importlib.import_module("kubernetes.watch")
    connection = config.new_client_from_config(str(kube.kubeconfig()))
    batch, core = official.client.BatchV1Api(connection), official.client.CoreV1Api(connection)

    batch.create_namespaced_job(NAMESPACE, make_job(), field_validation="Strict")
    kube.await_condition("j-g1", "Complete")
    events = watch.Watch().stream(batch.list_namespaced_job, NAMESPACE, timeout_seconds=1)
    assert [event["object"].metadata.name for event in events] == ["j-g1"]
    (pod,) = core.list_namespaced_pod(NAMESPACE).items
    assert pod.status.container_statuses[0].state.terminated.exit_code == 0
    assert official.client.VersionApi(connection).get_code().major == "1"
    connection.rest_client.pool_manager.clear()


def test_a_failed_pod_is_followed_by_the_next_until_the_limit(
    kube: FakeKube, client: Client
) -> None:
    client.create(make_job(command="exit 3", backoffLimit=1))

    assert kube.await_condition("j-g1", "Failed")["reason"] == "BackoffLimitExceeded"
    assert [pod["status"]["phase"] for pod in kube.pods()] == ["Failed", "Failed"]


def test_the_next_pod_waits_for_the_back_off_of_the_servers_clock(
    tmp_path: Path,
) -> None:
    with FakeKube(tmp_path, first_backoff_s=3600) as kube:
        Client(kube).create(make_job(command="exit 3"))
        kube.await_state(lambda: [p for p in kube.pods() if p["status"]["phase"] == "Failed"])
        assert len(kube.pods()) == 1
        kube.clock.skip(3601)
        kube.await_state(lambda: len(kube.pods()) == 2)


def test_a_deadline_ends_the_pod_and_fails_the_job(kube: FakeKube, client: Client) -> None:
    client.create(make_job(command=RUNS, activeDeadlineSeconds=600))
    kube.await_pod("tool")
    kube.clock.skip(601)

    assert kube.await_condition("j-g1", "Failed")["reason"] == "DeadlineExceeded"


def test_a_job_goes_when_its_time_to_live_is_over(kube: FakeKube, client: Client) -> None:
    client.create(make_job(ttlSecondsAfterFinished=300))
    kube.await_condition("j-g1", "Complete")
    kube.clock.skip(301)

    kube.await_state(lambda: not kube.jobs() and not kube.pods())


def test_a_suspended_job_has_no_pod_until_it_is_resumed(kube: FakeKube, client: Client) -> None:
    client.create(make_job(suspend=True))
    kube.await_condition("j-g1", "Suspended")
    assert not kube.pods()
    assert "startTime" not in kube.jobs()[0]["status"]

    kube.suspend("j-g1", suspended=False)
    kube.await_condition("j-g1", "Complete")
    suspended = kube.jobs()[0]["status"]["conditions"][0]
    assert (suspended["type"], suspended["status"]) == ("Suspended", "False")


def test_a_pod_that_suspension_ends_is_not_counted(kube: FakeKube, client: Client) -> None:
    """The controller takes its finalizer off the pod before it deletes it."""
    running_pod(kube, client)
    kube.suspend("j-g1")
    kube.await_state(lambda: not kube.pods())
    kube.suspend("j-g1", suspended=False)
    pod = kube.await_pod("tool")

    assert pod["metadata"]["finalizers"] == ["batch.kubernetes.io/job-tracking"]
    kube.await_state(lambda: kube.jobs()[0]["status"]["ready"] == 1)
    assert "failed" not in kube.jobs()[0]["status"]
    assert kube.controller.pods_created == 2


# What the server refuses


def refused_fields(answer: tuple[int, Json]) -> list[str]:
    code, status = answer
    assert (code, status["kind"], status["reason"]) == (422, "Status", "Invalid"), status
    return [cause["field"] for cause in status["details"]["causes"]]


REFUSED: dict[str, tuple[str, Any]] = {
    "a name with capitals": ("metadata.name", "Big"),
    "a label that starts with a dash": ("metadata.labels", {"a": "-x"}),
    "a label value over 63 bytes": ("spec.template.metadata.labels", {"a": "x" * 64}),
    "a pod that restarts": ("spec.template.spec.restartPolicy", "Always"),
    "a container without an image": (f"{TOOL}.image", ""),
    "a quantity in words": (f"{TOOL}.resources", {"limits": {"memory": "8 GiB"}}),
    "a request above its limit": (
        f"{TOOL}.resources",
        {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}},
    ),
    "half a GPU": (f"{TOOL}.resources", {"limits": {"nvidia.com/gpu": "0.5"}}),
    "a GPU that is only requested": (f"{TOOL}.resources", {"requests": {"nvidia.com/gpu": "1"}}),
    "a mount without its volume": (f"{TOOL}.volumeMounts", [{"name": "v", "mountPath": "/v"}]),
    "a volume of no kind": ("spec.template.spec.volumes", [{"name": "v"}]),
    "a variable with an equals sign": (f"{TOOL}.env", [{"name": "A=B", "value": "1"}]),
    "a secret without a key": (
        f"{TOOL}.env",
        [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": ""}}}],
    ),
    "a toleration without a key": ("spec.template.spec.tolerations", [{"effect": "NoSchedule"}]),
    "a rule for a container that is not there": (
        "spec.podFailurePolicy.rules",
        [
            {
                "action": "FailJob",
                "onExitCodes": {"containerName": "x", "operator": "In", "values": [1]},
            }
        ],
    ),
    "exit codes out of order": (
        "spec.podFailurePolicy.rules",
        [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2, 1]}}],
    ),
    "pods replaced while they end": ("spec.podReplacementPolicy", "TerminatingOrFailed"),
    "a negative limit": ("spec.backoffLimit", -1),
}


@pytest.mark.parametrize(("path", "value"), REFUSED.values(), ids=REFUSED)
def test_a_job_that_breaks_a_rule_is_invalid_and_the_field_is_named(
    client: Client, path: str, value: Any
) -> None:
    fields = refused_fields(client.create(changed(path, value)))
    said = path.replace(".0", "[0]").replace("template.metadata", "template")
    assert any(field.startswith(said) for field in fields), fields


def test_a_job_of_64_letters_is_invalid(client: Client) -> None:
    assert refused_fields(client.create(make_job("x" * 64))) == ["spec.template.labels"]


def test_an_unknown_field_is_refused_strictly_and_dropped_with_a_warning_otherwise(
    kube: FakeKube, client: Client
) -> None:
    job = changed("spec.template.spec.nodeSelektor", {"a": "b"})
    code, status = client.create(copy.deepcopy(job))
    assert (code, status["reason"]) == (400, "BadRequest")
    assert 'unknown field "spec.template.spec.nodeSelektor"' in status["message"]

    body = json.dumps(job)
    answer = urllib3.request("POST", f"{kube.url}{JOBS}", body=body)
    assert answer.status == 201
    assert "nodeSelektor" in answer.headers["Warning"]
    assert "nodeSelektor" not in answer.json()["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    ("path", "value"),
    [("spec.backoffLimit", "3"), ("metadata.labels", {"a": 1}), (f"{TOOL}.env", {"A": "1"})],
    ids=["text for a number", "a number for a label", "a map for a list"],
)
def test_a_value_of_the_wrong_type_is_refused(client: Client, path: str, value: Any) -> None:
    code, status = client.create(changed(path, value), "Ignore")
    assert code == 400
    assert "cannot unmarshal" in status["message"]


def test_a_second_job_of_a_name_is_a_conflict(client: Client) -> None:
    client.create(make_job())
    code, status = client.create(make_job())

    assert (code, status["reason"]) == (409, "AlreadyExists")
    assert status["message"] == 'jobs.batch "j-g1" already exists'
    assert status["details"] == {"name": "j-g1", "group": "batch", "kind": "jobs"}


def test_what_is_not_there_is_not_found(client: Client) -> None:
    assert client.ask("GET", f"{JOBS}/none")[1]["reason"] == "NotFound"
    assert client.ask("DELETE", f"{JOBS}/none")[0] == 404
    code, status = client.ask("POST", "/apis/batch/v1/namespaces/none/jobs", make_job())
    assert (code, status["message"]) == (404, 'namespaces "none" not found')
    assert client.ask("GET", "/apis/batch/v1/namespaces/none/jobs")[1]["items"] == []


def test_a_quota_refuses_the_job_that_is_too_many(kube: FakeKube, client: Client) -> None:
    kube.routes.job_quota = 1
    assert client.create(make_job("a"))[0] == 201
    code, status = client.create(make_job("b"))

    assert (code, status["reason"]) == (403, "Forbidden")
    assert "exceeded quota" in status["message"]


def test_a_denied_verb_is_forbidden_and_every_call_is_recorded(
    kube: FakeKube, client: Client
) -> None:
    kube.rbac.deny("create", "jobs")
    code, status = client.create(make_job())

    assert (code, status["reason"]) == (403, "Forbidden")
    assert 'cannot create resource "jobs" in API group "batch"' in status["message"]
    kube.rbac.enforce([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}])
    assert client.ask("GET", PODS)[0] == 200
    assert client.ask("GET", f"{PODS}/x")[0] == 403
    assert kube.rbac.used == {
        ("create", "batch", "jobs"),
        ("list", "", "pods"),
        ("get", "", "pods"),
    }


def test_a_request_without_the_token_is_unauthorized(kube: FakeKube, client: Client) -> None:
    kube.faults.token = "secret"  # noqa: S105  # no real one
    assert client.ask("GET", PODS)[0] == 401


# Lists and watches


def test_a_list_comes_in_pages_of_one_moment(kube: FakeKube, client: Client) -> None:
    for number in range(5):
        client.create(make_job(f"j{number}", suspend=True))
    first = client.ask("GET", JOBS, limit=2, labelSelector="app.kubernetes.io/managed-by=s3runner")
    client.create(make_job("j9", suspend=True))
    names, page = [], first[1]
    while True:
        names += [item["metadata"]["name"] for item in page["items"]]
        if not page["metadata"].get("continue"):
            break
        token = page["metadata"]["continue"]
        page = client.ask("GET", JOBS, limit=2, **{"continue": token})[1]

    assert names == ["j0", "j1", "j2", "j3", "j4"]
    token = client.ask("GET", JOBS, limit=2)[1]["metadata"]["continue"]
    kube.routes.forget_pages()
    code, status = client.ask("GET", JOBS, limit=2, **{"continue": token})
    assert (code, status["reason"]) == (410, "Expired")


@pytest.mark.parametrize(
    ("selector", "found"),
    [("a=1", ["one"]), ("a!=1", ["two"]), ("a in (1,2)", ["one", "two"]), ("!a", []), ("b", [])],
)
def test_a_list_shows_what_the_selector_means(
    client: Client, selector: str, found: list[str]
) -> None:
    for name, label in (("one", "1"), ("two", "2")):
        job = make_job(name, suspend=True)
        job["metadata"]["labels"] = {"a": label}
        client.create(job)
    items = client.ask("GET", JOBS, labelSelector=selector)[1]["items"]
    assert [item["metadata"]["name"] for item in items] == found


def test_a_watch_goes_on_from_the_version_of_a_list(kube: FakeKube, client: Client) -> None:
    client.create(make_job("before", suspend=True))
    version = client.ask("GET", JOBS)[1]["metadata"]["resourceVersion"]
    events = client.watch(resourceVersion=version, timeoutSeconds=20)
    client.create(make_job("after", suspend=True))

    first = next(events)
    assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "after")
    kube.delete_job("after")
    # the controller may have said "Suspended" first
    kinds: list[str] = []
    for event in events:
        kinds.append(event["type"])
        if event["type"] == "DELETED":
            break
    assert set(kinds) == {"MODIFIED", "DELETED"}


def test_a_watch_ends_by_itself_after_a_bookmark(client: Client) -> None:
    events = [*client.watch(resourceVersion="0", timeoutSeconds=1, allowWatchBookmarks="true")]
    (bookmark,) = events
    assert bookmark["type"] == "BOOKMARK"
    assert bookmark["object"]["kind"] == "Job"
    version = client.ask("GET", JOBS)[1]["metadata"]["resourceVersion"]
    assert bookmark["object"]["metadata"]["resourceVersion"] == version


def test_a_version_that_is_too_old_is_gone(kube: FakeKube, client: Client) -> None:
    version = client.ask("GET", JOBS)[1]["metadata"]["resourceVersion"]
    kube.watching.expire_next()
    kube.watching.expire_next(in_stream=True)

    (by_status,) = client.watch(resourceVersion=version)
    assert (by_status["http"], by_status["reason"]) == (410, "Expired")
    (by_event,) = client.watch(resourceVersion=version)
    assert (by_event["type"], by_event["object"]["code"]) == ("ERROR", 410)

    client.create(make_job(suspend=True))
    kube.await_condition("j-g1", "Suspended")
    kube.objects.compact()
    (compacted,) = client.watch(resourceVersion=version)
    assert compacted["http"] == 410


def test_events_may_come_twice_and_old_ones_again(kube: FakeKube, client: Client) -> None:
    client.create(make_job(suspend=True))
    kube.await_condition("j-g1", "Suspended")
    version = client.ask("GET", JOBS)[1]["metadata"]["resourceVersion"]
    kube.faults.repeats_events = kube.faults.repeats_stale_events = True
    events = client.watch(resourceVersion=version, timeoutSeconds=20)
    kube.suspend("j-g1", suspended=False)

    shown = [next(events)["object"]["metadata"]["resourceVersion"] for _ in range(3)]
    assert shown == [shown[0], shown[0], version]


def test_streams_can_be_cut_stalled_and_short_lived(kube: FakeKube, client: Client) -> None:
    cut = client.watch(resourceVersion="0", timeoutSeconds=60)
    threading.Timer(0.1, kube.faults.cut_streams).start()
    with pytest.raises(urllib3.exceptions.HTTPError):
        next(cut)

    version = client.ask("GET", JOBS)[1]["metadata"]["resourceVersion"]
    kube.faults.stall_streams()
    stalled = client.watch(resourceVersion=version, timeoutSeconds=60)
    client.create(make_job(suspend=True))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(next, stalled)
        kube.await_condition("j-g1", "Suspended")
        assert not first.done()
        kube.faults.let_go()
        assert first.result(20)["type"] == "ADDED"

    kube.faults.stream_life_s = 0.05
    (short,) = client.watch(resourceVersion="0", timeoutSeconds=60)
    assert short["type"] == "ADDED"


# Faults


def test_the_api_answers_what_a_test_says(kube: FakeKube, client: Client) -> None:
    kube.faults.answer(429, retry_after_s=7, resource="jobs")
    answer = urllib3.request("GET", kube.url + JOBS, retries=False)
    assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
    assert answer.json()["details"]["retryAfterSeconds"] == 7
    assert client.ask("GET", JOBS)[0] == 200

    kube.faults.answer(500, 2, verb="create")
    assert [client.create(make_job())[0] for _ in range(3)] == [500, 500, 201]


def test_an_api_that_is_away_answers_nobody_while_the_jobs_go_on(
    kube: FakeKube, client: Client
) -> None:
    client.create(make_job())
    kube.faults.go_down()
    with pytest.raises(urllib3.exceptions.HTTPError):
        client.ask("GET", JOBS)
    kube.await_condition("j-g1", "Complete")
    kube.faults.come_up()
    assert client.ask("GET", JOBS)[0] == 200


@pytest.mark.parametrize("code", [None, 504])
def test_an_answer_can_be_lost_after_the_job_was_stored(
    kube: FakeKube, client: Client, code: int | None
) -> None:
    kube.faults.lose_answer("create", code=code)
    if code is None:
        with pytest.raises(urllib3.exceptions.HTTPError):
            client.create(make_job())
    else:
        assert client.create(make_job())[0] == 504
    assert client.create(make_job())[1]["reason"] == "AlreadyExists"


def test_a_request_can_hang_until_it_is_let_go(kube: FakeKube, client: Client) -> None:
    kube.faults.hang(verb="list")
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(client.ask, "GET", JOBS)
        assert client.ask("GET", f"{JOBS}/none")[0] == 404
        assert not hanging.done()
        kube.faults.let_go()
        assert isinstance(hanging.exception(20), urllib3.exceptions.HTTPError)


# How pods end


def running_pod(kube: FakeKube, client: Client, command: str = RUNS) -> Json:
    client.create(make_job(command=command))
    pod: Json = kube.await_pod("tool")
    return pod


def condition_of(pod: Json, kind: str = "DisruptionTarget") -> Json | None:
    return next((c for c in pod["status"]["conditions"] if c["type"] == kind), None)


def await_end(kube: FakeKube, pod: Json) -> Json:
    """Return the last state that the API showed of a pod."""

    def last() -> Json | None:
        for change in reversed(kube.objects.history):
            same = change.object["metadata"]["uid"] == pod["metadata"]["uid"]
            if same and change.object["status"].get("phase") in ("Succeeded", "Failed"):
                return change.object
        return None

    found: Json = kube.await_state(last)
    return found


LEVERS: dict[str, tuple[Callable[[FakeKube, Json], None], str | None]] = {
    "eviction": (lambda kube, pod: kube.evict(pod), "EvictionByEvictionAPI"),
    "drain": (lambda kube, pod: kube.drain(pod["spec"]["nodeName"]), "EvictionByEvictionAPI"),
    "preemption": (lambda kube, pod: kube.preempt(pod), "PreemptionByScheduler"),
    "taint": (lambda kube, pod: kube.taint(pod), "DeletionByTaintManager"),
    "shutdown": (lambda kube, pod: kube.shut_node_down(pod), "TerminationByKubelet"),
    "pressure": (lambda kube, pod: kube.press_node(pod), "TerminationByKubelet"),
    "disk limit": (lambda kube, pod: kube.exceed_disk_limit(pod, "Usage of EmptyDir"), None),
    "deletion": (lambda kube, pod: kube.delete_pod(pod), None),
    "forced deletion": (lambda kube, pod: kube.delete_pod(pod, 0), None),
}


@pytest.mark.parametrize(("lever", "reason"), LEVERS.values(), ids=LEVERS)
def test_a_pod_that_is_ended_says_why_and_another_one_follows(
    kube: FakeKube, client: Client, lever: Callable[[FakeKube, Json], None], reason: str | None
) -> None:
    pod = running_pod(kube, client)
    lever(kube, pod)
    ended = await_end(kube, pod)

    assert (condition_of(ended) or {}).get("reason") == reason
    assert ended["status"]["phase"] == "Failed"
    kube.await_state(lambda: kube.controller.pods_created == 2)
    assert kube.jobs()[0]["status"]["failed"] == 1


def test_an_evicted_pod_is_gone_once_it_was_counted(kube: FakeKube, client: Client) -> None:
    pod = running_pod(kube, client)
    name = pod["metadata"]["name"]
    code, _ = client.ask("POST", f"{PODS}/{name}/eviction", {"metadata": {"name": name}})
    assert code == 201

    kube.await_state(lambda: name not in [one["metadata"]["name"] for one in kube.pods()])
    assert kube.jobs()[0]["status"]["failed"] == 1


def test_a_pod_that_is_deleted_by_force_is_told_to_end_while_the_job_holds_it(
    kube: FakeKube, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kubelet leaves each pod that it still sees 2 s; here more, for a tool that takes one."""
    monkeypatch.setattr("kube_api.kubelet._LEAST_GRACE_S", 120.0)
    pod = running_pod(kube, client, "trap 'sleep 1; exit 3' TERM; echo ready; sleep 600 & wait")
    path = f"{PODS}/{pod['metadata']['name']}"
    wait_until(lambda: urllib3.request("GET", f"{kube.url}{path}/log").data == b"ready\n")

    assert client.ask("DELETE", path, {"gracePeriodSeconds": 0})[0] == 200
    ended = await_end(kube, pod)

    terminated = ended["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (terminated["reason"], terminated["exitCode"]) == ("Error", 3)
    assert ended["metadata"]["deletionGracePeriodSeconds"] == 0
    kube.await_state(lambda: kube.controller.pods_created == 2)


def test_a_container_over_its_memory_is_killed(kube: FakeKube, client: Client) -> None:
    pod = running_pod(kube, client)
    kube.run_out_of_memory(pod, "tool")
    terminated = await_end(kube, pod)["status"]["containerStatuses"][0]["state"]["terminated"]

    assert (terminated["reason"], terminated["exitCode"]) == ("OOMKilled", 137)


def test_a_lost_node_tells_nothing_until_the_pod_is_collected(
    kube: FakeKube, client: Client
) -> None:
    pod = running_pod(kube, client)
    kube.lose_node(pod)
    kube.taint(pod)
    kube.await_state(lambda: "deletionTimestamp" in kube.pods()[0]["metadata"])
    assert kube.pods()[0]["status"]["phase"] == "Running"
    assert kube.controller.pods_created == 1

    kube.collect(pod)
    assert (condition_of(await_end(kube, pod)) or {})["reason"] == "DeletionByPodGC"
    kube.await_state(lambda: kube.controller.pods_created == 2)


def test_a_cut_off_pod_works_on(kube: FakeKube, client: Client) -> None:
    pod = running_pod(kube, client)
    kube.lose_node(pod, processes_die=False)
    kube.delete_pod(pod)

    run = kube.kubelet.run_of(pod["metadata"]["uid"])
    assert run._kill_at_s is None
    assert run._running["tool"].failed_to_start  # it has neither ended nor been told to
    assert kube.pods()[0]["status"]["phase"] == "Running"


def test_a_pod_that_vanishes_is_replaced_and_not_counted(kube: FakeKube, client: Client) -> None:
    kube.vanish(running_pod(kube, client))
    kube.await_state(lambda: kube.controller.pods_created == 2)
    assert "failed" not in kube.jobs()[0]["status"]


@pytest.mark.parametrize(
    ("query", "left"), [("propagationPolicy=Background", 0), ("", 1)], ids=["background", "default"]
)
def test_a_deleted_job_takes_its_pods_along_only_when_asked_to(
    kube: FakeKube, client: Client, query: str, left: int
) -> None:
    pod = running_pod(kube, client)
    code, status = client.ask("DELETE", f"{JOBS}/j-g1?{query}")
    assert (code, status["status"], status["details"]["kind"]) == (200, "Success", "jobs")
    assert client.ask("GET", f"{JOBS}/j-g1")[0] == 404
    if not left:
        await_end(kube, pod)
    kube.await_state(lambda: len(kube.pods()) == left)


def test_a_job_deleted_in_the_foreground_goes_after_its_pods(
    kube: FakeKube, client: Client
) -> None:
    running_pod(kube, client)
    _, job = client.ask("DELETE", f"{JOBS}/j-g1?propagationPolicy=Foreground")
    assert "deletionTimestamp" in job["metadata"]
    kube.await_state(lambda: not kube.jobs())
    assert not kube.pods()


def test_a_deletion_of_another_uid_is_a_conflict(kube: FakeKube, client: Client) -> None:
    client.create(make_job(suspend=True))
    code, status = client.ask("DELETE", f"{JOBS}/j-g1", {"preconditions": {"uid": "another"}})
    assert (code, status["reason"]) == (409, "Conflict")
    assert kube.job("j-g1") is not None


# What keeps pods from starting


WAITING = {
    "image": hurdle.IMAGE_NOT_FOUND,
    "back-off": hurdle.PULL_BACK_OFF,
    "name": hurdle.INVALID_IMAGE_NAME,
    "never": hurdle.NEVER_PULL,
    "create": hurdle.CREATE_ERROR,
}


@pytest.mark.parametrize("held_up", WAITING.values(), ids=WAITING)
def test_a_container_waits_with_its_reason_and_starts_when_nothing_is_in_the_way(
    kube: FakeKube, client: Client, held_up: hurdle.Hurdle
) -> None:
    kube.hold_up("tool", held_up)
    client.create(make_job())
    pod = kube.await_pod("tool", "waiting")
    pod = kube.await_state(lambda: held_up.reason in str(kube.pods()) and kube.pods()[0])
    waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"]

    assert waiting["reason"] == held_up.reason
    assert "{image}" not in waiting["message"]
    assert pod["status"]["phase"] == "Pending"
    assert (condition_of(pod, "PodReadyToStartContainers") or {})["status"] == "True"
    kube.clear()
    kube.await_condition("j-g1", "Complete")


def test_a_waiting_pod_can_be_deleted(kube: FakeKube, client: Client) -> None:
    kube.hold_up("tool", hurdle.IMAGE_NOT_FOUND)
    client.create(make_job())
    kube.await_state(lambda: "ErrImagePull" in str(kube.pods()))
    kube.delete_job("j-g1")
    kube.await_state(lambda: not kube.pods())


def test_an_image_without_a_shell_is_a_start_error(kube: FakeKube, client: Client) -> None:
    kube.hold_up("tool", hurdle.NO_SHELL)
    client.create(make_job(backoffLimit=0))
    kube.await_condition("j-g1", "Failed")
    terminated = kube.pods()[0]["status"]["containerStatuses"][0]["state"]["terminated"]

    assert (terminated["reason"], terminated["exitCode"]) == ("StartError", 128)
    assert terminated["startedAt"] == "1970-01-01T00:00:00Z"


def test_a_container_waits_for_its_secret_and_gets_its_values(
    kube: FakeKube, client: Client
) -> None:
    reference = {"secretKeyRef": {"name": "s3", "key": "secretkey"}}
    job = make_job(command="test \"$KEY\" = '$(A) b'")
    job["spec"]["template"]["spec"]["containers"][0]["env"] = [
        {"name": "KEY", "valueFrom": reference}
    ]
    client.create(job)
    kube.await_state(lambda: 'secret "s3" not found' in str(kube.pods()))
    kube.add_secret("s3", {"accesskey": "a"})
    kube.await_state(lambda: "find key secretkey in Secret" in str(kube.pods()))
    kube.add_secret("s3", {"accesskey": "a", "secretkey": "$(A) b"})

    kube.await_condition("j-g1", "Complete")
    env = kube.pods()[0]["spec"]["containers"][0]["env"]
    assert env == [{"name": "KEY", "valueFrom": reference}]


def test_a_pod_without_a_node_says_so_and_starts_when_there_is_one(
    kube: FakeKube, client: Client
) -> None:
    kube.lack_nodes(hurdle.NO_NODE)
    client.create(make_job())
    pod = kube.await_state(lambda: "Unschedulable" in str(kube.pods()) and kube.pods()[0])
    scheduled = condition_of(pod, "PodScheduled")

    assert scheduled is not None
    assert (scheduled["status"], scheduled["message"]) == ("False", hurdle.NO_NODE)
    assert "nodeName" not in pod["spec"]
    assert "containerStatuses" not in pod["status"]
    kube.clear()
    kube.await_condition("j-g1", "Complete")


def test_refused_pods_show_as_an_event_of_the_job(kube: FakeKube, client: Client) -> None:
    kube.refuse_pods('pods "j-g1-x" is forbidden: exceeded quota: pods')
    client.create(make_job())
    path = f"/api/v1/namespaces/{NAMESPACE}/events"
    kube.await_state(lambda: kube.objects.of("events"))
    (event,) = client.ask("GET", path, fieldSelector="involvedObject.name=j-g1")[1]["items"]

    assert (event["reason"], event["involvedObject"]["kind"]) == ("FailedCreate", "Job")
    assert not kube.pods()
    kube.clear()
    kube.await_condition("j-g1", "Complete")
