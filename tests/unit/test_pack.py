"""Packs: real tars whose members lie where the plan says."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hostile import NAMES
from hypothesis import given
from hypothesis import strategies as st

from s3runner.staging.pack import MAX_PAYLOAD, Member, PackPlan, plan_pack, plan_packs, rechunk

PATHS = (
    st.lists(
        st.binary(min_size=1, max_size=90).filter(
            lambda raw: b"\0" not in raw and b"/" not in raw and raw not in (b".", b"..")
        ),
        min_size=1,
        max_size=4,
    )
    .map(b"/".join)
    .map(os.fsdecode)
)


def _tar(plan: PackPlan, contents: Mapping[str, bytes]) -> bytes:
    return b"".join(
        contents[segment.name] if isinstance(segment, Member) else segment
        for segment in plan.segments()
    )


@given(st.dictionaries(PATHS, st.binary(max_size=1500), min_size=1, max_size=5))
def test_any_names_and_contents_make_a_tar_that_others_read(contents: dict[str, bytes]) -> None:
    plan = plan_pack((name, len(content)) for name, content in contents.items())
    packed = _tar(plan, contents)
    assert len(packed) == plan.size
    with tarfile.open(
        fileobj=io.BytesIO(packed), mode="r:", encoding="utf-8", errors="surrogateescape"
    ) as tar:
        read = {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]  # all are files
    assert read == contents
    for member in plan.members:
        assert packed[member.offset : member.offset + member.size] == contents[member.name]


def test_tar_lists_and_unpacks_the_nastiest_names(tmp_path: Path) -> None:
    assert shutil.which("tar")
    contents = {f"d/{os.fsdecode(name)}": b"content of " + name for name in NAMES.values()}
    [plan] = plan_packs((name, len(content)) for name, content in contents.items())
    (tmp_path / "p.tar").write_bytes(_tar(plan, contents))
    listing = subprocess.run(
        ["tar", "--null", "--quoting-style=literal", "-tvf", tmp_path / "p.tar"],
        capture_output=True,
        check=True,
    )
    assert listing.stderr == b""
    assert listing.stdout.count(b"-rw-r--r-- 0/0") == len(NAMES)
    subprocess.run(["tar", "-xf", tmp_path / "p.tar", "-C", tmp_path], check=True)
    unpacked = {
        f"d/{os.fsdecode(name)}": Path(tmp_path, "d", os.fsdecode(name)).read_bytes()
        for name in NAMES.values()
    }
    assert unpacked == contents
    assert len(list((tmp_path / "d").iterdir())) == len(NAMES)


def test_a_file_larger_than_octal_digits_hold_is_still_a_tar() -> None:
    size = 8**11
    header = next(plan_pack([("huge", size)]).segments())
    assert isinstance(header, bytes)
    info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    assert (info.name, info.size, info.mode, info.mtime) == ("huge", size, 0o644, 0)


def test_a_pack_does_not_depend_on_the_order_of_finding() -> None:
    members = [("b", 1), ("a/b", 2), ("a", 3), ("a-b", 4)]
    [plan] = plan_packs(members)
    assert [plan] == plan_packs(reversed(members))
    assert [member.name for member in plan.members] == ["a", "a-b", "a/b", "b"]


@given(st.lists(st.integers(0, MAX_PAYLOAD // 3), max_size=30))
def test_no_pack_holds_more_than_its_payload_and_no_file_is_lost(sizes: list[int]) -> None:
    plans = plan_packs((str(number), size) for number, size in enumerate(sizes))
    assert sorted(m.size for plan in plans for m in plan.members) == sorted(sizes)
    assert all(sum(m.size for m in plan.members) <= MAX_PAYLOAD for plan in plans)
    assert all(plan.members for plan in plans)


def test_three_hundred_small_files_are_one_pack() -> None:
    assert len(plan_packs((str(number), 100_000) for number in range(300))) == 1


def test_nothing_makes_no_pack() -> None:
    assert plan_packs([]) == []


@given(st.lists(st.binary(max_size=40)), st.integers(1, 64))
def test_chunks_have_exactly_the_part_size(pieces: list[bytes], size: int) -> None:
    chunks = list(rechunk(pieces, size))
    assert b"".join(chunks) == b"".join(pieces)
    assert all(len(chunk) == size for chunk in chunks[:-1])
    assert all(0 < len(chunk) <= size for chunk in chunks)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513])
def test_members_begin_at_blocks_and_the_tar_ends_with_two_empty_ones(size: int) -> None:
    plan = plan_pack([("a", size), ("b", 0)])
    packed = _tar(plan, {"a": b"x" * size, "b": b""})
    assert all(member.offset % 512 == 0 for member in plan.members)
    assert packed.endswith(bytes(1024))
    assert plan.size == len(packed)
    assert plan.size % 512 == 0
