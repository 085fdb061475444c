"""A tool that goes on when the test says so, whatever its command is doing meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from command import Desk, Ran
from waiting import found_below, wait_until

HOLD = "touch here; while [ ! -e go ]; do sleep 0.02; done"
"""Part of a job's command; the job wants a walltime, for a test may fail before it says so."""


def while_it_holds(
    desk: Desk, act: Callable[[], None], *words: str | Path, **environment: str
) -> Ran:
    """Run a command with --json, act while its tool holds, and let the tool go on."""
    home = desk.directory / "home"

    def tools() -> list[Path]:
        # a pod that has ended leaves none
        return [
            path.parent for path in found_below(home, "here") if not (path.parent / "go").exists()
        ]

    with desk.start(*words, "--json", **environment) as process:
        try:
            wait_until(tools)
            act()
            (tools()[0] / "go").touch()
            stdout, stderr = process.communicate(timeout=200)
        except BaseException:
            process.kill()
            raise
    return Ran(process.returncode, stdout, stderr)
