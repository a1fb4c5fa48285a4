"""A record graph as a drawing, in the languages of Mermaid and of Graphviz (DOT).

Records are drawn below the records that they are built on. A record with a result has a dashed
arrow to the result's top layer, and each layer has an arrow from the layer below it. Numbers are
the indexes that the manifest uses. The same graph gives the same text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, get_args

from cachefs.amount import counted
from cachefs.digest import all_digests
from cachefs.errors import UsageError
from cachefs.wire.cacheconfig import NO_PARENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cachefs.graph import RecordGraph

Language = Literal["mermaid", "dot"]

MERMAID_EDGES: Final = 500
"""How many edges Mermaid draws unless it is configured to draw more."""

_SHORT: Final = 12
"""How many characters of a digest are enough for people to tell records apart."""

_PLAIN: Final = frozenset(" +,-./:=@_")
"""Characters that Mermaid takes literally in quotes, besides ASCII letters and digits."""

_MERMAID: Final = """\
flowchart TD
    classDef result fill:#d5e8d4,stroke:#3c763d,color:#000
    classDef record fill:#f5f5f5,stroke:#999,color:#000
    classDef layer fill:#dae8fc,stroke:#31708f,color:#000
"""

_DOT: Final = """\
digraph cache {
    node [fontname="sans-serif" fontsize=10 style=filled shape=box]
    edge [fontname="sans-serif" fontsize=9]
"""

_DOT_LOOKS: Final = {
    "record": 'fillcolor="#f5f5f5" color="#999999"',
    "result": 'fillcolor="#d5e8d4" color="#3c763d"',
    "layer": 'fillcolor="#dae8fc" color="#31708f" shape=cylinder',
}


class Node(NamedTuple):
    """A record or layer: its name in the drawing, its lines of text, and its kind."""

    name: str
    lines: Sequence[str]
    kind: Literal["record", "result", "layer"]


class Edge(NamedTuple):
    """An arrow between two nodes; dashed for a result."""

    start: str
    end: str
    text: str = ""
    dashed: bool = False


def draw(graph: RecordGraph, language: Language = "mermaid") -> str:
    """The drawing's text, which ends with a line feed.

    Text from the cache, digests and selectors, is escaped so that it stays text. Mermaid draws no
    more than :data:`MERMAID_EDGES` edges by default; DOT has no limit. Raises UsageError.
    """
    if language not in get_args(Language):
        raise UsageError(f"there is no language {language!r}: it is mermaid or dot")
    return (_mermaid if language == "mermaid" else _dot)(list(_nodes(graph)), edges(graph))


def edges(graph: RecordGraph) -> list[Edge]:
    """All arrows of the drawing, in order."""
    found: list[Edge] = []
    for index, record in enumerate(graph.records):
        for position, alternatives in enumerate(record.inputs):
            number = str(position) if len(record.inputs) > 1 else ""
            for link in sorted(alternatives, key=lambda link: (link.link, link.selector)):
                text = ": ".join(filter(None, (number, _selector(link.selector))))
                found.append(Edge(f"r{link.link}", f"r{index}", text))
        tops = {result.layer for result in record.layers}
        tops |= {chain.layers[-1] for chain in record.chains if chain.layers}
        found += [Edge(f"r{index}", f"l{top}", dashed=True) for top in sorted(tops)]
    for index, layer in enumerate(graph.layers):
        if layer.parent != NO_PARENT:
            found.append(Edge(f"l{layer.parent}", f"l{index}"))
    return found


def _nodes(graph: RecordGraph) -> Iterator[Node]:
    for index, record in enumerate(graph.records):
        has_result = record.has_result
        text = [f"record {index}", _short(record.digest)]
        yield Node(f"r{index}", text, "result" if has_result else "record")
    for index, layer in enumerate(graph.layers):
        size = counted(layer.size, "byte") if layer.size else "size unknown"
        text = [line for line in (f"layer {index}", _short(layer.blob), size) if line]
        yield Node(f"l{index}", text, "layer")


def _short(digest: str) -> str:
    """The beginning of a digest, without its algorithm if that is the usual one."""
    return digest.removeprefix("sha256:")[:_SHORT]


def _selector(selector: str) -> str:
    """A path as it is; the digest of several paths, shortened."""
    return _short(selector) if all_digests([selector]) else selector


# --- Mermaid -------------------------------------------------------------------------------------


def _mermaid(nodes: Sequence[Node], arrows: Sequence[Edge]) -> str:
    lines = [f"    {_mermaid_node(node)}\n" for node in nodes]
    lines += [f"    {_mermaid_edge(edge)}\n" for edge in arrows]
    return _MERMAID + "".join(lines)


def _mermaid_node(node: Node) -> str:
    text = "<br/>".join(_mermaid_text(line) for line in node.lines)
    left, right = ("[(", ")]") if node.kind == "layer" else ("[", "]")
    return f'{node.name}{left}"{text}"{right}:::{node.kind}'


def _mermaid_edge(edge: Edge) -> str:
    arrow = "-.->" if edge.dashed else "-->"
    text = f'|"{_mermaid_text(edge.text)}"|' if edge.text else ""
    return f"{edge.start} {arrow}{text} {edge.end}"


def _mermaid_text(text: str) -> str:
    """The text, with every character that could end it or has a meaning in it as a number."""
    return "".join(
        character
        if character in _PLAIN or (character.isascii() and character.isalnum())
        else f"#{ord(character)};"
        for character in text
    )


# --- Graphviz ------------------------------------------------------------------------------------


def _dot(nodes: Sequence[Node], arrows: Sequence[Edge]) -> str:
    lines = [f"    {_dot_node(node)}\n" for node in nodes]
    lines += [f"    {_dot_edge(edge)}\n" for edge in arrows]
    return _DOT + "".join(lines) + "}\n"


def _dot_node(node: Node) -> str:
    text = r"\n".join(_dot_text(line) for line in node.lines)
    return f'{node.name} [label="{text}" {_DOT_LOOKS[node.kind]}]'


def _dot_edge(edge: Edge) -> str:
    looks = [f'label="{_dot_text(edge.text)}"'] if edge.text else []
    looks += ["style=dashed"] if edge.dashed else []
    return f"{edge.start} -> {edge.end}" + (f" [{' '.join(looks)}]" if looks else "")


def _dot_text(text: str) -> str:
    """The text for use in quotes: without escapes, entities and control characters."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    escaped = shown.replace("&", "&amp;").replace("\\", "\\\\")
    return escaped.replace('"', r"\"")
