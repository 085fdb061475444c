"""The local cluster with real processes, in each sandbox that it knows."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from service_rule import require_program
from waiting import DEADLINE_S, found_below, wait_until

from s3runner.cluster.job_rules import finished_condition, is_terminal, pod_of
from s3runner.cluster.local.adapter import LocalCluster
from s3runner.cluster.local.choice import choose_sandbox
from s3runner.cluster.local.container import Mount, Plan, expand, relocate
from s3runner.cluster.local.jobdir import JobDir, closing_fd
from s3runner.cluster.local.node import Node
from s3runner.cluster.local.pod import PodRun
from s3runner.cluster.local.supervisor import let_go
from s3runner.cluster.outcome import patience_of
from s3runner.cluster.pod_end import Patience
from s3runner.cluster.protocol import Observation
from s3runner.errors import ClusterRefusedError

REPOSITORY = Path(__file__).parents[2]
PYTHON = os.path.realpath(sys.executable)
WORKER = "our/worker:1"
PROGRAMS = {"bubblewrap": "bwrap", "unshare": "unshare", "none": "sh"}
MOUNTS = [
    {"name": "control", "mountPath": "/s3runner/control"},
    {"name": "work", "mountPath": "/s3runner/work", "subPath": "work"},
]


def living(marker: str) -> bool:
    """Tell whether a process has this in its command line."""
    return (
        subprocess.run(
            ["pgrep", "-f", "--", marker], stdout=subprocess.DEVNULL, check=False
        ).returncode
        == 0
    )


def container(name: str, script: str, **more: Any) -> dict[str, Any]:
    command = ["/bin/sh", "-c", script]
    made = {"name": name, "image": "busybox", "command": command, "volumeMounts": MOUNTS}
    return {**made, "workingDir": "/s3runner/work", **more}


def make_job(
    *containers: dict[str, Any],
    init: tuple[dict[str, Any], ...] = (),
    grace_s: int = 10,
    digest: str = "sha256:1",
    **spec: Any,
) -> dict[str, Any]:
    pod_spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": grace_s,
        "volumes": [{"name": "control", "emptyDir": {}}, {"name": "work", "emptyDir": {}}],
        "initContainers": list(init),
        "containers": list(containers),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "job-g1", "annotations": {"s3runner/spec-digest": digest}},
        "spec": {
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            **spec,
            "template": {"spec": pod_spec},
        },
    }


class Head:
    """A local cluster, and what a test asks of it."""

    def __init__(self, state_dir: Path, read_only: tuple[Path, ...] = ()) -> None:
        self.state_dir = state_dir
        self.cluster = LocalCluster(
            state_dir,
            worker_image=WORKER,
            worker_secret_files={"keys": "very secret"},
            worker_env={"KEYS": "/s3runner/secrets/keys"},
            read_only=[str(path) for path in read_only],
        )

    @property
    def directory(self) -> Path:
        return self.state_dir / "jobs" / "job-g1"

    def observe(self) -> Observation:
        return self.cluster.observe(["job-g1"])["job-g1"]

    def wait_for(self, condition: Callable[[Observation], object]) -> Observation:
        """Observe until something is so, waiting as a head does."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition(seen := self.observe()):
            assert time.monotonic() < deadline, f"waited too long: {seen}"
            self.cluster.wait(["job-g1"], 1)
        return seen

    def finish(self) -> Observation:
        return self.wait_for(lambda seen: seen.job is None or finished_condition(seen.job))

    def run(self, job: dict[str, Any]) -> Observation:
        self.cluster.submit(job)
        return self.finish()

    def supervisor(self) -> int:
        lock = self.directory / "lock"
        wait_until(lock.read_text)
        return int(lock.read_text())

    def kept(self) -> list[Path]:
        """Return all that the cluster keeps of its Jobs."""
        return [path for path in found_below(self.state_dir) if path.parent != self.state_dir]

    def log(self, name: str) -> str:
        """Return a container's log; of all pods if there were several."""
        return "".join(path.read_text() for path in sorted(self.directory.glob(f"logs/*/{name}")))


@pytest.fixture
def make_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Head]]:
    """Return what makes a head, in a sandbox by name; its Jobs are deleted at the end."""
    made: list[Head] = []

    def make(sandbox: str, *read_only: Path) -> Head:
        require_program(PROGRAMS[sandbox])
        monkeypatch.setenv("S3RUNNER_LOCAL_SANDBOX", sandbox)
        monkeypatch.setenv("S3RUNNER_LOCAL_BACKOFF_S", "0.1")
        head = Head(tmp_path / "state", read_only)
        assert head.cluster.sandbox == sandbox
        made.append(head)
        return head

    yield make
    for head in made:
        head.cluster.delete("job-g1")
        head.wait_for(lambda seen: seen.job is None)


