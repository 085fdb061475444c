"""Stage-in and submission: from a job to its spec, its generation record and its Job object.

What can be refused is refused before the first byte goes up; once the spec is stored, any head can
finish what this one began.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from s3runner import __version__
from s3runner.cluster.job_object import job_object, pod_caveats
from s3runner.cluster.pod_paths import REFERENCES, WORK, declared_roots
from s3runner.cluster.pod_resources import automatic_disk, resources_of
from s3runner.cluster.protocol import JobObject
from s3runner.errors import UnsupportedError
from s3runner.model import Job, Manifest, Quantity
from s3runner.runner.creation import put_spec, record_generation
from s3runner.runner.decide import first_generation
from s3runner.runner.head import Head
from s3runner.runner.report import STAGE_IN, Listener, PlannedObject, PlanReport
from s3runner.runner.sources import RemoteSources, weakly_named
from s3runner.runner.turns import make_job
from s3runner.staging.chained import ChainedInputs
from s3runner.staging.digest import part_size
from s3runner.staging.manifest import document_digest, dump_document, dump_manifest, path_problem
from s3runner.staging.parallel import run_all
from s3runner.staging.plan import Upload, merged
from s3runner.staging.records import INLINE_LIMIT, ExternalManifest, Spec
from s3runner.staging.renewing import Copy, Renewal
from s3runner.staging.scan import scan
from s3runner.staging.tree import LocalFile, Tree, without
from s3runner.staging.upload import stage_in, survey
from s3runner.store.meter import Meter
from s3runner.store.retrying import RetryingStore, put_requests
from s3runner.store.urls import shown


@dataclass(frozen=True)
class _Sources:
    """A job's inputs as found: local trees to stage, and what is in S3 already.

    Together they fit into one tree.
    """

    trees: tuple[Tree, ...]
    remotes: tuple[Manifest, ...]

    def warnings(self) -> Iterator[str]:
        """Yield what the user should know of them."""
        for tree in self.trees:
            yield from tree.warnings
        for remote in self.remotes:
            yield from weakly_named(remote)

    def sizes(self) -> Iterator[int]:
        """Yield the size of every entry, packed or not, here or elsewhere."""
        for tree in self.trees:
            yield from (entry.size for entry in tree.entries)
        for remote in self.remotes:
            yield from (entry.size for entry in remote.entries)


def submit(head: Head, job: Job, listener: Listener, job_id: str | None = None) -> str:
    """Stage a job in, store its spec and create its Job if there is room; return the job id.

    A `job_id` of the caller's is one of `new_job_id` that no other call was given. Raises
    SettingsError for what the destination cannot run, StagingError with every input that failed,
    and the store's and the cluster's errors.
    """
    job_id = job_id or new_job_id()
    draft = _draft(head, job, job_id)
    # rendered once before anything is looked at, to refuse what a Job object cannot express
    _rendered(head, draft)
    meter = Meter()
    meter.listener = lambda phase: listener.phase(
        STAGE_IN, phase, meter.expected_bytes, meter.expected_files
    )
    store = head.store.with_meter(meter)
    sources = _find_sources(store, head, job)
    draft = _sized(draft, job, sources)
    for warning in (*_caveats(head, draft), *sources.warnings()):
        listener.warning(warning)
    head.qualify()
    remotes = Renewal(store, head.layout, head.lifetimes).put_again(sources.remotes, meter)
    staged = stage_in(
        store,
        head.layout,
        sources.trees,
        head.cache,
        meter=meter,
        blob_ttl_s=head.lifetimes.blob_s,
        foreign=_chained(head, store, sources),
    )
    listener.state("staged")
    manifest = joined((staged, *remotes))
    spec = _with_inputs(head, store, draft, manifest)
    body = spec.dump()
    put_spec(head, spec, body)
    listener.job_id(job_id)
    name = head.layout.job(job_id).job_name(1)
    first = first_generation(spec, document_digest(body), name)
    record = record_generation(head, job_id, replace(first, stage_in=meter.phase))
    room = make_job(head, spec, record)
    if room is not None:
        listener.note(f"waiting: {room}")
    return job_id


def check(head: Head, job: Job) -> None:
    """Raise what `submit` would raise before its first byte goes up; writes nothing."""
    _rendered(head, _draft(head, job, new_job_id()))
    _find_sources(head.store, head, job)


def plan(head: Head, job: Job) -> PlanReport:
    """Tell what `submit` would do. Reads the store and the inputs, and writes nothing."""
    draft = _draft(head, job, new_job_id())
    _rendered(head, draft)
    sources = _find_sources(head.store, head, job)
    draft = _sized(draft, job, sources)
    chained = _chained(head, head.store, sources)
    copies = Renewal(head.store, head.layout, head.lifetimes).find(sources.remotes)
    lying = list(_lying(head, chained))
    chained_paths = {entry.path for entry in chained.entries}
    trees = [without(tree, chained_paths) for tree in sources.trees]
    found = survey(head.store, head.layout, trees, head.cache, blob_ttl_s=head.lifetimes.blob_s)
    return PlanReport(
        uploads=(
            *(_planned(head, *item) for item in found if not item[1]),
            *(_renewed(head, copy) for copy in copies if copy.needed),
        ),
        present=(
            *(_planned(head, *item) for item in found if item[1]),
            *(_renewed(head, copy) for copy in copies if not copy.needed),
            *lying,
        ),
        requests=sum(_requests(upload, present=present) for upload, present, _ in found)
        + sum(copy.requests for copy in copies)
        + len(lying),
        disk_bytes=sum(sources.sizes()),
        job_object=_rendered(head, draft),
        elsewhere=tuple(_elsewhere(job, sources, {copy.source for copy in copies})),
        warnings=(*_caveats(head, draft), *sources.warnings()),
    )


def _chained(head: Head, store: RetryingStore, sources: _Sources) -> Manifest:
    """Return the local inputs that a sync brought here from this store."""
    chained = ChainedInputs(store, head.layout, head.cache, head.lifetimes.job_s)
    return chained.find(sources.trees)


def _lying(head: Head, chained: Manifest) -> Iterator[PlannedObject]:
    """Yield the objects that hold what was synced: files, and packs of several."""
    reason = "it was synced from there"
    sizes = {pack.key: pack.size for pack in chained.packs}
    names: dict[str, list[str]] = {}
    for entry in chained.entries:
        if entry.at is not None:
            sizes.setdefault(entry.at.key, entry.size)
            names.setdefault(entry.at.key, []).append(entry.path)
    for key, paths in names.items():
        source = paths[0] if len(paths) == 1 else f"{len(paths)} small files"
        yield PlannedObject(head.config.uri(key), sizes[key], source, reason)


def _renewed(head: Head, copy: Copy) -> PlannedObject:
    reason = "put again as a blob: its job's end is near" if copy.needed else "already in the store"
    return PlannedObject(
        head.config.uri(copy.blob), copy.size, head.config.uri(copy.source), reason
    )


def _elsewhere(job: Job, sources: _Sources, copied: AbstractSet[str]) -> Iterator[PlannedObject]:
    """Yield what the pod fetches from where it lies; nothing of it passes through the head."""
    urls = {path: source for path, source in _wanted(job) if "://" in source}
    for remote in sources.remotes:
        if any(entry.at is not None and entry.at.key in copied for entry in remote.entries):
            continue
        path = remote.entries[0].path
        size = sum(entry.size for entry in remote.entries)
        reason = "the pod fetches it from where it lies"
        yield PlannedObject(shown(urls[path]), size, path, reason)


def _requests(upload: Upload, *, present: bool) -> int:
    """Return how many requests an object costs: a HEAD, and its PUT or its parts."""
    return 1 if present else 1 + put_requests(upload.size, part_size(upload.size))


def _planned(head: Head, upload: Upload, _present: bool, reason: str) -> PlannedObject:  # noqa: FBT001  # a row of the survey
    source = upload.source
    name = source.path if isinstance(source, LocalFile) else f"{len(source.files)} small files"
    return PlannedObject(head.config.uri(upload.key), upload.size, name, reason)


def _rendered(head: Head, draft: Spec) -> JobObject:
    """Return the first Job object, with a word in the place of the digest that comes later."""
    name = head.layout.job(draft.job_id).job_name(1)
    first = first_generation(draft, "sha256:known-when-submitted", name)
    return job_object(draft, first, head.pod_config)


def _caveats(head: Head, draft: Spec) -> list[str]:
    """Return what the user should know of how the job would run, and have the cluster check it."""
    return [*pod_caveats(draft), *head.cluster.caveats(_rendered(head, draft))]


def new_job_id(clock_ms: int | None = None) -> str:
    """Return a UUIDv7 (RFC 9562): unique without asking anybody, and sorted by time."""
    clock_ms = time.time_ns() // 10**6 if clock_ms is None else clock_ms
    value = clock_ms << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    return str(uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62))


def joined(manifests: Iterable[Manifest]) -> Manifest:
    """Return one manifest of several, in order and checked as a reader will check it.

    Raises UnsupportedError (25) for a key that is no file name, SettingsError for two inputs in
    one place.
    """
    parts = tuple(manifests)
    entries = [entry for part in parts for entry in part.entries]
    for entry in entries:
        problem = path_problem(entry.path)
        if problem:
            at = entry.at
            source = "" if at is None else shown(at.url) if at.url else at.key
            raise UnsupportedError(
                f"cannot be a file's name: {problem}", operation="stage-in", source=source
            )
    return merged(*parts)


def _draft(head: Head, job: Job, job_id: str) -> Spec:
    where = head.destination
    spec = Spec(
        job_id=job_id,
        name=job.name,
        command=job.command,
        image=job.image,
        env=job.env,
        inputs=Manifest(),
        outputs=job.outputs,
        references={item.name: _reference_place(item.name, item.path) for item in job.references},
        roots=(),
        resources=resources_of(job.resources, where.resources),
        walltime_s=job.walltime_s or where.default_walltime_s,
        retry=replace(where.retry, **job.retry),
        destination=where,
        cluster=head.cluster.identity,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        version=__version__,
        sources={item.path: item.source for item in job.inputs if "://" not in item.source},
        pod=job.pod,
    )
    input_paths = (item.path for item in job.inputs)
    return replace(spec, roots=declared_roots(spec, input_paths, job.roots))


def _sized(draft: Spec, job: Job, sources: _Sources) -> Spec:
    """Give a job that says nothing of its disk what its inputs ask for; on Kubernetes only.

    A node there has to set it aside, and a pod without a limit takes it from the others. This
    machine's disk is its user's own.
    """
    place, resources = draft.destination.kubernetes, draft.resources
    if place is None or resources.disk != Quantity():
        return draft
    parts = place.pod.parts.plus(draft.pod)
    disk = automatic_disk(sources.sizes(), place.pod, parts, job.disk_factor)
    return replace(draft, resources=replace(resources, disk=disk))


def _reference_place(name: str, path: str | None) -> str:
    if path is None:
        return f"{REFERENCES}/{name}"
    return path if path.startswith("/") else f"{WORK}/{path}"


def _wanted(job: Job) -> Iterator[tuple[str, str]]:
    """Yield the place and the source of each input and each reference."""
    yield from ((item.path, item.source) for item in job.inputs)
    yield from ((item.path or f"{REFERENCES}/{item.name}", item.url) for item in job.references)


def _find_sources(store: RetryingStore, head: Head, job: Job) -> _Sources:
    """Look at every input, here and in S3; raise StagingError with all that cannot be had."""
    remote = RemoteSources(store, head.config, store.meter)
    looks = [_Look(remote, path, source) for path, source in _wanted(job)]
    found = run_all("stage-in", looks)
    trees = tuple(item for item in found if isinstance(item, Tree))
    remotes = [item for item in found if isinstance(item, Manifest)]
    # refuses what does not fit into one tree, before a byte goes up
    joined((*remotes, *(Manifest(tree.entries) for tree in trees)))
    return _Sources(trees, tuple(remotes))


@dataclass(frozen=True)
class _Look:
    """A look at one source, here or in S3."""

    remote: RemoteSources
    path: str
    source: str

    def __call__(self) -> Tree | Manifest:
        if "://" in self.source:
            return self.remote.resolve(self.path, self.source)
        return scan(self.path, self.source)


def _with_inputs(head: Head, store: RetryingStore, draft: Spec, manifest: Manifest) -> Spec:
    """Put the input manifest into the spec, or beside it when it is large."""
    body = dump_document(dump_manifest(manifest))
    if len(body) < INLINE_LIMIT:
        return replace(draft, inputs=manifest)
    key = head.layout.job(draft.job_id).inputs
    store.put_if_absent(key, body)
    return replace(draft, inputs=ExternalManifest(key, document_digest(body)))
