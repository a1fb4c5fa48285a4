"""Standard error says what cachefs has to say, and nothing that libraries below it think."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import TYPE_CHECKING

import click

from cachefs.cli.failing import one_line

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

logger = logging.getLogger("cachefs")


class _StandardError(logging.Handler):
    """Looks for standard error anew each time, so that lines do not break a progress bar."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line, unless it was said before."""
        text = one_line(record.getMessage())
        if text in self._said:
            return
        self._said.add(text)
        click.echo(f"cachefs: {record.levelname.lower()}: {text}", err=True)


def silence() -> None:
    """Let only the ``cachefs`` logger through, warnings and above, once for the process.

    Warnings that were asked for (``python -W``, ``PYTHONWARNINGS``) are shown all the same.
    """
    logger.addHandler(_StandardError())
    logger.setLevel(logging.WARNING)
    # With a handler at the root nothing falls through to the handler of last resort.
    logging.getLogger().addHandler(logging.NullHandler())
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        sys.unraisablehook = _unraisable


def _unraisable(unraisable: UnraisableHookArgs) -> None:
    """What fails while objects are thrown away at the end is nobody's concern."""
    logger.debug("ignored while cleaning up: %s", unraisable.exc_type.__qualname__)
