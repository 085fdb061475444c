"""Digests: one rule for cutting and naming content, by size alone."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3runner.model import Pack
from s3runner.staging.digest import (
    MAX_PARTS,
    PART,
    PartHasher,
    combine,
    digest_problem,
    listed,
    part_count,
    part_range,
    part_size,
    parts_of,
)

MIB = 1024**2
SIZES = st.integers(0, 5 * 1024**4)


@pytest.mark.parametrize(
    ("size", "part", "count"),
    [
        (0, 16 * MIB, 1),
        (1, 16 * MIB, 1),
        (16 * MIB, 16 * MIB, 1),
        (16 * MIB + 1, 16 * MIB, 2),
        (160_000 * MIB, 16 * MIB, 10_000),
        (160_000 * MIB + 1, 32 * MIB, 5_001),
    ],
)
def test_part_size_follows_from_size(size: int, part: int, count: int) -> None:
    assert (part_size(size), part_count(size)) == (part, count)


@given(SIZES)
def test_part_size_is_the_smallest_power_that_keeps_s3s_limit(size: int) -> None:
    step = part_size(size)
    assert step % PART == 0
    assert (step // PART).bit_count() == 1
    assert step * MAX_PARTS >= size
    assert step == PART or step // 2 * MAX_PARTS < size


@given(st.integers(0, 100 * PART))
def test_parts_cover_the_content_without_gap_or_overlap(size: int) -> None:
    position = 0
    for index in range(part_count(size)):
        start, length = part_range(size, index)
        assert start == position
        assert 0 < length <= PART or size == 0
        position += length
    assert position == size


def test_one_part_is_its_own_sha256_and_more_are_the_digest_of_digests() -> None:
    one, two = (hashlib.sha256(content) for content in (b"1", b"2"))
    assert combine([one.hexdigest()]) == f"sha256:{one.hexdigest()}"
    both = hashlib.sha256(one.digest() + two.digest()).hexdigest()
    assert combine([one.hexdigest(), two.hexdigest()]) == f"sha256:{both}-2"


@given(st.binary(max_size=300), st.lists(st.integers(1, 50)), st.integers(1, 64))
def test_hashing_a_stream_does_not_depend_on_its_chunks(
    content: bytes, cuts: list[int], size: int
) -> None:
    hasher = PartHasher(size)
    rest = content
    for cut in cuts:
        hasher.update(rest[:cut])
        rest = rest[cut:]
    hasher.update(memoryview(rest))
    parts = [content[start : start + size] for start in range(0, len(content), size)] or [b""]
    assert hasher.finish() == tuple(hashlib.sha256(part).hexdigest() for part in parts)


@given(st.lists(st.binary(max_size=3), min_size=1, max_size=5))
def test_parts_come_back_from_what_a_manifest_lists(contents: list[bytes]) -> None:
    parts = tuple(hashlib.sha256(content).hexdigest() for content in contents)
    assert parts_of(Pack("key", 0, combine(parts), listed(parts))) == parts


HEX = hashlib.sha256(b"").hexdigest()
TWO = combine([HEX, HEX])


@pytest.mark.parametrize(
    ("digest", "parts", "size"),
    [
        ("", (), 0),
        ("md5:00", (), 0),
        (f"sha256:{HEX.upper()}", (), 0),
        (f"sha256:{HEX}\n", (), 0),
        (f"sha256:{HEX}-1", (), 0),
        (f"sha256:{HEX}", (HEX,), 0),
        (f"sha256:{HEX}", (), PART + 1),
        (TWO, (HEX, HEX), PART),
        (TWO, (HEX,), PART + 1),
        (TWO, (HEX, "0" * 63), PART + 1),
        (TWO, (HEX, "0" * 64), PART + 1),
    ],
)
def test_a_digest_that_does_not_fit_is_a_problem(
    digest: str, parts: tuple[str, ...], size: int
) -> None:
    assert digest_problem(digest, parts, size)


def test_a_digest_that_fits_is_no_problem() -> None:
    assert digest_problem(f"sha256:{HEX}", (), 0) == ""
    assert digest_problem(TWO, (HEX, HEX), PART + 1) == ""
