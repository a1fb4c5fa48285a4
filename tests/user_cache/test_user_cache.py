"""The user's cache directory: private, refused if it is another user's, and swept."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cachefs import UsageError
from cachefs import user_directory as module
from cachefs.user_directory import read_checked, sweep, user_cache, write_checked

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs other users")


def test_it_and_its_files_are_private(nobodys_home: Path) -> None:
    before = os.umask(0)
    try:
        write_checked(b"data", "history", "x")
    finally:
        os.umask(before)
    top = nobodys_home / ".cache" / "cachefs"
    assert read_checked("history", "x") == b"data"
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (top, *top.rglob("*"))}
    assert modes == {top: 0o700, top / "history": 0o700, top / "history" / "x": 0o600}
    top.chmod(0o755)
    assert user_cache() == top
    assert stat.S_IMODE(top.stat().st_mode) == 0o700


@needs_root
@pytest.mark.parametrize("kind", ["directory", "link"])
def test_another_users_is_refused(nobodys_home: Path, kind: str) -> None:
    top = nobodys_home / ".cache" / "cachefs"
    write_checked(b"data", "seed")
    if kind == "link":
        top.rename(nobodys_home / "mine")
        top.symlink_to(nobodys_home / "mine")
    os.chown(top, NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(UsageError, match="belongs to user 65534"):
        user_cache()
    assert read_checked("seed") is None
    write_checked(b"other", "seed")
    os.chown(top, 0, 0, follow_symlinks=False)
    assert read_checked("seed") == b"data"


def test_a_link_to_a_directory_of_ones_own_is_followed(nobodys_home: Path, tmp_path: Path) -> None:
    (nobodys_home / ".cache").mkdir(exist_ok=True)
    (nobodys_home / ".cache" / "cachefs").symlink_to(tmp_path)
    write_checked(b"data", "seed")
    assert (tmp_path / "seed").exists()


AS_STRANGER = ["unshare", "--user", "--map-user=12345", "--map-group=12345"]


def _can_be_a_stranger() -> bool:
    unshare = shutil.which("unshare")
    return bool(unshare) and not subprocess.run([*AS_STRANGER, "true"], check=False).returncode


@pytest.mark.skipif(not _can_be_a_stranger(), reason="needs user namespaces")
@pytest.mark.parametrize("home", [None, "/proc/no/home"])
def test_without_a_home_commands_are_cached(tmp_path: Path, home: str | None) -> None:
    (tmp_path / "in").write_text("x")
    environment = {"TMPDIR": str(tmp_path), "PATH": os.environ["PATH"]}
    program = [*AS_STRANGER, sys.executable, "-m", "cachefs", "run"]
    for outcome in (b"miss", b"hit"):
        done = subprocess.run(
            [*program, "--input", "in", "--output", "out", "--explain", "--", "cp", "in", "out"],
            cwd=tmp_path,
            env=environment | ({} if home is None else {"HOME": home}),
            capture_output=True,
            check=True,
        )
        assert done.stderr.startswith(b"cachefs: " + outcome)


def test_files_that_nobody_read_for_long_are_removed(
    nobodys_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = nobodys_home / ".cache" / "cachefs" / "index"
    for name in ("used", "unused"):
        write_checked(b"data", "index", name)
    now = time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + module.UNUSED_FOR / 2)
    assert read_checked("index", "used") == b"data"
    os.utime(top / "used", (now + module.UNUSED_FOR / 2,) * 2)
    monkeypatch.setattr(module.time, "time", lambda: now + module.UNUSED_FOR + 100)
    sweep("index")
    assert sorted(path.name for path in top.iterdir()) == [".swept", "used"]
