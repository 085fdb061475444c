"""The control plane: credentials by botocore's chain, and the look at a bucket."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import S3Access

from s3runner.errors import SettingsError, StoreAccessError, StoreUnavailableError
from s3runner.model import Credentials, StoreConfig
from s3runner.store import control
from s3runner.store.control import check_bucket, create_bucket, resolve_credentials


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
