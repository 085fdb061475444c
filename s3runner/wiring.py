"""Building the real thing from settings: store, cluster, runner.

The only module that knows every adapter. Slow imports (boto3: most of a second) happen only on the
path that needs them.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from s3runner.cluster.local.adapter import LocalCluster
from s3runner.cluster.protocol import Cluster
from s3runner.model import Credentials, Destination, StoreConfig
from s3runner.runner.head import Head, read_spec
from s3runner.runner.runner import Runner
from s3runner.settings import Settings
from s3runner.staging.digest_cache import DigestCache
from s3runner.staging.expiry import DEFAULT_LIFETIMES, Lifetimes
from s3runner.staging.layout import StoreLayout
from s3runner.store.credentials import credentials_from_environment
from s3runner.store.obstore_store import ObstoreStore
from s3runner.store.probe import ProbeMemory, check_conditional_writes
from s3runner.store.retrying import Retry, RetryingStore

if TYPE_CHECKING:
    from s3runner.runner.gc import Collector

_APP = "s3runner"
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


def build(
    settings: Settings,
    destination_name: str | None,
    environ: Mapping[str, str],
    *,
    api_budget_s: float | None = None,
) -> Runner:
    """Return a runner for one destination. Raises SettingsError; asks nothing of the store yet.

    `api_budget_s` is for how long a call to a Kubernetes API is tried again, where that is not for
    as long as a job is worth.
    """
    destination = settings.destination(destination_name)
    credentials = find_credentials(settings.profile, environ)
    kubeconfig = settings.kubeconfig(destination.name)
    return build_runner(
        settings.store_config(),
        destination,
        _cluster(destination, credentials, kubeconfig, api_budget_s),
        pod_config=settings.pod_store_config(),
        credentials=credentials,
        lifetimes=Lifetimes(settings.blob_ttl_s, settings.job_ttl_s),
    )


def build_for_job(
    settings: Settings,
    job_id: str,
    destination_name: str | None,
    environ: Mapping[str, str],
    *,
    api_budget_s: float | None = None,
) -> Runner:
    """Return a runner for a job's own destination, unless another one is named; see `build`.

    The spec tells its name only: what it is stands in the settings. Where they have none of this
    name the job is looked at from their default. Raises SettingsError, also for an unknown job id.
    """
    names = settings.destination_names
    if destination_name is None and len(names) > 1:
        config = settings.store_config()
        raw = ObstoreStore(config, find_credentials(settings.profile, environ))
        store = RetryingStore(raw, Retry(budget_s=config.retry_budget_s))
        wanted = read_spec(store, config, job_id)[0].destination.name
        destination_name = wanted if wanted in names else None
    return build(settings, destination_name, environ, api_budget_s=api_budget_s)


def build_collector(settings: Settings, environ: Mapping[str, str]) -> Collector:
    """Return what `gc` needs, a store and no place to run. Raises SettingsError."""
    from s3runner.runner.gc import Collector  # noqa: PLC0415  # no other verb needs it
    from s3runner.store.control import BucketControl  # noqa: PLC0415  # boto3 loads slowly

    config, retry = settings.store_config(), Retry(budget_s=settings.store_config().retry_budget_s)
    credentials = find_credentials(settings.profile, environ)
    return Collector(
        RetryingStore(ObstoreStore(config, credentials), retry),
        BucketControl(config, credentials),
        config,
        Lifetimes(settings.blob_ttl_s, settings.job_ttl_s),
        retry,
    )


def build_runner(
    config: StoreConfig,
    destination: Destination,
    cluster: Cluster,
    *,
    pod_config: StoreConfig,
    credentials: Callable[[], Credentials],
    lifetimes: Lifetimes = DEFAULT_LIFETIMES,
) -> Runner:
    """Return a runner from a cluster and plain values, as tests and other programs have them."""
    raw = ObstoreStore(config, credentials)
    retry = Retry(budget_s=config.retry_budget_s)
    layout = StoreLayout(config.prefix)
    memory = ProbeMemory(Path(platformdirs.user_cache_dir(_APP)) / "probes.json")

    def qualify() -> None:
        if not memory.remembers(config):
            check_conditional_writes(
                raw,
                new_key=lambda: layout.probe(str(uuid.uuid4())),
                retry=retry,
            )
            memory.remember(config)

    return Runner(
        Head(
            store=RetryingStore(raw, retry),
            config=config,
            pod_config=pod_config,
            cluster=cluster,
            destination=destination,
            cache=DigestCache(
                Path(platformdirs.user_cache_dir(_APP)) / "digests.sqlite", time.time_ns
            ),
            qualify=qualify,
            lifetimes=lifetimes,
        )
    )


def find_credentials(profile: str | None, environ: Mapping[str, str]) -> Callable[[], Credentials]:
    """Return a source of S3 keys: the environment or the shared file, else boto3's whole chain.

    Raises SettingsError if there are none at all.
    """
    found = credentials_from_environment(environ, profile=profile)
    if found is not None:
        return lambda: found
    from s3runner.store.control import resolve_credentials  # noqa: PLC0415  # boto3 loads slowly

    return resolve_credentials(profile)


def kubernetes_cluster(
    *,
    context: str | None = None,
    namespace: str | None = None,
    kubeconfig: str | None = None,
    budget_s: float | None = None,
) -> Cluster:
    """Return the cluster that a kubeconfig's context names, or the one that this pod runs in.

    None stands for what kubectl would take, and for the adapter's own budget. Asks nothing yet.
    """
    # the client takes half a second to import
    from s3runner.cluster.kubernetes.adapter import KubernetesCluster  # noqa: PLC0415
    from s3runner.cluster.kubernetes.transport import Connection, Place  # noqa: PLC0415

    retry = None if budget_s is None else Retry(budget_s=budget_s)
    return KubernetesCluster(Connection(Place(context, namespace, kubeconfig)), retry=retry)


def _cluster(
    destination: Destination,
    credentials: Callable[[], Credentials],
    kubeconfig: str | None,
    api_budget_s: float | None,
) -> Cluster:
    place = destination.kubernetes
    if place is None:
        return _local_cluster(destination, credentials)
    return kubernetes_cluster(
        context=place.context,
        namespace=place.namespace,
        kubeconfig=kubeconfig,
        budget_s=api_budget_s,
    )


def _local_cluster(
    destination: Destination, credentials: Callable[[], Credentials]
) -> LocalCluster:
    state = Path(os.environ.get("S3RUNNER_STATE_DIR") or platformdirs.user_state_dir(_APP))
    return LocalCluster(
        state / "local",
        worker_image=destination.worker_image,
        worker_secret_files={"credentials": _shared_credentials_file(credentials())},
        worker_env={
            **_for_inputs_from_elsewhere(os.environ),
            "AWS_SHARED_CREDENTIALS_FILE": "/s3runner/secrets/credentials",
        },
        read_only=destination.read_only,
    )


def _for_inputs_from_elsewhere(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which web proxies and fsspec's file systems are set up.

    They end up in the cluster's directory, which only its user can read.
    """
    return {
        name: value
        for name, value in environ.items()
        if name.startswith("FSSPEC_") or name.lower() in _PROXIES
    }


def _shared_credentials_file(credentials: Credentials) -> str:
    """Return the keys in the form of the AWS tools' shared file, which the worker reads."""
    lines = [
        "[default]",
        f"aws_access_key_id = {credentials.access_key}",
        f"aws_secret_access_key = {credentials.secret_key}",
    ]
    if credentials.session_token is not None:
        lines.append(f"aws_session_token = {credentials.session_token}")
    return "\n".join((*lines, ""))
