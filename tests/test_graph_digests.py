"""Look-ups by digest, however many records share one, in graphs that are read and that grow."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

import cachefs
from cachefs.digest import all_digests
from cachefs.errors import DigestError
from cachefs.wire.cacheconfig import CacheConfig, Record

DIGESTS = [f"sha256:{number:064x}" for number in range(3)]
NUMBERS = st.lists(st.integers(0, 2))


def is_digest(text: str) -> bool:
    try:
        cachefs.Digest(text)
    except DigestError:
        return False
    return True


@given(read=NUMBERS, added=NUMBERS, asked=st.booleans())
def test_every_record_with_the_digest_is_found(
    read: list[int], added: list[int], asked: bool
) -> None:
    """The index is right whether it was made before the graph grew or after."""
    graph = cachefs.RecordGraph(CacheConfig([], [Record((), (), DIGESTS[n]) for n in read]))
    if asked:
        graph.find(DIGESTS[0])
    before = graph.add("sha256:" + "f" * 64)
    for number in added:
        # With another input each time, so that it is a separate record.
        before = graph.add(DIGESTS[number], [[cachefs.Key(before)]])
    for digest in DIGESTS:
        every = {i for i, record in enumerate(graph.records) if record.digest == digest}
        without_inputs = {i for i in every if not graph.records[i].inputs}
        assert graph.find(digest).records == without_inputs
        anything = [[cachefs.Key(i) for i in range(len(graph.records))]]
        assert graph.find(digest, anything).records == every - without_inputs


HEXADECIMAL = "0123456789abcdef"
NEAR = st.one_of(
    st.text(HEXADECIMAL, min_size=64, max_size=64).map("sha256:".__add__),
    st.text(HEXADECIMAL + "sha:GF \né", min_size=62, max_size=72).map("sha256:".__add__),
    st.text(HEXADECIMAL + "sha:\n", min_size=70, max_size=72),
)


@given(st.lists(NEAR, max_size=4))
def test_all_are_digests_when_each_is(texts: list[str]) -> None:
    assert all_digests(texts) == all(map(is_digest, texts))


def test_two_texts_do_not_make_up_for_each_other() -> None:
    good = DIGESTS[0]
    for texts in ([good[:-1], good + "0"], [good, "sha256:sha256:" + "0" * 57], ["a" * 71, good]):
        assert not all_digests(texts)
