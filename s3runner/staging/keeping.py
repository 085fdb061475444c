"""What gc leaves alone whatever its age: jobs and blobs that files of this machine are links to.

Apart from `expiry`, which is pure: here the documents that say so are written and read. Each names
the directories that the links are in, by an id that lies there, so that gc can look for them again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from s3runner.errors import ObjectNotFoundError, SpecError
from s3runner.model import S3Uri
from s3runner.staging.digest import combine, digest_problem, listed
from s3runner.staging.expiry import Lifetimes, is_near_its_end, job_of
from s3runner.staging.layout import StoreLayout
from s3runner.staging.manifest import dump_document, parse_document
from s3runner.store.protocol import ObjectStore
from s3runner.store.retrying import RetryingStore, read


@dataclass(frozen=True, slots=True)
class Kept:
    """A blob's own document: how to check its bytes, and the directory with the link to it."""

    size: int
    parts: tuple[str, ...]
    directory: str

    def dump(self) -> bytes:
        """Return the document."""
        return dump_document(
            {"size": self.size, "parts": list(self.parts), "linked_in": [self.directory]}
        )

    @classmethod
    def load(cls, body: bytes, origin: str) -> Kept:
        """Read the document back. Raises SpecError naming `origin` (a URI)."""
        document = parse_document(body, origin)
        try:
            parts = tuple(str(part) for part in document["parts"])
            (directory,) = document["linked_in"]
            found = cls(int(document["size"]), parts, str(directory))
        except (KeyError, TypeError, ValueError) as error:
            raise SpecError("does not say what is kept", source=origin) from error
        problem = digest_problem(combine(found.parts), listed(found.parts), found.size)
        if problem:
            raise SpecError(problem, source=origin)
        return found


@dataclass(frozen=True)
class Keeping:
    """Marks jobs and blobs of one store as kept. `lifetimes` are gc's."""

    store: RetryingStore
    layout: StoreLayout
    lifetimes: Lifetimes

    def keep_job(self, job_id: str, directories: Collection[str]) -> bool:
        """Keep a job for the links in these directories, by their ids; tell whether it is kept.

        It is not where gc may be at it already, because of its age, nor where it is kept for other
        directories: whoever looks for links in those would not find ours.
        """
        keys = self.layout.job(job_id)
        if not self._is_young(keys.commit, self.lifetimes.job_s):
            return False
        document = dump_document({"linked_in": sorted(directories)})
        if self.store.put_if_absent(keys.keep, document):
            return True
        there = directories_in(read(self.store, keys.keep), self._uri(keys.keep))
        return there is None or set(directories) <= there

    def keep_blob(self, key: str, kept: Kept) -> bool:
        """Keep a blob for a link to it; tell whether it is kept.

        It is not where gc may be at it already. The document is written anew each time: its age
        tells gc when the last link was made.
        """
        if not self._is_young(key, self.lifetimes.blob_s):
            return False
        body = kept.dump()
        mark = self.layout.kept(combine(kept.parts), kept.directory)
        self.store.put(mark, lambda: iter((body,)), size=len(body), part_size=len(body))
        return True

    def _is_young(self, key: str, ttl_s: float) -> bool:
        try:
            stored = self.store.head(key)
        except ObjectNotFoundError:
            return False
        return not is_near_its_end(stored.modified, datetime.now(timezone.utc), ttl_s)

    def _uri(self, key: str) -> str:
        return str(S3Uri(self.store.bucket, key))


def directories_in(body: bytes, origin: str) -> frozenset[str] | None:
    """Return the ids of the directories that a job is kept for; None: it is kept for ever.

    Raises SpecError naming `origin`.
    """
    # an empty one was put by hand, by somebody who wants the job
    found = parse_document(body, origin).get("linked_in") if body.strip() else None
    if found is None:
        return None
    if not isinstance(found, list):
        raise SpecError("linked_in is no list", source=origin)
    return frozenset(map(str, found))


def is_kept(store: ObjectStore, layout: StoreLayout, key: str) -> bool:
    """Tell whether gc leaves the job alone that a key belongs to."""
    job_id = job_of(key, layout)
    if job_id is None:
        return False
    try:
        store.head(layout.job(job_id).keep)
    except ObjectNotFoundError:
        return False
    return True


def parts_of_kept(store: ObjectStore, layout: StoreLayout, name: str) -> Sequence[str] | None:
    """Return the part digests of a blob that is kept, by the name that its key ends with.

    None where it is not kept. Raises SpecError.
    """
    digest = f"sha256:{name}"
    for found in store.list(layout.kept_prefix_of(digest)):
        kept = Kept.load(read(store, found.key), str(S3Uri(store.bucket, found.key)))
        if combine(kept.parts) == digest:
            return kept.parts
    return None
