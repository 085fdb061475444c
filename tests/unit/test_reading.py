"""Opening files while someone puts links in their way."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from s3runner.errors import InputError, UnsupportedError
from s3runner.staging.reading import (
    ChangedError,
    OpenFile,
    look_again,
    open_beneath,
    stat_beneath,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for top in (root, tmp_path / "outside"):
        (top / "a/b").mkdir(parents=True)
        (top / "a/b/file").write_text(top.name)
    return root


def _read(fd: int) -> bytes:
    with open(fd, "rb") as opened:
        return opened.read()


@pytest.mark.parametrize("above", ["root", ""])
def test_a_file_is_opened_from_any_directory_above_it(root: Path, above: str) -> None:
    assert _read(open_beneath(str(root.parent / above), f"{root}/a/b/file")) == b"root"
    assert _read(open_beneath("/", f"{root}/a/b/file")) == b"root"


def test_a_root_may_be_a_link_and_may_be_opened_itself(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to("root")
    assert _read(open_beneath(str(link), f"{link}/a/b/file")) == b"root"
    assert os.path.samestat(stat_beneath(str(link), str(link)), root.stat())
    assert os.path.samestat(stat_beneath("/", "/"), Path("/").stat())


@pytest.mark.parametrize("swapped", ["a", "a/b", "a/b/file"])
@pytest.mark.parametrize("inside", [True, False])
def test_no_link_below_the_root_is_followed(root: Path, swapped: str, *, inside: bool) -> None:
    file = f"{root}/a/b/file"
    seen, _ = look_again(file, str(root))
    (root / swapped).rename(root / "moved")
    (root / swapped).symlink_to(root / "moved" if inside else root.parent / "outside" / swapped)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(UnsupportedError, match="symbolic link") as caught:
        open_beneath(str(root), file)
    assert caught.value.source == str(root / swapped)
    with pytest.raises(UnsupportedError, match="symbolic link") as caught:
        look_again(file, str(root))
    assert caught.value.source == str(root / swapped)
    with pytest.raises(ChangedError), OpenFile(seen):
        pass
    assert len(os.listdir("/proc/self/fd")) == before, "no descriptor is left open"


def test_a_link_is_seen_as_what_it_is(root: Path) -> None:
    (root / "link").symlink_to("a/b/file")
    assert stat.S_ISLNK(stat_beneath(str(root), f"{root}/link").st_mode)


def test_what_is_no_file_is_named(root: Path) -> None:
    os.mkfifo(root / "fifo")
    for name, kind in (("a", "a directory, not a file"), ("fifo", "a FIFO, not a file")):
        with pytest.raises(UnsupportedError, match=kind):
            look_again(f"{root}/{name}", str(root))


@pytest.mark.parametrize("name", ["gone", "gone/below", "a/b/file/below"])
def test_what_is_not_there_is_missing(root: Path, name: str) -> None:
    with pytest.raises(InputError, match="no such file"):
        look_again(f"{root}/{name}", str(root))


def test_a_directory_that_may_only_be_passed_is_passed(root: Path) -> None:
    (root / "a").chmod(0o111)
    try:
        assert _read(open_beneath(str(root), f"{root}/a/b/file")) == b"root"
    finally:
        (root / "a").chmod(0o755)


def test_a_file_that_hides_its_bytes_is_refused() -> None:
    """It would be staged as an empty one."""
    file, _ = look_again("/proc/version", "/proc")

    with pytest.raises(UnsupportedError, match="bytes but no size"), OpenFile(file):
        pass
