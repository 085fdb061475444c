"""What every cluster owes the head: on this machine, on the tests' API server, on a real cluster.

First bare Jobs, as the adapters see them; then whole jobs, as a user sees them.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_cluster import Heard
from hostile import plant, snapshot
from kube_api import hurdles
from kube_api.sites import FAKE, LOCAL, REAL, SITES, WAIT_S, Site, open_site
from waiting import wait_until

from s3runner.cluster.outcome import finished_reason, newest_pod
from s3runner.cluster.protocol import DESTINATION_LABEL, JobObject, Observation
from s3runner.errors import ClusterRefusedError
from s3runner.model import Input, Job, Outcome, Output, Quantity, Resources
from s3runner.runner.runner import Runner

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""What a namespace of the strictest level asks of a container."""

pytestmark = pytest.mark.timeout(max(300, 3 * WAIT_S))

ON_KUBERNETES = [site for site in SITES if site != LOCAL]


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with open_site(request.param, tmp_path, lambda: request.getfixturevalue("moto_server")) as it:
        yield it


on_kubernetes = pytest.mark.parametrize("site", ON_KUBERNETES, indirect=True)
on_the_fake = pytest.mark.parametrize("site", [FAKE], indirect=True)


def bare_job(site: Site, command: str = "true", digest: str = "sha256:1", **pod: Any) -> JobObject:
    """Return a Job with one container, `tool`, and a name of its own."""
    name = f"test-{uuid.uuid4().hex[:12]}-g1"
    labels = {"app.kubernetes.io/managed-by": "s3runner", DESTINATION_LABEL: name}
    container = {
        "name": "tool",
        "image": site.tool_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", command],
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}},
        "securityContext": RESTRICTED,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": {"s3runner/spec-digest": digest},
        },
        "spec": {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": 0,
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 1,
                    "automountServiceAccountToken": False,
                    "containers": [container],
                    **pod,
                },
            },
        },
    }


def name_of(job: JobObject) -> str:
    return str(job["metadata"]["name"])


def is_finished(seen: Observation) -> bool:
    return seen.job is not None and finished_reason(seen.job) is not None


def is_running(seen: Observation) -> bool:
    return "running" in state_of_tool(seen)


def state_of_tool(seen: Observation) -> dict[str, Any]:
    pod = newest_pod(seen) or {}
    for container in pod.get("status", {}).get("containerStatuses") or ():
        if container["name"] == "tool":
            state: dict[str, Any] = container["state"]
            return state
    return {}


GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "kubernetes").glob("*.yaml"))


@on_kubernetes
@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_every_kind_of_job_is_one_that_the_server_would_take(site: Site, golden: Path) -> None:
    """Rehearsed with strict decoding: what a user may set has no word the server does not know."""
    told = site.cluster().caveats(yaml.safe_load(golden.read_text()))
    assert not [text for text in told if "could not be asked" in text or "unknown field" in text]


# Bare Jobs


def test_a_job_lives_from_its_submission_to_its_deletion(site: Site) -> None:
    cluster, job = site.cluster(), bare_job(site)
    uid = cluster.submit(job)
    there = cluster.observe([name_of(job)])[name_of(job)]
    assert there.job is not None
    assert there.job["metadata"]["uid"] == uid

    ended = site.await_seen(cluster, name_of(job), is_finished)
    assert ended.job is not None
    assert ended.job["status"]["succeeded"] == 1
    assert [pod["status"]["phase"] for pod in ended.pods] == ["Succeeded"]

    cluster.delete(name_of(job))
    site.await_seen(cluster, name_of(job), lambda seen: seen == Observation(None))


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("false", 1), ("exit 42", 42)])
def test_a_container_ends_with_its_own_code(site: Site, command: str, code: int) -> None:
    cluster, job = site.cluster(), bare_job(site, command)
    cluster.submit(job)
    seen = site.await_seen(cluster, name_of(job), is_finished)

    assert state_of_tool(seen)["terminated"]["exitCode"] == code
    assert seen.job is not None
    reason = "BackoffLimitExceeded" if code else "CompletionsReached"
    assert finished_reason(seen.job) == reason


