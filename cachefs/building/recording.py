"""What a build stores: its records, with all known keys of their inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachefs.building.states import input_keys
from cachefs.building.steps import Step
from cachefs.graph import Key, RecordGraph, output_key
from cachefs.wire import timestamps
from cachefs.wire.cacheconfig import NO_PARENT, record_indexes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cachefs.building.states import Output, State
    from cachefs.building.steps import Part
    from cachefs.wire.cacheconfig import RecordIndex


def recorded(
    states: Mapping[Step, State], known: RecordGraph
) -> tuple[RecordGraph, dict[Step, RecordIndex]]:
    """The graph of all steps of a build, and the record of each step in it.

    Args:
        states: what is known about the steps; each comes after those that it uses.
        known: the graph in which they have their records.
    """
    graph = RecordGraph()
    records: dict[Step, RecordIndex] = {}

    def of_step(step: Step) -> list[RecordIndex]:
        return [records[step]] if step in records else []

    for step, state in states.items():
        if not state.records:
            continue
        inputs = []
        for position, part in enumerate(step.inputs.values()):
            keys = input_keys(graph, part, states, of_step)
            keys |= _known_contents(known, graph, state, position, part)
            inputs.append(keys)
        if not all(inputs):
            continue
        records[step] = graph.add(output_key(step.vertex, 0), inputs)
        if state.output is not None:
            add_output(graph, records[step], state.output)
    return graph, records


def _known_contents(
    known: RecordGraph, graph: RecordGraph, state: State, position: int, part: Part
) -> set[Key]:
    """Content keys that the cache's records have for the input of a step that was a hit.

    An export with ``mode=min`` stores no results of intermediate steps: their contents are known
    only from these keys.
    """
    if not isinstance(part.node, Step):
        return set()
    above = output_key(part.node.vertex, 0)
    keys = set()
    for index in state.records:
        for link in known.records[index].inputs[position]:
            record = known.records[link.link]
            if not record.inputs and record.digest != above:
                keys.add(Key(graph.add(record.digest), link.selector))
    return keys


def add_output(graph: RecordGraph, record: RecordIndex, output: Output) -> None:
    """Add a result to a record, layer by layer; what describes it is on top."""
    index = NO_PARENT
    described = () if output.description is None else (output.description,)
    for layer in (*output.layers, *described):
        index = graph.copy_layer(layer, index)
    graph.add_result(record, index, output.created_at)


def with_others(graph: RecordGraph, stored: RecordGraph, most: int) -> RecordGraph:
    """The newest ``most`` records with results of both graphs, and what they are built on.

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
