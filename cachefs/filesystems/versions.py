"""Stores that keep what is deleted as an earlier version, hidden by a marker on top of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Past(NamedTuple):
    """What a store still has of an object.

    Attributes:
        path: the object's.
        marker: the version of the marker that hides it; empty if it is not hidden.
        modified: when that marker was made, in seconds since 1970 by the store's clock.
        version: the newest version of the object; empty if there is none, not even a hidden one.
    """

    path: str
    marker: str = ""
    modified: float | None = None
    version: str = ""


async def hides_what_was_seen(
    path: str,
    seen: str,
    marker: str,
    look: Callable[[str], Awaitable[Past]],
    reveal: Callable[[str, str], Awaitable[None]],
) -> bool:
    """Take a delete back if it hid another version than the one that was looked up.

    A delete of the version itself would compare as well, but for good: nothing could be taken back.
    So a marker is added, what it hides is looked at, and the marker is removed if that was written
    or touched since the look-up: these make new versions.

    Args:
        path: the object's.
        seen: its version when it was looked up.
        marker: the marker that the delete has made.
        look: what the store has of a path.
        reveal: removes a marker from a path.

    Returns whether the object stays deleted.
    """
    if (await look(path)).version in ("", seen):
        return True
    await reveal(path, marker)
    return False
