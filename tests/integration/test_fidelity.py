"""A tree that breaks careless copying, through all four hops and back, byte by byte."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Desk, Ran
from conftest import S3Access
from hostile import plant, snapshot

COPY = {"command": "cp -a in out", "outputs": ["out"]}


@pytest.fixture(params=["moto_access", "rgw_access"], ids=["moto", "rgw"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Desk:
    access: S3Access = request.getfixturevalue(request.param)
    return Desk(tmp_path, access)


@pytest.fixture
def moto_desk(tmp_path: Path, moto_access: S3Access) -> Desk:
    return Desk(tmp_path, moto_access)


@pytest.fixture(params=[0o077, 0o000, 0o022], ids=lambda mask: f"umask {mask:03o}")
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_umask")
def test_a_hostile_tree_goes_in_and_comes_out_identical(desk: Desk) -> None:
    tree = plant(desk.directory / "tree", large=os.urandom(17 * 1024**2))
    before = snapshot(tree)

    ran = desk.run_job(name="copy", inputs={"in": "./tree"}, **COPY)

    assert ran.code == 0, ran.stderr
    assert snapshot(desk.directory / "copy" / "out") == before
    assert snapshot(tree) == before


def test_an_output_tree_is_an_identical_input_of_the_next_job(moto_desk: Desk) -> None:
    before = snapshot(plant(moto_desk.directory / "tree"))
    first = moto_desk.run_job(name="one", inputs={"in": "./tree"}, **COPY).json
    uri = next(output["uri"] for output in first["outputs"] if output["path"] == "out")

    ran = moto_desk.run_job(name="two", inputs={"in": uri}, **COPY)

    assert ran.code == 0, ran.stderr
    assert ran.json["phases"]["stage_in"]["bytes"] == 0
    assert snapshot(moto_desk.directory / "two" / "out") == before


def test_a_synced_tree_is_an_identical_input_that_nobody_uploads(desk: Desk) -> None:
    before = snapshot(plant(desk.directory / "tree"))
    first = desk.run_job(name="one", inputs={"in": "./tree"}, **COPY)
    assert first.code == 0, first.stderr
    assert desk.keys("/packs/0.tar"), "most of it is small"
    blobs = desk.keys("blobs/")
    inputs = {"in": "./one/out", "alone": "./one/out/binary"}

    planned = desk.run("plan", desk.write_job(name="two", inputs=inputs, **COPY), "--json").json
    second = desk.run_job(name="two", inputs=inputs, **COPY)

    assert planned["uploads"] == []
    assert {item["reason"] for item in planned["present"]} == {"it was synced from there"}
    assert second.code == 0, second.stderr
    assert second.json["phases"]["stage_in"]["bytes"] == 0
    assert snapshot(desk.directory / "two" / "out") == before
    assert desk.keys("blobs/") == blobs


def test_one_small_file_of_a_synced_tree_costs_the_pod_no_more_than_itself(desk: Desk) -> None:
    make = "mkdir out; for n in 1 2 3 4 5; do head -c 900000 /dev/urandom > out/$n; done"
    first = desk.run_job(name="one", command=make, outputs=["out"])
    assert first.code == 0, first.stderr
    (pack,) = desk.keys("/packs/")
    inputs = {"in": "./one/out/3"}

    second = desk.run_job(name="two", command="cp in o", inputs=inputs, outputs=["o"])

    assert second.code == 0, second.stderr
    phases = second.json["phases"]
    assert (phases["stage_in"]["bytes"], phases["fetch"]["bytes"]) == (0, 900_000)
    assert (desk.directory / "two/o").read_bytes() == (desk.directory / "one/out/3").read_bytes()
    desk.store.delete(pack)
    third = desk.run_job(name="three", command="cp in o", inputs=inputs, outputs=["o"])
    assert third.code == 0, third.stderr
    assert third.json["phases"]["stage_in"]["bytes"] == 900_000


def test_syncing_again_over_an_identical_tree_is_fine(moto_desk: Desk) -> None:
    plant(moto_desk.directory / "tree")
    moto_desk.run_job("--into", "here", name="one", inputs={"in": "./tree"}, **COPY)
    before = snapshot(moto_desk.directory / "here" / "out")

    again = moto_desk.run_job(
        "--into", "here", "--overwrite", name="one", inputs={"in": "./tree"}, **COPY
    )

    assert again.code == 0, again.stderr
    assert snapshot(moto_desk.directory / "here" / "out") == before


def modes_of(root: Path) -> dict[str, int]:
    return {item.name: stat.S_IMODE(item.stat().st_mode) for item in root.iterdir()}


def plant_special(root: Path) -> None:
    root.mkdir()
    for name, mode in {"setuid": 0o4755, "setgid": 0o2755, "plain": 0o755}.items():
        (root / name).write_text(name)
        (root / name).chmod(mode)
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)


WITHOUT = {"setuid": 0o755, "setgid": 0o755, "plain": 0o755, "sticky": 0o777}


def warnings_of(ran: Ran) -> str:
    return "\n".join(line for line in ran.stderr.splitlines() if "warning" in line)


def test_setuid_and_sticky_bits_of_an_input_are_dropped_and_it_is_said(moto_desk: Desk) -> None:
    plant_special(moto_desk.directory / "special")

    ran = moto_desk.run_job(name="copy", inputs={"in": "./special"}, **COPY)

    assert ran.code == 0, ran.stderr
    assert modes_of(moto_desk.directory / "copy" / "out") == WITHOUT
    assert "setuid, setgid or sticky bit is dropped (and those of 2 others)" in warnings_of(ran)


def test_setuid_and_sticky_bits_of_an_output_are_dropped_and_it_is_said(moto_desk: Desk) -> None:
    ran = moto_desk.run_job(
        name="makes",
        command="mkdir -p out/sticky; cd out; touch setuid setgid plain;"
        " chmod 1777 sticky; chmod 4755 setuid; chmod 2755 setgid; chmod 755 plain",
        outputs=["out"],
    )

    assert ran.code == 0, ran.stderr
    assert modes_of(moto_desk.directory / "makes" / "out") == WITHOUT
    assert "setuid, setgid or sticky bit is dropped (and those of 2 others)" in warnings_of(ran)
