"""gc on real stores: real listings, real deletes, real uploads that nobody completed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import boto3
import pytest
from command import Desk
from conftest import S3Access

from s3runner.errors import S3RunnerError, StagingError
from s3runner.runner.gc import Collector
from s3runner.staging.expiry import DAY_S, Lifetimes
from s3runner.staging.layout import StoreLayout
from s3runner.store.control import BucketControl
from s3runner.store.protocol import OpenUpload
from s3runner.store.retrying import RetryingStore

PART = b"x" * (5 * 1024 * 1024)
BLOB = StoreLayout("runs").blob("sha256:" + "a" * 64)


@dataclass(frozen=True)
class Later:
    """The bucket's control plane, some days from now: no test can wait for so long."""

    control: BucketControl
    days: float

    def now(self) -> datetime:
        return self.control.now() + timedelta(days=self.days)

    def idle_uploads(self, prefix: str, before: datetime) -> Sequence[OpenUpload]:
        return self.control.idle_uploads(prefix, before)

    def delete(self, keys: Sequence[str]) -> Mapping[str, S3RunnerError]:
        return self.control.delete(keys)

    def abort(self, uploads: Sequence[OpenUpload]) -> None:
        self.control.abort(uploads)


@pytest.fixture(params=["moto", "rgw-http"])
def access(request: pytest.FixtureRequest) -> S3Access:
    name = {"moto": "moto_access", "rgw-http": "rgw_access"}[request.param]
    found: S3Access = request.getfixturevalue(name)
    return found


@pytest.fixture
def desk(tmp_path: Path, access: S3Access) -> Desk:
    return Desk(tmp_path, access)


@contextmanager
def client_of(access: S3Access) -> Iterator[Any]:
    client = boto3.client(
        "s3",
        endpoint_url=access.config.endpoint,
        region_name="us-east-1",
        aws_access_key_id=access.credentials.access_key,
        aws_secret_access_key=access.credentials.secret_key,
    )
    yield client
    client.close()


def begin_upload(access: S3Access, key: str, *, parts: int = 1) -> str:
    with client_of(access) as client:
        bucket = access.config.bucket
        upload_id: str = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        for number in range(1, parts + 1):
            client.upload_part(
                Bucket=bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=PART
            )
    return upload_id


def open_keys(access: S3Access) -> list[str]:
    with client_of(access) as client:
        answer = client.list_multipart_uploads(Bucket=access.config.bucket)
    return sorted(upload["Key"] for upload in answer.get("Uploads", ()))


def in_days(access: S3Access, days: float) -> Collector:
    return Collector(
        RetryingStore(access.open()),
        Later(BucketControl(access.config, access.credentials), days),
        access.config,
        Lifetimes(30 * DAY_S, 90 * DAY_S),
    )


def test_the_store_says_what_time_it_is(s3_access: S3Access) -> None:
    told = BucketControl(s3_access.config, s3_access.credentials).now()
    assert abs(told - datetime.now(timezone.utc)) < timedelta(minutes=1)


def test_idle_uploads_are_found_with_their_size_and_aborted(access: S3Access) -> None:
    control = BucketControl(access.config, access.credentials)
    with_parts = begin_upload(access, BLOB, parts=2)
    bare = begin_upload(access, "runs/jobs/j/attempts/u/out/big")
    begin_upload(access, "runs2/blobs/other", parts=0)
    later = control.now() + timedelta(days=1)

    found = [
        *control.idle_uploads("runs/blobs/", later),
        *control.idle_uploads("runs/jobs/", later),
    ]

    assert found == [
        OpenUpload(BLOB, with_parts, 2 * len(PART)),
        OpenUpload("runs/jobs/j/attempts/u/out/big", bare, len(PART)),
    ]
    control.abort(found)
    control.abort(found)
    assert open_keys(access) == ["runs2/blobs/other"]


def test_an_upload_that_somebody_works_on_is_not_idle(rgw_access: S3Access) -> None:
    control = BucketControl(rgw_access.config, rgw_access.credentials)
    begin_upload(rgw_access, BLOB)
    assert control.idle_uploads("runs/", control.now() - timedelta(minutes=1)) == []


def test_the_uploads_of_all_pages_are_found(
    rgw_access: S3Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = BucketControl(rgw_access.config, rgw_access.credentials)
    keys = [f"runs/jobs/j/{number}" for number in range(5)]
    for key in keys:
        begin_upload(rgw_access, key, parts=0)
    monkeypatch.setattr("s3runner.store.control._PAGE", 2)
    found = control.idle_uploads("runs/jobs/", control.now() + timedelta(days=1))
    assert sorted(upload.key for upload in found) == keys


def test_a_jobs_whole_life_ends_with_gc(desk: Desk, access: S3Access) -> None:
    store = access.open()
    outside = ["other/blobs/" + BLOB[11:], "runs2/jobs/x/commit.json"]
    for key in outside:
        store.put_if_absent(key, b"not ours")
    (desk.directory / "in").write_bytes(b"a" * 2_000_000)
    ran = desk.run_job(
        name="job", command="mkdir d; cp in d/a; cp in o", inputs={"in": "in"}, outputs=["o", "d"]
    )
    assert ran.code == 0, ran.stderr
    begin_upload(access, BLOB)

    def left() -> set[str]:
        return {key.removeprefix("runs/").partition("/")[0] for key in desk.keys("/")}

    assert in_days(access, 0.5).collect(dry_run=False).blobs == ()
    assert left() == {"blobs", "jobs"}

    after_a_month = in_days(access, 31).collect(dry_run=False)
    assert [item.size for item in after_a_month.blobs] == [2_000_000]
    assert [upload.key for upload in after_a_month.uploads] == [BLOB]
    assert after_a_month.jobs == ()
    assert left() == {"jobs"}
    assert desk.run("sync", ran.json["job_id"]).code == 0

    after_a_quarter = in_days(access, 91).collect(dry_run=False)
    assert [job.job_id for job in after_a_quarter.jobs] == [ran.json["job_id"]]
    assert desk.keys() == []
    assert open_keys(access) == []
    assert [store.head(key).size for key in outside] == [8, 8]
    assert desk.run("sync", ran.json["job_id"]).code == 2


def test_the_verb_leaves_what_is_young(desk: Desk) -> None:
    assert desk.run_job(name="job", command="echo 1 > o", outputs=["o"]).code == 0
    before = desk.keys()
    ran = desk.run("gc", "--json")
    assert ran.code == 0, ran.stderr
    assert ran.json == {
        "dry_run": False,
        "bytes": 0,
        "jobs": [],
        "blobs": [],
        "uploads": [],
        "probes": [],
        "marks": [],
    }
    assert ran.stderr.startswith("s3runner: gc: removed 0 jobs, 0 blobs, ")
    assert desk.keys() == before


def test_a_job_whose_needs_cannot_be_read_stops_gc(access: S3Access) -> None:
    job = StoreLayout("runs").job("0199e2a4-0000-7000-8000-000000000001")
    access.open().put_if_absent(job.spec, b"{")
    begin_upload(access, BLOB)
    collector = in_days(access, 31)
    with pytest.raises(StagingError, match="damaged document") as caught:
        collector.collect(dry_run=False)
    assert job.spec in str(caught.value)
    assert open_keys(access) == [BLOB]
