"""What is known of layers without extracting them is what an extraction makes of them."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefs.digest import Digest
from cachefs.errors import IntegrityError, LayerError
from cachefs.layers import indexing
from cachefs.layers.extracting import LayerSource, extract_chain
from cachefs.layers.indexing import BLOCK, LayerIndex, decoded, index_layer
from cachefs.layers.limits import Limits
from cachefs.layers.tree import Node, below, merged
from tests.layers.test_hostile import DIRECTORY, FILE, HARD_LINK, SYMLINK, member

PATHS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map("/".join)
WHITEOUTS = st.builds(
    lambda above, name: f"{above}/{name}",
    PATHS,
    st.sampled_from([".wh.a", ".wh.b", ".wh..wh..opq"]),
)
MEMBERS = st.one_of(
    st.builds(lambda name, data: member(name, FILE, data=data), PATHS, st.binary(max_size=600)),
    st.builds(lambda name: member(name, DIRECTORY), PATHS),
    st.builds(lambda name, link: member(name, SYMLINK, link), PATHS, PATHS),
    st.builds(lambda name, link: member(name, HARD_LINK, link), PATHS, PATHS),
    st.builds(lambda name: member(name, FILE), WHITEOUTS),
    st.just(member(".wh.a")),
    st.just(member(".wh..wh..opq")),
    st.just(member("../a")),
)
ARCHIVES = st.lists(MEMBERS, max_size=8).map(b"".join)


def index(raw: bytes, blob: bytes | None = None, limits: Limits | None = None) -> LayerIndex:
    return index_layer(
        io.BytesIO(raw if blob is None else blob),
        media_type="",
        diff_id=Digest.of(raw),
        limits=limits or Limits(),
    )


def on_disk(root: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in root.rglob("*"):
        status = path.lstat()
        name, mode = str(path.relative_to(root)), stat.S_IMODE(status.st_mode)
        if stat.S_ISDIR(status.st_mode):
            found[name] = ("directory", mode)
        elif stat.S_ISLNK(status.st_mode):
            found[name] = ("link", os.readlink(path))  # noqa: PTH115 - pathlib would tidy it up
        else:
            found[name] = ("file", mode, path.read_bytes())
    return found


def in_memory(root: Node, raws: list[bytes]) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path, node in below(root):
        name = b"/".join(path).decode()
        if node.kind == "directory":
            found[name] = ("directory", node.mode)
        elif node.kind == "link":
            found[name] = ("link", node.target.decode())
        else:
            offset, length = node.stored
            assert length == node.size
            found[name] = ("file", node.mode, raws[node.layer][offset : offset + length])
    return found


@given(st.lists(ARCHIVES, min_size=1, max_size=4))
def test_the_tree_is_what_an_extraction_makes(raws: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as base:
        try:
            extract_chain(
                [LayerSource(io.BytesIO(raw), "", Digest.of(raw)) for raw in raws],
                Path(base, "out"),
            )
        except LayerError:
            with pytest.raises(LayerError):
                merged([index(raw) for raw in raws])
            return
        root, _ = merged([index(raw) for raw in raws])
        assert in_memory(root, raws) == on_disk(Path(base, "out"))


def test_the_whiteouts_of_the_last_layer_are_told() -> None:
    lower = member("d/x") + member("y")
    upper = member("d/.wh.x") + member("e/.wh..wh..opq") + member("e/.wh..wh.plnk")
    root, removals = merged([index(lower), index(upper)])
    assert [path for path, _ in below(root)] == [(b"d",), (b"y",)]
    assert removals == [(b"d/x", False), (b"e", True)]


def test_an_index_is_the_same_after_it_was_kept() -> None:
    raw = member("a", data=b"x" * 3_000_000) + member("b", SYMLINK, "a")
    made = index(raw)
    assert decoded(made.encoded()) == made
    assert decoded(b"\x93\x01") is None
    assert decoded(b"{}") is None


def test_a_block_that_was_changed_is_noticed() -> None:
    raw = member("a", data=os.urandom(3 * BLOCK + 5))
    made = index(raw, gzip.compress(raw))
    blocks = [raw[start : start + BLOCK] for start in range(0, len(raw), BLOCK)]
    for number, block in enumerate(blocks):
        made.check(number, block)
        with pytest.raises(IntegrityError):
            made.check(number, bytes([block[0] ^ 1]) + block[1:])
    with pytest.raises(IntegrityError):
        made.check(len(blocks), b"")


def test_bytes_of_another_layer_are_not_indexed() -> None:
    with pytest.raises(IntegrityError, match="damaged"):
        index_layer(io.BytesIO(member("a")), media_type="", diff_id=Digest.of(b"other"))
    with pytest.raises(IntegrityError, match="damaged"):
        index_layer(io.BytesIO(b"x" * 512), media_type="", diff_id=Digest.of(b"other"))
    with pytest.raises(LayerError, match="not a tar archive"):
        index(b"x" * 512)


def test_limits_hold_for_an_index_too(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = b"".join(member(f"{number}") for number in range(20))
    with pytest.raises(LayerError, match="more than 10 entries"):
        index(raw, limits=Limits(max_entries=10))
    with pytest.raises(LayerError, match="expand"):
        index(raw, gzip.compress(raw), limits=Limits(max_bytes=1000))
    with pytest.raises(LayerError, match="layers"):
        merged([index(b"")] * 3, Limits(max_layers=2))
    with pytest.raises(LayerError, match="more than 10 entries"):
        merged([index(member(f"{n}")) for n in range(11)], Limits(max_entries=10))
    monkeypatch.setattr(indexing, "MOST_NAMES", 20)
    with pytest.raises(LayerError, match="names"):
        index(raw)
