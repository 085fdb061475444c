"""The rule for symbolic links inside a tree: relative, and never out of the tree.

Pure, so that the scanner on one side and the manifest's reader on the other apply the same rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from s3runner.model import Entry, Kind

MAX_HOPS = 40
"""After so many links the kernel gives up (ELOOP), so nobody is led anywhere."""


def escaping_links(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the links that are absolute or lead out of the topmost directory they lie in.

    A link that lies in no directory of the manifest has no tree to stay in and is yielded too.
    """
    entries = list(entries)
    links = {entry.path: entry.target for entry in entries if entry.kind is Kind.SYMLINK}
    directories = {entry.path for entry in entries if entry.kind is Kind.DIR}
    for entry in entries:
        if entry.kind is Kind.SYMLINK:
            root = _topmost(entry.path, directories)
            if root is None or not stays_inside(root, entry.path, links):
                yield entry


def _topmost(path: str, directories: set[str]) -> str | None:
    position = path.find("/", 1)
    while position != -1:
        if path[:position] in directories:
            return path[:position]
        position = path.find("/", position + 1)
    return None


def stays_inside(root: str, link: str, links: Mapping[str, str]) -> bool:
    """Whether following the link `link` (path) never leaves the directory `root` (path).

    It is resolved component by component through the tree's own links (`links`: path to target).
    A name that is not there, and a loop, end inside.
    """
    here = link[len(root) + 1 :].split("/")[:-1]
    todo: list[str] = []
    target: str | None = links[link]
    for _ in range(MAX_HOPS):
        if target is None or target.startswith("/"):
            return False
        todo.extend(reversed(target.split("/")))
        target = _next_link(root, here, todo, links)
        if target == "":
            return True
    return True


def _next_link(root: str, here: list[str], todo: list[str], links: Mapping[str, str]) -> str | None:
    """Walk `todo` (last component first) from `here` to the next link; return its target.

    Returns an empty string at the end of the way, None when it leaves the tree.
    """
    while todo:
        name = todo.pop()
        if name == "..":
            if not here:
                return None
            here.pop()
        elif name not in ("", "."):
            target = links.get("/".join((root, *here, name)))
            if target is not None:
                return target
            here.append(name)
    return ""
