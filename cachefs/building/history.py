"""The parts of each step's key at its last run, kept on this machine to explain misses.

Each step has one small file in the user's cache directory, readable by its owner only. Values of
variables are kept as keyed hashes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import msgspec
import xxhash
from msgspec import Struct

from cachefs.user_directory import read_checked, sweep, write_checked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cachefs.keying.keys import Definition, Entry

_SHOWN: Final = 5
_NO_RUN: Final = "no earlier run is known on this machine"


class Parts(Struct):
    """The parts of a key, and the files of inputs that are sources."""

    parts: dict[str, str]
    files: dict[str, dict[bytes, bytes]] = {}


_decoder: Final = msgspec.msgpack.Decoder(Parts)
_encoder: Final = msgspec.msgpack.Encoder()


def take_apart(
    definition: Definition,
    inputs: Mapping[str, str],
    files: Mapping[str, Mapping[bytes, Entry]],
) -> Parts:
    """The parts of a step's key.

    Args:
        definition: the step.
        inputs: the digest of each input's content.
        files: the entries of inputs that are sources.
    """
    kind, *words = definition.action
    parts = {
        "the way it runs (--incremental)": _hashed(repr(kind)),
        "the command or function": _hashed(repr(words)),
        "the declared outputs": repr((sorted(definition.outputs), sorted(definition.optional))),
        "the platform": definition.platform,
    }
    for name, value in definition.environment.items():
        parts[f"environment variable {name}"] = "" if value is None else _hashed(value)
    parts |= {f"input {name}": str(content) for name, content in inputs.items()}
    named = {
        f"input {name}": {key: entry.kind.encode() + entry.value for key, entry in tree.items()}
        for name, tree in files.items()
    }
    return Parts(parts, named)


def _hashed(value: str) -> str:
    return xxhash.xxh3_128_hexdigest(value.encode(errors="surrogateescape"), seed=_seed())


def _seed() -> int:
    """A random number, so that the hash of a short secret reveals nothing on other machines."""
    raw = read_checked("seed")
    if raw is None:
        raw = os.urandom(8)
        write_checked(raw, "seed")
    return int.from_bytes(raw, "big")


class History:
    """The parts of one step's key at its last run.

    Args:
        label: identifies the step on this machine, however its key changes.
    """

    def __init__(self, label: str) -> None:
        name = xxhash.xxh3_128_hexdigest(label.encode(errors="surrogateescape"))
        self._name = name

    def explain(self, now: Parts) -> list[str]:
        """Why the key differs from the last run: one line for each part that differs."""
        before = self._read()
        if before is None:
            return [_NO_RUN]
        lines = list(_differences(before, now))
        return lines or [
            "nothing differs from the last run here, but its result is not in the cache"
        ]

    def keep(self, now: Parts) -> None:
        """Keep the parts of this run, if they differ from the last."""
        if self._read() != now:
            sweep("history")
            write_checked(_encoder.encode(now), "history", self._name)

    def _read(self) -> Parts | None:
        data = read_checked("history", self._name)
        try:
            return _decoder.decode(data) if data else None
        except msgspec.DecodeError:
            return None


def _differences(before: Parts, now: Parts) -> Iterator[str]:
    for part in sorted(before.parts.keys() | now.parts.keys()):
        if part not in before.parts:
            yield f"{part} is new"
        elif part not in now.parts:
            yield f"{part} was removed"
        elif before.parts[part] != now.parts[part]:
            old, new = before.files.get(part), now.files.get(part)
            detail = changed_files(old or {}, new or {})
            yield f"{part} changed{': ' if detail else ''}{detail}"


def changed_files(old: Mapping[bytes, object], new: Mapping[bytes, object]) -> str:
    """The first few names whose values differ, each with what happened to it."""
    changes = [
        f"{_named(name)} {_change(old.get(name), new.get(name))}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    more = len(changes) - _SHOWN
    return ", ".join(changes[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _named(name: bytes) -> str:
    return name.decode(errors="backslashreplace") or "its content"


def _change(old: object, new: object) -> str:
    if old is None:
        return "added"
    if new is None:
        return "removed"
    return "changed"
