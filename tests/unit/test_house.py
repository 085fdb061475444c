"""The house rules that no linter knows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3runner.cli.main import _VERBS
from s3runner.model import Outcome, code_of

ROOT = Path(__file__).parents[2]
CODE = sorted(
    path
    for folder in ("s3runner", "job_scripts", "bench")
    for path in (ROOT / folder).rglob("*.py")
)
SCRIPTS = sorted((ROOT / "job_scripts").glob("*.sh"))
DOCUMENTS = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))

EMPTY_WORDS = {"utils", "util", "helpers", "helper", "common", "base", "manager"}
EMPTY_VERBS = ("handle_", "process_", "do_")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def words_of(name: str) -> set[str]:
    """Split `snake_case` and `CamelCase`."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)}


@pytest.mark.parametrize("path", [*CODE, *SCRIPTS], ids=name_of)
def test_a_module_has_at_most_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_nothing_has_a_name_that_says_nothing(path: Path) -> None:
    for part in path.relative_to(ROOT).with_suffix("").parts:
        assert not words_of(part) & EMPTY_WORDS, part
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            assert not words_of(node.name) & EMPTY_WORDS, node.name
            assert not node.name.lstrip("_").startswith(EMPTY_VERBS), node.name


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_a_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def links_of(document: Path) -> Iterator[str]:
    """Yield the targets of a document's links that lead to files of this project."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(\s*<?([^)>\s]+)", text):
        if not re.match(r"[a-z][a-z0-9+.-]*:", target):
            yield target


def anchors_of(document: Path) -> set[str]:
    """Return the anchors that a forge gives to a document's headings."""
    headings = re.findall(r"^#+ +(.+)$", document.read_text(), flags=re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_in_a_document_leads_somewhere(document: Path) -> None:
    for target in links_of(document):
        name, _, anchor = target.partition("#")
        place = (document.parent / name).resolve() if name else document
        assert place.exists(), target
        assert place.is_relative_to(ROOT), target
        if anchor and place.suffix == ".md":
            assert anchor in anchors_of(place), target


def test_there_are_links_to_look_at() -> None:
    assert len([link for document in DOCUMENTS for link in links_of(document)]) > 5


def test_every_outcome_stands_in_the_table_of_the_documentation_with_its_code() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (\d*) ?\| .+ \|$",
        (ROOT / "docs" / "cli.md").read_text(),
        flags=re.MULTILINE,
    )
    found = {name: int(code) if code else None for name, code in rows if name != "job_id"}

    for outcome in Outcome:
        assert outcome.value in found, outcome
        assert found[outcome.value] == code_of(outcome), outcome


@pytest.mark.parametrize("verb", _VERBS)
def test_every_verb_is_documented(verb: str) -> None:
    assert f"s3runner {verb}" in (ROOT / "docs" / "cli.md").read_text()