@pytest.fixture(params=PROGRAMS)
def head(request: pytest.FixtureRequest, make_head: Callable[..., Head]) -> Head:
    """Return a head, once for each sandbox."""
    return make_head(request.param)


@pytest.fixture
def boxed(make_head: Callable[..., Head]) -> Head:
    """Return a head that has bubblewrap."""
    return make_head("bubblewrap")


def states(seen: Observation, kind: str = "containerStatuses", pod: int = -1) -> dict[str, Any]:
    return {status["name"]: status["state"] for status in seen.pods[pod]["status"][kind]}


def condition_reason(seen: Observation) -> tuple[str, str]:
    assert seen.job is not None
    condition = finished_condition(seen.job)
    assert condition is not None
    return condition["type"], condition["reason"]


def test_a_pod_whose_containers_succeed_completes_the_job(head: Head) -> None:
    seen = head.run(make_job(container("tool", "exit 0"), container("stager", "exit 0")))
    assert condition_reason(seen) == ("Complete", "CompletionsReached")
    assert [pod["status"]["phase"] for pod in seen.pods] == ["Succeeded"]
    ended = states(seen)["tool"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (0, "Completed")
    assert ended["startedAt"] <= ended["finishedAt"]


def test_each_container_has_its_own_exit_code(head: Head) -> None:
    seen = head.run(make_job(container("tool", "exit 0"), container("stager", "exit 26")))
    assert condition_reason(seen) == ("Failed", "BackoffLimitExceeded")
    assert seen.pods[0]["status"]["phase"] == "Failed"
    assert states(seen)["tool"]["terminated"]["exitCode"] == 0
    assert states(seen)["stager"]["terminated"]["exitCode"] == 26
    assert states(seen)["stager"]["terminated"]["reason"] == "Error"


def test_a_missing_program_is_a_start_error(head: Head) -> None:
    missing = container("tool", "", command=["/no/such/program"])
    seen = head.run(make_job(missing, container("stager", "exit 0")))
    ended = states(seen)["tool"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
    assert "/no/such/program" in ended["message"]
    assert states(seen)["stager"]["terminated"]["exitCode"] == 0


def test_init_containers_run_in_order_and_before_the_others(head: Head) -> None:
    first = container("first", "sleep 0.2; echo first >>order")
    second = container("second", "echo second >>order")
    seen = head.run(make_job(container("tool", "cat order"), init=(first, second)))
    assert head.log("tool.stdout") == "first\nsecond\n"
    assert set(states(seen, "initContainerStatuses")) == {"first", "second"}


def test_after_a_failed_init_container_nothing_else_starts(head: Head) -> None:
    init = (container("fetch", "exit 21"), container("second", "exit 0"))
    seen = head.run(make_job(container("tool", "echo ran"), init=init))
    assert seen.pods[0]["status"]["phase"] == "Failed"
    assert states(seen, "initContainerStatuses")["fetch"]["terminated"]["exitCode"] == 21
    assert "waiting" in states(seen, "initContainerStatuses")["second"]
    assert "waiting" in states(seen)["tool"]
    assert head.log("tool.stdout") == ""


def test_containers_share_volumes_by_their_sub_paths(head: Head) -> None:
    mounts = [
        {"name": "work", "mountPath": "/s3runner/all"},
        {"name": "work", "mountPath": "/s3runner/deep/er", "subPath": "roots/0"},
    ]
    fetch = container("fetch", "echo a >/s3runner/work/a; echo b >/s3runner/control/b")
    command = ["/bin/sh", "-c", 'cat "$0/work/a"; echo c >"$1/c"; ls "$0/roots/0"']
    tool = container(
        "tool",
        "",
        command=[*command, "/s3runner/all", "/s3runner/deep/er"],
        volumeMounts=mounts,
        workingDir="/s3runner/all",
    )
    if head.cluster.sandbox != "bubblewrap":  # there only whole words are rewritten
        paths = [
            {"name": "W", "value": "/s3runner/work"},
            {"name": "C", "value": "/s3runner/control"},
        ]
        fetch = container("fetch", 'echo a >"$W/a"; echo b >"$C/b"', env=paths)
    seen = head.run(make_job(tool, init=(fetch,)))
    assert condition_reason(seen)[0] == "Complete", head.log("*.stderr")
    assert head.log("tool.stdout") == "a\nc\n"


def test_a_read_only_mount_cannot_be_written(boxed: Head) -> None:
    mounts = [{"name": "work", "mountPath": "/s3runner/work", "readOnly": True}]
    seen = boxed.run(make_job(container("tool", "touch x", volumeMounts=mounts)))
    assert states(seen)["tool"]["terminated"]["exitCode"] != 0
    assert "Read-only file system" in boxed.log("tool.stderr")


def test_the_environment_is_the_containers_and_nothing_else(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEAD_SECRET", "x")
    env = [
        {"name": "UID_OF_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        {"name": "NAME", "value": "a"},
        {"name": "BOTH", "value": "$(NAME)-$(LATER)-$$(NAME)-$(UID_OF_POD)"},
        {"name": "LATER", "value": "b"},
        {"name": "CONTROL", "value": "/s3runner/control"},
    ]
    tool = container("tool", "", env=env, command=["env"], args=["--", "ARG=$(NAME)$(NOPE)", "env"])
    seen = head.run(make_job(tool))
    printed = dict(line.split("=", 1) for line in head.log("tool.stdout").splitlines())
    uid = seen.pods[0]["metadata"]["uid"]
    control = printed.pop("CONTROL")
    assert control.endswith("/control")
    assert (control == "/s3runner/control") == (head.cluster.sandbox == "bubblewrap")
    assert printed.pop("S3RUNNER_SHIM", None) == (
        "no-pidns" if head.cluster.sandbox == "none" else None
    )
    printed.pop("PWD", None)
    assert printed == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/",
        "UID_OF_POD": uid,
        "NAME": "a",
        "BOTH": f"a-$(LATER)-$(NAME)-{uid}",
        "LATER": "b",
        "ARG": "a$(NOPE)",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$(A)", "$$(A)"),
        ("$(B)", "$(B)"),
        ("$A $ $(A", "$A $ $(A"),
        ("$(A)$(A)", "11"),
    ],
)
def test_references_expand_as_in_kubernetes(text: str, expected: str) -> None:
    assert expand(text, {"A": "1"}) == expected


def test_without_mounts_the_longest_mounted_path_is_rewritten() -> None:
    mounts = (Mount("/s/work", "/host/w"), Mount("/s/work/in", "/host/i"))
    plan = Plan(("/s/work/in/x", "/s/workshop", "a/s/work"), {"W": "/s/work"}, "/s/work/y", mounts)
    assert relocate(plan) == Plan(
        ("/host/i/x", "/s/workshop", "a/s/work"), {"W": "/host/w"}, "/host/w/y", ()
    )


def test_in_bubblewrap_a_pod_sees_nothing_of_the_heads_directories(
    boxed: Head, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("x")
    script = f"cat {tmp_path}/secret; ls /home /root; ls /s3runner; ls /tmp"
    seen = boxed.run(make_job(container("tool", script)))
    assert boxed.log("tool.stdout") == "control\nwork\n"
    assert "secret: No such file" in boxed.log("tool.stderr")
    assert states(seen)["tool"]["terminated"]["exitCode"] == 0


def test_in_bubblewrap_a_read_only_directory_is_shown_and_cannot_be_changed(
    make_head: Callable[..., Head], tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "genome").write_text("ACGT\n")
    head = make_head("bubblewrap", shared)
    head.run(make_job(container("tool", f"cat {shared}/genome; touch {shared}/new")))
    assert head.log("tool.stdout") == "ACGT\n"
    assert "Read-only" in head.log("tool.stderr")
    assert [path.name for path in shared.iterdir()] == ["genome"]


def test_in_bubblewrap_absolute_paths_are_the_same_as_on_the_head(boxed: Head) -> None:
    mounts = [{"name": "work", "mountPath": "/galaxy/jobs/7", "subPath": "roots/0"}]
    fetch = container("fetch", "echo here >/galaxy/jobs/7/f", volumeMounts=mounts, workingDir="/")
    tool = container("tool", "cat /galaxy/jobs/7/f", volumeMounts=mounts, workingDir="/")
    boxed.run(make_job(tool, init=(fetch,)))
    assert boxed.log("tool.stdout") == "here\n"


@pytest.mark.parametrize("sandbox", ["unshare", "none"])
def test_without_bubblewrap_absolute_paths_are_refused(
    sandbox: str, make_head: Callable[..., Head]
) -> None:
    head = make_head(sandbox)
    mounts = [{"name": "work", "mountPath": "/galaxy/jobs/7"}]
    with pytest.raises(ClusterRefusedError, match="need bubblewrap") as caught:
        head.cluster.submit(make_job(container("tool", "", volumeMounts=mounts)))
    assert "install bubblewrap" in caught.value.hint
    assert head.observe().job is None


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"volumes": [{"name": "work", "hostPath": {"path": "/"}}]}, id="volume kind"),
        pytest.param({"restartPolicy": "OnFailure"}, id="restart policy"),
        pytest.param(
            {
                "containers": [
                    {"name": "t", "volumeMounts": [{"mountPath": "/a", "subPath": "../b"}]}
                ]
            },
            id="sub-path that leads out",
        ),
    ],
)
def test_a_pod_that_cannot_be_run_as_meant_is_refused(boxed: Head, change: dict[str, Any]) -> None:
    job = make_job(container("tool", ""))
    job["spec"]["template"]["spec"].update(change)
    with pytest.raises(ClusterRefusedError):
        boxed.cluster.submit(job)


