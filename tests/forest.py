"""Directory trees of any shape, for tests that demand them back: made by hypothesis, planted here.

Names are any bytes that a file system takes, sizes lie around the limits of packs and parts.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hostile import NAMES
from hypothesis import reject
from hypothesis import strategies as st

from s3runner.staging.digest import PART
from s3runner.staging.pack import SMALL

LONGEST_PATH = 3500
"""Bytes below the root; the kernel takes 4096 from the root of the disk on."""


@dataclass(frozen=True)
class File:
    """A regular file; the same seed and size are the same content."""

    size: int
    seed: int
    mode: int
    mtime_ns: int


@dataclass(frozen=True)
class HardLink:
    """Another name of one of the files that stand before it."""

    number: int


@dataclass(frozen=True)
class Link:
    """A symbolic link with this target, or, without one, to one of the tree's names."""

    number: int
    target: bytes
    mtime_ns: int


@dataclass(frozen=True)
class Directory:
    """A directory and what is in it, by name."""

    mode: int
    mtime_ns: int
    content: Mapping[bytes, Node] = field(default_factory=dict)


Node = File | HardLink | Link | Directory


@functools.lru_cache(maxsize=64)
def content_of(seed: int, size: int) -> bytes:
    """Return bytes that differ at every offset of interest, the same at each run."""
    return hashlib.shake_128(bytes([seed])).digest(size)


def _as_name(raw: bytes) -> bytes:
    name = raw.replace(b"/", b"\\").replace(b"\0", b"\n")[:255]
    return name if name not in (b"", b".", b"..") else b"dots"


_PREFIXES = [
    b"-",
    b"--",
    b".",
    b"..",
    b"~",
    b" ",
    b"\n",
    b".s3runner-",
    b"#",
    b"%2F",
    b"\xff",
    b"s3:",
]
names = st.one_of(
    st.sampled_from(sorted(NAMES.values())),
    st.binary(min_size=1, max_size=20),
    st.builds(bytes.__add__, st.sampled_from(_PREFIXES), st.binary(max_size=20)),
    st.binary(min_size=250, max_size=255),
).map(_as_name)

_modes = st.integers(0, 0o777)
_times = st.integers(-(2**31) * 10**9, 2**33 * 10**9)
_sizes = st.one_of(
    st.integers(0, 2000),
    st.sampled_from([0, 1, 511, 512, 513]),
    st.sampled_from([SMALL - 1, SMALL, SMALL + 1]),
)
_numbers = st.integers(0, 99)
_files = st.builds(File, _sizes, st.integers(0, 3), _modes, _times)
_links = st.builds(
    Link,
    _numbers,
    st.one_of(
        st.just(b""),
        st.just(b""),
        st.sampled_from([b".", b"./", b".//.", b"gone/../gone too"]),
        names.map(lambda name: b"gone/" + name),
    ),
    _times,
)
_leaves = st.one_of(_files, _files, _files, _links, st.builds(HardLink, _numbers))
_nodes: st.SearchStrategy[Node] = st.recursive(
    _leaves,
    lambda nodes: st.builds(Directory, _modes, _times, st.dictionaries(names, nodes, max_size=5)),
    max_leaves=15,
)


directories: st.SearchStrategy[Directory] = st.builds(
    Directory, _modes, _times, st.dictionaries(names, _nodes, max_size=8)
)

_MANY = {b"%d" % seed: File(SMALL - 1, seed, 0o644, seed) for seed in range(18)}
LARGE = Directory(
    mode=0o711,
    mtime_ns=-1,
    content={
        b"one part": File(PART, 0, 0o600, 1),
        b"two parts": File(PART + 1, 0, 0o755, 2),
        b"a pack of two parts": Directory(0o755, 3, _MANY),
        b"the same": HardLink(1),
        b"loop": Link(0, b"loop", 4),
    },
)
"""What is too large to be made often."""

trees: st.SearchStrategy[Directory | File] = st.one_of(directories, directories, _files)
"""What one input or output may be."""


def plant(root: Path, tree: Directory | File) -> None:
    """Make a tree at `root`."""
    planting = _Planting(os.fsencode(root))
    planting.put(planting.top, tree)
    planting.settle()


@dataclass
class _Planting:
    """A tree that is being made: links, modes and times come when all else is there."""

    top: bytes
    files: list[bytes] = field(default_factory=list)
    directories: list[tuple[bytes, Directory]] = field(default_factory=list)
    links: list[tuple[bytes, Link]] = field(default_factory=list)
    named: list[bytes] = field(default_factory=list)

    def put(self, path: bytes, node: Node) -> None:
        if len(path) - len(self.top) > LONGEST_PATH:
            reject()
        self.named.append(path)
        if isinstance(node, Directory):
            os.mkdir(path)
            self.directories.append((path, node))
            for name, below in node.content.items():
                self.put(os.path.join(path, name), below)
        elif isinstance(node, Link):
            self.links.append((path, node))
        elif isinstance(node, HardLink) and self.files:
            os.link(self.files[node.number % len(self.files)], path)
        else:
            self._write(path, node if isinstance(node, File) else File(0, 0, 0o644, 0))

    def _write(self, path: bytes, file: File) -> None:
        with open(path, "wb") as out:
            out.write(content_of(file.seed, file.size))
        # what its owner may not read would be refused
        os.chmod(path, file.mode | 0o400)
        os.utime(path, ns=(file.mtime_ns, file.mtime_ns))
        self.files.append(path)

    def settle(self) -> None:
        """Make the links, and give directories their modes and times, the innermost first."""
        for path, link in self.links:
            there = self.named[link.number % len(self.named)]
            os.symlink(link.target or os.path.relpath(there, os.path.dirname(path)), path)
            os.utime(path, ns=(link.mtime_ns, link.mtime_ns), follow_symlinks=False)
        for path, directory in self.directories[::-1]:
            os.chmod(path, directory.mode | 0o500)
            os.utime(path, ns=(directory.mtime_ns, directory.mtime_ns))


@contextmanager
def ground(above: Path) -> Iterator[Path]:
    """Give a directory for one example, and clear it, read-only directories and all."""
    place = above / "ground"
    place.mkdir()
    try:
        yield place
    finally:
        for here, _, _ in os.walk(os.fsencode(place)):
            os.chmod(here, 0o700)
        shutil.rmtree(os.fsencode(place))
