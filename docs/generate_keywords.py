"""Writes the types of ``cachefs.open``'s keywords: ``python docs/generate_keywords.py``.

A test compares the committed module with what this gives.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from cachefs.location.attributes import ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachefs.location.attributes import Attribute

MODULE = Path(__file__).parents[1] / "cachefs" / "location" / "keywords.py"

HEAD = '''\
"""The keywords of ``cachefs.open`` and their types, for type checkers and editors.

Written by docs/generate_keywords.py from the table of attributes: change that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    import os
    from datetime import timedelta

    from cachefs.location.masking import Secret


class LocationKeywords(TypedDict, total=False):
    """The attributes of a location with Python values. None means not given."""
'''


def module() -> str:
    """The text of the module."""
    rows: dict[str, list[Attribute]] = {}
    for row in ATTRIBUTES:
        rows.setdefault(row.keyword, []).append(row)
    lines = [line for name, found in rows.items() for line in _field(name, found)]
    return HEAD + "\n" + "\n".join(lines).rstrip() + "\n"


def _field(name: str, rows: list[Attribute]) -> Iterator[str]:
    types = " | ".join(dict.fromkeys(row.kind.python for row in rows))
    yield f"    {name}: {types} | None"
    about = [f"{' and '.join(row.types)}: {row.about}" for row in rows]
    text = rows[0].about if len(rows) == 1 else " ".join(about)
    lines = textwrap.wrap(f'"""{text}"""', 96)
    yield from (f"    {line}" for line in lines)
    yield ""


if __name__ == "__main__":
    MODULE.write_text(module())
