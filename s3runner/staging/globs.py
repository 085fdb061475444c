"""Patterns for outputs: the shell's rules, on exact names, and regular expressions.

Our own because the standard library's `**` follows links, and a tool may leave any links it likes.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator

_WILDCARD = re.compile(r"[*?\[]")


def has_wildcard(path: str) -> bool:
    """Whether a path can be read as a pattern."""
    return _WILDCARD.search(path) is not None


def matches_of(pattern: str, work: str) -> list[str]:
    """Return the paths that match, sorted by bytes; relative patterns start in `work`.

    `*`, `?`, `[...]` match within a name, `**` any number of directories (not through links).
    A wildcard at the beginning of a name matches no name that begins with a dot.
    """
    lead = "/" if pattern.startswith("/") else ""
    segments = pattern.strip("/").split("/")
    base = "/" if lead else work
    found = {lead + "/".join(names) for names in _expand(base, (), segments)}
    return sorted(found, key=os.fsencode)


def files_below(path: str, local: str, matching: str) -> list[str]:
    """Return the paths of the files below the directory `local`, called `path`, that match.

    `matching` is a regular expression for a file's path from there, matched from its beginning.
    Links to files are among them; links to directories are not followed.
    """
    expression = re.compile(matching)
    found = []
    for directory, _, names in os.walk(local):
        above = os.path.relpath(directory, local)
        for name in names:
            below = name if above == os.curdir else f"{above}/{name}"
            if expression.match(below):
                found.append(f"{path}/{below}")
    return sorted(found, key=os.fsencode)


def _expand(base: str, above: tuple[str, ...], segments: list[str]) -> Iterator[tuple[str, ...]]:
    if not segments:
        yield above
        return
    segment, rest = segments[0], segments[1:]
    if segment == "**":
        yield from _expand_deep(base, above, rest)
    elif has_wildcard(segment):
        for name in _names(base, above):
            if _fits(name, segment):
                yield from _expand(base, (*above, name), rest)
    elif os.path.lexists(_join(base, above, segment)):
        yield from _expand(base, (*above, segment), rest)


def _expand_deep(base: str, above: tuple[str, ...], rest: list[str]) -> Iterator[tuple[str, ...]]:
    """Try the rest of the pattern here and in every visible directory below."""
    todo = [above]
    while todo:
        here = todo.pop()
        yield from _expand(base, here, rest or ["*"])
        for name in _names(base, here):
            below = _join(base, here, name)
            if not name.startswith(".") and os.path.isdir(below) and not os.path.islink(below):
                todo.append((*here, name))


def _names(base: str, above: tuple[str, ...]) -> list[str]:
    try:
        return os.listdir(_join(base, above))
    except NotADirectoryError:
        return []


def _join(base: str, above: tuple[str, ...], *name: str) -> str:
    return "/".join((base.rstrip("/"), *above, *name)) or "/"


def _fits(name: str, segment: str) -> bool:
    if name.startswith(".") and not segment.startswith("."):
        return False
    return fnmatch.fnmatchcase(name, segment)
