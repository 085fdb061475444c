"""The command at a Kubernetes API: a desk whose one destination is the tests' API server.

It stands apart because several suites run the command there, some of them as `hurried`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hurried
from command import Desk
from conftest import S3Access
from kube_api import FakeKube
from kube_api.cluster import NAMESPACE


class KubeDesk(Desk):
    """A user's directory, the store's keys in a Secret of the cluster, and `in.txt`.

    With `budget_s` the command gives a call to the API up after so many seconds.
    """

    def __init__(
        self,
        kube: FakeKube,
        directory: Path,
        access: S3Access,
        *,
        store: dict[str, Any] | None = None,
        budget_s: float | None = None,
        **destination: Any,
    ) -> None:
        keys = access.credentials
        kube.add_secret("s3", {"accesskey": keys.access_key, "secretkey": keys.secret_key})
        directory.mkdir()
        spot = {
            "cluster": "kubernetes",
            "context": "test",
            "namespace": NAMESPACE,
            "kubeconfig": str(kube.kubeconfig()),
            "credentials": {"secret": "s3", "access_key": "accesskey", "secret_key": "secretkey"},
            "grace": "10s",
            **destination,
        }
        super().__init__(directory, access, destinations={"spot": spot}, store=store or {})
        (directory / "in.txt").write_text("hello\n")
        self._budget_s = budget_s
        if budget_s is not None:
            self.program = (hurried.__file__,)

    @property
    def environment(self) -> dict[str, str]:
        """What the command sees."""
        hurry = {} if self._budget_s is None else {"HURRIED_BUDGET_S": str(self._budget_s)}
        return {**super().environment, **hurry}

    @contextmanager
    def going(self, *words: str | Path) -> Iterator[subprocess.Popen[str]]:
        """Start the command; where the test fails meanwhile it ends too, whatever it waits for."""
        with self.start(*words) as process:
            try:
                yield process
            finally:
                process.kill()

    def submit(self, **job: Any) -> str:
        """Submit a job and return its id."""
        ran = self.run("submit", self.write_job(**job))
        assert ran.code == 0, ran.stderr
        return ran.stdout.strip()
