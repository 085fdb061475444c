"""A job file of several YAML documents: one job each, every mistake with its line and document."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3runner.errors import SettingsError
from s3runner.jobfile import load_job, load_jobs


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "batch.yml"
    path.write_text(text)
    return path


def mistakes(path: Path) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_jobs(path, {})
    return caught.value.reason.replace(str(path), "batch.yml").splitlines()


def test_each_document_is_a_job(tmp_path: Path) -> None:
    path = written(tmp_path, "name: a\ncommand: x\n---\nname: b\ncommand: y\ninputs: {i: ./i}\n")
    first, second = load_jobs(path, {})
    assert (first.name, second.name) == ("a", "b")
    assert second.inputs[0].source == f"{tmp_path}/i"


def test_a_file_of_one_job_means_the_same_in_both_ways(tmp_path: Path) -> None:
    path = written(tmp_path, "---\ncommand: x\noutputs: [o]\n")
    assert load_jobs(path, {}) == [load_job(path, {})]
    assert load_job(path, {}).name == "batch"


def test_jobs_without_names_are_numbered(tmp_path: Path) -> None:
    path = written(tmp_path, "command: x\n---\n# nothing\n---\ncommand: y\n---\n")
    assert [job.name for job in load_jobs(path, {})] == ["batch-1", "batch-3"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n---\n"])
def test_a_file_without_a_job_is_refused(tmp_path: Path, text: str) -> None:
    (told,) = mistakes(written(tmp_path, text))
    assert told == "batch.yml: must be a mapping of keys to values"


def test_mistakes_of_all_documents_are_told_with_line_and_document(tmp_path: Path) -> None:
    path = written(
        tmp_path, "command: x\nenvy: {}\n---\ncommand: x\n---\nname: c\ncommand: x\ncup: 1\n"
    )
    assert mistakes(path) == [
        "batch.yml:2: document 1: envy: unknown key (did you mean 'env'?)",
        "batch.yml:8: document 3: cup: unknown key",
    ]


def test_a_key_twice_is_told_with_its_document(tmp_path: Path) -> None:
    path = written(tmp_path, "command: x\n---\ncommand: y\ncommand: z\n---\n!tag\n")
    assert mistakes(path) == [
        "batch.yml:4: document 2: command: this key stands here twice",
        "batch.yml:6: document 3: tags are not used here",
    ]


def test_bad_syntax_is_told_with_its_document(tmp_path: Path) -> None:
    (told,) = mistakes(written(tmp_path, "command: x\n---\ncommand: [y\n---\ncommand: z\n"))
    assert told.startswith("batch.yml:4: document 2: not YAML: ")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert mistakes(tmp_path / "batch.yml") == ["batch.yml: No such file or directory"]


def test_a_run_of_several_jobs_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "command: x\n---\ncommand: y\n")
    with pytest.raises(SettingsError, match=r"batch\.yml: 2 jobs, where one is expected"):
        load_job(path, {})
