"""Keep standard error to messages of cachefs, without those of the libraries it uses."""

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
    """Looks up ``sys.stderr`` for each record, so that lines do not break a progress bar."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line, unless the same line was printed before."""
        text = one_line(record.getMessage())
        if text in self._said:
            return
        self._said.add(text)
        click.echo(f"cachefs: {record.levelname.lower()}: {text}", err=True)


def silence() -> None:
    """Let only the ``cachefs`` logger print, from warnings upwards. Called once per process.

    Python warnings are still shown if requested (``python -W``, ``PYTHONWARNINGS``).
    """
    logger.addHandler(_StandardError())
    logger.setLevel(logging.WARNING)
    # A handler at the root keeps records from the handler of last resort.
    logging.getLogger().addHandler(logging.NullHandler())
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        sys.unraisablehook = _unraisable


def _unraisable(unraisable: UnraisableHookArgs) -> None:
    """Log errors raised while objects are finalized at debug level only."""
    logger.debug("ignored while cleaning up: %s", unraisable.exc_type.__qualname__)
