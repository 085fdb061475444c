"""What does s3runner cost inside Galaxy? Against Galaxy's own Kubernetes runner, in one Galaxy.

Usage: make bench-galaxy; or python bench/galaxy_overhead.py [--rounds 5] [--queued 200] --pykube
DIR, with `PYTHONPATH=tests` in an environment that has Galaxy; DIR is one that has pykube-ng. A
real Galaxy has both runners, each with a Kubernetes API server of its own (the tests'), so that
calls are counted apart; the pods of Galaxy's runner see its directories, as if they were on a
shared file system, ours do not. First the same job by each, again and again: 29 small inputs and
one of 100 MB that are in S3 already. Then so many jobs that no node takes, to see what watching
costs. Prints what a job and a pass of the monitor loop take of Galaxy's threads, calls to the API,
and bytes and files by either way; exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conftest import S3Access
from galaxy_scene import OURS, THEIRS, Scene, Step, open_scene
from galaxy_server import ADMIN, GalaxyUser, hdas, local
from gateway import bench_bucket
from kube_api.cluster import FakeKube
from kube_api.hurdles import NO_NODE
from waiting import wait_until

THREAD_TARGET_S, PASS_TARGET_S = 0.3, 1.0
SMALL, SMALL_BYTES, LARGE_BYTES = 29, 2_000, 100_000_000
PASSES = 10
SLEEP_S = 1
"""Between two passes of the monitor loop: Galaxy's default."""

PATIENCE_S = 1800.0
OF_GALAXY = ("prepare", "script", "collect")
"""What Galaxy's own methods do in a job's two steps, whichever the runner; but for metadata."""

OUR_THREADS = ("_submit", "follow", "step", "sync_in_place")


@dataclass(frozen=True)
class Side:
    """One of the two runners: its tools begin with this name, and its Jobs are on this cluster."""

    tool: str
    runner: str
    kube: FakeKube


class Seconds:
    """What steps have taken, by their names; medians of the jobs, by one clock."""

    def __init__(self, steps: Sequence[Step], clock: str) -> None:
        self._steps = steps
        self._clock = clock

    def __call__(self, *names: str) -> float:
        """Return the median of what a job took in these steps together."""
        taken: defaultdict[str, float] = defaultdict(float)
        for step in self._steps:
            if step.what in names:
                taken[step.job] += getattr(step, self._clock)
        return float(statistics.median(taken.values())) if taken else 0.0

    def total(self, *names: str) -> float:
        """Return what steps that know no job took together."""
        return float(sum(getattr(s, self._clock) for s in self._steps if s.what in names))


@dataclass(frozen=True)
class Run:
    """The same job, run again and again."""

    steps: Sequence[Step]
    rounds: int
    calls: Mapping[str, float]
    relayed: float

    def seconds(self, clock: str) -> Seconds:
        """Return what its steps took by the `wall` or of the threads' `cpu`."""
        return Seconds(self.steps, clock)


@dataclass(frozen=True)
class Watch:
    """What it took to watch jobs that wait, for some passes."""

    passes: Sequence[Step]
    calls: int
    relayed: int
    elapsed_s: float

    def median(self, clock: str) -> float:
        """Return what a pass took."""
        return float(statistics.median(getattr(one, clock) for one in self.passes))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queued", type=int, default=200)
    parser.add_argument("--pykube", type=Path, required=True)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="s3runner-bench-") as name,
        bench_bucket(Path(name)) as bucket,
    ):
        access = S3Access(bucket.config, bucket.credentials)
        sleeps = {"job_runner_monitor_sleep": SLEEP_S, "job_handler_monitor_sleep": 0.2}
        with open_scene(Path(name), access, pykube=given.pykube.resolve(), **sleeps) as scene:
            return _measure(scene, given.rounds, given.queued)


def _measure(scene: Scene, rounds: int, queued: int) -> int:
    if scene.theirs is None:
        raise RuntimeError("Galaxy's own runner is missing")
    user = scene.galaxy.user(ADMIN)
    inputs = _upload(scene, user)
    sides = [Side("ours", OURS, scene.ours), Side("theirs", THEIRS, scene.theirs)]
    runs = [_run_jobs(scene, user, side, inputs, rounds) for side in sides]
    shared = _shared(scene, runs[1])
    watches = [_watch_jobs(scene, user, side, inputs[0], queued) for side in sides]
    print(f"{rounds} rounds, then {queued} jobs that wait; seconds as CPU / wall, medians")
    print(f"{'':<50}{'s3runner':>20}{'Galaxy runner':>20}")
    _print_times(runs, watches, queued)
    _print_counts(runs, watches, queued)
    _print_line("bytes of a job through Galaxy's process", [f"{r.relayed:,.0f}" for r in runs])
    _print_line("files (bytes) of a job on a shared file system", ["0", shared])
    worker_s = _worker_seconds(runs[0], "cpu")
    pass_s = watches[0].median("wall")
    print(f"targets: {THREAD_TARGET_S} s of worker threads' CPU a job, {PASS_TARGET_S} s a pass")
    return 0 if worker_s <= THREAD_TARGET_S and pass_s <= PASS_TARGET_S else 1


