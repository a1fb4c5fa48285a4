"""Options for keys: who has to have signed what is read, and who signs what is written."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from cachefs.location.attributes import ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cachefs.location.options import Location

key_option = click.option(
    "--key",
    metavar="FILE",
    help="The private key, or the .pub file of one that an SSH agent has. By default the "
    "location's signing_key=..., or $CACHEFS_SIGNING_KEY.",
)

signed_by_option = click.option(
    "--signed-by",
    multiple=True,
    metavar="FILE",
    help="A file with public keys: one of them has to have signed a name. May be repeated. By "
    "default the location's signed_by=..., or $CACHEFS_TRUSTED_KEYS.",
)


def signing(location: Location, key: str | None) -> Location:
    """The location whose names are signed with this key, if one is given."""
    if key is None:
        return location
    return replace(
        location, signing=replace(location.signing, signing_key=_read("signing_key", key, "--key"))
    )


def trusting(location: Location, files: tuple[str, ...]) -> Location:
    """The location of which only names are read that one of these keys signed, if any are given."""
    if not files:
        return location
    keys = tuple(key for file in files for key in _read("signed_by", file, "--signed-by"))
    return replace(location, signing=replace(location.signing, signed_by=keys))


def trusting_by_default(location: Location, files: Sequence[str]) -> Location:
    """As :func:`trusting`, unless the location or the environment says whose signatures count."""
    return location if location.signing.signed_by else trusting(location, tuple(files))


def _read(attribute: str, text: str, option: str) -> Any:
    """The value as the attribute of a location would have it. Raises LocationError."""
    row = next(row for row in ATTRIBUTES if row.name == attribute)
    return row.read(text, option)
