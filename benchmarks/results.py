"""The figures of a run, as stored in JSON."""

from __future__ import annotations

import hashlib
import statistics
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

_APART: Final = {
    "parallelism": ", {case.parallelism} at a time",
    "store": " into a store of {case.point:,}",
}


class Case(msgspec.Struct, kw_only=True):
    """One tool doing one work, with a figure for each run.

    Attributes:
        group: the table that it belongs to.
        work: what is done.
        tool: what does it.
        ours: whether the tool is cachefs, not a peer.
        bound: whether this is an upper bound for any tool, not a tool.
        parallelism: blobs at a time.
        bytes: bytes that are moved, or 0 if throughput is not meaningful.
        point: position in a plot: parallelism, blobs, or blobs in the store.
        seconds: wall time.
        cpu: CPU seconds of the client, including its children.
        mib: peak memory of the client, in MiB.
        load: load average of the machine over a minute, before each run.
        requests: requests to the server, if it was used.
        server: CPU seconds of the server, if it was used.
        milliseconds: the round trip of the line, or 0 without a line.
        line_cpu: CPU seconds of the line.
        late: the mean of the seconds by which the line delivered bytes too late.
    """

    group: str
    work: str
    tool: str
    ours: bool
    bound: bool = False
    parallelism: int
    bytes: int = 0
    point: int | None = None
    seconds: list[float] = []
    cpu: list[float] = []
    mib: list[float] = []
    load: list[float] = []
    requests: list[int] = []
    server: list[float] = []
    milliseconds: float = 0.0
    line_cpu: list[float] = []
    late: list[float] = []

    @property
    def title(self) -> str:
        """The work, with what distinguishes it from others of the same name."""
        return self.work + _APART.get(self.group, "").format(case=self)

    @property
    def key(self) -> tuple[str, str, str]:
        """Identifies the same case in two runs."""
        return self.group, self.title, self.tool

    def median(self, measure: str = "seconds") -> float:
        """The median of the figures."""
        return float(statistics.median(getattr(self, measure)))


class Results(msgspec.Struct, kw_only=True):
    """All cases of a run, facts about the machine, and the skipped tools with the reasons."""

    machine: dict[str, str | int | float]
    runs: int
    quick: bool
    cases: list[Case]
    skipped: dict[str, str] = {}

    def of(self, group: str) -> list[Case]:
        """The cases of a group, in order."""
        return [case for case in self.cases if case.group == group]

    def mark(self, group: str) -> str:
        """Identifies the figures of a group; embedded in its plot."""
        return f"{group} {hashlib.sha256(msgspec.json.encode(self.of(group))).hexdigest()}"


def read(path: Path) -> Results:
    """Read the results of a file. Raises msgspec.ValidationError for any other JSON."""
    return msgspec.json.decode(path.read_bytes(), type=Results)


def write(results: Results, path: Path) -> None:
    """Write the results, indented."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = msgspec.structs.replace(results, cases=[_rounded(case) for case in results.cases])
    path.write_bytes(msgspec.json.format(msgspec.json.encode(rounded), indent=1) + b"\n")


def _rounded(case: Case) -> Case:
    places = {"seconds": 4, "cpu": 3, "mib": 1, "load": 2, "server": 2, "line_cpu": 3, "late": 5}
    return msgspec.structs.replace(
        case, **{name: [round(x, n) for x in getattr(case, name)] for name, n in places.items()}
    )