def test_a_job_is_adopted_by_its_digest_and_made_once(site: Site) -> None:
    job = bare_job(site)
    first = site.cluster().submit(job)
    assert site.cluster().submit(job) == first

    seen = site.await_seen(site.cluster(), name_of(job), is_finished)
    assert len(seen.pods) == 1


def test_a_job_of_another_digest_is_refused(site: Site) -> None:
    cluster, job = site.cluster(), bare_job(site)
    cluster.submit(job)
    other = {**job, "metadata": {**job["metadata"], "annotations": {"s3runner/spec-digest": "x"}}}

    with pytest.raises(ClusterRefusedError, match="another spec"):
        cluster.submit(other)


def test_what_was_never_there_is_gone_and_deleting_it_is_no_error(site: Site) -> None:
    cluster = site.cluster()
    assert cluster.observe(["never-g1"]) == {"never-g1": Observation(None)}
    cluster.delete("never-g1")


def test_a_deletion_ends_the_pod(site: Site) -> None:
    cluster, job = site.cluster(), bare_job(site, "sleep 600")
    cluster.submit(job)
    site.await_seen(cluster, name_of(job), is_running)
    cluster.delete(name_of(job))

    site.await_seen(cluster, name_of(job), lambda seen: seen.job is None and not seen.pods)


def test_the_active_jobs_of_a_destination_are_those_that_are_not_over(site: Site) -> None:
    cluster, job = site.cluster(), bare_job(site, "sleep 600")
    ended = bare_job(site)
    ended["metadata"]["labels"][DESTINATION_LABEL] = name_of(job)
    for one in (job, ended):
        cluster.submit(one)
    site.await_seen(cluster, name_of(ended), is_finished)
    site.await_seen(cluster, name_of(job), is_running)

    assert list(cluster.active(name_of(job))) == [name_of(job)]
    assert list(cluster.active("another")) == []


def test_waiting_ends_when_a_job_changes_and_not_before(site: Site) -> None:
    cluster, job = site.cluster(), bare_job(site, "sleep 600")
    cluster.submit(job)
    site.await_seen(cluster, name_of(job), is_running)
    began = time.monotonic()
    for _ in range(20):  # the last changes of its start may still come
        cluster.observe([name_of(job)])
        cluster.wait([name_of(job)], 0.3)
        if time.monotonic() - began > 0.3:
            break
        began = time.monotonic()
    else:
        pytest.fail("a job that does nothing changes again and again")

    threading.Timer(0.2, site.new_cluster().delete, [name_of(job)]).start()
    began = time.monotonic()
    cluster.wait([name_of(job)], WAIT_S)
    assert time.monotonic() - began < WAIT_S / 2


def test_two_clusters_differ_and_one_cluster_is_always_itself(site: Site) -> None:
    assert dict(site.cluster().identity) == dict(site.cluster().identity)
    assert site.cluster().identity["kind"] == ("local" if site.kind == LOCAL else "kubernetes")


@on_kubernetes
def test_an_image_that_is_not_there_shows_in_the_pod(site: Site) -> None:
    if site.kind == FAKE and site.kube is not None:
        site.kube.hold_up("tool", hurdles.IMAGE_NOT_FOUND)
    cluster, job = site.cluster(), bare_job(site)
    container = job["spec"]["template"]["spec"]["containers"][0]
    container["image"] = "registry.invalid/none:1"
    cluster.submit(job)

    reasons = {"ErrImagePull", "ImagePullBackOff"}
    seen = site.await_seen(
        cluster,
        name_of(job),
        lambda seen: state_of_tool(seen).get("waiting", {}).get("reason") in reasons,
    )
    assert "registry.invalid/none:1" in state_of_tool(seen)["waiting"]["message"]


