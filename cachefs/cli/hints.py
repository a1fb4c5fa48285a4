"""What to add to an error or to check first, because people type this elsewhere."""

from __future__ import annotations

import glob
import os
import re
import shlex
import shutil
from typing import TYPE_CHECKING, Final

import click

from cachefs.cli.output import say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_VARIABLE: Final = re.compile(r"[A-Za-z_*?\[][\w*?\[\]!\-]*")


def check_repeated(
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    exclude: Sequence[str] = (),
    variables: Sequence[str] = (),
) -> None:
    """Raise UsageError if one value is several that are separated by commas.

    A comma may be a part of a path, so it is an error only if all parts exist and the whole does
    not. Outputs need not exist before the command runs; so for these it is a note.
    """
    for option, values, is_there in (
        ("--input", inputs, _is_there),
        ("--output", outputs, _is_there),
        ("--exclude", exclude, _is_there),
        ("--env", variables, _may_be_variable),
    ):
        for value in values:
            if parts := several(value, is_there):
                raise click.UsageError(f"{option} {value}: {repeat(option, parts)}")
    for value in outputs:
        if "," in value and not os.path.lexists(value):
            say(f"cachefs: note: --output {value} is one path: repeat --output for each", err=True)


def several(value: str, is_there: Callable[[str], bool]) -> Sequence[str]:
    """The parts of a value between commas, if all of them are there and the whole is not."""
    parts = [part.strip() for part in value.split(",")]
    if len(parts) == 1 or not all(parts) or is_there(value):
        return ()
    return parts if all(map(is_there, parts)) else ()


def repeat(option: str, parts: Sequence[str]) -> str:
    """Advice to give an option once for each part."""
    given = " ".join(f"{option} {shlex.quote(part)}" for part in parts)
    return f"repeat the option for each: {given}"


def one_word(command: Sequence[str]) -> str:
    """What to add if a command was not found because its words were quoted together."""
    words = command[0].split()
    if len(command) > 1 or len(words) < 2 or shutil.which(words[0]) is None:
        return ""
    return f"; the command is one word, so write its words one by one: -- {command[0].strip()}"


def _is_there(path: str) -> bool:
    return os.path.lexists(path) or bool(glob.glob(path, recursive=True))  # noqa: PTH207 - also absolute


def _may_be_variable(name: str) -> bool:
    return name in os.environ or _VARIABLE.fullmatch(name) is not None
