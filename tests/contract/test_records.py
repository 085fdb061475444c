"""Head and pod write and read the same documents: each half against the other."""

from __future__ import annotations

import json
from typing import Any

import pytest
import samples

from s3runner.errors import SpecError
from s3runner.model import Entry, Kind, Manifest, Outcome, Phase, StoredAt
from s3runner.staging.records import Commit, ExternalManifest, Generation, Result, Spec

FILE = Entry(
    path="in.bam",
    kind=Kind.FILE,
    mode=0o640,
    mtime_ns=1_700_000_000_123_456_789,
    size=3,
    digest="sha256:" + "a" * 64,
    at=StoredAt("lab/blobs/aa/" + "a" * 64),
)

DOCUMENTS: list[Any] = [
    samples.spec(inputs=Manifest((FILE,))),
    samples.spec(inputs=ExternalManifest("lab/jobs/x/inputs.json", "sha256:1"), command=("a", "b")),
    Generation(1, "job-g1", "sha256:1", stage_in=Phase(1.5, 2, 3, 4)),
    Generation(
        number=2,
        job_name="",
        spec_digest="",
        previous="evicted",
        end=Commit("head", Outcome.BUDGETS_SPENT, None, None, 1, {"job": "gone"}),
        spent={"evicted": 3},
    ),
    Result("job", 1, "uid", Outcome.TOOL_FAILED, 3, "sha256:1", {"run": Phase(2.0)}, {"a": 1}),
    Commit("pod", Outcome.SUCCEEDED, "uid", "sha256:1", 1),
    Commit("head", Outcome.CANCELLED, None, None, 2, {"job": "gone"}),
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda item: type(item).__name__)
def test_a_document_reads_back_as_it_was_written(document: Any) -> None:
    assert type(document).load(document.dump(), "s3://b/k") == document


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda item: type(item).__name__)
def test_every_document_carries_the_protocol_and_refuses_another(document: Any) -> None:
    body = json.loads(document.dump())
    assert body["protocol"] == 1

    newer = json.dumps({**body, "protocol": 2}).encode()
    with pytest.raises(SpecError, match="protocol 2") as caught:
        type(document).load(newer, "s3://b/k")
    assert "s3://b/k" in str(caught.value)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda item: type(item).__name__)
def test_a_document_without_one_of_its_fields_is_damaged(document: Any) -> None:
    body = json.loads(document.dump())
    for name in set(body) - {"protocol"}:
        rest = {key: value for key, value in body.items() if key != name}
        with pytest.raises(SpecError, match="damaged"):
            type(document).load(json.dumps(rest).encode(), "s3://b/k")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"protocol": 1}', b"\xff", b"null"])
def test_what_is_no_document_is_refused(body: bytes) -> None:
    with pytest.raises(SpecError):
        Spec.load(body, "s3://b/k")
