"""The worker's command: `execute_job.py fetch` and `execute_job.py stager`.

Each container imports its own part only: its start is part of every job's time.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence

from s3runner.errors import S3RunnerError
from s3runner.worker.attempt import Attempt

_INTERRUPTED = 75
_INTERNAL_ERROR = 70


def main(arguments: Sequence[str]) -> int:
    """Run one container's part; return its exit code (docs/cli.md, "Codes")."""
    parts = {"fetch": _fetch, "stager": _stager}
    if len(arguments) != 1 or arguments[0] not in parts:
        print(f"usage: execute_job.py {'|'.join(parts)}", file=sys.stderr)
        return 20
    # PID 1 ignores a signal without a handler; the files of an interrupted fetch go with the pod
    signal.signal(signal.SIGTERM, lambda *_: os._exit(_INTERRUPTED))
    try:
        return parts[arguments[0]]()(Attempt.from_environment(os.environ))
    except S3RunnerError as error:
        print(f"s3runner: {error.during(arguments[0])} [E{error.code}]", file=sys.stderr)
        return error.code
    except Exception:  # noqa: BLE001  # a bug: the head reads the code, a person the traceback
        import traceback  # noqa: PLC0415  # only here

        traceback.print_exc()
        return _INTERNAL_ERROR
    finally:
        # or the interpreter would look through all of it once more before it exits
        gc.freeze()


def _fetch() -> Callable[[Attempt], int]:
    from s3runner.worker.fetch import fetch  # noqa: PLC0415  # see the module's docstring

    return fetch


def _stager() -> Callable[[Attempt], int]:
    from s3runner.worker.stager import stage  # noqa: PLC0415  # see the module's docstring

    return stage
