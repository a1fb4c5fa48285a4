"""Outputs are what this run made, and what cannot be kept costs no success."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import cachefs
from cachefs.building.outputs import Outputs
from cachefs.keying.sources import read_tree
from cachefs.layers.beneath import Beneath, Parts
from cachefs.layers.leftovers import remove
from cachefs.running.before import Before
from cachefs.running.command import UserCommand
from tests import trees
from tests.running.in_place import NOBODY, in_namespace, run
from tests.trees import File, Link


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return trees.write(tmp_path / "place", {"in": File(b"1")})


def _told(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


# --- what lay there before ----------------------------------------------------------------------


def test_what_lay_in_an_output_is_no_part_of_the_result(place: Path) -> None:
    trees.write(place / "out", {"stale": File(b"old")})
    script = "mkdir out; cp in out/fresh"
    assert run(place, script, "out").outcome == "ran"
    assert trees.read(place) == {"in": File(b"1"), "out": {"fresh": File(b"1")}}
    trees.write(place / "other", {"stale": File(b"old")})
    assert run(place, script, "out").outcome == "hit"
    assert trees.read(place / "out") == {"fresh": File(b"1")}


def test_an_output_that_is_not_made_comes_back_and_is_not_kept(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (place / "out").write_text("old")
    assert run(place, "true", "out").outcome == "ran"
    assert "not kept: the command made no 'out'" in _told(caplog)
    assert (place / "out").read_text() == "old"
    (place / "out").unlink()
    assert run(place, "true", "out").outcome == "ran"
    assert trees.read(place) == {"in": File(b"1")}


@pytest.mark.parametrize("script", ["exit 3", "mkdir -p sub; echo partial > sub/out; exit 3"])
def test_after_a_failure_everything_is_as_before(place: Path, script: str) -> None:
    before: trees.Tree = {"sub": {"out": {"deep": File(b"old")}}, "one": Link("in")}
    for name in before:
        trees.write(place / "x", {name: before[name]})
        (place / "x" / name).rename(place / name)
        (place / "x").rmdir()
    with pytest.raises(cachefs.StepError) as failed:
        run(place, script, "sub/out", "one")
    assert failed.value.exit_code == 3
    assert trees.read(place) == {"in": File(b"1"), **before}


def test_what_a_killed_run_had_moved_aside_comes_back(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trees.write(place / "out", {"old": File(b"precious")})
    (place / "file").write_text("precious too")
    script = "mkdir out; echo partial > out/new; touch ready; exec sleep 60"
    words = ["--output", "out", "--output", "file", "--", "sh", "-c", script]
    with subprocess.Popen(
        [sys.executable, "-m", "cachefs", "run", *words], cwd=place, start_new_session=True
    ) as running:
        while not (place / "ready").exists() and running.poll() is None:
            time.sleep(0.01)
        assert not (place / "file").exists()
        running.kill()
    assert running.returncode == -signal.SIGKILL
    # Any run here mends it, whatever its command is.
    assert run(place, "cat out/old file").said == b"preciousprecious too"
    assert "put back" in _told(caplog)
    (place / "ready").unlink()
    assert trees.read(place) == {
        "in": File(b"1"),
        "out": {"old": File(b"precious")},
        "file": File(b"precious too"),
    }


def test_a_planted_list_of_outputs_reaches_nothing(place: Path) -> None:
    planted = place / ".cachefs-before-planted"
    trees.write(planted, {"files": {"x": File(b"evil")}, "outputs": File(b"../victim\0/etc/x")})
    (place.parent / "victim").write_text("precious")
    run(place, "true")
    assert (place.parent / "victim").read_text() == "precious"
    (planted / "outputs").unlink()
    (planted / "outputs").symlink_to("/dev/zero")
    run(place, "true")


def test_an_incremental_command_finds_its_outputs_and_tells_what_it_did_not_touch(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trees.write(place / "out", {"kept": File(b"old"), "made": File(b"old"), "sub": {}})
    script = "test -e out/kept && cp in out/made"
    assert run(place, script, "out", incremental=True).outcome == "ran"
    assert "did not touch 1 file that lay in out before" in _told(caplog)
    assert run(place, script, "out", incremental=True).outcome == "hit"
    result: trees.Tree = {"kept": File(b"old"), "made": File(b"1"), "sub": {}}
    assert trees.read(place / "out") == result


@pytest.mark.parametrize("needed", ["input", "cache", "temporary files"])
def test_what_the_command_needs_is_not_moved(
    place: Path, needed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.write(place / "out", {"data": File(b"data")})
    if needed == "cache":
        (place.parent / "cache").symlink_to(place / "out" / "cache")
        (place / "out" / "cache").mkdir()
    elif needed == "temporary files":
        monkeypatch.setattr("tempfile.tempdir", str(place / "out"))
    inputs = ("out/data",) if needed == "input" else ()
    assert run(place, "cat out/data; touch out/new", "out", inputs=inputs).said == b"data"
    assert (place / "out" / "data").exists()


# --- links --------------------------------------------------------------------------------------


def test_outputs_behind_links_of_the_user_are_not_kept(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trees.write(place / "real", {"old": File(b"old")})
    (place / "out").symlink_to("real")
    for _ in range(2):
        assert run(place, "cp in out/new", "out").outcome == "ran"
        assert run(place, "cp in out/below", "out/below").outcome == "ran"
    assert "the output out is a symbolic link to a directory" in _told(caplog)
    assert "the output out/below is below out, which is a symbolic link" in _told(caplog)
    names = {"old": File(b"old"), "new": File(b"1"), "below": File(b"1")}
    assert trees.read(place) == {"in": File(b"1"), "out": Link("real"), "real": names}


def test_a_link_that_the_command_makes_is_an_output(place: Path) -> None:
    trees.write(place / "v1", {})
    for outcome in ("ran", "hit", "hit"):
        assert run(place, "rm -f out; ln -s v1 out", "out").outcome == outcome
        assert (place / "out").readlink() == Path("v1")
    trees.write(place / "v2", {})
    assert run(place, "rm -f out; ln -s v2 out", "out").outcome == "ran"
    assert run(place, "rm -f out; ln -s v2 out", "out").outcome == "hit"


# --- what cannot be packed ----------------------------------------------------------------------

SOCKET = "import socket; socket.socket(socket.AF_UNIX).bind('out/s')"

DEEP = "import os; os.chdir('out'); [(os.mkdir('d'), os.chdir('d')) for _ in range(3000)]"

UNPACKABLE = {
    "pipe": "mkfifo out/p",
    "output is a pipe": "rmdir out; mkfifo out",
    "socket": f'{sys.executable} -c "{SOCKET}"',
    "removal": "touch out/.wh.x",
    "deep": "cd out; for i in $(seq 200); do mkdir d; cd d; done",
    "very deep": f'{sys.executable} -c "{DEEP}"',
    "long link": f"ln -s $({sys.executable} -c \"print('x' * 4095)\") out/l",
    "no output": "rmdir out",
    "growing": "head -c 30000000 /dev/urandom > out/log; setsid sh -c "
    "'while [ ! -e stop ] && [ -e in ]; do echo x; done >> out/log' > /dev/null 2>&1 & sleep 0.3",
}


@pytest.mark.parametrize("what", UNPACKABLE)
def test_what_cannot_be_packed_costs_no_success(
    place: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    place = Path(os.path.relpath(place))  # the path of a socket must be short
    script = f"mkdir out || exit 9; {UNPACKABLE[what]}; cd {place.absolute()}; echo said"
    try:
        if what == "long link":
            assert run(place, script, "out").said == b"said\n"
            return
        for _ in range(2):
            done = run(place, script, "out")
            assert (done.outcome, done.said) == ("ran", b"said\n")
            (place / "stop").touch()
            time.sleep(0.2 if what == "growing" else 0)
            (place / "stop").unlink()
        assert _told(caplog).count("not kept: ") == 2
    finally:
        (place / "stop").touch()
        remove(place / "out")  # what removes temporary directories later cannot do so


# --- inputs -------------------------------------------------------------------------------------


def test_inputs_leave_out_what_no_layer_holds(
    place: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.write(place / "src", {"a": File(b"a"), "sub": {}})
    digest = read_tree(place / "src").digest
    monkeypatch.chdir(place / "src")
    os.mkfifo("sub/pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s")
    content = read_tree(place / "src")
    assert (content.digest, content.skipped) == (digest, (b"s", b"sub/pipe"))
    assert run(place, "cp src/a out", "out", inputs=("src",)).outcome == "ran"
    assert run(place, "cp src/a out", "out", inputs=("src",)).outcome == "hit"
    assert "leaves out what no layer can hold" in _told(caplog)
    with cachefs.Build() as build:
        source = build.source(place / "src")
        step = build.step(["cp", "-r", "in", "out"], inputs={"in": source}, outputs=["out"])
        assert trees.read(step.files()["out"]) == {"a": File(b"a"), "sub": {}}


def test_an_unreadable_file_below_an_input_is_left_out(place: Path) -> None:
    trees.write(place / "src", {"a": File(b"a"), "hidden": {"b": File(b"b")}, "c": File(b"c")})
    (place / "src" / "c").chmod(0)
    (place / "src" / "hidden").chmod(0)
    script = (
        "from pathlib import Path; from cachefs.keying.sources import read_tree; "
        "print(read_tree(Path('src'), remember=False).skipped)"
    )
    done = in_namespace(place, NOBODY, '"$@"', sys.executable, "-c", script)
    (place / "src" / "hidden").chmod(0o755)
    assert done.stdout == "(b'c', b'hidden')\n", done.stderr


def test_an_unreadable_output_costs_no_success(place: Path) -> None:
    script = "'mkdir out; echo said; touch out/f; chmod 0 out/f'"
    done = in_namespace(place, NOBODY, f'"$@" --output out -- sh -c {script}')
    assert (done.returncode, done.stdout) == (0, "said\n")
    assert "not kept: out/f: Permission denied" in done.stderr


def test_an_input_that_changes_while_it_is_read_costs_no_run(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read = threading.Event()

    def append() -> None:
        with (place / "in").open("ab", buffering=0) as file:
            file.truncate(100_000_000)
            while not read.wait(0.001):
                file.write(b"x")

    appending = threading.Thread(target=append)
    appending.start()
    try:
        done = run(place, "echo said; touch out", "out", inputs=("in",))
    finally:
        read.set()
        appending.join()
    assert (done.outcome, done.said) == ("ran", b"said\n")
    assert "changed while it was read" in _told(caplog)


def test_an_interrupt_while_outputs_are_moved_aside_puts_them_back(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (place / name).write_text(name)
    rename = Beneath.rename

    def interrupted(self: Beneath, path: Parts, target: Beneath, new: Parts) -> None:
        rename(self, path, target, new)
        if path == (b"a",):
            monkeypatch.undo()
            raise KeyboardInterrupt

    monkeypatch.setattr(Beneath, "rename", interrupted)
    action = UserCommand(["true"], place, lambda _stream, _data: None)
    action.before = Before(place, Outputs(["a", "b"]), ())
    with pytest.raises(KeyboardInterrupt):
        action.begin(place, {}, lambda _stream, _data: None).run()
    left = {path.name: path.read_text() for path in place.iterdir()}
    assert left == {"in": "1", "a": "a", "b": "b"}


@pytest.mark.slow
def test_concurrent_runs_into_an_oci_directory_lose_no_result(tmp_path: Path) -> None:
    def start(number: int) -> subprocess.Popen[bytes]:
        here = tmp_path / str(number)
        here.mkdir(exist_ok=True)
        (here / "in").write_text(str(number))
        (here / "out").unlink(missing_ok=True)
        words = ["--cache", "type=local,dest=../cache", "--input=in", "--output=out"]
        return subprocess.Popen(
            [sys.executable, "-m", "cachefs", "run", *words, "--report=r", "--", "cp", "in", "out"],
            cwd=here,
        )

    for outcome in ("ran", "hit"):
        for running in [start(number) for number in range(24)]:
            assert running.wait(120) == 0
        reports = [json.loads((tmp_path / str(n) / "r").read_text()) for n in range(24)]
        assert [report["outcome"] for report in reports] == [outcome] * 24
