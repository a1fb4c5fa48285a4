"""Whatever goes wrong with a hit is a miss: the command runs, and nothing else is changed."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

import cachefs
from tests import trees
from tests.poisoning import archive, poison
from tests.running.in_place import NOBODY, PROGRAM, in_namespace, run
from tests.trees import File, Link

SCRIPT = "echo ran; echo new > out"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return trees.write(tmp_path / "place", {})


def _frame(stream: int, data: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BI", stream, len(data) if length is None else length) + data


def _log(data: bytes) -> bytes:
    return archive({".cachefs-log": File(data)})


GOOD = archive({"out": File(b"old\n")})

DAMAGE: dict[str, dict[str, Any]] = {
    "wrong diffID": {"files": GOOD, "diff_id": f"sha256:{'0' * 64}"},
    "no diffID": {"files": GOOD, "diff_id": "sha256:"},
    "leaves the directory": {"files": archive({"../evil": File(b"x")})},
    "no archive": {"files": b"garbage" * 500},
    "cut": {"files": archive({"out": File(b"x" * 5000)})[:1500]},
    "media type": {"files": GOOD, "media_type": "text/plain"},
    "too deep": {"files": archive({"/".join("d" * 200): File(b"")})},
    "no output": {"files": archive({"other": File(b"x")})},
    "no log": {"log": archive({"other": File(b"x")})},
    "no layer with a log": {"without_log": True},
    "log is a directory": {"log": archive({".cachefs-log": {}})},
    "log is a link to a terminal": {"log": archive({".cachefs-log": Link("/dev/stdin")})},
    "log with a broken frame": {"log": _log(b"\1\0\0\0\xffabc")},
    "log of an unknown stream": {"log": _log(_frame(7, b"abc"))},
    "log that promises four gigabytes": {"log": _log(_frame(1, b"abc", 2**32 - 1))},
    "log that removes outputs": {
        "log": archive({".wh.out": File(b""), ".cachefs-log": File(_frame(1, b"ran\n"))})
    },
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_result_is_a_miss(place: Path, damage: str) -> None:
    assert run(place, SCRIPT, "out").outcome == "ran"
    (place / "out").unlink()
    poison(place.parent / "cache", **DAMAGE[damage])
    again = run(place, SCRIPT, "out")
    assert (again.outcome, again.said) == ("ran", b"ran\n")
    assert again.report.why
    assert trees.read(place) == {"out": File(b"new\n")}
    (place / "out").unlink()
    mended = run(place, SCRIPT, "out")
    assert (mended.outcome, mended.said) == ("hit", b"ran\n")
    assert trees.read(place) == {"out": File(b"new\n")}


def test_a_long_log_is_replayed_whole(place: Path) -> None:
    script = "head -c 300000 /dev/zero | tr '\\0' x; echo error >&2"
    first = run(place, script)
    again = run(place, script)
    assert again.outcome == "hit"
    assert sorted(again.said) == sorted(first.said)


def test_outputs_change_together_or_not_at_all(place: Path) -> None:
    script = "test -e ../broken && exit 3; mkdir -p sub/deep; echo 1 > one; echo 2 > sub/deep/two"
    assert run(place, script, "one", "sub/deep/two").outcome == "ran"
    (place / "one").write_text("mine")
    (place / "sub" / "deep" / "two").unlink()
    (place / "sub" / "deep").rmdir()
    (place / "sub" / "deep").write_text("in the way")
    (place.parent / "broken").touch()
    with pytest.raises(cachefs.StepError) as failed:
        run(place, script, "one", "sub/deep/two")
    assert failed.value.exit_code == 3
    assert trees.read(place) == {"one": File(b"mine"), "sub": {"deep": File(b"in the way")}}


def test_a_link_to_a_directory_is_not_replaced_by_a_hit(place: Path) -> None:
    script = "mkdir -p out; echo new > out/file"
    run(place, script, "out")
    (place / "out" / "file").unlink()
    (place / "out").rename(place / "elsewhere")
    (place / "out").symlink_to("elsewhere")
    assert run(place, script, "out").outcome == "ran"
    assert trees.read(place) == {"out": Link("elsewhere"), "elsewhere": {"file": File(b"new\n")}}


# --- what only the system can refuse -----------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "mount"),
    [
        ("out", "mount -t tmpfs none out"),
        ("out", "mount --bind out out"),
        ("out/deep/file", "mkdir out/deep; mount -t tmpfs none out/deep"),
        ("out/*", "mount -t tmpfs none out"),
        ("out/deep/*", "mount -t tmpfs none out"),
    ],
)
def test_an_output_on_a_mount_point_is_restored(place: Path, output: str, mount: str) -> None:
    script = "echo said; mkdir -p out/deep; echo new > out/deep/file; cp out/deep/file linked"
    words = f"--output '{output}' --output linked -- sh -c '{script}'"
    done = in_namespace(
        place,
        ["--user", "--map-root-user", "--mount"],
        f"mkdir out; {mount} || exit 99; mkdir -p out/deep; echo old > out/deep/file; "
        f'"$@" {words} || exit; echo changed > out/deep/file; rm linked; '
        f'"$@" {words} || exit; cat out/deep/file; ls -A out/deep . out; "$@" {words}',
    )
    if done.returncode == 99:
        pytest.skip("mounts are not allowed here")
    told = "said\nsaid\nnew\n.:\nlinked\nout\n\nout:\ndeep\n\nout/deep:\nfile\nsaid\n"
    assert (done.returncode, done.stdout) == (0, told)
    assert done.stderr.count("cachefs: hit") == 2, done.stderr


def test_a_failed_command_leaves_a_mount_point_as_it_was(place: Path) -> None:
    done = in_namespace(
        place,
        ["--user", "--map-root-user", "--mount"],
        "mkdir out; mount -t tmpfs none out || exit 99; echo old > out/file; echo old > other; "
        '"$@" --output out --output other -- sh -c "test -e out/file || test -e other || '
        'echo absent; echo x > out/file; echo x > out/more; exit 3"; echo $?; cat out/file other; '
        "ls -A out .",
    )
    if done.returncode == 99:
        pytest.skip("mounts are not allowed here")
    assert done.stdout == "absent\n3\nold\nold\n.:\nother\nout\n\nout:\nfile\n"


@pytest.mark.parametrize("output", ["out", "out/file"])
def test_a_read_only_working_directory_is_a_miss(place: Path, output: str) -> None:
    (place / "out").mkdir()
    (place.parent / "cache").mkdir()
    place.chmod(0o555)
    words = f"--output {output} -- sh -c 'echo said; echo x > out/file'"
    script = f'for i in 1 2; do "$@" {words} || exit; test $i = 2 || echo y > out/file; done'
    done = in_namespace(place, NOBODY, script)
    place.chmod(0o755)
    assert (done.returncode, done.stdout) == (0, "said\nsaid\n")
    assert "cannot be used" in done.stderr
    assert trees.read(place) == {"out": {"file": File(b"x\n")}}


@pytest.mark.parametrize("kilobytes", [64, 1024])
def test_no_room_for_temporary_files_is_a_miss(place: Path, kilobytes: int) -> None:
    words = "--output out -- sh -c 'echo said; head -c 3000000 /dev/urandom > out'"
    done = in_namespace(
        place,
        ["--user", "--map-root-user", "--mount"],
        f'"$@" {words} || exit; rm out; mkdir ../small; mount -t tmpfs -o size={kilobytes}k none '
        f'../small || exit 99; export TMPDIR=../small; "$@" {words} || exit; rm out; '
        f'"$@" --output out -- sh -c "echo more; head -c 3000000 /dev/urandom > out; echo $i"',
    )
    if done.returncode == 99:
        pytest.skip("mounts are not allowed here")
    assert (done.returncode, done.stdout) == (0, "said\nsaid\nmore\n\n")
    assert "not kept: " in done.stderr
    assert (place / "out").stat().st_size == 3_000_000


def test_few_descriptors_cost_no_build(place: Path) -> None:
    deep = "out/" + "/".join("d" * 60)
    command = ["--", "sh", "-c", f"mkdir -p {deep}; echo x > {deep}/file"]
    for limit in ("1000", "20"):
        shutil.rmtree(place / "out", ignore_errors=True)
        limited = ["sh", "-c", f'ulimit -n {limit}; "$@"', "sh"]
        done = subprocess.run(
            [*limited, *PROGRAM, "--output=out", *command],
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert (place / deep / "file").exists()


# --- builds -------------------------------------------------------------------------------------


def _make(directory: Path) -> None:
    (directory / "made").mkdir()
    (directory / "made" / "file").write_text("honest")


def _use(directory: Path) -> None:
    (directory / "out").write_bytes((directory / "in").read_bytes())


@pytest.mark.parametrize(
    "files",
    [
        b"garbage" * 500,
        archive({"made": {}}),
        archive({"made": Link("elsewhere"), "elsewhere": {"file": File(b"poison")}}),
        archive({"other": File(b"x")}),
    ],
)
def test_a_step_runs_again_if_its_result_cannot_be_laid_out(tmp_path: Path, files: bytes) -> None:
    def build(version: str) -> cachefs.Build:
        with cachefs.Build(cache_to=str(tmp_path / "cache"), mode="max", jobs=1) as build:
            first = build.step(_make, outputs=["made"])
            second = build.step(
                _use, inputs={"in": first / "made/file"}, outputs=["out"], version=version
            )
            assert second.files()["out"].read_text() == "honest"
        return build

    build("1")
    poison(tmp_path / "cache", files)
    assert [step.outcome for step in build("2").report.steps] == ["ran", "ran"]
    assert [step.outcome for step in build("2").report.steps] == ["hit", "hit"]


def test_files_of_a_damaged_hit_are_made_again(tmp_path: Path) -> None:
    for outcome in ("ran", "ran", "hit"):
        with cachefs.Build(cache_to=str(tmp_path / "cache")) as build:
            step = build.step(_make, outputs=["made"])
            assert (step.files()["made"] / "file").read_text() == "honest"
            step.restore(tmp_path / "restored")
        assert build.report.steps[0].outcome == outcome
        assert trees.read(tmp_path / "restored") == {"made": {"file": File(b"honest")}}
        if outcome == "ran" and not (tmp_path / "poisoned").exists():
            poison(tmp_path / "cache", archive({"made": Link("/")})[:700])
            (tmp_path / "poisoned").touch()


def test_a_command_that_is_not_utf8_has_a_result(place: Path) -> None:
    script = os.fsdecode(b"printf '\xff' > out")
    for outcome in ("ran", "hit"):
        assert run(place, script, "out").outcome == outcome
        assert (place / "out").read_bytes() == b"\xff"
        (place / "out").unlink()
