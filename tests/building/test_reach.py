"""Nothing that a result, an output or an input leads to is reached outside of its directory."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

import cachefs
from cachefs import CacheError
from cachefs.layers.compression import decompressed
from cachefs.running.command import UserCommand, run_cached
from cachefs.running.policy import Policy
from tests import trees
from tests.poisoning import archive, poison
from tests.trees import File, Link, Tree

SECRET = b"never to be read by anyone"
FOREIGN: Tree = {
    "a": File(SECRET + b" 1"),
    "b": {"c": File(SECRET + b" 2"), "a": {"b": File(SECRET + b" 3")}},
    "c": {},
}
OLD = 1_500_000_000_000_000_000

names = st.sampled_from(["a", "b", "c"])
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
# "@" stands for the foreign directory; wherever a link is, one of the relative ones leads there.
links = st.builds(
    Link,
    st.sampled_from(["@", "@/b", "@/a", "@/b/a", ".", "..", "a", "b", "c", "b/..", "../a", "/"])
    | st.integers(1, 6).map(lambda up: "../" * up + "foreign"),
)
nodes: st.SearchStrategy[Any] = st.recursive(
    st.just(File(b"harmless")) | links,
    lambda below: st.dictionaries(names, below, max_size=3),
    max_leaves=5,
)
a_tree: st.SearchStrategy[Tree] = st.dictionaries(names, nodes | links, min_size=1, max_size=3)


def _aimed(tree: Tree, foreign: Path) -> Tree:
    def aim(node: Any) -> Any:
        if isinstance(node, dict):
            return _aimed(node, foreign)
        return Link(node.target.replace("@", str(foreign))) if isinstance(node, Link) else node

    return {name: aim(node) for name, node in tree.items()}


class World:
    """A directory with a foreign one in it, which is watched."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.foreign = trees.write(base / "foreign", FOREIGN)
        self._names = [self.foreign, *sorted(self.foreign.rglob("*"))]
        for path in reversed(self._names):
            # Where a disk keeps times of reading, a time before that of writing is renewed.
            os.utime(path, ns=(OLD - 10**12, OLD))
        self._before = self._state()

    def _state(self) -> list[object]:
        """All that the system tells about the foreign tree, without reading it."""
        return [(path, *_facts(path.lstat())) for path in self._names]

    def check(self, cache: Path, *places: Path) -> None:
        """Nothing foreign was changed or read, and none of it is in the cache or the places."""
        assert self._state() == self._before
        assert trees.read(self.foreign) == FOREIGN
        for blob in (cache / "blobs").glob("*"):
            with blob.open("rb") as file:
                assert SECRET not in b"".join(decompressed(file, ""))
        for place in places:
            for folder, _, files in os.walk(place):
                for name in files:
                    path = Path(folder, name)
                    if stat.S_ISREG(path.lstat().st_mode):
                        assert SECRET not in path.read_bytes()

    def tree(self, tree: Tree) -> Tree:
        """The tree, with its links aimed at the foreign directory."""
        return _aimed(tree, self.foreign)


