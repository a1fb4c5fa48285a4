"""The rules of validity: each is stated once, whether it is checked of all values or of one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cachefs
from cachefs.graph import RecordGraph
from cachefs.wire import rules
from cachefs.wire.cacheconfig import (
    NO_PARENT,
    Annotations,
    CacheConfig,
    Chain,
    Layer,
    LayerIndex,
    Link,
    Record,
    RecordIndex,
    Result,
)
from cachefs.wire.rules import check
from tests.graphs import digest_of, graphs

WHEN = "2026-11-23T09:08:17.405831881Z"
INDEXES = st.integers(-3, 15) | st.sampled_from([2**63, -(2**63), 2**70])
TEXTS = st.sampled_from(
    [WHEN, "", digest_of(1), f"{WHEN}\n", f"{WHEN}\n{WHEN}", digest_of(1)[:-1], digest_of(2) + "\n"]
) | st.text(max_size=4)


def is_valid(config: CacheConfig) -> bool:
    try:
        check(config)
    except cachefs.ManifestError:
        return False
    return True


def values_are_valid_one_by_one(config: CacheConfig) -> bool:
    """As :func:`check`, but for loops, with one value of one layer or record at a time."""
    return all(
        rule.valid([value], config)
        for kind in (*rules._KINDS, rules._LINKS)
        for owner in rules._owners(kind, config)
        for rule in kind.rules
        for value in rule.values(kind.parts([owner]))
    )


def values_are_valid_together(config: CacheConfig) -> bool:
    return all(
        rule.valid(rule.values(kind.parts(rules._owners(kind, config))), config)
        for kind in (*rules._KINDS, rules._LINKS)
        for rule in kind.rules
    )


def mutate(config: CacheConfig, data: st.DataObject) -> None:
    """Change one value somewhere."""
    layer = Layer(data.draw(TEXTS), data.draw(INDEXES))
    if data.draw(st.booleans()):
        layer.annotations = Annotations(size=data.draw(INDEXES), created_at=data.draw(TEXTS))
    result = Result(data.draw(INDEXES), data.draw(TEXTS))
    chained = Chain(layers=(data.draw(INDEXES),), created_at=data.draw(TEXTS))
    inputs = data.draw(st.sampled_from([(), ((),), ((Link(link=data.draw(INDEXES)),),)]))
    record = Record((result,), (chained,), "d", inputs)
    new: Any = data.draw(st.sampled_from([layer, record]))
    items: Any = config.layers if new is layer else config.records
    if not items:
        items.append(new)
        return
    at = data.draw(st.integers(0, len(items) - 1))
    field = data.draw(st.sampled_from(new.__struct_fields__))
    setattr(items[at], field, getattr(new, field))


@given(graphs(6), st.data())
def test_what_is_valid_together_is_valid_one_by_one(
    graph: cachefs.RecordGraph, data: st.DataObject
) -> None:
    config = graph.to_config()
    assert values_are_valid_together(config)
    mutate(config, data)
    together = values_are_valid_together(config)
    assert together == values_are_valid_one_by_one(config)
    if not together:
        with pytest.raises(
            cachefs.ManifestError, match=r"(layer|record) \d+(:| has| names| links)"
        ):
            check(config)


@pytest.mark.parametrize("size", [float("nan"), -1])
def test_a_size_that_is_not_one_is_refused(size: float) -> None:
    """The check of all sizes refused it, that of one found no fault, and so it was accepted."""
    facts = Annotations(size=size, created_at=WHEN)  # type: ignore[arg-type]
    assert not is_valid(CacheConfig([Layer(digest_of(1), -1, facts)], []))


def test_what_is_refused_without_a_culprit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "all_timestamps", lambda texts: len(texts) < 2)
    records = [Record((Result(0, f"202{i}-01-01T00:00:00Z"),), (), str(i)) for i in range(2)]
    config = CacheConfig([Layer(digest_of(1), -1)], records)
    with pytest.raises(cachefs.ManifestError, match="records of the manifest are not valid"):
        check(config)


@pytest.mark.parametrize("number", [10**4000, -(10**4000), 2**64])
def test_a_long_number_is_not_shown(number: int) -> None:
    zero = Annotations(size=-abs(number), created_at=WHEN)
    for config in (
        CacheConfig([Layer(digest_of(1), LayerIndex(number))], []),
        CacheConfig([Layer(digest_of(1), NO_PARENT, zero)], []),
        CacheConfig([], [Record(layers=(Result(LayerIndex(number), WHEN),), digest="d")]),
        CacheConfig([], [Record(digest="d", inputs=((Link(link=RecordIndex(number)),),))]),
    ):
        with pytest.raises(cachefs.ManifestError, match="beyond 64 bits") as caught:
            check(config)
        assert len(str(caught.value)) < 100


@pytest.mark.parametrize("text", ["x", "sha256:", "sha256:" + "A" * 64, digest_of(1) + "\n"])
def test_a_diff_id_that_is_no_digest_is_unknown(text: str) -> None:
    facts = Annotations(diff_id=text, size=3, created_at=WHEN)
    config = CacheConfig([Layer(digest_of(1), NO_PARENT, facts)], [])
    check(config)
    assert config.layers[0].diff_id == ""
    whole = Annotations(diff_id=digest_of(2), size=3, created_at="2020-01-01T00:00:00Z")
    other = CacheConfig([Layer(digest_of(1), NO_PARENT, whole)], [])
    for configs in ([config, other], [other, config]):
        merged = RecordGraph.union([RecordGraph(each) for each in configs])
        assert [layer.annotations.diff_id for layer in merged.layers if layer.annotations] == [
            digest_of(2)
        ]
