"""Inputs that are elsewhere already: turning a URI into manifest entries, without moving a byte.

An output of another job is found through that attempt's manifest, so its digests are known; any
other object, and whatever has a URL, is named by size and ETag, and the pod hashes what it reads.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from s3runner.errors import InputError, ObjectNotFoundError, S3RunnerError, UnsupportedError
from s3runner.model import Entry, Kind, Manifest, S3Uri, StoreConfig, StoredAt
from s3runner.staging.digest import combine, listed
from s3runner.staging.keeping import parts_of_kept
from s3runner.staging.layout import AttemptLayout, StoreLayout
from s3runner.staging.manifest import load_manifest, parse_document
from s3runner.staging.named import read_named
from s3runner.staging.records import Result
from s3runner.store.meter import Meter
from s3runner.store.origin import Elsewhere, Found
from s3runner.store.protocol import ObjectStore, StoredObject
from s3runner.store.retrying import Retry, read
from s3runner.store.urls import is_s3, shown

_FOREIGN_MODE = 0o644
_DIR_MODE = 0o755


@dataclass(frozen=True)
class RemoteSources:
    """Resolves URIs against one store: its own jobs' outputs, any other object, and URLs.

    `meter` gets the requests that the store does not count itself.
    """

    store: ObjectStore
    config: StoreConfig
    meter: Meter = field(default_factory=Meter)

    def resolve(self, path: str, uri: str, *, keep_names: bool = False) -> Manifest:
        """Return the tree that `uri` names, placed at `path`. Raises InputError (21).

        With `keep_names` what another job brought out keeps the paths that it had there. What lies
        outside of the store also raises SettingsError, UnsupportedError and the stores' errors.
        """
        if not is_s3(uri):
            return Manifest(tuple(self._elsewhere(path, uri)))
        name, _, member = uri.partition("#")
        parsed = S3Uri.parse(name)
        attempt = self._attempt_of(parsed)
        if attempt is not None:
            found = self._from_attempt(path, uri, attempt, parsed.key.rstrip("/"), member)
            return found if keep_names else _moved(found, path)
        kept = self._kept(path, parsed) if not member else None
        return Manifest((kept,) if kept else tuple(self._foreign(path, S3Uri.parse(uri))))

    def _kept(self, path: str, uri: S3Uri) -> Entry | None:
        """Return a blob that a local file was replaced by, with the digests of that file."""
        layout = StoreLayout(self.config.prefix)
        name = uri.key.rpartition("/")[2]
        if uri.bucket != self.config.bucket or layout.blob(name) != uri.key:
            return None
        parts = parts_of_kept(self.store, layout, name)
        if parts is None:
            return None
        found = _foreign_file(path, self.store.head(uri.key), uri)
        at = StoredAt(uri.key)
        return replace(found, digest=combine(parts), parts=listed(parts), at=at)

    def _elsewhere(self, path: str, url: str) -> Iterator[Entry]:
        retry = Retry(budget_s=self.config.retry_budget_s)
        try:
            found = Elsewhere(retry, self.meter, self.config.ca_pem).look(url)
        except S3RunnerError as error:
            raise error.during("", source=shown(url), target=path) from error
        for item in found:
            yield _entry_elsewhere(path, url, item)

    def _attempt_of(self, uri: S3Uri) -> AttemptLayout | None:
        """Return the attempt that a URI of our own store lies below."""
        jobs = StoreLayout(self.config.prefix).jobs_prefix
        if uri.bucket != self.config.bucket or not uri.key.startswith(jobs):
            return None
        job_id, attempts, uid, *rest = (*uri.key[len(jobs) :].split("/"), "", "", "")
        if attempts != "attempts" or not uid or not rest[0]:
            return None
        return StoreLayout(self.config.prefix).job(job_id).attempt(uid)

    def _from_attempt(
        self, path: str, uri: str, attempt: AttemptLayout, key: str, member: str
    ) -> Manifest:
        manifest = self._manifest_of(attempt, path, uri)
        top = next((e.path for e in manifest.entries if _is_named(e, attempt, key, member)), None)
        if top is None:
            raise InputError("that attempt has no such output", source=uri, target=path)
        entries = tuple(
            entry
            for entry in manifest.entries
            if entry.path == top or entry.path.startswith(f"{top}/")
        )
        used = {entry.at.key for entry in entries if entry.at and entry.at.offset is not None}
        return Manifest(entries, tuple(pack for pack in manifest.packs if pack.key in used))

    def _manifest_of(self, attempt: AttemptLayout, path: str, uri: str) -> Manifest:
        """Return what an attempt brought out, checked against the digest in its result."""
        origin = self.config.uri(attempt.manifest)
        try:
            result = Result.load(read(self.store, attempt.result), self.config.uri(attempt.result))
            digest = result.manifest_digest or "none"
            body = read_named(self.store, attempt.manifest, digest, origin)
        except ObjectNotFoundError as error:
            raise InputError("there is no such output", source=uri, target=path) from error
        return load_manifest(parse_document(body, origin), origin)

    def _foreign(self, path: str, uri: S3Uri) -> Iterator[Entry]:
        if not uri.key.strip("/"):
            raise UnsupportedError(
                "a whole bucket cannot be an input",
                source=str(uri),
                target=path,
                hint="name what lies in it: s3://bucket/prefix/",
            )
        store = self.store if uri.bucket == self.store.bucket else self.store.in_bucket(uri.bucket)
        if not uri.key.endswith("/"):
            try:
                yield _foreign_file(path, store.head(uri.key), uri)
            except ObjectNotFoundError:
                pass
            else:
                return
        prefix = f"{uri.key.rstrip('/')}/"
        objects = [found for found in store.list(prefix) if not _is_folder_marker(store, found)]
        if not objects:
            raise InputError("no such object, and none below it", source=str(uri), target=path)
        yield from _foreign_tree(path, objects, uri, prefix)


def weakly_named(manifest: Manifest) -> Iterator[str]:
    """Yield a warning for each file that may be replaced by another one without our notice."""
    for entry in manifest.entries:
        at = entry.at
        if at is not None and at.url is not None and at.etag is None:
            known = "its time of change and its size" if at.modified else "its size alone"
            yield f"{shown(at.url)} has no ETag: {known} will tell whether it has changed"


def _is_named(entry: Entry, attempt: AttemptLayout, key: str, member: str) -> bool:
    if member:
        return entry.path == member and entry.at is not None and entry.at.key == key
    return attempt.out(entry.path) == key


def _moved(tree: Manifest, path: str) -> Manifest:
    """Return a tree with `path` in the place of its topmost name."""
    top = tree.entries[0].path
    entries = (replace(entry, path=path + entry.path[len(top) :]) for entry in tree.entries)
    return Manifest(tuple(entries), tree.packs)


def _is_folder_marker(store: ObjectStore, found: StoredObject) -> bool:
    """Tell a console's "folder" (an empty object `x/`, listed as `x`) from an empty file."""
    if found.size > 0:
        return False
    try:
        store.head(found.key)
    except ObjectNotFoundError:
        return True
    return False


