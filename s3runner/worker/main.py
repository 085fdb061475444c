"""The worker's command: `execute_job.py fetch` and `execute_job.py stager`."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence

from s3runner.errors import S3RunnerError
from s3runner.worker.attempt import Attempt
from s3runner.worker.fetch import fetch
from s3runner.worker.stager import stage

_INTERRUPTED = 75
_INTERNAL_ERROR = 70


def main(arguments: Sequence[str]) -> int:
    """Run one container's part; return its exit code (docs/cli.md, "Codes")."""
    parts = {"fetch": fetch, "stager": stage}
    if len(arguments) != 1 or arguments[0] not in parts:
        print(f"usage: execute_job.py {'|'.join(parts)}", file=sys.stderr)
        return 20
    # PID 1 ignores a signal without a handler; the files of an interrupted fetch go with the pod
    signal.signal(signal.SIGTERM, lambda *_: os._exit(_INTERRUPTED))
    try:
        return parts[arguments[0]](Attempt.from_environment(os.environ))
    except S3RunnerError as error:
        print(f"s3runner: {error.during(arguments[0])} [E{error.code}]", file=sys.stderr)
        return error.code
    except Exception:  # noqa: BLE001  # a bug: the head reads the code, a person the traceback
        traceback.print_exc()
        return _INTERNAL_ERROR
