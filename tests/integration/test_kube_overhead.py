"""The bench against a bare Job, on the tests' API server: does it measure, and clear up?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from conftest import S3Access
from kube_api import FakeKube
from kube_api.cluster import NAMESPACE

BENCH = Path(__file__).parents[2] / "bench" / "kube_overhead.py"


def run_bench(**environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, BENCH, "--rounds", "1"],
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_the_bench_compares_a_job_with_a_bare_one(tmp_path: Path, moto_access: S3Access) -> None:
    """What it prints is not looked at closely: it is this machine's."""
    config = moto_access.config
    with FakeKube(tmp_path / "kube") as kube:
        ran = run_bench(
            S3RUNNER_TEST_KUBECONFIG=str(kube.kubeconfig()),
            S3RUNNER_TEST_NAMESPACE=NAMESPACE,
            S3RUNNER_TEST_WORKER_IMAGE="s3runner-worker",
            S3RUNNER_TEST_TOOL_IMAGE="tool:1",
            S3RUNNER_TEST_S3_ENDPOINT=str(config.endpoint),
            S3RUNNER_TEST_S3_POD_ENDPOINT=str(config.endpoint),
            S3RUNNER_TEST_BUCKET=config.bucket,
            **moto_access.environment,
        )
        kube.await_state(lambda: not kube.jobs() and not kube.pods())
        secrets = kube.objects.of("secrets", NAMESPACE)

    assert ran.returncode in (0, 1), ran.stderr
    assert ran.stderr == ""
    for words in ("bare Job", "with 1 + 2 containers", "s3runner run", "stage_out", "create jobs"):
        assert words in ran.stdout
    assert secrets == []
    assert not [item.key for item in moto_access.open().list("s3runner-bench-")]


def test_the_bench_names_what_is_missing() -> None:
    ran = run_bench(S3RUNNER_TEST_BUCKET="b")
    assert ran.returncode == 2
    assert "not set: S3RUNNER_TEST_KUBECONFIG " in ran.stderr
    assert "S3RUNNER_TEST_BUCKET" not in ran.stderr
