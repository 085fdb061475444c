"""Where the cluster suite runs: this machine, the tests' API server, and a real cluster.

Each site gives fresh heads on one cluster and one bucket; it stands apart so that a test says what
must be true and not where. The real cluster is there when `S3RUNNER_TEST_KUBECONFIG` is set
(`make test-cluster` says what else it needs).
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from conftest import S3Access, S3Server

from kube_api.cluster import NAMESPACE, WORKER_IMAGE, FakeKube
from s3runner.cluster.local.adapter import LocalCluster
from s3runner.cluster.protocol import Cluster, JobObject, Observation
from s3runner.model import Credentials, Destination, StoreConfig
from s3runner.pod_model import KubernetesPlace, PodCredentials, PodShape
from s3runner.runner.head import Head
from s3runner.runner.runner import Runner
from s3runner.staging.digest_cache import DigestCache
from s3runner.store.retrying import Retry, RetryingStore
from s3runner.wiring import kubernetes_cluster

LOCAL, FAKE, REAL = "local", "fake", "real"
KUBECONFIG = "S3RUNNER_TEST_KUBECONFIG"
SITES = (LOCAL, FAKE, REAL) if os.environ.get(KUBECONFIG) else (LOCAL, FAKE)
WAIT_S = 300.0 if os.environ.get(KUBECONFIG) else 60.0
"""How long anything may take; a real cluster has images to pull."""

_KEYS = {"AWS_ACCESS_KEY_ID": "accesskey", "AWS_SECRET_ACCESS_KEY": "secretkey"}


class Remembered:
    """A cluster that notes the names of its Jobs, so that none stays behind."""

    def __init__(self, inner: Cluster, made: set[str]) -> None:
        self._inner = inner
        self._made = made

    @property
    def identity(self) -> Mapping[str, str]:
        return self._inner.identity

    def caveats(self, job: JobObject) -> Sequence[str]:
        return self._inner.caveats(job)

    def submit(self, job: JobObject) -> str:
        self._made.add(job["metadata"]["name"])
        return self._inner.submit(job)

    def observe(self, names: Collection[str]) -> dict[str, Observation]:
        return self._inner.observe(names)

    def active(self, destination: str) -> Collection[str]:
        return self._inner.active(destination)

    def wait(self, names: Collection[str], timeout_s: float) -> None:
        self._inner.wait(names, timeout_s)

    def delete(self, name: str) -> None:
        self._inner.delete(name)


@dataclass
class Site:
    """One place to run; `new_cluster` gives an adapter as a head that just started has it."""

    kind: str
    access: S3Access
    new_cluster: Callable[[], Cluster]
    pod_endpoint: str | None = None
    worker_image: str = WORKER_IMAGE
    tool_image: str = "tool:1"
    place: KubernetesPlace | None = None
    kube: FakeKube | None = None
    evict: Callable[[JobObject], None] | None = None
    made: set[str] = field(default_factory=set)

    def cluster(self) -> Remembered:
        """Return the cluster of a head that just started."""
        return Remembered(self.new_cluster(), self.made)

    def runner(self, **destination: Any) -> Runner:
        """Return the verbs of a head that just started."""
        config = self.access.config
        pod_config = replace(config, endpoint=self.pod_endpoint or config.endpoint)
        retry = Retry(budget_s=config.retry_budget_s)
        where = Destination(
            worker_image=self.worker_image, grace_s=10, kubernetes=self.place, **destination
        )
        return Runner(
            Head(
                store=RetryingStore(self.access.open(), retry),
                config=config,
                pod_config=pod_config,
                cluster=self.cluster(),
                destination=where,
                cache=DigestCache(None, time.time_ns),
                qualify=lambda: None,
            )
        )

    def await_seen(
        self, cluster: Cluster, name: str, condition: Callable[[Observation], Any]
    ) -> Observation:
        """Observe a Job whenever it changes, until something is so."""
        end_s = time.monotonic() + WAIT_S
        while True:
            seen = cluster.observe([name])[name]
            if condition(seen):
                return seen
            assert time.monotonic() < end_s, f"it never came to that: {seen}"
            cluster.wait([name], 5)

    def clear(self) -> None:
        """Delete every Job that was made, and wait until none has a pod."""
        cluster = self.new_cluster()
        for name in self.made:
            cluster.delete(name)
        for name in self.made:
            self.await_seen(cluster, name, lambda seen: seen.job is None)


@contextmanager
def open_site(kind: str, directory: Path, server: Callable[[], S3Server]) -> Iterator[Site]:
    """Open a site; whatever ran there is gone afterwards."""
    opened = {LOCAL: _local, FAKE: _fake, REAL: _real}[kind]
    with opened(directory, server) as site:
        try:
            yield site
        finally:
            site.clear()


@contextmanager
def _local(directory: Path, server: Callable[[], S3Server]) -> Iterator[Site]:
    access = server().fresh_bucket()

    def new_cluster() -> Cluster:
        secret = "\n".join(
            (
                "[default]",
                f"aws_access_key_id = {access.credentials.access_key}",
                f"aws_secret_access_key = {access.credentials.secret_key}",
                "",
            )
        )
        return LocalCluster(
            directory / "local",
            worker_image=WORKER_IMAGE,
            worker_secret_files={"credentials": secret},
            worker_env={"AWS_SHARED_CREDENTIALS_FILE": "/s3runner/secrets/credentials"},
            read_only=(),
        )

    yield Site(LOCAL, access, new_cluster)


@contextmanager
def _fake(directory: Path, server: Callable[[], S3Server]) -> Iterator[Site]:
    access = server().fresh_bucket()
    with FakeKube(directory / "kube") as kube, _closing_clusters() as opened:
        kube.add_secret("s3", _secret_values(access.environment))
        kubeconfig = str(kube.kubeconfig())

        def new_cluster() -> Cluster:
            return opened(NAMESPACE, kubeconfig)

        place = _place("s3", NAMESPACE)
        site = Site(FAKE, access, new_cluster, place=place, kube=kube, evict=kube.evict)
        yield site
        site.clear()


@contextmanager
def _real(directory: Path, server: Callable[[], S3Server]) -> Iterator[Site]:
    del directory, server
    environ = os.environ
    config = StoreConfig(
        bucket=environ["S3RUNNER_TEST_BUCKET"],
        prefix=f"test-{secrets.token_hex(4)}",
        endpoint=environ["S3RUNNER_TEST_S3_ENDPOINT"],
        insecure_http=any(
            environ[f"S3RUNNER_TEST_S3_{name}"].startswith("http:")
            for name in ("ENDPOINT", "POD_ENDPOINT")
        ),
        retry_budget_s=60.0,
    )
    keys = Credentials(environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"])
    access = S3Access(config, keys)
    namespace = environ.get("S3RUNNER_TEST_NAMESPACE", "default")
    kubeconfig, name = environ[KUBECONFIG], f"s3runner-test-{secrets.token_hex(4)}"
    core = _core_api(kubeconfig)
    secret = {
        "metadata": {"name": name, "labels": {"s3runner/test": name}},
        "stringData": _secret_values(access.environment),
    }
    core.create_namespaced_secret(namespace, secret)

    def evict(pod: JobObject) -> None:
        pod_name = pod["metadata"]["name"]
        body = {"metadata": {"name": pod_name, "namespace": namespace}}
        core.create_namespaced_pod_eviction(pod_name, namespace, body)

    try:
        with _closing_clusters() as opened:
            site = Site(
                REAL,
                access,
                lambda: opened(namespace, kubeconfig),
                place=_place(name, namespace),
                pod_endpoint=environ["S3RUNNER_TEST_S3_POD_ENDPOINT"],
                worker_image=environ["S3RUNNER_TEST_WORKER_IMAGE"],
                tool_image=environ["S3RUNNER_TEST_TOOL_IMAGE"],
                evict=evict,
            )
            yield site
            site.clear()
    finally:
        core.delete_namespaced_secret(name, namespace)
        _empty(access)


@contextmanager
def _closing_clusters() -> Iterator[Callable[[str, str], Cluster]]:
    """Give a function that opens clusters (namespace, kubeconfig), and end their watches."""
    opened: list[Any] = []

    def remember(namespace: str, kubeconfig: str) -> Cluster:
        cluster = kubernetes_cluster(namespace=namespace, kubeconfig=kubeconfig)
        opened.append(cluster)
        return cluster

    try:
        yield remember
    finally:
        threads = [threading.Thread(target=cluster.close) for cluster in opened]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)


def _place(secret: str, namespace: str) -> KubernetesPlace:
    """Return where jobs run, as settings would have it: keys in a Secret, images on the node."""
    credentials = PodCredentials(secret=secret, access_key="accesskey", secret_key="secretkey")  # noqa: S106  # the entry's name
    pod = PodShape(image_pull_policy="IfNotPresent")
    return KubernetesPlace(credentials, namespace=namespace, pod=pod)


def _secret_values(environment: Mapping[str, str]) -> dict[str, str]:
    return {key: environment[name] for name, key in _KEYS.items()}


def _core_api(kubeconfig: str) -> Any:
    from kubernetes import client, config  # noqa: PLC0415  # for a real cluster only

    return client.CoreV1Api(config.new_client_from_config(kubeconfig))


def _empty(access: S3Access) -> None:
    from s3runner.store.control import BucketControl  # noqa: PLC0415  # for a real cluster only

    keys = [item.key for item in access.open().list(f"{access.config.prefix}/")]
    control = BucketControl(access.config, access.credentials)
    for first in range(0, len(keys), 1000):
        control.delete(keys[first : first + 1000])
