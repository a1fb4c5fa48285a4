"""Values as parts of keys: one key for equal values of one type, and for nothing else."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import subprocess
import sys
import uuid
import zoneinfo
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefs.errors import UsageError
from cachefs.keying.values import NoKeyError, canonical


@dataclass
class Point:
    x: Any
    y: Any


@dataclass
class OtherPoint:
    x: Any
    y: Any


class Struct(msgspec.Struct):
    x: Any
    y: Any


class Pair(NamedTuple):
    x: Any
    y: Any


class Colour(enum.IntEnum):
    RED = 1


class Mode(enum.Flag):
    A = 1
    B = 2


NAIVE = dt.datetime(2026, 1, 1)  # noqa: DTZ001 - people have such values

DISTINCT: list[Any] = [
    *(None, ..., True, False, 1, 0, -1, 2**64, -(2**64), 1.0, 0.0, -0.0, float("nan"), 1j),
    *("", "1", "é", "\udce9", b"", b"1", bytearray(b"1"), range(3), range(0, 3, 2)),
    *((), (1,), [], [1], [[1]], [1, [2]], [[1], 2], {}, {1: 2}, {"1": 2}, {"a": None}),
    *(set(), {1}, frozenset(), frozenset({1}), (1, 2), [1, 2], {1, 2}),
    *(Point(1, 2), OtherPoint(1, 2), Struct(1, 2), Pair(1, 2), Point(1, [2])),
    *(Colour.RED, Mode.A, Mode.B, Mode.A | Mode.B),
    *(dt.date(2026, 1, 1), NAIVE, NAIVE.replace(fold=1), dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
    dt.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("Africa/Abidjan")),
    *(dt.time(1), dt.timedelta(1), decimal.Decimal("1.0"), decimal.Decimal("1.00")),
    *(uuid.UUID(int=1), PurePosixPath("a"), PurePosixPath("b")),
]


def test_different_values_have_different_keys() -> None:
    keys = {canonical(value, "it"): value for value in DISTINCT}
    assert len(keys) == len(DISTINCT)
    assert [canonical(value, "other words") for value in DISTINCT] == list(keys)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(PLAIN, PLAIN)
def test_keys_are_equal_for_values_that_print_the_same(one: Any, other: Any) -> None:
    def sorted_deep(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: sorted_deep(value[key]) for key in sorted(value)}
        return type(value)(map(sorted_deep, value)) if isinstance(value, list | tuple) else value

    same = repr(sorted_deep(one)) == repr(sorted_deep(other))
    assert (canonical(one, "") == canonical(other, "")) == same


def test_the_order_of_dicts_and_sets_does_not_count() -> None:
    assert canonical({"a": 1, "b": 2}, "") == canonical({"b": 2, "a": 1}, "")
    program = "from cachefs.keying.values import canonical as c; print(c({'a','b','c'}, '').hex())"
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert said == {canonical({"c", "b", "a"}, "").hex().encode() + b"\n"}


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (object(), "argument 'x' is of type object"),
        (print, "argument 'x' is of type builtin_function_or_method"),
        (Text("a"), "argument 'x' is of type tests.keying.test_values.Text"),
        ([1, {"a": [object()]}], "argument 'x'[1]['a'][0] is of type object"),
        ({(object(),): 1}, "argument 'x' (a key)[0] is of type object"),
        (Point(1, object()), "argument 'x'.y is of type object"),
        ((one for one in ()), "argument 'x' is of type generator"),
    ],
)
def test_other_values_are_refused_in_one_line(value: Any, where: str) -> None:
    with pytest.raises(NoKeyError) as caught:
        canonical(value, "argument 'x'")
    assert str(caught.value).startswith(f"{where}, which has no key: pass what it is made of")
    assert "\n" not in str(caught.value)


def test_what_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(NoKeyError, match="deep"):
        canonical(endless, "it")


def test_a_path_counts_by_name_and_content(tmp_path: Path) -> None:
    one, other = tmp_path / "a" / "x.csv", tmp_path / "b" / "x.csv"
    for path in (one, other):
        path.parent.mkdir()
        path.write_text("1,2\n")
    before = canonical(one, "")
    assert before == canonical(other, "")
    assert before != canonical(one.rename(one.with_suffix(".txt")), "")
    assert canonical(tmp_path / "b", "") != canonical(tmp_path / "a", "")
    other.write_text("1,3\n")
    assert before != canonical(other, "")
    with pytest.raises(UsageError, match=r"argument 'x': .*does not exist; a Path counts by its"):
        canonical(tmp_path / "none", "argument 'x'")
    with pytest.raises(NoKeyError, match="pass it as an argument"):
        canonical(other, "the global 'X'", files=False)


def test_tables_and_arrays_count_by_content() -> None:
    np, pd, pa = map(pytest.importorskip, ("numpy", "pandas", "pyarrow"))
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    distinct = [
        *(np.int64(1), np.float64(1), np.array(1), np.array([1, 2]), np.array([[1, 2]])),
        *(np.array([1, 2], dtype="i4"), np.array([1, 2], dtype=">i8"), np.array([], dtype=int)),
        *(np.array(["a", 1], dtype=object), np.array(["a"]), np.array(["2020"], dtype="M8[D]")),
        *(frame, frame.set_index("a"), frame.rename(columns={"a": "c"}), frame["a"], frame[:1]),
        *(frame.astype({"a": "int32"}), frame.assign(b=frame["b"].astype("category"))),
        *(pa.Table.from_pandas(frame), pa.table({"a": [1, 2]}), pa.array([1, 2])),
        *(pa.table({"a": pa.array([1, 2], pa.int8())}), pd.Timestamp("2020"), pd.Timedelta(1)),
    ]
    assert len({canonical(value, "it") for value in distinct}) == len(distinct)
    for one, other in [
        (np.arange(10)[::2], np.array([0, 2, 4, 6, 8])),
        (np.ones((2, 3), order="F"), np.ones((2, 3))),
        (frame[:1], pd.DataFrame({"a": [1], "b": ["x"]})),
        (pa.table({"a": pa.chunked_array([[1], [2]])}), pa.table({"a": [1, 2]})),
        (pa.table({"a": [0, 1, 2]}).slice(1), pa.table({"a": [1, 2]})),
    ]:
        assert canonical(one, "") == canonical(other, "")
    for value in (pd.DataFrame({"a": [object()]}), np.array([object()]), np.ma.array([1])):
        with pytest.raises(NoKeyError, match=r"^it[: .]") as caught:
            canonical(value, "it")
        assert "\n" not in str(caught.value)
