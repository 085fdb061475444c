"""Jobs that are not Galaxy's, at a destination of Galaxy's job configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Desk
from conftest import S3Access

from s3runner.galaxy.job_conf import RUNNER


@pytest.fixture
def desk(tmp_path: Path, moto_access: S3Access) -> Desk:
    """A user without settings, but with the files of a Galaxy."""
    desk = Desk(tmp_path, moto_access)
    (tmp_path / "s3runner.yml").unlink()
    config = moto_access.config
    (tmp_path / "galaxy.yml").write_text(f"galaxy: {{s3runner_bucket: {config.bucket}}}")
    (tmp_path / "job_conf.xml").write_text(
        f'<job_conf><plugins><plugin id="s3" type="runner" load="{RUNNER}">'
        f'<param id="s3runner_prefix">{config.prefix}</param>'
        f'<param id="s3runner_endpoint">{config.endpoint}</param>'
        '<param id="s3runner_insecure_http">true</param></plugin></plugins>'
        '<destinations><destination id="here" runner="s3">'
        '<param id="s3runner_cluster">local</param><param id="requests_cpu">3</param>'
        "</destination></destinations></job_conf>"
    )
    return desk


FLAGS = ("--job-conf", "job_conf.xml", "--galaxy-config", "galaxy.yml", "--destination", "here")


def test_a_job_runs_at_a_destination_of_galaxy(desk: Desk) -> None:
    ran = desk.run_job(*FLAGS, name="count", command="echo $CPUS > n", outputs=["n"])

    assert ran.code == 0, ran.stderr
    assert (desk.directory / "count" / "n").read_text() == "3\n"
    assert desk.keys(f"jobs/{ran.json['job_id']}/commit.json")

    again = desk.run("sync", ran.json["job_id"], *FLAGS, "--into", "again")
    assert again.code == 0, again.stderr
    assert (desk.directory / "again" / "n").read_text() == "3\n"


def test_how_to_go_on_names_the_same_destination(desk: Desk) -> None:
    (desk.directory / "blocked" / "n").mkdir(parents=True)
    (desk.directory / "blocked" / "n" / "x").touch()
    ran = desk.run_job(*FLAGS, name="blocked", command="echo > n", outputs=["n*"])

    assert ran.code == 3
    line = next(line for line in ran.stderr.splitlines() if "to sync again: " in line)
    words = line.partition("to sync again: ")[2].split()
    assert words[:3] == ["s3runner", "sync", ran.json["job_id"]]
    assert desk.run(*words[1:], "--into", "elsewhere").code == 0


def test_whoever_has_galaxys_files_can_look_at_its_jobs(desk: Desk) -> None:
    job_id = desk.run_job(*FLAGS, name="seen", command="echo yes > n", outputs=["n"]).json["job_id"]

    assert desk.run("status", job_id, *FLAGS, "--json").json["outcome"] == "succeeded"
    assert desk.run("status", job_id, job_id, *FLAGS, "--json").json["jobs"][0]["state"] == "ended"
    assert [job["job_id"] for job in desk.run("list", *FLAGS, "--json").json["jobs"]] == [job_id]
    (output,) = desk.run("ls", job_id, *FLAGS, "--json").json["outputs"]
    assert desk.run("cat", output["uri"], *FLAGS).stdout == "yes\n"
    assert desk.run("logs", job_id, *FLAGS).code == 0
    assert desk.run("gc", "--dry-run", *FLAGS, "--json").json["jobs"] == []
    alone = desk.run("gc", "--destination", "here")
    assert (alone.code, "--destination" in alone.stderr) == (2, True)
