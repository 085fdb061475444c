"""Where things lie: keys are readable, nameable by every client, and never two for one path."""

from __future__ import annotations

import os
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_store import MemoryStore

from s3runner.staging.layout import MAX_KEY_BYTES, AttemptLayout, StoreLayout, job_name

ATTEMPT = AttemptLayout("runs/jobs/j/attempts/u")
NAMES = st.binary(min_size=1, max_size=300).filter(lambda raw: b"\0" not in raw)


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("out.bam", "out.bam"),
        ("qc/a b.txt", "qc/a%20b.txt"),
        ("/data/x", "%2Fdata/x"),
        ("50%", "50%25"),
        ("caf\udce9", "caf%E9"),
        ("two\nlines", "two%0Alines"),
        ("$(id)", "%24%28id%29"),
    ],
)
def test_an_output_key_is_the_percent_encoded_path(path: str, key: str) -> None:
    assert ATTEMPT.out(path) == f"{ATTEMPT.root}/out/{key}"


@pytest.mark.parametrize(
    "path", ["a//b", "a/../b", "./a", "a/", "//a", "x" * 900, "ü" * 200, ".by-digest/a"]
)
def test_a_path_that_no_key_can_spell_is_named_by_its_digest(path: str) -> None:
    key = ATTEMPT.out(path)
    assert key.startswith(f"{ATTEMPT.root}/out/.by-digest/")
    assert len(key) <= MAX_KEY_BYTES


@given(NAMES, NAMES)
def test_two_paths_never_share_a_key(one: bytes, other: bytes) -> None:
    keys = {ATTEMPT.out(os.fsdecode(one)), ATTEMPT.out(os.fsdecode(other))}
    assert len(keys) == (1 if one == other else 2)


@given(NAMES)
def test_a_readable_key_leads_back_to_its_path(raw: bytes) -> None:
    key = ATTEMPT.out(os.fsdecode(raw)).removeprefix(f"{ATTEMPT.root}/out/")
    assert key.startswith(".by-digest/") or unquote_to_bytes(key) == raw


@given(NAMES)
def test_every_key_can_be_put_by_a_strict_client(raw: bytes) -> None:
    key = ATTEMPT.out(os.fsdecode(raw))
    MemoryStore().put(key, lambda: iter((b"",)), size=0, part_size=1)
    assert len(key.encode()) <= MAX_KEY_BYTES


def test_a_queue_belongs_to_one_destination_of_one_cluster() -> None:
    places = StoreLayout("runs").queue("spot", "sha256:0123456789abcdef0123")
    assert places == "runs/queue/spot/0123456789abcdef/"


def test_a_blob_lies_below_the_first_digits_of_its_digest() -> None:
    assert StoreLayout("runs").blob("sha256:abcd-3") == "runs/blobs/ab/abcd-3"
    assert StoreLayout("").blob("sha256:abcd") == "blobs/ab/abcd"


@pytest.mark.parametrize(
    ("job_id", "expected"),
    [
        ("0199e2a4-0000-7000-8000-000000000001", "0199e2a4-0000-7000-8000-000000000001-g2"),
        ("galaxy-12", "galaxy-12-g2"),
        ("Galaxy_12", "galaxy-12-b3716a8e-g2"),
        ("a.b", "a-b-2e7336dc-g2"),
        ("x" * 63, f"{'x' * 44}-75220b47-g2"),
        ("...", "job-ab5df625-g2"),
    ],
)
def test_a_jobs_name_is_a_dns_label_and_another_for_every_id(job_id: str, expected: str) -> None:
    assert job_name(job_id, 2) == expected
    # a pod gets six characters more
    assert len(job_name(job_id, 10)) <= 63 - 6
