"""The command line under test: a directory of its own, a settings file, and the real program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from conftest import S3Access

from s3runner.store.obstore_store import ObstoreStore


@dataclass(frozen=True)
class Ran:
    """One finished command."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        document: dict[str, Any] = json.loads(self.stdout)
        return document


class Desk:
    """A user's directory with `s3runner.yml`; nothing outside of it is read or written."""

    program: Sequence[str] = ("-m", "s3runner")
    """What the interpreter is told to run."""

    def __init__(self, directory: Path, access: S3Access, **settings: Any) -> None:
        self.directory = directory
        self.access = access
        config = access.config
        store: dict[str, Any] = {
            "url": f"s3://{config.bucket}/{config.prefix}",
            "endpoint": config.endpoint,
            "insecure_http": config.insecure_http,
            "retry_budget_s": 20,
        }
        if config.ca_pem is not None:
            (directory / "ca.pem").write_text(config.ca_pem)
            store["ca_bundle"] = "ca.pem"
        self.settings = {"store": {**store, **settings.pop("store", {})}, **settings}
        (directory / "s3runner.yml").write_text(yaml.safe_dump(self.settings))

    @property
    def environment(self) -> dict[str, str]:
        """What the command sees: keys, and homes below the directory."""
        home = str(self.directory / "home")
        return {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "LANG": "C.UTF-8",
            "PYTHONWARNINGS": "error",
            **self.access.environment,
        }

    @property
    def store(self) -> ObstoreStore:
        """The bucket, to look at what lies there."""
        return ObstoreStore(self.access.config, self.access.credentials)

    def keys(self, part: str = "") -> list[str]:
        """Return the keys below the prefix that contain `part`."""
        prefix = f"{self.access.config.prefix}/"
        return sorted(item.key for item in self.store.list(prefix) if part in item.key)

    def write_job(self, file_name: str = "job.yml", /, **job: Any) -> Path:
        """Write a job file."""
        path = self.directory / file_name
        path.write_text(yaml.safe_dump(job, sort_keys=False))
        return path

    def start(
        self, *words: str | Path, before: Sequence[str] = (), **environment: str
    ) -> subprocess.Popen[str]:
        """Start `s3runner` with these words, by the command `before` (`nice`, say) if there is one.

        Ctrl-C reaches it even where the tests themselves run in the background, with INT ignored.
        """
        command = [*before, "env", "--default-signal=INT", sys.executable, *self.program]
        return subprocess.Popen(
            [*command, *map(str, words)],
            cwd=self.directory,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str | Path, before: Sequence[str] = (), **environment: str) -> Ran:
        """Run `s3runner` with these words to its end; see `start`."""
        with self.start(*words, before=before, **environment) as process:
            stdout, stderr = process.communicate(timeout=240)
        return Ran(process.returncode, stdout, stderr)

    def run_job(self, *flags: str | Path, **job: Any) -> Ran:
        """Write a job, run it with --json."""
        return self.run("run", self.write_job(**job), "--json", *flags)
