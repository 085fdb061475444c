"""What our jobs cost Galaxy, the cluster's API and the network: counts and ratios, no times.

Every step is noted by the very runner, in a real Galaxy; `bench/galaxy_overhead.py` has the times,
and Galaxy's own runner beside ours.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator

import pytest
from conftest import S3Server
from galaxy_scene import Scene, open_scene
from galaxy_server import ADMIN, GalaxyUser, hdas, local, require_galaxy
from kube_api.hurdles import NO_NODE
from waiting import wait_until

SMALL, SMALL_BYTES, LARGE_BYTES = 29, 2_000, 4_000_000
ROUNDS = 3
PASSES, WINDOWS = 10, 20
OF_GALAXY = ("prepare", "script", "collect")
"""What Galaxy's own methods do in a job's two steps, whichever the runner; but for metadata."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, moto_server: S3Server) -> Iterator[Scene]:
    """A Galaxy whose runner notes its steps."""
    require_galaxy()
    access = moto_server.fresh_bucket()
    with open_scene(tmp_path_factory.mktemp("scene"), access) as opened:
        yield opened


class Again:
    """A job of 30 inputs, and what running it again and again has cost."""

    def __init__(self, scene: Scene, user: GalaxyUser) -> None:
        self._scene = scene
        self._user = user
        self.inputs = self._upload()
        relayed = scene.relay.bytes
        self.run()
        self.first_relayed = scene.relay.bytes - relayed
        begun, relayed, calls = len(scene.steps()), scene.relay.bytes, self._calls()
        lookups = self._lookups()
        for _ in range(ROUNDS):
            self.run()
        self.steps = scene.steps()[begun:]
        self.relayed = (scene.relay.bytes - relayed) / ROUNDS
        self.calls = self._calls() - calls
        self.lookups = self._lookups() - lookups

    def run(self) -> None:
        """Run the job to its end, and until its Job is gone."""
        ran = self._user.run("ours", inputs=hdas(self.inputs))
        assert ran.state == "ok", ran.job
        assert ran.text("output") == f"{SMALL * SMALL_BYTES + LARGE_BYTES}\n"
        wait_until(lambda: not self._scene.ours.jobs())

    def cpu_s(self, *steps: str) -> float:
        """Return what these steps took of their threads' CPU."""
        return sum(step.cpu for step in self.steps if step.what in steps)

    def _calls(self) -> Counter[str]:
        return Counter(f"{call.verb} {call.resource}" for call in self._scene.ours.rbac.calls)

    def _lookups(self) -> int:
        """Count how often our runner had Galaxy look for a container: its first resolver."""
        asked = r"tN:S3JobRunner\.work_thread\S* .*resolver \[ExplicitContainerResolver\[\]\]"
        return len(re.findall(asked, self._scene.galaxy.log))

    def _upload(self) -> list[str]:
        directory = self._scene.galaxy.directory / "made"
        directory.mkdir()
        for number, size in enumerate([SMALL_BYTES] * SMALL + [LARGE_BYTES]):
            (directory / f"f{number:02}.data").write_bytes(os.urandom(size))
        return self._user.fetch(*(local(path, "data") for path in sorted(directory.iterdir())))


@pytest.fixture(scope="module")
def user(scene: Scene) -> GalaxyUser:
    return scene.galaxy.user(ADMIN)


@pytest.fixture(scope="module")
def again(scene: Scene, user: GalaxyUser) -> Again:
    return Again(scene, user)


def test_a_job_asks_the_api_to_rehearse_to_make_and_to_delete_it_and_nothing_more(
    again: Again,
) -> None:
    """How it is comes by two watches, which stay open: whether a job runs long does not count."""
    asked = {call: count for call, count in again.calls.items() if not call.startswith("watch ")}
    assert asked == {"create jobs": 2 * ROUNDS, "delete jobs": ROUNDS}


def test_a_container_is_looked_for_once_a_job(again: Again) -> None:
    """A resolver may ask the network, and each look-up is noted in the database."""
    assert again.lookups == ROUNDS


def test_an_input_passes_through_galaxys_process_once(again: Again) -> None:
    """Afterwards only what we write of the job ourselves does, whatever the size of its inputs."""
    assert again.first_relayed > LARGE_BYTES
    assert again.relayed < LARGE_BYTES / 8


def test_we_add_less_to_a_worker_thread_than_galaxy_itself_does_there(again: Again) -> None:
    """Staging, and bringing results back, keep threads of our own busy, not Galaxy's few."""
    added = again.cpu_s("queue", "finish") - again.cpu_s("metadata", *OF_GALAXY)

    assert 0 < added < again.cpu_s(*OF_GALAXY)
    assert {"_submit", "sync_in_place"} <= {step.what for step in again.steps}


@pytest.mark.parametrize("count", [2, 10])
def test_jobs_that_wait_ask_neither_the_api_nor_the_store_for_anything(
    scene: Scene, user: GalaxyUser, again: Again, count: int
) -> None:
    """Galaxy looks at each in every pass of its loop, and the watches know.

    A window of passes counts as soon as one is quiet: until then jobs may still be on their way.
    """
    scene.ours.lack_nodes(NO_NODE)
    scene.start_many(user, "ours_many", again.inputs[0], count - len(scene.ours.jobs()))
    wait_until(lambda: len(scene.ours.jobs()) == count)
    windows: list[tuple[int, int]] = []
    looks = 0

    while len(windows) < WINDOWS and (not windows or any(windows[-1])):
        asked, relayed, begun = _asked(scene), scene.relay.bytes, len(scene.steps())
        scene.await_passes(PASSES, count)
        windows.append((_asked(scene) - asked, scene.relay.bytes - relayed))
        looks = sum(step.what == "step" for step in scene.steps()[begun:])

    assert windows[-1] == (0, 0), windows
    assert looks >= count, "nobody looked"


def _asked(scene: Scene) -> int:
    """Count the calls; a watch is opened again after minutes, however many jobs there are."""
    return scene.ours.rbac.count() - scene.ours.rbac.count("watch")
