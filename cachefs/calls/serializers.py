"""From the value that a function returns to bytes, and back, exactly.

A serializer is chosen where the function is defined, never by what a cache holds: whoever may write
to a shared cache decides what a hit returns, but not what code reads it.
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, runtime_checkable

import msgspec

from cachefs.errors import CacheError, UsageError
from cachefs.keying.functions import unwrapped
from cachefs.keying.tables import arrow_table
from cachefs.keying.values import NoKeyError, canonical

if TYPE_CHECKING:
    from collections.abc import Callable

_KIND: Final = b"cachefs.kind"
_FROM_ARROW: Final[dict[str, Callable[[Any], Any]]] = {
    "pyarrow.Table": lambda table: table,
    "pandas.DataFrame": lambda table: table.to_pandas(),
    "pandas.Series": lambda table: table.to_pandas().iloc[:, 0],
    "polars.DataFrame": lambda table: importlib.import_module("polars").from_arrow(table),
}
_TABLES: Final = frozenset(_FROM_ARROW)


@runtime_checkable
class Serializer(Protocol):
    """What turns a result into bytes and back: one of this module's, or an object of yours.

    Attributes:
        name: part of the key of results, so that another serializer reads none of this one's.
            Change it when the bytes change.
    """

    @property
    def name(self) -> str:
        """The name."""

    def dumps(self, value: Any, /) -> bytes:
        """The value as bytes."""

    def loads(self, data: bytes, /) -> Any:
        """The value that :meth:`dumps` got. The bytes may come from anybody who may write."""


class ChangedError(CacheError):
    """A value would not come back as it was."""


class Json:
    """JSON, read as a type: values come back exactly, or are refused when they are stored.

    Args:
        kind: what msgspec decodes: builtin types, dataclasses, Structs, and collections of them.
            By default plain JSON: None, bool, int, float, str, list, and dict with text as keys.
    """

    def __init__(self, kind: Any = Any) -> None:
        self._kind = kind
        try:
            self._decoder = msgspec.json.Decoder(kind)
        except TypeError as error:
            raise UsageError(f"results of type {kind} cannot be JSON: {error}") from error

    @property
    def name(self) -> str:
        """``json``, and the type."""
        return "json" if self._kind is Any else f"json of {_type_name(self._kind)}"

    def dumps(self, value: Any) -> bytes:
        """The JSON. Raises ChangedError if it would be decoded to something else."""
        try:
            data = msgspec.json.encode(value)
            again = self._decoder.decode(data)
        except (TypeError, ValueError, RecursionError) as error:  # msgspec's are such
            raise ChangedError(f"it cannot be JSON: {error}; {_ADVICE}") from error
        require_same(value, again, "JSON")
        return data

    def loads(self, data: bytes) -> Any:
        """The value."""
        return self._decoder.decode(data)


class Table:
    """A table: pandas' DataFrame or Series, PyArrow's Table or Polars' DataFrame.

    Args:
        format: ``arrow`` (quick, keeps every type) or ``parquet`` (small).
    """

    def __init__(self, format: Literal["arrow", "parquet"] = "arrow") -> None:  # noqa: A002 - as in pandas
        if format not in ("arrow", "parquet"):
            raise UsageError(f"there is no format {format!r} for tables: it is arrow or parquet")
        self.name = format

    def dumps(self, value: Any) -> bytes:
        """The table with its kind. Raises ChangedError for other values, and if it would change."""
        kind = f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}"
        table = arrow_table(value) if kind in _TABLES else None
        if table is None:
            known = ", ".join(sorted(_TABLES))
            raise ChangedError(f"it is a {kind}, which is no table: those are {known}")
        noted = table.replace_schema_metadata(
            {**(table.schema.metadata or {}), _KIND: kind.encode()}
        )
        data = self._written(noted)
        require_same(value, self.loads(data), self.name)
        return data

    def _written(self, table: Any) -> bytes:
        file = io.BytesIO()
        if self.name == "parquet":
            importlib.import_module("pyarrow.parquet").write_table(table, file)
        else:
            with importlib.import_module("pyarrow").ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
        return file.getvalue()

    def loads(self, data: bytes) -> Any:
        """The table, as the kind that it was."""
        if self.name == "parquet":
            table = importlib.import_module("pyarrow.parquet").read_table(io.BytesIO(data))
        else:
            table = importlib.import_module("pyarrow").ipc.open_file(data).read_all()
        metadata = dict(table.schema.metadata or {})
        kind = metadata.pop(_KIND, b"").decode()
        return _FROM_ARROW[kind](table.replace_schema_metadata(metadata or None))


class Array:
    """A NumPy array, in NumPy's own format, without Python objects."""

    name: Final = "npy"

    def dumps(self, value: Any) -> bytes:
        """The array. Raises ChangedError for other values."""
        numpy = importlib.import_module("numpy")
        file = io.BytesIO()
        try:
            numpy.save(file, value, allow_pickle=False)
        except ValueError as error:
            raise ChangedError(f"it cannot be an array: {error}") from error
        require_same(value, self.loads(file.getvalue()), "NumPy's format")
        return file.getvalue()

    def loads(self, data: bytes) -> Any:
        """The array."""
        return importlib.import_module("numpy").load(io.BytesIO(data), allow_pickle=False)


