"""Keys from the environment and from the shared credentials file, by botocore's rules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from s3runner.errors import SettingsError
from s3runner.model import Credentials
from s3runner.store.credentials import credentials_from_environment

KEYS = {"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "SK"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".aws").mkdir()
    return tmp_path


def write(home: Path, credentials: str = "", config: str = "") -> dict[str, str]:
    (home / ".aws" / "credentials").write_text(credentials)
    (home / ".aws" / "config").write_text(config)
    return {"HOME": str(home)}


TWO_PROFILES = """
[default]
aws_access_key_id = default-key
aws_secret_access_key = 100%secret%(x)s
[lab]
aws_access_key_id=lab-key
aws_secret_access_key=lab-secret
aws_session_token=lab-token
"""


def test_the_environments_keys_come_first(home: Path) -> None:
    environ = write(home, TWO_PROFILES) | KEYS
    assert credentials_from_environment(environ) == Credentials("AK", "SK")


def test_a_session_token_comes_along(home: Path) -> None:
    environ = {"HOME": str(home), **KEYS, "AWS_SESSION_TOKEN": "T"}
    assert credentials_from_environment(environ) == Credentials("AK", "SK", "T")


def test_a_profile_that_was_asked_for_goes_before_the_environments_keys(home: Path) -> None:
    environ = write(home, TWO_PROFILES) | KEYS
    found = credentials_from_environment(environ, profile="lab")
    assert found == Credentials("lab-key", "lab-secret", "lab-token")


@pytest.mark.parametrize(
    ("variables", "key"),
    [({}, "default-key"), ({"AWS_PROFILE": "lab"}, "lab-key")],
    ids=["default", "AWS_PROFILE"],
)
def test_without_keys_in_the_environment_the_file_is_read(
    home: Path, variables: dict[str, str], key: str
) -> None:
    found = credentials_from_environment(write(home, TWO_PROFILES) | variables)
    assert found is not None
    assert found.access_key == key


def test_a_secret_with_percent_signs_is_kept(home: Path) -> None:
    found = credentials_from_environment(write(home, TWO_PROFILES))
    assert found == Credentials("default-key", "100%secret%(x)s")


def test_the_file_may_lie_elsewhere(home: Path) -> None:
    (home / "keys").write_text(TWO_PROFILES)
    for place in (str(home / "keys"), "~/keys"):
        environ = {"HOME": str(home), "AWS_SHARED_CREDENTIALS_FILE": place}
        assert credentials_from_environment(environ) is not None


def test_nothing_found_is_none(home: Path) -> None:
    assert credentials_from_environment({"HOME": str(home)}) is None
    assert credentials_from_environment({"HOME": str(home / "nowhere")}) is None
    environ = write(home, TWO_PROFILES)
    assert credentials_from_environment(environ, profile="unknown") is None


@pytest.mark.parametrize(
    "line",
    ["role_arn = arn:aws:iam::1:role/x", "sso_session = corp", "credential_process = /bin/keys"],
    ids=["role", "sso", "process"],
)
@pytest.mark.parametrize("where", ["credentials", "config"])
def test_a_profile_that_asks_somebody_is_left_to_botocore(
    home: Path, line: str, where: str
) -> None:
    section = "[profile lab]" if where == "config" else "[lab]"
    texts = {"credentials": TWO_PROFILES.replace("[lab]", "[other]"), "config": ""}
    texts[where] += f"\n{section}\n{line}\n"
    environ = write(home, texts["credentials"], texts["config"])
    if where == "config":
        (home / ".aws" / "credentials").write_text(TWO_PROFILES)
    assert credentials_from_environment(environ, profile="lab") is None


@pytest.mark.parametrize(
    ("environ", "absent"),
    [
        ({"AWS_ACCESS_KEY_ID": "AK"}, "no AWS_SECRET_ACCESS_KEY"),
        ({"AWS_SECRET_ACCESS_KEY": "SK", "AWS_ACCESS_KEY_ID": ""}, "no AWS_ACCESS_KEY_ID"),
    ],
    ids=["no secret", "no key"],
)
def test_half_a_pair_is_refused(environ: dict[str, str], absent: str) -> None:
    with pytest.raises(SettingsError, match=absent) as caught:
        credentials_from_environment(environ)
    assert "SK" not in str(caught.value)


def test_a_damaged_file_is_refused_by_name_without_its_contents(home: Path) -> None:
    environ = write(home, "aws_secret_access_key = verysecret\n")
    with pytest.raises(
        SettingsError, match=r"\.aws/credentials:1: not a credentials file"
    ) as caught:
        credentials_from_environment(environ)
    assert "verysecret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_cannot_be_read_is_refused_by_name(home: Path) -> None:
    environ = {"HOME": str(home), "AWS_SHARED_CREDENTIALS_FILE": str(home)}
    with pytest.raises(SettingsError, match="Is a directory"):
        credentials_from_environment(environ)


def test_no_secret_shows_in_a_repr() -> None:
    shown = repr(Credentials("AK", "very-secret", "token-secret"))
    assert "secret" not in shown.replace("secret_key", "")


def test_botocore_finds_the_same_keys(home: Path) -> None:
    """The two ways agree on who goes first: environment, AWS_PROFILE, an explicit profile."""
    script = (
        "import sys, botocore.session;"
        "s = botocore.session.Session(profile=sys.argv[1] if sys.argv[1:] else None);"
        "print(s.get_credentials().access_key)"
    )
    cases: list[tuple[dict[str, str], str | None]] = [
        (KEYS, None),
        (KEYS, "lab"),
        ({"AWS_PROFILE": "lab"}, None),
        (KEYS | {"AWS_PROFILE": "lab"}, None),
    ]
    for variables, profile in cases:
        environ = write(home, TWO_PROFILES) | variables | {"AWS_EC2_METADATA_DISABLED": "true"}
        command = [sys.executable, "-c", script, *([profile] if profile else [])]
        told = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        found = credentials_from_environment(environ, profile=profile)
        assert found is not None
        assert found.access_key == told.stdout.strip()
