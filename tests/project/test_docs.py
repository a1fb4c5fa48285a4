"""The documentation is complete, and what is generated is what is committed."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import cachefs

DOCS = Path(__file__).parents[2] / "docs"


def test_the_api_page_has_all_public_names_and_no_others() -> None:
    page = (DOCS / "reference" / "api.md").read_text()
    documented = re.findall(r"\.\. auto(?:class|data|exception|function):: cachefs\.(\w+)", page)
    assert sorted(documented) == sorted(cachefs.__all__)


def test_the_generated_pages_are_what_the_code_gives() -> None:
    pages = runpy.run_path(str(DOCS / "generate.py"))["pages"]()
    stale = [path.name for path, text in pages.items() if path.read_text() != text]
    assert stale == [], "run: python docs/generate.py"


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = {"index"}
    for index in (DOCS / "index.md", DOCS / "howto" / "index.md"):
        folder = index.parent.relative_to(DOCS)
        for tree in re.findall(r"```{toctree}\n(.*?)```", index.read_text(), re.DOTALL):
            entries = [line for line in tree.splitlines() if line and not line.startswith(":")]
            listed |= {str(folder / entry) for entry in entries}
    there = {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*.md")}
    assert there == listed


def test_every_public_name_says_what_it_is() -> None:
    silent = [
        name for name in cachefs.__all__ if not (getattr(cachefs, name).__doc__ or "").strip()
    ]
    assert silent == []


def test_environment_variables_that_the_code_reads_are_documented() -> None:
    page = (DOCS / "reference" / "environment.md").read_text()
    code = DOCS.parent / "cachefs"
    read: set[str] = set()
    for path in code.rglob("*.py"):
        text = path.read_text()
        read |= set(re.findall(r"environ(?:\.get\(|\[)\"(\w+)\"", text))
        read |= set(re.findall(r"environ=\"(\w+)\"", text))
    # The path of programs is what every program reads.
    assert {name for name in read - {"PATH"} if f"`{name}`" not in page} == set()
    assert "CACHEFS_ENGINE" in read