def test_a_name_that_leads_out_of_the_state_directory_is_refused(boxed: Head) -> None:
    job = make_job(container("tool", ""))
    job["metadata"]["name"] = "../job"
    with pytest.raises(ClusterRefusedError):
        boxed.cluster.submit(job)


def test_worker_containers_have_our_code_and_the_secrets(head: Head) -> None:
    program = (
        "import os, sys, obstore, s3runner.errors;"
        "keys = os.environ['KEYS'];"
        "print(open(keys).read(), oct(os.stat(keys).st_mode & 0o777), sys.flags.utf8_mode)"
    )
    command = [PYTHON, "-S", "-s", "-c", program]
    worker = container("stager", "", image=WORKER, command=command)
    seen = head.run(make_job(worker))
    assert condition_reason(seen)[0] == "Complete", head.log("stager.stderr")
    assert head.log("stager.stdout") == "very secret 0o600 1\n"


def test_other_containers_have_neither(boxed: Head) -> None:
    tool = container("tool", "echo $KEYS; ls /s3runner/secrets /s3runner/image; ls -d " + PYTHON)
    boxed.run(make_job(tool))
    shown = boxed.log("tool.stdout")
    assert shown in ("\n", f"\n{PYTHON}\n") if PYTHON.startswith("/usr/") else shown == "\n"


