"""Making a project with a build cache: whole processes, in the project's directory.

Each tool has a cache of its own next to the directory. How much each of them checks differs: make
compares times; ccache and sccache know what a compiler reads; DVC, Turborepo and cachefs compare
the contents of the inputs that they were told.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from benchmarks.contenders import Command, found
from benchmarks.contenders.starting import PROGRAM
from benchmarks.projects import PYTHON, C, Project

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PROJECTS = {project.name: project for project in (C, PYTHON)}


def cold(folder: str, project: str, tool: str, port: int = 0) -> Command:
    """Make everything. What was there and is cached before depends on the case."""
    one = PROJECTS[project]
    return Command(_TOOLS[tool](one), _variables(folder, port), folder)


cached = in_place = edited = cold


def _variables(folder: str, port: int) -> dict[str, str]:
    """Each tool's own cache, and no messages to its makers."""
    cache = f"{folder}-cache"
    return {
        "CCACHE_DIR": cache,
        "SCCACHE_DIR": cache,
        "SCCACHE_SERVER_PORT": str(port),
        "TURBO_CACHE_DIR": cache,
        "TURBO_TELEMETRY_DISABLED": "1",
        "DO_NOT_TRACK": "1",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": cache,
        "XDG_CACHE_HOME": cache,
    }


def _by_compiler(cache: str) -> Callable[[Project], list[str]]:
    return lambda project: [*project.command, f"CC={found(cache)} gcc"]


def _by_cachefs(*options: str) -> Callable[[Project], list[str]]:
    def words(project: Project) -> list[str]:
        inputs = [f"--input={name}" for name in project.inputs]
        start = [sys.executable, "-c", PROGRAM, "run", *inputs, f"--output={project.output}"]
        return [*start, *options, "--", *project.command]

    return words


_TOOLS: Mapping[str, Callable[[Project], list[str]]] = {
    "alone": lambda project: list(project.command),
    "ccache": _by_compiler("ccache"),
    "sccache": _by_compiler("sccache"),
    "cachefs": _by_cachefs(),
    "incremental": _by_cachefs("--incremental"),
    "dvc": lambda _: [found("dvc") or "dvc", "repro", "--quiet"],
    "turbo": lambda _: [found("turbo") or "turbo", "run", "build", "--no-daemon", "--ui=stream"],
}
