"""Inputs that a sync brought here: they lie in the store already, under the output's own key.

Chained jobs then move nothing through the head. What the digest cache remembers of such a file is
believed only as far as its bytes agree, and the object must still be there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import partial

from s3runner.errors import ObjectNotFoundError, SettingsError
from s3runner.model import Entry, S3Uri, StoredAt
from s3runner.staging.digest import combine, listed
from s3runner.staging.digest_cache import DigestCache
from s3runner.staging.hashing import hash_file
from s3runner.staging.layout import StoreLayout
from s3runner.staging.parallel import run_all
from s3runner.staging.tree import LocalFile, Tree
from s3runner.store.protocol import ObjectStore


@dataclass(frozen=True)
class ChainedInputs:
    """Finds them. `job_ttl_s` is how long gc leaves a job alone after its commit, in seconds."""

    store: ObjectStore
    layout: StoreLayout
    cache: DigestCache
    job_ttl_s: float

    def find(self, trees: Sequence[Tree]) -> list[Entry]:
        """Return the entries of those files that need no upload, with digest and place."""
        if not self.cache.has_synced():
            return []
        tasks = [
            partial(self._confirm, entry, tree.files[entry.path])
            for tree in trees
            for entry in tree.entries
            if entry.path in tree.files
            and self.cache.uri_of(tree.files[entry.path].identity) is not None
        ]
        return [entry for entry in run_all("stage-in", tasks) if entry is not None]

    def _confirm(self, entry: Entry, file: LocalFile) -> Entry | None:
        cached = self.cache.get(file.identity)
        if cached is None:
            # a file as young as its sync is hashed once before it is believed
            began_ns = self.cache.now_ns()
            cached = self.cache.put(file.identity, hash_file(file), began_ns)
        key = self._key_of(cached.uri)
        if key is None or not self._is_there(key, file.identity.size):
            return None
        parts = cached.parts
        return replace(entry, digest=combine(parts), parts=listed(parts), at=StoredAt(key))

    def _key_of(self, uri: str | None) -> str | None:
        """Return the key of an output of this very store."""
        try:
            parsed = S3Uri.parse(uri or "")
        except SettingsError:
            return None
        ours = parsed.bucket == self.store.bucket
        return parsed.key if ours and parsed.key.startswith(self.layout.jobs_prefix) else None

    def _is_there(self, key: str, size: int) -> bool:
        """Tell whether the object is there, whole, and far from its job's end."""
        try:
            stored = self.store.head(key)
        except ObjectNotFoundError:
            return False
        oldest = datetime.now(timezone.utc) - timedelta(seconds=self.job_ttl_s / 3)
        return stored.size == size and stored.modified > oldest