def _facts(status: os.stat_result) -> tuple[int, ...]:
    return (
        status.st_mode,
        status.st_ino,
        status.st_nlink,
        status.st_size,
        status.st_atime_ns,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


@contextlib.contextmanager
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory() as base:
        yield World(Path(base).resolve())


def _apart(outputs: list[str]) -> list[str]:
    """Those that are not below others."""
    chosen: list[str] = []
    for path in sorted(set(outputs)):
        if not any(path.startswith(f"{other}/") for other in chosen):
            chosen.append(path)
    return chosen


outputs_of = st.lists(paths, min_size=1, max_size=2).map(_apart)


# --- cachefs run --------------------------------------------------------------------------------

MAKE = 'test -e ../later || for o in "$@"; do mkdir -p "$(dirname "$o")"; echo good > "$o"; done'


def _run(place: Path, cache: Path, outputs: list[str], **how: Any) -> None:
    action = UserCommand(["sh", "-c", MAKE, "sh", *outputs], place, lambda *_: None, **how)
    run_cached(
        action,
        policy=Policy(cache=(str(cache),), name="run"),
        inputs=["input"],
        outputs=outputs,
        variables=[],
        replay=lambda *_: None,
    )


@given(poisoned=a_tree, there=a_tree, outputs=outputs_of)
@example(poisoned={"a": Link("@")}, there={}, outputs=["a/b/c"])
@example(poisoned={"a": {"b": Link("@")}}, there={}, outputs=["a/b/a", "a/b/b"])
@example(poisoned={"a": {"b": File(b"x")}}, there={"a": Link("@")}, outputs=["a/b"])
def test_a_restore_stays_in_the_workspace(poisoned: Tree, there: Tree, outputs: list[str]) -> None:
    with world() as around:
        place, cache = around.base / "place", around.base / "cache"
        trees.write(place, {"input": File(b"1")})
        _run(place, cache, outputs)
        poison(cache, archive(around.tree(poisoned)))
        shutil.rmtree(place)
        trees.write(place, {"input": File(b"1"), **around.tree(there)})
        (around.base / "later").touch()
        _run(place, cache, outputs)
        around.check(cache, place)


@given(there=a_tree, outputs=outputs_of, incremental=st.booleans())
@example(there={"a": Link("@")}, outputs=["a/b"], incremental=True)
@example(there={"a": Link("@")}, outputs=["a"], incremental=False)
def test_what_a_run_keeps_was_in_the_workspace(
    there: Tree, outputs: list[str], incremental: bool
) -> None:
    with world() as around:
        place, cache = around.base / "place", around.base / "cache"
        trees.write(place, {"input": File(b"1"), **around.tree(there)})
        (around.base / "later").touch()
        _run(place, cache, outputs, **({"incremental": True} if incremental else {}))
        around.check(cache, place)


# --- Build --------------------------------------------------------------------------------------


def _pass_on(directory: Path) -> None:
    (directory / "in").rename(directory / "out")


def _build(
    world: World, made: Tree, path: str, outputs: list[str], version: str, target: Path
) -> None:
    """A step makes a tree, and another passes a part of it on."""

    def make(directory: Path) -> None:
        for name, node in made.items():
            trees.write(directory / "wrapped", {name: node})
            (directory / "wrapped" / name).rename(directory / name)
            (directory / "wrapped").rmdir()

    with cachefs.Build(cache_to=str(world.base / "cache"), mode="max") as build:
        first = build.step(make, outputs=outputs, version="1")
        second = build.step(_pass_on, inputs={"in": first / path}, outputs=["out"], version=version)
        for ask in (first.files, lambda: first.restore(target), second.files):
            with contextlib.suppress(CacheError, OSError):
                ask()
        with contextlib.suppress(CacheError, OSError):
            build.obtain()


@given(made=a_tree, there=a_tree, path=paths, outputs=outputs_of)
@example(made={"a": {"b": Link("@")}}, there={}, path="a/b/b", outputs=["a"])
@example(made={"a": {"b": Link("@/a")}}, there={}, path="a/b", outputs=["a"])
@example(made={"a": Link("@")}, there={}, path="a", outputs=["a/b"])
def test_a_build_stays_in_its_directories(
    made: Tree, there: Tree, path: str, outputs: list[str]
) -> None:
    with world() as around:
        target = trees.write(around.base / "target", around.tree(there))
        with contextlib.suppress(CacheError):
            _build(around, around.tree(made), path, outputs, "1", target)
        around.check(around.base / "cache", target)


@given(poisoned=a_tree, path=paths, outputs=outputs_of)
@example(poisoned={"a": {"b": Link("@")}}, path="a/b/c", outputs=["a"])
@example(poisoned={"a": Link("@")}, path="a/b", outputs=["a"])
def test_a_poisoned_build_stays_in_its_directories(
    poisoned: Tree, path: str, outputs: list[str]
) -> None:
    honest: Tree = {}
    for output in sorted([*outputs, path], key=len, reverse=True):
        below = honest
        *above, name = output.split("/")
        for part in above:
            found = below.setdefault(part, {})
            below = found if isinstance(found, dict) else {}
        below.setdefault(name, File(b"honest"))
    with world() as around:
        target = trees.write(around.base / "target", {})
        with contextlib.suppress(CacheError):
            _build(around, honest, path, outputs, "1", target)
        if (around.base / "cache" / "manifests").exists():
            poison(around.base / "cache", archive(around.tree(poisoned)))
        with contextlib.suppress(CacheError):
            _build(around, honest, path, outputs, "2", target)
        around.check(around.base / "cache", target)