def test_secrets_and_volumes_are_gone_when_the_job_has_ended(head: Head) -> None:
    hard = "mkdir -p shut/in; touch shut/in/f; chmod 0 shut/in shut; mkdir -p $(seq -s/ 900)"
    head.run(make_job(container("tool", hard)))
    wait_until(lambda: not (head.directory / "secrets").exists())
    assert not any((head.directory / "pods").iterdir())


def test_a_log_is_kept_up_to_one_mebibyte(boxed: Head) -> None:
    seen = boxed.run(make_job(container("tool", "head -c 3000000 /dev/zero")))
    assert states(seen)["tool"]["terminated"]["exitCode"] == 0
    assert len(boxed.log("tool.stdout")) == 1024 * 1024


def test_deleting_a_job_sends_term_first(head: Head) -> None:
    script = "trap 'echo cleaned up; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    head.cluster.submit(make_job(container("tool", script), grace_s=20))
    wait_until(lambda: head.log("tool.stdout") == "ready\n")
    log = next(head.directory.glob("logs/*/tool.stdout")).open()
    head.cluster.delete("job-g1")
    head.wait_for(lambda seen: seen.job is None)
    with log:
        assert log.read() == "ready\ncleaned up\n"
    wait_until(lambda: not head.kept())


def test_after_the_grace_a_pod_is_killed(head: Head) -> None:
    marker = f"9{time.time_ns()}"
    script = f"trap '' TERM; sleep {marker} & echo ready; while :; do sleep 0.05; done"
    head.cluster.submit(make_job(container("tool", script), grace_s=1))
    wait_until(lambda: head.log("tool.stdout") == "ready\n")
    assert living(f"sleep {marker}")
    head.cluster.delete("job-g1")
    shown = head.observe().job
    assert shown is not None
    head.wait_for(lambda seen: seen.job is None)
    assert not living(f"sleep {marker}")


