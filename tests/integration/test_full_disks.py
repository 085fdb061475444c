"""Results that do not fit where they should land: told, nothing lost, done once there is room."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import disks
import pytest
from command import Desk, Ran
from conftest import S3Access

MIB = 1024**2

JOB = {
    "name": "fills",
    "command": "echo new > file; mkdir -p tree/sub; echo 1 > tree/sub/small;"
    " head -c 3000000 /dev/zero > tree/large; head -c 3000000 /dev/urandom > large;"
    " echo said; mkdir below; echo 2 > below/here",
    "outputs": ["file", "tree", "large", "below/here"],
}


@pytest.fixture
def desk(tmp_path: Path, moto_access: S3Access) -> Desk:
    return Desk(tmp_path, moto_access)


@dataclass(frozen=True)
class Disk:
    """A place that refuses the results, and what takes the reason away."""

    place: Path
    relieve: Callable[[], None]


@contextlib.contextmanager
def full_blocks(place: Path) -> Iterator[Disk]:
    with disks.tmpfs(place, "size=1m"):
        yield Disk(place, lambda: disks.remount(place, "size=32m"))


@contextlib.contextmanager
def full_inodes(place: Path) -> Iterator[Disk]:
    with disks.tmpfs(place, "size=32m,nr_inodes=7"):
        yield Disk(place, lambda: disks.remount(place, "nr_inodes=100"))


@contextlib.contextmanager
def full_quota(place: Path) -> Iterator[Disk]:
    with disks.btrfs_with_quota(place, "2M") as mine:
        yield Disk(mine, lambda: disks.set_quota(mine, "none"))


@contextlib.contextmanager
def read_only(place: Path) -> Iterator[Disk]:
    with disks.tmpfs(place, "size=32m"):
        (place / "file").write_text("mine")
        disks.remount(place, "ro")
        yield Disk(place, lambda: disks.remount(place, "rw"))


@contextlib.contextmanager
def denied(place: Path) -> Iterator[Disk]:
    place.mkdir()
    (place / "file").write_text("mine")
    place.chmod(0o555)
    yield Disk(place, lambda: place.chmod(0o755))
    place.chmod(0o755)


def contents(place: Path) -> dict[str, bytes | None]:
    """Return every name below a place, with a file's bytes."""
    return {
        str(path.relative_to(place)): path.read_bytes() if path.is_file() else None
        for path in place.rglob("*")
    }


def outputs_in(place: Path) -> dict[str, bytes | None]:
    """Return what is there beside the streams."""
    found = contents(place).items()
    return {name: content for name, content in found if not name.startswith(".s3runner")}


@pytest.mark.parametrize(
    ("make", "code", "says"),
    [
        pytest.param(full_blocks, 24, "the disk is full", id="blocks"),
        pytest.param(full_inodes, 24, "inodes", id="inodes"),
        pytest.param(full_quota, 24, "quota", id="quota"),
        pytest.param(read_only, 23, "Read-only file system", id="read-only"),
        pytest.param(denied, 23, "Permission denied", id="denied"),
    ],
)
def test_what_does_not_fit_changes_nothing_and_is_synced_when_it_does(
    desk: Desk,
    make: Callable[[Path], contextlib.AbstractContextManager[Disk]],
    code: int,
    says: str,
) -> None:
    """Old files stay, no temporary ones do, and the same command ends well later."""
    job_id = desk.run("submit", desk.write_job(**JOB)).stdout.strip()
    with make(desk.directory / "disk") as disk:
        if not (disk.place / "file").exists():
            (disk.place / "file").write_text("mine")
        before = contents(disk.place)

        ran = sync_bound(desk, job_id, disk.place)

        assert ran.code == 3, ran.stderr
        report = ran.json
        assert (report["outcome"], report["code"]) == ("succeeded", code)
        assert report["error"]["operation"] == "sync"
        assert says in ran.stderr
        assert report["error"]["target"].startswith(str(disk.place))
        assert report["error"]["hint"]
        assert f"s3runner sync {job_id}" in ran.stderr
        assert f"[E{code}]" in ran.stderr
        assert "/.s3runner-" not in ran.stderr, "a name that only we know"
        assert contents(disk.place) == before

        disk.relieve()
        again = sync_bound(desk, job_id, disk.place)

        assert again.code == 0, again.stderr
        found = contents(disk.place)
        assert found["file"] == b"new\n"
        assert found["tree/sub/small"] == b"1\n"
        assert found["below/here"] == b"2\n"
        assert [len(found[name] or b"") for name in ("large", "tree/large")] == [3000000, 3000000]
        assert [name for name in found if os.path.basename(name).startswith(".s3runner-")] == []


def test_a_disk_that_fills_up_after_the_job_began_is_told_with_its_outcome(desk: Desk) -> None:
    """`run` ends with 3: the job has its outcome, and nothing of it is here."""
    with disks.tmpfs(desk.directory / "disk", "size=1m") as place:
        ran = desk.run_job("--into", place, **JOB)

        assert (ran.code, ran.json["outcome"], ran.json["code"]) == (3, "succeeded", 24)
        assert contents(place) == {}


def test_streams_that_do_not_fit_are_told_too(desk: Desk) -> None:
    """The last bytes of a sync are its own: the result document."""
    job_id = desk.run("submit", desk.write_job(name="x", command="true")).stdout.strip()
    with disks.tmpfs(desk.directory / "disk", "size=64k") as place:
        (place / ".s3runner").mkdir()
        fill(place / "mine")
        before = contents(place)

        ran = desk.run("sync", job_id, "--into", place, "--json")

        assert (ran.code, ran.json["code"]) == (3, 24), ran.stderr
        assert str(place) in ran.json["error"]["target"]
        assert contents(place) == before
        (place / "mine").unlink()
        assert desk.run("sync", job_id, "--into", place).code == 0


def test_a_head_without_room_for_its_digests_stages_in_all_the_same(desk: Desk) -> None:
    """What the head remembers saves time and decides nothing."""
    (desk.directory / "in").write_text("x")
    with disks.tmpfs(desk.directory / "cache", "size=64k") as place:
        fill(place / "mine")

        ran = desk.run(
            "run",
            desk.write_job(name="x", command="cp in o", inputs={"in": "./in"}, outputs=["o"]),
            XDG_CACHE_HOME=str(place),
        )

    assert ran.code == 0, ran.stderr
    assert (desk.directory / "x" / "o").read_text() == "x"


def test_names_that_the_disk_refuses_are_named_and_the_others_arrive(desk: Desk) -> None:
    """A colon is fine in the pod and in S3, and not on a disk that Windows may read."""
    command = "echo 1 > a:b; echo 2 > plain; mkdir tree odd; echo 3 > tree/x; echo 4 > odd/c:d"
    outputs = ["a:b", "plain", "tree", "odd"]
    job = desk.write_job(name="names", command=command, outputs=outputs)
    job_id = desk.run("submit", job).stdout.strip()
    with disks.ntfs(desk.directory / "disk") as place:
        ran = desk.run("sync", job_id, "--into", place, "--json")

        assert (ran.code, ran.json["outcome"], ran.json["code"]) == (3, "succeeded", 25)
        assert f"{place}/odd/c:d: the disk cannot hold this file or name" in ran.stderr
        assert f"{place}/a:b: the disk cannot hold this file or name" in ran.stderr
        assert "hint: put it on a disk with another file system" in ran.stderr
        assert outputs_in(place) == {"plain": b"2\n", "tree": None, "tree/x": b"3\n"}

    assert desk.run("sync", job_id).code == 0
    assert (desk.directory / "names" / "odd" / "c:d").read_text() == "4\n"


