"""Drawings: all of the graph is in them, the same each time, and text stays text."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import example, given
from hypothesis import strategies as st

import cachefs
from cachefs import Key, RecordGraph
from cachefs.cli.main import program
from cachefs.operations.draw import MERMAID_EDGES, Edge, draw, edges
from tests.graphs import digest_of
from tests.programs import run

WHEN = "2026-01-01T00:00:00Z"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(program, arguments, standalone_mode=False, catch_exceptions=False)


@pytest.fixture
def keyed(recorded: Path) -> str:
    return str(recorded / "s3" / "max")


def expected(config: dict[str, Any]) -> tuple[set[tuple[str, str]], set[tuple[str, str]], set[str]]:
    """Solid and dashed edges, and the records with a result, from plain JSON."""
    solid, dashed = set(), set()
    for index, record in enumerate(config["records"]):
        links = {k["link"] for alternatives in record.get("inputs", []) for k in alternatives}
        solid |= {(f"r{link}", f"r{index}") for link in links}
        dashed |= {(f"r{index}", f"l{result['layer']}") for result in record.get("layers", [])}
    for index, layer in enumerate(config["layers"]):
        if layer.get("parent", 0) != -1:
            solid.add((f"l{layer.get('parent', 0)}", f"l{index}"))
    return solid, dashed, {start for start, _ in dashed}


@pytest.mark.parametrize("name", ["app", "app-v2"])
def test_all_edges_and_results_of_the_recorded_cache(keyed: str, name: str) -> None:
    config = json.loads(Path(keyed, "manifests", name).read_text())
    solid, dashed, with_result = expected(config)
    mermaid = call("graph", keyed, "--name", name).output
    assert set(re.findall(r'(\w+) -->(?:\|"[^"]*"\|)? (\w+)$', mermaid, re.MULTILINE)) == solid
    assert set(re.findall(r"(\w+) -\.-> (\w+)$", mermaid, re.MULTILINE)) == dashed
    assert set(re.findall(r"^ +(r\d+)\[.*:::result$", mermaid, re.MULTILINE)) == with_result
    for index, record in enumerate(config["records"]):
        assert f'r{index}["record {index}<br/>{record["digest"][7:19]}"]' in mermaid
    for index, layer in enumerate(config["layers"]):
        assert f'l{index}[("layer {index}<br/>{layer["blob"][7:19]}<br/>' in mermaid
    dot = call("graph", keyed, "--name", name, "--format", "dot").output
    arrows = re.findall(r"^ +(\w+) -> (\w+)(.*)$", dot, re.MULTILINE)
    assert {(a, b) for a, b, looks in arrows if "style=dashed" not in looks} == solid
    assert {(a, b) for a, b, looks in arrows if "style=dashed" in looks} == dashed


def test_inputs_alternatives_selectors_and_chains() -> None:
    graph = RecordGraph()
    one, two = graph.add(digest_of(1)), graph.add(digest_of(2))
    top = graph.add(digest_of(3), [[Key(one), Key(two, "/etc")], [Key(two)]])
    only = graph.add(digest_of(4), [[Key(top, digest_of(9))]])
    lower = graph.add_layer(digest_of(5), created_at=WHEN)
    upper = graph.add_layer(digest_of(6), parent=lower, created_at=WHEN)
    graph.add_result(only, upper, WHEN)
    assert edges(graph) == [
        Edge("r0", "r2", "0"),
        Edge("r1", "r2", "0: /etc"),
        Edge("r1", "r2", "1"),
        Edge("r2", "r3", digest_of(9)[7:19]),
        Edge("r3", "l1", dashed=True),
        Edge("l0", "l1"),
    ]


def test_the_same_graph_is_the_same_drawing(keyed: str) -> None:
    cache = cachefs.open(keyed)
    for language in ("mermaid", "dot"):
        texts = {cache.draw("app", language) for _ in range(3)}
        assert len(texts) == 1
        assert call("graph", keyed, "--name", "app", "--format", language).output in texts


HOSTILE = st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12
) | st.sampled_from(
    ['"]', '"|', "end", "<script>", "&quot;", "%%", "\\", "\\N", '\\"', "`md`", "\n}", "#34;", "\0"]
)


def hostile(text: str) -> RecordGraph:
    graph = RecordGraph()
    graph.add(text)
    graph.add(digest_of(1), [[Key(0, text)]])
    return graph


@given(HOSTILE)
@example("sha256:")
def test_text_stays_text_in_mermaid(text: str) -> None:
    lines = draw(hostile(text)).splitlines()
    safe = r"[A-Za-z0-9 +,\-./:=@_]|#\d+;"
    assert re.fullmatch(rf' +r0\["record 0<br/>((?:{safe})*)"\]:::record', lines[4])
    found = re.fullmatch(rf' +r0 -->\|"((?:{safe})*)"\| r1', lines[6])
    assert found
    shown = re.sub(r"#(\d+);", lambda number: chr(int(number[1])), found[1])
    assert shown == text
    assert len(lines) == 7


@given(HOSTILE)
@example("sha256:")
def test_text_stays_text_in_dot(text: str) -> None:
    lines = draw(hostile(text), "dot").split("\n")
    found = re.fullmatch(r' +r0 -> r1 \[label="((?:[^"\\]|\\["\\])*)"\]', lines[5])
    assert found
    assert found[1].isprintable()
    shown = html.unescape(re.sub(r'\\(["\\])', r"\1", found[1]))
    assert shown == "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    assert lines[6:] == ["}", ""]


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
@pytest.mark.parametrize("text", ['"]; x -> y', "\\N\\", "&amp;<b>", "\n}"])
def test_graphviz_reads_the_dot(text: str) -> None:
    source = draw(hostile(text), "dot")
    program_path = shutil.which("dot")
    assert program_path is not None
    ended = subprocess.run(
        [program_path, "-Tjson"],
        input=source.encode(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert ended.stderr == b""
    document = json.loads(ended.stdout)
    assert [node["name"] for node in document["objects"]] == ["r0", "r1"]
    assert len(document["edges"]) == 1


def test_the_only_name_needs_no_naming(recorded: Path, keyed: str) -> None:
    only = str(recorded / "s3" / "min")
    assert call("graph", only).output == call("graph", only, "--name", "app").output
    given_in_location = call("graph", f"type=fsspec,url={keyed},name=app-v2")
    assert given_in_location.output == call("graph", keyed, "--name", "app-v2").output
    ended = CliRunner().invoke(program, ["graph", keyed])
    assert ended.exit_code == 2
    assert "--name" in ended.output


def test_one_document(keyed: str) -> None:
    document = json.loads(call("graph", "--json", keyed, "--name", "app").output)
    text = cachefs.open(keyed).draw("app")
    assert document == {"name": "app", "format": "mermaid", "text": text}


def test_more_than_mermaid_draws_is_warned_of(tmp_path: Path) -> None:
    graph = RecordGraph()
    last = graph.add(digest_of(0))
    for number in range(1, MERMAID_EDGES + 2):
        last = graph.add(digest_of(number), [[Key(last)]])
    cache = cachefs.open(tmp_path)
    cache.export(graph, {}, names=["long"])
    assert "maxEdges" in run("graph", str(tmp_path)).err
    assert run("graph", str(tmp_path), "--format", "dot").err == ""
