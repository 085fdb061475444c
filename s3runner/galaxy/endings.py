"""How a job's end looks to Galaxy: finished, to be checked by it, or failed, and in which state.

Pure. It stands apart because of its table: a file that is missing on Galaxy's side reads as a
success there, so what came back is compared with what had to.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from s3runner.model import Outcome
from s3runner.runner.report import JobEnd

MEMORY, WALLTIME = "memory_limit_reached", "walltime_reached"
TOOL, UNKNOWN = "tool_detected", "unknown_error"
"""Galaxy's names for why a job failed; `<resubmit condition>` asks for them."""

STOPPED = "stopped"
"""None of Galaxy's: what a user has stopped must not be resubmitted."""

_STATES = {
    Outcome.OUT_OF_MEMORY: MEMORY,
    Outcome.WALLTIME: WALLTIME,
    Outcome.OUTPUT_MISSING: TOOL,
}
_SENTENCES = {
    Outcome.OUT_OF_MEMORY: "This job was terminated because it used more memory than it was given",
    Outcome.WALLTIME: "This job was terminated because it ran longer than the maximum allowed time",
}


@dataclass(frozen=True, slots=True)
class Ending:
    """What Galaxy is told. `state` None: the job has finished, and Galaxy looks at the tool's end.

    `missing` are outputs that a tool which failed has not written: such a job must not end well,
    whatever Galaxy makes of the tool's exit code.
    """

    state: str | None = None
    message: str = ""
    missing: tuple[str, ...] = ()


def ending_of(end: JobEnd, needed: Sequence[str], came: Collection[str]) -> Ending:
    """Return how Galaxy has to see a job's end.

    `needed` are the exit code's file, the streams and the expected outputs.

    | outcome       | what came back               | Galaxy is told               |
    |---------------|------------------------------|------------------------------|
    | succeeded     | all that is needed           | finished                     |
    | succeeded     | anything less                | unknown_error                |
    | tool_failed   | exit code and streams        | finished, and what is missing|
    | tool_failed   | less                         | unknown_error                |
    | out_of_memory |                              | memory_limit_reached         |
    | walltime      |                              | walltime_reached             |
    | output_missing|                              | tool_detected                |
    | anything else |                              | unknown_error                |
    """
    missing = tuple(path for path in needed if path not in came)
    vital = [path for path in missing if path in needed[:VITAL]]
    if end.outcome is Outcome.SUCCEEDED and not missing:
        return Ending()
    if end.outcome is Outcome.TOOL_FAILED and not vital:
        return Ending(missing=missing)
    state = _STATES.get(end.outcome, UNKNOWN)
    if end.outcome in (Outcome.SUCCEEDED, Outcome.TOOL_FAILED):
        return Ending(state, f"the job ended without leaving {', '.join(missing)}", missing)
    return Ending(state, _message(end), missing)


VITAL = 3
"""So many of what is needed come first: the exit code's file and the streams."""


def _message(end: JobEnd) -> str:
    error = end.error or {}
    reason = str(error.get("reason") or f"the job ended as {end.outcome.value}")
    hint = str(error.get("hint") or "")
    first = _SENTENCES.get(end.outcome)
    told = f"{first} ({reason})" if first else reason
    return f"{told}; {hint}" if hint else told
