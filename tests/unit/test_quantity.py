from __future__ import annotations

from decimal import Decimal

import pytest

from s3runner.cluster.quantity import parse_quantity, whole
from s3runner.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500m", "0.5"),
        ("4", "4"),
        ("0.5", "0.5"),
        (".5", "0.5"),
        ("8Gi", "8589934592"),
        ("1k", "1000"),
        ("2e3", "2000"),
        ("1E", "1000000000000000000"),
        ("1Ki", "1024"),
    ],
)
def test_a_quantity_is_read_exactly(text: str, value: str) -> None:
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "8 Gi", "8GiB", "eight", "-1", "1Kb", "0x10"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_quantity(text)


def test_parts_count_as_a_whole_core() -> None:
    assert whole("1500m") == 2
    assert whole("1Gi", 1024**2) == 1024
