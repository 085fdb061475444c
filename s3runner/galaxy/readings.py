"""How single parameters of Galaxy are read: what each value becomes in the form of `s3runner.yml`.

They stand apart from the table of parameters because each is a small rule of Galaxy's own. All are
pure and raise ValueError with what the value should have been.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from s3runner.errors import SettingsError
from s3runner.yamlfile import Plain, parse_yaml

Reading = Callable[[Any], Any]

_TRUE = ("true", "yes", "on", "y", "t", "1")
_FALSE = ("false", "no", "off", "n", "f", "0")
_BYTES = re.compile(r"(.*?)([KMGTPE]I?)?")
_POWERS = "KMGTPE"
_INSTANCE = re.compile(r"[a-z0-9]([-a-z0-9]{0,18}[a-z0-9])?")


def scalar(value: Any) -> Any:
    """Return text without blanks at its ends, and other values of YAML as the settings know them.

    Galaxy's YAML has types already: a truth value becomes the word that stood there.
    """
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return Plain(str(value).lower())
    if isinstance(value, Mapping):
        return {str(key): scalar(below) for key, below in value.items()}
    return [scalar(below) for below in value] if isinstance(value, list | tuple) else value


def structure(value: Any) -> Any:
    """Return a mapping or list that is written as YAML in a text, or is one already."""
    if not isinstance(value, str):
        return scalar(value)
    try:
        return parse_yaml(value, "").data
    except SettingsError as error:
        raise ValueError(error.reason.removeprefix(":").partition(": ")[2]) from error


def mapping(value: Any) -> dict[str, Any]:
    """Return a mapping. Raises ValueError for anything else."""
    found = structure(value)
    if not isinstance(found, dict):
        raise ValueError("must be a mapping of keys to values")  # noqa: TRY004  # of one kind
    return found


def truth(value: Any) -> bool:
    """Return what Galaxy takes a value for: true, yes, on, 1 or their opposites."""
    text = str(value).strip().lower()
    if text not in (*_TRUE, *_FALSE):
        raise ValueError("must be true or false")
    return text in _TRUE


def whole(value: Any) -> int:
    """Return a whole number that is not negative."""
    text = str(value).strip()
    if not re.fullmatch(r"[0-9]+", text):
        raise ValueError("must be a whole number")
    return int(text)


def user(value: Any) -> Any:
    """Return a user's number; `$uid` is that of Galaxy's own process."""
    return os.getuid() if scalar(value) == "$uid" else scalar(value)


def group(value: Any) -> Any:
    """Return a group's number; `$gid` is that of Galaxy's own process."""
    return os.getgid() if scalar(value) == "$gid" else scalar(value)


def more_groups(value: Any) -> list[int]:
    """Return a supplemental group as the list that a pod has."""
    return [whole(group(value))]


def seconds_to_keep(value: Any) -> int:
    """Return how long a finished Job is kept; at once is a second."""
    return max(1, whole(value))


def limit_or_none(value: Any) -> int | None:
    """Return seconds; 0 stands for no limit of its own."""
    return whole(value) or None


def bytes_of(value: Any) -> str:
    """Return an amount of memory as bytes, read as Galaxy does: `4G`, `4Gi`, `4g`, `129e6`.

    A small letter means the same as a capital one, so that `500m` is 500 megabytes.
    """
    match = _BYTES.fullmatch(str(value).strip().upper())
    number, unit = match.groups() if match else ("", None)
    factor = (1024 if unit.endswith("I") else 1000) ** (_POWERS.index(unit[0]) + 1) if unit else 1
    try:
        return str(int(Decimal(number) * factor))
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise ValueError(f"{str(value)!r} is no amount of memory; write 4G or 500Mi") from error


def volumes(value: Any) -> list[dict[str, Any]]:
    """Return claims as volumes: `claim/directory:/mount:r`, several with commas between them."""
    items = [item.strip() for item in str(value).split(",") if item.strip()]
    return [_volume(number, item) for number, item in enumerate(items, start=1)]


def _volume(number: int, text: str) -> dict[str, Any]:
    claim, _, rest = text.partition(":")
    place, _, mode = (part.strip() for part in rest.partition(":"))
    name, _, directory = (part.strip() for part in claim.partition("/"))
    if not name or not place or mode not in ("", "r", "rw"):
        raise ValueError(f"{text!r} is not claim:/mount, claim/directory:/mount or claim:/mount:r")
    found = {"name": f"claim-{number}", "pvc": name, "mount": place, "read_only": mode == "r"}
    return {**found, "sub_path": directory} if directory else found


def job_metadata(value: Any) -> dict[str, Any]:
    """Return labels and annotations as a destination names those of its pods."""
    found = mapping(value)
    if not set(found) <= {"labels", "annotations"}:
        raise ValueError("has labels and annotations, and nothing else")
    return {f"pod_{kind}": each for kind, each in found.items()}


def job_api(value: Any) -> None:
    """Accept the one version that there is since Kubernetes 1.21."""
    if scalar(value) != "batch/v1":
        raise ValueError("only batch/v1 is spoken")


def cleanup(value: Any) -> None:
    """Accept that Jobs are removed."""
    if scalar(value) != "always":
        raise ValueError(
            "only always is done: what a Job leaves behind, its streams included, lies in the "
            "bucket, where s3runner logs reads it"
        )


def pull_policy(value: Any) -> Any:
    """Return when to pull; `Default` leaves it to Kubernetes."""
    return None if scalar(value) == "Default" else scalar(value)


def instance(value: Any) -> str:
    """Return the label of one Galaxy among several."""
    text = str(value).strip()
    if not _INSTANCE.fullmatch(text):
        raise ValueError(f"{text!r}: small letters, digits and '-' inside, 20 at most")
    return f"gxy-{text}"


def setup_env(value: Any) -> None:
    """Accept a fork's word for S3."""
    if scalar(value) != "aws":
        raise ValueError("only aws: files travel through S3")
