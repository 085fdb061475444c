"""What befalls the command on Kubernetes: refusals, pods that cannot run, pods that are ended.

Each time with the words and the exit code that the user gets, nothing lost and nothing doubled, and
no try of the tool's used up.
"""

from __future__ import annotations

import contextlib
import glob
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import S3Access
from gate import Gate, gate_before
from kube_api import FakeKube, hurdles
from kube_desk import KubeDesk
from waiting import wait_until

from s3runner.cluster.quantity import parse_quantity

COPY: dict[str, Any] = {
    "name": "copy",
    "image": "tool:1",
    "command": "cat in.txt > out.txt",
    "inputs": {"in.txt": "in.txt"},
    "outputs": ["out.txt"],
}
HOLDS: dict[str, Any] = {
    **COPY,
    "command": "touch here; while [ ! -e go ]; do sleep 0.05; done; cat in.txt > out.txt",
    "walltime": "90s",
}

GIB = 1024**3

Lever = Callable[[FakeKube], object]


def check_copied(desk: KubeDesk, job_id: str, *, attempts: int = 1, generation: int = 1) -> None:
    """Check that a job ended once, with its own bytes, and used up no try of its tool's."""
    synced = desk.run("sync", job_id, "--json")
    assert synced.code == 0, synced.stderr
    end = synced.json
    assert (end["outcome"], end["attempts"], end["generation"]) == (
        "succeeded",
        attempts,
        generation,
    )
    assert (desk.directory / "copy" / "out.txt").read_text() == "hello\n"
    (key,) = desk.keys("commit.json")
    assert f"/{job_id}/" in key
    assert "tool_failed" not in desk.run("status", job_id, "--json").json["spent"]


# What the API refuses


def rule(group: str, resource: str, verb: str) -> str:
    return f'{{apiGroups: ["{group}"], resources: ["{resource}"], verbs: ["{verb}"]}}'


RIGHTS = [
    ("list", "batch", "jobs"),
    ("watch", "batch", "jobs"),
    ("list", "", "pods"),
    ("watch", "", "pods"),
]


def test_a_head_that_may_not_create_jobs_uploads_nothing(
    kube: FakeKube, tmp_path: Path, moto_access: S3Access
) -> None:
    desk = KubeDesk(kube, tmp_path / "desk", moto_access)
    kube.rbac.deny("create", "jobs")
    ran = desk.run_job(**COPY)

    assert ran.code == 3
    assert (ran.json["job_id"], ran.json["error"]["operation"]) == (None, "create jobs")
    assert 'cannot create resource "jobs" in API group "batch"' in ran.stderr
    assert 'in the namespace "s3runner" [E32]' in ran.stderr
    assert "hint: add to a Role in namespace s3runner that is bound to this user: -" in ran.stderr
    assert rule("batch", "jobs", "create") in ran.stderr
    assert desk.keys("/blobs/") == desk.keys("/jobs/") == []


@pytest.mark.parametrize(("verb", "group", "resource"), RIGHTS)
def test_a_head_that_may_not_look_says_so_and_its_job_goes_on(
    kube: FakeKube, tmp_path: Path, moto_access: S3Access, verb: str, group: str, resource: str
) -> None:
    """Once it may, `sync` ends what `run` began."""
    desk = KubeDesk(kube, tmp_path / "desk", moto_access)
    kube.rbac.deny(verb, resource)
    ran = desk.run_job(**COPY)

    assert ran.code == 3
    assert ran.json["code"] == 32
    assert f'cannot {verb} resource "{resource}" in API group "{group}"' in ran.stderr
    assert 'in the namespace "s3runner" [E32]' in ran.stderr
    assert rule(group, resource, verb) in ran.stderr
    kube.rbac.allow(verb, resource)
    check_copied(desk, ran.json["job_id"])


