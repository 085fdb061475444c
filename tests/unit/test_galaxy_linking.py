"""Links in the places of Galaxy's datasets: where they can be, and for which files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from s3runner.errors import SettingsError
from s3runner.galaxy.linking import (
    Disk,
    Linking,
    demand_links,
    disk_of,
    linkable,
    outputs_on,
)
from s3runner.galaxy.params import Options
from s3runner.galaxy.translate import Returned
from s3runner.model import Input, Job, Output

WORKING, PLACE, OTHER = "/j/working", "/j/outputs/dataset_1.dat", "/j/outputs/dataset_2.dat"


@dataclass(frozen=True)
class DatasetPath:
    """What Galaxy has of the same name: the text of it is where the job writes."""

    real_path: str
    false_path: str

    def __str__(self) -> str:
        return self.false_path


def store(kind: str = "disk", path: str = "/d/objects", **more: Any) -> SimpleNamespace:
    """Return what an object store of Galaxy's looks like."""
    return SimpleNamespace(store_type=kind, file_path=path, extra_dirs={}, **more)


def nested(*stores: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(backends=dict(enumerate(stores)))


@pytest.mark.parametrize(
    ("found", "stores"),
    [
        (store(), ("/d/objects",)),
        (store(path="relative"), (os.path.abspath("relative"),)),
        (nested(store(), store(path="/e")), ("/d/objects", "/e")),
        (nested(store(), nested(store(path="/e"))), ("/d/objects", "/e")),
        (store("boto3"), ()),
        (nested(store(), store("boto3")), ()),
        (nested(), ()),
    ],
    ids=["disk", "relative", "two", "nested", "s3", "disk and s3", "none"],
)
def test_only_stores_on_disk_have_directories(
    found: SimpleNamespace, stores: tuple[str, ...]
) -> None:
    """In any other one Galaxy would store what a link leads to."""
    assert disk_of(found, "/d/jobs").stores == stores


def test_a_stores_own_directory_for_jobs_is_looked_at(tmp_path: Path) -> None:
    """Each backend may have one."""
    own = store()
    own.extra_dirs["job_work"] = str(tmp_path)

    assert disk_of(nested(own, store(path="/e")), "/d/jobs").jobs == (str(tmp_path), "/d/jobs")


def test_links_need_one_disk_for_datasets_and_jobs(tmp_path: Path) -> None:
    """Moving a link to another disk fails in Galaxy. Directories may be made later."""
    here = str(tmp_path / "not" / "yet")
    elsewhere = "/proc" if os.stat("/proc").st_dev != os.stat(tmp_path).st_dev else "/sys"

    demand_links(Disk((here,), (str(tmp_path),)))
    with pytest.raises(SettingsError, match="on one disk"):
        demand_links(Disk((here,), (elsewhere,)))
    with pytest.raises(SettingsError, match="object store of the type disk"):
        demand_links(Disk((), (str(tmp_path),)))


RETURNED = Returned(
    expected=(PLACE,),
    others=(
        Output(f"{WORKING}/galaxy.json", optional=True),
        Output(OTHER, optional=True),
        Output("/j/outputs/dataset_1_files", optional=True, matching=""),
        Output(f"{WORKING}/d", optional=True, matching=r"(?!.*/)(?:x\d\.txt)"),
    ),
)


def moved(path: str, matching: str | None = None) -> Returned:
    return Returned((), RETURNED.others, ((Output(path, matching=matching), PLACE),))


@pytest.mark.parametrize(
    ("returned", "links"),
    [
        (RETURNED, {PLACE: PLACE, OTHER: OTHER}),
        (moved(f"{WORKING}/left"), {f"{WORKING}/left": PLACE, OTHER: OTHER}),
        (moved(f"{WORKING}/d/other"), {f"{WORKING}/d/other": PLACE, OTHER: OTHER}),
        (moved(f"{WORKING}/d/x1.txt"), {OTHER: OTHER}),
        (moved(f"{WORKING}/*.txt"), {OTHER: OTHER}),
        (moved(f"{WORKING}/directory", matching=""), {OTHER: OTHER}),
    ],
    ids=["outputs", "from_work_dir", "beside a collector", "collected", "pattern", "directory"],
)
def test_only_what_galaxy_moves_as_a_whole_may_be_a_link(
    returned: Returned, links: dict[str, str]
) -> None:
    """Its collectors refuse links that leave the job's directory, or pass them over."""
    assert linkable(returned, {PLACE, OTHER}) == links


def test_an_output_of_another_store_is_no_link() -> None:
    """Users may choose a store for themselves."""
    here = DatasetPath("/d/objects/1.dat", PLACE)
    there = DatasetPath("/cache/2.dat", OTHER)

    assert outputs_on(Disk(("/d/objects",)), (here, there)) == {PLACE}
    assert linkable(RETURNED, {PLACE}) == {PLACE: PLACE}


def test_an_input_that_is_a_link_into_the_mount_lies_in_the_bucket(tmp_path: Path) -> None:
    """Also by way of another link, and while the mount is away."""
    mount = tmp_path / "absent" / "mount"
    first, second, own = (tmp_path / name for name in ("first", "second", "own"))
    first.symlink_to(mount / "runs" / "jobs" / "key%20x")
    second.symlink_to("first")
    own.symlink_to("/elsewhere/runs/x")
    paths = [*map(str, (first, second, own, tmp_path)), "https://e.example/x"]
    job = Job("j", "true", inputs=tuple(Input(f"/in/{n}", path) for n, path in enumerate(paths)))

    found = Linking(Options(mount=str(mount))).chained(job, "bkt")

    uri = "s3://bkt/runs/jobs/key%20x"
    assert [each.source for each in found.inputs] == [uri, uri, *paths[2:]]
    assert [each.path for each in found.inputs] == [each.path for each in job.inputs]
    assert Linking().chained(job, "bkt") is job


def test_a_name_that_only_begins_like_the_mount_is_not_below_it(tmp_path: Path) -> None:
    """/mnt/bucket2 is another bucket."""
    link = tmp_path / "link"
    link.symlink_to("/mnt/bucket2/key")
    job = Job("j", "true", inputs=(Input("/in", str(link)),))

    assert Linking(Options(mount="/mnt/bucket")).chained(job, "bkt") == job


def test_links_are_made_only_where_they_are_asked_for() -> None:
    """Results and inputs each by themselves; a mount alone is for reading."""
    stores = {"/d/objects": "id"}
    neither = Linking(Options(mount="/m"), stores)
    results = Linking(Options(mount="/m", sync="link"), stores).results(lambda: {"a": "b"})
    inputs = Linking(Options(mount="/m", evict_inputs=True), stores).inputs()

    assert neither.results(dict) is None
    assert neither.inputs() is None
    assert results is not None
    assert (results.place_of("a"), results.place_of("c")) == ("b", None)
    assert (results.mount, results.directories) == ("/m", stores)
    assert inputs is not None
    assert inputs.place_of("/elsewhere/dataset_1.dat") is None


@pytest.mark.parametrize(("sync", "is_seen"), [("copy", True), ("link", False)])
def test_a_mount_that_is_away_concerns_only_results_that_are_links(
    sync: str, *, is_seen: bool
) -> None:
    """Those that were copied are here."""
    assert Linking(Options(mount="/absent", sync=sync)).is_mounted() is is_seen


def test_an_input_gives_way_only_inside_of_the_object_store(tmp_path: Path) -> None:
    """A directory that leads out of it is not in it."""
    objects, outside = tmp_path / "objects", tmp_path / "outside"
    for each in (objects, outside):
        each.mkdir()
    (objects / "way-out").symlink_to(outside)
    links = Linking(Options(mount="/m", evict_inputs=True), {str(objects): "id"}).inputs()

    assert links is not None
    assert links.place_of(f"{objects}/dataset_1.dat") == f"{objects}/dataset_1.dat"
    assert links.place_of(f"{objects}/way-out/dataset_1.dat") is None
    assert links.place_of(f"{tmp_path}/objects2/dataset_1.dat") is None
