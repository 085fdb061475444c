"""What a test does when a real service or program it needs is not on this machine.

It skips, and the run's last lines say so; under `S3RUNNER_TEST_REQUIRE=all` it fails, so that a
complete machine cannot lose a suite in silence.
"""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

MARK = "service missing: "


def missing_service(service: str, why: str) -> NoReturn:
    """Skip the running test, or fail it where everything is required."""
    reason = f"{MARK}{service} ({why})"
    if os.environ.get("S3RUNNER_TEST_REQUIRE") == "all":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def missing_kernel_part(part: str, why: str) -> NoReturn:
    """Skip the running test, also where everything is required: no package can bring it."""
    pytest.skip(f"{MARK}{part} ({why})")


def require_program(name: str) -> str:
    """Return a program's path; a test that cannot have it does not run."""
    path = shutil.which(name)
    if path is None:
        missing_service(name, "not installed")
    return path
