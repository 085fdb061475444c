"""What stage-in would upload and what of the outputs is packed, decided without touching anything.

Pure: trees and digests in, keys out. `upload` carries the plan out, `s3runner plan` prints it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime

from s3runner.errors import SettingsError
from s3runner.model import Entry, Kind, Manifest, Pack, StoredAt
from s3runner.staging.digest import combine, listed
from s3runner.staging.expiry import is_near_its_end
from s3runner.staging.layout import StoreLayout
from s3runner.staging.manifest import conflict
from s3runner.staging.pack import SMALL, PackPlan, plan_packs
from s3runner.staging.tree import LocalFile, Tree
from s3runner.store.protocol import StoredObject

MANY_MATCHES = 100
"""A glob with more matches than this is packed like a directory."""

Parts = tuple[str, ...]
"""The hex SHA-256 of each part of some content."""


@dataclass(frozen=True, slots=True)
class PackSource:
    """The files of a pack: `paths` in the job and `files` here stand in the members' order."""

    plan: PackPlan
    paths: tuple[str, ...]
    files: tuple[LocalFile, ...]


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which files travel in packs and which as objects of their own (by path in the job)."""

    packs: tuple[PackSource, ...]
    plain: Mapping[str, LocalFile]


@dataclass(frozen=True, slots=True)
class Digests:
    """What hashing found: the parts of every file by its path, and of the packs in their order."""

    files: Mapping[str, Parts]
    packs: Sequence[Parts]


@dataclass(frozen=True, slots=True)
class Upload:
    """One object that should be in the store. `members` are its files' digests, for a pack."""

    key: str
    size: int
    digest: str
    parts: Parts
    source: LocalFile | PackSource
    members: tuple[Parts, ...] = ()

    @property
    def payload(self) -> int:
        """Bytes of the user's files in it."""
        if isinstance(self.source, LocalFile):
            return self.size
        return sum(member.size for member in self.source.plan.members)

    @property
    def file_count(self) -> int:
        """How many of the user's files are in it."""
        return len(self.source.files) if isinstance(self.source, PackSource) else 1


@dataclass(frozen=True, slots=True)
class StageInPlan:
    """The tree as fetch will lay it out, and the objects that it needs, each once."""

    manifest: Manifest
    uploads: tuple[Upload, ...]


def group_inputs(trees: Sequence[Tree]) -> Grouping:
    """Choose what is packed: files below 1 MiB, those of each directory apart.

    Their names in the pack are relative to the directory, so the same directory makes the same
    pack wherever a job puts it. Small inputs that are files themselves share packs.
    """
    groups: dict[str, dict[str, tuple[str, LocalFile]]] = {}
    plain: dict[str, LocalFile] = {}
    for tree in trees:
        for path, file in tree.files.items():
            group, name = ("", path) if path == tree.path else (tree.path, path[len(tree.path) :])
            if file.identity.size < SMALL:
                groups.setdefault(group, {})[name.removeprefix("/")] = (path, file)
            else:
                plain[path] = file
    packs: list[PackSource] = []
    for members in groups.values():
        made, alone = pack_up(members)
        packs += made
        plain |= alone
    return Grouping(tuple(packs), plain)


def group_outputs(
    trees: Sequence[Tree], declared_files: AbstractSet[str]
) -> tuple[list[PackSource], dict[str, LocalFile]]:
    """Choose what is packed; an output's files share no pack with another output's."""
    directories = {e.path for tree in trees for e in tree.entries if e.kind is Kind.DIR}
    packs: list[PackSource] = []
    alone: dict[str, LocalFile] = {}
    for tree in trees:
        tops = [e for e in tree.entries if e.path.rpartition("/")[0] not in directories]
        many = len(tops) > MANY_MATCHES
        packed: dict[str, tuple[str, LocalFile]] = {}
        for path, file in tree.files.items():
            member = many or path.rpartition("/")[0] in directories
            if member and file.identity.size < SMALL and path not in declared_files:
                packed[path] = (path, file)
            else:
                alone[path] = file
        made, single = pack_up(packed)
        packs += made
        alone |= single
    return packs, alone


