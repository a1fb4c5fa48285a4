"""Runs of a case, interleaved with the others', and their medians."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Measured:
    """A line of the table: what was done, and a figure a run for seconds, CPU and memory.

    Attributes:
        work: the workload, or what is measured.
        tool: what does it.
        parallelism: uploads at a time.
        bytes: bytes that a run moves, 0 where that says nothing.
    """

    work: str
    tool: str
    parallelism: int
    bytes: int
    case: str
    arguments: Callable[[], dict[str, Any]] = field(repr=False)
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)
    requests: int | None = None

    def run(self) -> None:
        """Run the case once, in a new process."""
        command = [
            sys.executable,
            "-m",
            "benchmarks.cases",
            self.case,
            json.dumps(self.arguments()),
        ]
        environment = os.environ | {"AWS_EC2_METADATA_DISABLED": "true"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        figures = json.loads(done.stdout.splitlines()[-1])
        self.seconds.append(figures["seconds"])
        self.cpu.append(figures["cpu"])
        self.mib.append(figures["mib"])

    def result(self) -> dict[str, Any]:
        """Plain data for JSON, with medians."""
        data = {
            key: value for key, value in asdict(self).items() if key not in {"arguments", "case"}
        }
        for name in ("seconds", "cpu", "mib"):
            data[f"median_{name}"] = statistics.median(data[name])
        return data
