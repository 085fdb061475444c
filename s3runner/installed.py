"""Where s3runner's own files lie on this machine.

It stands apart, below everything, because a wheel and a source tree differ in it and nobody else
should know.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from s3runner.errors import S3RunnerError


def job_scripts_dir() -> Path:
    """Return the folder of the container entry points: in the wheel's package, else in the tree."""
    package = package_dir("s3runner")
    for candidate in (package / "_job_scripts", package.parent / "job_scripts"):
        if candidate.is_dir():
            return candidate
    msg = f"no job scripts beside {package}: the installation is damaged"
    raise S3RunnerError(msg, hint="install s3runner again")


def package_dir(name: str) -> Path:
    """Return the folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        msg = f"the package {name} is not installed"
        raise S3RunnerError(msg, hint="install s3runner again, with its dependencies")
    return Path(spec.origin).resolve().parent
