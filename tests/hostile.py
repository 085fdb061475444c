"""Trees that break careless copying, as a corpus for every kind of test.

`plant` makes the tree that must come through identical, `snapshot` says exactly what a tree is,
and `REFUSED` lists what must be refused by name and never followed or waited for.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from s3runner.errors import InputError, S3RunnerError, UnsupportedError

NAMES: Mapping[str, bytes] = {
    "blank": b"a b",
    "leading blank": b" a",
    "only a blank": b" ",
    "quotes": b'it\'s "q"',
    "newline": b"two\nlines",
    "newline at the end": b"end\n",
    "tab and return": b"tab\tcr\r",
    "substitution": b"$(touch owned) `id` ${HOME}",
    "leading dash": b"-rf",
    "two dashes": b"--help",
    "backslash": b"back\\slash",
    "wildcards": b"*?[a-z]{x,y}",
    "percent": b"100%41%2F",
    "hash and question mark": b"a#b?c=d&e;f",
    "colon and at": b"c:@d=e,f",
    "unicode": "Käse-日本-🧬".encode(),
    "composed": b"\xc3\xa9",
    "decomposed": b"e\xcc\x81",
    "not UTF-8": b"caf\xe9\xff",
    "escape sequence": b"\x1b[31mred\x07",
    "delete and controls": b"\x01\x7f",
    "255 bytes": b"n" * 255,
    "255 bytes of unicode": "ü".encode() * 127 + b"x",
    "dots": b"...",
    "hidden": b".hidden",
    "looks like a temporary": b".s3runner-0123456789abcdef",
    "looks like a pack": b"0.tar",
    "looks absolute": b"s3:",
    "tilde": b"~root",
}
"""File names by what is nasty about them."""

OLD_NS = 946_684_800_123_456_789
"""A time of last change with nanoseconds, long ago."""


def plant(root: Path, *, large: bytes = b"") -> Path:
    """Make the hostile tree as a directory at `root`; `large` is one file's content, if any."""
    top = os.fsencode(root)
    os.mkdir(top)
    for number, name in enumerate(NAMES.values()):
        _file(os.path.join(top, name), b"content of " + name, mtime_ns=OLD_NS + number)
    _file(top + b"/empty", b"")
    _file(top + b"/binary", bytes(range(256)) * 40)
    _file(top + b"/of a block", b"x" * 512)
    _file(top + b"/a script", b"#!/bin/sh\n", mode=0o755)
    _file(top + b"/read-only", b"r", mode=0o444)
    _file(top + b"/for everyone", b"w", mode=0o666)
    _file(top + b"/for us", b"u", mode=0o600)
    _file(top + b"/before 1970", b"old", mtime_ns=-1_000_000_001)
    _file(top + b"/after 2038", b"new", mtime_ns=4_102_444_800_000_000_001)
    _file(top + b"/not small", b"s" * (1024**2 + 1))
    if large:
        _file(top + b"/large", large)
    _plant_directories(top)
    _plant_links(top)
    _settle(top)
    return root


def _plant_directories(top: bytes) -> None:
    os.mkdir(top + b"/empty dir")
    os.makedirs(top + b"/nested/empty/all the way")
    for name in NAMES.values():
        os.mkdir(os.path.join(top + b"/nested", name))
        _file(os.path.join(top + b"/nested", name, name), b"below")
    deep = top + b"/deep"
    for _ in range(60):
        os.mkdir(deep)
        deep += b"/" + b"d" * 40
    _file(os.path.dirname(deep) + b"/bottom", b"deep down")
    os.mkdir(top + b"/read-only dir")
    _file(top + b"/read-only dir/kept", b"k", mode=0o400)
    os.mkdir(top + b"/private dir")
    # sorts between a directory and what is in it, byte by byte
    os.mkdir(top + b"/sorted")
    _file(top + b"/sorted-", b"1")
    _file(top + b"/sorted/x", b"2")


