"""Verbs on a job's id, where the settings name several places to run and none of them `default`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from command import Desk
from conftest import S3Access


@pytest.fixture
def desk(tmp_path: Path, moto_access: S3Access) -> Desk:
    (tmp_path / "refs").mkdir()
    (tmp_path / "refs" / "word").write_text("there\n")
    local = {"cluster": "local", "grace": 3}
    with_refs = {**local, "local": {"read_only": [str(tmp_path / "refs")]}}
    return Desk(tmp_path, moto_access, destinations={"plain": local, "refs": with_refs})


def submit(desk: Desk, **job: Any) -> str:
    ran = desk.run("submit", desk.write_job(**job), "--destination", "refs")
    assert ran.code == 0, ran.stderr
    return ran.stdout.strip()


@pytest.mark.parametrize("verb", ["wait", "sync"])
def test_the_next_generation_sees_the_directories_of_the_jobs_own_destination(
    desk: Desk, verb: str
) -> None:
    """The pod of the first generation fails; who waits names no destination."""
    word = desk.directory / "refs" / "word"
    twice = f"test -e {word} || exit 9; exit 3"
    job_id = submit(desk, name="again", command=twice, retry={"tool": 1})

    ran = desk.run(verb, job_id, "--json")

    assert (ran.json["generation"], ran.json["tool_exit_code"]) == (2, 3), ran.stderr


@pytest.mark.parametrize("verb", ["status", "logs", "cancel"])
def test_no_destination_has_to_be_named_for_a_job_that_is_stored(desk: Desk, verb: str) -> None:
    job_id = submit(desk, name="j", command="true")

    ran = desk.run(verb, job_id)

    assert ran.code == 0, ran.stderr


def test_an_unknown_job_is_a_usage_error_here_too(desk: Desk) -> None:
    ran = desk.run("wait", "0199e2a4-0000-7000-8000-000000000009")

    assert (ran.code, "there is no job" in ran.stderr) == (2, True)


def test_of_a_destination_that_is_not_there_any_more_the_default_takes_care(desk: Desk) -> None:
    job_id = submit(desk, name="j", command="true")
    desk.settings["destinations"] = {"default": {"cluster": "local"}, "b": {"cluster": "local"}}
    (desk.directory / "other.yml").write_text(yaml.safe_dump(desk.settings))

    assert desk.run("wait", job_id, "--settings", "other.yml").code == 0


def test_a_place_below_a_file_is_refused_and_says_what_to_do(desk: Desk) -> None:
    """The job has not ended, and never will: the command does not wait for it."""
    (desk.directory / "file").touch()
    job_id = submit(desk, name="j", command="sleep 600")

    ran = desk.run("sync", job_id, "--into", "file/x")

    assert ran.code == 3
    assert "file is no directory [E28]" in ran.stderr
    assert "hint: " in ran.stderr
    assert desk.run("cancel", job_id).code == 0


def test_a_file_in_the_place_of_a_job_without_outputs_is_found_too(desk: Desk) -> None:
    (desk.directory / "j").touch()
    job_id = submit(desk, name="j", command="sleep 600")

    ran = desk.run("sync", job_id)

    assert (ran.code, "j is no directory [E28]" in ran.stderr) == (3, True)
    assert desk.run("cancel", job_id).code == 0
