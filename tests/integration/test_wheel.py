"""What users install: the wheel, not the tree it was built from."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from command import Desk
from conftest import S3Access
from service_rule import require_program

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = out.glob("s3runner-*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path) -> Path:
    """The wheel as an installer lays it out, without its dependencies."""
    target = wheel.parent / "site"
    pip = [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("pip") is None:
        pip = [require_program("uv"), "pip"]
    command = [
        *pip,
        "install",
        "--no-index",
        "--no-deps",
        "--quiet",
        "--target",
        str(target),
        str(wheel),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return target


def test_the_wheel_holds_the_package_and_the_job_scripts_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.split("/")[0].split("-")[0] for name in names} == {"s3runner"}
    scripts = {name for name in names if name.startswith("s3runner/_job_scripts/")}
    assert {name.rsplit("/", 1)[1] for name in scripts} == {
        path.name for path in (ROOT / "job_scripts").iterdir() if path.is_file()
    }
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_the_wheels_job_scripts_are_those_of_the_tree(site: Path) -> None:
    for path in (ROOT / "job_scripts").iterdir():
        if path.is_file():
            assert (site / "s3runner" / "_job_scripts" / path.name).read_bytes() == (
                path.read_bytes()
            )


def test_a_job_runs_from_the_wheel_alone(tmp_path: Path, moto_access: S3Access, site: Path) -> None:
    desk = Desk(tmp_path, moto_access)
    (tmp_path / "in.txt").write_text("hello\n")
    job = desk.write_job(
        name="greet",
        command="cat in.txt > out.txt",
        inputs={"in.txt": "./in.txt"},
        outputs=["out.txt"],
    )
    where = subprocess.run(
        [sys.executable, "-c", "import s3runner; print(s3runner.__file__)"],
        cwd=tmp_path,
        env={**desk.environment, "PYTHONPATH": str(site)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert where.stdout.strip() == str(site / "s3runner" / "__init__.py")

    ran = desk.run("run", job, "--json", PYTHONPATH=str(site))

    assert ran.code == 0, ran.stderr
    assert ran.json["outcome"] == "succeeded"
    assert (tmp_path / "greet" / "out.txt").read_text() == "hello\n"


def test_the_installed_command_is_the_command(site: Path, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, site / "bin" / "s3runner", "--version"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site), "LANG": "C.UTF-8"},
        check=False,
        capture_output=True,
        text=True,
    )

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("s3runner ")
