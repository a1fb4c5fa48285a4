"""How much layers may hold: the same for those that are extracted and those that are packed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cachefs.errors import LayerError

if TYPE_CHECKING:
    from cachefs.layers.compression import Readable

_GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of an extraction, for all of its layers together, and of a packed layer.

    Attributes:
        max_bytes: bytes of all archives when expanded.
        max_apparent: bytes of all sparse files, with their holes.
        max_entries: files, directories and links, also directories that are only part of a name.
        max_layers: layers on top of each other.
        max_path: bytes of one name, or of a link's target.
        max_depth: components of one name.
        max_ratio: bytes that one byte of a blob may expand to, beyond ``ratio_from``.
        ratio_from: bytes that may be expanded before the ratio is checked.
    """

    max_bytes: int = 64 * _GIB
    max_apparent: int = 1024 * _GIB
    max_entries: int = 2_000_000
    max_layers: int = 1000
    max_path: int = 4096
    max_depth: int = 128
    max_ratio: int = 1000
    ratio_from: int = 4 * _GIB


DEFAULT_LIMITS: Final = Limits()


class Budget:
    """Counts towards the limits. Raises LayerError if one is exceeded.

    Attributes:
        passed: whether a limit was exceeded.
    """

    def __init__(self, limits: Limits, verb: str) -> None:
        self.passed = False
        self._limits = limits
        self._verb = verb
        self._layers = 0
        self._entries = 0
        self._compressed = 0
        self._expanded = 0
        self._apparent = 0

    def compressed(self, count: int) -> None:
        """Count bytes of blobs."""
        self._compressed += count

    def expanded(self, count: int, *, ahead: int = 0) -> None:
        """Count bytes of archives; ``ahead`` more must fit too."""
        limits = self._limits
        self._expanded += count
        most = self._expanded + ahead
        if self._expanded > limits.max_bytes:
            raise self._refused(f"the layers expand to more than {limits.max_bytes} bytes")
        if most > max(limits.ratio_from, self._compressed * limits.max_ratio):
            raise self._refused(
                f"{self._compressed} bytes expand to more than {limits.max_ratio} times as many, "
                "like a decompression bomb"
            )

    def apparent(self, count: int) -> None:
        """Count bytes of a sparse file, with its holes."""
        self._apparent += count
        if self._apparent > self._limits.max_apparent:
            raise self._refused(
                f"the sparse files of the layers have more than {self._limits.max_apparent} bytes"
            )

    def layer(self) -> None:
        """Count a layer."""
        self._layers += 1
        if self._layers > self._limits.max_layers:
            raise self._refused(f"there are more than {self._limits.max_layers} layers")

    def entries(self, count: int) -> None:
        """Count files, directories and links."""
        self._entries += count
        if self._entries > self._limits.max_entries:
            raise self._refused(f"the layers have more than {self._limits.max_entries} entries")

    def member(self, name: bytes, link: bytes) -> None:
        """Count a file, directory or link by its name."""
        limits = self._limits
        self.entries(1)
        if max(len(name), len(link)) > limits.max_path:
            raise self._refused(f"the layer has a name of more than {limits.max_path} bytes")
        if name.count(b"/") + 1 > limits.max_depth and _depth(name) > limits.max_depth:
            raise self._refused(
                f"a name in the layer is deeper than {limits.max_depth} directories"
            )

    def _refused(self, reason: str) -> LayerError:
        self.passed = True
        return LayerError(f"{reason}; it is not {self._verb}")


def _depth(name: bytes) -> int:
    return sum(part not in (b"", b".") for part in name.split(b"/"))


class Counted:
    """A stream that counts what is read towards the budget."""

    def __init__(self, stream: Readable, budget: Budget) -> None:
        self._stream = stream
        self._budget = budget

    def read(self, size: int) -> bytes:
        """The next bytes of the stream."""
        data = self._stream.read(size)
        self._budget.compressed(len(data))
        return data
