"""A hit whose outputs lie where they belong changes nothing and fetches nothing."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cachefs
from cachefs.building import in_place as checking
from cachefs.keying import sources
from cachefs.layers.beneath import Beneath, Parts
from tests import trees
from tests.running.in_place import run
from tests.servers.proxy import RecordingProxy
from tests.servers.s3 import S3Server
from tests.trees import File

SCRIPT = (
    "echo said; mkdir -p out/sub out/empty; for i in 1 2 3; do echo $i > out/sub/$i; done; "
    "ln -s sub/1 out/link; ln out/sub/2 out/hard; chmod 600 out/sub/1; chmod 700 out/empty; "
    "truncate -s 1M out/hole; echo single > single; touch -d '1 hour ago' out/sub/* out/hole single"
)
FILES = 6
BELOW_OUT = 8


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return trees.write(tmp_path / "place", {"in": File(b"1")})


def _state(place: Path) -> dict[str, tuple[int, ...]]:
    """What shows whether anything was written or replaced."""
    return {
        str(path): (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_mode)
        for path in sorted(place.rglob("*"))
        if (status := path.lstat())
    }


class _Entry:
    def __init__(self, entry: os.DirEntry[str], counts: Counter[str]) -> None:
        self.name = entry.name
        self._entry = entry
        self._counts = counts

    def stat(self, *, follow_symlinks: bool) -> os.stat_result:
        self._counts["stat"] += 1
        return self._entry.stat(follow_symlinks=follow_symlinks)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts the stats of what is below outputs, and the files that are hashed."""
    counted: Counter[str] = Counter()
    entries, hash_stored = Beneath.entries, checking.hash_stored

    def counting(self: Beneath, path: Parts) -> list[Any]:
        return [_Entry(entry, counted) for entry in entries(self, path)]

    def hashing(descriptor: int, size: int) -> bytes:
        counted["hash"] += 1
        return hash_stored(descriptor, size)

    monkeypatch.setattr(Beneath, "entries", counting)
    monkeypatch.setattr(checking, "hash_stored", hashing)
    return counted


def test_a_hit_in_place_costs_a_stat_a_file_and_one_look_at_the_cache(
    place: Path,
    moto_s3: S3Server,
    recording: Callable[[S3Server], RecordingProxy],
    counts: Counter[str],
) -> None:
    proxy = recording(moto_s3)
    cache = proxy.server.attributes(proxy.server.bucket())
    assert run(place, SCRIPT, "out", "single", cache=cache).outcome == "ran"
    for _ in range(2):  # what was written just before it was packed is read once
        state = _state(place)
        counts.clear()
        proxy.clear()
        hit = run(place, SCRIPT, "out", "single", cache=cache)
        assert (hit.outcome, hit.said, hit.report.fetched) == ("hit", b"said\n", 0)
        assert _state(place) == state
    assert counts == Counter(stat=BELOW_OUT)
    assert len(proxy.requests) == 1, proxy.requests


def test_unchanged_inputs_cost_a_stat_each_and_are_not_read(
    place: Path, counts: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {str(n): File(b"%d" % n) for n in range(30)}
    trees.write(place / "src", {str(n): dict(files) for n in range(7)})
    time.sleep(0.1)  # longer than a tick of the clock of files
    run(place, SCRIPT, "out", "single", inputs=("src",))
    time.sleep(0.1)  # the same for the outputs
    read: list[object] = []
    monkeypatch.setattr(sources, "_hash_file", lambda *about: read.append(about))
    for _ in range(2):
        counts.clear()
        assert run(place, SCRIPT, "out", "single", inputs=("src",)).outcome == "hit"
    assert counts == Counter(stat=BELOW_OUT + 7 * (1 + 30))
    assert not read


def test_a_hit_that_was_restored_is_in_place(place: Path, counts: Counter[str]) -> None:
    run(place, SCRIPT, "out", "single")
    (place / "single").unlink()
    restored = run(place, SCRIPT, "out", "single")
    assert restored.outcome == "hit"
    assert restored.report.fetched
    time.sleep(0.1)  # longer than a tick of the clock of files
    for hashed in (FILES, 0):
        counts.clear()
        state = _state(place)
        again = run(place, SCRIPT, "out", "single")
        assert (again.outcome, again.said, again.report.fetched) == ("hit", b"said\n", 0)
        assert _state(place) == state
        assert counts["hash"] <= hashed


def test_outputs_of_the_same_content_stay_whoever_made_them(place: Path) -> None:
    run(place, SCRIPT, "out", "single")
    (place / "single").unlink()
    (place / "single").write_text("single\n")
    state = _state(place)
    assert run(place, SCRIPT, "out", "single").report.fetched == 0
    assert _state(place) == state


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda out: (out / "sub" / "1").write_text("x\n"),
    "longer": lambda out: (out / "sub" / "1").write_text("longer\n"),
    "permissions": lambda out: (out / "sub" / "1").chmod(0o644),
    "permissions of a directory": lambda out: (out / "empty").chmod(0o755),
    "one more": lambda out: (out / "more").touch(),
    "one more directory": lambda out: (out / "more").mkdir(),
    "missing": lambda out: (out / "sub" / "3").unlink(),
    "missing directory": lambda out: (out / "empty").rmdir(),
    "other link": lambda out: ((out / "link").unlink(), (out / "link").symlink_to("sub/2")),
    "file for a link": lambda out: ((out / "link").unlink(), (out / "link").write_text("1\n")),
    "no hard link": lambda out: ((out / "hard").unlink(), (out / "hard").write_text("2\n")),
    "pipe": lambda out: ((out / "sub" / "3").unlink(), os.mkfifo(out / "sub" / "3")),
    "same size and time": lambda out: _rewrite(out / "sub" / "1", "9\n"),
    "hole with data": lambda out: _rewrite(out / "hole", "1" + "\0" * ((1 << 20) - 1)),
}


