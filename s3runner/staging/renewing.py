"""Outputs of jobs whose end is near: put again as blobs before another job relies on them.

Apart from `upload`, which sends local files: here the bytes come from the store itself, one part at
a time, and each is compared with its digest before it goes back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial

from s3runner.errors import InputError, ObjectNotFoundError
from s3runner.model import Entry, Manifest, Pack, S3Uri, StoredAt
from s3runner.staging.digest import part_count, part_range, part_size, parts_of
from s3runner.staging.download import whole_part
from s3runner.staging.expiry import Lifetimes, is_near_its_end, job_of
from s3runner.staging.keeping import is_kept
from s3runner.staging.layout import StoreLayout
from s3runner.staging.parallel import ByteBudget, run_all
from s3runner.staging.plan import make_manifest
from s3runner.staging.upload import is_needed
from s3runner.store.meter import Meter
from s3runner.store.retrying import RetryingStore, put_requests


@dataclass(frozen=True, slots=True)
class Copy:
    """An object of a job's attempt and the blob that it becomes. `needed`: that is not there."""

    source: str
    blob: str
    item: Entry | Pack
    needed: bool

    @property
    def size(self) -> int:
        """Bytes of the object."""
        return self.item.size

    @property
    def requests(self) -> int:
        """How many requests it costs: a HEAD, its parts down and up."""
        sent = part_count(self.size) + put_requests(self.size, part_size(self.size))
        return 1 + sent * self.needed


@dataclass(frozen=True)
class Renewal:
    """Finds and makes them: what gc could take while a stage-in is under way."""

    store: RetryingStore
    layout: StoreLayout
    lifetimes: Lifetimes

    def find(self, manifests: Sequence[Manifest]) -> tuple[Copy, ...]:
        """Return what must not be relied upon where it lies; writes nothing.

        Raises StagingError (21) if it has gone already.
        """
        items = {key: item for manifest in manifests for key, item in _objects(manifest)}
        of_jobs = {job_of(key, self.layout): key for key in items}
        near = [partial(self._is_near_its_end, key) for job, key in of_jobs.items() if job]
        answers = run_all("stage-in", near)
        ending = {
            job for job, ends in zip((job for job in of_jobs if job), answers, strict=True) if ends
        }
        tasks = [
            partial(self._copy, key, item)
            for key, item in items.items()
            if job_of(key, self.layout) in ending
        ]
        return tuple(run_all("stage-in", tasks))

    def _is_near_its_end(self, key: str) -> bool:
        """Tell by any object of a job, which is as old as its commit or older."""
        try:
            stored = self.store.head(key)
        except ObjectNotFoundError as error:
            uri = str(S3Uri(self.store.bucket, key))
            raise InputError("the output is gone: its job has expired", source=uri) from error
        now = datetime.now(timezone.utc)
        is_near = is_near_its_end(stored.modified, now, self.lifetimes.job_s)
        return is_near and not is_kept(self.store, self.layout, key)

    def _copy(self, key: str, item: Entry | Pack) -> Copy:
        blob = self.layout.blob(item.digest)
        needed, _ = is_needed(self.store, blob, item.size, self.lifetimes.blob_s)
        return Copy(key, blob, item, needed)

    def put_again(self, manifests: Sequence[Manifest], meter: Meter) -> tuple[Manifest, ...]:
        """Put those outputs again; return the manifests with each at its place to rely upon."""
        copies = self.find(manifests)
        needed = [copy for copy in copies if copy.needed]
        meter.expect(sum(copy.size for copy in needed), len(needed))
        budget = ByteBudget()
        run_all("stage-in", [partial(self._put, copy, budget, meter) for copy in needed])
        blobs = {copy.source: copy.blob for copy in copies}
        return tuple(_moved(manifest, blobs) for manifest in manifests)

    def _put(self, copy: Copy, budget: ByteBudget, meter: Meter) -> None:
        # one try a part: the put is what begins again, or there would be two budgets in each other
        reader, parts = self.store.with_budget(0), parts_of(copy.item)

        def body() -> Iterator[bytes]:
            for index, expected in enumerate(parts):
                start, length = part_range(copy.size, index)
                consume = partial(whole_part, length=length, expected=expected)
                yield bytes(reader.get(copy.source, consume, start=start, length=length))

        size = part_size(copy.size)
        # the part that is read, its copy, and those that the client has on their way
        with budget.holding(min(2 * copy.size, 6 * size)):
            self.store.put(copy.blob, body, size=copy.size, part_size=size)
        meter.add(size=copy.size, files=1)


def _objects(manifest: Manifest) -> Iterator[tuple[str, Entry | Pack]]:
    """Yield the objects that a tree lies in, as far as their digests are known."""
    for pack in manifest.packs:
        yield pack.key, pack
    for entry in manifest.entries:
        at = entry.at
        if at is not None and at.offset is None and at.bucket is None and entry.digest:
            yield at.key, entry


def _moved(manifest: Manifest, blobs: Mapping[str, str]) -> Manifest:
    def place(at: StoredAt | None) -> StoredAt | None:
        return replace(at, key=blobs.get(at.key, at.key)) if at is not None else None

    entries = (replace(entry, at=place(entry.at)) for entry in manifest.entries)
    packs = (replace(pack, key=blobs.get(pack.key, pack.key)) for pack in manifest.packs)
    return make_manifest(entries, packs)
