"""Listings that come to an end, whatever the server answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cachefs.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

EMPTY_PAGES: Final = 1000
"""So many empty pages in a row are no listing. S3 may return a few, where objects were deleted."""

DEEPEST: Final = 100
"""The depth of folders from which a listing is not followed further."""


def _endless(reason: str) -> StoreError:
    return StoreError(
        f"the listing does not end: {reason}; this server cannot be used, or a proxy in front of "
        "it removes parameters of requests"
    )


class Advance:
    """Checks that a listing advances, with little memory, also where objects have no order.

    It remembers one object and one token: those at the positions 1, 2, 4, 8 and so on. If the
    listing goes round in a circle, it comes to the remembered one again.
    """

    def __init__(self) -> None:
        self._objects = _Circle()
        self._tokens = _Circle()
        self._empty = 0

    def see(self, path: str) -> None:
        """Note an object. Raises StoreError if it was listed before."""
        if self._objects.closes(path):
            raise _endless("objects are listed again and again")

    def turn(self, token: str | None, objects: int) -> None:
        """Note the token for the next page, after a page with so many objects.

        Raises StoreError if the token is missing or was used before, or if pages stay empty.
        """
        if not token or self._tokens.closes(token):
            raise _endless("the same page is given again and again")
        self._empty = 0 if objects else self._empty + 1
        if self._empty == EMPTY_PAGES:
            raise _endless(f"{EMPTY_PAGES} pages are empty")


class _Circle:
    def __init__(self) -> None:
        self._remembered: str | None = None
        self._left = 0
        self._length = 1

    def closes(self, item: str) -> bool:
        if item == self._remembered:
            return True
        if self._left == 0:
            self._remembered = item
            self._left = self._length
            self._length *= 2
        self._left -= 1
        return False


async def walk(
    ls: Callable[[str], Awaitable[list[dict[str, Any]]]], folder: str
) -> dict[str, dict[str, Any]]:
    """Find the files below the folder by listing every folder; none if it does not exist.

    fsspec's own walk takes a folder that cannot be listed for an empty one, and a server that
    cannot be reached for an empty cache. Raises StoreError if folders are nested without end.
    """
    found: dict[str, dict[str, Any]] = {}
    waiting = [(folder, 0)]
    while waiting:
        path, depth = waiting.pop()
        if depth > DEEPEST:
            raise _endless(f"there are folders in folders, {DEEPEST} levels deep")
        try:
            items = await ls(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        for info in items:
            name = info["name"]
            if name.strip("/") == path.strip("/"):
                continue  # the folder itself, or a file in its place
            if info["type"] == "directory":
                waiting.append((name, depth + 1))
            else:
                found[name] = info
    return found
