"""Whether the outputs of a result lie where they belong already, so that a hit changes nothing."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from cachefs.building.outputs import matches
from cachefs.building.restoring import put_in_place
from cachefs.layers.beneath import Beneath, split
from cachefs.layers.listing import DIRECTORY, FILE, HARD_LINK, SYMLINK, Listed, kept_mode
from cachefs.layers.sparse import hash_stored
from cachefs.user_cache.index import DigestIndex, as_seen, clock
from cachefs.user_cache.listings import kept_listing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from cachefs.building.restoring import Move
    from cachefs.layers.beneath import Parts

    Found = dict[bytes, os.stat_result]

_BATCH: Final = 64


def is_in_place(diff_id: str, directory: Path, outputs: Iterable[str]) -> bool:
    """Whether a result is known here, and is what lies at the outputs in a directory."""
    members = kept_listing(diff_id)
    return members is not None and are_in_place(directory, outputs, members)


def put_and_note(
    moves: Iterable[Move], diff_id: str, directory: Path, outputs: Iterable[str]
) -> None:
    """Put a result in place, and keep the digests of its files. Raises as :func:`put_in_place`."""
    since = clock()
    put_in_place(moves)
    if members := kept_listing(diff_id):
        note(directory, outputs, members, since)


def are_in_place(directory: Path, outputs: Iterable[str], members: Mapping[bytes, Listed]) -> bool:
    """Whether the outputs in a directory are exactly these: contents, permissions and links.

    A file that the digest index knows costs one stat; others are read. Raises nothing: what cannot
    be read is not in place.
    """
    outputs = tuple(outputs)
    with suppress(OSError), Beneath.at(directory) as tree:
        found, tops = _found(tree, outputs)
        if not _same_names(found, tops, members):
            return False
        index = _index(directory, outputs)
        unknown = []
        for name, status in found.items():
            listed = members[name]
            if not _looks_same(tree, name, status, listed, found):
                return False
            if listed.kind == FILE:
                digest = index.get(name, status)
                if digest is None:
                    unknown.append(name)
                elif digest != listed.value:
                    return False
        same = _same_contents(tree, unknown, members, index)
        index.save()
        return same
    return False


def note(
    directory: Path, outputs: Iterable[str], members: Mapping[bytes, Listed], since: int
) -> None:
    """Keep the digests of files that this program has read, or put in place, itself.

    Args:
        directory: the directory with the outputs.
        outputs: the outputs.
        members: their digests.
        since: a :func:`clock` time from which on the files had these contents. Those that have
            changed since, or just before, are not kept.
    """
    outputs = tuple(outputs)
    with suppress(OSError), Beneath.at(directory) as tree:
        index = _index(directory, outputs)
        for name, status in _found(tree, outputs)[0].items():
            listed = members.get(name)
            if listed is not None and listed.kind == FILE and stat.S_ISREG(status.st_mode):
                index.remember(name, status, listed.value, since)
        index.save()


def _index(directory: Path, outputs: tuple[str, ...]) -> DigestIndex:
    return DigestIndex(directory, ("\0outputs", *sorted(outputs)))


def _found(tree: Beneath, outputs: Iterable[str]) -> tuple[Found, set[bytes]]:
    """What is at outputs and below them, with its status, and the paths of the outputs."""
    found: Found = {}
    tops = set()
    for path in (path for output in outputs for path in matches(tree, output)):
        status = tree.status(path)
        tops.add(_name(path))
        found[_name(path)] = status
        if stat.S_ISDIR(status.st_mode):
            found.update((_name(name), below) for name, below in tree.below(path))
    return found, tops


def _name(path: Parts) -> bytes:
    return b"/".join(path)


def _same_names(
    found: Mapping[bytes, object], tops: Iterable[bytes], members: Mapping[bytes, Listed]
) -> bool:
    """Whether the members are what was found, and directories that lead there."""
    leading = {above for top in tops for above in _above(top)}
    return found.keys() <= members.keys() and all(
        name in found or (name in leading and listed.kind == DIRECTORY)
        for name, listed in members.items()
    )


def _above(name: bytes) -> Iterator[bytes]:
    while name := name.rpartition(b"/")[0]:
        yield name


def _looks_same(
    tree: Beneath, name: bytes, status: os.stat_result, listed: Listed, found: Found
) -> bool:
    """Compare everything except the contents of files."""
    mode = status.st_mode
    if listed.kind == SYMLINK:
        return stat.S_ISLNK(mode) and tree.link(split(name)) == listed.value
    if listed.kind == DIRECTORY:
        return stat.S_ISDIR(mode) and kept_mode(mode, DIRECTORY) == listed.mode
    if listed.kind == HARD_LINK:
        return stat.S_ISREG(mode) and _same_file(status, found.get(listed.value))
    same_mode = stat.S_ISREG(mode) and kept_mode(mode, FILE) == listed.mode
    return same_mode and status.st_size == listed.size


def _same_file(one: os.stat_result, other: os.stat_result | None) -> bool:
    return other is not None and os.path.samestat(one, other)


def _same_contents(
    tree: Beneath, names: list[bytes], members: Mapping[bytes, Listed], index: DigestIndex
) -> bool:
    """Read files, on all cores, until one differs."""

    def same(batch: list[bytes]) -> bool:
        with Beneath(tree.descriptor) as beneath:
            return all(_same_content(beneath, name, members[name].value, index) for name in batch)

    batches = [names[start : start + _BATCH] for start in range(0, len(names), _BATCH)]
    if len(batches) <= 1:
        return all(map(same, batches))
    with ThreadPoolExecutor(os.cpu_count() or 1, "cachefs-hash") as pool:
        try:
            return all(pool.map(same, batches))
        finally:
            pool.shutdown(cancel_futures=True)


def _same_content(tree: Beneath, name: bytes, digest: bytes, index: DigestIndex) -> bool:
    read_at = clock()
    descriptor = tree.open_file(split(name))
    try:
        before = os.fstat(descriptor)
        found = hash_stored(descriptor, before.st_size)
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if as_seen(before, found) != as_seen(after, found):
        return False
    index.remember(name, after, found, read_at)
    return found == digest
