"""What the head works with: its store, its cluster, its place to run. Built by `wiring`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from s3runner.cluster.protocol import Cluster
from s3runner.errors import ObjectNotFoundError, SettingsError, UnknownJobError
from s3runner.model import Destination, StoreConfig
from s3runner.staging.digest_cache import DigestCache
from s3runner.staging.expiry import DEFAULT_LIFETIMES, Lifetimes
from s3runner.staging.layout import StoreLayout
from s3runner.staging.manifest import document_digest
from s3runner.staging.named import read_named
from s3runner.staging.records import Commit, Result, Spec
from s3runner.store.retrying import RetryingStore, read

_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Head:
    """One head, for as long as it lives; what it knows of a job it reads from the store.

    `config` is the store as seen from here, `pod_config` the same one as the pods see it.
    `qualify` checks (or remembers) that the store keeps conditional writes, and raises if not.
    `lifetimes` are gc's: what is old by them is not relied upon.
    """

    store: RetryingStore
    config: StoreConfig
    pod_config: StoreConfig
    cluster: Cluster
    destination: Destination
    cache: DigestCache
    qualify: Callable[[], None]
    lifetimes: Lifetimes = DEFAULT_LIFETIMES

    @property
    def layout(self) -> StoreLayout:
        """The store's keys."""
        return StoreLayout(self.config.prefix)

    def runs(self, spec: Spec) -> bool:
        """Tell whether a job runs on this head's cluster; another's Jobs it cannot see."""
        return dict(spec.cluster) == dict(self.cluster.identity)

    def makes_jobs_of(self, where: Destination) -> bool:
        """Tell whether a Job that this head makes is what a destination describes.

        The local cluster gives its pods what its head's own settings say. What a bucket says of
        this machine's directories is not believed.
        """
        here = self.destination
        return where.kubernetes is not None or (
            (where.read_only, where.worker_image) == (here.read_only, here.worker_image)
        )

    def read_spec(self, job_id: str) -> tuple[Spec, str]:
        """Return a job's spec and its document's digest. Raises UnknownJobError."""
        return read_spec(self.store, self.config, job_id)

    def read_commit(self, job_id: str) -> Commit | None:
        """Return a job's commit, None while there is none."""
        key = self.layout.job(job_id).commit
        try:
            return Commit.load(read(self.store, key), self.config.uri(key))
        except ObjectNotFoundError:
            return None

    def read_committed_result(self, job_id: str, commit: Commit) -> Result | None:
        """Return the result that the commit names, checked; None if it names none."""
        if commit.attempt is None or commit.result_digest is None:
            return None
        key = self.layout.job(job_id).attempt(commit.attempt).result
        origin = self.config.uri(key)
        return Result.load(read_named(self.store, key, commit.result_digest, origin), origin)


def read_spec(store: RetryingStore, config: StoreConfig, job_id: str) -> tuple[Spec, str]:
    """Return a job's spec and its document's digest. Raises UnknownJobError."""
    if not _JOB_ID.fullmatch(job_id):
        raise SettingsError(f"{job_id!r} is no job id")
    layout = StoreLayout(config.prefix)
    key = layout.job(job_id).spec
    try:
        body = read(store, key)
    except ObjectNotFoundError as error:
        where = config.uri(layout.jobs_prefix)
        raise UnknownJobError(f"there is no job {job_id} in {where}") from error
    return Spec.load(body, config.uri(key)), document_digest(body)


def name_cluster(spec: Spec) -> str:
    """Say which cluster a job runs on."""
    return ", ".join(f"{name} {value}" for name, value in spec.cluster.items())
