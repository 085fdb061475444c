"""`s3runner cancel` on the local cluster: when it returns, nothing of the job comes any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import Desk, Ran
from conftest import S3Access
from gate import Gate, gate_before
from waiting import found_below, wait_until

from s3runner import wiring
from s3runner.cluster.job_object import job_object
from s3runner.cluster.outcome import is_over
from s3runner.runner.creation import newest_generation
from s3runner.settings import load_settings

GRACE_S = 3
TALKS = "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.1; done"


@dataclass(frozen=True)
class Scene:
    """A desk whose pods reach the store through a gate."""

    desk: Desk
    gate: Gate

    def submit(self, **job: object) -> str:
        ran = self.desk.run("submit", self.desk.write_job(**job))
        assert ran.code == 0, ran.stderr
        return ran.stdout.strip()

    def listing(self, job_id: str) -> list[tuple[str, int, str]]:
        """Return all that lies below the job's prefix."""
        prefix = f"{self.desk.access.config.prefix}/jobs/{job_id}/"
        found = self.desk.store.list(prefix)
        return sorted((item.key, item.size, item.etag) for item in found)

    def stream(self, name: str = "stdout") -> bytes:
        """Return what the one tool that runs has written so far."""
        found = found_below(self.desk.directory / "home", name)
        streams = [path for path in found if path.parent.name == "control"]
        return streams[0].read_bytes() if streams else b""

    def logs(self, job_id: str) -> bytes:
        ran = self.desk.run("logs", job_id)
        assert ran.code == 0, ran.stderr
        return ran.stdout.encode()


@pytest.fixture
def scene(tmp_path: Path, moto_access: S3Access) -> Iterator[Scene]:
    endpoint = moto_access.config.endpoint
    assert endpoint is not None
    with gate_before(endpoint) as gate:
        desk = Desk(
            tmp_path,
            moto_access,
            store={"pod_endpoint": gate.address},
            destinations={"default": {"cluster": "local", "grace": GRACE_S, "max_active": 1}},
        )
        yield Scene(desk, gate)


def processes_of(job_id: str) -> list[str]:
    """Return the command lines of all processes of a job's containers: their environment has it."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                if job_id.encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_bytes().decode())
            except OSError:
                continue
    return found


def while_fetching(scene: Scene) -> str:
    (scene.desk.directory / "in").write_text("x")
    scene.gate.hold(lambda request: request.startswith("GET") and "/blobs/" in request)
    job_id = scene.submit(name="f", command="cat in", inputs={"in": "./in"})
    assert scene.gate.held.wait(60)
    return job_id


def while_running(scene: Scene) -> str:
    job_id = scene.submit(name="r", command=TALKS)
    wait_until(lambda: scene.stream().count(b"\n") > 3)
    return job_id


def while_running_deaf(scene: Scene) -> str:
    """Start a tool that does not end for TERM: the pod goes by KILL, its stager with it."""
    job_id = scene.submit(name="d", command=f"trap '' TERM; {TALKS}")
    wait_until(lambda: scene.stream().count(b"\n") > 3)
    return job_id


def while_staging_out(scene: Scene) -> str:
    scene.gate.hold(lambda request: request.startswith("PUT") and "/out/" in request)
    job_id = scene.submit(name="s", command="echo said; echo 1 > o", outputs=["o"])
    assert scene.gate.held.wait(60)
    return job_id


def cancelled(scene: Scene, job_id: str) -> Ran:
    ran = scene.desk.run("cancel", job_id, "--json")
    assert ran.code == 0, ran.stderr
    assert ran.json["outcome"] == "cancelled"
    return ran


@pytest.mark.parametrize(
    "reach", [while_fetching, while_running, while_running_deaf, while_staging_out]
)
def test_nothing_comes_after_cancel_has_returned(
    scene: Scene, reach: Callable[[Scene], str]
) -> None:
    job_id = reach(scene)
    written = scene.stream()

    cancelled(scene, job_id)

    left, listed, returned_s = processes_of(job_id), scene.listing(job_id), time.monotonic()
    scene.gate.open()
    assert left == []
    assert scene.logs(job_id).startswith(written)
    committed = scene.desk.run("wait", job_id, "--json").json
    assert (committed["outcome"], committed["attempts"]) == ("cancelled", 1)
    # only time can show that nothing comes
    threading.Event().wait(3 * GRACE_S - (time.monotonic() - returned_s))
    assert scene.listing(job_id) == listed
    assert not [key for key, _, _ in listed if key.endswith("/result.json")]


def test_a_job_that_waits_for_room_is_cancelled_and_never_runs(scene: Scene) -> None:
    first = while_running(scene)
    second = scene.submit(name="second", command="true")

    cancelled(scene, second)

    listed = scene.listing(second)
    cancelled(scene, first)
    third = scene.submit(name="third", command="true")
    assert scene.desk.run("wait", third).code == 0
    assert scene.listing(second) == listed
    names = sorted(key.rpartition("/")[2] for key, _, _ in listed)
    assert names == ["1.json", "commit.json", "spec.json"]


def test_a_pod_that_comes_late_finds_the_commit_and_stores_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head that had recorded the generation makes its Job after the cancel has returned."""
    first = while_running(scene)
    late = scene.submit(name="late", command="echo 1 > o", outputs=["o"])
    cancelled(scene, late)
    cancelled(scene, first)
    listed = scene.listing(late)
    for name, value in scene.desk.environment.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(scene.desk.directory / "s3runner.yml")
    head = wiring.build(settings, None, scene.desk.environment).head
    spec, _ = head.read_spec(late)
    record = newest_generation(head, late)
    assert record is not None

    head.cluster.submit(job_object(spec, record, head.pod_config))

    name = record.job_name
    wait_until(lambda: is_over(head.cluster.observe([name])[name]))
    seen = head.cluster.observe([name])[name]
    assert [pod["status"]["phase"] for pod in seen.pods] == ["Succeeded"]
    head.cluster.delete(name)
    assert scene.listing(late) == listed


def test_cancel_says_what_it_waits_for(scene: Scene) -> None:
    job_id = while_running_deaf(scene)

    ran = cancelled(scene, job_id)

    said = ran.stderr.splitlines()
    assert said[0] == f"s3runner: job {job_id} cancelled"
    assert said[1:] == [f"s3runner: waiting for its pods to end, {GRACE_S + 30} s at most"]
