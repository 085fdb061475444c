from __future__ import annotations

import pytest

from s3runner.model import Outcome
from s3runner.worker.tool import ToolEnd, outcome_of_tool, term_patience_s

ROWS = [
    (ToolEnd(started=False), Outcome.TOOL_NEVER_STARTED, True),
    (ToolEnd(started=False, interrupted=True), Outcome.INTERRUPTED, False),
    (ToolEnd(started=True, exit_code=0, walltime_spent=True), Outcome.WALLTIME, True),
    (ToolEnd(started=True, exit_code=143, interrupted=True), Outcome.INTERRUPTED, False),
    (ToolEnd(started=True, interrupted=True), Outcome.INTERRUPTED, False),
    (ToolEnd(started=True, exit_code=0, interrupted=True), Outcome.INTERRUPTED, False),
    (ToolEnd(started=True), Outcome.TOOL_VANISHED, False),
    (ToolEnd(started=True, exit_code=0, code_stored=False), Outcome.NO_SPACE, False),
    (ToolEnd(started=True, exit_code=0, oom_grew=True), Outcome.SUCCEEDED, True),
    (ToolEnd(started=True, exit_code=1, oom_grew=True), Outcome.OUT_OF_MEMORY, False),
    (ToolEnd(started=True, exit_code=137, oom_grew=None), Outcome.TOOL_FAILED, False),
    (ToolEnd(started=True, exit_code=137, oom_grew=False), Outcome.TOOL_FAILED, True),
    (ToolEnd(started=True, exit_code=3), Outcome.TOOL_FAILED, True),
]


@pytest.mark.parametrize(("end", "outcome", "final"), ROWS, ids=lambda value: str(value))
def test_the_tools_end_has_its_outcome(end: ToolEnd, outcome: Outcome, final: bool) -> None:
    assert outcome_of_tool(end) == (outcome, final)


@pytest.mark.parametrize(("grace", "patience"), [(30, 22), (100, 92), (20, 12), (10, 6), (0, 0)])
def test_a_terminated_tool_leaves_time_to_stage_out(grace: int, patience: float) -> None:
    assert term_patience_s(grace) == patience
