"""Tables and arrays as parts of keys: those of NumPy, pandas, PyArrow and Polars, by content.

None of these libraries is imported here unless the value is of one that is.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from typing import TYPE_CHECKING, Any, Final

from cachefs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

TABLES: Final = frozenset({"numpy", "pandas", "polars", "pyarrow"})
"""Packages whose values are tables or arrays."""

_VOLATILE: Final = ("pandas_version", "creator")
"""What pandas notes in a table that says nothing about its content."""


def encoded_table(value: Any, inner: Callable[[Any, str], list[Any]]) -> list[Any] | None:
    """The value as nested lists of plain data; None if it is no table or array.

    Args:
        value: an object of one of :data:`TABLES`.
        inner: encodes one value inside of this one; its second argument says where.
    """
    package = type(value).__module__.partition(".")[0]
    if package == "numpy":
        return _encoded_array(value, inner)
    if package == "pandas" and type(value).__name__ in ("Timestamp", "Timedelta"):
        return [value.isoformat(), str(getattr(value, "tz", None))]
    table = arrow_table(value)
    return None if table is None else [_table_digest(table)]


def arrow_table(value: Any) -> Any:
    """A table, column or array of pandas, PyArrow or Polars as a ``pyarrow.Table``, or else None.

    Raises UsageError without PyArrow, and for what it has no type for.
    """
    try:
        return _arrow_table(value, importlib.import_module("pyarrow"))
    except ImportError as error:
        raise UsageError(
            f"a {type(value).__name__} needs PyArrow: pip install pyarrow ({error})"
        ) from error
    except (ValueError, TypeError, NotImplementedError) as error:  # those of PyArrow are such
        raise UsageError(f"a {type(value).__name__} is refused by PyArrow: {error}") from error


def _arrow_table(value: Any, pyarrow: Any) -> Any:
    kind = type(value).__name__
    if type(value).__module__.startswith("polars."):
        if kind not in ("DataFrame", "Series"):
            return None
        value = value.to_arrow() if kind == "DataFrame" else value.to_frame().to_arrow()
    if isinstance(value, pyarrow.Table):
        return value
    if isinstance(value, pyarrow.RecordBatch):
        return pyarrow.Table.from_batches([value])
    if isinstance(value, pyarrow.Array | pyarrow.ChunkedArray):
        return pyarrow.table({"": value})
    if kind == "Series":
        return pyarrow.Table.from_pandas(value.to_frame())
    return pyarrow.Table.from_pandas(value) if kind == "DataFrame" else None


def _table_digest(table: Any) -> bytes:
    """The SHA-256 of a table, however it is divided into chunks."""
    pyarrow = importlib.import_module("pyarrow")
    metadata = dict(table.schema.metadata or {})
    if b"pandas" in metadata:
        noted = json.loads(metadata[b"pandas"])
        kept = {name: noted[name] for name in noted if name not in _VOLATILE}
        metadata[b"pandas"] = json.dumps(kept, sort_keys=True).encode()
    table = table.combine_chunks().replace_schema_metadata(metadata)
    hashed = _Hashed()
    with pyarrow.ipc.new_stream(pyarrow.PythonFile(hashed, mode="w"), table.schema) as writer:
        writer.write_table(table)
    return hashed.sha256.digest()


class _Hashed:
    """A file that keeps only the hash of what is written."""

    closed = False

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Nothing is open."""


def _encoded_array(value: Any, inner: Callable[[Any, str], list[Any]]) -> list[Any] | None:
    numpy = importlib.import_module("numpy")
    if isinstance(value, numpy.dtype):
        return [str(numpy.lib.format.dtype_to_descr(value))]
    if not isinstance(value, numpy.ndarray | numpy.generic) or isinstance(
        value, numpy.ma.MaskedArray
    ):
        return None
    array = numpy.asarray(value)
    if array.dtype.hasobject or array.dtype.kind == "T":  # bytes there are addresses
        items = [inner(item, f".flat[{index}]") for index, item in enumerate(array.flat)]
        return [str(array.dtype), list(array.shape), items]
    content = hashlib.sha256(numpy.ascontiguousarray(array).reshape(-1).view("uint8").data).digest()
    return [str(numpy.lib.format.dtype_to_descr(array.dtype)), list(array.shape), content]
