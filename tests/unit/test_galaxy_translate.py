from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from s3runner.galaxy.translate import (
    GalaxyJob,
    Returned,
    Touched,
    collected,
    job_of,
    needed_of,
    references_of,
    with_empty_files,
)
from s3runner.model import Input, Job, Output


def galaxy_job(directory: Path, **more: object) -> GalaxyJob:
    """Return a job whose directory is as Galaxy leaves it when it has prepared one."""
    jwd = directory / "jobs" / "1"
    for name in ("outputs", "working", "configs"):
        (jwd / name).mkdir(parents=True)
    (jwd / "galaxy_1.sh").write_text("#!/bin/sh\n")
    (jwd / "tool_script.sh").write_text("#!/bin/sh\n")
    (jwd / "configs" / "tmp1").write_text("config\n")
    (jwd / "outputs" / "a.dat").touch()
    values: dict[str, object] = {
        "name": "galaxy-1",
        "directory": str(jwd),
        "script": str(jwd / "galaxy_1.sh"),
        "exit_code": str(jwd / "galaxy_1.ec"),
        "shell": "/bin/sh",
        "returned": Returned((str(jwd / "outputs" / "a.dat"),)),
        **more,
    }
    return GalaxyJob(**values)  # type: ignore[arg-type]


def translated(galaxy: GalaxyJob, *volumes: str) -> Job:
    return job_of(galaxy, lambda path: [Input(path, path)], lambda path: path.startswith(volumes))


def paths(job: Job) -> list[str]:
    return sorted(found.path for found in job.inputs)


def test_what_galaxy_wrote_for_a_job_is_staged_but_not_its_empty_outputs(tmp_path: Path) -> None:
    """An output that is there before the tool ran could not be told from one that it wrote."""
    galaxy = galaxy_job(tmp_path)

    assert [os.path.relpath(path, galaxy.directory) for path in paths(translated(galaxy))] == [
        "configs/tmp1",
        "galaxy_1.sh",
        "tool_script.sh",
    ]


def test_galaxys_empty_files_are_staged_for_a_tool_that_counts_on_them(tmp_path: Path) -> None:
    """Those that the tool may write to; what it only leaves in its directory may be missing."""
    galaxy = galaxy_job(tmp_path)
    jwd = galaxy.directory
    left = (Output(f"{jwd}/working/x.txt"), f"{jwd}/outputs/b.dat")
    Path(left[1]).touch()
    returned = with_empty_files(replace(galaxy.returned, moved=(left,)))

    job = translated(replace(galaxy, returned=returned))

    assert [path for path in paths(job) if "/outputs/" in path] == [f"{jwd}/outputs/a.dat"]
    optional = {output.path: output.optional for output in job.outputs}
    assert not optional[f"{jwd}/outputs/a.dat"]
    assert optional[f"{jwd}/working/x.txt"]
    needed = needed_of(galaxy.exit_code, jwd, returned)
    assert needed[3:] == (f"{jwd}/outputs/a.dat",)


def test_every_path_in_the_pod_is_that_of_the_head(tmp_path: Path) -> None:
    """Nothing is rewritten: Galaxy's command names absolute paths."""
    data = tmp_path / "objects" / "a" / "b"
    data.mkdir(parents=True)
    (data / "x.dat").touch()
    touched = Touched(files=(str(data / "x.dat"), str(data / "gone_files")))

    job = translated(galaxy_job(tmp_path, touched=touched))

    assert all(found.path == found.source for found in job.inputs)
    assert str(data / "x.dat") in paths(job)
    assert not any("gone" in path for path in paths(job))


def test_what_lies_in_a_volume_of_the_pod_is_not_staged(tmp_path: Path) -> None:
    """Reference data may be mounted."""
    (tmp_path / "cvmfs").mkdir()
    (tmp_path / "cvmfs" / "hg").touch()
    touched = Touched(indexes=(str(tmp_path / "cvmfs" / "hg"),))
    galaxy = galaxy_job(tmp_path, touched=touched)

    assert str(tmp_path / "cvmfs" / "hg") in paths(translated(galaxy))
    assert str(tmp_path / "cvmfs" / "hg") not in paths(translated(galaxy, str(tmp_path / "cvmfs")))


def test_a_tools_directory_goes_without_its_test_data(tmp_path: Path) -> None:
    """Test data can be larger than everything else together."""
    tool = tmp_path / "tool"
    (tool / "test-data").mkdir(parents=True)
    (tool / "lib").mkdir()
    (tool / "run.py").touch()

    staged = paths(translated(galaxy_job(tmp_path, tool_directory=str(tool))))

    assert [path for path in staged if path.startswith(str(tool))] == [
        str(tool / "lib"),
        str(tool / "run.py"),
    ]


