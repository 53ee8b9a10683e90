"""The progress bar of a terminal: a bar for the current stage, below a line for each finished one."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import timedelta

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from volseg.text import readable

#: Shown until the first stage begins: loading the libraries takes seconds.
_START = "start"


class _TimeLeft(ProgressColumn):
    """The remaining time of a stage, unless its note already states one."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        if task.time_remaining is None or task.finished or task.fields["note"].endswith(" left"):
            return Text()
        return Text(f"{timedelta(seconds=round(task.time_remaining))} left")


class StageBar(Progress):
    """A live bar on stderr with a note below it; other output appears above."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            _TimeLeft(),
        )
        # Results on a stdout that is no terminal are not to land on this one.
        is_shared = sys.stdout.isatty()
        super().__init__(*columns, console=Console(stderr=True), transient=True, expand=True, redirect_stdout=is_shared)
        self._stage = _START
        self._task: TaskID = self.add_task(_START, total=None, note="", count="")

    def show(self, stage: str, done: int, total: int, count: str, note: str) -> None:
        """Show the progress of a stage; when the stage changes, end the earlier one."""
        if stage != self._stage:
            self.end_stage()
            self._stage = stage
            self._task = self.add_task(readable(stage), total=total or None, note="", count="")
        self.update(self._task, completed=done, total=total or None, note=readable(note), count=count)

    def end_stage(self) -> None:
        """Replace the bar by a line with the duration of the stage."""
        (task,) = self.tasks
        self.remove_task(self._task)
        if self._stage != _START:
            took = timedelta(seconds=round(task.elapsed or 0))
            self.console.print(Text(f"{task.description} {task.fields['count']}, {took}", style="dim"))

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the bar and, on a line of its own, the note, cut off at the width of the terminal."""
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.fields["note"]:
                yield Text(task.fields["note"], style="dim", no_wrap=True, overflow="ellipsis")
