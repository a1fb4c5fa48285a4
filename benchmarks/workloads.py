"""What is uploaded: sets of random blobs as files, made once for a run."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cachefs import Digest, Key, RecordGraph
from cachefs.wire import cacheconfig
from cachefs.wire.timestamps import from_nanoseconds

if TYPE_CHECKING:
    from pathlib import Path

KIB: Final = 1024
MIB: Final = 1024 * KIB


@dataclass(frozen=True)
class Workload:
    """So many blobs of one size in bytes."""

    blobs: int
    size: int

    @property
    def bytes(self) -> int:
        """Bytes of all blobs."""
        return self.blobs * self.size

    def write(self, folder: Path) -> None:
        """Write the blobs, each into a file named by its digest, unless they are there."""
        if folder.exists():
            return
        folder.mkdir(parents=True)
        numbers = random.Random(self.blobs * self.size)
        for _ in range(self.blobs):
            part = numbers.randbytes(min(self.size, MIB))
            data = part * (self.size // len(part))
            (folder / Digest.of(data)).write_bytes(data)


WORKLOADS: Final = {
    "64 x 8 MiB": Workload(64, 8 * MIB),
    "2000 x 16 KiB": Workload(2000, 16 * KIB),
    "1 x 1 GiB": Workload(1, 1024 * MIB),
}


def graph_of(folder: Path) -> RecordGraph:
    """A graph in which each blob of the folder is the result of a step of its own."""
    graph = RecordGraph()
    for file in sorted(folder.iterdir()):
        layer = graph.add_layer(file.name, size=file.stat().st_size)
        graph.add_result(graph.add(file.name), layer)
    return graph


def large_manifest(records: int, seed: int = 0) -> bytes:
    """A manifest of random records, as a builder would write it: half a kilobyte a record."""
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
    return cacheconfig.encode(graph.to_config())
