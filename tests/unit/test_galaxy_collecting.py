from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from s3runner.galaxy.collecting import move_into_place, returned_by
from s3runner.model import Output

WORKING, PLACE = "/j/working", "/j/outputs/dataset_u.dat"


def collector(**more: Any) -> SimpleNamespace:
    """Return what Galaxy's tool parser makes of a `<discover_datasets>`."""
    values: dict[str, Any] = {
        "discover_via": "pattern",
        "pattern": r"x\.txt",
        "directory": None,
        "recurse": False,
        "match_relative_path": False,
        "assign_primary_output": False,
        **more,
    }
    return SimpleNamespace(**values)


def wrapper(
    *collectors: SimpleNamespace, collections: Any = None, dataset: Any = None, **definition: Any
) -> SimpleNamespace:
    """Return a job with one output, as far as it is looked at."""
    output = SimpleNamespace(dataset_collector_descriptions=collectors, **definition)
    found = dataset or SimpleNamespace(id=7, dataset=SimpleNamespace(purged=False), datatype=None)
    return SimpleNamespace(
        tool_working_directory=WORKING,
        tool=SimpleNamespace(
            provided_metadata_file="galaxy.json",
            find_output_def=lambda _name: output,
            output_collections=collections or {},
        ),
        job_io=SimpleNamespace(get_output_hdas_and_fnames=lambda: {"output": (found, PLACE)}),
    )


def test_an_output_is_expected_and_what_goes_with_it_may_come() -> None:
    """Extra files, the tool's own report, and the files of an old convention."""
    found = returned_by(wrapper(), ())

    assert found.expected == (PLACE,)
    assert set(found.others) == {
        Output("/j/working/galaxy.json", True),
        Output("/j/outputs/dataset_u_files", True, ""),
        Output(WORKING, True, "(?!.*/)primary_"),
    }


def test_a_file_that_galaxy_takes_from_elsewhere_is_not_expected() -> None:
    """The first discovered file, a composite type's own page, a directory, or nothing any more."""
    page = SimpleNamespace(composite_type="auto_primary_file")
    purged = SimpleNamespace(id=7, dataset=SimpleNamespace(purged=True), datatype=None)
    made = SimpleNamespace(id=7, dataset=SimpleNamespace(purged=False), datatype=page)
    for job in (
        wrapper(collector(assign_primary_output=True)),
        wrapper(precreate_directory=True),
        wrapper(dataset=purged),
        wrapper(dataset=made),
    ):
        found = returned_by(job, ())
        assert found.expected == ()
        assert Output(PLACE, True) in found.others


def test_a_collector_asks_for_its_own_files_only() -> None:
    """Of an output, the pattern names its dataset; of a collection, any."""
    collection = SimpleNamespace(
        dynamic_structure=True,
        dataset_collector_descriptions=[collector(pattern="p_DATASET_ID_", directory="c")],
    )

    found = returned_by(
        wrapper(collector(pattern="p_DATASET_ID_"), collections={"c": collection}), ()
    )

    assert Output(WORKING, True, "(?!.*/)(?:p_7_)") in found.others
    assert Output("/j/working/c", True, r"(?!.*/)(?:p_\d+_)") in found.others


def test_where_only_the_tools_report_says_which_files_all_of_them_may_come() -> None:
    """Nobody can know before the tool has run."""
    reported = collector(discover_via="tool_provided_metadata", directory="d")

    found = returned_by(wrapper(reported), ())

    assert Output("/j/working/d", True, "") in found.others


@pytest.mark.parametrize(
    ("source", "place", "left"),
    [
        ("res/out.txt", PLACE, Output("/j/working/res/out.txt")),
        ("res/*.txt", PLACE, Output("/j/working/res/*.txt")),
        ("[a].txt", PLACE, Output("/j/working/[a].txt")),
        ("dir", "/j/outputs/dataset_u_files", Output("/j/working/dir", matching="")),
    ],
)
def test_what_a_tool_leaves_in_its_directory_is_expected_in_the_outputs_stead(
    source: str, place: str, left: Output
) -> None:
    """It is moved here: in the pod it would be copied only onto an output that is there."""
    found = returned_by(wrapper(), [(f"{WORKING}/{source}", place)])

    assert found.expected == ()
    assert found.moved == ((left, place),)


def test_what_came_back_is_moved_into_the_outputs_place(tmp_path: Path) -> None:
    """It may be asked for in both places; what is not there leaves things as they were."""
    (tmp_path / "dir").mkdir()
    for name in ("a.txt", "b.tab", "dir/x"):
        (tmp_path / name).write_text(name)
    for name in ("one.dat", "two.dat", "three.dat"):
        (tmp_path / name).touch()
    pairs = {
        "a.txt": "one.dat",
        "*.tab": "two.dat",
        "gone": "three.dat",
        "dir": "four_files",
    }

    for _ in range(2):  # Galaxy may have been killed half-way
        move_into_place(
            [(Output(str(tmp_path / old)), str(tmp_path / new)) for old, new in pairs.items()]
        )

    texts = {name: (tmp_path / name).read_text() for name in ("one.dat", "two.dat", "three.dat")}
    assert texts == {"one.dat": "a.txt", "two.dat": "b.tab", "three.dat": ""}
    assert (tmp_path / "four_files" / "x").read_text() == "dir/x"
    assert (tmp_path / "a.txt").exists()