@pytest.mark.parametrize(
    ("command", "outputs", "said", "known"),
    [
        pytest.param("echo 1 >Reads; echo 2 >reads", ["Reads", "reads"], "reads", None, id="files"),
        pytest.param("mkdir d D; >d/x; >D/y", ["d", "D"], "D", None, id="directories"),
        pytest.param("mkdir d; >d/ü; >d/Ü", ["d"], "d/ü", "succeeded", id="below"),
    ],
)
def test_names_that_the_disk_takes_for_one_are_refused_and_nothing_is_placed(
    desk: Desk, command: str, outputs: list[str], said: str, known: str | None
) -> None:
    """Of two files that differ by case the second one would replace the first.

    Where the outputs' own names tell, nothing waits for the job before.
    """
    job = desk.write_job(name="names", command=command, outputs=outputs)
    job_id = desk.run("submit", job).stdout.strip()
    with disks.exfat(desk.directory / "disk") as place:
        ran = desk.run("sync", job_id, "--into", place, "--json")

        assert (ran.code, ran.json["outcome"], ran.json["code"]) == (3, known, 25)
        assert f"sync {said} -> {place}/{said}: the disk takes it and" in ran.stderr
        assert contents(place) == {}

    assert desk.run("sync", job_id).code == 0


def test_literal_names_that_are_one_on_the_disk_are_refused_before_the_tool_runs(
    desk: Desk,
) -> None:
    with disks.exfat(desk.directory / "disk") as place:
        ran = desk.run_job("--into", place, name="x", command="true", outputs=["Reads", "reads"])

    assert (ran.code, ran.json["code"]) == (3, 25)
    assert desk.keys() == []


def test_links_on_a_disk_that_has_none_are_named(desk: Desk) -> None:
    job = desk.write_job(name="x", command="mkdir d; ln -s . d/link", outputs=["d"])
    job_id = desk.run("submit", job).stdout.strip()
    with disks.exfat(desk.directory / "disk") as place:
        ran = desk.run("sync", job_id, "--into", place, "--json")

        assert (ran.code, ran.json["code"]) == (3, 25), ran.stderr
        assert ran.json["error"]["target"] == f"{place}/d/link"
        assert outputs_in(place) == {}


def test_a_directory_of_the_users_that_is_read_only_stays_so(desk: Desk) -> None:
    """Results that land in it are refused: its owner did not ask for its bits to change."""
    job = desk.write_job(name="x", command="mkdir sub; echo 1 > sub/o", outputs=["sub/o"])
    job_id = desk.run("submit", job).stdout.strip()
    place = desk.directory / "here"
    (place / "sub").mkdir(parents=True)
    (place / "sub").chmod(0o555)

    ran = sync_bound(desk, job_id, place)

    assert (ran.code, ran.json["code"]) == (3, 23), ran.stderr
    assert ran.json["error"]["target"] == f"{place}/sub/o"
    assert (place / "sub").stat().st_mode & 0o777 == 0o555


def test_a_directory_that_differs_and_could_not_be_foreseen_is_kept_until_it_is_asked_for(
    desk: Desk,
) -> None:
    """Behind a wildcard only the tool knows what it makes, so the job has run by then."""
    precious = desk.directory / "x" / "d1" / "mine"
    precious.parent.mkdir(parents=True)
    precious.write_text("precious")
    job = {"name": "x", "command": "mkdir d1 d2; echo 1 > d1/o; echo 2 > d2/o", "outputs": ["d*"]}

    ran = desk.run_job(**job)

    assert (ran.code, ran.json["outcome"], ran.json["code"]) == (3, "succeeded", 28)
    error = ran.json["error"]
    assert (error["operation"], error["source"], error["target"]) == ("sync", "d1", "x/d1")
    assert error["reason"].startswith("the directory differs: x/d1")
    assert "--overwrite" in error["hint"]
    assert contents(desk.directory / "x") == {"d1": None, "d1/mine": b"precious"}

    job_id = ran.json["job_id"]
    assert desk.run("sync", job_id, "--into", "elsewhere").code == 0
    assert outputs_in(desk.directory / "elsewhere").keys() == {"d1", "d1/o", "d2", "d2/o"}
    assert precious.exists()
    assert desk.run("sync", job_id, "--overwrite").code == 0
    assert outputs_in(desk.directory / "x") == outputs_in(desk.directory / "elsewhere")


def fill(path: Path) -> None:
    """Write to a file until the disk has no room."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def sync_bound(desk: Desk, job_id: str, place: Path) -> Ran:
    """Sync as somebody whom permission bits bind."""
    return desk.run("sync", job_id, "--into", place, "--json", before=disks.without_rights())