def pack_up(
    members: Mapping[str, tuple[str, LocalFile]],
) -> tuple[list[PackSource], dict[str, LocalFile]]:
    """Put files (name in the pack -> path in the job, file) into packs.

    Returns the packs, and by its path each file that would be alone in one.
    """
    packs: list[PackSource] = []
    alone: dict[str, LocalFile] = {}
    for plan in plan_packs((name, file.identity.size) for name, (_, file) in members.items()):
        chosen = [members[member.name] for member in plan.members]
        if len(chosen) == 1:
            alone[chosen[0][0]] = chosen[0][1]
        else:
            paths, files = zip(*chosen, strict=True)
            packs.append(PackSource(plan, paths, files))
    return packs, alone


def plan_stage_in(
    trees: Sequence[Tree], grouping: Grouping, digests: Digests, layout: StoreLayout
) -> StageInPlan:
    """Name every object by its content and say where each file lies.

    Raises SettingsError for two inputs that claim the same place.
    """
    uploads: dict[str, Upload] = {}
    places: dict[str, StoredAt] = {}
    for path, file in grouping.plain.items():
        parts = digests.files[path]
        upload = _upload(layout, file.identity.size, parts, file)
        uploads.setdefault(upload.key, upload)
        places[path] = StoredAt(upload.key)
    packs: dict[str, Pack] = {}
    for source, parts in zip(grouping.packs, digests.packs, strict=True):
        upload = _upload(layout, source.plan.size, parts, source)
        upload = replace(upload, members=tuple(digests.files[path] for path in source.paths))
        uploads.setdefault(upload.key, upload)
        packs[upload.key] = Pack(upload.key, upload.size, upload.digest, listed(parts))
        for path, member in zip(source.paths, source.plan.members, strict=True):
            places[path] = StoredAt(upload.key, member.offset)
    entries = [_stored(entry, digests.files, places) for tree in trees for entry in tree.entries]
    manifest = make_manifest(entries, packs.values())
    return StageInPlan(manifest, tuple(uploads.values()))


def make_manifest(entries: Iterable[Entry], packs: Iterable[Pack]) -> Manifest:
    """Put a manifest in its canonical order. Raises SettingsError where entries clash."""
    ordered = tuple(sorted(entries, key=lambda entry: os.fsencode(entry.path)))
    reason = conflict(ordered)
    if reason:
        raise SettingsError(f"two inputs or outputs clash: {reason}")
    return Manifest(ordered, tuple(sorted(packs, key=lambda pack: pack.key)))


def merged(*manifests: Manifest) -> Manifest:
    """Return one manifest of several. Raises SettingsError where entries clash."""
    packs = {pack.key: pack for manifest in manifests for pack in manifest.packs}
    return make_manifest(
        (entry for manifest in manifests for entry in manifest.entries), packs.values()
    )


def _upload(layout: StoreLayout, size: int, parts: Parts, source: LocalFile | PackSource) -> Upload:
    digest = combine(parts)
    return Upload(layout.blob(digest), size, digest, parts, source)


def _stored(entry: Entry, digests: Mapping[str, Parts], places: Mapping[str, StoredAt]) -> Entry:
    if entry.kind is not Kind.FILE:
        return entry
    parts = digests[entry.path]
    return replace(entry, digest=combine(parts), parts=listed(parts), at=places[entry.path])


def decide_upload(
    stored: StoredObject | None, size: int, now: datetime, blob_ttl_s: float
) -> tuple[bool, str]:
    """Decide whether a blob goes up, and say why.

    | stored | age | size | upload? | because |
    |---|---|---|---|---|
    | no | | | yes | it is not there |
    | yes | over blob_ttl / 3 | | yes | gc might delete it under the job |
    | yes | younger | another | yes | a content key never holds other bytes: it is damaged |
    | yes | younger | the same | no | it is there |
    """
    if stored is None:
        return True, "not in the store"
    if is_near_its_end(stored.modified, now, blob_ttl_s):
        age = now - stored.modified
        return True, f"in the store for {age.days} days: renewed before gc may take it"
    if stored.size != size:
        return True, f"damaged in the store ({stored.size} bytes, not {size})"
    return False, "already in the store"