def test_a_job_that_has_ended_can_be_deleted(boxed: Head) -> None:
    boxed.run(make_job(container("tool", "exit 0")))
    wait_until(lambda: not (boxed.directory / "secrets").exists())
    boxed.cluster.delete("job-g1")
    boxed.wait_for(lambda seen: seen.job is None)
    boxed.cluster.delete("job-g1")
    wait_until(lambda: not boxed.kept())


def test_a_job_that_is_deleted_as_it_ends_leaves_nothing_though_nobody_looks(boxed: Head) -> None:
    for _ in range(10):
        boxed.run(make_job(container("tool", "exit 0")))
        boxed.cluster.delete("job-g1")
        wait_until(lambda: not boxed.kept())


@pytest.fixture
def empty_job(tmp_path: Path) -> JobDir:
    """A Job's directory without anything in it, where `Head(tmp_path)` finds it."""
    path = tmp_path / "jobs" / "job-g1"
    path.mkdir(parents=True)
    return JobDir(str(path))


def test_what_is_deleted_after_the_supervisors_last_look_is_removed(empty_job: JobDir) -> None:
    lock = empty_job.take_lock()
    assert lock is not None
    with closing_fd(lock):
        empty_job.ask_deletion()
        let_go(empty_job, lock)
        assert not os.path.exists(empty_job.path)


def test_what_was_not_deleted_stays_when_its_supervisor_leaves(empty_job: JobDir) -> None:
    lock = empty_job.take_lock()
    assert lock is not None
    with closing_fd(lock):
        let_go(empty_job, lock)
        assert not empty_job.is_supervised()
        assert os.path.exists(empty_job.path)


def test_deleting_waits_for_whoever_holds_the_lock_and_cannot_be_told(
    tmp_path: Path, empty_job: JobDir
) -> None:
    lock = empty_job.take_lock()
    assert lock is not None
    deletion = threading.Thread(target=Head(tmp_path).cluster.delete, args=["job-g1"])
    with closing_fd(lock):
        deletion.start()
        wait_until(lambda: empty_job.is_deletion_asked)
    deletion.join()
    assert not os.path.exists(empty_job.path)


def test_who_takes_the_lock_is_not_taken_for_the_one_before(empty_job: JobDir) -> None:
    for _ in range(2):
        lock = empty_job.take_lock()
        assert lock is not None
        with closing_fd(lock):
            assert empty_job.supervisor_pid() == 0
            empty_job.write_pid(lock)
            assert empty_job.supervisor_pid() == os.getpid()
            assert empty_job.take_lock() is None
            assert empty_job.supervisor_pid() == os.getpid()


