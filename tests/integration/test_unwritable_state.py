"""A state directory that this user may not write to: told before anything is uploaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Desk
from conftest import S3Access
from disks import without_rights


@pytest.mark.parametrize(
    ("there", "shut"),
    [(".", "."), ("local", "local"), ("local/jobs", "local/jobs"), ("local/jobs", "local")],
)
def test_a_state_directory_that_cannot_be_written_is_found_before_the_upload(
    tmp_path: Path, moto_access: S3Access, there: str, shut: str
) -> None:
    desk = Desk(tmp_path, moto_access)
    state = tmp_path / "state"
    (state / there).mkdir(parents=True)
    place = state / shut
    place.chmod(0o555)
    (tmp_path / "in").write_text("x")
    job = desk.write_job(name="j", command="cat in", inputs={"in": "./in"})

    ran = desk.run("run", job, before=without_rights(), S3RUNNER_STATE_DIR=str(state))

    assert (ran.code, desk.keys("blobs/"), desk.keys("jobs/")) == (3, [], []), ran.stderr
    assert f"{place} is not writable [E31]" in ran.stderr
    assert "S3RUNNER_STATE_DIR" in ran.stderr
