"""Tools that Galaxy brings, with their own tests, run through us by Galaxy's own test machinery.

Their programs lie in one directory that many tools share. The data of their tests come from
Galaxy's packages; the files that they expect, which no package has, are made here by other means.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import S3Server
from galaxy_server import ADMIN, GalaxyServer, require_galaxy
from waiting import wait_until

from s3runner.store.protocol import ObjectStore

DRIVER = Path(__file__).parent / "stock_tests.py"
TESTS = (
    *("Grep1:0", "Grep1:1", "Grep1:5", "Show beginning1:0", "Show tail1:1", "Cut1:1", "Paste1:1"),
    *("cat1:1", "Remove beginning1:0", "ChangeCase:1", "addValue:0", "wc_gnu:0", "sort1:0"),
)
"""Each by its tool's id and its number there."""

FILES = (
    *("grep", "headWrapper", "tailWrapper", "cutWrapper", "pasteWrapper", "catWrapper"),
    *("remove_beginning", "changeCase", "fixedValueColumn", "wc_gnu", "sorter"),
)

Rows = Sequence[list[str]]


class Stock(NamedTuple):
    """What became of the tests, by tool and number; the jobs in the bucket; Galaxy's jobs."""

    tests: dict[str, dict[str, Any]]
    jobs: int
    directory: Path


def rows_of(text: str) -> Rows:
    return [line.split("\t") for line in text.splitlines()]


def text_of(rows: Rows) -> str:
    return "".join("\t".join(row) + "\n" for row in rows)


def beside(one: str, other: str, between: str) -> str:
    pairs = zip(one.splitlines(), other.splitlines(), strict=True)
    return "".join(f"{left}{between}{right}\n" for left, right in pairs)


def counts(text: str) -> str:
    return f"{text.count(chr(10))}\t{len(text.split())}\t{len(text)}\n"


def in_order(text: str) -> str:
    """Sort by the name in the first column, then by the number in the third, the largest first."""
    return text_of(
        sorted(rows_of(text), key=lambda row: (row[0].upper(), -int(row[2]), text_of([row])))
    )


EXPECTED: dict[str, Callable[[str, str], str]] = {
    "2.bed": lambda _one, two: two,
    "3.bed": lambda one, _two: one,
    "fs-grep.dat": lambda one, _two: one,
    "eq-showbeginning.dat": lambda one, _two: text_of(rows_of(one)[:10]),
    "eq-cut.dat": lambda one, _two: text_of([[r[0], r[3], r[1], r[2]] for r in rows_of(one)]),
    "eq-paste2.dat": lambda one, two: beside(one, two, "-"),
    "cat_wrapper_out2.bed": lambda one, two: one + two + one,
    "eq-removebeginning.dat": lambda one, _two: text_of(rows_of(one)[5:]),
    "changeCase_out2.tabular": lambda one, _two: text_of(
        [[r[0].upper(), *r[1:]] for r in rows_of(one)]
    ),
    "eq-addvalue.dat": lambda one, _two: text_of([[*r, "1"] for r in rows_of(one)]),
    "wc_gnu_out_1.tabular": lambda one, _two: "#lines\twords\tcharacters\n" + counts(one),
    "sort_out1.bed": lambda one, _two: in_order(one),
}
"""The tests' other files, each from `1.bed` and the same file upside down."""


def of_galaxy(*parts: str) -> Path:
    """Return a file or directory of Galaxy's packages."""
    found = importlib.util.find_spec("galaxy")
    places = () if found is None else found.submodule_search_locations or ()
    return next(path for place in places if (path := Path(place, *parts)).exists())


def write_data(directory: Path) -> None:
    directory.mkdir()
    one = of_galaxy("datatypes", "test", "1.bed").read_text()
    two = text_of(rows_of(one)[::-1])
    (directory / "1.bed").write_text(one)
    for name, make in EXPECTED.items():
        (directory / name).write_text(make(one, two))


def write_toolbox(path: Path) -> None:
    tools = of_galaxy("tools", "bundled", "filters")
    items = "".join(f"<tool file='{tools}/{name}.xml'/>" for name in FILES)
    path.write_text(f"<toolbox><section id='s' name='s'>{items}</section></toolbox>")


def jobs_in(store: ObjectStore, prefix: str) -> int:
    """Count the jobs that were committed."""
    return sum(item.key.endswith("/commit.json") for item in store.list(f"{prefix}/jobs/"))


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory, moto_server: S3Server) -> Iterator[Stock]:
    """All tests, run once: most of a job's time is Galaxy's."""
    require_galaxy()
    directory = tmp_path_factory.mktemp("stock")
    write_data(directory / "data")
    write_toolbox(directory / "toolbox.xml")
    access = moto_server.fresh_bucket()
    (directory / "galaxy").mkdir()
    # as most administrators have it: nothing of a job stays in its directory
    server = GalaxyServer(
        directory / "galaxy",
        access,
        tool_config_file=str(directory / "toolbox.xml"),
        cleanup_job="always",
    )
    try:
        server.start(GALAXY_TEST_FILE_DIR=str(directory / "data"))
        result = directory / "result.json"
        ran = run_tests(server, result)
        found = json.loads(result.read_text())["tests"] if result.exists() else []
        tests = {f"{test['data']['tool_id']}:{test['data']['test_index']}": test for test in found}
        assert tests, ran.stdout + ran.stderr
        jobs = directory / "galaxy" / "data" / "jobs_directory"
        yield Stock(tests, jobs_in(access.open(), access.config.prefix), jobs)
    finally:
        server.stop()


def run_tests(server: GalaxyServer, result: Path) -> subprocess.CompletedProcess[str]:
    """Run the tests; which of them failed stands in the result, and not in the exit code."""
    url = f"http://127.0.0.1:{server.port}"
    return subprocess.run(
        [sys.executable, "-W", "ignore", DRIVER, url, server.user(ADMIN)._key, result, *TESTS],
        capture_output=True,
        text=True,
        check=False,
        # the machinery leaves its own log and every output that it has compared
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(result.parent)},
    )


@pytest.mark.parametrize("test", TESTS)
def test_a_stock_tool_passes_its_own_test(stock: Stock, test: str) -> None:
    """Whatever Galaxy's machinery checks: contents, types, and that the job is ok."""
    found = stock.tests[test]["data"]

    assert found["status"] == "success", found.get("output_problems") or found


def test_every_stock_tool_ran_in_a_pod(stock: Stock) -> None:
    """Each test is one job of ours; only uploads run where Galaxy runs."""
    assert len(stock.tests) == len(TESTS)
    assert stock.jobs == len(TESTS)


def test_no_jobs_directory_is_left(stock: Stock) -> None:
    """`cleanup_job: always`; Galaxy says that a job is over before it cleans up."""
    assert stock.directory.is_dir()
    wait_until(lambda: not list(stock.directory.glob("*/*")))
