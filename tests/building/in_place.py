"""``cachefs run`` in this process."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cachefs.building.report import StepReport
from cachefs.building.running import UserCommand, run_cached


class Ran(NamedTuple):
    """What was reported, and what the command or its log said."""

    report: StepReport
    said: bytes

    @property
    def outcome(self) -> str:
        return self.report.outcome


def run(
    place: Path,
    script: str,
    *outputs: str,
    inputs: tuple[str, ...] = (),
    incremental: bool = False,
) -> Ran:
    """Run a shell script in a directory, with the cache next to that."""
    said: list[bytes] = []

    def hear(_stream: int, data: bytes) -> None:
        said.append(data)

    action = UserCommand(["sh", "-c", script], place, hear, incremental=incremental)
    report = run_cached(
        action,
        caches=[str(place.parent / "cache")],
        name="run",
        inputs=inputs,
        outputs=outputs,
        variables=[],
        replay=hear,
    )
    return Ran(report, b"".join(said))
