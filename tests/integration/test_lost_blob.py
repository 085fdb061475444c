"""A staged input that vanishes from the store before its pod has fetched it, on a real gateway."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Desk
from conftest import S3Access

GATED = "until [ -e {}/go ]; do sleep 0.05; done"


@pytest.fixture
def desk(tmp_path: Path, rgw_access: S3Access) -> Desk:
    """Return a desk where one job at a time runs: the next one waits while its inputs get lost."""
    place = {"cluster": "local", "max_active": 1, "local": {"read_only": [str(tmp_path)]}}
    return Desk(tmp_path, rgw_access, destinations={"default": place})


def submit(desk: Desk, **job: object) -> str:
    ran = desk.run("submit", desk.write_job(**job))
    assert ran.code == 0, ran.stderr
    return ran.stdout.strip()


def submit_and_lose(desk: Desk) -> str:
    """Submit a job behind another one, and delete its staged input from the bucket."""
    (desk.directory / "data").write_text("precious\n")
    submit(desk, name="before", command=GATED.format(desk.directory))
    job_id = submit(desk, name="j", command="cat in > o", inputs={"in": "./data"}, outputs=["o"])
    (blob,) = desk.keys("/blobs/")
    desk.store.delete(blob)
    return job_id


def test_a_lost_input_is_staged_in_again(desk: Desk) -> None:
    job_id = submit_and_lose(desk)
    (desk.directory / "go").touch()

    synced = desk.run("sync", job_id, "--json")

    assert synced.code == 0, synced.stderr
    assert (synced.json["outcome"], synced.json["generation"]) == ("succeeded", 2)
    assert (desk.directory / "j" / "o").read_text() == "precious\n"
    assert "is gone from the store: stage-in once more" in synced.stderr
    assert "generation 1 ended as input_failed; trying again as generation 2" in synced.stderr
    assert len(desk.keys("/blobs/")) == 1


@pytest.mark.parametrize("content", ["another\n", None], ids=["changed", "removed"])
def test_a_lost_input_whose_source_is_not_as_it_was_ends_the_job(
    desk: Desk, content: str | None
) -> None:
    job_id = submit_and_lose(desk)
    source = desk.directory / "data"
    source.unlink()
    if content is not None:
        source.write_text(content)
    (desk.directory / "go").touch()

    waited = desk.run("wait", job_id, "--json")

    assert waited.code == 1, waited.stderr
    assert (waited.json["outcome"], waited.json["code"]) == ("input_failed", 21)
    assert (waited.json["generation"], waited.json["attempts"]) == (1, 1)
    assert waited.json["error"]["source"] == str(source)
    assert "submit the job again" in waited.json["error"]["hint"]
    assert str(source) in waited.stderr
    assert desk.keys("/blobs/") == []
