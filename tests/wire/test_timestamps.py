"""Times: every text that is accepted as one can be compared, and only real days are accepted."""

from __future__ import annotations

import calendar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefs.errors import ManifestError
from cachefs.graph import RecordGraph
from cachefs.wire import timestamps
from cachefs.wire.codec import decode

WILD = st.from_regex(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,10})?(Z|[+-][0-9]{2}:[0-9]{2})",
    fullmatch=True,
)
YEARS = st.integers(0, 9999)


@given(WILD)
def test_what_passes_as_a_time_can_be_compared(text: str) -> None:
    if timestamps.is_timestamp(text):
        timestamps.nanoseconds(text)


@given(YEARS, st.integers(0, 13), st.integers(0, 32))
def test_just_the_days_of_the_calendar_pass(year: int, month: int, day: int) -> None:
    real = year >= 1 and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]
    assert timestamps.is_timestamp(f"{year:04}-{month:02}-{day:02}T00:00:00Z") == real


@given(st.lists(WILD, max_size=5))
def test_a_column_passes_when_each_of_its_texts_does(texts: list[str]) -> None:
    assert timestamps.all_timestamps(texts) == all(map(timestamps.is_timestamp, texts))


@given(WILD)
def test_what_passes_as_a_time_can_be_shown(text: str) -> None:
    if timestamps.is_timestamp(text):
        shown = timestamps.in_utc(text)
        assert timestamps.is_timestamp(shown)
        assert timestamps.nanoseconds(shown) // 10**9 == timestamps.nanoseconds(text) // 10**9


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0001-01-01T00:00:00+01:00", "0001-01-01T00:00:00+01:00"),
        ("9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59-23:59"),
        ("0001-01-01T01:00:00+01:00", "0001-01-01T00:00:00Z"),
        ("0999-12-31T23:00:00.5-01:00", "1000-01-01T00:00:00Z"),
        ("2026-01-02T03:04:05.6+01:00", "2026-01-02T02:04:05Z"),
    ],
)
def test_a_time_is_shown_in_utc_if_that_is_possible(text: str, shown: str) -> None:
    assert timestamps.in_utc(text) == shown


@given(st.integers(-62_135_596_800 * 10**9, 253_402_300_800 * 10**9 - 1))
def test_nanoseconds_and_text_are_the_same_moment(value: int) -> None:
    assert timestamps.nanoseconds(timestamps.from_nanoseconds(value)) == value


@pytest.mark.parametrize("text", ["2026-02-30T00:00:00Z", "0000-01-01T00:00:00Z"])
def test_a_manifest_with_a_day_that_never_was_is_refused(text: str) -> None:
    raw = b'{"records":[{"chains":[{"createdAt":"%s"}],"digest":"d"}]}' % text.encode()
    with pytest.raises(ManifestError, match="record 0"):
        RecordGraph(decode(raw)).results([0])
