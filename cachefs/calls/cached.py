"""``@cached``: functions whose results are kept in a cache."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import threading
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    NamedTuple,
    ParamSpec,
    TypeVar,
    cast,
    overload,
)

from cachefs.calls.files import (
    OUTPUTS,
    OUTPUTS_WITH_FILES,
    put_back,
    read_bytes,
    save_bytes,
    save_files,
)
from cachefs.calls.flights import Flights, landed, outcome
from cachefs.calls.recent import Recent
from cachefs.calls.serializers import ChangedError, Files, checked, chosen
from cachefs.calls.store import Call, CallStore, located, opened
from cachefs.errors import CacheError, UsageError, reason
from cachefs.keying.functions import Keyed, check_function, function_key, label
from cachefs.keying.values import canonical

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from cachefs.cache import Cache
    from cachefs.calls.serializers import Serializer
    from cachefs.digest import Digest
    from cachefs.location.options import Location

    CacheLike = str | os.PathLike[str] | Location | Cache

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("cachefs")


class CallStatistics(NamedTuple):
    """What the calls of a cached function in this process have been.

    Attributes:
        hits: calls whose result was in memory or in the cache, or came from a concurrent call.
        in_memory: those of them that needed no request.
        misses: calls that ran the function.
        unkept: those of them whose result could not be kept.
    """

    hits: int = 0
    in_memory: int = 0
    misses: int = 0
    unkept: int = 0


class Cached(Keyed, Generic[P, R]):
    """A function whose results are kept. Made by :func:`cached`; called like the function.

    Attributes:
        function: the function itself; calling it uses no cache.
        version: as given.
    """

    def __init__(
        self,
        function: Callable[P, R],
        cache: CacheLike | None,
        version: str,
        serializer: object,
        ignore: Iterable[str],
    ) -> None:
        check_function(function, version)
        functools.update_wrapper(self, function)
        self.function = function
        self.version = version
        self._signature = inspect.signature(function)
        self._ignored = _checked_names(ignore, self._signature, label(function))
        self._serializer = chosen(function) if serializer is None else checked(serializer)
        self._location = None if cache is None else located(cache)
        self._store: CallStore | None = None
        self._is_open = False
        self._told: set[str] = set()
        self._flights = Flights()
        self._recent = Recent()
        self._lock = threading.Lock()
        self._statistics = CallStatistics()
        self._is_async = inspect.iscoroutinefunction(function)
        if self._is_async and hasattr(inspect, "markcoroutinefunction"):
            inspect.markcoroutinefunction(self)

    def __repr__(self) -> str:
        return f"<cached {label(self.function)}>"

    def __reduce__(self) -> str:
        return self.function.__qualname__  # found again by its name, as functions are

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(cast("Any", self), instance)

    def __call__(self, *args: P.args, **keywords: P.kwargs) -> R:
        """Return the kept result of this call, or call the function and keep what it returns.

        Exceptions are the function's own, and not kept. Concurrent calls with the same arguments
        call the function once. Raises UsageError for arguments that have no key.
        """
        if self._is_async:
            return cast("R", self._call_async(args, keywords))
        return cast("R", self._call(args, keywords))

    def refresh(self, *args: P.args, **keywords: P.kwargs) -> R:
        """Call the function whatever is kept, and replace that."""
        call = self._as_call(args, keywords)
        if self._is_async:
            return cast("R", self._run_async(call, args, keywords))
        return cast("R", self._run(call, args, keywords))

    def key(self, *args: P.args, **keywords: P.kwargs) -> Digest:
        """The digest that a call's result is kept under. Raises UsageError."""
        return self._as_call(args, keywords).vertex

    def cache_info(self) -> CallStatistics:
        """What the calls in this process have been."""
        return self._statistics

    # --- calls ------------------------------------------------------------------------------------

    def _call(self, args: Any, keywords: Any) -> Any:
        call = self._as_call(args, keywords)
        while True:
            found, value = self._remembered(call)
            if found:
                return value
            future, leads = self._flights.join(call.vertex)
            if leads:
                with self._flights.fly(call.vertex, future):
                    found, value = self._read(call)
                    if not found:
                        value = self._run(call, args, keywords)
                    future.set_result(value)
                return value
            ended, value = outcome(future)
            if ended:
                return self._shared(call, value)

    async def _call_async(self, args: Any, keywords: Any) -> Any:
        call = await asyncio.to_thread(self._as_call, args, keywords)
        while True:
            found, value = self._remembered(call)
            if found:
                return value
            future, leads = self._flights.join(call.vertex)
            if leads:
                with self._flights.fly(call.vertex, future):
                    found, value = await asyncio.to_thread(self._read, call)
                    if not found:
                        value = await self._run_async(call, args, keywords)
                    future.set_result(value)
                return value
            await landed(future)
            ended, value = outcome(future)
            if ended:
                return self._shared(call, value)

    def _run(self, call: Call, args: Any, keywords: Any) -> Any:
        value = self.function(*args, **keywords)
        self._keep(call, value, args, keywords)
        return value

    async def _run_async(self, call: Call, args: Any, keywords: Any) -> Any:
        value = await self.function(*args, **keywords)  # type: ignore[misc]
        await asyncio.to_thread(self._keep, call, value, args, keywords)
        return value

    def _as_call(self, args: Any, keywords: Any) -> Call:
        bound = self._signature.bind(*args, **keywords)
        bound.apply_defaults()
        name = label(self.function)
        arguments = b"".join(
            canonical(parameter, "") + canonical(value, f"argument {parameter!r} of {name}")
            for parameter, value in bound.arguments.items()
            if parameter not in self._ignored
        )
        function = function_key(self.function, self.version)
        outputs = OUTPUTS_WITH_FILES if isinstance(self._serializer, Files) else OUTPUTS
        return Call.of(name, function, (arguments, self._serializer.name.encode()), outputs)

    # --- results ----------------------------------------------------------------------------------

    def _remembered(self, call: Call) -> tuple[bool, Any]:
        data = self._recent.get(call.vertex)
        if data is None or isinstance(self._serializer, Files):
            return False, None
        self._count(hits=1, in_memory=1)
        return True, self._serializer.loads(data)

    def _shared(self, call: Call, value: Any) -> Any:
        """What a concurrent call returned: a copy, unless it could not be kept."""
        found, again = self._remembered(call)
        if not found:
            self._count(hits=1)
        return again if found else value

    def _read(self, call: Call) -> tuple[bool, Any]:
        """Whether the cache has a result that can be used, and the value."""
        store = self._opened()
        if store is None:
            return False, None
        try:
            if isinstance(self._serializer, Files):
                value = put_back(store, call, self._serializer)
                if value is None:
                    return False, None
            else:
                data = read_bytes(store, call)
                if data is None:
                    return False, None
                value = self._serializer.loads(data)
                self._recent.add(call.vertex, data)
        except Exception as error:  # noqa: BLE001 - a serializer of the caller's may raise anything
            self._tell(f"a result of {call.label} cannot be used: {_line(error)}")
            return False, None
        self._count(hits=1)
        return True, value

    def _keep(self, call: Call, value: Any, args: Any, keywords: Any) -> None:
        store = self._opened()
        try:
            self._require_unchanged(call, args, keywords)
            save = self._save(call, value)
        except Exception as error:  # noqa: BLE001 - the call succeeded, so its value is returned
            self._tell(f"a result of {call.label} is not kept: {_line(error)}")
            self._count(misses=1, unkept=1)
            return
        kept = store is not None and store.write(call, save)
        self._count(misses=1, unkept=not kept)

    def _require_unchanged(self, call: Call, args: Any, keywords: Any) -> None:
        """Raise ChangedError if a hit would not do what the call did, or had other inputs."""
        now = self._as_call(args, keywords)
        if now.function != call.function:
            raise ChangedError(
                "a global that it reads changed while it ran; give version= if that has no effect"
            )
        if now != call:
            raise ChangedError("its arguments changed while it ran")

    def _save(self, call: Call, value: Any) -> Callable[[Path], None]:
        """What writes the files of a result."""
        if isinstance(self._serializer, Files):
            return functools.partial(save_files, value, self._serializer.relative(value))
        data = self._serializer.dumps(value)
        if not isinstance(data, bytes):
            raise ChangedError(f"{self._serializer.name} made {type(data).__name__}, not bytes")
        self._recent.add(call.vertex, data)
        return functools.partial(save_bytes, data)

    def _tell(self, text: str) -> None:
        """Warn, once for each text: the next thousand calls may have the same trouble."""
        with self._lock:
            level = logging.DEBUG if text in self._told else logging.WARNING
            self._told.add(text)
        logger.log(level, "%s", text)

    def _opened(self) -> CallStore | None:
        with self._lock:
            if not self._is_open:
                cache = opened(self._location)
                self._store = None if cache is None else CallStore(cache)
                self._is_open = True
        return self._store

    def _count(
        self, *, hits: int = 0, in_memory: int = 0, misses: int = 0, unkept: int = 0
    ) -> None:
        more = (hits, in_memory, misses, unkept)
        with self._lock:
            now = zip(self._statistics, more, strict=True)
            self._statistics = CallStatistics(*(before + one for before, one in now))


def _line(error: Exception) -> str:
    """One line about what a serializer or cache raised."""
    known = isinstance(error, CacheError | OSError)
    return reason(error) if known else f"{type(error).__name__}: {error}"


def _checked_names(
    ignore: Iterable[str], signature: inspect.Signature, name: str
) -> frozenset[str]:
    names = frozenset([ignore] if isinstance(ignore, str) else ignore)
    unknown = sorted(names - signature.parameters.keys())
    if unknown:
        raise UsageError(f"{name} has no parameter {unknown[0]!r} to ignore")
    return names


@overload
def cached(function: Callable[P, R], /) -> Cached[P, R]: ...


@overload
def cached(
    *,
    cache: CacheLike | None = None,
    version: str = "",
    serializer: Serializer | Files | None = None,
    ignore: Iterable[str] = (),
) -> Callable[[Callable[P, R]], Cached[P, R]]: ...


def cached(
    function: Callable[P, R] | None = None,
    /,
    *,
    cache: CacheLike | None = None,
    version: str = "",
    serializer: Serializer | Files | None = None,
    ignore: Iterable[str] = (),
) -> Cached[P, R] | Callable[[Callable[P, R]], Cached[P, R]]:
    """Keep the results of a function, plain or async, in a cache.

    ::

        @cachefs.cached(cache="s3://bucket/results/")
        def clean(table: Path, *, keep: int = 10) -> dict[str, float]: ...

    A call's key is the function's name and code, the ``version``, the constants and cached
    functions that the code uses, and the arguments. Functions that it calls otherwise do not count:
    change ``version`` when they change. Results are exact copies; what cannot be kept exactly is
    returned, with a warning, and computed again by the next call. So is everything while the cache
    fails.

    Arguments and constants may be None, bool, int, float, complex, str, bytes, dates and times,
    Decimal, UUID, range, enums; tuples, lists, dicts, sets, dataclasses and msgspec Structs of
    these; tables and arrays of pandas, PyArrow, Polars and NumPy. The order of a dict or set does
    not count. A ``Path`` counts by its name and by what the file or directory contains.

    Args:
        function: the function, if the decorator has no arguments.
        cache: where results are kept: by default ``$CACHEFS_CACHE``, or else your cache directory.
        version: part of the key.
        serializer: how results are stored. By default :class:`Table` or :class:`Array` if the
            return annotation is a table or array, and else :class:`Json` of the annotated type.
            :class:`Files` is for functions that write files.
        ignore: names of parameters that are not part of the key, because no result depends on them.

    Raises UsageError for what cannot be cached: generators, methods of an object, and, without a
    ``version``, closures; and LocationError. Calls raise it for arguments and constants of other
    types.
    """

    def decorate(decorated: Callable[P, R]) -> Cached[P, R]:
        return Cached(decorated, cache, version, serializer, ignore)

    return decorate if function is None else decorate(function)
