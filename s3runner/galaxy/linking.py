"""Galaxy's datasets as links into the mounted bucket: where that can be, and for which files.

It stands apart because it knows where Galaxy keeps its files, which it only looks at: nothing of
Galaxy is imported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from s3runner.cluster.pod_paths import lies_in
from s3runner.errors import SettingsError
from s3runner.galaxy.errand import Following
from s3runner.galaxy.params import LINK, Options
from s3runner.galaxy.translate import Returned
from s3runner.model import Job, Output, S3Uri
from s3runner.runner.linking import Links, NotShownError, require_mount
from s3runner.runner.report import JobEnd, Listener, SyncResult
from s3runner.runner.runner import Runner
from s3runner.staging.globs import has_wildcard
from s3runner.staging.links import MAX_HOPS


@dataclass(frozen=True, slots=True)
class Disk:
    """Where Galaxy keeps datasets and job directories. Without `stores` not all is on disks."""

    stores: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()


def disk_of(object_store: Any, jobs_directory: str) -> Disk:
    """Return the directories of Galaxy's object store and of its jobs."""
    backends = list(_backends(object_store))
    works = (getattr(each, "extra_dirs", {}).get("job_work") for each in backends)
    jobs = _unique(work or jobs_directory for work in works)
    if any(getattr(each, "store_type", None) != "disk" for each in backends):
        return Disk((), jobs)
    return Disk(_unique(each.file_path for each in backends), jobs)


def _backends(store: Any) -> Iterator[Any]:
    below = getattr(store, "backends", None)
    if below is None:
        yield store
    else:
        for each in below.values():
            yield from _backends(each)


def _unique(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(os.path.abspath(path) for path in paths))


def demand_links(disk: Disk) -> None:
    """Raise SettingsError with a sentence where a dataset cannot be a link."""
    if not disk.stores:
        raise SettingsError("links need an object store of the type disk, and no other beside it")
    try:
        devices = {path: _device_of(path) for path in (*disk.stores, *disk.jobs)}
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise SettingsError(f"{error.filename}: {reason}") from error
    first, *others = devices
    for path in others:
        if devices[path] != devices[first]:
            raise SettingsError(
                f"links need datasets and job directories on one disk: {first} and {path} are not"
            )


def _device_of(path: str) -> int:
    """Return the device of a directory; Galaxy makes some when it first needs them."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return os.stat(path).st_dev


def linkable(returned: Returned, places: AbstractSet[str]) -> Mapping[str, str]:
    """Return where links to a job's files may be; `places` are outputs that may be links.

    Galaxy moves an output into its object store, and that is all it does with a file of that name.
    What lies elsewhere has to be a file: a link out of the job's directory is refused there, or
    left out without a word.
    """
    plain = (found.path for found in returned.others if found.matching is None)
    collectors = [found for found in returned.others if found.matching is not None]
    moved = {
        found.path: place
        for found, place in returned.moved
        if place in places
        and found.matching is None
        and not has_wildcard(found.path)
        and not any(_collects(each, found.path) for each in collectors)
    }
    return {path: path for path in places & {*returned.expected, *plain}} | moved


def _collects(collector: Output, path: str) -> bool:
    if not lies_in(path, collector.path):
        return False
    below = path.removeprefix(collector.path).lstrip("/")
    return re.match(collector.matching or "", below) is not None


def outputs_on(disk: Disk, outputs: Iterable[Any]) -> frozenset[str]:
    """Return where a job writes those outputs whose datasets lie on these disks.

    A user may have chosen another store for some; `outputs` are Galaxy's paths of datasets.
    """
    return frozenset(str(path) for path in outputs if _lies_in_any(path.real_path, disk.stores))


def _lies_in_any(path: str, directories: Iterable[str]) -> bool:
    return any(lies_in(path, directory) for directory in directories)


@dataclass(frozen=True)
class Linking:
    """What a destination does with links; `mount` None: nothing.

    `directories` are those of Galaxy's object store, with the ids that links in them are known by.
    """

    options: Options = field(default_factory=Options)
    directories: Mapping[str, str] = field(default_factory=dict)

    def require_mount(self) -> None:
        """Raise NotShownError where datasets may be links and the bucket is not seen."""
        if self.options.mount is not None:
            require_mount(self.options.mount)

    def is_mounted(self) -> bool:
        """Tell whether results can be seen: those that are links, by way of the mount."""
        if self.options.sync != LINK:
            return True
        try:
            self.require_mount()
        except NotShownError:
            return False
        return True

    def results(self, linkable: Callable[[], Mapping[str, str]]) -> Links | None:
        """Return how results become links; None where they are copied."""
        if self.options.sync != LINK or self.options.mount is None:
            return None
        return Links(self.options.mount, self.directories, linkable().get)

    def inputs(self) -> Links | None:
        """Return how inputs become links; None where they stay."""
        if not self.options.evict_inputs or self.options.mount is None:
            return None
        stores = tuple(self.directories)

        def place_of(path: str) -> str | None:
            return path if _is_dataset(path, stores) else None

        return Links(self.options.mount, self.directories, place_of)

    def chained(self, job: Job, bucket: str) -> Job:
        """Return a job whose inputs that are links into the mount lie in the bucket already."""
        if self.options.mount is None:
            return job
        inputs = (
            replace(each, source=_behind(each.source, self.options.mount, bucket) or each.source)
            for each in job.inputs
        )
        return replace(job, inputs=tuple(inputs))


def _is_dataset(path: str, stores: Iterable[str]) -> bool:
    """Tell whether a file really lies in the object store, by whatever way it is named."""
    return _lies_in_any(path, stores) and _lies_in_any(
        os.path.realpath(path), map(os.path.realpath, stores)
    )


def _behind(path: str, mount: str, bucket: str) -> str | None:
    """Return the URI of what a link leads to below the mount; asks nothing of the mount."""
    if "://" in path:
        return None
    for _ in range(MAX_HOPS):
        if lies_in(path, mount):
            key = path.removeprefix(mount).lstrip("/")
            return str(S3Uri(bucket, key)) if key else None
        try:
            target = os.readlink(path)
        except OSError:
            return None
        path = os.path.normpath(os.path.join(os.path.dirname(path), target))
    return None


@dataclass(frozen=True)
class LinkingVerbs:
    """A runner's verbs with links in the places of results, and of inputs once a job is over."""

    runner: Runner
    results: Links | None = None
    inputs: Links | None = None

    def submit(self, job: Job, listener: Listener, job_id: str | None = None) -> str:
        """Stage in and create the Job."""
        return self.runner.submit(job, listener, job_id)

    def follow(self, job_id: str, listener: Listener) -> Following:
        """Return the job as one to be followed step by step."""
        return self.runner.follow(job_id, listener)

    def cancel(self, job_id: str) -> tuple[JobEnd, bool]:
        """End the job."""
        return self.runner.cancel(job_id)

    def sync_in_place(self, job_id: str, streams: Path, listener: Listener) -> SyncResult:
        """Bring the results here, or links to them."""
        return self.runner.sync_in_place(job_id, streams, listener, self.results)

    def hand_over(self, job_id: str, listener: Listener) -> None:
        """Let inputs give way to links, where that is wanted."""
        if self.inputs is not None:
            self.runner.hand_over(job_id, self.inputs, listener)
