"""The description of a result: JSON that says what the result is and where it comes from.

It is the top layer of the result's chain, known by its media type. Its time is when the step began,
and the time of the result when it ended, so that how long it took is known without reading it.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from cachefs.errors import IntegrityError

MEDIA_TYPE: Final = "application/vnd.cachefs.description.v1+json"

MAX_BYTES: Final = 1 << 20
"""Longer descriptions are not read."""


class Description(Struct, frozen=True, kw_only=True):
    """What a result is. It has no values of variables, and words that look like secrets are masked.

    Attributes:
        command: the words of the command; of a function, its name.
        definition: the digest of everything that the result depends on but the inputs.
        inputs: the digest of each input's content, by its name.
        files: for each input, digests of its files by path, shortened. If there are many, a path
            that ends in a slash stands for everything below it.
        outputs: the paths that the step makes.
        variables: the variables that the result depends on, each with three digits that most
            likely differ if its value does, or None if it was not set.
        platform: the system and machine, empty if the result does not depend on them.
        host: the name of the machine.
        commit: the commit that was checked out there, empty if none was.
        started_at: when the step began, as RFC 3339 text.
        seconds: how long it took.
    """

    command: list[str] = []
    definition: str = ""
    inputs: dict[str, str] = {}
    files: dict[str, dict[str, str]] = {}
    outputs: list[str] = []
    variables: dict[str, str | None] = {}
    platform: str = ""
    host: str = ""
    commit: str = ""
    started_at: str = ""
    seconds: float = 0.0


_decoder: Final = msgspec.json.Decoder(Description)


def encode(description: Description) -> bytes:
    """The JSON."""
    return msgspec.json.encode(description, order="deterministic")


def decode(raw: bytes) -> Description:
    """Parse a description that anybody may have written. Raises IntegrityError."""
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise IntegrityError(f"the description of a result is not valid: {error}") from error
