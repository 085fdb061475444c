"""The Listener for terminals: a bar for each hop. Apart, because importing rich takes its time."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from s3runner.cli.rendering import PlainLines, hop_name


class ProgressBars(PlainLines):
    """Shows the hops as bars below the lines that PlainLines prints."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._tasks: dict[str, TaskID] = {}
        self._bars = Progress(
            TextColumn("{task.description:9}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeElapsedColumn(),
            console=Console(file=stream),
            transient=True,
        )

    def say(self, text: str) -> None:
        """Print above the bars; the text is no markup."""
        self._bars.console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        """Take the bars away."""
        super().close()
        self._bars.stop()

    def _show(self, name: str, total_bytes: int | None, total_files: int | None) -> None:
        del total_files  # a bar has one measure
        if name not in self._tasks:
            self._bars.start()
            self._tasks[name] = self._bars.add_task(hop_name(name), total=None)
        done = self.phases[name].bytes
        self._bars.update(self._tasks[name], completed=done, total=total_bytes)

    def _finish(self) -> None:
        if self._open in self._tasks:
            self._bars.remove_task(self._tasks.pop(self._open))
            self._bars.stop()  # bars without a task would still redraw ten times a second
        super()._finish()
