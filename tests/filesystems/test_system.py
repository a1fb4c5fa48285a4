"""Errors of this machine say what was done, where, and what to do, and are no store's."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import cachefs
from cachefs.filesystems.system import system_error, temporary_files
from tests.programs import run


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "check the owner and the mode"),
        (errno.EBUSY, "it is in use, or something is mounted there"),
        (errno.EMFILE, "raise the limit with 'ulimit -n'"),
        (errno.ENAMETOOLONG, "the name is too long"),
        (errno.ENOSPC, "the disk is full: free some space"),
        (errno.EROFS, "the filesystem is read-only"),
        (errno.EISDIR, "a directory is in the way"),
        (errno.ENOENT, "there is no such file or directory"),
        (errno.EIO, "the disk failed"),
    ],
)
def test_each_is_named_for_what_it_is(number: int, words: str) -> None:
    error = OSError(number, os.strerror(number), "/some/where")
    failure = system_error(error, "copy")
    assert str(failure).startswith(f"copy /some/where: {words}") or words in str(failure)
    assert (failure.operation, failure.key) == ("copy", "/some/where")
    assert isinstance(failure, PermissionError) == (number in {errno.EACCES, errno.EROFS})
    assert "output" not in str(failure)


def test_an_error_that_is_not_known_keeps_its_text() -> None:
    failure = system_error(OSError(errno.EPROTO, "Protocol error", b"/x\xff"), "ls")
    assert str(failure) == "ls /x\udcff: Protocol error"


def test_a_full_temporary_directory_is_not_a_full_store() -> None:
    with pytest.raises(cachefs.StoreError) as raised, temporary_files():
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(raised.value) == (
        f"write a temporary file in {tempfile.gettempdir()}: the disk is full: free some space, "
        "then run it again, or set TMPDIR to a directory on another disk"
    )


def test_a_blob_that_does_not_fit_on_the_disk(tmp_path: Path) -> None:
    data = os.urandom(9 * 2**20)  # more than is kept in memory
    cache = cachefs.open(tmp_path / "cache")
    graph = cachefs.RecordGraph()
    blob = cachefs.Digest.of(data)
    step = graph.add("sha256:" + "5" * 64)
    graph.add_result(step, graph.add_layer(blob, size=len(data)))
    cache.export(graph, {blob: data}, "app")
    program = (
        "import sys, cachefs, resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n"
        f"print(cachefs.open({str(tmp_path / 'cache')!r}).open_blob({str(blob)!r}))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    assert "write a temporary file in " in ended.stdout
    assert "larger than the filesystem or 'ulimit -f' permits" in ended.stdout
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 2**20


# --- the program ----------------------------------------------------------------------------------


def test_a_working_directory_that_was_removed(tmp_path: Path) -> None:
    for words in ("ls cache", "run -- true", "copy a b"):
        line = f"mkdir gone; cd gone; rmdir ../gone; {sys.executable} -m cachefs {words}"
        ended = subprocess.run(
            ["sh", "-c", line],  # noqa: S607 - wherever it is
            check=False,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(Path(cachefs.__file__).parents[1])},
        )
        assert ended.returncode == 3
        assert ended.stderr == (
            f"cachefs: error: {words.split()[0]}: the working directory does not exist any more: "
            "change to another one\n"
        )


@pytest.fixture
def locked(recorded: Path, tmp_path: Path) -> Iterator[Path]:
    """A cache in a directory that nobody may enter."""
    place = Path(shutil.copytree(recorded / "s3" / "max", tmp_path / "locked" / "cache"))
    place.parent.chmod(0o000)
    yield place
    place.parent.chmod(0o700)


@pytest.mark.parametrize("words", [["ls"], ["verify"], ["prune", "--yes"], ["run", "--cache"]])
def test_a_root_without_rights(locked: Path, words: list[str]) -> None:
    program = [sys.executable, "-m", "cachefs", *words, str(locked)]
    program += ["--", "echo", "said"] if words[0] == "run" else []
    if os.access(locked, os.R_OK):
        if (setpriv := shutil.which("setpriv")) is None:
            pytest.skip("this user may read everything")
        program = [setpriv, "--bounding-set=-all", "--inh-caps=-all", *program]
    ended = subprocess.run(program, check=False, capture_output=True, text=True, timeout=60)
    reason = "access is denied: check the owner and the mode of the directory"
    if words[0] == "run":
        assert (ended.returncode, ended.stdout) == (0, "said\n")
        assert reason in ended.stderr
        return
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr == f"cachefs: error: list {locked}/manifests/: {reason}\n"


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    ended = run("run", "--cache", "c", "--report", "r", "--", "echo", "said", cwd=tmp_path)
    assert (ended.status, ended.out) == (2, "")
    words = ("run", "--cache", "c", "--report", "none/r", "--", "echo", "said")
    ended = run(*words, cwd=tmp_path)
    assert (ended.status, ended.out) == (3, "said\n")
    assert "cachefs: error: write the report none/r: there is no such file" in ended.err
    ended = run(*words[:-2], "sh", "-c", "exit 7", cwd=tmp_path)
    assert ended.status == 7
    assert "write the report none/r" in ended.err
