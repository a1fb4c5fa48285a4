"""The most similar of the known names, for errors about a name that is not known."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def most_similar(name: str, known: Iterable[str], least: float = 0.6) -> str:
    """The known name that is most similar; empty if none is similar enough.

    Args:
        name: what was given.
        known: what would be right.
        least: how similar it has to be, from 0 to 1.
    """
    import difflib  # noqa: PLC0415 - slow to load, and needed only for errors

    return next(iter(difflib.get_close_matches(name, list(known), 1, least)), "")