@pytest.mark.parametrize("site", [one for one in SITES if one == REAL] or [FAKE], indirect=True)
def test_an_image_without_a_shell_cannot_start(site: Site) -> None:
    job = bare_job(site)
    job["spec"]["template"]["spec"]["containers"][0]["command"] = ["/no/such/shell", "-c", "true"]
    cluster = site.cluster()
    cluster.submit(job)
    seen = site.await_seen(cluster, name_of(job), is_finished)

    terminated = state_of_tool(seen)["terminated"]
    assert (terminated["reason"], terminated["exitCode"]) == ("StartError", 128)


@on_kubernetes
def test_a_pod_that_fits_nowhere_carries_the_schedulers_sentence(site: Site) -> None:
    if site.kube is not None:
        site.kube.lack_nodes(hurdles.NO_NODE)
    job, cluster = bare_job(site), site.cluster()
    resources = {"requests": {"cpu": "1000000", "memory": "32Mi"}}
    job["spec"]["template"]["spec"]["containers"][0]["resources"] = resources
    cluster.submit(job)

    def sentence(seen: Observation) -> str:
        conditions = (newest_pod(seen) or {}).get("status", {}).get("conditions") or ()
        return next((c.get("message", "") for c in conditions if c["type"] == "PodScheduled"), "")

    seen = site.await_seen(cluster, name_of(job), sentence)
    assert "nodes are available" in sentence(seen)


@on_kubernetes
def test_an_object_with_an_unknown_field_is_refused_by_its_path(site: Site) -> None:
    job = bare_job(site, nodeSelektor={"a": "b"})
    with pytest.raises(ClusterRefusedError, match="nodeSelektor"):
        site.cluster().submit(job)


@on_the_fake
def test_a_suspended_job_has_no_pod(site: Site) -> None:
    job, cluster = bare_job(site), site.cluster()
    job["spec"]["suspend"] = True
    cluster.submit(job)

    def is_suspended(seen: Observation) -> bool:
        return "Suspended" in str((seen.job or {}).get("status"))

    assert site.await_seen(cluster, name_of(job), is_suspended).pods == ()
    assert site.kube is not None
    site.kube.suspend(name_of(job), suspended=False)
    site.await_seen(cluster, name_of(job), is_finished)


# Whole jobs

ENDLESS = "echo begun; sleep 600"
SLOW = "echo begun; sleep 4; echo a >out"


def make_job(site: Site, command: str, *outputs: str, **more: Any) -> Job:
    return Job(
        name="job",
        command=command,
        image=None if site.kind == LOCAL else site.tool_image,
        outputs=tuple(map(Output, outputs)),
        **{"resources": Resources(Quantity("100m"), Quantity("64Mi", "256Mi")), **more},
    )


def job_name(job_id: str, generation: int = 1) -> str:
    return f"{job_id}-g{generation}"


class Sink:
    """Takes logs, and says when there are some."""

    def __init__(self) -> None:
        self.text = b""
        self.came = threading.Event()

    def write(self, stream: str, piece: bytes) -> None:
        del stream
        self.text += piece
        self.came.set()

    def note(self, text: str) -> None:
        del text


def await_begun(site: Site, runner: Runner, job_id: str) -> JobObject:
    """Return the pod of a job whose tool has said something: it runs, and all around it."""
    sink = Sink()

    def has_spoken() -> bytes:
        runner.logs(job_id, sink)
        return sink.text

    seen = site.await_seen(runner.head.cluster, job_name(job_id), is_running)
    wait_until(has_spoken)
    pod = newest_pod(seen)
    assert pod is not None
    return pod


def test_a_whole_tree_goes_in_and_comes_out_identical(site: Site, tmp_path: Path) -> None:
    before = snapshot(plant(tmp_path / "tree"))
    runner = site.runner()
    job = make_job(site, "mv in out", "out", inputs=(Input("in", str(tmp_path / "tree")),))
    job_id = runner.submit(job, Heard())
    end = runner.wait(job_id, Heard())
    runner.sync(job_id, tmp_path / "here", Heard())

    assert end.outcome is Outcome.SUCCEEDED, end
    assert end.attempts == 1
    assert snapshot(tmp_path / "here" / "out") == before
    site.await_seen(site.cluster(), job_name(job_id), lambda seen: seen.job is None)


def test_a_tool_that_fails_ends_the_job_with_its_code(site: Site) -> None:
    runner = site.runner()
    end = runner.wait(runner.submit(make_job(site, "exit 7"), Heard()), Heard())
    assert (end.outcome, end.tool_exit_code, end.attempts) == (Outcome.TOOL_FAILED, 7, 1)


def test_a_tool_over_its_memory_ends_the_job_out_of_memory(site: Site) -> None:
    runner = site.runner()
    greedy = make_job(
        site,
        "tail /dev/zero",
        resources=Resources(Quantity("100m"), Quantity("64Mi", "64Mi")),
        retry={"memory_cap": "64Mi"},
    )
    end = runner.wait(runner.submit(greedy, Heard()), Heard())
    assert end.outcome is Outcome.OUT_OF_MEMORY


def test_the_tools_words_are_there_while_it_runs(site: Site) -> None:
    runner, sink = site.runner(), Sink()
    job_id = runner.submit(make_job(site, "echo hello; sleep 600"), Heard())
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(site.runner().logs, job_id, sink, follow=True)
        assert sink.came.wait(WAIT_S)
        assert sink.text == b"hello\n"
        runner.cancel(job_id)
        following.result(WAIT_S)


def test_a_cancelled_job_has_no_pod_left(site: Site) -> None:
    runner = site.runner()
    job_id = runner.submit(make_job(site, ENDLESS), Heard())
    await_begun(site, runner, job_id)

    assert runner.cancel(job_id)[0].outcome is Outcome.CANCELLED
    site.await_seen(
        runner.head.cluster, job_name(job_id), lambda seen: seen.job is None and not seen.pods
    )
    assert site.runner().wait(job_id, Heard()).outcome is Outcome.CANCELLED


def test_another_head_takes_a_job_up(site: Site, tmp_path: Path) -> None:
    job_id = site.runner().submit(make_job(site, SLOW, "out"), Heard())
    end = site.runner().wait(job_id, Heard())
    site.runner().sync(job_id, tmp_path / "here", Heard())

    assert (end.outcome, end.attempts) == (Outcome.SUCCEEDED, 1)
    assert (tmp_path / "here" / "out").read_text() == "a\n"


def test_two_heads_see_one_job_end_once(site: Site) -> None:
    job_id = site.runner().submit(make_job(site, "echo; sleep 1"), Heard())
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(site.runner().wait, job_id, Heard()) for _ in range(2)]
        ends = [one.result(WAIT_S) for one in waiting]

    assert [end.outcome for end in ends] == [Outcome.SUCCEEDED] * 2
    assert ends[0].attempt == ends[1].attempt


def test_a_job_that_somebody_deletes_before_its_commit_has_ended_as_deleted(site: Site) -> None:
    runner, heard = site.runner(), Heard()
    job_id = runner.submit(make_job(site, "echo begun; sleep 15"), Heard())
    await_begun(site, runner, job_id)
    site.new_cluster().delete(job_name(job_id))

    end = runner.wait(job_id, heard)
    assert (end.outcome, heard.warnings) == (Outcome.DELETED, []), end


def test_a_job_that_somebody_deletes_after_its_commit_has_lost_nothing(
    site: Site, tmp_path: Path
) -> None:
    runner = site.runner()
    job_id = runner.submit(make_job(site, "echo a >out", "out"), Heard())
    site.await_seen(runner.head.cluster, job_name(job_id), is_finished)
    site.new_cluster().delete(job_name(job_id))
    runner.sync(job_id, tmp_path / "here", Heard())

    assert runner.wait(job_id, Heard()).outcome is Outcome.SUCCEEDED
    assert (tmp_path / "here" / "out").read_text() == "a\n"