def test_a_head_that_may_not_get_jobs_does_not_take_a_job_for_gone(
    kube: FakeKube, tmp_path: Path, moto_access: S3Access
) -> None:
    desk = KubeDesk(kube, tmp_path / "desk", moto_access)
    kube.lack_nodes(hurdles.NO_NODE)
    job_id = desk.submit(**COPY)
    kube.delete_job(f"{job_id}-g1")
    kube.rbac.deny("get", "jobs")
    ran = desk.run("wait", job_id)

    assert ran.code == 3
    assert rule("batch", "jobs", "get") in ran.stderr
    assert "[E32]" in ran.stderr
    assert desk.keys("commit.json") == []


def test_a_head_that_may_not_delete_jobs_brings_the_results_and_says_what_stays(
    kube: FakeKube, tmp_path: Path, moto_access: S3Access
) -> None:
    desk = KubeDesk(kube, tmp_path / "desk", moto_access)
    kube.rbac.deny("delete", "jobs")
    ran = desk.run_job(**COPY)

    assert ran.code == 0, ran.stderr
    assert (desk.directory / "copy" / "out.txt").read_text() == "hello\n"
    assert f"warning: the Job {ran.json['job_id']}-g1 stays: delete jobs" in ran.stderr
    assert rule("batch", "jobs", "delete") in ran.stderr


def test_events_are_not_needed(kube: FakeKube, tmp_path: Path, moto_access: S3Access) -> None:
    """Without the right to list them only the reason why there is no pod remains untold."""
    desk = KubeDesk(kube, tmp_path / "desk", moto_access, budget_s=20)
    kube.rbac.deny("list", "events")
    kube.refuse_pods(QUOTA)
    with desk.going("run", desk.write_job(**COPY), "--json") as process:
        wait_until(lambda: kube.rbac.count("list", "events"))
        kube.clear()
        stdout, stderr = process.communicate(timeout=120)

    assert process.returncode == 0, stderr
    assert json.loads(stdout)["outcome"] == "succeeded"


