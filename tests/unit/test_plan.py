"""Planning a stage-in: what is packed, what goes up once, and when a blob counts as there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone

import pytest

from s3runner.errors import SettingsError
from s3runner.model import Entry, Kind
from s3runner.staging.digest import combine, sha256_hex
from s3runner.staging.layout import StoreLayout
from s3runner.staging.pack import SMALL
from s3runner.staging.plan import (
    Digests,
    PackSource,
    StageInPlan,
    decide_upload,
    group_inputs,
    plan_stage_in,
)
from s3runner.staging.tree import Identity, LocalFile, Tree
from s3runner.store.protocol import StoredObject

LAYOUT = StoreLayout("runs")
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
DAY_S = 86400.0


def _tree(path: str, files: Mapping[str, int], *, directory: bool = True) -> Tree:
    """Make a tree by hand: sizes by name; with `directory` false the one file is the tree."""
    paths = {f"{path}/{name}" if directory else path: size for name, size in files.items()}
    top = [Entry(path, Kind.DIR, 0o755, 0)] if directory else []
    return Tree(
        path,
        f"/here/{path}",
        (*top, *(Entry(name, Kind.FILE, 0o644, 0, size) for name, size in paths.items())),
        {n: LocalFile(f"/here/{n}", Identity(1, 1, size, 0, 0)) for n, size in paths.items()},
    )


def _plan(*trees: Tree) -> StageInPlan:
    """Plan with a digest made up for each size: equal sizes stand for equal content."""
    grouping = group_inputs(trees)
    files = {
        path: (sha256_hex(str(file.identity.size).encode()),)
        for tree in trees
        for path, file in tree.files.items()
    }
    packs = [(sha256_hex(repr(source.plan).encode()),) for source in grouping.packs]
    return plan_stage_in(trees, grouping, Digests(files, packs), LAYOUT)


def _packed(plan: StageInPlan) -> list[set[str]]:
    return [set(u.source.paths) for u in plan.uploads if isinstance(u.source, PackSource)]


def test_small_files_of_a_directory_share_its_pack_and_large_ones_stand_alone() -> None:
    plan = _plan(_tree("d", {"a": 1, "b": SMALL - 1, "c": SMALL}))
    assert _packed(plan) == [{"d/a", "d/b"}]
    places = {entry.path: entry.at for entry in plan.manifest.entries if entry.at}
    assert places["d/a"].key == places["d/b"].key == plan.manifest.packs[0].key
    assert places["d/c"].offset is None
    assert places["d/c"].key == LAYOUT.blob(combine((sha256_hex(str(SMALL).encode()),)))


def test_directories_share_no_pack_and_loose_files_share_one() -> None:
    plan = _plan(
        _tree("d", {"a": 1, "b": 2}),
        _tree("e", {"a": 3, "b": 4}),
        _tree("x", {"x": 5}, directory=False),
        _tree("y", {"y": 6}, directory=False),
    )
    assert _packed(plan) == [{"d/a", "d/b"}, {"e/a", "e/b"}, {"x", "y"}]


@pytest.mark.parametrize("directory", [True, False])
def test_a_single_small_file_is_a_plain_blob(*, directory: bool) -> None:
    plan = _plan(_tree("d", {"a": 1}, directory=directory))
    assert _packed(plan) == []
    assert plan.manifest.packs == ()


def test_identical_content_goes_up_once() -> None:
    plan = _plan(_tree("d", {"a": SMALL, "b": SMALL}), _tree("c", {"c": SMALL}, directory=False))
    assert len(plan.uploads) == 1
    assert len({entry.at for entry in plan.manifest.entries if entry.at}) == 1


def test_the_same_directory_at_two_places_makes_the_same_pack() -> None:
    plan = _plan(_tree("d", {"a": 1, "b": 2}), _tree("far/e", {"a": 1, "b": 2}))
    assert len(plan.uploads) == len(plan.manifest.packs) == 1


def test_entries_stand_in_the_order_of_their_bytes() -> None:
    plan = _plan(_tree("z", {"b": 1, "a": 2}), _tree("a", {"x": 3}, directory=False))
    assert [entry.path for entry in plan.manifest.entries] == ["a", "z", "z/a", "z/b"]


def test_two_inputs_that_claim_one_place_are_refused() -> None:
    with pytest.raises(SettingsError, match="'d/a' twice"):
        _plan(_tree("d", {"a": 1}), _tree("d/a", {"a": 2}, directory=False))


def test_an_input_inside_another_that_is_a_file_is_refused() -> None:
    with pytest.raises(SettingsError, match="no directory"):
        _plan(_tree("d", {"d": 1}, directory=False), _tree("d/a", {"a": 2}, directory=False))


@pytest.mark.parametrize(
    ("age_s", "size", "upload", "reason"),
    [
        (None, 0, True, "not in the store"),
        (10 * DAY_S + 1, 7, True, "renewed"),
        (10 * DAY_S, 7, False, "already"),
        (0, 7, False, "already"),
        (-60, 7, False, "already"),
        (0, 6, True, "damaged"),
    ],
    ids=["absent", "old", "just young", "new", "from a clock ahead", "another size"],
)
def test_a_blob_goes_up_unless_it_is_there_young_and_whole(
    age_s: float | None,
    size: int,
    reason: str,
    *,
    upload: bool,
) -> None:
    stored = None
    if age_s is not None:
        stored = StoredObject("k", size, '"e"', NOW - timedelta(seconds=age_s))
    decision, why = decide_upload(stored, 7, NOW, 30 * DAY_S)
    assert decision is upload
    assert reason in why
