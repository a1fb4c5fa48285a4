"""The kept inputs of each target: a file with an input per line, in base64."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

from tests.fuzz.targets import SEEDS

FOLDER = Path(__file__).parent / "corpus"


def kept(target: str) -> list[bytes]:
    """The seeds and the kept inputs."""
    file = FOLDER / f"{target}.txt"
    lines = file.read_text("ascii").split() if file.exists() else []
    return [*SEEDS[target], *map(base64.b64decode, lines)]


def keep(target: str, inputs: Iterable[bytes]) -> None:
    """Replace the kept inputs, and leave out seeds."""
    lines = {base64.b64encode(data).decode() for data in set(inputs) - {*SEEDS[target], b""}}
    text = "".join(f"{line}\n" for line in sorted(lines, key=lambda line: (len(line), line)))
    (FOLDER / f"{target}.txt").write_text(text, "ascii")
