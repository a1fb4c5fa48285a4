"""The documentation is complete, and the generated pages are up to date."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import yaml

import cachefs

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_the_api_page_has_all_public_names_and_no_others() -> None:
    page = (DOCS / "reference" / "api.md").read_text()
    documented = re.findall(r"\.\. auto(?:class|data|function|exception):: cachefs\.(\w+)", page)
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
    # Every program reads PATH.
    assert {name for name in read - {"PATH"} if f"`{name}`" not in page} == set()
    assert "CACHEFS_ENGINE" in read


def test_the_pages_name_files_that_are_there() -> None:
    missing = []
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")):
        named = re.findall(
            r"`((?:cachefs|tests|docs|benchmarks|examples)/[\w./-]+)`", page.read_text()
        )
        missing += [f"{page.name}: {path}" for path in named if not (ROOT / path).exists()]
    assert missing == []


def test_a_commit_writes_the_pages_that_follow_from_what_it_changes() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (hook,) = [one for one in config["repos"][0]["hooks"] if one["id"] == "reference"]
    modules = re.findall(
        r"^from (cachefs\.\S+) import", (DOCS / "generate.py").read_text(), re.MULTILINE
    )
    changed = [f"{module.replace('.', '/')}.py" for module in modules]
    assert len(changed) > 1
    assert [path for path in changed if not re.search(hook["files"], path)] == []
