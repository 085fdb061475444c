"""The command `s3runner` whose patience with a cluster's API is a few seconds instead of minutes.

A process of its own: nothing but the command line and the constants below differ from the real one.
`HURRIED_BUDGET_S` takes the place of the 600 s for which a call is tried again.
"""

from __future__ import annotations

import functools
import os

from s3runner.cli import main, opening
from s3runner.cluster.kubernetes import adapter, complaints, transport, watch

QUESTION_S = 2.0
SILENCE_S = 4.0
TOLD_S = 2.0
ANSWER_S = 4.0


def hurry() -> None:
    """Scale the constants down."""
    adapter.BUDGET_S = float(os.environ["HURRIED_BUDGET_S"])
    opening.QUESTION_S = QUESTION_S
    transport._ANSWER_S = ANSWER_S
    complaints._ASK_AFTER_S = (1.0, 8.0)
    hurried = functools.partial(watch.Rhythm, silence_s=SILENCE_S, told_s=TOLD_S)
    vars(adapter)["Rhythm"] = hurried


if __name__ == "__main__":
    hurry()
    main.main()
