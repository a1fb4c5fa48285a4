"""What is known about each step of a build, and the keys that follow from it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from cachefs.building.report import StepReport
from cachefs.building.steps import Source, Step
from cachefs.graph import Key
from cachefs.keying.keys import content_key
from cachefs.wire import description, timestamps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cachefs.building.report import Outcome
    from cachefs.building.steps import Part
    from cachefs.digest import Digest
    from cachefs.graph import RecordGraph
    from cachefs.wire.cacheconfig import Layer, RecordIndex


class Output(NamedTuple):
    """A step's result: the layer of its files, that of its log if any, and when it was made.

    ``description`` is the layer on top of them that says what the result is, if it has one.
    """

    layers: tuple[Layer, ...]
    created_at: str
    description: Layer | None = None

    @property
    def size(self) -> int:
        """The bytes of its blobs."""
        return sum(layer.size for layer in self.layers)

    @property
    def seconds(self) -> float:
        """How long it took to make; 0 if unknown."""
        facts = self.description and self.description.annotations
        if not facts or facts.created_at == timestamps.ZERO:
            return 0.0
        took = timestamps.nanoseconds(self.created_at) - timestamps.nanoseconds(facts.created_at)
        return max(0.0, took / 1e9)


class State:
    """What is known about a step in this build.

    Attributes:
        records: the records that it matched, or the one that it was recorded as when it ran.
        output: its result, if known.
        parts: the contents of parts of its result, by path.
        lost: why results in the cache could not be used.
        unkept: why the result of a command that succeeded is not kept; empty if it is.
        fetching: held while blobs of the result are fetched, or the step runs.
        outcome, seconds, fetched, packed, why: as in :class:`StepReport`.
    """

    def __init__(self, step: Step) -> None:
        self.records: frozenset[RecordIndex] = frozenset()
        self.output: Output | None = None
        self.parts: dict[str, Digest] = {}
        self.lost: list[str] = []
        self.unkept = ""
        self.fetching = asyncio.Lock()
        self.outcome: Outcome = "not needed"
        self.seconds = 0.0
        self.fetched = 0
        self.packed = 0
        self.why: list[str] = []
        self._name = step.name

    @property
    def wanting(self) -> bool:
        """Whether the step has no result and has not run."""
        return self.output is None and not self.unkept

    def note_lost(self, why: str) -> None:
        """Note why a result in the cache could not be used."""
        if why not in self.lost:
            self.lost.append(why)

    @property
    def content(self) -> str:
        """The diffID of the result's files; empty if unknown."""
        facts = self.output and self.output.layers[0].annotations
        return facts.diff_id if facts else ""

    def report(self, cache: str) -> StepReport:
        """What has been done about the step so far; its hit came from this cache, if it is one."""
        return StepReport(
            name=self._name,
            outcome=self.outcome,
            seconds=self.seconds,
            fetched=self.fetched,
            packed=self.packed,
            cache=cache,
            saved=self.output.seconds if self.output and self.outcome == "hit" else 0.0,
            why=list(self.why),
        )


def without_description(layers: tuple[Layer, ...]) -> tuple[tuple[Layer, ...], Layer | None]:
    """The layers of a result without the one that describes it, and that one, if there is one."""
    top = layers[-1] if layers else None
    if top and top.annotations and top.annotations.media_type == description.MEDIA_TYPE:
        return layers[:-1], top
    return layers, None


def input_keys(
    graph: RecordGraph,
    part: Part,
    states: Mapping[Step, State],
    records_of: Callable[[Step], Iterable[RecordIndex]],
) -> set[Key]:
    """All known keys of an input: by definition, and by content.

    Args:
        graph: root records for contents are added to it.
        part: the input.
        states: what is known about the steps.
        records_of: a step's records in the graph.
    """
    if isinstance(part.node, Source):
        content = part.node.content.part(part.path).digest
        return {Key(graph.add(content_key(content)))}
    if not isinstance(part.node, Step):
        return set()
    state = states[part.node]
    keys = {Key(record, part.selector) for record in records_of(part.node)}
    if state.content:
        keys.add(Key(graph.add(content_key(state.content)), part.selector))
    if part.path in state.parts:
        keys.add(Key(graph.add(content_key(state.parts[part.path]))))
    return keys
