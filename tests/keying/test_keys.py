"""Keys: two different steps never share one, and orders without a meaning do not matter."""

from __future__ import annotations

import types
from collections import ChainMap

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cachefs.keying.keys import (
    Definition,
    Entry,
    content_key,
    environment,
    selector,
    tree_digest,
)

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4)
DEFINITIONS = st.builds(
    Definition,
    action=st.lists(st.binary(max_size=3), max_size=3).map(tuple),
    inputs=st.lists(WORDS, max_size=3, unique=True).map(tuple),
    outputs=st.lists(WORDS, max_size=3, unique=True).map(tuple),
    environment=st.dictionaries(WORDS, st.none() | WORDS, max_size=2),
    platform=WORDS,
)
TREES = st.dictionaries(
    st.binary(max_size=3),
    st.builds(Entry, st.sampled_from("fxld"), st.binary(max_size=3)),
    max_size=3,
)


def _meaning(definition: Definition) -> object:
    return (
        definition.action,
        frozenset(definition.inputs),
        frozenset(definition.outputs),
        frozenset(definition.environment.items()),
        definition.platform,
    )


@given(DEFINITIONS, DEFINITIONS)
def test_definitions_share_a_digest_only_when_they_mean_the_same(
    one: Definition, other: Definition
) -> None:
    assert (one.digest() == other.digest()) == (_meaning(one) == _meaning(other))


@given(DEFINITIONS)
def test_orders_do_not_matter(one: Definition) -> None:
    shuffled = Definition(
        action=one.action,
        inputs=tuple(reversed(one.inputs)),
        outputs=tuple(reversed(one.outputs)),
        environment=dict(reversed(list(one.environment.items()))),
        platform=one.platform,
    )
    assert shuffled.digest() == one.digest()


@given(st.lists(st.binary(max_size=3), max_size=4), st.lists(st.binary(max_size=3), max_size=4))
def test_the_words_of_a_command_do_not_run_together(one: list[bytes], other: list[bytes]) -> None:
    assume(one != other)
    empty: dict[str, str | None] = {}
    keys = {
        Definition(action=tuple(words), inputs=(), outputs=(), environment=empty).digest()
        for words in (one, other)
    }
    assert len(keys) == 2


@given(TREES, TREES)
def test_trees_share_a_digest_only_when_equal(
    one: dict[bytes, Entry], other: dict[bytes, Entry]
) -> None:
    assert (tree_digest(one) == tree_digest(other)) == (one == other)
    assert tree_digest(dict(reversed(list(one.items())))) == tree_digest(one)


@given(WORDS)
def test_kinds_of_keys_are_apart(text: str) -> None:
    assert content_key(text) != selector(text)
    assert (selector(text) == "") == (text == "")


@pytest.mark.parametrize("kind", [dict, ChainMap, types.MappingProxyType])
def test_a_mapping_gives_its_own_values(monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    monkeypatch.setenv("SETTING", "of the process")
    assert environment(kind({"SETTING": "given"})) == {"SETTING": "given"}
    assert environment(["SETTING"]) == {"SETTING": "of the process"}
