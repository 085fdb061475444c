"""Telling why a job failed: its user by Galaxy, the administrator by the log.

It stands apart because Galaxy shows a job's message to its user only.
"""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger(__name__)


def refuse(job_wrapper: Any, reason: str, hint: str = "") -> None:
    """Fail a job before anything is done for it."""
    message = f"s3runner: {reason}"
    log_failure(job_wrapper, message, hint)
    job_wrapper.fail(message)


def log_failure(job_wrapper: Any, message: str, hint: str = "") -> None:
    """Warn of a failure, by the number that the job has in Galaxy."""
    log.warning("(%s) %s%s", job_wrapper.job_id, message, f"; hint: {hint}" if hint else "")
