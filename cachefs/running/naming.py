"""Names of results in a cache, so that those of one command are found together."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import msgspec

from cachefs.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cachefs.building.steps import Step

RUN: Final = "run-"
"""How names of results begin that were given none."""


def command_prefix(step: Step) -> str:
    """How the names of all results of a command begin, whatever else they depend on."""
    words = msgspec.msgpack.encode(("cachefs command 1", step.definition.action))
    return f"{RUN}{Digest.of(words).hex[:24]}-"


def result_name(step: Step, contents: Mapping[str, str]) -> str:
    """The name of one result: of the command, and of everything else that it depends on.

    Args:
        step: the step.
        contents: the digest of the content of each input, by its name.
    """
    named = sorted((os.fsencode(name), str(content)) for name, content in contents.items())
    state = msgspec.msgpack.encode(("cachefs state 1", str(step.vertex), named))
    return f"{command_prefix(step)}{Digest.of(state).hex[:16]}"
