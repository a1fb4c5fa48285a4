"""Which named steps need which, and what that makes of their inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from cachefs.errors import UsageError
from cachefs.running.needs import Placed, placed
from cachefs.running.project import NamedStep, Project, Settings


def _placed(directory: Path, *names: str, **steps: dict[str, Any]) -> dict[str, Placed]:
    named = {name: NamedStep(command="true", **one) for name, one in steps.items()}
    project = Project(directory / "cachefs.toml", Settings(), named)
    return placed(project, names or list(named)[-1:])


def _needs(directory: Path, **steps: dict[str, Any]) -> list[str]:
    """What the last step needs."""
    return list(list(_placed(directory, **steps).values())[-1].needs)


# --- outputs that are inputs ----------------------------------------------------------------------

CASES = {
    # input, output of the other step: needed?
    ("dist", "dist"): True,
    ("./dist/", "dist"): True,
    ("dist/app.js", "dist"): True,
    ("dist/*.js", "dist"): True,
    ("dist", "distribution"): False,
    ("src", "src/gen.c"): True,
    (".", "src/gen.c"): True,
    ("src", "dist/gen.c"): False,
    ("src/*.c", "src/gen.c"): True,
    ("src/*.c", "src/gen.h"): False,
    ("src/*.c", "src/deep/gen.c"): False,
    ("**/*.c", "src/deep/gen.c"): True,
    ("**/*.c", "src/deep/gen.h"): False,
    ("**/*.c", "generated"): True,
    ("src/*/*.c", "src/generated"): True,
    ("lib/*/*.c", "src/generated"): False,
    ("src/*.o", "src/ignored.o"): False,
    ("src", "src/ignored.o"): False,
    ("src/ignored.o", "src/ignored.o"): True,
    (".", "target"): False,
    (".", "src/excluded"): False,
    ("dist/*.js", "dist/*.js"): True,
    ("dist/app.js", "dist/*.js"): True,
    ("dist/app.js/x", "dist/*.js"): True,
    ("dist/app.css", "dist/*.js"): False,
    ("dist", "dist/*.js"): True,
    ("src", "dist/*.js"): False,
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} reads {case[1]}")
@pytest.mark.parametrize("exists", [False, True])
def test_a_step_needs_those_whose_outputs_its_inputs_read(
    tmp_path: Path, case: tuple[str, str], *, exists: bool
) -> None:
    text, output = case
    (tmp_path / ".gitignore").write_text("*.o\ntarget/\n")
    for directory in ("src/deep", "lib"):
        (tmp_path / directory).mkdir(parents=True)
    if exists and Path(output).suffix:
        (tmp_path / output).parent.mkdir(exist_ok=True)
        (tmp_path / output).touch()
    elif exists:
        (tmp_path / output).mkdir()
    use = {"inputs": [text], "exclude": ["excluded"]}
    found = _needs(tmp_path, make={"outputs": [output]}, use=use)
    assert found == (["make"] if CASES[case] else [])


def test_ignore_files_do_not_count_if_the_step_says_so(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.o\n")
    use = {"inputs": ["."], "ignore": False}
    assert _needs(tmp_path, make={"outputs": ["x.o"]}, use=use) == ["make"]


def test_what_a_listed_step_makes_is_an_input_in_whole(tmp_path: Path) -> None:
    make = {"outputs": ["dist", "other"]}
    steps = _placed(tmp_path, make=make, use={"inputs": ["src", "dist/a"], "needs": ["make"]})
    assert steps["use"].inputs == ["src", "dist/a", "other"]
    assert steps["use"].whole == {"dist/a", "other"}


def test_a_step_does_not_need_itself_for_an_output_below_its_input(tmp_path: Path) -> None:
    assert _needs(tmp_path, make={"inputs": ["."], "outputs": ["dist"]}) == []


# --- order ----------------------------------------------------------------------------------------


def test_only_what_is_needed_runs_and_in_order(tmp_path: Path) -> None:
    steps = {
        "test": {"needs": ["build"]},
        "build": {"inputs": ["gen.c"], "outputs": ["prog"]},
        "gen": {"outputs": ["gen.c"]},
        "other": {},
    }
    assert list(_placed(tmp_path, "test", **steps)) == ["gen", "build", "test"]
    assert list(_placed(tmp_path, "other", "gen", **steps)) == ["gen", "other"]


def test_a_circle_is_told_with_its_reasons(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        _placed(
            tmp_path,
            a={"inputs": ["."], "outputs": ["a.txt"]},
            b={"inputs": ["a.txt"], "outputs": ["b.txt"]},
        )
    text = str(caught.value)
    assert "steps need each other" in text
    assert "a needs b (its input '.' reads the output 'b.txt')" in text
    assert "b needs a (its input 'a.txt' reads the output 'a.txt')" in text
    with pytest.raises(UsageError, match=r"a needs a \(listed in needs\)"):
        _placed(tmp_path, a={"needs": ["a"]})


def test_an_unknown_name_gets_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no step 'biuld'; did you mean 'build'"):
        _placed(tmp_path, "biuld", build={}, test={})
    with pytest.raises(UsageError, match="there is no step 'xyz'; there are: build, test"):
        _placed(tmp_path, "xyz", build={}, test={})


@st.composite
def graphs(draw: DrawFn) -> dict[str, list[str]]:
    """Steps that need some of those after them in an order that the file does not follow."""
    names = draw(st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=1))
    needs = {
        name: draw(st.lists(st.sampled_from(names[at + 1 :]), unique=True))
        if names[at + 1 :]
        else []
        for at, name in enumerate(names)
    }
    return {name: needs[name] for name in draw(st.permutations(names))}


@given(graphs(), st.data())
def test_each_step_comes_after_those_that_it_needs(
    needs: dict[str, list[str]], data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(sorted(needs)), min_size=1))
    steps = {name: {"needs": needed} for name, needed in needs.items()}
    order = list(_placed(Path("/nowhere"), *chosen, **steps))
    assert len(order) == len(set(order))
    for at, name in enumerate(order):
        assert set(needs[name]) <= set(order[:at])
    wanted, waiting = set(), list(chosen)
    while waiting:
        name = waiting.pop()
        wanted.add(name)
        waiting += needs[name]
    assert set(order) == wanted
