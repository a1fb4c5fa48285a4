"""Printing: words for people, one JSON document for programs."""

from __future__ import annotations

import re
import shlex
import sys
import time
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

import click

from cachefs.amount import counted
from cachefs.cli.failing import one_line
from cachefs.cli.tables import table
from cachefs.masking import MASK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cachefs.amount import Amount
    from cachefs.transfer.exporter import ExportReport

SHORT_DIGEST = len("sha256:") + 12
"""Characters of a digest shown on a terminal: enough to tell blobs apart."""

_UNSEEN = re.compile(r"[^\n -~]")
"""What may have to be escaped in JSON."""


def print_json(value: Any) -> None:
    """Print the value as one JSON document on standard output."""
    click.echo(to_json(value))


def to_json(value: Any) -> str:
    """The value as a JSON document that is safe to show on a terminal.

    Control characters, marks that change the direction of text, and all else that cannot be seen
    are escaped. What is not Unicode at all, from a path, is text that shows its number.
    """
    import msgspec

    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError:
        encoded = msgspec.json.encode(_unicode(msgspec.to_builtins(value)))
    text = msgspec.json.format(encoded, indent=2).decode()
    return _UNSEEN.sub(lambda found: _escaped(found[0]), text)


def _escaped(character: str) -> str:
    """The character, or its escapes in JSON if it is not printable."""
    if character.isprintable():
        return character
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at] * 256 + units[at + 1]:04x}" for at in range(0, len(units), 2))


def _unicode(value: Any) -> Any:
    """The same data, in which surrogates are written as text, as on the terminal."""
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case dict():
            return {_unicode(key): _unicode(item) for key, item in value.items()}
        case list() | tuple():
            return [_unicode(item) for item in value]
    return value


def say(text: str, *, err: bool = False) -> None:
    """Print one line, with characters that a terminal would act on escaped."""
    click.echo(one_line(text), err=err)


def command_line(words: Sequence[str]) -> str:
    """The words of a command as one would type them in a shell; what is masked stays readable."""
    is_masked = re.compile(rf"[\w.=:/@-]*{re.escape(MASK)}[\w.=:/@-]*").fullmatch
    return " ".join(word if is_masked(word) else shlex.quote(word) for word in words)


def write(stream: int, data: bytes) -> None:
    """Write what a command wrote to its standard output (1) or error (2), and flush."""
    target = (sys.stdout if stream == 1 else sys.stderr).buffer
    target.write(data)
    target.flush()


def size(count: int) -> str:
    """A number of bytes in a readable unit: ``1.2 GiB``."""
    import humanize

    return humanize.naturalsize(count, binary=True).replace("Bytes", "B").replace("Byte", "B")


def age(modified: float | None) -> str:
    """How long ago a time was (``3 days ago``), in days up to a year, or ``unknown``."""
    if modified is None:
        return "unknown"
    import humanize

    try:
        # Months would be too coarse: names are removed after 20 days or 45.
        return humanize.naturaltime(time.time() - modified, months=False)
    except OverflowError:  # a file may have any time, also one beyond the year 9999
        return "unknown"


def rate(per_second: float) -> str:
    """A speed: ``12.3 MiB/s``."""
    return f"{size(round(per_second))}/s"


def blobs_and_bytes(part: Amount) -> str:
    """Blobs and their size: ``12 blobs (3.4 MiB)``."""
    return f"{counted(part.blobs, 'blob')} ({size(part.bytes)})"


def sent(report: ExportReport) -> str:
    """What was sent, and what of it the store copied: ``sent 12 blobs (3.4 MiB; ...)``."""
    ways = [
        f"{part.blobs:,} copied by the store and {how}"
        for part, how in ((report.copied, "checked"), (report.trusted, "trusted"))
        if part.blobs
    ]
    inside = "; ".join([size(report.uploaded.bytes), *ways])
    return f"sent {counted(report.uploaded.blobs, 'blob')} ({inside})"


def is_terminal() -> bool:
    """Whether standard output is a terminal; output to anything else is never shortened."""
    return sys.stdout.isatty()


def digest(text: str) -> str:
    """A digest; on a terminal, its beginning."""
    return text[:SHORT_DIGEST] if is_terminal() else text


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> None:
    """Print a table that fits the terminal; in a pipe, aligned columns in full.

    Args:
        columns: the headings.
        rows: the texts of the cells.
        right: headings, separated by ``|``, of columns that are aligned to the right.
    """
    room = get_terminal_size().columns if is_terminal() else None
    click.echo("\n".join(table(columns, rows, right.split("|"), room)))