@on_kubernetes
def test_an_evicted_job_runs_again_and_costs_no_try_of_the_tool(site: Site) -> None:
    if site.evict is None:
        pytest.fail("this site cannot evict")
    runner = site.runner()
    # what a kubelet tells comes late: the tool must not end before the eviction
    command = SLOW.replace("sleep 4", "sleep 20") if site.kind == REAL else SLOW
    job_id = runner.submit(make_job(site, command, "out"), Heard())
    site.evict(await_begun(site, runner, job_id))

    heard = Heard()
    end = runner.wait(job_id, heard)
    assert (end.outcome, end.attempts, end.generation) == (Outcome.SUCCEEDED, 2, 1)
    assert "attempt 2 of at most 4 (evicted from node" in heard.warnings[0]


Blow = Callable[[Any, JobObject], None]

BLOWS: dict[str, tuple[Blow, tuple[int, ...]]] = {
    "killed stager": (lambda kube, pod: kube.run_out_of_memory(pod, "stager"), (1,)),
    "forced deletion": (lambda kube, pod: kube.delete_pod(pod, 0), (1, 2)),
    "vanished": (lambda kube, pod: kube.vanish(pod), (1,)),
    "shutdown": (lambda kube, pod: kube.shut_node_down(pod), (1,)),
    "pressure": (lambda kube, pod: kube.press_node(pod), (1,)),
    "preemption": (lambda kube, pod: kube.preempt(pod), (1,)),
}
"""What befalls a pod, and in which generation the job may succeed.

A killed tool ends its own, unless the pod is gone before anybody has seen that.
"""


@on_the_fake
@pytest.mark.parametrize(("blow", "generations"), BLOWS.values(), ids=BLOWS)
def test_a_pod_that_ends_without_a_result_is_followed_by_another(
    site: Site, blow: Blow, generations: tuple[int, ...]
) -> None:
    runner = site.runner()
    job_id = runner.submit(make_job(site, SLOW, "out"), Heard())
    blow(site.kube, await_begun(site, runner, job_id))

    end = runner.wait(job_id, Heard())
    assert end.outcome is Outcome.SUCCEEDED
    assert site.kube is not None
    assert end.generation in generations
    assert site.kube.controller.pods_created == 2


HURDLES = {
    "no shell": (hurdles.NO_SHELL, Outcome.CONFIG_ERROR, "/bin/sh"),
    "no such name": (
        hurdles.INVALID_IMAGE_NAME,
        Outcome.IMAGE_PULL_FAILED,
        "invalid reference format",
    ),
    "never pulled": (hurdles.NEVER_PULL, Outcome.IMAGE_PULL_FAILED, "pull policy of Never"),
}
"""What no time helps against, how the job ends, and what its error says."""


@on_the_fake
@pytest.mark.parametrize(("hurdle", "outcome", "words"), HURDLES.values(), ids=HURDLES)
def test_a_pod_that_can_never_run_ends_its_job_at_once(
    site: Site, hurdle: hurdles.Hurdle, outcome: Outcome, words: str
) -> None:
    """The stager beside it would wait for a quarter of an hour."""
    assert site.kube is not None
    site.kube.hold_up("tool", hurdle)
    runner = site.runner()
    job_id = runner.submit(make_job(site, "true"), Heard())

    end = runner.wait(job_id, Heard())
    assert (end.outcome, end.generation) == (outcome, 1)
    assert words in str(end.error)
    site.await_seen(runner.head.cluster, job_name(job_id), lambda seen: seen.job is None)


