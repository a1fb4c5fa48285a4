"""Directory trees for tests: as values, on disk, and as Hypothesis strategies."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st


class File(NamedTuple):
    data: bytes
    executable: bool = False


class Link(NamedTuple):
    target: str


Tree = dict[str, "File | Link | Tree"]


def write(root: Path, tree: Tree) -> Path:
    """The tree on disk; the root is made."""
    root.mkdir()
    for name, node in tree.items():
        path = root / name
        if isinstance(node, dict):
            write(path, node)
        elif isinstance(node, Link):
            path.symlink_to(node.target)
        else:
            path.write_bytes(node.data)
            path.chmod(0o755 if node.executable else 0o644)
    return root


def read(root: Path) -> Tree:
    """What is on disk, as a tree."""
    tree: Tree = {}
    for path in root.iterdir():
        name = path.name
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            tree[name] = read(path)
        elif stat.S_ISLNK(status.st_mode):
            tree[name] = Link(os.readlink(path))  # noqa: PTH115 - pathlib would tidy it up
        else:
            assert stat.S_ISREG(status.st_mode), path
            tree[name] = File(path.read_bytes(), bool(status.st_mode & stat.S_IXUSR))
    return tree


def _is_name(name: str) -> bool:
    raw = os.fsencode(name)
    fits = 0 < len(raw) <= 255 and not raw.startswith(b".wh.")
    return fits and raw not in (b".", b"..") and b"/" not in raw and b"\0" not in raw


_characters = st.characters(exclude_categories=["Cs"], exclude_characters="/\0")
names = (
    st.text(_characters, min_size=1, max_size=12)
    | st.sampled_from(["a", "b", "a b", "a\nb", "-", "ä", "a" * 101, "ü" * 127, "CON", "a\\b"])
    | st.binary(min_size=1, max_size=6).map(os.fsdecode)
).filter(_is_name)
files = st.builds(File, st.binary(max_size=1500), st.booleans())
links = st.builds(
    Link,
    st.sampled_from([".", "..", "/", "/etc/passwd", "a", "../../a", "x" * 150, "ö"])
    | st.text(_characters, min_size=1, max_size=20),
)
trees: st.SearchStrategy[Tree] = st.recursive(
    st.dictionaries(names, files | links, max_size=4),
    lambda below: st.dictionaries(names, files | links | below, max_size=4),
    max_leaves=6,
)
