"""What starts with a program: in a pod every millisecond is paid for each job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from s3runner.installed import package_dir

WORKER_PARTS = ("main", "fetch", "stager", "stage_out")
WORKER_MAY = {"errors", "installed", "model", "pod_model", "staging", "store", "worker"}
SLOW = {
    *("boto3", "botocore", "kubernetes", "lxml", "obstore", "pydantic", "rich", "platformdirs"),
    *("yaml", "s3runner.wiring", "s3runner.settings", "s3runner.store", "s3runner.staging"),
}
LIST = "import json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"


def modules_after(statement: str) -> set[str]:
    """Return what a bare interpreter has loaded after a statement.

    As in a pod: no site, so nothing that is installed beside it loads by itself.
    """
    paths = {str(package_dir(name).parent) for name in ("s3runner", "obstore", "click")}
    ran = subprocess.run(
        [sys.executable, "-S", "-s", "-c", f"{statement}\n{LIST}"],
        env={"PYTHONPATH": os.pathsep.join(sorted(paths))},
        check=True,
        capture_output=True,
        text=True,
    )
    return set(json.loads(ran.stderr.splitlines()[-1]))


def roots(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules} - set(sys.stdlib_module_names)


def test_the_worker_loads_the_standard_library_obstore_and_what_it_shares_with_the_head() -> None:
    modules = modules_after("\n".join(f"import s3runner.worker.{name}" for name in WORKER_PARTS))

    assert roots(modules) - {"__main__"} == {"obstore", "s3runner"}
    ours = {name.split(".")[1] for name in modules if name.startswith("s3runner.")}
    assert ours <= WORKER_MAY
    assert {"worker", "staging", "store"} <= ours
    assert "s3runner.store.control" not in modules
    assert {"urllib.request", "ssl", "s3runner.store.http_source", "fsspec"}.isdisjoint(modules)


@pytest.mark.parametrize(
    ("statement", "spared"),
    [
        (
            "from s3runner.worker import main; main._fetch()",
            {"concurrent.futures", "ctypes", "shutil", "sqlite3", "s3runner.staging.upload"},
        ),
        (
            "from s3runner.worker import main; main._stager()",
            {"sqlite3", "s3runner.staging.download", "s3runner.staging.upload"},
        ),
        (
            "import s3runner.worker.stage_out",
            {"concurrent.futures", "ctypes", "sqlite3", "s3runner.staging.download"},
        ),
        (
            "import s3runner.cluster.local.supervisor",
            {"ctypes", "pathlib", "random", "s3runner.staging", "s3runner.store", "uuid"},
        ),
    ],
    ids=["fetch", "stager until the tool runs", "stager", "supervisor"],
)
def test_a_process_of_a_pod_imports_its_own_part_only(statement: str, spared: set[str]) -> None:
    """Each is a process of its own for each job: what it does not need it pays for again."""
    assert modules_after(statement) & spared == set()


def test_running_a_job_imports_what_running_needs() -> None:
    modules = modules_after("import s3runner.cli.run")

    assert "pydantic" in modules
    spared = {"boto3", "difflib", "kubernetes", "lxml", "rich"}
    assert modules & {*spared, "s3runner.runner.gc", "s3runner.runner.queries"} == set()


@pytest.mark.parametrize("words", [["--help"], ["--version"]], ids=str)
def test_the_command_line_loads_nothing_slow_before_a_verb_needs_it(words: list[str]) -> None:
    modules = modules_after(
        f"from s3runner.cli.main import run_command_line\nassert run_command_line({words}) == 0"
    )

    assert "click" in modules
    assert modules & SLOW == set()


def test_every_slow_module_in_the_list_is_one_that_there_is() -> None:
    """A misspelt name would never be found loaded."""
    for name in SLOW:
        path = Path(package_dir("s3runner")).parent / Path(*name.split("."))
        if name.startswith("s3runner."):
            assert path.is_dir() or path.with_suffix(".py").is_file(), name
        else:
            assert package_dir(name).is_dir(), name