def _upload(scene: Scene, user: GalaxyUser) -> list[str]:
    directory = scene.galaxy.directory / "made"
    directory.mkdir()
    for number, size in enumerate([SMALL_BYTES] * SMALL + [LARGE_BYTES]):
        (directory / f"f{number:02}.data").write_bytes(os.urandom(size))
    return user.fetch(*(local(path, "data") for path in sorted(directory.iterdir())))


def _run_jobs(
    scene: Scene, user: GalaxyUser, side: Side, inputs: Sequence[str], rounds: int
) -> Run:
    """Run the same job again and again. The first brings its inputs into S3 and is not counted."""
    _run_job(user, side, inputs)
    begun, relayed = len(scene.steps(side.runner)), scene.relay.bytes
    calls = Counter(side.kube.rbac.calls)
    for _ in range(rounds):
        _run_job(user, side, inputs)
    asked = Counter(side.kube.rbac.calls) - calls
    return Run(
        scene.steps(side.runner)[begun:],
        rounds,
        {f"{call.verb} {call.resource}": count / rounds for call, count in asked.items()},
        (scene.relay.bytes - relayed) / rounds,
    )


def _run_job(user: GalaxyUser, side: Side, inputs: Sequence[str]) -> None:
    ran = user.run(side.tool, inputs=hdas(inputs))
    wanted = f"{SMALL * SMALL_BYTES + LARGE_BYTES}\n"
    if ran.state != "ok" or ran.text("output") != wanted:
        raise RuntimeError(f"{side.tool} ended as {ran.job}")
    wait_until(lambda: not side.kube.jobs(), PATIENCE_S)


def _shared(scene: Scene, run: Run) -> str:
    """Say what a job of Galaxy's runner has on the shared file system: its inputs, its directory.

    What the job script copies to restore itself counts too: it is written there.
    """
    job = next(step.job for step in run.steps if step.what == "queue")
    jobs = scene.galaxy.directory / "data" / "jobs_directory"
    own = [path for path in (jobs / f"{int(job) // 1000:03}" / job).rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in own) + SMALL * SMALL_BYTES + LARGE_BYTES
    return f"{len(own) + SMALL + 1} ({size:,})"


def _watch_jobs(scene: Scene, user: GalaxyUser, side: Side, dataset: str, queued: int) -> Watch:
    side.kube.lack_nodes(NO_NODE)
    scene.start_many(user, f"{side.tool}_many", dataset, queued)
    wait_until(lambda: len(side.kube.jobs()) >= queued, PATIENCE_S)
    scene.await_passes(2, queued, side.runner)
    calls, relayed, began = side.kube.rbac.count(), scene.relay.bytes, time.monotonic()
    passes = scene.await_passes(PASSES, queued, side.runner)
    elapsed_s = time.monotonic() - began
    return Watch(passes, side.kube.rbac.count() - calls, scene.relay.bytes - relayed, elapsed_s)


def _worker_seconds(run: Run, clock: str) -> float:
    """Return what a job takes of Galaxy's worker threads, but for setting its metadata."""
    seconds = run.seconds(clock)
    return seconds("queue", "finish") - seconds("metadata")


def _print_times(runs: Sequence[Run], watches: Sequence[Watch], queued: int) -> None:
    def own(run: Run, clock: str) -> float:
        return _worker_seconds(run, clock) - run.seconds(clock)(*OF_GALAXY)

    def elsewhere(run: Run, clock: str) -> float:
        return run.seconds(clock).total(*OUR_THREADS) / run.rounds

    for title, what in (
        ("Galaxy's worker threads, a job, without metadata", _worker_seconds),
        ("  of which the runner's, not Galaxy's, own", own),
        ("threads of the runner's own, a job", elsewhere),
        ("setting metadata", lambda run, clock: run.seconds(clock)("metadata")),
    ):
        _print_line(title, [f"{what(run, 'cpu'):.3f} / {what(run, 'wall'):.3f}" for run in runs])
    _print_line(
        f"a pass of the monitor loop over {queued} jobs",
        [f"{each.median('cpu'):.3f} / {each.median('wall'):.3f}" for each in watches],
    )


def _print_counts(runs: Sequence[Run], watches: Sequence[Watch], queued: int) -> None:
    _print_line("calls to the API, a job", [f"{sum(run.calls.values()):.1f}" for run in runs])
    for call in sorted({call for run in runs for call in run.calls}):
        _print_line(f"  {call}", [f"{run.calls.get(call, 0):.1f}" for run in runs])
    _print_line(
        f"calls to the API a minute, {queued} jobs waiting",
        [f"{each.calls * 60 / each.elapsed_s:,.0f}" for each in watches],
    )
    _print_line("  a pass", [f"{each.calls / len(each.passes):.0f}" for each in watches])
    _print_line("bytes to and from the store, waiting", [f"{each.relayed:,}" for each in watches])


def _print_line(title: str, cells: Sequence[str]) -> None:
    print(f"{title:<50}" + "".join(f"{cell:>20}" for cell in cells))


if __name__ == "__main__":
    sys.exit(main())
