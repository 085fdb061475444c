"""The control plane: credentials by botocore's chain, and the look at a bucket."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import S3Access
from memory_store import MemoryControl, MemoryStore

from s3runner.errors import SettingsError, StoreAccessError, StoreUnavailableError
from s3runner.model import Credentials, StoreConfig
from s3runner.store import control
from s3runner.store.control import (
    BucketControl,
    check_bucket,
    create_bucket,
    resolve_credentials,
)
from s3runner.store.protocol import ObjectStore, StoreControl


@pytest.fixture
def aws_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An AWS directory of its own, and nothing to be found elsewhere."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return tmp_path


def test_a_bucket_that_is_there_passes(s3_access: S3Access) -> None:
    check_bucket(s3_access.config, s3_access.credentials)


def test_a_missing_bucket_is_told_and_can_be_created(s3_access: S3Access) -> None:
    config = replace(s3_access.config, bucket=f"{s3_access.config.bucket}-other")
    with pytest.raises(StoreAccessError, match=r"no such bucket \(ListObjects\)") as caught:
        check_bucket(config, s3_access.credentials)
    assert "store.url" in caught.value.hint
    create_bucket(config, s3_access.credentials)
    create_bucket(config, s3_access.credentials)
    check_bucket(config, s3_access.credentials)


def test_a_function_of_keys_is_asked(rgw_access: S3Access) -> None:
    check_bucket(rgw_access.config, lambda: rgw_access.credentials)
    with pytest.raises(StoreAccessError, match="unknown access key"):
        check_bucket(rgw_access.config, lambda: Credentials("nobody", "secret"))


def test_a_wrong_secret_is_told(rgw_access: S3Access) -> None:
    keys = replace(rgw_access.credentials, secret_key="wrong")  # noqa: S106 # that is the test
    with pytest.raises(StoreAccessError, match="wrong secret key"):
        check_bucket(rgw_access.config, keys)


def test_an_endpoint_that_is_down_is_temporary() -> None:
    config = StoreConfig("bucket", endpoint="http://127.0.0.1:1", insecure_http=True)
    with pytest.raises(StoreUnavailableError, match="no answer"):
        check_bucket(config, Credentials("key", "secret"))


def test_a_certificate_of_an_unknown_authority_is_refused(rgw_tls_access: S3Access) -> None:
    config = replace(rgw_tls_access.config, ca_pem=None)
    with pytest.raises(StoreAccessError, match="not trusted"):
        check_bucket(config, rgw_tls_access.credentials)


def test_the_environments_endpoint_is_not_ours(
    moto_access: S3Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    check_bucket(moto_access.config, moto_access.credentials)


def test_without_an_endpoint_requests_go_to_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    config = StoreConfig("bucket", region="eu-west-1")
    with control._client(config, Credentials("key", "secret")) as client:
        assert client.meta.endpoint_url == "https://s3.eu-west-1.amazonaws.com"


Bucket = tuple[ObjectStore, StoreControl]


@pytest.fixture(params=["memory", "moto", "rgw-http", "rgw-tls"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    """The data and the control plane of one bucket."""
    if request.param == "memory":
        store = MemoryStore()
        return store, MemoryControl(store)
    names = {"moto": "moto_access", "rgw-http": "rgw_access", "rgw-tls": "rgw_tls_access"}
    access: S3Access = request.getfixturevalue(names[request.param])
    return access.open(), BucketControl(access.config, access.credentials)


def test_more_objects_than_fit_into_a_request_are_deleted(bucket: Bucket) -> None:
    store, deleting = bucket
    names = ["&<>\"' é+", "a%20b/%2F%0A%25", "back\\slash", "#?=@:,[]{}^~!*", "日本語"]
    keys = [*(f"in/{name}" for name in names), *(f"in/{number:04}" for number in range(1100))]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda key: store.put_if_absent(key, b""), [*keys, "in2/other"]))

    assert deleting.delete([*keys, "in/never/was"]) == {}

    assert list(store.list("in/")) == []
    assert [item.key for item in store.list("in2/")] == ["in2/other"]
    assert deleting.delete(keys) == {}
    assert deleting.delete([]) == {}


@pytest.mark.parametrize("server", ["moto_access", "rgw_access"])
def test_an_object_that_cannot_be_deleted_is_named_and_the_others_go(
    request: pytest.FixtureRequest, server: str
) -> None:
    access: S3Access = request.getfixturevalue(server)
    store, name = access.open(), access.config.bucket
    for number in range(5):
        store.put_if_absent(f"in/{number}", b"")
    deny = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:DeleteObject",
        "Resource": f"arn:aws:s3:::{name}/in/3",
    }
    with control._client(access.config, access.credentials) as client:
        policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
        client.put_bucket_policy(Bucket=name, Policy=policy)

    left = BucketControl(access.config, access.credentials).delete(
        [f"in/{number}" for number in range(5)]
    )

    (error,) = left.values()
    assert list(left) == ["in/3"]
    assert str(error) == f"s3://{name}/in/3: access denied (DeleteObjects)"
    assert (error.code, error.temporary) == (23, False)
    assert [item.key for item in store.list("in/")] == ["in/3"]


def test_deleting_in_a_bucket_that_is_not_there_is_an_error(s3_access: S3Access) -> None:
    config = replace(s3_access.config, bucket=f"{s3_access.config.bucket}-other")
    with pytest.raises(StoreAccessError, match=r"no such bucket \(DeleteObjects\)"):
        BucketControl(config, s3_access.credentials).delete(["k"])


def test_a_process_that_prints_keys_is_run(aws_dir: Path) -> None:
    keys = '{"Version": 1, "AccessKeyId": "AK", "SecretAccessKey": "SK", "SessionToken": "T"}'
    (aws_dir / "keys.json").write_text(keys)
    (aws_dir / "config").write_text(
        f"[profile lab]\ncredential_process = cat {aws_dir / 'keys.json'}\n"
    )
    assert resolve_credentials("lab")() == Credentials("AK", "SK", "T")


def test_keys_that_cannot_be_renewed_are_denied_access(aws_dir: Path) -> None:
    (aws_dir / "config").write_text("[profile lab]\ncredential_process = false\n")
    with pytest.raises(StoreAccessError, match="credentials"):
        resolve_credentials("lab")


def test_an_unknown_profile_is_a_settings_error(aws_dir: Path) -> None:
    assert not (aws_dir / "config").exists()
    with pytest.raises(SettingsError, match="nobody"):
        resolve_credentials("nobody")


def test_no_keys_at_all_are_told_with_a_hint(aws_dir: Path) -> None:
    assert not (aws_dir / "credentials").exists()
    with pytest.raises(StoreAccessError, match="no credentials") as caught:
        resolve_credentials()
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint
