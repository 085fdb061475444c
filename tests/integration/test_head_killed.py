"""A head that is killed, for real, at points spread over its life: the next one ends with the same.

A real command, SIGKILL, a real S3 server and the local cluster. `tests/mortal.py` knows the points;
which of them are tried follows from a life that was recorded. Every point is tried in the nightly
run.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hostile
import mortal
import pytest
from command import Desk, Ran
from conftest import S3Server
from waiting import found_below, wait_until

from s3runner.model import Outcome

Tree = dict[bytes, hostile.Seen]

POINTS = 30
AT_A_TIME = 2
MISSED_AT_MOST = 3
JOB = {
    "name": "mortal",
    "command": """
        mkdir -p out/empty
        cp -a in/. out/
        ln -s small0 out/link
        chmod 750 out/small1
        find out -exec touch -h -d 2001-02-03 {} +
        cat /proc/sys/kernel/random/uuid >run_id
    """,
    "inputs": {"in": "./in"},
    "outputs": ["out", "run_id"],
}
"""Each run of the tool leaves an id of its own, and beside it always the same tree."""


class MortalDesk(Desk):
    """A user's directory with a job in it, whose command may be one that dies."""

    def __init__(self, directory: Path, server: S3Server) -> None:
        (directory / "in").mkdir(parents=True)
        super().__init__(directory, server.fresh_bucket())
        for number in range(3):
            (directory / "in" / f"small{number}").write_bytes(bytes([number]) * 70)
            (directory / "in" / f"large{number}").write_bytes(bytes([97, number]) * 600_000)
        self.write_job(**JOB)

    def live(self, fatal: str, *words: str) -> Ran:
        """Run the command up to its end, or to its fatal point."""
        command = [sys.executable, mortal.__file__, str(self.journal), fatal, *words]
        ran = subprocess.run(
            command,
            cwd=self.directory,
            env={**self.environment, "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    @property
    def journal(self) -> Path:
        """Where the points are written that the command reaches."""
        return self.directory / "journal"

    @property
    def reached(self) -> list[str]:
        """The points that were reached."""
        return self.journal.read_text().splitlines()

    def find_job(self, said: str) -> str | None:
        """Return the job's id: the line on stderr has it, or else the store."""
        for line in said.splitlines():
            if line.startswith("job "):
                return line.split()[1]
        listed = self.run("list", "--json")
        assert listed.code == 0, listed.stderr
        jobs: list[dict[str, str]] = listed.json["jobs"]
        assert len(jobs) <= 1
        return jobs[0]["job_id"] if jobs else None


def check_one_end(desk: MortalDesk, job_id: str, tree: Tree) -> None:
    """Check that the job ended once, that its results are here, and that nothing else is."""
    (commit_key,) = desk.keys("/commit.json")
    commit = json.loads(desk.store.get(commit_key, lambda chunks: b"".join(chunks)))
    assert f"/{job_id}/" in commit_key
    assert commit["outcome"] == Outcome.SUCCEEDED.value
    (result_key,) = desk.keys("/result.json")
    assert f"/attempts/{commit['attempt']}/" in result_key
    (run_id_key,) = desk.keys("/out/run_id")
    committed = desk.store.get(run_id_key, lambda chunks: b"".join(chunks))
    results = desk.directory / "mortal"
    assert (results / "run_id").read_bytes() == committed
    assert hostile.snapshot(results / "out") == tree
    assert sorted(path.name for path in results.iterdir()) == [".s3runner", "out", "run_id"]
    assert not list(desk.directory.rglob(".s3runner-*"))
    cluster = desk.directory / "home/.local/state/s3runner/local"
    wait_until(lambda: set(found_below(cluster)) <= {cluster / "jobs"})


def go_on(desk: MortalDesk, words: Sequence[str], dead: Ran) -> str:
    """Do what a user does after the command died; return the id of the job that has ended."""
    verb, what = words
    job_id = desk.find_job(dead.stderr) if verb == "run" else what
    if job_id is None:
        # nothing of a job was stored, so nothing may have happened
        assert not desk.keys("/jobs/"), desk.keys()
        again = desk.run("run", what)
        job_id = desk.find_job(again.stderr)
        assert job_id is not None, again.stderr
    else:
        again = desk.run("sync" if verb == "run" else verb, job_id)
    assert again.code == 0, again.stderr
    if verb == "wait":
        assert desk.run("sync", job_id).code == 0
    return job_id


def words_of(verb: str, desk: MortalDesk) -> list[str]:
    """Return the command line of a verb; one that takes up a job has one that was submitted."""
    if verb == "run":
        return [verb, "job.yml"]
    submitted = desk.run("submit", "job.yml")
    assert submitted.code == 0, submitted.stderr
    return [verb, submitted.stdout.strip()]


def record(directory: Path, server: S3Server, verb: str) -> tuple[list[str], Tree]:
    """Return the points of a life that nothing ends, and the tree that it leaves."""
    desk = MortalDesk(directory, server)
    words = words_of(verb, desk)
    lived = desk.live("", *words)
    assert lived.code == 0, lived.stderr
    if verb == "wait":
        assert desk.run("sync", words[1]).code == 0
    certain = [point for point in desk.reached if is_certain(point, verb)]
    return certain, hostile.snapshot(desk.directory / "mortal" / "out")


def is_certain(point: str, verb: str) -> bool:
    """Tell whether every life comes by: how often the cluster is looked at is a matter of time."""
    if "LocalCluster.observe" not in point and "LocalCluster.wait" not in point:
        return True
    awaited = "observe going on" in point or "LocalCluster.wait" in point
    return point.endswith("#1") and (verb == "run" or not awaited)


def kill_at_each(directory: Path, server: S3Server, verb: str, count: int | None = None) -> None:
    """Kill a life at `count` points spread over it, or at all, and end its job by another.

    A life may miss its fatal point and end well: what the supervisor did first, the head need not
    do. Other points make up for these, and where all are tried there may be few of them.
    """
    points, tree = record(directory / "whole", server, verb)
    count = len(points) if count is None else count
    chosen = [points[len(points) * number // count] for number in range(count)]
    assert len(set(chosen)) == count
    spare = [point for point in points if point not in chosen]

    def die_once(point: str) -> bool:
        desk = MortalDesk(directory / str(points.index(point)), server)
        words = words_of(verb, desk)
        dead = desk.live(point, *words)
        if dead.code == 0 and point not in desk.reached:
            return False
        assert dead.code == -signal.SIGKILL, f"{dead.stderr}\nit came by: {desk.reached}"
        check_one_end(desk, go_on(desk, words, dead), tree)
        return True

    killed = 0
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        while chosen:
            deaths = {point: pool.submit(die_once, point) for point in chosen}
            failed = {point: death.exception() for point, death in deaths.items()}
            failed = {point: error for point, error in failed.items() if error}
            assert not failed, "\n".join(f"{point}: {error}" for point, error in failed.items())
            killed += sum(death.result() for death in deaths.values())
            chosen, spare = spare[: count - killed], spare[count - killed :]
    told = f"{verb}: killed at {killed} of {len(points)} points"
    print(told)  # noqa: T201  # for who wants to know how many: pytest -s
    assert killed == count or (count == len(points) and killed >= count - MISSED_AT_MOST), told


@pytest.mark.timeout(900)
def test_a_head_killed_at_30_points_of_its_life_ends_with_one_commit(
    tmp_path: Path, moto_server: S3Server
) -> None:
    """Each time one commit, one tool run behind it, the right tree, and nothing left over."""
    kill_at_each(tmp_path, moto_server, "run", POINTS)


@pytest.mark.parametrize(("verb", "count"), [("sync", 4), ("wait", 2)])
def test_a_verb_that_takes_up_a_job_may_be_killed_and_called_again(
    tmp_path: Path, moto_server: S3Server, verb: str, count: int
) -> None:
    """The next call of the same verb ends like one that was never killed."""
    kill_at_each(tmp_path, moto_server, verb, count)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("verb", ["run", "sync", "wait"])
def test_a_head_may_be_killed_at_every_point_of_its_life(
    tmp_path: Path, moto_server: S3Server, verb: str
) -> None:
    """As above, at each point that every life comes by."""
    kill_at_each(tmp_path, moto_server, verb)