def _rewrite(path: Path, text: str) -> None:
    status = path.stat()
    path.write_text(text)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", CHANGES)
def test_what_differs_is_restored(place: Path, change: str) -> None:
    run(place, SCRIPT, "out", "single")
    good = trees.read(place)
    modes = {path: value[3] for path, value in _state(place).items()}
    run(place, SCRIPT, "out", "single")
    CHANGES[change](place / "out")
    again = run(place, SCRIPT, "out", "single")
    assert (again.outcome, again.said) == ("hit", b"said\n")
    assert again.report.fetched
    assert trees.read(place) == good
    assert {path: value[3] for path, value in _state(place).items()} == modes
    assert (place / "out" / "hard").samefile(place / "out" / "sub" / "2")
    assert (place / "out" / "hole").stat().st_blocks == 0


def test_without_the_log_only_the_log_is_fetched(place: Path, tmp_path: Path) -> None:
    script = "head -c 3000000 /dev/zero | tr '\\0' x; echo x > out"
    ran = run(place, script, "out")
    state = _state(place)
    hit = run(place, script, "out")
    assert hit.outcome == "hit"
    assert hit.said == ran.said
    assert 0 < hit.report.fetched < 3000
    assert _state(place) == state


def test_a_damaged_listing_is_a_download(place: Path, tmp_path: Path) -> None:
    run(place, SCRIPT, "out", "single")
    results = Path(os.environ["XDG_CACHE_HOME"]) / "cachefs" / "results"
    for path in results.iterdir():
        path.write_bytes(b"damaged")
    hit = run(place, SCRIPT, "out", "single")
    assert (hit.outcome, hit.said) == ("hit", b"said\n")
    assert hit.report.fetched


def test_a_command_without_outputs_fetches_nothing(place: Path) -> None:
    run(place, "echo said")
    hit = run(place, "echo said")
    assert (hit.outcome, hit.said, hit.report.fetched) == ("hit", b"said\n", 0)


def test_make_has_nothing_to_do_after_a_hit(place: Path) -> None:
    (place / "Makefile").write_text("all: made\n\tcat made\nmade: out\n\tcp out made\n")
    run(place, "cp in out", "out", inputs=("in",))
    assert b"cp out made" in run(place, "make").said
    run(place, "cp in out", "out", inputs=("in",))
    assert b"cp out made" not in run(place, "make all").said


def test_a_restored_step_leaves_what_is_right_alone(tmp_path: Path) -> None:
    def build() -> cachefs.Build:
        with cachefs.Build(cache_to=str(tmp_path / "cache")) as build:
            step = build.step(["sh", "-c", "mkdir out; echo x > out/file"], outputs=["out"])
            step.restore(tmp_path / "place")
        return build

    build()
    state = _state(tmp_path / "place")
    assert build().report.steps[0].fetched == 0
    assert _state(tmp_path / "place") == state
    (tmp_path / "place" / "out" / "file").write_text("y\n")
    build()
    assert (tmp_path / "place" / "out" / "file").read_text() == "x\n"