REFUSED: dict[str, tuple[dict[str, Any], Lever, str, str]] = {
    "namespace": (
        {"namespace": "nowhere"},
        lambda _: None,
        'namespaces "nowhere" not found',
        "kubectl create namespace nowhere",
    ),
    "quota": (
        {},
        lambda kube: kube.faults.answer(
            403,
            verb="rehearse",
            message='jobs.batch "x" is forbidden: exceeded quota: jobs, requested: '
            "count/jobs.batch=1, used: count/jobs.batch=5, limited: count/jobs.batch=5",
        ),
        "used: count/jobs.batch=5, limited: count/jobs.batch=5",
        "kubectl describe quota --namespace s3runner",
    ),
    "webhook": (
        {},
        lambda kube: kube.faults.answer(
            400,
            verb="rehearse",
            message='admission webhook "policy.example" denied the request: no team label',
        ),
        'admission webhook "policy.example" denied the request: no team label',
        "a rule of the cluster",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_cluster_does_not_take_is_told_before_anything_goes_up(
    kube: FakeKube, tmp_path: Path, moto_access: S3Access, case: str
) -> None:
    keys, lever, words, hint = REFUSED[case]
    desk = KubeDesk(kube, tmp_path / "desk", moto_access, **keys)
    lever(kube)
    ran = desk.run_job(**COPY)

    assert ran.code == 3
    assert f"{words} [E32]" in ran.stderr
    assert hint in ran.json["error"]["hint"]
    assert desk.keys("/blobs/") == desk.keys("/jobs/") == []


def test_a_job_that_a_quota_refuses_after_its_stage_in_can_be_taken_up(
    kube: FakeKube, tmp_path: Path, moto_access: S3Access
) -> None:
    desk = KubeDesk(kube, tmp_path / "desk", moto_access)
    told = 'jobs.batch "x" is forbidden: exceeded quota: jobs'
    kube.faults.answer(403, verb="create", resource="jobs", message=told)
    ran = desk.run_job(**COPY)

    assert ran.code == 3
    assert "exceeded quota: jobs [E32]" in ran.stderr
    job_id = ran.json["job_id"]
    assert f"wait {job_id}" in ran.stderr
    check_copied(desk, job_id)


QUOTA = (
    'pods "x" is forbidden: exceeded quota: pods, requested: requests.memory=8Gi, used: '
    "requests.memory=30Gi, limited: requests.memory=32Gi"
)


def test_a_quota_for_pods_is_told_by_status_and_waited_for(
    kube: FakeKube, tmp_path: Path, moto_access: S3Access
) -> None:
    desk = KubeDesk(kube, tmp_path / "desk", moto_access)
    kube.refuse_pods(QUOTA)
    job_id = desk.submit(**COPY)
    kube.clock.skip(-20)
    status = desk.run("status", job_id)
    while "queued: " not in status.stdout:
        status = desk.run("status", job_id)

    assert "exceeded quota: pods, requested: requests.memory=8Gi" in status.stdout
    kube.clear()
    check_copied(desk, job_id)


# Pods that cannot run

STUCK: dict[str, tuple[dict[str, Any], Lever, str, str]] = {
    "image": (
        {"image_pull_timeout": "2s"},
        lambda kube: kube.hold_up("tool", hurdles.IMAGE_NOT_FOUND),
        "image_pull_failed",
        "tool:1: not found",
    ),
    "node": (
        {"pending_timeout": "2s"},
        lambda kube: kube.lack_nodes(hurdles.NO_NODE),
        "unschedulable",
        "0/3 nodes are available: 3 Insufficient memory.",
    ),
    "secret": (
        {"image_pull_timeout": "2s", "credentials": {"secret": "gone"}},
        lambda _: None,
        "config_error",
        'secret "gone" not found',
    ),
    "shell": (
        {},
        lambda kube: kube.hold_up("tool", hurdles.NO_SHELL),
        "config_error",
        'exec: "/bin/sh"',
    ),
    "pod quota": (
        {"pending_timeout": "4s"},
        lambda kube: kube.refuse_pods(QUOTA),
        "cluster_refused",
        "exceeded quota: pods",
    ),
    "pod security": (
        {"image_pull_timeout": "4s"},
        lambda kube: kube.refuse_pods(
            'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'
        ),
        "cluster_refused",
        "violates PodSecurity",
    ),
}


@pytest.mark.parametrize("case", STUCK)
def test_a_pod_that_cannot_run_ends_its_job_in_the_clusters_words(
    kube: FakeKube, tmp_path: Path, moto_access: S3Access, case: str
) -> None:
    """After the time-out that is for it: the walltime of two days is not waited for."""
    keys, lever, outcome, words = STUCK[case]
    desk = KubeDesk(kube, tmp_path / "desk", moto_access, budget_s=60, **keys)
    lever(kube)
    ran = desk.run_job(**COPY)

    assert ran.code == 1, ran.stderr
    code = 32 if outcome == "cluster_refused" else None
    assert (ran.json["outcome"], ran.json["code"]) == (outcome, code)
    assert words in ran.json["error"]["reason"]
    assert ran.json["error"]["hint"]
    assert words in ran.stderr
    kube.await_state(lambda: not kube.jobs() and not kube.pods())
    assert desk.run("status", ran.json["job_id"], "--json").json["outcome"] == outcome


@pytest.mark.parametrize("case", ["image", "node", "secret"])
def test_status_says_what_a_pod_waits_for(
    kube: FakeKube, tmp_path: Path, moto_access: S3Access, case: str
) -> None:
    keys, lever, _, words = STUCK[case]
    patient = {name: value for name, value in keys.items() if not name.endswith("timeout")}
    desk = KubeDesk(kube, tmp_path / "desk", moto_access, **patient)
    lever(kube)
    job_id = desk.submit(**COPY)
    kube.await_state(
        lambda: words in json.dumps([pod["status"] for pod in kube.pods()]).replace('\\"', '"')
    )
    status = desk.run("status", job_id)

    assert f"{job_id}  copy  pending: " in status.stdout
    assert words in status.stdout
    assert words in desk.run("status", job_id, "--json").json["waiting"]
    assert desk.run("cancel", job_id).code == 0
    assert not kube.jobs()


# Jobs and pods that somebody ends


def holding(kube: FakeKube) -> list[Path]:
    """Return where tools hold; pods come and go meanwhile."""
    pattern = f"{kube.kubelet.directory}/pods/*/volumes/work/work/here"
    found = [Path(path).parent for path in glob.glob(pattern)]
    return [path for path in found if not (path / "go").exists()]


def go_on(kube: FakeKube) -> None:
    """Let the tools go on that hold now."""
    for path in holding(kube):
        with contextlib.suppress(FileNotFoundError):
            (path / "go").touch()


def go_on_until(kube: FakeKube, condition: Callable[[], object]) -> None:
    """Let every tool go on until something is so."""

    def is_so() -> object:
        go_on(kube)
        return condition()

    wait_until(is_so)


def await_end(kube: FakeKube, pod: Any) -> None:
    """Wait until a pod has ended, or is gone."""
    ended, uid = ("Failed", "Succeeded"), pod["metadata"]["uid"]

    def lives() -> bool:
        found = [one for one in kube.pods() if one["metadata"]["uid"] == uid]
        return any(one["status"].get("phase") not in ended for one in found)

    kube.await_state(lambda: not lives())


def test_a_job_that_somebody_deletes_has_ended_as_deleted(
    kube: FakeKube, tmp_path: Path, moto_access: S3Access
) -> None:
    desk = KubeDesk(kube, tmp_path / "desk", moto_access, grace="1s")
    job_id = desk.submit(**HOLDS)
    wait_until(lambda: holding(kube))
    kube.delete_job(f"{job_id}-g1")
    ran = desk.run("wait", job_id, "--json")

    assert (ran.code, ran.json["outcome"], ran.json["code"]) == (1, "deleted", None)
    assert "submit the job again" in ran.stderr
    assert len(desk.keys("commit.json")) == kube.controller.pods_created == 1


def test_a_job_that_somebody_deletes_after_its_commit_has_lost_nothing(
    kube: FakeKube, tmp_path: Path, moto_access: S3Access
) -> None:
    desk = KubeDesk(kube, tmp_path / "desk", moto_access)
    job_id = desk.submit(**COPY)
    wait_until(lambda: desk.keys("commit.json"))
    kube.delete_job(f"{job_id}-g1")
    check_copied(desk, job_id)
    assert kube.controller.pods_created == 1


PHASES: dict[str, Callable[[str], bool]] = {
    "fetch": lambda request: request.startswith("GET") and "/blobs/" in request,
    "run": lambda _: False,
    "stage-out": lambda request: request.startswith("PUT") and "/out/" in request,
    "before the result": lambda request: request.startswith("PUT") and "result.json" in request,
    "before the commit": lambda request: request.startswith("PUT") and "commit.json" in request,
}
"""At which request of a pod it is evicted."""


@pytest.fixture
def gate(moto_access: S3Access) -> Iterator[Gate]:
    assert moto_access.config.endpoint is not None
    with gate_before(moto_access.config.endpoint) as gate:
        yield gate


@pytest.mark.parametrize("holds", PHASES.values(), ids=PHASES)
def test_a_pod_that_is_evicted_in_any_phase_is_followed_by_one_that_succeeds(
    kube: FakeKube, gate: Gate, tmp_path: Path, moto_access: S3Access, holds: Callable[[str], bool]
) -> None:
    """The phase does not end: the pod's request is held until the pod is gone."""
    store = {"pod_endpoint": gate.address}
    desk = KubeDesk(kube, tmp_path / "desk", moto_access, store=store, grace="1s")
    gate.hold(holds)
    job_id = desk.submit(**HOLDS)
    if holds is PHASES["run"]:
        wait_until(lambda: holding(kube))
    else:
        go_on_until(kube, lambda: gate.held.is_set())
    (pod,) = kube.pods()
    kube.evict(pod)
    await_end(kube, pod)
    gate.open()
    with desk.going("wait", job_id) as process:
        go_on_until(kube, lambda: process.poll() is not None)
        process.communicate()

    check_copied(desk, job_id, attempts=2)
    assert kube.controller.pods_created == 2


def test_a_pod_that_is_evicted_after_its_commit_is_followed_by_none_that_counts(
    kube: FakeKube, tmp_path: Path, moto_access: S3Access
) -> None:
    """It is still there because of a container beside the tool; a next one finds the commit."""
    stays = {"name": "stays", "image": "x:1", "command": ["sleep", "600"]}
    desk = KubeDesk(kube, tmp_path / "desk", moto_access, containers=[stays], grace="1s")
    job_id = desk.submit(**COPY)
    kube.await_pod("stager", "terminated")
    commit = desk.keys("commit.json")
    (pod,) = kube.pods()
    kube.evict(pod)
    kube.await_state(lambda: kube.controller.pods_created == 2)
    synced = desk.run("sync", job_id, "--json")

    assert (synced.code, synced.json["outcome"]) == (0, "succeeded")
    assert (desk.directory / "copy" / "out.txt").read_text() == "hello\n"
    assert desk.keys("commit.json") == commit
    assert len(desk.keys("/result.json")) == 1
    kube.await_state(lambda: not kube.jobs())


def node_is_lost(kube: FakeKube, pod: Any) -> None:
    kube.lose_node(pod)
    kube.collect(pod)


BLOWS: dict[str, tuple[Callable[[FakeKube, Any], None], int, str]] = {
    "node lost": (node_is_lost, 1, "evicted"),
    "taint": (lambda kube, pod: kube.taint(pod), 1, "evicted"),
    "out of memory": (
        lambda kube, pod: kube.run_out_of_memory(pod, "tool"),
        2,
        "out_of_memory",
    ),
    "out of disk": (
        lambda kube, pod: kube.exceed_disk_limit(
            pod, 'Usage of EmptyDir volume "work" exceeds the limit "1Gi". '
        ),
        2,
        "no_space",
    ),
}


@pytest.mark.parametrize(("blow", "generation", "cause"), BLOWS.values(), ids=BLOWS)
def test_a_pod_that_the_cluster_ends_is_followed_by_one_that_succeeds(
    kube: FakeKube,
    tmp_path: Path,
    moto_access: S3Access,
    blow: Callable[[FakeKube, Any], None],
    generation: int,
    cause: str,
) -> None:
    """One that took too much memory or disk gets twice as much.

    A Job makes its next pod after 10 s, here after 2: in between the head may decide otherwise.
    """
    kube.controller.first_backoff_s = 2.0
    desk = KubeDesk(kube, tmp_path / "desk", moto_access, grace="1s")
    with desk.going("run", desk.write_job(**HOLDS, resources={"memory": "1Gi"}), "--json") as run:
        wait_until(lambda: holding(kube))
        (pod,) = kube.pods()
        limits = pod["spec"]["containers"][0]["resources"]["limits"]
        assert (limits["memory"], limits["ephemeral-storage"]) == ("1Gi", "1025Mi")
        blow(kube, pod)
        await_end(kube, pod)
        go_on_until(kube, lambda: run.poll() is not None)
        stdout, stderr = run.communicate()

    assert run.returncode == 0, stderr
    job_id = json.loads(stdout)["job_id"]
    check_copied(desk, job_id, attempts=2, generation=generation)
    status = desk.run("status", job_id, "--json").json
    records = [key for key in desk.keys("/generations/") if "created" not in key]
    record = json.loads(desk.store.get(records[-1], lambda chunks: b"".join(chunks)))
    if generation == 2:
        assert status["spent"] == {cause: 1}
        assert f"generation 1 ended as {cause}; trying again as generation 2" in stderr
        now = [parse_quantity(record["resources"][name]["limit"]) for name in ("memory", "disk")]
        factors = {"out_of_memory": (2, 1), "no_space": (1, 2)}[cause]
        assert now == [GIB * factors[0], (GIB + 1024**2) * factors[1]]
    else:
        assert f"attempt 2 of at most 4 ({cause} from node" in stderr