def _entry_elsewhere(path: str, url: str, found: Found) -> Entry:
    # not the beginning of time where nobody knows it: a zip file cannot hold that
    mtime_ns = time.time_ns() if found.mtime_ns is None else found.mtime_ns
    place = f"{path}/{found.path}" if found.path else path
    if found.size is None:
        return Entry(place, Kind.DIR, _DIR_MODE, mtime_ns)
    where = f"{url.rstrip('/')}/{found.path}" if found.path else url
    modified = found.modified if found.etag is None else None
    at = StoredAt("", etag=found.etag, url=where, modified=modified)
    return Entry(place, Kind.FILE, _FOREIGN_MODE, mtime_ns, found.size, at=at)


def _foreign_file(path: str, found: StoredObject, uri: S3Uri) -> Entry:
    return Entry(
        path=path,
        kind=Kind.FILE,
        mode=_FOREIGN_MODE,
        mtime_ns=int(found.modified.timestamp()) * 10**9,
        size=found.size,
        at=StoredAt(found.key, bucket=uri.bucket, etag=found.etag),
    )


def _foreign_tree(
    path: str, objects: Iterable[StoredObject], uri: S3Uri, prefix: str
) -> Iterator[Entry]:
    """Yield the objects below a prefix as a directory: S3 has none, so we name each."""
    made: set[str] = set()
    for found in objects:
        name = f"{path}/{found.key[len(prefix) :]}"
        mtime_ns = int(found.modified.timestamp()) * 10**9
        steps = name[len(path) :].split("/")[:-1]
        for depth in range(1, len(steps) + 1):
            directory = path + "/".join(steps[:depth])
            if directory not in made:
                made.add(directory)
                yield Entry(path=directory, kind=Kind.DIR, mode=_DIR_MODE, mtime_ns=mtime_ns)
        yield _foreign_file(name, found, uri)