def test_an_input_inside_another_one_is_staged_once(tmp_path: Path) -> None:
    """A dataset's extra files may be named one by one as well."""
    extra = tmp_path / "x_files"
    extra.mkdir()
    (extra / "one").touch()
    touched = Touched(files=(str(extra / "one"), str(extra)))

    staged = paths(translated(galaxy_job(tmp_path, touched=touched)))

    assert [path for path in staged if "x_files" in path] == [str(extra)]


@pytest.mark.parametrize(("code", "expected"), [("0\n", 0), ("3\n", 3), (None, 2)])
def test_the_command_ends_with_the_tools_exit_code(
    tmp_path: Path, code: str | None, expected: int
) -> None:
    """A job script's own status is that of its last command; without a code nothing succeeded."""
    galaxy = galaxy_job(tmp_path)
    wrote = f"printf '{code}' >{galaxy.exit_code}\n" if code else ""
    Path(galaxy.script).write_text(f"{wrote}true\n")

    command = translated(galaxy).command
    assert isinstance(command, tuple)
    environment = {"PATH": os.environ["PATH"], "CPUS": "1", "MEMORY_MB": "0"}
    ran = subprocess.run(command, env=environment, capture_output=True, check=False)

    assert ran.returncode == expected, ran.stderr


def test_a_tool_is_told_its_share_as_galaxy_tells_it(tmp_path: Path) -> None:
    """What it has follows from the attempt: another one may have more memory."""
    galaxy = galaxy_job(tmp_path)
    Path(galaxy.script).write_text(
        f"echo 0 >{galaxy.exit_code}; "
        "echo $GALAXY_SLOTS $GALAXY_MEMORY_MB $GALAXY_MEMORY_MB_PER_SLOT\n"
    )

    command = translated(galaxy).command
    assert isinstance(command, tuple)
    environment = {"PATH": os.environ["PATH"], "CPUS": "4", "MEMORY_MB": "1024"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    assert ran.stdout == "4 1024 256\n"


@pytest.mark.parametrize(
    ("recurse", "whole", "matches", "others"),
    [
        (False, False, ["a.txt"], ["d/a.txt", "b.tab"]),
        (True, False, ["a.txt", "d/a.txt", "d/e/a.txt"], ["a.txt.d/b.tab", "d/b.tab"]),
        (True, True, ["a.txt"], ["b.tab"]),
    ],
)
def test_a_collectors_files_are_matched_as_galaxy_matches_them(
    recurse: bool, whole: bool, matches: list[str], others: list[str]
) -> None:
    """By its name, or by its path, and below the directory only if the tool says so."""
    found = collected("/j/working", "parts", r"(?P<name>.+)\.txt", recurse=recurse, whole=whole)

    assert found is not None
    assert (found.path, found.optional) == ("/j/working/parts", True)
    assert all(re.match(str(found.matching), path) for path in matches)
    assert not any(re.match(str(found.matching), path) for path in others)


@pytest.mark.parametrize("recurse", [False, True])
def test_a_collectors_flags_stay_at_the_beginning(recurse: bool) -> None:
    """Elsewhere they are an error."""
    found = collected("/j/working", None, r"(?i)a\.txt", recurse=recurse, whole=False)

    assert found is not None
    assert re.match(str(found.matching), "A.TXT")


@pytest.mark.parametrize("directory", ["..", "/etc", "a/../../x"])
def test_a_collector_of_a_directory_outside_is_left_out(directory: str) -> None:
    """Galaxy refuses it, too."""
    assert collected("/j/working", directory, ".", recurse=False, whole=False) is None


def test_a_data_tables_path_below_a_reference_comes_from_the_bucket() -> None:
    """All that begins with the path is fetched by the pod; the head need not have it."""
    keys = ["s3://indices/db/hg/x.1.bt2", "s3://indices/db/hg/x.2.bt2"]
    asked = []

    def listed(begins: str) -> list[str]:
        asked.append(begins)
        return keys

    found = references_of("/data/db/hg/x", {"/data/db": "s3://indices/db"}, listed)

    assert found is not None
    assert list(found) == [
        Input("/data/db/hg/x.1.bt2", keys[0]),
        Input("/data/db/hg/x.2.bt2", keys[1]),
    ]
    assert asked == ["s3://indices/db/hg/x"]
    assert references_of("/data/db2/x", {"/data/db": "s3://indices/db"}, listed) is None


def test_outputs_that_galaxy_needs_are_not_optional(tmp_path: Path) -> None:
    """The exit code, the streams, and every dataset that the tool declares."""
    galaxy = galaxy_job(tmp_path)

    required = [found.path for found in translated(galaxy).outputs if not found.optional]

    assert required == [
        galaxy.exit_code,
        f"{galaxy.directory}/outputs/tool_stdout",
        f"{galaxy.directory}/outputs/tool_stderr",
        f"{galaxy.directory}/outputs/a.dat",
    ]
    assert Output(f"{galaxy.directory}/outputs/COMMAND_VERSION", True) in translated(galaxy).outputs