@on_the_fake
def test_a_pod_whose_node_is_lost_may_commit_unseen(site: Site) -> None:
    runner, kube = site.runner(), site.kube
    assert kube is not None
    job_id = runner.submit(make_job(site, SLOW, "out"), Heard())
    pod = await_begun(site, runner, job_id)
    kube.lose_node(pod, processes_die=False)
    wait_until(lambda: runner.head.read_commit(job_id))
    kube.collect(pod)

    end = runner.wait(job_id, Heard())
    assert (end.outcome, end.attempt) == (Outcome.SUCCEEDED, pod["metadata"]["uid"])


@on_the_fake
def test_jobs_go_on_while_the_api_is_away_and_the_head_catches_up(site: Site) -> None:
    runner, kube = site.runner(), site.kube
    assert kube is not None
    job_id = runner.submit(make_job(site, "echo; sleep 1"), Heard())
    await_begun(site, runner, job_id)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(runner.wait, job_id, Heard())
        kube.faults.go_down()
        kube.await_condition(job_name(job_id), "Complete")
        assert not waiting.done()
        kube.faults.come_up()
        assert waiting.result(WAIT_S).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("is_away", [True, False], ids=["by status", "in the stream"])
@on_the_fake
def test_a_head_whose_place_in_history_is_gone_lists_again(site: Site, *, is_away: bool) -> None:
    runner, kube = site.runner(), site.kube
    assert kube is not None
    job_id = runner.submit(make_job(site, SLOW, "out"), Heard())
    await_begun(site, runner, job_id)
    lever = kube.faults.go_down if is_away else kube.faults.stall_streams
    lever()
    kube.await_condition(job_name(job_id), "Complete")
    kube.objects.compact()
    kube.faults.let_go()
    kube.faults.come_up()

    end = runner.wait(job_id, Heard())
    assert (end.outcome, end.attempts) == (Outcome.SUCCEEDED, 1)


@on_the_fake
def test_a_job_costs_few_calls_however_long_it_is_followed(site: Site) -> None:
    kube = site.kube
    assert kube is not None
    runner = site.runner()
    runner.wait(runner.submit(make_job(site, "echo; sleep 1"), Heard()), Heard())
    shared = kube.rbac.count("watch") + kube.rbac.count("list")

    assert kube.rbac.count() - shared <= 5
    assert kube.rbac.used <= {
        ("create", "batch", "jobs"),
        ("get", "batch", "jobs"),
        ("delete", "batch", "jobs"),
        ("list", "batch", "jobs"),
        ("watch", "batch", "jobs"),
        ("list", "", "pods"),
        ("watch", "", "pods"),
        ("list", "", "events"),
    }


FAULTS: dict[str, Callable[[Any], None]] = {
    "429": lambda kube: kube.faults.answer(429, 3, retry_after_s=1),
    "500": lambda kube: kube.faults.answer(500, 4),
    "503": lambda kube: kube.faults.answer(503, 4),
    "a dropped connection": lambda kube: kube.faults.drop(4),
    "a lost answer to create": lambda kube: kube.faults.lose_answer("create", resource="jobs"),
    "a time-out of create": lambda kube: kube.faults.lose_answer("create", code=504),
    "a lost answer to delete": lambda kube: kube.faults.lose_answer("delete", code=504),
    "watches that expire": lambda kube: kube.watching.expire_next(times=3),
    "watches that expire in the stream": lambda kube: kube.watching.expire_next(
        in_stream=True, times=3
    ),
    "repeated events": lambda kube: setattr(kube.faults, "repeats_events", True),
    "stale events": lambda kube: setattr(kube.faults, "repeats_stale_events", True),
    "short streams": lambda kube: setattr(kube.faults, "stream_life_s", 0.2),
}


@on_the_fake
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_job_survives_what_the_api_does_wrong(site: Site, fault: Callable[[Any], None]) -> None:
    kube, runner = site.kube, site.runner()
    assert kube is not None
    fault(kube)
    job_id = runner.submit(make_job(site, "echo a >out", "out"), Heard())
    end = runner.wait(job_id, Heard())

    assert (end.outcome, end.attempts) == (Outcome.SUCCEEDED, 1)
    assert kube.controller.pods_created == 1
