"""The container beside the tool: watch it, stage out, commit.

It holds the credentials that the tool must not have, and outlives the tool by as much as it takes
to bring the results out.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from s3runner.errors import S3RunnerError
from s3runner.model import Outcome, Phase, outcome_of
from s3runner.staging.manifest import dump_document
from s3runner.staging.records import Result
from s3runner.worker.attempt import Attempt
from s3runner.worker.commit import failed, publish, read_commit
from s3runner.worker.logs import LiveLogs
from s3runner.worker.tool import ToolEnd, ToolWatch, outcome_of_tool, read_piece


def stage(attempt: Attempt) -> int:
    """Run the stager from the tool's start to the commit; return the container's exit code."""
    if Path(attempt.control_file("superseded")).exists():
        return 0
    live = LiveLogs(attempt)
    watch = ToolWatch(attempt, _wake_on_term(), on_term=live.hurry)
    # the tool begins once the watch is there, so that it need not wait for this
    from s3runner.worker.stage_out import bring_out  # noqa: PLC0415

    with live as logs:
        try:
            end = watch.wait()
            watch.close()
            commit = read_commit(attempt)
            if commit is not None:
                if commit.attempt is not None:
                    logs.leave_rest()
                return 0
            outcome, may_be_final = outcome_of_tool(end)
            # what a tool that still lives has written may change under our hands: its streams only
            result = bring_out(attempt, _result(attempt, end, outcome), with_outputs=not end.alive)
            if may_be_final and result.outcome in attempt.generation.final:
                # the commit leads to the whole streams
                logs.leave_rest()
        except S3RunnerError as error:
            watch.close()
            error.during("stage-out")
            print(f"s3runner: {error} [E{error.code}]", flush=True)
            result, may_be_final = failed(attempt, outcome_of(error.code), error.to_json()), True
    # outside of the try: a commit whose answer never came may stand, and names this very result
    return publish(attempt, result, may_be_final=may_be_final)


def _result(attempt: Attempt, end: ToolEnd, outcome: Outcome) -> Result:
    print(f"s3runner: tool {outcome.value}, exit code {end.exit_code}", flush=True)
    return Result(
        job_id=attempt.job_id,
        generation=attempt.generation_number,
        attempt=attempt.uid,
        outcome=outcome,
        tool_exit_code=end.exit_code,
        phases={**_fetched(attempt), "run": Phase(seconds=end.seconds)},
        error=_explain(attempt, outcome),
        spent=attempt.generation.spent,
    )


def _explain(attempt: Attempt, outcome: Outcome) -> dict[str, object] | None:
    """Return the `error` object of an end that is neither success nor the tool's own failure."""
    spec = attempt.spec
    reasons = {
        Outcome.WALLTIME: f"the tool ran longer than its walltime of {spec.walltime_s:g} s",
        Outcome.TOOL_NEVER_STARTED: "the tool's container did not start within "
        f"{spec.destination.start_timeout_s} s",
        Outcome.TOOL_VANISHED: "the tool's container was killed from outside",
        Outcome.INTERRUPTED: "the pod was told to end before the tool had ended",
        Outcome.NO_SPACE: "no space left in the pod to write the tool's exit code",
        Outcome.OUT_OF_MEMORY: "the tool was killed for want of memory",
    }
    reason = reasons.get(outcome)
    return S3RunnerError(reason, operation="run").to_json() if reason else None


def _fetched(attempt: Attempt) -> Mapping[str, Phase]:
    try:
        phase = Phase(**json.loads(read_piece(attempt.control_file("fetched.json"))))
        dump_document(phase.to_json())
    except (OSError, ValueError, TypeError, RecursionError):
        # the tool can write here: what it cost is not worth failing for
        return {}
    return {"fetch": phase}


def _wake_on_term() -> int:
    """Turn SIGTERM into a readable descriptor; the default would kill PID 1's work unsaid."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def wake(_number: int, _frame: FrameType | None) -> None:
        os.write(writer, b"t")

    signal.signal(signal.SIGTERM, wake)
    return reader
