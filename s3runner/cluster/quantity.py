"""Kubernetes resource quantities ("500m", "8Gi"): to numbers, exactly.

Pure. Grammar: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

from s3runner.errors import SettingsError

_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|(m|[kMGTPE]|[KMGTPE]i)?)")
_DECIMAL = {suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", start=1)}
_BINARY = {f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)}
_FACTORS = {"m": Decimal(1) / 1000, "": Decimal(1), **_DECIMAL, **_BINARY}


def parse_quantity(text: str) -> Decimal:
    """Return the quantity as a number (bytes, cores). Raises SettingsError."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise SettingsError(f"not a Kubernetes quantity: {text!r} (write 500m, 4, 8Gi)")
    number, exponent, suffix = match.groups()
    value = Decimal(number + (exponent or "")) * _FACTORS[suffix or ""]
    if value < 0:
        raise SettingsError(f"a quantity cannot be negative: {text!r}")
    return value


def whole(text: str, unit: int = 1) -> int:
    """Return the quantity in units, rounded up: cores for `CPUS`, MiB (unit 1024**2) for memory."""
    return int((parse_quantity(text) / unit).to_integral_value(ROUND_CEILING))


def grown(text: str, factor: float, cap: str) -> str | None:
    """Return the quantity times `factor`, at most `cap`, in bytes; None if it is at the cap."""
    now, most = parse_quantity(text), parse_quantity(cap)
    if now >= most or factor <= 1:
        return None
    return str(int(min(now * Decimal(str(factor)), most).to_integral_value(ROUND_CEILING)))
