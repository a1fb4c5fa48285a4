"""The public generator: the same seed gives the same caches, with the shapes of real ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given

import cachefs
from cachefs.digest import Digest
from cachefs.errors import UsageError
from cachefs.testing import Generated, graphs, random_graph, write_random_cache
from cachefs.wire import codec


@given(graphs())
def test_a_generated_graph_is_one_that_a_builder_reads(generated: Generated) -> None:
    raw = codec.encode(generated.graph.to_config())
    assert codec.encode(cachefs.RecordGraph(codec.decode(raw)).to_config()) == raw
    assert generated.graph.blobs() == {Digest(d): len(b) for d, b in generated.blobs.items()}
    assert all(Digest.of(data) == digest for digest, data in generated.blobs.items())


def test_the_seed_decides_in_every_process() -> None:
    program = (
        "from cachefs.testing import random_graph; from cachefs.wire import codec; "
        "from cachefs.digest import Digest; "
        "print(Digest.of(codec.encode(random_graph(5, records=60).graph.to_config())))"
    )
    here = Digest.of(codec.encode(random_graph(5, records=60).graph.to_config()))
    there = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == here
    assert random_graph(6, records=60).blobs.keys() != random_graph(5, records=60).blobs.keys()


def test_records_and_layers_are_as_many_as_asked_for() -> None:
    assert len(random_graph(1, records=1).graph) == 1
    assert len(random_graph(1, records=300).graph) == 300
    assert len(random_graph(1, records=300, layers=7).graph.layers) == 7
    with pytest.raises(UsageError):
        random_graph(1, records=0)


def test_shapes_are_those_of_real_builds() -> None:
    graph = random_graph(3, records=400).graph
    links = [link for record in graph.records for alts in record.inputs for link in alts]
    assert any(link.selector for link in links)
    assert any(len(alts) > 1 for record in graph.records for alts in record.inputs)
    assert any(len(record.inputs) == 2 for record in graph.records)
    assert max(len(graph.chain(index)) for index in range(len(graph.layers))) > 5
    roots = [record for record in graph.records if not record.inputs]
    assert len(roots) == 4  # two images, each for two platforms


def test_names_of_a_cache_share_base_layers_and_can_be_read(tmp_path: Path) -> None:
    written = write_random_cache(tmp_path / "cache", names=["main", "pr-1"], seed=2, records=40)
    cache = cachefs.open(tmp_path / "cache")
    assert [name.name for name in cache.names()] == ["main", "pr-1"]
    assert set(written["main"].blobs) & set(written["pr-1"].blobs)
    for name, generated in written.items():
        stored = cache.load(name)
        assert stored.blobs() == generated.graph.blobs()
        assert all(cache.read_blob(digest) == data for digest, data in generated.blobs.items())


@pytest.mark.parametrize("module", ["hypothesis", "pytest"])
def test_only_those_who_need_it_load(module: str) -> None:
    program = f"import sys, cachefs.testing; sys.exit({module!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
