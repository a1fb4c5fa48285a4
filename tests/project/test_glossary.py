"""The code and the pages keep to the words of docs/glossary.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"

OLD = {
    r"\bParting|_parting\b": "divergence",
    r"\bcachefs\.Name\b|\bimport Name\b|\b(?:list|Sequence)\[Name\]": "NamedManifest",
    r"\b(?:stat|read|put|touch|mapped)_group\b|\bGroupSource\b": "batch",
    r"\b(?:[pP]ieces?|PIECE|(?:put|file|verified)_pieces|pieces_of)\b": "chunk, part or range",
    r"\btickets?\b": "permit",
    r"\bgo(?:es)? away\b": "removed or deleted",
    r"\bNameToGo\b|\bunpublish\b|\bwithdraw": "NameRemoval, remove",
    r"\bBlobToGo\b|\bdiscarded\b": "BlobRemoval, delete",
    r"\bBrokenName\b|\bdrop_broken\b|--drop-broken|\.broken\b": "missing_blobs or unreadable",
    r"\bmerge_names\b": "merge",
}
"""Words that are no longer used, as patterns, and what replaced them."""


def entries() -> Iterator[list[str]]:
    """The cells of each line of the glossary's tables."""
    for line in GLOSSARY.read_text().splitlines():
        if line.startswith("| **"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def sources() -> list[Path]:
    """The code and the pages."""
    found = [ROOT / "README.md"]
    for folder, kinds in (("cachefs", ("py", "pyi")), ("docs", ("py", "md"))):
        found += [path for kind in kinds for path in (ROOT / folder).rglob(f"*.{kind}")]
    return sorted(path for path in found if "_build" not in path.parts)


@pytest.mark.parametrize(("old", "new"), OLD.items(), ids=OLD.values())
def test_old_words_are_gone(old: str, new: str) -> None:
    found = []
    for path in sources():
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if re.search(old, line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == [], f"say {new}"


def test_each_word_has_one_entry() -> None:
    words = [word for cells in entries() for word in re.findall(r"\*\*(.+?)\*\*", cells[0])]
    assert len(words) > 40
    assert len(set(words)) == len(words)


def test_what_the_glossary_points_to_is_there() -> None:
    for word, _, used in entries():
        for path in re.findall(r"`([\w/]+(?:\.py|/))`", used):
            assert (ROOT / "cachefs" / path).exists(), f"{word}: {path}"
