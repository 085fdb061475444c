from __future__ import annotations

import pytest

from s3runner.galaxy.endings import MEMORY, TOOL, UNKNOWN, WALLTIME, ending_of
from s3runner.model import Outcome
from s3runner.runner.report import JobEnd

NEEDED = ("/j/galaxy_1.ec", "/j/outputs/tool_stdout", "/j/outputs/tool_stderr", "/j/outputs/a.dat")


@pytest.mark.parametrize(
    ("outcome", "came", "state", "missing"),
    [
        (Outcome.SUCCEEDED, NEEDED, None, ()),
        (Outcome.SUCCEEDED, NEEDED[1:], UNKNOWN, NEEDED[:1]),
        (Outcome.SUCCEEDED, NEEDED[:3], UNKNOWN, NEEDED[3:]),
        (Outcome.TOOL_FAILED, NEEDED, None, ()),
        (Outcome.TOOL_FAILED, NEEDED[:3], None, NEEDED[3:]),
        (Outcome.TOOL_FAILED, NEEDED[1:], UNKNOWN, NEEDED[:1]),
        (Outcome.OUT_OF_MEMORY, NEEDED, MEMORY, ()),
        (Outcome.WALLTIME, (), WALLTIME, NEEDED),
        (Outcome.OUTPUT_MISSING, NEEDED[:3], TOOL, NEEDED[3:]),
        (Outcome.BUDGETS_SPENT, (), UNKNOWN, NEEDED),
        (Outcome.CANCELLED, (), UNKNOWN, NEEDED),
        (Outcome.IMAGE_PULL_FAILED, (), UNKNOWN, NEEDED),
    ],
)
def test_a_jobs_end_as_galaxy_is_told(
    outcome: Outcome, came: tuple[str, ...], state: str | None, missing: tuple[str, ...]
) -> None:
    """A job has finished only if everything is here that Galaxy would take for granted."""
    found = ending_of(JobEnd(outcome, None), NEEDED, came)

    assert (found.state, found.missing) == (state, missing)
    assert bool(found.message) is (state is not None)


def test_a_failure_tells_its_reason_and_what_to_do() -> None:
    """What the user of Galaxy reads is what s3runner knows."""
    error = {"reason": "the image cannot be had", "hint": "check its name"}

    found = ending_of(JobEnd(Outcome.IMAGE_PULL_FAILED, None, error=error), NEEDED, ())

    assert found.message == "the image cannot be had; check its name"
