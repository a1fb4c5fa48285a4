"""How two caches differ: against plain sets, and where chains diverge in graphs made for it."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

import cachefs
from cachefs import CacheDiff, Key, RecordGraph
from cachefs.cli.main import program
from cachefs.operations.diff import compare
from tests.damaging import MakePlace
from tests.graphs import digest_of, graphs, shuffled

EARLY, LATE = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(program, arguments, standalone_mode=False, catch_exceptions=False)


@pytest.fixture
def keyed(recorded: Path) -> str:
    return str(recorded / "s3" / "max")


# --- the recorded caches -------------------------------------------------------------------------


def contents(config: dict[str, Any]) -> tuple[dict[Any, str], dict[Any, str], dict[str, int]]:
    """Records and layers by their content written out in full, and blobs, from plain JSON."""
    records, layers = config["records"], config["layers"]

    def record(index: int) -> Any:
        inputs = records[index].get("inputs", [])
        return records[index]["digest"], tuple(
            frozenset((k.get("selector", ""), record(k["link"])) for k in alternatives)
            for alternatives in inputs
        )

    def layer(index: int) -> Any:
        # A missing parent is layer 0.
        parent = layers[index].get("parent", 0)
        return layers[index]["blob"], () if parent == -1 else layer(parent)

    return (
        {record(index): records[index]["digest"] for index in range(len(records))},
        {layer(index): layers[index]["blob"] for index in range(len(layers))},
        {each["blob"]: each["annotations"]["size"] for each in layers},
    )


def assert_as_counted(found: CacheDiff, first: dict[str, Any], second: dict[str, Any]) -> None:
    records_a, layers_a, blobs_a = contents(first)
    records_b, layers_b, blobs_b = contents(second)
    for change, a, b in ((found.records, records_a, records_b), (found.layers, layers_a, layers_b)):
        assert change.gained == sorted(b[key] for key in b.keys() - a.keys())
        assert change.lost == sorted(a[key] for key in a.keys() - b.keys())
        assert change.kept == len(a.keys() & b.keys())
    assert found.blobs.gained == sorted(blobs_b.keys() - blobs_a.keys())
    assert found.blobs.lost == sorted(blobs_a.keys() - blobs_b.keys())
    assert found.gained.bytes == sum(blobs_b[blob] for blob in found.blobs.gained)
    assert found.lost.bytes == sum(blobs_a[blob] for blob in found.blobs.lost)
    assert (found.gained.blobs, found.lost.blobs) == (
        len(found.blobs.gained),
        len(found.blobs.lost),
    )


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("max/app", "max/app-v2"),
        ("max/app", "min/app"),
        ("min/app", "max/app-v2"),
        ("max/app", "multi/multi"),
        ("multi/multi", "max/app"),
    ],
)
def test_figures_of_the_recorded_caches(recorded: Path, a: str, b: str) -> None:
    (folder_a, name_a), (folder_b, name_b) = a.split("/"), b.split("/")
    first, second = (cachefs.open(recorded / "s3" / folder) for folder in (folder_a, folder_b))
    configs = [
        json.loads((recorded / "s3" / folder / "manifests" / name).read_text())
        for folder, name in ((folder_a, name_a), (folder_b, name_b))
    ]
    assert_as_counted(
        first.with_names(name_a).diff(second.with_names(name_b)), configs[0], configs[1]
    )


def test_the_changed_file_of_the_recorded_cache_is_where_the_chains_part(keyed: str) -> None:
    """A file of the context changed from app to app-v2: a root of another digest."""
    cache = cachefs.open(keyed)
    found = cache.with_names("app").diff(cache.with_names("app-v2"))
    divergence = found.divergence
    assert divergence is not None
    assert (divergence.depth, divergence.input, divergence.reason) == (0, None, "digest differs")
    manifests = Path(keyed) / "manifests"
    app, v2 = (json.loads((manifests / name).read_text()) for name in ("app", "app-v2"))
    roots = [
        {each["digest"] for each in config["records"] if not each.get("inputs")}
        for config in (app, v2)
    ]
    assert {divergence.counterpart} == roots[0] - roots[1]
    assert divergence.digest in roots[1] - roots[0]


def test_a_copy_in_another_layout_is_equal(keyed: str, tmp_path: Path) -> None:
    first, second = cachefs.open(keyed), cachefs.open(f"type=local,dest={tmp_path}")
    cachefs.copy(first, second)
    assert first.diff(second).is_equal
    assert first.diff(second).divergence is None
    assert first.with_names("app").diff(second).divergence is not None
    assert first.with_names("app").diff(second.with_names("app")).is_equal


def test_a_digest_in_the_location_is_a_side(recorded: Path) -> None:
    folder = recorded / "local-max"
    tag = json.loads((folder / "index.json").read_text())["manifests"][0]
    name = tag["annotations"]["org.opencontainers.image.ref.name"]
    one = cachefs.open(f"type=local,src={folder},digest={tag['digest']}")
    assert one.diff(cachefs.open(folder, name=name)).is_equal


# --- made for it ---------------------------------------------------------------------------------


def chain(*steps: int, roots: tuple[int, ...] = (1, 2)) -> RecordGraph:
    """Two roots, a step on both, and more steps one on the other."""
    graph = RecordGraph()
    bases = [graph.add(digest_of(root)) for root in roots]
    inputs = [[Key(base)] for base in bases]
    for step in steps:
        inputs = [[Key(graph.add(digest_of(step), inputs))]]
    return graph


def divergence(a: RecordGraph, b: RecordGraph) -> tuple[str, int, str | None, int | None]:
    found = compare(a, b).divergence
    assert found is not None
    return found.digest, found.depth, found.counterpart, found.input


def test_chains_part_at_a_root() -> None:
    assert divergence(chain(10, 11), chain(10, 11, roots=(1, 3))) == (
        digest_of(3),
        0,
        digest_of(2),
        None,
    )


def test_of_several_roots_the_counterpart_is_used_for_the_same() -> None:
    found = divergence(chain(10, roots=(1, 2, 3, 4)), chain(10, roots=(1, 5, 3, 6)))
    assert found in {
        (digest_of(5), 0, digest_of(2), None),
        (digest_of(6), 0, digest_of(4), None),
    }


def test_a_new_root_beside_is_not_where_an_old_chain_parts() -> None:
    a, b = chain(10, 11), chain(10, 11, roots=(1, 3))
    for number in range(20, 60):
        b.add(digest_of(number))
    assert divergence(a, b)[0] == digest_of(3)


def test_chains_part_at_a_step() -> None:
    found = compare(chain(10, 11, 12), chain(10, 13, 12))
    assert found.divergence is not None
    assert found.divergence.reason == "digest differs"
    assert divergence(chain(10, 11, 12), chain(10, 13, 12)) == (
        digest_of(13),
        2,
        digest_of(11),
        None,
    )


def test_chains_part_at_an_input() -> None:
    a, b = chain(roots=(1, 2, 3)), chain(roots=(1, 2, 3))
    a.add(digest_of(10), [[Key(0)], [Key(1, "/a")]])
    b.add(digest_of(10), [[Key(0)], [Key(2, "/a")]])
    assert divergence(a, b) == (digest_of(10), 1, digest_of(10), 1)
    c = chain(roots=(1, 2, 3))
    c.add(digest_of(10), [[Key(0)], [Key(1, "/b")]])
    assert divergence(a, c) == (digest_of(10), 1, digest_of(10), 1)
    d = chain(roots=(1, 2, 3))
    d.add(digest_of(10), [[Key(0)], [Key(1, "/a")], [Key(2)]])
    found = compare(a, d).divergence
    assert found is not None
    assert (found.input, found.reason) == (2, "it has 3 inputs, not 2")


def test_what_is_only_longer_has_nothing_in_its_place() -> None:
    found = compare(chain(10), chain(10, 11)).divergence
    assert found is not None
    assert (found.digest, found.counterpart) == (digest_of(11), None)
    assert found.reason == "there is no counterpart"
    assert compare(chain(10, 11), chain(10)).divergence is None


def test_a_result_that_one_lacks_differs_and_its_time_does_not() -> None:
    sides = []
    for created_at in (EARLY, LATE):
        graph = chain(10)
        layer = graph.add_layer(digest_of(100), size=7, created_at=created_at)
        graph.add_result(2, layer, created_at)
        sides.append(graph)
    assert compare(*sides).is_equal
    bare = chain(10)
    bare.add_layer(digest_of(100), size=7, created_at=EARLY)
    found = compare(bare, sides[0])
    assert not found.is_equal
    assert (found.results.gained, found.results.lost) == ([digest_of(10)], [])
    assert compare(sides[0], bare).results.lost == [digest_of(10)]


def test_deep_and_wide_graphs_are_compared() -> None:
    found = compare(chain(*range(10, 20_000)), chain(*range(10, 19_999), 3))
    assert (found.records.gained, found.records.lost) == ([digest_of(3)], [digest_of(19_999)])
    wide = [chain(roots=tuple(range(start, start + 20_000))) for start in (0, 20_000)]
    assert len(compare(*wide).records.gained) == 20_000


@given(graphs(), graphs())
def test_swapping_the_sides_swaps_gained_and_lost(a: RecordGraph, b: RecordGraph) -> None:
    there, back = compare(a, b), compare(b, a)
    for one, other in (
        (there.records, back.records),
        (there.results, back.results),
        (there.layers, back.layers),
        (there.blobs, back.blobs),
    ):
        assert (one.gained, one.lost, one.kept) == (other.lost, other.gained, other.kept)
    assert (there.gained, there.lost) == (back.lost, back.gained)
    assert (there.divergence is None) == (not there.records.gained)


@given(graphs(), st.integers(0, 1000))
def test_the_order_of_records_is_no_difference(graph: RecordGraph, seed: int) -> None:
    other = shuffled(graph, random.Random(seed))  # noqa: S311 - any order
    assert compare(graph, other).is_equal


# --- the command ---------------------------------------------------------------------------------


def test_two_names_and_two_caches(keyed: str, recorded: Path) -> None:
    oci = f"type=local,src={recorded / 'local-max'}"
    assert call("diff", keyed, "--name", "app", "--name", "app-v2").return_value == 1
    assert call("diff", f"type=fsspec,url={keyed},name=app;app-v2").return_value == 1
    assert call("diff", keyed, keyed).return_value == 0
    assert call("diff", keyed, keyed, "--name", "app").return_value == 0
    assert call("diff", keyed, oci, "--name", "app", "--name", "latest").return_value == 0
    assert call("diff", keyed, oci, "--name", "app-v2", "--name", "latest").return_value == 1


def test_the_table_and_the_document_say_the_same(keyed: str) -> None:
    cache = cachefs.open(keyed)
    found = cache.with_names("app").diff(cache.with_names("app-v2"))
    arguments = (keyed, "--name", "app", "--name", "app-v2")
    document = json.loads(call("diff", "--json", *arguments).output)
    assert document["records"]["gained"] == found.records.gained
    assert document["divergence"]["reason"] == "digest differs"
    assert document["equal"] is False
    assert "sha256:" not in call("diff", *arguments).output
    text = call("diff", "--details", *arguments).output
    rows = [line.split() for line in text.splitlines()]
    assert ["records", *map(str, (len(found.records.gained), len(found.records.lost)))] == next(
        row[:3] for row in rows if row[:1] == ["records"]
    )
    assert [row[2] for row in rows if row[:2] == ["+", "layer"]] == found.layers.gained
    assert text.splitlines()[-1].startswith("the chains diverge at record sha256:")


def test_names_come_first(keyed: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        shutil.copytree(keyed, folder)
    manifests = second / "manifests"
    shutil.copy(manifests / "app-v2", manifests / "new")
    shutil.copy(first / "manifests" / "app", first / "manifests" / "same")
    shutil.copy(first / "manifests" / "app", manifests / "same")
    (manifests / "app").replace(manifests / "app-v2")
    found = cachefs.open(first).diff(second)
    expected = cachefs.NamesDiff(gained=["new"], lost=["app"], changed=["app-v2"], kept=1)
    assert found.names == expected
    lines = call("diff", str(first), str(second)).output.splitlines()
    marked = [["+", "new"], ["-", "app"], ["~", "app-v2"]]
    assert [line.split()[:2] for line in lines[1:4]] == marked
    assert lines[5] == "1 name the same"
    # Everything is there under other names, which is a difference too.
    assert found.records.gained == found.records.lost == []
    assert not found.is_equal
    assert call("diff", str(first), str(second)).return_value == 1
    assert call("diff", keyed, keyed).output.startswith("equal: 2 names, ")


@pytest.mark.parametrize(
    "arguments",
    [(), ("--name", "app"), ("--name", "a", "--name", "b", "--name", "c"), ("x", "y")],
)
def test_what_is_no_pair_is_a_mistake(keyed: str, arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(program, ["diff", keyed, *arguments]).exit_code == 2


def test_a_name_that_is_not_there_is_a_mistake_and_damage_is_told(
    keyed: str, make_place: MakePlace
) -> None:
    cache = cachefs.open(keyed)
    with pytest.raises(cachefs.UsageError, match="there is no absent, gone to compare"):
        cache.with_names(["gone", "app", "absent"]).diff(cache)
    place = make_place("keyed")
    place.objects["manifests/app"] = b"{"
    with pytest.raises(cachefs.ManifestError):
        place.cache.diff(cachefs.open(keyed))