def _plant_links(top: bytes) -> None:
    for name, target in {
        b"link to file": b"binary",
        b"link to dir": b"nested",
        b"link to self": b".",
        b"link through the tree": b"nested/../deep",
        b"dangling": b"not/there/at all",
        b"dangling up": b"gone/../also gone",
        b"loop a": b"loop b",
        b"loop b": b"loop a",
        b"link with a slash": b"nested/",
        b"link to caf\xe9\xff": b"caf\xe9\xff",
        b"nested/up": b"../binary",
        b"nested/up to the root": b"..",
        b"nested/by a link": b"../link to dir/up",
        b"nested/-n": b"./../-rf",
    }.items():
        os.symlink(target, top + b"/" + name)
        os.utime(top + b"/" + name, ns=(OLD_NS, OLD_NS + len(name)), follow_symlinks=False)


def _settle(top: bytes) -> None:
    """Give directories their modes and times, when nothing is made in them any more."""
    modes = {b"read-only dir": 0o555, b"private dir": 0o700, b"empty dir": 0o777}
    for here, _, _ in os.walk(top, topdown=False):
        os.chmod(here, modes.get(os.path.basename(here), 0o755))
        os.utime(here, ns=(OLD_NS, OLD_NS + 7 * len(here)))


def _file(path: bytes, content: bytes, *, mode: int = 0o644, mtime_ns: int = OLD_NS) -> None:
    with open(path, "wb") as out:
        out.write(content)
    os.chmod(path, mode)
    os.utime(path, ns=(mtime_ns, mtime_ns))


@dataclass(frozen=True)
class Seen:
    """One name of a tree: all that must survive a journey."""

    kind: str
    mode: int
    mtime_ns: int
    content: bytes


def snapshot(root: Path) -> dict[bytes, Seen]:
    """Return every name below (and with) `root`, relative to it, with all that it is."""
    top = os.fsencode(root)
    names = [top]
    for here, directories, files in os.walk(top):
        names += [os.path.join(here, name) for name in (*directories, *files)]
    return {os.path.relpath(name, top): _look(name) for name in names}


def _look(name: bytes) -> Seen:
    found = os.lstat(name)
    kind = stat.S_IFMT(found.st_mode)
    content = b""
    if stat.S_ISLNK(found.st_mode):
        content = os.readlink(name)
    elif stat.S_ISREG(found.st_mode):
        content = Path(os.fsdecode(name)).read_bytes()
    return Seen(oct(kind), stat.S_IMODE(found.st_mode), found.st_mtime_ns, content)


@dataclass(frozen=True)
class Refused:
    """Something in a directory that must be refused: how to make it, and as what."""

    make: Callable[[Path], None]
    error: type[S3RunnerError] = UnsupportedError
    says: str = ""


def _socket(path: Path) -> None:
    here = socket.socket(socket.AF_UNIX)
    back = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)
    try:
        here.bind(path.name)
    finally:
        os.fchdir(back)
        os.close(back)
        here.close()


def _sparse(path: Path, size: int) -> None:
    path.touch()
    os.truncate(path, size)


def _over_a_link(path: Path) -> None:
    (path.parent / "inner").mkdir()
    (path.parent / "inner" / "up").symlink_to("..")
    path.symlink_to("inner/up/../outside")


REFUSED: Mapping[str, Refused] = {
    "a FIFO": Refused(os.mkfifo, says="FIFO"),
    "a socket": Refused(_socket, says="socket"),
    "an absolute link": Refused(lambda path: path.symlink_to("/etc/passwd"), says="/etc/passwd"),
    "an absolute link into the tree": Refused(
        lambda path: path.symlink_to(path.parent / "file"), says="leads out"
    ),
    "a link out of the tree": Refused(lambda path: path.symlink_to("../out"), says="leads out"),
    "a link out and back": Refused(
        lambda path: path.symlink_to(f"../{path.parent.name}/file"), says="leads out"
    ),
    "a link out over another link": Refused(_over_a_link, says="leads out"),
    "a link out over what is not there": Refused(
        lambda path: path.symlink_to("gone/../../out"), says="leads out"
    ),
    "a file that no store takes": Refused(
        lambda path: _sparse(path, 5 * 1024**4 + 1), says="5497558138881 bytes"
    ),
}
"""What stands as `bad` in a directory, by what it is."""

DENIED = Refused(lambda path: path.touch(mode=0), InputError, "Permission denied")
"""A file that nobody may read; root may."""
