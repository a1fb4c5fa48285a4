"""Tables fit the terminal, and no word in them is broken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from cachefs.cli.tables import table

COLUMNS = ["name", "written", "size", "reason"]
WORDS = st.text("abc-/日本", min_size=1, max_size=14)
TEXTS = st.lists(WORDS, max_size=8).map(" ".join)
ROWS = st.lists(st.tuples(WORDS, st.just("25 days ago"), WORDS, TEXTS), min_size=1, max_size=4)


def drawn(rows: list[tuple[str, ...]], room: int | None) -> list[str]:
    return list(table(COLUMNS, rows, ["size"], room))


@given(ROWS, st.integers(20, 130))
def test_every_line_fits_and_every_word_is_whole(rows: list[tuple[str, ...]], room: int) -> None:
    lines = drawn(rows, room)
    assert max(map(cell_len, lines)) <= room
    shown = " ".join(lines).split()
    for row in rows:
        for cell in row:
            for word in cell.split():
                assert word in shown if cell_len(word) <= room else word in "".join(shown)


@given(ROWS)
def test_a_pipe_gets_one_line_for_each_row(rows: list[tuple[str, ...]]) -> None:
    heading, *lines = drawn(rows, None)
    assert heading.split() == COLUMNS
    assert len(lines) == len(rows)
    assert [line.split()[0] for line in lines] == [row[0] for row in rows]


def test_wide_characters_are_aligned() -> None:
    lines = drawn([("日本語", "now", "1 B", "x"), ("abcdef", "now", "1 B", "x")], None)
    assert len({cell_len(line[: line.index("now")]) for line in lines[1:]}) == 1
    assert len({cell_len(line) for line in lines[1:]}) == 1


def test_a_long_name_has_its_own_line_above_its_figures() -> None:
    name = "feature/a-name-that-is-longer-than-there-is-room"
    assert drawn([("main", "now", "1 B", ""), (name, "a day ago", "10 KiB", "")], 60) == [
        f"{'name':33}  written      size  reason",
        f"{'main':33}  now           1 B",
        name,
        f"{'':33}  a day ago  10 KiB",
    ]


def test_prose_is_wrapped_at_spaces() -> None:
    reason = "the blob is in the store but its bytes do not have its digest"
    lines = drawn([("main", "now", "1 B", reason)], 50)
    assert max(map(len, lines)) <= 50
    assert [line[:4] for line in lines] == ["name", "main", "    ", "    "]
    assert " ".join(line[21:].strip() for line in lines[1:]) == reason


@pytest.mark.parametrize("room", [10, 24, 80])
def test_a_name_longer_than_the_terminal_is_broken_after_separators(room: int) -> None:
    name = "a-name/" * 20
    lines = drawn([(name, "", "", "")], room)
    parts = [line for line in lines if "/" in line]
    assert "".join(parts) == name
    assert all(part.endswith(("-", "/")) for part in parts)


def test_what_a_terminal_would_act_on_is_escaped() -> None:
    (line,) = drawn([("a\x1b[31m\u202eb\x9b\ud800", "", "", "")], None)[1:]
    assert line == r"a\x1b[31m\u202eb\x9b\ud800"
