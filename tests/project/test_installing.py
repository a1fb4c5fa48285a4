"""What installs cachefs names the right distribution: on PyPI, "cachefs" is another project."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
FOLDERS = (".ci", "benchmarks", "cachefs", "docs", "examples", "tests")
SUFFIXES = {"", ".cfg", ".md", ".py", ".pyi", ".toml", ".txt", ".yaml", ".yml"}

# A word that is not part of a path or of another name, with an extra or without.
ITSELF = r"(?<![\w./-])cachefs(?![\w./-])"
OTHER = re.compile(
    rf"\b(?:pip|pip3|pipx|uv|uvx|poetry|pdm|conda)\b[^.|;&]*\b(?:install|add|run|tool)\b[^.|;&]*?{ITSELF}"
    r"|(?<![\w./-])cachefs\[[a-z]",
)
INSTALLING = re.compile(r"\b(?:pip|pipx|uv|poetry)\b.*\b(?:install|add)\b.*\bbuildcachefs\b")


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def written() -> list[Path]:
    """Every file that somebody wrote and that somebody may copy from."""
    below = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    named = [path for path in (*ROOT.iterdir(), *below) if path.suffix in SUFFIXES]
    skipped = {"__pycache__", "_build", "data"}
    return [
        path
        for path in named
        if path.is_file() and path != Path(__file__) and not skipped & set(path.parts)
    ]


def test_nothing_installs_the_other_project() -> None:
    found = []
    for path in written():
        for paragraph in re.split(r"\n\s*\n", path.read_text(errors="replace")):
            text = " ".join(paragraph.split())
            found += [f"{path.relative_to(ROOT)}: {hit[0]}" for hit in OTHER.finditer(text)]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "pip install cachefs",
        "pip install -q 'cachefs[s3]'",
        "`pipx install cachefs`",
        "uv tool install cachefs",
        "pip install pytest cachefs",
        "install `cachefs[gcs]`",
    ],
)
def test_the_other_project_would_be_noticed(text: str) -> None:
    assert OTHER.search(text)


@pytest.mark.parametrize(
    "text",
    [
        "pip install 'buildcachefs[s3]'",
        "pip install './cachefs[s3]'",
        "/opt/cachefs/bin/pip install '/opt/cachefs.git[s3]'",
        "`cachefs` is the name of the command",
    ],
)
def test_ours_is_not_taken_for_it(text: str) -> None:
    assert not OTHER.search(text)


def test_until_the_release_no_command_installs_by_name() -> None:
    """A name that nobody has registered can be registered by anybody."""
    found = [
        f"{page.relative_to(ROOT)}: {line}"
        for page in PAGES
        for token in MarkdownIt().parse(page.read_text())
        if token.type == "fence"
        for line in token.content.splitlines()
        if INSTALLING.search(line)
    ]
    assert found == []


def test_every_extra_that_is_named_exists() -> None:
    extras = set(project()["optional-dependencies"])
    named = {
        extra
        for path in written()
        for group in re.findall(
            r"(?:buildcachefs|/cachefs|/\.cachefs|\.git)\[([a-z0-9,]+)\]",
            path.read_text(errors="replace"),
        )
        for extra in group.split(",")
    }
    assert named >= {"azure", "obstore", "s3"}
    assert named <= extras


def test_the_distribution_brings_the_command() -> None:
    installed = metadata.distribution(project()["name"])
    assert project()["name"] == "buildcachefs"
    commands = {(entry.group, entry.name): entry.value for entry in installed.entry_points}
    assert commands == {
        ("console_scripts", "cachefs"): "cachefs.cli.main:main",
        ("fsspec.specs", "cachefs"): "cachefs.inside.filesystem:CacheFileSystem",
    }


def test_every_library_has_a_lower_bound() -> None:
    """Without one, nox -s lowest would try releases that nobody ever used with cachefs."""
    extras = project()["optional-dependencies"].values()
    named = [*project()["dependencies"], *(one for extra in extras for one in extra)]
    assert [one for one in named if ">=" not in one and not one.startswith("buildcachefs[")] == []
