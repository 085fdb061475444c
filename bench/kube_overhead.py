"""What does s3runner add to a short job on Kubernetes? Against a bare Job on the same cluster.

Usage: python bench/kube_overhead.py [--rounds 10]; the variables of `make test-cluster` name the
cluster, the images and the store. In each round, one after another: a bare Job that runs `true`,
from its creation until a watch shows it Complete; one with an init and two containers, which is
what any pod like ours costs; `s3runner run` of a job with 30 small new files and `true`; and the
same in process, from submit to the end of sync. Prints the medians, what s3runner adds, where the
time goes and what the API is asked; exits 1 when more than the target is added, 2 when a variable
is missing. What it makes has names and a prefix of its own and is removed at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from s3runner.cluster.job_rules import epoch_s
from s3runner.cluster.kubernetes.adapter import KubernetesCluster
from s3runner.cluster.kubernetes.calls import Call, Resource
from s3runner.cluster.kubernetes.transport import Connection, Place
from s3runner.cluster.outcome import finished_reason, newest_pod
from s3runner.cluster.pod_end import containers_of
from s3runner.cluster.protocol import Cluster, JobObject
from s3runner.jobfile import load_job
from s3runner.model import Outcome
from s3runner.runner.report import PHASES, JobEnd, Silence
from s3runner.runner.runner import Runner
from s3runner.settings import load_settings
from s3runner.wiring import build

TARGET_S = 2.5
PREFIX = "S3RUNNER_TEST_"
NEEDED = (
    *("S3RUNNER_TEST_KUBECONFIG", "S3RUNNER_TEST_WORKER_IMAGE", "S3RUNNER_TEST_TOOL_IMAGE"),
    *("S3RUNNER_TEST_S3_ENDPOINT", "S3RUNNER_TEST_S3_POD_ENDPOINT", "S3RUNNER_TEST_BUCKET"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
)
FILES = 30
PATIENCE_S = 300.0
SECRETS = Resource("", "secrets")
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@dataclass(frozen=True)
class Life:
    """A job in process: its end, what its steps took, and the moments of its pod."""

    end: JobEnd
    times: Mapping[str, float]
    moments: Mapping[str, float]


@dataclass(frozen=True)
class Scene:
    """The cluster and the store that are measured, and a directory to work in."""

    cluster: KubernetesCluster
    runner: Runner
    directory: Path
    tool_image: str
    lives: list[Life] = field(default_factory=list)


class Watcher(Silence):
    """Keeps a job's pod as it was when the job had ended, right before its Job is deleted."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._name = ""
        self.pod: JobObject | None = None

    def job_id(self, job_id: str) -> None:
        """Know which job it is."""
        self._name = f"{job_id}-g1"

    def state(self, name: str) -> None:
        """Look at the pod: the watches have it, so that costs no call."""
        if name == "ended":
            self.pod = newest_pod(self._cluster.observe([self._name])[self._name])


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if missing:
        print(f"kube_overhead: not set: {' '.join(missing)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="s3runner-bench-") as name, _scene(Path(name)) as scene:
        return _measure(scene, rounds)


@contextlib.contextmanager
def _scene(directory: Path) -> Iterator[Scene]:
    """Make a Secret and a prefix, and remove them."""
    environ = {**os.environ, "HOME": str(directory)}
    # the digest cache and the memory of probes are the bench's own
    os.environ["HOME"] = str(directory)
    name = f"s3runner-bench-{secrets.token_hex(4)}"
    (directory / "s3runner.yml").write_text(yaml.safe_dump(_settings(environ, name)))
    (directory / "job.yml").write_text(yaml.safe_dump(_job(environ)))
    settings = load_settings(directory / "s3runner.yml")
    runner = build(settings, None, environ)
    place = Place(None, _namespace(environ), settings.kubeconfig("default"))
    connection = Connection(place)
    cluster = KubernetesCluster(connection)
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    secret = {"metadata": {"name": name}, "stringData": {key: environ[key] for key in keys}}
    connection.ask(Call("create", SECRETS, name), body=secret)
    try:
        yield Scene(cluster, runner, directory, environ[f"{PREFIX}TOOL_IMAGE"])
    finally:
        connection.ask(Call("delete", SECRETS, name))
        for item in runner.head.store.list(f"{runner.head.config.prefix}/"):
            runner.head.store.delete(item.key)


def _namespace(environ: Mapping[str, str]) -> str:
    return environ.get(f"{PREFIX}NAMESPACE") or "default"


def _settings(environ: Mapping[str, str], secret: str) -> dict[str, Any]:
    endpoint = environ[f"{PREFIX}S3_ENDPOINT"]
    place = {
        "cluster": "kubernetes",
        "kubeconfig": environ[f"{PREFIX}KUBECONFIG"],
        "namespace": _namespace(environ),
        "credentials": {"secret": secret},
        "worker_image": environ[f"{PREFIX}WORKER_IMAGE"],
        "image_pull_policy": "IfNotPresent",
    }
    store = {
        "url": f"s3://{environ[f'{PREFIX}BUCKET']}/{secret}",
        "endpoint": endpoint,
        "pod_endpoint": environ[f"{PREFIX}S3_POD_ENDPOINT"],
        "insecure_http": endpoint.startswith("http:"),
    }
    return {"store": store, "destinations": {"default": place}}


def _job(environ: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": "overhead",
        "image": environ[f"{PREFIX}TOOL_IMAGE"],
        "command": "true",
        "inputs": {"small": "./inputs"},
    }


def _measure(scene: Scene, rounds: int) -> int:
    ways: dict[str, Callable[[], float]] = {
        "bare Job": lambda: _run_bare(scene, inits=0, containers=1),
        "with 1 + 2 containers": lambda: _run_bare(scene, inits=1, containers=2),
        "s3runner run": lambda: _run_command(scene),
        "in process": lambda: _run_in_process(scene),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way, run in ways.items():
            _write_inputs(scene.directory / "inputs")
            seconds[way].append(run())
    # the first round warms the node's images and every cache
    medians = {way: statistics.median(taken[1:]) for way, taken in seconds.items()}
    return _report(scene, medians, rounds)


def _write_inputs(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    for number in range(FILES):
        (directory / f"f{number}").write_bytes(os.urandom(2000))


def _run_bare(scene: Scene, inits: int, containers: int) -> float:
    """Return the seconds from the creation of a Job until it is seen Complete."""
    job = _bare_job(scene.tool_image, inits, containers)
    name = job["metadata"]["name"]
    began = time.perf_counter()
    scene.cluster.submit(job)
    while True:
        seen = scene.cluster.observe([name])[name]
        taken = time.perf_counter() - began
        if seen.job is not None and finished_reason(seen.job) is not None:
            break
        if taken > PATIENCE_S:
            raise TimeoutError(f"Job {name} is not over after {PATIENCE_S:.0f} s: {seen}")
        scene.cluster.wait([name], 5)
    scene.cluster.delete(name)
    return taken


def _bare_job(image: str, inits: int, containers: int) -> JobObject:
    labels = {"app.kubernetes.io/managed-by": "s3runner"}

    def make(count: int, word: str) -> list[dict[str, Any]]:
        command = ["/bin/sh", "-c", "true"]
        resources = {"requests": {"cpu": "10m", "memory": "16Mi"}}
        settings = {"image": image, "imagePullPolicy": "IfNotPresent", "command": command}
        return [
            {
                "name": f"{word}{number}",
                **settings,
                "resources": resources,
                "securityContext": RESTRICTED,
            }
            for number in range(count)
        ]

    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "initContainers": make(inits, "init"),
        "containers": make(containers, "main"),
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"bench-{secrets.token_hex(6)}",
            "labels": labels,
            "annotations": {"s3runner/spec-digest": "bench"},
        },
        "spec": {"backoffLimit": 0, "template": template},
    }


def _run_command(scene: Scene) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "s3runner", "run", "job.yml", "--into", "out", "--overwrite"]
    ran = subprocess.run(
        command,
        cwd=scene.directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    if ran.returncode != 0:
        raise RuntimeError(f"s3runner run exited with {ran.returncode}: {ran.stderr}")
    return time.perf_counter() - began


def _run_in_process(scene: Scene) -> float:
    job = load_job(scene.directory / "job.yml", {})
    watcher = Watcher(scene.runner.head.cluster)
    moments = [time.perf_counter()]
    job_id = scene.runner.submit(job, watcher)
    moments.append(time.perf_counter())
    end = scene.runner.wait(job_id, watcher)
    moments.append(time.perf_counter())
    scene.runner.sync(job_id, scene.directory / "out", watcher, overwrite=True)
    moments.append(time.perf_counter())
    if end.outcome is not Outcome.SUCCEEDED:
        raise RuntimeError(f"job {job_id} ended as {end}")
    steps = zip(("submit", "wait", "sync"), moments, moments[1:], strict=False)
    times = {name: after - before for name, before, after in steps}
    scene.lives.append(Life(end, times, {} if watcher.pod is None else _moments(watcher.pod)))
    return moments[-1] - moments[0]


def _moments(pod: JobObject) -> dict[str, float]:
    """Return when a pod's parts began and ended, in seconds after it was made (whole ones)."""
    made = epoch_s(pod["metadata"]["creationTimestamp"])
    found = {}
    for told in pod["status"].get("conditions") or ():
        if told["type"] == "PodScheduled":
            found["scheduled"] = epoch_s(told["lastTransitionTime"]) - made
    for name, state in containers_of(pod):
        ended = state.get("terminated") or {}
        for word in ("startedAt", "finishedAt"):
            if ended.get(word):
                found[f"{name} {word.removesuffix('At')}"] = epoch_s(ended[word]) - made
    return found


def _report(scene: Scene, medians: dict[str, float], rounds: int) -> int:
    print(f"{rounds} rounds on {scene.cluster.identity.get('server', 'this cluster')}, medians:")
    bare = medians["bare Job"]
    for way, median in medians.items():
        print(f"  {way:<22} {median:6.2f} s   {median - bare:+6.2f} s")
    print(f"target: s3runner run {TARGET_S:+.1f} s at most")
    print("where the time of a job in process goes, medians:")
    lives = scene.lives[1:]
    for name in lives[0].times:
        print(f"  {name:<22} {statistics.median(life.times[name] for life in lives):6.2f} s")
    for name in PHASES:
        phases = [phase for life in lives if (phase := life.end.phases.get(name)) is not None]
        if phases:
            print(f"    {name:<20} {statistics.median(one.seconds for one in phases):6.2f} s")
    print("its pod, by the cluster's clock, which counts whole seconds:")
    for name in lives[-1].moments:
        found = [life.moments[name] for life in lives if name in life.moments]
        print(f"    {name:<20} {statistics.median(found):6.1f} s after it was made")
    calls = scene.runner.head.cluster.calls  # type: ignore[attr-defined]  # it is Kubernetes'
    print(f"calls to the API for the {len(scene.lives)} jobs in process:")
    for (verb, resource), count in sorted(calls.items()):
        print(f"    {verb:<6} {resource:<13} {count:6}")
    return 0 if medians["s3runner run"] - bare <= TARGET_S else 1


if __name__ == "__main__":
    sys.exit(main())
