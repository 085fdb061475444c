"""docs/reliability.md: each promise has tests, and each test that it names is there."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
PROMISES = [int(number) for number in re.findall(r"^\*\*(\d+)\. ", PAGE, re.MULTILINE)]
ROWS = re.findall(r"^\| (\d+) \| (.+) \| `(\S+)` \|$", PAGE, re.MULTILINE)


@functools.cache
def functions_of(path: str) -> Mapping[str, ast.FunctionDef]:
    """Return a module's functions by their names."""
    body = ast.parse((ROOT / path).read_text()).body
    return {item.name: item for item in body if isinstance(item, ast.FunctionDef)}


def decorators_of(test: str) -> list[str]:
    """Return the decorators of a test as they are written."""
    path, _, name = test.partition("::")
    return [ast.unparse(each) for each in functions_of(path)[name].decorator_list]


def test_there_are_fifteen_promises() -> None:
    assert list(range(1, 16)) == PROMISES


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_has_tests(promise: int) -> None:
    assert [test for number, _, test in ROWS if int(number) == promise]


@pytest.mark.parametrize("test", sorted({test for *_, test in ROWS}))
def test_a_test_that_is_named_exists(test: str) -> None:
    path, _, name = test.partition("::")
    assert (ROOT / path).is_file()
    assert name.startswith("test_")
    assert name in functions_of(path)


@pytest.mark.parametrize(("said", "test"), [row[1:] for row in ROWS])
def test_where_a_test_runs_is_said(said: str, test: str) -> None:
    """`make test` runs what is not marked, and of a test for the night some of its cases."""
    assert ("*(g)*" in said) == test.startswith("tests/e2e/")
    assert "pytest.mark.nightly" not in decorators_of(test)


def test_every_line_of_the_table_is_understood() -> None:
    """And names a promise that is made, a test that nobody else names, and nothing stands apart."""
    lines = [line for line in PAGE.splitlines() if "::" in line and line.startswith("|")]
    assert len(lines) == len(ROWS) == len({test for *_, test in ROWS})
    assert {int(number) for number, *_ in ROWS} == set(PROMISES)
