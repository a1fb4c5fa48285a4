"""Outputs that are patterns, optional outputs, and outputs outside of the working directory."""

from __future__ import annotations

from pathlib import Path

import pytest

import cachefs
from tests import trees
from tests.running.in_place import run
from tests.trees import File, Link

MAKE = "mkdir -p dist; echo {0} > dist/x-{0}.whl; echo {0} > dist/log-{0}"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return trees.write(tmp_path / "place", {"in": File(b"1")})


def _told(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


def test_a_pattern_is_what_the_command_made(place: Path) -> None:
    trees.write(place / "dist", {"x-0.whl": File(b"old"), "y.whl": {}, "mine": File(b"mine")})
    script = "ls dist; " + MAKE.format(1)
    ran = run(place, script, "dist/*.whl")
    assert (ran.outcome, ran.said) == ("ran", b"mine\n")
    made: trees.Tree = {"x-1.whl": File(b"1\n"), "mine": File(b"mine"), "log-1": File(b"1\n")}
    assert trees.read(place / "dist") == made
    trees.write(place / "dist" / "old.whl", {"deep": File(b"old")})
    (place / "dist" / "x-1.whl").write_text("changed")
    hit = run(place, script, "dist/*.whl")
    assert hit.outcome == "hit"
    assert trees.read(place / "dist") == made
    assert run(place, script, "dist/*.whl").report.fetched == 0
    assert run(place, script, "dist/*").outcome == "ran"


def test_what_a_pattern_matched_comes_back_after_a_failure(place: Path) -> None:
    before: trees.Tree = {"a.o": File(b"a"), "deep": {"b.o": File(b"b"), "c": File(b"c")}}
    trees.write(place / "build", before)
    script = "test -e build/a.o || echo gone; echo x > build/a.o; echo y > build/new.o; exit 3"
    with pytest.raises(cachefs.StepError):
        run(place, script, "build/**/*.o")
    assert trees.read(place / "build") == before


def test_a_pattern_without_a_match_is_not_kept(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trees.write(place / "dist", {"old.whl": File(b"old")})
    for _ in range(2):
        assert run(place, "echo said", "dist/*.whl").outcome == "ran"
        assert trees.read(place / "dist") == {"old.whl": File(b"old")}
    assert "not kept: the command made nothing that matches 'dist/*.whl'" in _told(caplog)


@pytest.mark.parametrize("optional", ["report.xml", "report*", "sub/report.xml"])
def test_an_optional_output_may_be_missing(place: Path, optional: str) -> None:
    def both(script: str) -> tuple[str, str]:
        first = run(place, script, "out", optional=(optional,)).outcome
        (place / "out").unlink()
        (place / "sub").mkdir(exist_ok=True)
        for stale in ("report.xml", "sub/report.xml"):
            (place / stale).write_text("stale")
        return first, run(place, script, "out", optional=(optional,)).outcome

    assert both("echo x > out") == ("ran", "hit")
    left = {"report.xml", "sub/report.xml"} - {optional}
    left -= {"report.xml"} if optional == "report*" else set()
    found = {"report.xml", "sub/report.xml"} & {
        str(path.relative_to(place)) for path in place.rglob("*")
    }
    assert found == left
    assert both("mkdir -p sub; echo x > out; echo new | tee report.xml > sub/report.xml") == (
        "ran",
        "hit",
    )
    restored = "report.xml" if optional == "report*" else optional
    assert (place / restored).read_text() == "new\n"


def test_what_is_optional_is_part_of_the_key(place: Path) -> None:
    assert run(place, "echo x > out", "out").outcome == "ran"
    assert run(place, "echo x > out", optional=("out",)).outcome == "ran"


def test_outputs_of_patterns_are_not_inputs(place: Path) -> None:
    script = "cp in made.o; cp in made"
    for outcome in ("ran", "hit"):
        assert run(place, script, "*.o", "made", inputs=(".",)).outcome == outcome
    (place / "other.o").touch()
    assert run(place, script, "*.o", "made", inputs=(".",)).outcome == "hit"
    assert not (place / "other.o").exists()


def test_patterns_follow_no_link(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    trees.write(place.parent / "elsewhere", {"a.o": File(b"precious")})
    (place / "dist").symlink_to("../elsewhere")
    assert run(place, "echo x > dist/b.o", "dist/*.o").outcome == "ran"
    assert "is below dist, which is a symbolic link" in _told(caplog)
    assert (place.parent / "elsewhere" / "a.o").read_text() == "precious"
    (place / "dist").unlink()
    run(place, "mkdir -p dist; echo x > dist/b.o", "dist/*.o")
    (place / "dist" / "b.o").unlink()
    (place / "dist").rmdir()
    (place / "dist").symlink_to("../elsewhere")
    assert run(place, "mkdir -p dist; echo x > dist/b.o", "dist/*.o").outcome == "ran"
    assert trees.read(place.parent / "elsewhere") == {"a.o": File(b"precious"), "b.o": File(b"x\n")}


def test_links_that_match_are_replaced_as_links(place: Path) -> None:
    trees.write(place / "lib", {"target": {"file": File(b"precious")}, "old.so": Link("target")})
    script = "ln -s target lib/new.so"
    for outcome in ("ran", "hit"):
        assert run(place, script, "lib/*.so").outcome == outcome
        (place / "lib" / "new.so").unlink()
        (place / "lib" / "other.so").symlink_to("target")
    run(place, script, "lib/*.so")
    links: trees.Tree = {"target": {"file": File(b"precious")}, "new.so": Link("target")}
    assert trees.read(place / "lib") == links


def test_steps_have_patterns_and_optional_outputs(tmp_path: Path) -> None:
    def build(script: str) -> tuple[str, set[str], set[str]]:
        with cachefs.Build(cache_to=str(tmp_path / "cache"), mode="max") as build:
            made = build.step(["sh", "-c", script], outputs=["d/*.whl"], optional=["log"])
            last = build.step(["cp", "in/x.whl", "out"], inputs={"in": made / "d"}, outputs=["out"])
            assert last.files()["out"].read_text() == "1\n"
            made.restore(tmp_path / "restored")
            names = set(made.files())
        restored = (
            str(p.relative_to(tmp_path / "restored")) for p in tmp_path.rglob("restored/**/*")
        )
        return build.report.steps[0].outcome, names, set(restored)

    script = "mkdir d; echo 1 | tee d/x.whl > d/other"
    for outcome in ("ran", "hit"):
        assert build(script) == (outcome, {"d/x.whl"}, {"d", "d/x.whl"})
    for outcome in ("ran", "hit"):
        assert build(script + "; echo > log")[:2] == (outcome, {"d/x.whl", "log"})
    with pytest.raises(cachefs.StepError, match=r"made no 'd/\*.whl'"):
        build("echo > log")


@pytest.mark.parametrize("typed", ["../out", "/etc/out", "sub/../../out", ".", "../pl*"])
def test_outputs_outside_are_refused_before_the_run(place: Path, typed: str) -> None:
    with pytest.raises(cachefs.UsageError) as refused:
        run(place, "touch ran", typed)
    assert repr(typed) in str(refused.value)
    assert not (place / "ran").exists()


def test_an_absolute_path_below_the_working_directory_is_an_output(place: Path) -> None:
    (place.parent / "link").symlink_to("place")
    for typed, outcome in (("out", "ran"), (str(place / "out"), "hit")):
        assert run(place, "echo x > out", typed).outcome == outcome
        (place / "out").unlink()
    assert run(place, "echo x > out", str(place.parent / "link" / "out")).outcome == "hit"