def test_a_look_whether_a_supervisor_lives_keeps_nobody_from_the_lock(empty_job: JobDir) -> None:
    taken: list[int | None] = []
    thread = threading.Thread(target=lambda: taken.append(empty_job.take_lock()))
    with open(f"{empty_job.path}/lock", "wb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        thread.start()
        thread.join(0.05)
    thread.join()
    assert taken[0] is not None
    os.close(taken[0])


def test_the_lock_of_a_directory_that_was_made_anew_is_another(empty_job: JobDir) -> None:
    lock = empty_job.take_lock()
    assert lock is not None
    with closing_fd(lock):
        assert empty_job.is_lock(lock)
        shutil.rmtree(empty_job.path)
        assert not empty_job.is_lock(lock)
        os.mkdir(empty_job.path)
        second = empty_job.take_lock()
        assert second is not None
        os.close(second)
        assert not empty_job.is_lock(lock)


def test_a_supervisor_whose_directory_vanished_ends_with_its_pod(head: Head) -> None:
    marker = f"7{time.time_ns()}"
    head.cluster.submit(make_job(container("tool", f"echo run; sleep {marker}")))
    wait_until(lambda: head.log("tool.stdout") == "run\n")
    supervisor = head.supervisor()
    shutil.rmtree(head.directory)
    wait_until(lambda: head.observe().job is None and not os.path.exists(f"/proc/{supervisor}"))
    wait_until(lambda: not living(f"sleep {marker}"))
    assert head.kept() == []


def count_of(command: str) -> int:
    """Return how many processes run a command that this expression finds."""
    found = subprocess.run(["pgrep", "-fc", command], capture_output=True, check=False)
    return int(found.stdout)


def test_what_a_killed_supervisor_ran_is_lost_and_tried_again(head: Head) -> None:
    marker = f"8{time.time_ns()}"
    job = make_job(container("tool", f"echo run; sleep {marker}"), backoffLimit=1)
    head.cluster.submit(job)
    wait_until(lambda: head.log("tool.stdout") == "run\n")
    os.kill(head.supervisor(), signal.SIGKILL)
    seen = head.wait_for(lambda seen: seen.pods and is_terminal(seen.pods[0]))
    lost = seen.pods[0]["status"]
    assert lost["phase"] == "Failed"
    reasons = {c["type"]: c.get("reason") for c in lost["conditions"]}
    assert reasons["DisruptionTarget"] == "DeletionByPodGC"
    wait_until(lambda: head.log("tool.stdout") == "run\nrun\n")
    seen = head.observe()
    assert seen.job is not None
    assert (seen.job["status"]["failed"], seen.job["status"]["active"]) == (1, 1)
    # the shell has spoken, and starts the sleep; a second one would stay
    wait_until(lambda: count_of(f"^sleep {marker}") == 1)
    os.kill(head.supervisor(), signal.SIGKILL)
    assert condition_reason(head.finish()) == ("Failed", "BackoffLimitExceeded")
    wait_until(lambda: not living(f"sleep {marker}"))


def test_a_supervisor_that_is_told_to_end_disrupts_its_pod_and_another_goes_on(head: Head) -> None:
    script = "trap 'exit 75' TERM; echo run; while :; do sleep 0.05; done"
    head.cluster.submit(make_job(container("tool", script), backoffLimit=1))
    wait_until(lambda: head.log("tool.stdout") == "run\n")
    os.kill(head.supervisor(), signal.SIGTERM)
    seen = head.wait_for(lambda seen: len(seen.pods) == 2)
    assert states(seen, pod=0)["tool"]["terminated"]["exitCode"] == 75
    reasons = {c["type"]: c.get("reason") for c in seen.pods[0]["status"]["conditions"]}
    assert reasons["DisruptionTarget"] == "TerminationByKubelet"


def test_a_supervisor_that_never_stays_up_fails_its_job(boxed: Head) -> None:
    boxed.cluster.submit(make_job(container("tool", "sleep 60"), backoffLimit=99))
    wait_until(lambda: boxed.observe().pods)
    os.kill(boxed.supervisor(), signal.SIGKILL)
    (boxed.directory / "node.json").write_text("{}")
    assert condition_reason(boxed.finish()) == ("Failed", "SupervisorFailed")


def test_a_failed_pod_is_replaced_up_to_the_limit(boxed: Head) -> None:
    seen = boxed.run(make_job(container("tool", "echo run; exit 75"), backoffLimit=2))
    assert condition_reason(seen) == ("Failed", "BackoffLimitExceeded")
    assert boxed.log("tool.stdout") == "run\n" * 3
    assert len({pod["metadata"]["uid"] for pod in seen.pods}) == 3


def test_a_fatal_code_of_the_failure_policy_ends_the_job_at_once(head: Head) -> None:
    rule = {
        "action": "FailJob",
        "onExitCodes": {"containerName": "fetch", "operator": "In", "values": [21]},
    }
    job = make_job(
        container("tool", "exit 0"),
        init=(container("fetch", "exit 21"),),
        backoffLimit=5,
        podFailurePolicy={"rules": [rule]},
    )
    seen = head.run(job)
    assert condition_reason(seen) == ("Failed", "PodFailurePolicy")
    assert len(seen.pods) == 1


def test_the_deadline_ends_the_pod_and_the_job(head: Head) -> None:
    tool = container("tool", "trap '' TERM; sleep 60; sleep 60")
    seen = head.run(make_job(tool, activeDeadlineSeconds=1, grace_s=1))
    assert condition_reason(seen) == ("Failed", "DeadlineExceeded")
    assert seen.pods[0]["status"]["phase"] == "Failed"
    assert states(seen)["tool"]["terminated"]["exitCode"] == 137


FILL = "head -c 8388608 /dev/urandom >fill; echo full; "


def over_limit(tool: dict[str, Any], *others: dict[str, Any], **volume: str) -> dict[str, Any]:
    """Return a Job that has three tries, and a `work` volume like this."""
    job = make_job(tool, *others, backoffLimit=2)
    job["spec"]["template"]["spec"]["volumes"][1]["emptyDir"] = volume
    return job


def test_a_volume_over_its_size_limit_evicts_the_pod_as_a_kubelet_does(head: Head) -> None:
    """It is not deleted, nothing disrupted it, and its containers had TERM and a second."""
    tool = container("tool", f"trap '' TERM; {FILL} while :; do sleep 0.05; done")
    stager = container("stager", "trap 'exit 75' TERM; while :; do sleep 0.05; done")
    head.cluster.submit(over_limit(tool, stager, sizeLimit="1Mi"))

    seen = head.wait_for(lambda seen: seen.pods and is_terminal(seen.pods[0]))

    pod = seen.pods[0]
    assert (pod["status"]["phase"], pod["status"]["reason"]) == ("Failed", "Evicted")
    words = 'Usage of EmptyDir volume "work" exceeds the limit "1Mi". '
    assert pod["status"]["message"] == words
    assert "deletionTimestamp" not in pod["metadata"]
    conditions = {each["type"]: each["status"] for each in pod["status"]["conditions"]}
    assert "DisruptionTarget" not in conditions
    assert conditions["Ready"] == "False"
    ended = {name: state["terminated"] for name, state in states(seen, pod=0).items()}
    assert (ended["tool"]["exitCode"], ended["tool"]["reason"]) == (137, "Error")
    assert (ended["stager"]["exitCode"], ended["stager"]["reason"]) == (75, "Error")
    assert patience_of(Observation(seen.job, (pod,))) is Patience.NONE


def test_a_pod_over_the_limit_of_its_containers_is_evicted_also_while_it_initialises(
    boxed: Head,
) -> None:
    limits = {"limits": {"ephemeral-storage": "1Mi"}}
    fetch = container("fetch", f"{FILL} sleep 60")
    job = make_job(container("tool", "echo ran", resources=limits), init=(fetch,))

    seen = boxed.run(job)

    status = seen.pods[0]["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
    assert "exceeds the total limit of containers 1Mi" in status["message"]
    assert boxed.log("tool.stdout") == ""
    assert "waiting" in states(seen)["tool"]


def test_a_pod_within_its_limits_is_left_alone(boxed: Head) -> None:
    """It lives through several looks, and what it deleted counts no more."""
    limits = {"limits": {"ephemeral-storage": "16Mi"}}
    tool = container("tool", f"{FILL} sleep 2.5; rm fill; {FILL}", resources=limits)
    seen = boxed.run(over_limit(tool, sizeLimit="16Mi"))
    assert condition_reason(seen)[0] == "Complete"
    assert "reason" not in seen.pods[0]["status"]


def test_the_official_models_know_every_field_of_an_evicted_pod(boxed: Head) -> None:
    """What reads its status reads Kubernetes' too."""
    import kubernetes  # noqa: PLC0415  # slow, and nothing else here needs it

    seen = boxed.run(over_limit(container("tool", f"{FILL} sleep 60"), sizeLimit="1Mi"))
    client: Any = kubernetes.client.ApiClient()
    for kind, shown in (("V1Pod", seen.pods[0]), ("V1Job", seen.job)):
        model = client._ApiClient__deserialize(shown, kind)
        kept = json.dumps(client.sanitize_for_serialization(model)).replace("+00:00", "Z")
        assert json.loads(kept) == shown


def test_the_same_job_is_adopted_and_another_one_refused(boxed: Head) -> None:
    uid = boxed.cluster.submit(make_job(container("tool", "sleep 60")))
    assert boxed.cluster.submit(make_job(container("tool", "sleep 60"))) == uid
    with pytest.raises(ClusterRefusedError, match="another spec"):
        boxed.cluster.submit(make_job(container("tool", "sleep 60"), digest="sha256:2"))
    job = boxed.observe().job
    assert job is not None
    assert job["metadata"]["uid"] == uid


def test_a_job_submitted_by_many_at_once_runs_once(boxed: Head) -> None:
    uids: list[str] = []
    job = make_job(container("tool", "echo run; sleep 0.2"))
    threads = [
        threading.Thread(target=lambda: uids.append(Head(boxed.state_dir).cluster.submit(job)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    boxed.finish()
    assert len(uids) == 8
    assert len(set(uids)) == 1
    assert boxed.log("tool.stdout") == "run\n"
    assert [path.name for path in boxed.state_dir.iterdir()] == ["jobs"]


def test_a_job_goes_on_after_the_head_has_gone(head: Head) -> None:
    job = json.dumps(make_job(container("tool", "sleep 0.3; echo done")))
    program = (
        "import json, sys; from pathlib import Path;"
        "from s3runner.cluster.local.adapter import LocalCluster;"
        "LocalCluster(Path(sys.argv[1]), worker_image='w', worker_secret_files={},"
        " worker_env={}, read_only=[]).submit(json.loads(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", program, str(head.state_dir), job], check=True)
    assert condition_reason(head.finish())[0] == "Complete"
    assert head.log("tool.stdout") == "done\n"


def test_waiting_ends_with_a_change_or_with_the_time(boxed: Head) -> None:
    assert boxed.cluster.observe(["job-g1"]) == {"job-g1": Observation(None)}
    began = time.monotonic()
    boxed.cluster.wait(["job-g1"], 0.2)
    assert time.monotonic() - began >= 0.2
    boxed.cluster.submit(make_job(container("tool", "exit 0")))
    boxed.cluster.wait(["job-g1"], DEADLINE_S)
    assert time.monotonic() - began < DEADLINE_S


def test_two_clusters_differ_by_their_directories(tmp_path: Path) -> None:
    first, second = Head(tmp_path / "a"), Head(tmp_path / "b")
    assert first.cluster.identity["kind"] == "local"
    assert first.cluster.identity != second.cluster.identity
    assert first.cluster.identity == Head(tmp_path / "a").cluster.identity


def test_the_supervisor_needs_no_installed_package(tmp_path: Path) -> None:
    program = (
        "import sys; import s3runner.cluster.local.supervisor;"
        "print(sorted({name.split('.')[0] for name in sys.modules} & set(sys.argv[1:])))"
    )
    heavy = ["pathlib", "logging", "dataclasses", "shutil", "pydantic", "obstore", "yaml", "boto3"]
    done = subprocess.run(
        [PYTHON, "-S", "-s", "-c", program, *heavy],
        env={"PYTHONPATH": str(REPOSITORY)},
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"[]\n"


def test_the_shim_tells_the_stager_how_the_tool_ended(make_head: Callable[..., Head]) -> None:
    scripts = REPOSITORY / "job_scripts"
    fetch = (
        f"cp {scripts}/tool_shim.sh $S3RUNNER_CONTROL/; cd $S3RUNNER_CONTROL; mkfifo up down;"
        "echo 'setsid sleep 60 & pwd >$S3RUNNER_CONTROL/pwd; exit 3' >command"
    )
    stager = "cd $S3RUNNER_CONTROL; exec 7<>down; cat up; cat exit_code pwd"
    env = [
        {"name": "S3RUNNER_CONTROL", "value": "/s3runner/control"},
        {"name": "S3RUNNER_WORK", "value": "/s3runner/work"},
    ]
    for sandbox in PROGRAMS:
        head = make_head(sandbox, scripts)
        command = ["/bin/sh", "/s3runner/control/tool_shim.sh"]
        tool = container("tool", "", command=command, env=env)
        job = make_job(
            tool,
            container("stager", stager, env=env),
            init=(container("fetch", fetch, env=env),),
        )
        seen = head.run(job)
        assert condition_reason(seen)[0] == "Complete", head.log("*.stderr")
        said = head.log("stager.stdout").splitlines()
        assert said[:2] == ["started", "exit 3 - -"] or said[1].startswith("exit 3 ")
        assert said[1] == f"exit {said[2]}"
        assert said[3].endswith("/work")
        head.cluster.delete("job-g1")
        head.wait_for(lambda seen: seen.job is None)


def test_a_pod_runs_without_a_job_around_it_and_can_be_evicted(tmp_path: Path) -> None:
    require_program("bwrap")
    node = Node(choose_sandbox(), WORKER, PYTHON, (), {}, {}, str(tmp_path / "none"))
    script = "trap 'exit 75' TERM; echo ready; while :; do sleep 0.05; done"
    job = make_job(container("tool", script))
    job["metadata"]["uid"] = "the-job"
    pod = pod_of(job, "the-pod", "abcde", time.time())
    phases: list[str] = []
    run = PodRun(
        pod,
        node,
        str(tmp_path / "home"),
        str(tmp_path / "logs"),
        lambda shown: phases.append(shown["status"]["phase"]),
    )
    log = tmp_path / "logs" / "tool.stdout"

    def evict() -> None:
        wait_until(lambda: log.exists() and log.read_text() == "ready\n")
        run.stop(10, disruption="EvictionByEvictionAPI")

    thread = threading.Thread(target=evict)
    thread.start()
    ended = run.run()
    thread.join()
    assert phases[0] == "Pending"
    assert "Running" in phases
    assert phases[-1] == "Failed"
    assert "deletionTimestamp" in ended["metadata"]
    assert states(Observation(None, (ended,)))["tool"]["terminated"]["exitCode"] == 75
    assert not (tmp_path / "home").exists()
