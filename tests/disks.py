"""Real small disks for tests: full ones, read-only ones, ones that hold few names.

Each is mounted below the test's own directory and gone at its end. Mounting takes root; without it,
or without the programs that make a file system, the test does not run (`service_rule`).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from service_rule import missing_kernel_part, missing_service, require_program
from waiting import wait_until


@contextlib.contextmanager
def tmpfs(place: Path, options: str) -> Iterator[Path]:
    """Mount a disk in memory."""
    with _mounted(place, ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]):
        yield place


@contextlib.contextmanager
def btrfs_with_quota(place: Path, limit: str) -> Iterator[Path]:
    """Mount a disk with room enough; what is below the yielded directory has a quota."""
    require_program("btrfs")
    _require_loop_devices()
    image = _image(place, 120)
    _run("mkfs.btrfs", "-q", "-f", str(image))
    with _mounted(place, ["mount", "-o", "loop", str(image), str(place)]):
        _run("btrfs", "quota", "enable", str(place))
        _run("btrfs", "subvolume", "create", str(place / "mine"))
        set_quota(place / "mine", limit)
        yield place / "mine"


def set_quota(place: Path, limit: str) -> None:
    """Give a directory of `btrfs_with_quota` another limit."""
    _run("btrfs", "qgroup", "limit", limit, str(place))


@contextlib.contextmanager
def ntfs(place: Path) -> Iterator[Path]:
    """Mount a disk that refuses the names Windows refuses."""
    require_program("ntfs-3g")
    image = _image(place, 16)
    _run("mkfs.ntfs", "-F", "-Q", "-q", str(image))
    with _mounted(place, ["ntfs-3g", "-o", "windows_names,permissions", str(image), str(place)]):
        yield place


@contextlib.contextmanager
def exfat(place: Path) -> Iterator[Path]:
    """Mount a disk that takes A and a for one name, and holds no links."""
    require_program("mount.exfat-fuse")
    _require_loop_devices()
    image = _image(place, 16)
    device = _run("losetup", "--find", "--show", str(image)).strip()
    try:
        _run("mkfs.exfat", device)
        with _mounted(place, ["mount.exfat-fuse", device, str(place)]):
            yield place
    finally:
        _run("losetup", "--detach", device)


def remount(place: Path, options: str) -> None:
    """Change a mounted disk."""
    _run("mount", "-o", f"remount,{options}", str(place))


def without_rights(*words: str | Path) -> list[str]:
    """Return a command that runs `words` as somebody whom permission bits bind, root included."""
    if os.geteuid() != 0:
        return [str(word) for word in words]
    require_program("setpriv")
    bounds = "-dac_override,-dac_read_search,-fowner"
    return ["setpriv", f"--bounding-set={bounds}", "--inh-caps=-all", *map(str, words)]


@contextlib.contextmanager
def _mounted(place: Path, command: list[str]) -> Iterator[None]:
    if os.geteuid() != 0:
        missing_service("mount", "it needs root")
    place.mkdir()
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        missing_service(command[0], mounted.stderr.strip().replace("\n", " "))
    try:
        yield
    finally:
        # a process that is just ending may keep it busy for a moment
        unmount = ["umount", str(place)]
        wait_until(
            lambda: subprocess.run(unmount, capture_output=True, check=False).returncode == 0
        )


def _require_loop_devices() -> None:
    found = subprocess.run(["losetup", "--find"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        missing_kernel_part("loop devices", found.stderr.strip() or "no word of why")


def _image(place: Path, mebibytes: int) -> Path:
    image = place.with_suffix(".image")
    with image.open("wb") as file:
        file.truncate(mebibytes * 1024**2)
    return image


def _run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout
