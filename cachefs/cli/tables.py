"""Tables as text that fits a width without breaking words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cachefs.cli.failing import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Row = Sequence[str]

GAP: Final = 2
"""Spaces between columns."""

PROSE: Final = 24
"""Columns that are wider than this may be wrapped at spaces."""

NARROWEST: Final = 12
"""Minimum width of the first column; below it, rows are printed as lines."""

_BREAKABLE: Final = re.compile(r".*?[/\-_.,:;=+@](?=.)|.+")
"""Where a word that is longer than the terminal is wide may be broken."""


def table(
    columns: Row, rows: Sequence[Row], right: Sequence[str], room: int | None
) -> Iterator[str]:
    """The lines of a table.

    If it is too wide, columns of prose are wrapped at spaces; then a long first cell gets a line of
    its own; and if that is not enough, every row is printed as lines.

    Args:
        columns: the headings.
        rows: the texts of the cells.
        right: the headings of columns that are aligned to the right.
        room: the width of the terminal; None for no limit.
    """
    cells = [[one_line(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(map(_width, texts)) for texts in zip(*cells, strict=True)]
    if room is not None and _total(widths) > room:
        narrow = _narrowed(cells, widths, room)
        if narrow is None:
            yield from _down(cells[0], cells[1:], room)
            return
        widths = narrow
    aligned = [column in right for column in columns]
    for row in cells:
        for line in _across(row, widths, aligned, room):
            yield line.rstrip()


def _width(text: str) -> int:
    """The columns that the text takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _narrowed(cells: Sequence[Row], widths: Sequence[int], room: int) -> list[int] | None:
    """The widths of columns that fit: of prose first, then of the first column; None if none do."""
    narrow = list(widths)
    for index in sorted(range(len(widths)), key=lambda index: -widths[index]):
        if widths[index] > PROSE:
            least = max(_width(word) for row in cells for word in row[index].split(" "))
            narrow[index] = max(least, PROSE, widths[index] - max(0, _total(narrow) - room))
    over = _total(narrow) - room
    if over > 0:
        narrow[0] -= over
        if narrow[0] < NARROWEST:
            return None
    return narrow


def _across(
    row: Row, widths: Sequence[int], right: Sequence[bool], room: int | None
) -> Iterator[str]:
    """The lines of a row."""
    first = row[0]
    parts = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
    if any(_width(part) > widths[0] for part in parts[0]):
        yield from _folded(first, room)
        parts[0] = [""]
    for number in range(max(map(len, parts))):
        line = [part[number] if number < len(part) else "" for part in parts]
        yield (" " * GAP).join(map(_padded, line, widths, right))


def _padded(text: str, width: int, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space


def _down(columns: Row, rows: Sequence[Row], room: int) -> Iterator[str]:
    """Each row as lines of a heading and a cell; a cell that is too long begins a new line."""
    label = max(map(_width, columns)) + GAP
    for index, row in enumerate(rows):
        if index:
            yield ""
        for column, cell in zip(columns, row, strict=True):
            parts = _wrapped(cell, room - label)
            if any(label + _width(part) > room for part in parts):
                yield column
                yield from _folded(cell, room)
            elif cell:
                yield _padded(column, label, right=False) + parts[0]
                yield from (" " * label + part for part in parts[1:])


def _wrapped(text: str, width: int) -> list[str]:
    """The text wrapped at spaces; longer words stay whole."""
    if _width(text) <= width:
        return [text]
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if _width(longer) <= width:
            lines[-1] = longer
        elif lines[-1]:
            lines.append(word)
        else:
            lines[-1] = word
    return lines


def _folded(text: str, room: int | None) -> list[str]:
    """The text wrapped to the terminal; only words longer than that are broken."""
    if room is None:
        return [text]
    return [part for line in _wrapped(text, room) for part in _broken(line, room)]


def _broken(word: str, width: int) -> list[str]:
    """A word in parts of this width: broken after separators, if it has any."""
    if _width(word) <= width:
        return [word]
    lines = [""]
    for part in _BREAKABLE.findall(word):
        if _width(lines[-1] + part) <= width:
            lines[-1] += part
            continue
        lines += [""] if lines[-1] else []
        for character in part:
            if _width(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines
