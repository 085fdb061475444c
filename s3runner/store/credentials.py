"""S3 keys from where most people keep them, without boto3: its import costs most of a second.

The rules are botocore's, so that both find the same keys; whatever needs more than a look into a
file (roles, SSO, processes) is left to it: see `control.resolve_credentials`.
"""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from pathlib import Path

from s3runner.errors import SettingsError
from s3runner.model import Credentials

_ASKS_SOMEBODY = (
    "role_arn",
    "source_profile",
    "credential_source",
    "credential_process",
    "web_identity_token_file",
    "sso_session",
    "sso_start_url",
    "login_session",
)
"""Keys of a profile whose credentials come from a service or a program."""


def credentials_from_environment(
    environ: Mapping[str, str], *, profile: str | None = None
) -> Credentials | None:
    """Return the keys of the environment, or else of the profile in the shared credentials file.

    A profile that is asked for by `profile` goes before the environment's keys; one named by
    AWS_PROFILE after them. None: there are none here, or only botocore knows how to get them.
    Raises SettingsError for half a pair of keys and for a file that cannot be read.
    """
    if profile is None and ("AWS_ACCESS_KEY_ID" in environ or "AWS_SECRET_ACCESS_KEY" in environ):
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        return _pair(environ, names, "the environment")
    name = profile or environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE") or "default"
    home = Path(environ.get("HOME") or Path.home())
    settings_file = _path(environ.get("AWS_CONFIG_FILE"), home, "config")
    section = "default" if name == "default" else f"profile {name}"
    settings = _section(settings_file, section)
    keys_file = _path(environ.get("AWS_SHARED_CREDENTIALS_FILE"), home, "credentials")
    keys = _section(keys_file, name)
    if any(asks in found for asks in _ASKS_SOMEBODY for found in (settings, keys)):
        return None
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    if names[0] not in keys and names[1] not in keys:
        return None
    return _pair(keys, names, f"{keys_file}, profile {name}")


def _pair(values: Mapping[str, str], names: tuple[str, str, str], where: str) -> Credentials | None:
    access, secret, token = (values.get(name, "").strip() for name in names)
    if not access and not secret:
        return None
    if not access or not secret:
        present, absent = (names[0], names[1]) if access else (names[1], names[0])
        raise SettingsError(f"{where} has {present} but no {absent}")
    return Credentials(access, secret, token or None)


def _path(given: str | None, home: Path, name: str) -> Path:
    if not given:
        return home / ".aws" / name
    return home / given[2:] if given.startswith("~/") else Path(given)


def _section(path: Path, name: str) -> Mapping[str, str]:
    """Return a section's values; empty when there is no such file or section."""
    # no interpolation: secret keys hold percent signs
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"), source=str(path))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except (configparser.Error, UnicodeDecodeError) as error:
        # the parser's own message quotes the line, which may hold a secret
        line = getattr(error, "lineno", None)
        place = f"{path}:{line}" if line else str(path)
        raise SettingsError(f"{place}: not a credentials file in AWS's form") from None
    return dict(parser.items(name)) if parser.has_section(name) else {}
