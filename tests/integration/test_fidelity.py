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
