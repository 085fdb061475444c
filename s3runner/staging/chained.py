"""Inputs that a sync brought here: they lie in the store already, where that job's pod put them.

Chained jobs then move nothing through the head. What the digest cache remembers of such a file is
believed only as far as its bytes agree, and its object (or its pack) must still be there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial

from s3runner.errors import InputError, ObjectNotFoundError, SettingsError
from s3runner.model import Entry, Manifest, Pack, S3Uri, StoredAt
from s3runner.staging.digest import combine, listed
from s3runner.staging.digest_cache import Cached, DigestCache, SyncedFrom
from s3runner.staging.expiry import is_near_its_end
from s3runner.staging.hashing import hash_file
from s3runner.staging.keeping import is_kept
from s3runner.staging.layout import StoreLayout
from s3runner.staging.parallel import run_all
from s3runner.staging.plan import Parts
from s3runner.staging.tree import LocalFile, Tree
from s3runner.store.protocol import ObjectStore


@dataclass(frozen=True, slots=True)
class _Found:
    """An input with its place: an object of its own, or a pack."""

    entry: Entry
    at: StoredAt
    pack: Pack | None

    @property
    def object_size(self) -> int:
        return self.entry.size if self.pack is None else self.pack.size


@dataclass(frozen=True)
class ChainedInputs:
    """Finds them. `job_ttl_s` is how long gc leaves a job alone after its commit, in seconds."""

    store: ObjectStore
    layout: StoreLayout
    cache: DigestCache
    job_ttl_s: float

    def find(self, trees: Sequence[Tree]) -> Manifest:
        """Return those files that need no upload, with digest and place, and their packs."""
        if not self.cache.has_synced():
            return Manifest()
        remembered = [
            (entry, tree.files[entry.path])
            for tree in trees
            for entry in tree.entries
            if entry.path in tree.files
            and self.cache.origin_of(tree.files[entry.path].identity) is not None
        ]
        found = list(self._placed(remembered))
        # one question an object, however many of its members are inputs
        sizes = {item.at.key: item.object_size for item in found}
        answers = run_all(
            "stage-in", [partial(self._is_there, key, size) for key, size in sizes.items()]
        )
        there = {key for key, is_there in zip(sizes, answers, strict=True) if is_there}
        usable = [item for item in found if item.at.key in there]
        packs = {item.pack.key: item.pack for item in usable if item.pack is not None}
        return Manifest(tuple(item.entry for item in usable), tuple(packs.values()))

    def _placed(self, remembered: Sequence[tuple[Entry, LocalFile]]) -> Iterator[_Found]:
        """Yield what is the synced output, byte for byte, with its place in this very store."""
        hashed = self._hash_young(file for _, file in remembered)
        packs: dict[str, Pack | None] = {}
        for entry, file in remembered:
            cached = hashed.get(file.path) or self.cache.get(file.identity)
            at = self._place_of(cached.origin) if cached and cached.origin else None
            if cached is None or at is None:
                continue
            if at.offset is not None and at.key not in packs:
                packs[at.key] = self._pack(at.key)
            pack = packs.get(at.key)
            if at.offset is None or pack is not None:
                digest, parts = combine(cached.parts), listed(cached.parts)
                yield _Found(replace(entry, digest=digest, parts=parts, at=at), at, pack)

    def _hash_young(self, files: Iterable[LocalFile]) -> dict[str, Cached]:
        """Hash what is as young as its sync; it is not believed before."""
        began_ns = self.cache.now_ns()
        young = [file for file in files if self.cache.get(file.identity) is None]
        found = run_all("stage-in", [partial(_hash, file) for file in young])
        with self.cache.together():
            return {
                file.path: self.cache.put(file.identity, parts, began_ns)
                for file, parts in zip(young, found, strict=True)
                if parts is not None
            }

    def _place_of(self, origin: SyncedFrom) -> StoredAt | None:
        """Return the place of an output of this very store."""
        try:
            parsed = S3Uri.parse(origin.uri)
        except SettingsError:
            return None
        ours = parsed.bucket == self.store.bucket and parsed.key.startswith(self.layout.jobs_prefix)
        return StoredAt(parsed.key, origin.offset) if ours else None

    def _pack(self, key: str) -> Pack | None:
        known = self.cache.get_synced_pack(str(S3Uri(self.store.bucket, key)))
        if known is None:
            return None
        size, parts = known
        return Pack(key, size, combine(parts), listed(parts))

    def _is_there(self, key: str, size: int) -> bool:
        """Tell whether the object is there, whole, and its job far from its end, or kept."""
        try:
            stored = self.store.head(key)
        except ObjectNotFoundError:
            return False
        if stored.size != size:
            return False
        now = datetime.now(timezone.utc)
        is_near = is_near_its_end(stored.modified, now, self.job_ttl_s)
        return not is_near or is_kept(self.store, self.layout, key)


def _hash(file: LocalFile) -> Parts | None:
    """Return a file's parts; None for one that changes or cannot be read: stage-in will tell."""
    try:
        return hash_file(file)
    except InputError:
        return None
