"""What a build did, and why."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from cachefs.transfer.exporter import ExportReport  # noqa: TC001 - msgspec reads the type

Outcome = Literal["hit", "ran", "not needed", "would hit", "would run"]


class StepReport(Struct, frozen=True, kw_only=True):
    """What was done about a step.

    Attributes:
        name: the step.
        outcome: ``hit`` (its result was in the cache), ``ran``, or ``not needed``; of a dry run,
            ``would hit`` or ``would run``.
        seconds: how long it ran, including laying out inputs and packing; 0 if it did not run.
        fetched: bytes of its result that were downloaded; of a dry run, that would be at most.
        packed: bytes of its result's blobs, if it ran.
        cache: where the result of a hit came from; empty if it is unknown.
        saved: seconds that the result of a hit took to make; 0 if they are unknown.
        left_out: how many files and directories of its inputs do not count, by the reason: an
            ignore file, an option, or what they are. Only ``cachefs run`` tells.
        links: how many symbolic links below its inputs count as links: what they lead to does not
            count. Only ``cachefs run`` tells.
        in_place: of a dry run, whether the outputs of a hit are there already.
        why: for a step that ran, the parts of its key that differ from the last run, one per line.
    """

    name: str
    outcome: Outcome = "not needed"
    seconds: float = 0.0
    fetched: int = 0
    packed: int = 0
    cache: str = ""
    saved: float = 0.0
    why: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    links: int = 0
    in_place: bool = False


class BuildReport(Struct, frozen=True, kw_only=True):
    """What a build did: its steps in the order of their declaration, and its exports, if any."""

    steps: list[StepReport]
    exports: list[ExportReport] = field(default_factory=list)
