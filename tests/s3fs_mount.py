"""A bucket that is mounted on this machine by s3fs, as an administrator of Galaxy would."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import S3Access
from service_rule import missing_kernel_part, require_program
from waiting import wait_until

OPTIONS = ("ro", "allow_other", "umask=0022", "mp_umask=0022", "use_path_request_style")
"""Those that docs/galaxy.md names."""


class Mount:
    """A directory that shows a bucket, or is empty."""

    def __init__(self, directory: Path, access: S3Access) -> None:
        self.directory = directory / "bucket"
        self.directory.mkdir()
        self._access = access
        self._keys = directory / "keys"
        self._keys.touch(0o600)
        keys = access.credentials
        self._keys.write_text(f"{keys.access_key}:{keys.secret_key}\n")

    def mount(self) -> None:
        """Show the bucket."""
        config = self._access.config
        options = (*OPTIONS, f"url={config.endpoint}", f"passwd_file={self._keys}")
        command = ["s3fs", config.bucket, str(self.directory), "-o", ",".join(options)]
        subprocess.run(command, check=True)
        wait_until(self.directory.is_mount)

    def unmount(self) -> None:
        """Take it away at once, whoever uses it."""
        subprocess.run(["fusermount", "-u", "-z", str(self.directory)], check=True)
        wait_until(lambda: not self.directory.is_mount())

    def take_away(self) -> None:
        """Leave nothing mounted."""
        if self.directory.is_mount():
            self.unmount()


def require_s3fs() -> None:
    """Let a test run only where s3fs can mount something."""
    require_program("s3fs")
    require_program("fusermount")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        missing_kernel_part("fuse", "there is no /dev/fuse for us")


def mounted(directory: Path, access: S3Access, request: pytest.FixtureRequest) -> Mount:
    """Return a mounted bucket, which is taken away when the test is over."""
    require_s3fs()
    found = Mount(directory, access)
    found.mount()
    request.addfinalizer(found.take_away)
    return found
