"""Cached functions: hits are exact, and whatever goes wrong with a cache costs no call."""

from __future__ import annotations

import asyncio
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import cachefs
from cachefs import Files, UsageError, cached
from cachefs.calls import store as call_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers.proxy import RecordingProxy
    from tests.servers.s3 import S3Server


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


@pytest.fixture(autouse=True)
def _nothing_open() -> Iterator[None]:
    yield
    call_store._opened.clear()


class Counting:
    """Makes cached functions anew, as each process does, and counts the calls of all of them."""

    def __init__(self, **options: Any) -> None:
        self.calls: list[Any] = []
        self.options = options

    def __call__(self, returns: Callable[[Any], Any], kind: Any = None) -> Any:
        def work(x: Any, *, verbose: bool = False) -> Any:
            self.calls.append(x)
            return returns(x)

        if kind is not None:
            work.__annotations__["return"] = kind
        return cached(**{"version": "1", **self.options})(work)


@dataclass
class Row:
    name: str
    values: tuple[int, ...]


class Struct(msgspec.Struct):
    when: set[int]


RESULTS: list[tuple[Any, Any]] = [
    (None, None),
    ({"a": [1, 2.5, "x", None, True, {}]}, None),
    ([2**60, -1, "é\0"], None),
    ((1, "a"), tuple[int, str]),
    ({1: "a"}, dict[int, str]),
    ({1, 2}, set[int]),
    (b"\0\xff", bytes),
    (Row("a", (1, 2)), Row),
    ([Struct({1})], list[Struct]),
]


@pytest.mark.parametrize(("value", "kind"), RESULTS)
def test_a_hit_returns_an_exact_copy(cache: str, value: Any, kind: Any) -> None:
    make = Counting(cache=cache)
    first = make(lambda _: value, kind)
    assert first(1) == value
    in_memory, stored = first(1), make(lambda _: value, kind)(1)
    for again in (in_memory, stored):
        assert (again, type(again)) == (value, type(value))
        assert again is not value or value is None
    assert make.calls == [1]
    assert first.cache_info() == (1, 1, 1, 0)


@pytest.mark.parametrize(
    ("value", "kind", "why"),
    [
        ((1, 2), None, "JSON would change it from tuple to list; annotate the return type"),
        ({"a": [1, (2,)]}, None, 'JSON would change it["a"][1] from tuple to list'),
        ({1: 2}, None, "JSON would change keys of it"),
        (float("nan"), None, "JSON would change it from float to NoneType"),
        ({1}, None, "JSON would change it from set to list"),
        (True, int, "it cannot be JSON: Expected `int`, got `bool`"),
        (object(), None, "it cannot be JSON"),
        (Row("a", [1]), Row, "JSON would change it"),  # type: ignore[arg-type]
    ],
)
def test_what_would_not_come_back_exactly_is_told_and_not_kept(
    cache: str, caplog: pytest.LogCaptureFixture, value: Any, kind: Any, why: str
) -> None:
    make = Counting(cache=cache)
    function = make(lambda _: value, kind)
    assert function(1) is value
    assert function(1) is value
    assert make.calls == [1, 1]
    assert function.cache_info() == (0, 0, 2, 2)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert f"is not kept: {why}" in warnings[0]
    assert cachefs.open(cache).names() == []


def test_arguments_are_bound_before_they_count(cache: str) -> None:
    @cached(cache=cache)
    def add(x: int, y: int = 2, *more: int, **named: int) -> int:
        return x + y + sum(more) + sum(named.values())

    assert add.key(1) == add.key(1, 2) == add.key(y=2, x=1)
    assert add.key(1, a=1, b=2) == add.key(1, b=2, a=1)
    assert len({add.key(1), add.key(2), add.key(1, 2, 0), add.key(1, z=0), add.key(1.0)}) == 5  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        add()  # type: ignore[call-arg]
    with pytest.raises(UsageError, match=r"argument 'x' of .*add is of type object"):
        add(object())  # type: ignore[arg-type]


def test_what_is_ignored_does_not_count(cache: str) -> None:
    make = Counting(cache=cache, ignore=["verbose"])
    function = make(lambda x: x)
    assert function(1) == function(1, verbose=True) == 1
    assert make.calls == [1]
    with pytest.raises(UsageError, match="has no parameter 'no' to ignore"):
        cached(ignore=["no"])(lambda x: x)


def test_refresh_replaces_what_is_kept(cache: str) -> None:
    numbers = iter([10, 20])
    make = Counting(cache=cache)
    function = make(lambda _: next(numbers))
    assert [function(1), function(1), function.refresh(1), function(1)] == [10, 10, 20, 20]
    assert make(lambda _: 0)(1) == 20
    assert make.calls == [1, 1]


def test_exceptions_are_not_kept(cache: str) -> None:
    make = Counting(cache=cache)
    function = make(lambda x: 1 // x)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            function(0)
    assert make.calls == [0, 0]


LIMIT = 1


@cached(version="1")
def limited(x: int) -> int:
    return x * LIMIT


def test_a_constant_counts_when_the_function_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    before = limited.key(1)
    monkeypatch.setitem(globals(), "LIMIT", 2)
    assert limited.key(1) != before


calls: list[int] = []


def noting(x: int) -> int:
    calls.append(x)
    return x


def test_a_list_that_the_function_fills_does_not_count_with_a_version(
    cache: str, caplog: pytest.LogCaptureFixture
) -> None:
    calls.clear()
    assert [cached(cache=cache, version="1")(noting)(1) for _ in range(2)] == [1, 1]
    assert calls == [1]
    cached(cache=cache)(noting)(2)
    assert "a global that it reads changed while it ran; give version=" in caplog.text


def test_arguments_that_the_function_changes_are_told(
    cache: str, caplog: pytest.LogCaptureFixture
) -> None:
    make = Counting(cache=cache)
    assert make(lambda x: x.pop())([1, 2]) == 2
    assert "is not kept: its arguments changed while it ran" in caplog.text


def test_files_that_arguments_name_count(cache: str, tmp_path: Path) -> None:
    make = Counting(cache=cache)
    function = make(lambda path: path.read_text())
    path = tmp_path / "in.txt"
    said = []
    for text in ("one", "one", "two"):
        path.write_text(text)
        said.append(function(path))
    assert said == ["one", "one", "two"]
    assert len(make.calls) == 2


def test_files_are_put_back_where_they_were(cache: str, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def write(x: Any) -> Path:
        path = out / "deep" / "tree"
        (path / "empty").mkdir(parents=True, exist_ok=True)
        (path / "a.txt").write_text(str(x))
        return path

    make = Counting(cache=cache, serializer=Files(out))
    function = make(write)
    assert [function(x) / "a.txt" for x in (1, 2, 1)] == [out / "deep" / "tree" / "a.txt"] * 3
    assert (out / "deep" / "tree" / "a.txt").read_text() == "1"
    assert make.calls == [1, 2]
    assert sorted(path.name for path in out.rglob("*")) == ["a.txt", "deep", "empty", "tree"]


@pytest.mark.parametrize("returned", ["/usr", "out", "out/../secret", "out/none", 5])
def test_other_paths_are_told_and_not_kept(
    cache: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, returned: Any
) -> None:
    (tmp_path / "out").mkdir()
    make = Counting(cache=cache, serializer=Files(tmp_path / "out"))
    value = tmp_path / returned if isinstance(returned, str) else returned
    assert make(lambda _: value)(1) == value
    assert "not kept" in caplog.text
    assert cachefs.open(cache).names() == []


def _tables() -> list[Any]:
    pd, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=[5, 6])
    return [frame, frame["b"], frame.assign(c=frame["b"].astype("category")), pa.table({"a": [1]})]


@pytest.mark.parametrize("stored_as", ["arrow", "parquet", None])
def test_tables_come_back_exactly(cache: str, stored_as: Any) -> None:
    tables = _tables()
    for index, table in enumerate(tables):
        make = Counting(cache=cache, serializer=cachefs.Table(stored_as) if stored_as else None)
        results = [make(tables.__getitem__, type(table))(index) for _ in range(2)]
        assert make.calls == [index]
        assert type(results[1]) is type(table)
        assert results[1].equals(table)


def test_arrays_come_back_exactly(cache: str, caplog: pytest.LogCaptureFixture) -> None:
    np = pytest.importorskip("numpy")
    make = Counting(cache=cache)
    array = np.arange(6, dtype="i2").reshape(2, 3)
    for _ in range(2):
        found = make(lambda _: array, np.ndarray)(1)
        assert (found == array).all()
        assert found.dtype == array.dtype
    assert make.calls == [1]
    make(lambda _: np.array([object()]), np.ndarray)(2)
    assert "it cannot be an array" in caplog.text


class Upper:
    name = "upper"

    def dumps(self, value: str) -> bytes:
        return value.upper().encode()

    def loads(self, data: bytes) -> str:
        return data.decode()


class Lower(Upper):
    name = "lower"


class Failing(Upper):
    def loads(self, data: bytes) -> str:
        raise RuntimeError(f"cannot read {len(data)} byte")


def test_a_serializer_of_the_callers(cache: str, caplog: pytest.LogCaptureFixture) -> None:
    make = Counting(cache=cache, serializer=Upper())
    assert [make(str)("a") for _ in range(2)] == ["a", "A"]
    make.options["serializer"] = Lower()
    assert make(str)("a") == "a"  # another name is another key
    make.options["serializer"] = Failing()
    assert make(str)("a") == "a"
    assert "cannot be used: RuntimeError: cannot read 1 byte" in caplog.text
    for no_serializer in (object(), pickle, "json"):
        with pytest.raises(UsageError, match="is no serializer: it needs dumps"):
            cached(serializer=no_serializer)(noting)


class Exploding:
    def __reduce__(self) -> Any:
        return (exploded.append, (1,))


exploded: list[int] = []


def test_pickle_is_read_only_if_the_cache_is_trusted(cache: str) -> None:
    with pytest.raises(UsageError, match="runs code of everyone who may write to the cache"):
        cachefs.Pickle()
    make = Counting(cache=cache, serializer=cachefs.Pickle(trusted=True))
    assert [make(lambda _: {(1,): 1j})(1) for _ in range(2)] == [{(1,): 1j}] * 2
    assert make.calls == [1]
    exploded.clear()
    make(lambda _: Exploding())(2)  # stored, and not read by any other serializer:
    make.options["serializer"] = None
    assert make(lambda _: "safe")(2) == "safe"
    assert exploded == []


def test_concurrent_calls_run_once_and_share_nothing(cache: str) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(x: Any) -> Any:
        begun.set()
        assert go.wait(60)
        return [x]

    make = Counting(cache=cache)
    function = make(slow)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(function, 1) for _ in range(8)]
        assert begun.wait(60)
        go.set()
        results = [future.result() for future in futures]
    assert results == [[1]] * 8
    assert len({id(result) for result in results}) == 8
    assert make.calls == [1]
    assert sum(function.cache_info()[::2]) == 8


def test_concurrent_calls_share_an_exception_and_the_next_call_runs(cache: str) -> None:
    meeting = threading.Barrier(2, timeout=60)

    def fail(x: Any) -> Any:
        meeting.wait()
        raise LookupError(x)

    make = Counting(cache=cache)
    function = make(fail)
    with ThreadPoolExecutor(2) as pool:
        future = pool.submit(function, 1)
        meeting.wait()
        with pytest.raises(LookupError):
            future.result()
        future = pool.submit(function, 1)
        meeting.wait()
        with pytest.raises(LookupError):
            future.result()
    assert make.calls == [1, 1]


def test_a_call_within_itself_is_told(cache: str) -> None:
    make = Counting(cache=cache)
    function = make(lambda x: function(x) + 1)
    with pytest.raises(UsageError, match="calls itself with the same arguments"):
        function(1)
    deep = make(lambda x: x and deep(x - 1) + 1)
    assert deep(50) == 50  # more levels than the event loop has threads


def test_async_functions(cache: str) -> None:
    calls = []

    def make() -> Any:
        @cached(cache=cache, version="1")
        async def double(x: int) -> int:
            calls.append(x)
            await asyncio.sleep(0.05)
            if x < 0:
                raise LookupError
            return 2 * x

        return double

    async def all_of(function: Any, *numbers: int) -> list[Any]:
        work = [function(number) for number in numbers]
        return await asyncio.gather(*work, return_exceptions=True)

    first, second = make(), make()
    assert asyncio.run(all_of(first, 1, 1, 2)) == [2, 2, 4]
    assert asyncio.run(all_of(second, 1, 2)) == [2, 4]
    assert sorted(calls) == [1, 2]
    assert asyncio.run(first.refresh(1)) == 2
    failed = asyncio.run(all_of(first, -1, -1))
    assert [type(one) for one in failed] == [LookupError, LookupError]
    assert sorted(calls) == [-1, 1, 1, 2]


def test_when_the_running_call_is_cancelled_another_one_runs(cache: str) -> None:
    calls, begun = [], asyncio.Event()

    @cached(cache=cache, version="1")
    async def work(x: int) -> int:
        calls.append(x)
        begun.set()
        if len(calls) == 1:
            await asyncio.sleep(60)
        return x

    async def main() -> int:
        first = asyncio.create_task(work(1))  # type: ignore[arg-type]
        await begun.wait()
        second = asyncio.create_task(work(1))  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        first.cancel()
        return await second

    assert asyncio.run(main()) == 1
    assert calls == [1, 1]


def test_a_damaged_result_is_a_miss(cache: str, caplog: pytest.LogCaptureFixture) -> None:
    make = Counting(cache=cache)
    make(lambda x: x)(1)
    for manifest in (Path(cache) / "manifests").iterdir():
        manifest.write_bytes(b"{")
    assert make(lambda x: x)(1) == 1
    assert "cannot be read" in caplog.text
    assert make(lambda x: x)(1) == 1
    assert make.calls == [1, 1]
    for blob in (Path(cache) / "blobs").iterdir():
        blob.unlink()
    assert make(lambda x: x)(1) == 1
    assert make.calls == [1, 1, 1]
    (blob,) = (Path(cache) / "blobs").iterdir()
    blob.write_bytes(b"damaged" + blob.read_bytes()[7:])
    assert [make(lambda x: x)(1) for _ in range(2)] == [1, 1]
    assert make.calls == [1, 1, 1, 1]  # it was replaced
    assert cachefs.open(cache).verify(read_data=1.0).faults == []


def test_a_store_that_fails_costs_no_call_and_is_left_alone(
    moto_s3: S3Server,
    recording: Callable[[S3Server], RecordingProxy],
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxy = recording(moto_s3)
    location = proxy.server.attributes("no-such-bucket")
    make = Counting(cache=location)
    function = make(lambda x: x)
    assert [function(x) for x in range(3)] == [0, 1, 2]
    requests = len(proxy.requests)
    assert [function(x) for x in (10, 11)] == [10, 11]
    assert len(proxy.requests) == requests
    assert caplog.text.count("left alone for 60 seconds") == 1
    assert [function(x) for x in range(3)] == [0, 1, 2]
    assert len(make.calls) == 5  # they are still in memory


def test_a_hit_is_two_requests_and_then_none(
    moto_s3: S3Server, recording: Callable[[S3Server], RecordingProxy]
) -> None:
    proxy = recording(moto_s3)
    location = proxy.server.attributes(proxy.server.bucket())
    make = Counting(cache=location)
    make(lambda x: x)(1)
    proxy.clear()
    function = make(lambda x: x)
    for _ in range(5):
        assert function(1) == 1
    assert [request.method for request in proxy.requests] == ["GET", "GET"]
    assert cachefs.open(location).verify().faults == []


def test_each_result_has_a_name_of_its_own(cache: str) -> None:
    make = Counting(cache=cache)
    function = make(lambda x: x)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(function, range(12)))
    names = [name.name for name in cachefs.open(cache).names()]
    assert len(names) == 12
    assert f"-{function.key(1).hex[:24]}" in " ".join(names)
    assert all(name.startswith("call-tests.calls.test_cached.Counting") for name in names)
    with pytest.raises(UsageError, match="leave out name=app"):
        cached(cache=f"type=fsspec,url={cache},name=app")(noting)


def test_the_default_cache(cache: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make = Counting()
    make(lambda x: x)(1)
    assert make(lambda x: x)(1) == 1
    assert make.calls == [1]
    assert list(Path.home().joinpath(".cache", "cachefs", "run", "manifests").iterdir())
    monkeypatch.setenv("CACHEFS_CACHE", cache)
    make(lambda x: x)(1)
    assert len(cachefs.open(cache).names()) == 1


class Model:
    def __init__(self) -> None:
        self.state = object()

    @staticmethod
    @cached(version="1")
    def static(x: int) -> int:
        """Doubles."""
        return 2 * x


@dataclass(frozen=True)
class Scaled:
    factor: int

    @cached(version="1")
    def times(self, x: int) -> int:
        return self.factor * x


def test_methods_and_what_functions_look_like() -> None:
    assert Model.static(2) == Model().static(2) == 4
    assert Model.static.__doc__ == "Doubles."
    assert pickle.loads(pickle.dumps(limited)) is limited  # noqa: S301 - ours
    assert [Scaled(2).times(3), Scaled(3).times(3), Scaled(2).times(3)] == [6, 9, 6]  # type: ignore[call-arg]
    assert Scaled.times.cache_info().misses == 2


def _closure() -> Any:
    hidden = 1
    return lambda: hidden


def _generator(x: int) -> Any:
    yield x


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (_generator, "is a generator"),
        (_closure(), r"variables of the function around it \(hidden\)"),
        (Model().static, "is cached already"),
        (staticmethod(noting), "put @cached below @staticmethod"),
        (print, "its code has no key"),
        (Scaled(2).__hash__, "its code has no key|is a method"),
    ],
)
def test_what_cannot_be_cached_is_told_at_once(function: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        cached(function)
    assert "\n" not in str(caught.value)
