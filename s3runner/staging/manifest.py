"""Documents and manifests: JSON in and out, with every field checked on the way in.

Pure. What comes from the store is not trusted: a manifest that passes here can be laid out on a
disk without leading anything out of its tree.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from s3runner.errors import SettingsError, SpecError
from s3runner.model import PROTOCOL, Entry, Kind, Manifest, Pack, StoredAt
from s3runner.staging.digest import digest_problem
from s3runner.staging.links import escaping_links
from s3runner.store.urls import check_url, is_s3, is_url

MAX_DOCUMENT = 256 * 1024**2
"""Bytes; a manifest of a million files is smaller."""

DAMAGE_HINT = "somebody else writes below this prefix, or something changes bytes on the way"

_INT64 = 2**63 - 1
MAX_SIZE = 5 * 1024**4
"""S3's limit for one object, in bytes."""


def dump_document(document: Mapping[str, Any]) -> bytes:
    """Return canonical JSON (sorted keys, no blanks, ASCII) with the protocol's version."""
    return json.dumps(
        {**document, "protocol": PROTOCOL},
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
    ).encode()


def parse_document(body: bytes, origin: str) -> dict[str, Any]:
    """Read a JSON object of our protocol. Raises SpecError naming `origin` (a URI).

    Refused: more than MAX_DOCUMENT bytes, deep nesting, duplicate keys, NaN and infinities.
    """
    if len(body) > MAX_DOCUMENT:
        raise SpecError(f"the document is too large ({len(body)} bytes)", source=origin)
    try:
        document = json.loads(
            body.decode(),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        raise SpecError(f"damaged document: {error}", source=origin, hint=DAMAGE_HINT) from error
    if not isinstance(document, dict):
        raise SpecError("damaged document: not a JSON object", source=origin, hint=DAMAGE_HINT)
    _check_protocol(document, origin)
    return document


def document_digest(body: bytes) -> str:
    """Return the digest that other documents name this one by: one part, whatever its size."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"duplicate key {next(n for n in names if names.count(n) > 1)!r}")
    return document


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large a number")
    return number


def _check_protocol(document: Mapping[str, Any], origin: str) -> None:
    found = document.get("protocol")
    if type(found) is not int or found != PROTOCOL:
        reason = f"protocol {found!r} is not the one this version speaks ({PROTOCOL})"
        raise SpecError(reason, source=origin, hint="use the same s3runner on head and pods")


def dump_manifest(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest as JSON values."""
    return {
        "protocol": PROTOCOL,
        "entries": [_dump_entry(entry) for entry in manifest.entries],
        "packs": [
            {"key": pack.key, "size": pack.size, "digest": pack.digest, "parts": list(pack.parts)}
            for pack in manifest.packs
        ],
    }


def _dump_entry(entry: Entry) -> dict[str, Any]:
    dumped: dict[str, Any] = {
        **_dump_bytes("path", entry.path),
        "kind": entry.kind.value,
        "mode": entry.mode,
        "mtime_ns": entry.mtime_ns,
    }
    if entry.kind is Kind.SYMLINK:
        dumped |= _dump_bytes("target", entry.target)
    if entry.kind is Kind.FILE:
        dumped |= {"size": entry.size, "digest": entry.digest, "at": _dump_at(entry.at)}
    if entry.parts:
        dumped["parts"] = list(entry.parts)
    return dumped


def _dump_bytes(name: str, path: str) -> dict[str, str]:
    """Return the path for people and, where that is not exact, its bytes."""
    raw = os.fsencode(path)
    shown = raw.decode("utf-8", "replace")
    if shown.encode() == raw:
        return {name: shown}
    return {name: shown, f"{name}_b64": base64.b64encode(raw).decode()}


def _dump_at(at: StoredAt | None) -> dict[str, Any] | None:
    if at is None:
        return None
    key = at.key if at.url is None else None
    values = {"key": key, "offset": at.offset, "bucket": at.bucket, "etag": at.etag}
    values |= {"url": at.url, "modified": at.modified}
    return {name: value for name, value in values.items() if value is not None}


def load_manifest(document: object, origin: str) -> Manifest:
    """Check and return a manifest. Raises SpecError naming `origin` and the field.

    Beyond each field it holds: no path twice, nothing below a file or a link, a directory before
    what is in it, links that stay in their tree, pack members inside a pack that is listed.
    """
    fields = _Fields(document, origin)
    _check_protocol(fields.values, origin)
    packs = {pack.key: pack for pack in map(_load_pack, fields.objects("packs"))}
    if len(packs) != len(fields.values["packs"]):
        raise fields.problem("packs", "a key twice")
    entries = tuple(_load_entry(item, packs) for item in fields.objects("entries"))
    fields.no_others("protocol")
    reason = conflict(entries)
    if reason:
        raise fields.problem("entries", reason)
    escaping = next(escaping_links(entries), None)
    if escaping is not None:
        raise fields.problem("entries", f"the link {escaping.path!r} leaves its directory")
    return Manifest(entries, tuple(packs.values()))


def conflict(entries: Iterable[Entry]) -> str:
    """Say which two entries cannot stand in one tree; empty if all can."""
    entries = tuple(entries)
    kinds = {entry.path: entry.kind for entry in entries}
    seen: set[str] = set()
    sound: set[str] = {"", "/"}
    for entry in entries:
        if entry.path in seen:
            return f"{entry.path!r} twice"
        above, trail = entry.path.rpartition("/")[0], []
        while above not in sound:
            if kinds.get(above, Kind.DIR) is not Kind.DIR:
                return f"{entry.path!r} lies below {above!r}, which is no directory"
            if above in kinds and above not in seen:
                return f"{entry.path!r} stands before its directory"
            trail.append(above)
            above = above.rpartition("/")[0]
        sound.update(trail)
        seen.add(entry.path)
    return ""


def path_problem(path: str) -> str:
    """Say why a path cannot stand in a manifest; empty if it can."""
    if not path or "\0" in path:
        return "an empty path, or one with a NUL byte"
    segments = path.removeprefix("/").split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        return f"{path!r} has an empty, '.' or '..' segment"
    return ""


def _load_pack(fields: _Fields) -> Pack:
    size = fields.integer("size", 0, MAX_SIZE)
    digest, parts = _load_digest(fields, size)
    pack = Pack(fields.text("key"), size, digest, parts)
    fields.no_others()
    return pack


def _load_entry(fields: _Fields, packs: Mapping[str, Pack]) -> Entry:
    path = _load_bytes(fields, "path")
    reason = path_problem(path)
    if reason:
        raise fields.problem("path", reason)
    kind = fields.text("kind")
    mode = fields.integer("mode", 0, 0o777)
    mtime_ns = fields.integer("mtime_ns", -_INT64, _INT64)
    if kind == Kind.DIR.value:
        entry = Entry(path, Kind.DIR, mode, mtime_ns)
    elif kind == Kind.SYMLINK.value:
        target = _load_bytes(fields, "target")
        if not target or "\0" in target:
            raise fields.problem("target", "empty, or with a NUL byte")
        entry = Entry(path, Kind.SYMLINK, mode, mtime_ns, target=target)
    elif kind == Kind.FILE.value:
        size = fields.integer("size", 0, MAX_SIZE)
        at = _load_at(fields.object("at"), size, packs)
        digest, parts = _load_digest(fields, size, unread=at.etag is not None or at.url is not None)
        entry = Entry(path, Kind.FILE, mode, mtime_ns, size, digest, parts, at=at)
    else:
        raise fields.problem("kind", f"{kind!r} is none of file, dir, symlink")
    fields.no_others()
    return entry


def _load_bytes(fields: _Fields, name: str) -> str:
    """Read a path or a link's target; the base64 form, where there is one, is the exact one."""
    shown = fields.text(name)
    encoded = fields.optional_text(f"{name}_b64")
    try:
        if encoded is None:
            return os.fsdecode(shown.encode())
        raw = base64.b64decode(encoded, validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise fields.problem(name, str(error)) from error
    if raw.decode("utf-8", "replace") != shown or shown.encode() == raw:
        raise fields.problem(f"{name}_b64", f"does not fit {name}")
    return os.fsdecode(raw)


def _load_digest(
    fields: _Fields, size: int, *, unread: bool = False
) -> tuple[str, tuple[str, ...]]:
    """Read digest and parts; `unread`: a foreign file may have none yet."""
    digest, parts = fields.text("digest"), fields.texts("parts")
    reason = "" if unread and not digest and not parts else digest_problem(digest, parts, size)
    if reason:
        raise fields.problem("digest", reason)
    return digest, parts


def _load_at(fields: _Fields, size: int, packs: Mapping[str, Pack]) -> StoredAt:
    if "url" in fields.values:
        return _load_elsewhere(fields)
    at = StoredAt(
        fields.text("key"),
        fields.optional_integer("offset"),
        fields.optional_text("bucket"),
        fields.optional_text("etag"),
    )
    fields.no_others()
    if not at.key:
        raise fields.problem("key", "empty")
    if at.offset is not None:
        if at.bucket is not None or at.etag is not None or at.key not in packs:
            raise fields.problem("offset", "stands with a key that is none of the packs")
        if at.offset + size > packs[at.key].size:
            raise fields.problem("offset", "the file ends behind its pack")
    return at


def _load_elsewhere(fields: _Fields) -> StoredAt:
    url = fields.text("url")
    at = StoredAt(
        "",
        etag=fields.optional_text("etag"),
        url=url,
        modified=fields.optional_text("modified"),
    )
    fields.no_others()
    if not is_url(url) or is_s3(url):
        raise fields.problem("url", "not a URL of what lies outside of the store")
    try:
        check_url(url)
    except SettingsError as error:
        raise fields.problem("url", error.reason) from error
    return at


@dataclass
class _Fields:
    """A JSON object that is being read: each field once, with its type, by name in errors."""

    document: object
    origin: str
    where: str = ""
    known: set[str] = field(default_factory=set)

    @property
    def values(self) -> dict[str, Any]:
        if not isinstance(self.document, dict):
            raise self.problem("", "not a JSON object")
        return self.document

    def problem(self, name: str, reason: str) -> SpecError:
        place = ".".join(part for part in (self.where, name) if part)
        return SpecError(f"damaged manifest: {place}: {reason}", source=self.origin)

    def _get(self, name: str) -> object:
        self.known.add(name)
        if name not in self.values:
            raise self.problem(name, "missing")
        return self.values[name]

    def text(self, name: str) -> str:
        value = self._get(name)
        if not isinstance(value, str):
            raise self.problem(name, "not a string")
        return value

    def optional_text(self, name: str) -> str | None:
        return self.text(name) if name in self.values else None

    def texts(self, name: str) -> tuple[str, ...]:
        if name not in self.values:
            return ()
        value = self._get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.problem(name, "not a list of strings")
        return tuple(value)

    def integer(self, name: str, least: int, most: int) -> int:
        value = self._get(name)
        # a JSON true is an int to Python
        if type(value) is not int or not least <= value <= most:
            raise self.problem(name, f"not an integer from {least} to {most}")
        return value

    def optional_integer(self, name: str) -> int | None:
        return self.integer(name, 0, MAX_SIZE) if name in self.values else None

    def object(self, name: str) -> _Fields:
        return _Fields(self._get(name), self.origin, f"{self.where}.{name}")

    def objects(self, name: str) -> list[_Fields]:
        value = self._get(name)
        if not isinstance(value, list):
            raise self.problem(name, "not a list")
        return [_Fields(item, self.origin, f"{name}[{index}]") for index, item in enumerate(value)]

    def no_others(self, *known: str) -> None:
        others = self.values.keys() - self.known - set(known)
        if others:
            raise self.problem(min(others), "unknown field")
