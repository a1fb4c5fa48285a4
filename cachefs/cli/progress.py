"""A progress bar on a terminal, and none elsewhere."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from cachefs.cli.output import rate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress, TaskID


class _Bar(Callback):  # type: ignore[misc]  # fsspec has no type information
    """What an export tells of its bytes, drawn."""

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
    """A callback that draws a bar with bytes, rate and time left on standard error."""
    if not sys.stderr.isatty():
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
        TimeRemainingColumn,
    )
    from rich.text import Text

    class RateColumn(ProgressColumn):
        """Rich's own counts in powers of ten, unlike everything else here."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(rate(speed) if speed else "", style="progress.data.speed")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        RateColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress, progress.add_task(what, total=None))
