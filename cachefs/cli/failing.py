"""Reporting errors: one line on standard error and, with ``--json``, one object."""

from __future__ import annotations

import logging
import os
import sys

import click

from cachefs.errors import CacheError, causes
from cachefs.masking import mask_text

logger = logging.getLogger("cachefs")


def tell(error: Exception, message: str | None = None) -> None:
    """Print the error as one line on standard error; with ``--verbose``, also log its causes."""
    text = one_line(mask_text(str(error) if message is None else message))
    click.echo(f"cachefs: error: {text}", err=True)
    for cause in causes(error.__cause__):
        if cause is error:  # an error may be the context of its own cause
            break
        # Only the types: messages of other libraries may quote signed URLs.
        logger.debug("caused by %s.%s", type(cause).__module__, type(cause).__qualname__)


def error_object(error: Exception, message: str | None = None) -> dict[str, str | None]:
    """The error as a JSON object, always with the same keys; unknown values are null."""
    known = error if isinstance(error, CacheError) else CacheError("")
    return {
        "type": type(error).__name__,
        "message": mask_text(str(error) if message is None else message),
        "operation": known.operation,
        "side": known.side,
        "key": None if known.key is None else mask_text(known.key),
    }


def escaped(text: str) -> str:
    """The text with characters that a terminal would act on escaped, line breaks included."""
    return "".join(
        character if character.isprintable() else repr(character)[1:-1] for character in text
    )


def one_line(text: str) -> str:
    """The same, but with spaces for line breaks."""
    return escaped(" ".join(text.splitlines()))


def pattern_hint() -> str:
    """What to add to an error about too many words if several are files: a shell made them."""
    if sum(os.path.lexists(word) for word in sys.argv[2:]) <= 1:
        return ""
    return "; if the shell replaced a pattern by the names of files, quote it: 'pr-*'"
