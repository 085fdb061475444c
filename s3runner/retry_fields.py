"""The `retry` block, which a destination and a job file share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from s3runner.cluster.quantity import parse_quantity
from s3runner.errors import SettingsError
from s3runner.yamlfile import Checked


def _bytes(text: str) -> str:
    try:
        parse_quantity(text)
    except SettingsError as error:
        raise ValueError(error.reason) from error
    return text


Bytes = Annotated[str, AfterValidator(_bytes)]


class RetryFields(Checked):
    """When a job that failed is tried again, and how large it may get."""

    tool: int = Field(default=0, ge=0, le=9)
    """How often a tool that failed runs again; none, because most failures repeat."""

    memory_factor: float = Field(default=2.0, ge=1, le=16)
    """What the memory is multiplied by after the tool was killed for want of it; 1 turns it off."""

    memory_cap: Bytes = "64Gi"
    """The most memory that a retry may ask for."""

    disk_factor: float = Field(default=2.0, ge=1, le=16)
    """What the disk is multiplied by after it was full; a job that asks for none is not retried."""

    disk_cap: Bytes = "500Gi"
    """The most disk that a retry may ask for."""

    def written(self) -> dict[str, Any]:
        """Return the values that stand in the file, without the defaults."""
        return {name: getattr(self, name) for name in self.model_fields_set}
