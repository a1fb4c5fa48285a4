"""Workloads: sets of random blobs as files, and manifests."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cachefs import Digest, Key, RecordGraph
from cachefs.wire import codec
from cachefs.wire.timestamps import from_nanoseconds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB


def amount(size: int) -> str:
    """A number of bytes in the largest unit that divides it."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


@dataclass(frozen=True)
class Workload:
    """A number of blobs of one size in bytes."""

    blobs: int
    size: int

    def __str__(self) -> str:
        return f"{self.blobs} x {amount(self.size)}"

    @property
    def bytes(self) -> int:
        """Total bytes of the blobs."""
        return self.blobs * self.size

    def write(self, folder: Path) -> None:
        """Write the blobs into files named by digest."""
        folder.mkdir(parents=True)
        numbers = random.Random(self.bytes)
        for _ in range(self.blobs):
            # A block is repeated: no tool here compresses or deduplicates.
            part = numbers.randbytes(min(self.size, MIB))
            hashed = hashlib.sha256()
            with (folder / "part").open("wb") as file:
                for _ in range(self.size // len(part)):
                    file.write(part)
                    hashed.update(part)
            (folder / "part").rename(folder / f"sha256:{hashed.hexdigest()}")


@dataclass(frozen=True)
class Sizes:
    """The sizes of all workloads of a run."""

    large: Workload = Workload(64, 8 * MIB)
    small: Workload = Workload(2000, 16 * KIB)
    huge: Workload = Workload(1, GIB)
    parallel: Workload = Workload(64, 2 * MIB)
    parallelisms: tuple[int, ...] = (1, 2, 4, 8, 16)
    counted: tuple[Workload, ...] = tuple(Workload(n, 4 * KIB) for n in (10, 100, 1000, 20_000))
    stores: tuple[int, ...] = (100, 1_000, 10_000, 20_000, 100_000)
    few: int = 10
    many: int = 2000
    records: int = 100_000
    names: int = 1000
    tree: int = 50_000
    output: int = 2 * GIB
    files: int = 60


FULL: Final = Sizes()

QUICK: Final = Sizes(
    large=Workload(3, 64 * KIB),
    small=Workload(8, KIB),
    huge=Workload(1, 9 * MIB),  # more than a part
    parallel=Workload(4, KIB),
    parallelisms=(1, 4),
    counted=(Workload(2, KIB), Workload(5, KIB)),
    stores=(20, 50),
    few=2,
    many=10,
    records=200,
    names=5,
    tree=50,
    output=MIB,
    files=3,
)


def graph_of(folder: Path) -> RecordGraph:
    """A graph in which each blob of the directory is the result of one step."""
    return _graph((file.name, file.stat().st_size) for file in sorted(folder.iterdir()))


def numbered(count: int, of: int) -> dict[str, bytes]:
    """Tiny blobs by digest: ``count`` numbers spread evenly over the first ``of``."""
    contents = [b"%d" % (index * of // count) for index in range(count)]
    return {Digest.of(content): content for content in contents}


def graph_of_numbers(blobs: dict[str, bytes]) -> RecordGraph:
    """As :func:`graph_of`, for blobs in memory."""
    return _graph((digest, len(content)) for digest, content in blobs.items())


def _graph(blobs: Iterator[tuple[str, int]]) -> RecordGraph:
    graph = RecordGraph()
    for digest, size in blobs:
        graph.add_result(graph.add(digest), graph.add_layer(digest, size=size))
    return graph


def manifests(names: int, blobs: int) -> Iterator[tuple[str, bytes]]:
    """Names and manifests over the first ``blobs`` numbers; a tenth of the blobs is orphaned."""
    contents = [b"%d" % number for number in range(blobs)]
    each = blobs // names
    for index in range(names):
        graph = RecordGraph()
        for content in contents[index * each : index * each + each * 9 // 10]:
            digest = Digest.of(content)
            layer = graph.add_layer(digest, size=len(content), created_at="2026-01-01T00:00:00Z")
            graph.add_result(graph.add(digest), layer, "2026-01-01T00:00:00Z")
        yield f"branch-{index:04}", codec.encode(graph.to_config())


def large_manifest(records: int, seed: int = 0) -> bytes:
    """A manifest of random records as a builder writes it: half a kilobyte per record."""
    numbers = random.Random(records + seed)
    graph = RecordGraph()
    when = from_nanoseconds(1_795_000_000_123_456_789)
    for index in range(records):
        inputs = [
            [Key(numbers.randrange(index), f"sha256:{numbers.randrange(9):064x}")]
            + [Key(numbers.randrange(index))] * numbers.randrange(2)
            for _ in range(min(index, 1 + index % 2))
        ]
        record = graph.add(f"sha256:{numbers.randrange(16**64):064x}", inputs)
        if index % 2:
            layers = len(graph.layers)
            layer = graph.add_layer(
                f"sha256:{numbers.randrange(16**64):064x}",
                parent=numbers.randrange(-1, layers),
                diff_id=f"sha256:{numbers.randrange(16**64):064x}",
                size=1 + numbers.randrange(MIB),
                created_at=when,
            )
            graph.add_result(record, layer, when)
    return codec.encode(graph.to_config())
