"""Laying a manifest's tree out on this disk, every byte verified before it gets its name.

It is fetch in the pod and sync on the head: the same code, another `place`.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from s3runner.errors import (
    IntegrityError,
    NoSpaceError,
    S3RunnerError,
    SpecError,
    StagingError,
)
from s3runner.model import Entry, Kind, Manifest, Pack, StoredAt
from s3runner.staging.digest import (
    PartHasher,
    combine,
    listed,
    part_count,
    part_range,
    part_size,
    parts_of,
    sha256_hex,
)
from s3runner.staging.parallel import ByteBudget, run_all
from s3runner.staging.placing import (
    IncomingFile,
    check_space,
    finish_directory,
    local_error,
    make_directory,
    make_link,
    placed_mode,
)
from s3runner.store.meter import Meter
from s3runner.store.origin import Elsewhere, Origin, StoredFile
from s3runner.store.protocol import Chunks, ObjectStore

REQUEST_COST = 1024**2
"""Bytes that could arrive in the time of one more request."""

Place = Callable[[str], str]
"""Where a path of the manifest lies on this machine (absolute)."""


def materialise(  # noqa: PLR0913 # one value for each thing that two hops differ in
    store: ObjectStore,
    manifest: Manifest,
    place: Place,
    *,
    meter: Meter,
    widen: bool = False,
    elsewhere: Elsewhere | None = None,
    mark: str = "",
) -> Manifest:
    """Make the tree; return the manifest with the digests of foreign files filled in.

    Files are verified, then renamed into place, replacing files and links that are there. Modes
    are exact whatever the umask, but readable to the owner (see `placing.placed_mode`). Requests
    are counted by the store, payload by us. `elsewhere` reads what lies outside of the store;
    without it such a file is refused. `mark` is in the names of files on their way, so that one who
    was killed can be cleared up after. Raises StagingError with every failure: ObjectNotFound,
    ObjectChanged, Integrity, NoSpace, Unsupported, OutputConflict, LocalAccess and store errors.
    """
    meter.start()
    entries = sorted(manifest.entries, key=lambda entry: os.fsencode(entry.path))
    directories = [entry for entry in entries if entry.kind is Kind.DIR]
    links = [entry for entry in entries if entry.kind is Kind.SYMLINK]
    files = [entry for entry in entries if entry.kind is Kind.FILE]
    known: set[str] = set()
    _run_local(lambda: check_space((place(entry.path), entry.size) for entry in entries))
    _each(entries, place, partial(_make_directories, place=place, known=known))
    incoming = {
        entry.path: IncomingFile(place(entry.path), entry, placed_mode(entry, widen=widen), mark)
        for entry in files
    }
    arrivals = _Arrivals(store, elsewhere, incoming, meter)
    try:
        run_all("", arrivals.tasks(files, manifest.packs))
    finally:
        for file in incoming.values():
            file.discard()
    _each(links, place, lambda entry: make_link(place(entry.path), entry, mark))
    _each(
        directories[::-1],
        place,
        lambda entry: finish_directory(place(entry.path), entry, placed_mode(entry, widen=widen)),
    )
    return replace(manifest, entries=tuple(map(arrivals.read, manifest.entries)))


def _each(entries: Iterable[Entry], place: Place, act: Callable[[Entry], None]) -> None:
    """Act on each entry. Raises StagingError with all that the disk refused."""
    failures: list[S3RunnerError] = []
    for entry in entries:
        try:
            act(entry)
        except OSError as error:
            failures.append(local_error(error, place(entry.path)))
    if failures:
        raise StagingError("", failures)


def _run_local(check: Callable[[], None]) -> None:
    try:
        check()
    except S3RunnerError as error:
        raise StagingError("", [error]) from error


def _make_directories(entry: Entry, *, place: Place, known: set[str]) -> None:
    """Make what is above the entry, and the entry itself if it is a directory.

    `known` holds the paths that are real directories by now. A relative path is led through no
    link; what is above an absolute path is the machine's own and taken as it is.
    """
    above = entry.path.rpartition("/")[0]
    if above not in known:
        if entry.path.startswith("/") or not above:
            os.makedirs(os.path.dirname(place(entry.path)), exist_ok=True)
        else:
            _make_directories(replace(entry, path=above, kind=Kind.FILE), place=place, known=known)
            make_directory(place(above), 0o777, ours=False)
        known.add(above)
    if entry.kind is Kind.DIR:
        make_directory(place(entry.path))
        known.add(entry.path)


class _Arrivals:
    """The requests that bring the files, as tasks for threads."""

    def __init__(
        self,
        store: ObjectStore,
        elsewhere: Elsewhere | None,
        incoming: dict[str, IncomingFile],
        meter: Meter,
    ) -> None:
        self._own = store
        self._elsewhere = elsewhere
        self._others: dict[str, ObjectStore] = {}
        self._incoming = incoming
        self._meter = meter
        self._budget = ByteBudget()
        self._foreign: dict[str, _ArrivingFile] = {}

    def tasks(self, files: Sequence[Entry], packs: Sequence[Pack]) -> list[Callable[[], None]]:
        """Return one task for each part of each object, and one for each pack."""
        packed: dict[str, list[_Member]] = defaultdict(list)
        tasks: list[Callable[[], None]] = []
        for entry in files:
            if entry.at is None:
                raise SpecError(f"the manifest does not say where {entry.path!r} lies")
            incoming = self._incoming[entry.path]
            if entry.at.offset is not None:
                packed[entry.at.key].append(_Member(entry, entry.at, incoming, self._meter))
            else:
                tasks += self._fetch_file(entry, entry.at)
        wanted = {pack.key: pack for pack in packs}
        for key, members in packed.items():
            if _are_few(members, wanted[key]):
                for member in members:
                    tasks += self._fetch_file(member.entry, member.at)
            else:
                tasks.append(partial(self._fetch_pack, wanted[key], members))
        return tasks

    def _fetch_file(self, entry: Entry, at: StoredAt) -> list[Callable[[], None]]:
        """Return a task for each part of an object, or of the range of a pack that is a file."""
        origin = self._origin(entry, at)
        file = _ArrivingFile(origin, entry, self._incoming[entry.path], self._meter)
        if not entry.digest:
            self._foreign[entry.path] = file
        return [partial(file.fetch, index) for index in range(part_count(entry.size))]

    def _origin(self, entry: Entry, at: StoredAt) -> Origin:
        if at.url is None:
            return StoredFile(self._store(at), at, entry.size)
        if self._elsewhere is None:
            raise SpecError(f"{entry.path!r} may not lie outside of the store")
        return self._elsewhere.open(at, entry.size)

    def _store(self, at: StoredAt) -> ObjectStore:
        if at.bucket is None:
            return self._own
        if at.bucket not in self._others:
            self._others[at.bucket] = self._own.in_bucket(at.bucket)
        return self._others[at.bucket]

    def read(self, entry: Entry) -> Entry:
        """Return the entry with the digest that its bytes turned out to have."""
        file = self._foreign.get(entry.path)
        if file is None:
            return entry
        return replace(entry, digest=combine(file.hashes), parts=listed(file.hashes))

    def _fetch_pack(self, pack: Pack, members: Sequence[_Member]) -> None:
        """Bring the parts of a pack that hold members we want, and spread them."""
        hashes = parts_of(pack)
        origin = StoredFile(self._own, StoredAt(pack.key), pack.size)
        wanted: dict[int, list[_Member]] = defaultdict(list)
        for member in members:
            for index in member.parts_in(pack):
                wanted[index].append(member)
        failures: list[S3RunnerError] = []
        for index in sorted(wanted):
            start, length = part_range(pack.size, index)
            with self._budget.holding(length):
                consume = partial(whole_part, length=length, expected=hashes[index])
                data = origin.get(consume, start=start, length=length)
                for member in wanted[index]:
                    try:
                        member.take(start, data)
                    except NoSpaceError:
                        raise
                    except S3RunnerError as error:
                        failures.append(error)
        if failures:
            raise StagingError("", failures)


class _ArrivingFile:
    """A file that is an object of its own: parts by range, in any order, each verified."""

    def __init__(self, origin: Origin, entry: Entry, incoming: IncomingFile, meter: Meter) -> None:
        self._origin = origin
        self._entry = entry
        self._incoming = incoming
        self._meter = meter
        self._expected = parts_of(entry)
        self.hashes = [""] * part_count(entry.size)
        self._left = len(self.hashes)
        self._failed = False
        self._lock = threading.Lock()

    def fetch(self, index: int) -> None:
        """Bring one part; whoever brings the last one gives the file its name.

        Only the first part that fails tells of it: parts of one file fail for one reason.
        """
        if self._failed:
            return
        try:
            start, length = part_range(self._entry.size, index)
            if len(self.hashes) == 1 or not self._origin.in_one_go:
                self._fetch(index, start, length)
            elif index == 0:
                self._fetch(0, 0, self._entry.size)
        except BaseException as error:
            if isinstance(error, S3RunnerError):
                error.target = self._incoming.local
            with self._lock:
                first, self._failed = not self._failed, True
            if first:
                raise

    def _fetch(self, index: int, start: int, length: int) -> None:
        """Bring `length` bytes, which begin with part `index`: that part, or all of them."""

        def consume(chunks: Chunks) -> tuple[str, ...]:
            hasher, position = PartHasher(part_size(self._entry.size)), start
            for chunk in chunks:
                hasher.update(chunk)
                if position + len(chunk) > start + length:
                    raise IntegrityError("more bytes came than were asked for")
                self._incoming.write(position, chunk)
                position += len(chunk)
            found = hasher.finish()
            expected = self._expected[index : index + len(found)] or found
            return _verified(found, expected, position - start == length)

        found = self._origin.get(consume, start=start, length=length)
        self.hashes[index : index + len(found)] = found
        self._meter.add(size=length)
        with self._lock:
            self._left -= len(found)
            complete = self._left == 0
        if complete:
            self._incoming.keep()
            self._meter.add(files=1)


class _Member:
    """A file of a pack, taken from the pack's parts in their order."""

    def __init__(self, entry: Entry, at: StoredAt, incoming: IncomingFile, meter: Meter) -> None:
        self.entry = entry
        self.at = at
        self._offset = at.offset or 0
        self._end = self._offset + entry.size
        self._incoming = incoming
        self._meter = meter
        self._hasher = PartHasher(part_size(entry.size))

    def parts_in(self, pack: Pack) -> range:
        """Return the numbers of the pack's parts that hold its bytes."""
        size, last = part_size(pack.size), part_count(pack.size) - 1
        return range(
            min(self._offset // size, last),
            min(max(self._offset, self._end - 1) // size, last) + 1,
        )

    def take(self, start: int, part: bytearray) -> None:
        """Take what is ours of the bytes from `start`. Raises IntegrityError at the end."""
        first, last = max(start, self._offset), min(start + len(part), self._end)
        piece = memoryview(part)[first - start : last - start]
        self._hasher.update(piece)
        self._incoming.write(first - self._offset, piece)
        if last < self._end:
            return
        if combine(self._hasher.finish()) != self.entry.digest:
            raise IntegrityError("the pack holds other bytes", target=self._incoming.local)
        self._incoming.keep()
        self._meter.add(size=self.entry.size, files=1)


def _are_few(members: Sequence[_Member], pack: Pack) -> bool:
    """Tell whether asking for each member by itself is cheaper than for the parts they lie in."""
    parts = {index for member in members for index in member.parts_in(pack)}
    alone = sum(member.entry.size + REQUEST_COST for member in members)
    return alone < sum(part_range(pack.size, index)[1] for index in parts)


def whole_part(chunks: Chunks, length: int, expected: str) -> bytearray:
    """Gather one verified part in memory. Raises IntegrityError."""
    part, position = bytearray(length), 0
    for chunk in chunks:
        part[position : position + len(chunk)] = chunk
        position += len(chunk)
    _verified((sha256_hex(part),), (expected,), len(part) == position == length)
    return part


def _verified(
    found: tuple[str, ...],
    expected: tuple[str, ...],
    complete: bool,  # noqa: FBT001 # one more test
) -> tuple[str, ...]:
    """Return the hashes that were found if they are the right ones. Raises IntegrityError."""
    if not complete or found != expected:
        raise IntegrityError("other bytes arrived than were sent")
    return found
