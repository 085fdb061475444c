"""A runner of ours for each of Galaxy's destinations; those of one place share what is costly.

It stands apart because a destination may be another one for every job: rules make them up.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from s3runner import wiring
from s3runner.cluster.pod_paths import lies_in
from s3runner.errors import SettingsError
from s3runner.galaxy.params import Options, destination_of
from s3runner.galaxy.translate import references_of
from s3runner.model import Input, S3Uri
from s3runner.runner.head import Head
from s3runner.runner.runner import Runner
from s3runner.settings import Settings

SETTINGS = "s3runner_settings"
"""A settings file that lies below all other parameters."""


@dataclass(frozen=True)
class Place:
    """Where a job of Galaxy runs."""

    runner: Runner
    settings: Settings
    options: Options

    def holds(self, path: str) -> bool:
        """Tell whether the pods have a path in a volume of theirs."""
        where = self.runner.head.destination
        mounts: tuple[str, ...] = where.read_only
        if where.kubernetes is not None:
            volumes = where.kubernetes.pod.parts.volumes
            mounts = tuple(each.mount for each in volumes if "tool" in each.containers)
        return any(lies_in(path, mount) for mount in mounts)

    def referenced(self, path: str) -> Iterator[Input] | None:
        """Return what a path stands for below a reference's place, None where it lies in none."""
        known = {
            each.path: each.url
            for each in self.settings.references.values()
            if each.path is not None and each.path.startswith("/")
        }
        return references_of(path, known, self._urls)

    def _urls(self, begins: str) -> Iterator[str]:
        uri = S3Uri.parse(begins)
        store = self.runner.head.store
        other = store if uri.bucket == store.bucket else store.in_bucket(uri.bucket)
        # stores list directories, not what names begin with
        directory = uri.key[: uri.key.rfind("/") + 1]
        for found in other.list(directory):
            if found.key.startswith(uri.key):
                yield str(S3Uri(uri.bucket, found.key))


class Places:
    """The places of one runner plugin. Safe for concurrent use."""

    def __init__(
        self,
        runner_params: Mapping[str, Any],
        config: Mapping[str, Any],
        environ: Mapping[str, str],
    ) -> None:
        self._params = {name: value for name, value in runner_params.items() if value is not None}
        self._config = config
        self._environ = environ
        self._heads: dict[Hashable, Head] = {}
        self._lock = threading.Lock()

    def check(self, destinations: Mapping[str, Mapping[str, Any]]) -> None:
        """Raise SettingsError with all that is wrong with any of these destinations."""
        mistakes = []
        for name, params in destinations.items():
            try:
                self._understood(name, params)
            except SettingsError as error:  # noqa: PERF203 # all mistakes are told at once
                mistakes.append(error.reason)
        if mistakes:
            raise SettingsError("\n".join(mistakes))

    def at(self, name: str, params: Mapping[str, Any]) -> Place:
        """Return the place of a destination. Raises SettingsError with all that is wrong."""
        settings, options = self._understood(name, params)
        destination = settings.destination()
        place = destination.kubernetes
        cluster: Hashable = (destination.name, destination.worker_image, destination.read_only)
        if place is not None:
            kubeconfig = settings.kubeconfig(destination.name)
            cluster = (place.context, place.namespace, kubeconfig)
        lifetimes = (settings.blob_ttl_s, settings.job_ttl_s)
        store = (settings.store_config(), settings.pod_store_config(), settings.profile)
        key = (*store, *lifetimes, cluster)
        with self._lock:
            if key not in self._heads:
                self._heads[key] = wiring.build(settings, None, self._environ).head
            head = self._heads[key]
        return Place(Runner(replace(head, destination=destination)), settings, options)

    def _understood(self, name: str, params: Mapping[str, Any]) -> tuple[Settings, Options]:
        found = destination_of(self._params, params, self._config, name=name)
        return found.settings, found.options
