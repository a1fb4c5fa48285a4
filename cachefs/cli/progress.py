"""A progress bar on a terminal, and none elsewhere."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from cachefs.cli.output import rate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress, TaskID


ROOMY: Final = 76
"""Columns that the bar and the rate need, however large the numbers are."""


class _Bar(Callback):  # type: ignore[misc]  # fsspec has no type information
    """Draws the progress that an fsspec callback reports."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        super().__init__()
        self._progress = progress
        self._task = task

    def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
        """Draw the state."""
        del hook_name, kwargs
        self._progress.update(self._task, completed=self.value, total=self.size)


@contextmanager
def progress_bar(what: str) -> Iterator[Callback]:
    """A callback that draws a bar with bytes, rate and remaining time on standard error."""
    # A dumb terminal cannot go back to the beginning of a line.
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield DEFAULT_CALLBACK
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
    )
    from rich.text import Text

    class RateColumn(ProgressColumn):
        """Rate and remaining time, computed over the whole run.

        Rich's own columns use only the latest steps, and freeze while the store stalls.
        """

        def render(self, task: Task) -> Text:
            if not (task.completed and task.elapsed and task.total):
                return Text()
            per_second = task.completed / task.elapsed
            left = round((task.total - task.completed) / per_second)
            until = f", {timedelta(seconds=left)} left" if left else ""
            return Text(f"{rate(per_second)}{until}")

    console = Console(stderr=True)
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}"),
        DownloadColumn(binary_units=True),
    ]
    if console.width >= ROOMY:
        # Leave room at the end of the line for the ^C that a terminal shows.
        columns[1:1] = [BarColumn(bar_width=20)]
        columns += [RateColumn()]
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress, progress.add_task(what, total=None))