class Pickle:
    """Python's pickle: **reading a pickle runs whatever code its author put into it**.

    Everyone who may write to the cache can thus run code as you, on every machine that reads it.
    Use it only with a cache that nobody else can write to.

    Args:
        trusted: must be True: you trust everyone who may write to the cache as you trust yourself.
    """

    name: Final = "pickle"

    def __init__(self, *, trusted: bool = False) -> None:
        if trusted is not True:
            raise UsageError(
                "reading a pickle runs code of everyone who may write to the cache: say "
                "Pickle(trusted=True) if you trust them all, or use another serializer"
            )

    def dumps(self, value: Any) -> bytes:
        """The pickle. Raises ChangedError for what cannot be pickled."""
        try:
            return pickle.dumps(value)
        except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
            raise ChangedError(f"it cannot be pickled: {error}") from error

    def loads(self, data: bytes) -> Any:
        """The value."""
        return pickle.loads(data)  # noqa: S301 - the caller said that the cache is trusted


class Files:
    """Files that the function writes: it returns the path of a file or directory of its own.

    A hit puts them back at the same place, and returns the path.

    Args:
        directory: where results are; each path that is returned leads to something in it.
    """

    name: Final = "files"

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)

    def relative(self, value: Any) -> str:
        """The path below the directory. Raises ChangedError."""
        if not isinstance(value, Path):
            raise ChangedError(f"it is a {type(value).__name__}, not a Path")
        try:
            relative = value.absolute().relative_to(self.directory.absolute())
        except ValueError:
            relative = Path()
        if relative == Path() or ".." in relative.parts:
            raise ChangedError(f"{value} is not in the directory {self.directory}")
        return relative.as_posix()


_ADVICE: Final = "annotate the return type, or give serializer="


def chosen(function: Callable[..., object]) -> Serializer | Files:
    """The serializer for what a function returns, according to its annotation.

    Raises UsageError if it is a type that has none.
    """
    kind = _annotation(function)
    package, name = getattr(kind, "__module__", "").partition(".")[0], getattr(kind, "__name__", "")
    if f"{package}.{name}" in _TABLES:
        return Table()
    if f"{package}.{name}" == "numpy.ndarray":
        return Array()
    if isinstance(kind, type) and issubclass(kind, Path):
        raise UsageError(
            "a function that returns a Path needs serializer=Files(DIRECTORY), the directory in "
            "which it writes its results"
        )
    return Json(kind)


def _annotation(function: Callable[..., object]) -> Any:
    """The type that a function returns; Any if it says none, or one that does not exist here."""
    inner = inspect.unwrap(unwrapped(function))
    try:
        annotation = inspect.get_annotations(inner).get("return", Any)
        if isinstance(annotation, str):  # evaluated alone, because others may exist for mypy only
            annotation = eval(annotation, getattr(inner, "__globals__", {}))  # noqa: S307 - own text
    except (NameError, AttributeError, TypeError, SyntaxError):
        return Any
    return type(None) if annotation is None else annotation


def _type_name(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}" if type(kind) is type else str(kind)


def checked(serializer: object) -> Serializer | Files:
    """The serializer that a caller gave. Raises UsageError for something else."""
    if isinstance(serializer, Files) or (
        isinstance(serializer, Serializer) and isinstance(serializer.name, str)
    ):
        return serializer
    raise UsageError(
        f"{serializer!r} is no serializer: it needs dumps(value), loads(bytes) and a name, which "
        "is part of the key; for pickle there is Pickle(trusted=True)"
    )


def require_same(value: Any, again: Any, what: str) -> None:
    """Raise ChangedError unless a value that was decoded is the same as before, with all types."""
    try:
        if canonical(value, "it", files=False) == canonical(again, "it", files=False):
            return
    except NoKeyError as error:
        raise ChangedError(f"{error.reason.partition(', which has')[0]}; {_ADVICE}") from error
    raise ChangedError(f"{what} would change {_difference(value, again)}; {_ADVICE}")


def _difference(before: Any, after: Any, where: str = "it") -> str:
    if type(before) is not type(after):
        return f"{where} from {type(before).__name__} to {type(after).__name__}"
    if isinstance(before, dict) and before.keys() != after.keys():
        return f"keys of {where}"
    if isinstance(before, dict | list | tuple):
        places = before if isinstance(before, dict) else range(min(len(before), len(after)))
        for place in places:
            one, other = before[place], after[place]
            if canonical(one, "") != canonical(other, ""):
                return _difference(one, other, f"{where}[{json.dumps(place, default=str)}]")
    return where
