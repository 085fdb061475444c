"""A runner of ours for each of Galaxy's destinations; those of one place share what is costly.

It stands apart because a destination may be another one for every job: rules make them up.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from s3runner import wiring
from s3runner.cluster.pod_paths import lies_in
from s3runner.errors import S3RunnerError, SettingsError
from s3runner.galaxy.linking import Disk, Linking, LinkingVerbs, demand_links
from s3runner.galaxy.param_table import PREFIX
from s3runner.galaxy.params import LINK, Options, destination_of
from s3runner.galaxy.translate import references_of
from s3runner.model import Input, Job, S3Uri
from s3runner.runner.head import Head
from s3runner.runner.linked_directories import give_ids
from s3runner.runner.runner import Runner
from s3runner.settings import Settings


@dataclass(frozen=True)
class Place:
    """Where a job of Galaxy runs."""

    runner: Runner
    settings: Settings
    options: Options
    linking: Linking = field(default_factory=Linking)

    def verbs(self, linkable: Callable[[], Mapping[str, str]]) -> LinkingVerbs:
        """Return what is done with a job; `linkable` says where links to its files may be."""
        linking = self.linking
        return LinkingVerbs(self.runner, linking.results(linkable), linking.inputs())

    @property
    def needs_image(self) -> bool:
        """Tell whether only jobs with a container can run there."""
        return self.runner.head.destination.kubernetes is not None

    def chained(self, job: Job) -> Job:
        """Return a job whose inputs that are links into the bucket lie there already."""
        return self.linking.chained(job, self.runner.head.config.bucket)

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
    """The places of one runner plugin; relative paths start at `base_dir`.

    `disk` is where Galaxy keeps its files. Safe for concurrent use.
    """

    def __init__(
        self,
        runner_params: Mapping[str, Any],
        config: Mapping[str, Any],
        environ: Mapping[str, str],
        base_dir: Path = Path("/"),
        disk: Disk | None = None,
    ) -> None:
        self._params = {name: value for name, value in runner_params.items() if value is not None}
        self._config = config
        self._environ = environ
        self._base_dir = base_dir
        self._disk = disk or Disk()
        self._heads: dict[Hashable, Head] = {}
        self._lock = threading.Lock()

    def check(self, destinations: Mapping[str, Mapping[str, Any]]) -> None:
        """Raise SettingsError with all that is wrong with any of these destinations."""
        found = (self._mistakes(name, params) for name, params in destinations.items())
        mistakes = [told for told in found if told]
        if mistakes:
            # what is wrong in a file that all of them name is told once
            raise SettingsError("\n".join(dict.fromkeys(mistakes)))

    def _mistakes(self, name: str, params: Mapping[str, Any]) -> str:
        try:
            self._linking(name, self._understood(name, params)[1]).require_mount()
        except SettingsError as error:
            return error.reason
        except S3RunnerError as error:
            return f"destination {name}: {PREFIX}mount: {error.reason}"
        return ""

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
        runner = Runner(replace(head, destination=destination))
        return Place(runner, settings, options, self._linking(name, options))

    def _linking(self, name: str, options: Options) -> Linking:
        """Return what is done with links. Raises SettingsError where there can be none."""
        wanted = {"sync": options.sync == LINK, "evict_inputs": options.evict_inputs}
        param = next((f"{PREFIX}{key}" for key, is_wanted in wanted.items() if is_wanted), None)
        if param is None:
            return Linking(options)
        try:
            demand_links(self._disk)
            return Linking(options, give_ids(self._disk.stores))
        except SettingsError as error:
            raise SettingsError(f"destination {name}: {param}: {error.reason}") from error
        except OSError as error:
            reason = f"{error.filename}: {os.strerror(error.errno or 0)}"
            raise SettingsError(f"destination {name}: {param}: {reason}") from error

    def _understood(self, name: str, params: Mapping[str, Any]) -> tuple[Settings, Options]:
        found = destination_of(
            self._params, params, self._config, name=name, base_dir=self._base_dir
        )
        return found.settings, found.options
