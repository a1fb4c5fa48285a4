"""What a build stores: its own records, with every key that their inputs are known by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachefs.building.keys import content_key
from cachefs.building.steps import Source, Step
from cachefs.graph import Key, RecordGraph, output_key
from cachefs.wire import timestamps
from cachefs.wire.cacheconfig import NO_PARENT, record_indexes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cachefs.building.engine import Engine, Output, State
    from cachefs.building.steps import Part
    from cachefs.wire.cacheconfig import RecordIndex


def recorded(engine: Engine) -> tuple[RecordGraph, dict[Step, RecordIndex]]:
    """The graph of all steps of a build, and each one's record in it."""
    graph = RecordGraph()
    records: dict[Step, RecordIndex] = {}
    for step, state in engine.states.items():
        if not state.records:
            continue
        inputs = []
        for position, part in enumerate(step.inputs.values()):
            keys = _keys(engine, graph, records, part)
            keys |= _known_contents(engine, graph, state, position, part)
            inputs.append(keys)
        if not all(inputs):
            continue
        records[step] = graph.add(output_key(step.vertex, 0), inputs)
        if state.output is not None:
            add_output(graph, records[step], state.output)
    return graph, records


def _keys(
    engine: Engine, graph: RecordGraph, records: Mapping[Step, RecordIndex], part: Part
) -> set[Key]:
    if isinstance(part.node, Source):
        return {Key(graph.add(content_key(part.node.content.part(part.path).digest)))}
    keys = set()
    if isinstance(part.node, Step):
        state = engine.states[part.node]
        if part.node in records:
            keys.add(Key(records[part.node], part.selector))
        if state.content:
            keys.add(Key(graph.add(content_key(state.content)), part.selector))
        if part.path in state.parts:
            keys.add(Key(graph.add(content_key(state.parts[part.path]))))
    return keys


def _known_contents(
    engine: Engine, graph: RecordGraph, state: State, position: int, part: Part
) -> set[Key]:
    """Content keys that the cache's own records have for the input of a step that was a hit.

    An export with ``mode=min`` stores no results of the steps between, so that this is where their
    contents are known from.
    """
    if not isinstance(part.node, Step):
        return set()
    above = output_key(part.node.vertex, 0)
    keys = set()
    for index in state.records:
        for link in engine.graph.records[index].inputs[position]:
            known = engine.graph.records[link.link]
            if not known.inputs and known.digest != above:
                keys.add(Key(graph.add(known.digest), link.selector))
    return keys


def add_output(graph: RecordGraph, record: RecordIndex, output: Output) -> None:
    """Add a result, layer by layer."""
    index = NO_PARENT
    for layer in output.layers:
        facts = layer.annotations
        if facts is not None:
            index = graph.add_layer(
                layer.blob,
                parent=index,
                diff_id=facts.diff_id,
                size=facts.size,
                media_type=facts.media_type,
                created_at=facts.created_at,
            )
    graph.add_result(record, index, output.created_at)


def with_others(graph: RecordGraph, stored: RecordGraph, most: int) -> RecordGraph:
    """The graph and what the name held before, with the newest ``most`` records that have results.

    For names that gather one command's results for several inputs, as ``cachefs run`` does.
    """
    both = RecordGraph.union([graph, stored])
    made = {
        index: timestamps.nanoseconds(both.results([index])[0].created_at)
        for index in record_indexes(both.records)
        if both.records[index].has_result
    }
    newest = sorted(made, key=made.__getitem__, reverse=True)[:most]
    return both.filtered(records=_reached(both, newest))


def _reached(graph: RecordGraph, records: Iterable[RecordIndex]) -> set[RecordIndex]:
    reached: set[RecordIndex] = set()
    waiting = list(records)
    while waiting:
        index = waiting.pop()
        if index not in reached:
            reached.add(index)
            waiting += [link.link for alts in graph.records[index].inputs for link in alts]
    return reached
