"""The keys of steps and of contents.

Each is the SHA-256 digest of a MessagePack value whose first item says what the key is for. Values
are encoded with their types and lengths, so that no two have the same encoding. Names are the bytes
that the operating system uses, so that every name has a key.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from cachefs.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Sequence

_encoder: Final = msgspec.msgpack.Encoder()


class Entry(Struct, array_like=True, frozen=True, gc=False):
    """An entry of a tree.

    ``kind`` is ``f`` (file), ``x`` (file that its owner may execute), ``l`` (symbolic link) or
    ``d`` (directory); ``value`` is the content's SHA-256, the target of the link, or empty.
    """

    kind: str
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """Everything a step's result depends on, except the contents of its inputs.

    Attributes:
        action: the kind of action, and what identifies it.
        inputs: the names at which inputs are laid out.
        outputs: the paths and patterns that are collected.
        optional: more of them, which need not be there.
        environment: variables by name; None if one is not set.
        platform: the system and machine, or empty if they do not matter.
    """

    action: tuple[bytes, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    environment: Mapping[str, str | None]
    platform: str = ""
    optional: tuple[str, ...] = ()

    def digest(self) -> Digest:
        """The vertex digest; the order of inputs, outputs and variables does not matter."""
        return _digest(
            "cachefs step 1",
            self.action,
            sorted(map(os.fsencode, self.inputs)),
            sorted([*map(os.fsencode, self.outputs), *map(_optional, self.optional)]),
            sorted(
                (os.fsencode(name), None if value is None else os.fsencode(value))
                for name, value in self.environment.items()
            ),
            self.platform,
        )


def tree_digest(entries: Mapping[bytes, Entry]) -> Digest:
    """The digest of a tree, or of a single file, which has the empty name."""
    return _digest("cachefs tree 1", sorted((n, e.kind, e.value) for n, e in entries.items()))


def content_key(content: str) -> Digest:
    """The digest of the root record for a content; ``content`` is a tree's digest or a diffID."""
    return _digest("cachefs content 1", str(content))


def selector(path: str) -> str:
    """The selector of the part of an input that is used; empty for all of it."""
    return str(_digest("cachefs selector 1", os.fsencode(path))) if path else ""


def platform() -> str:
    """This system and machine, such as ``linux/x86_64``."""
    system = os.uname()
    return f"{system.sysname.lower()}/{system.machine}"


def environment(names: Sequence[str] | Mapping[str, str | None]) -> dict[str, str | None]:
    """Variables by name: a mapping's values, or those of this process (None if not set)."""
    if isinstance(names, Mapping):
        return dict(names)
    return {name: os.environ.get(name) for name in names}


def _optional(output: str) -> bytes:
    """Marked by a character that no path has."""
    return b"\0optional " + os.fsencode(output)


def _digest(*value: Any) -> Digest:
    return Digest.of(_encoder.encode(value))
