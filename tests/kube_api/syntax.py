"""The small grammars of Kubernetes: names, labels, quantities; each check yields what is wrong.

They stand apart from the rules of Jobs and pods, which use them at many places.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from s3runner.cluster.quantity import parse_quantity
from s3runner.errors import SettingsError

Cause = tuple[str, str]

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_DNS_SUBDOMAIN = re.compile(rf"{_DNS_LABEL.pattern}(\.{_DNS_LABEL.pattern})*")
_LABEL_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_ENV_NAME = re.compile(r"[ -<>-~]+")

_LABEL_LENGTH, _SUBDOMAIN_LENGTH = 63, 253
_ANNOTATIONS_BYTES = 256 * 1024

_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character"
)
_KEY_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with an alphanumeric character"
)


def wrong(value: object, why: str) -> str:
    """Return an `Invalid value` message."""
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    return f"Invalid value: {shown}: {why}"


def dns_label(field: str, value: object) -> Iterator[Cause]:
    """A name of a container or a volume."""
    text = str(value or "")
    if not text:
        yield field, "Required value"
    elif len(text) > _LABEL_LENGTH:
        yield field, wrong(text, f"must be no more than {_LABEL_LENGTH} bytes")
    elif not _DNS_LABEL.fullmatch(text):
        yield field, wrong(text, _LABEL_RULE)


def dns_subdomain(field: str, value: object) -> Iterator[Cause]:
    """A name of an object."""
    text = str(value or "")
    if not text:
        yield field, "Required value: name or generateName is required"
    elif len(text) > _SUBDOMAIN_LENGTH:
        yield field, wrong(text, f"must be no more than {_SUBDOMAIN_LENGTH} bytes")
    elif not _DNS_SUBDOMAIN.fullmatch(text):
        yield field, wrong(text, _SUBDOMAIN_RULE)


def qualified_name(field: str, key: str) -> Iterator[Cause]:
    """A key of a label, an annotation or a resource."""
    prefix, slash, name = key.rpartition("/")
    if slash and (not _DNS_SUBDOMAIN.fullmatch(prefix) or len(prefix) > _SUBDOMAIN_LENGTH):
        yield field, wrong(key, f"prefix part {_SUBDOMAIN_RULE}")
    if len(name) > _LABEL_LENGTH:
        yield field, wrong(key, f"name part must be no more than {_LABEL_LENGTH} bytes")
    elif not _LABEL_NAME.fullmatch(name):
        yield field, wrong(key, _KEY_RULE)


def label_value(field: str, value: str) -> Iterator[Cause]:
    """A value of a label or a node selector."""
    if len(value) > _LABEL_LENGTH:
        yield field, wrong(value, f"must be no more than {_LABEL_LENGTH} bytes")
    elif value and not _LABEL_NAME.fullmatch(value):
        yield field, wrong(value, _VALUE_RULE)


def labels(field: str, values: Mapping[str, str] | None) -> Iterator[Cause]:
    """Labels or a node selector."""
    for key, value in (values or {}).items():
        yield from qualified_name(field, key)
        yield from label_value(field, value)


def annotation_map(field: str, values: Mapping[str, str] | None) -> Iterator[Cause]:
    """Annotations: any text, in all 256 KiB."""
    size = 0
    for key, value in (values or {}).items():
        yield from qualified_name(field, key.lower())
        size += len(key.encode()) + len(value.encode())
    if size > _ANNOTATIONS_BYTES:
        yield field, f"Too long: may not be more than {_ANNOTATIONS_BYTES} bytes"


def env_name(field: str, value: object) -> Iterator[Cause]:
    """A variable's name: printable ASCII without `=`."""
    if not value:
        yield field, "Required value"
    elif not _ENV_NAME.fullmatch(str(value)):
        yield (
            field,
            wrong(
                value,
                "a valid environment variable name must consist only of "
                "printable ASCII characters other than '='",
            ),
        )


def quantity(field: str, value: Any) -> Iterator[Cause]:
    """A resource quantity, not negative."""
    text = str(value)
    if re.fullmatch(r"-\d.*", text):
        yield field, wrong(value, "must be greater than or equal to 0")
        return
    try:
        parse_quantity(text)
        good = text == text.strip()
    except SettingsError:
        good = False
    if not good:
        rule = "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        yield field, wrong(value, f"quantities must match the regular expression {rule}")


def not_negative(field: str, value: int | None) -> Iterator[Cause]:
    if value is not None and value < 0:
        yield field, wrong(value, "must be greater than or equal to 0")


def one_of(field: str, value: object, *allowed: str) -> Iterator[Cause]:
    if value not in allowed:
        told = ", ".join(f'"{name}"' for name in allowed)
        yield field, f'Unsupported value: "{value}": supported values: {told}'
