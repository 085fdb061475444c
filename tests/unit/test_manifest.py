"""Documents and manifests: exact on the way out and back, and suspicious on the way in."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3runner.errors import SpecError
from s3runner.model import Entry, Kind, Manifest, Pack, StoredAt
from s3runner.staging.digest import PART, combine, part_count
from s3runner.staging.manifest import (
    dump_document,
    dump_manifest,
    load_manifest,
    parse_document,
)

HEX = hashlib.sha256(b"x").hexdigest()


def _digest(size: int) -> dict[str, Any]:
    parts = (HEX,) * part_count(size)
    return {"digest": combine(parts), "parts": parts if len(parts) > 1 else ()}


def _file(path: str, size: int = 1, at: StoredAt | None = None) -> Entry:
    return Entry(path, Kind.FILE, 0o644, 5, size, **_digest(size), at=at or StoredAt("blobs/x"))


def _directory(path: str) -> Entry:
    return Entry(path, Kind.DIR, 0o755, -7)


def _link(path: str, target: str) -> Entry:
    return Entry(path, Kind.SYMLINK, 0o777, 1, target=target)


EXAMPLE = Manifest(
    (
        _directory("d"),
        _file("d/a", 0),
        _link("d/l", "gone/caf\udce9"),
        _file("d/p", 100, StoredAt("packs/1", offset=512)),
        _file("large", 3 * PART),
        _file("/absolute/caf\udce9"),
        Entry("foreign", Kind.FILE, 0o644, 0, 9, at=StoredAt("k", bucket="b", etag='"e"')),
        Entry("web", Kind.FILE, 0o644, 0, 9, at=StoredAt("", url="https://h/x", etag='"e"')),
    ),
    (Pack("packs/1", 2048, **_digest(2048)),),
)

NAME = (
    st.binary(min_size=1, max_size=20)
    .filter(lambda raw: b"\0" not in raw and b"/" not in raw and raw not in (b".", b".."))
    .map(os.fsdecode)
)
TIMES = st.integers(-(2**63) + 1, 2**63 - 1)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    entries: list[Entry] = [Entry("d", Kind.DIR, draw(st.integers(0, 0o777)), draw(TIMES))]
    for name in draw(st.lists(NAME, unique=True, max_size=6)):
        mode, mtime_ns = draw(st.integers(0, 0o777)), draw(TIMES)
        kind = draw(st.sampled_from(Kind))
        if kind is Kind.DIR:
            entry = Entry(f"d/{name}", kind, mode, mtime_ns)
        elif kind is Kind.SYMLINK:
            entry = Entry(f"d/{name}", kind, 0o777, mtime_ns, target=draw(NAME))
        else:
            size = draw(st.integers(0, 4 * PART))
            at = StoredAt(draw(st.text(min_size=1, max_size=9).filter(_is_utf8)))
            entry = Entry(f"d/{name}", kind, mode, mtime_ns, size, **_digest(size), at=at)
        entries.append(entry)
    return Manifest(tuple(entries))


def _is_utf8(text: str) -> bool:
    return text.encode("utf-8", "replace").decode() == text


def _through_json(manifest: Manifest) -> Manifest:
    body = dump_document(dump_manifest(manifest))
    return load_manifest(parse_document(body, "s3://b/m"), "s3://b/m")


@given(manifests())
def test_any_manifest_comes_back_exactly(manifest: Manifest) -> None:
    assert _through_json(manifest) == manifest


def test_the_example_comes_back_exactly() -> None:
    assert _through_json(EXAMPLE) == EXAMPLE


def test_bytes_that_are_not_utf8_stand_beside_a_readable_form() -> None:
    entry = dump_manifest(EXAMPLE)["entries"][5]
    assert entry["path"] == "/absolute/caf\ufffd"
    assert base64.b64decode(entry["path_b64"]) == b"/absolute/caf\xe9"


def _set(name: str, value: object, index: int = 1) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["entries"][index][name] = value

    return change


def _remove(name: str, index: int = 1) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["entries"][index].pop(name)


def _append(entry: Entry) -> Callable[[dict[str, Any]], None]:
    dumped = dump_manifest(Manifest((entry,)))["entries"]
    return lambda document: document["entries"].extend(dumped)


def _at(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["entries"][3]["at"].update(values)


def _elsewhere(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["entries"][7]["at"].update(values)


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another protocol": (lambda d: d.update(protocol=2), "protocol 2"),
    "no protocol": (lambda d: d.pop("protocol"), "protocol None"),
    "protocol true": (lambda d: d.update(protocol=True), "protocol True"),
    "no entries": (lambda d: d.pop("entries"), "entries"),
    "entries no list": (lambda d: d.update(entries={}), "entries"),
    "an entry that is no object": (lambda d: d["entries"].append(1), "entries[8]"),
    "an unknown field": (_set("owner", 0), "entries[1].owner"),
    "an unknown field at the top": (lambda d: d.update(extra=1), "extra"),
    "no path": (_remove("path"), "entries[1].path"),
    "path a number": (_set("path", 1), "entries[1].path"),
    "path empty": (_set("path", ""), "entries[1].path"),
    "path up": (_set("path", "d/../../x"), "entries[1].path"),
    "path with dot": (_set("path", "./a"), "entries[1].path"),
    "path with empty segment": (_set("path", "d//a"), "entries[1].path"),
    "path ends in slash": (_set("path", "a/"), "entries[1].path"),
    "path the root": (_set("path", "/"), "entries[1].path"),
    "path with NUL": (_set("path", "a\0b"), "entries[1].path"),
    "path a lone surrogate": (_set("path", "\ud800"), "entries[1].path"),
    "base64 of another path": (_set("path_b64", "/w=="), "entries[1].path_b64"),
    "base64 without need": (_set("path_b64", "ZC9h"), "entries[1].path_b64"),
    "base64 broken": (_set("path_b64", "!"), "entries[1].path"),
    "kind unknown": (_set("kind", "fifo"), "entries[1].kind"),
    "mode too wide": (_set("mode", 0o1777), "entries[1].mode"),
    "mode negative": (_set("mode", -1), "entries[1].mode"),
    "mode true": (_set("mode", True), "entries[1].mode"),
    "mode a float": (_set("mode", 1.0), "entries[1].mode"),
    "mtime too large": (_set("mtime_ns", 2**63), "entries[1].mtime_ns"),
    "size negative": (_set("size", -1), "entries[1].size"),
    "size does not fit the parts": (_set("size", 1, 4), "entries[4].digest"),
    "digest not one": (_set("digest", "x"), "entries[1].digest"),
    "digest missing": (_set("digest", ""), "entries[1].digest"),
    "parts not strings": (_set("parts", [1, 2, 3], 4), "entries[4].parts"),
    "a directory with a size": (_set("size", 1, 0), "entries[0].size"),
    "a link without target": (_set("target", "", 2), "entries[2].target"),
    "a file that lies nowhere": (_remove("at"), "entries[1].at"),
    "a place without key": (_at(key=""), "entries[3].at.key"),
    "a place with more": (_at(version="1"), "entries[3].at.version"),
    "an offset without pack": (_at(key="other"), "entries[3].at.offset"),
    "an offset behind the end": (_at(offset=2048 - 99), "entries[3].at.offset"),
    "a negative offset": (_at(offset=-1), "entries[3].at.offset"),
    "an offset in another bucket": (_at(bucket="b"), "entries[3].at.offset"),
    "a pack twice": (lambda d: d["packs"].append(d["packs"][0]), "packs"),
    "a pack of another size": (lambda d: d["packs"][0].update(size=PART + 1), "packs[0].digest"),
    "a path twice": (_append(_file("d/a")), "twice"),
    "below a file": (_append(_file("large/x")), "'large'"),
    "far below a file": (_append(_file("large/x/y")), "'large'"),
    "below a link": (_append(_file("d/l/x")), "'d/l'"),
    "before its directory": (lambda d: d["entries"].reverse(), "before its directory"),
    "an absolute link": (_append(_link("d/out", "/etc")), "'d/out'"),
    "a URL with a key": (_elsewhere(key="k"), ".at.key"),
    "a URL with an offset": (_elsewhere(offset=1), ".at.offset"),
    "a URL that is a path": (_elsewhere(url="/etc/passwd"), ".at.url"),
    "a URL of this machine": (_elsewhere(url="file:///etc/passwd"), ".at.url"),
    "a URL of the store": (_elsewhere(url="s3://b/k"), ".at.url"),
    "a URL with a password": (_elsewhere(url="https://u:p@h/x"), ".at.url"),
    "a URL whose ETag is a number": (_elsewhere(etag=1), ".at.etag"),
    "a link that leaves": (_append(_link("d/out", "../x")), "'d/out'"),
    "a link in no directory": (_append(_link("out", "x")), "'out'"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_manifest_is_refused_naming_origin_and_field(case: str) -> None:
    damage, field = DAMAGE[case]
    document = copy.deepcopy(dump_manifest(EXAMPLE))
    damage(document)
    with pytest.raises(SpecError) as caught:
        load_manifest(document, "s3://b/m")
    assert field in caught.value.reason
    assert caught.value.source == "s3://b/m"


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_what_is_no_object_is_no_manifest(document: object) -> None:
    with pytest.raises(SpecError, match="not a JSON object"):
        load_manifest(document, "here")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_json_at_all_gets_past_as_anything_but_a_spec_error(value: object) -> None:
    with pytest.raises(SpecError):
        load_manifest({"protocol": 1, "entries": [value], "packs": []}, "here")


def test_a_document_is_canonical() -> None:
    assert dump_document({"b": [1], "a": "ü"}) == b'{"a":"\\u00fc","b":[1],"protocol":1}'


def test_a_document_comes_back() -> None:
    assert parse_document(dump_document({"a": 1.5}), "here") == {"a": 1.5, "protocol": 1}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"{}",
        b'{"protocol":"1"}',
        b'{"protocol":1.0}',
        b'{"protocol":true}',
        b'{"protocol":2}',
        b'{"protocol":1,"a":1,"a":2}',
        b'{"protocol":1,"a":{"b":1,"b":1}}',
        b'{"protocol":1,"a":NaN}',
        b'{"protocol":1,"a":-Infinity}',
        b'{"protocol":1,"a":1e999}',
        b'{"protocol":1,"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda body: repr(body[:30]),
)
def test_a_damaged_document_is_refused(body: bytes) -> None:
    with pytest.raises(SpecError) as caught:
        parse_document(body, "s3://b/spec.json")
    assert caught.value.source == "s3://b/spec.json"


def test_nothing_that_json_cannot_say_is_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_document({"a": float("nan")})
    assert json.loads(dump_document({})) == {"protocol": 1}
