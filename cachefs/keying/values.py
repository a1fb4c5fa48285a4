"""Python values as parts of keys.

Each value becomes nested lists of plain data that MessagePack encodes with types and lengths, so
that two values have one key only if their types and contents are the same: ``1``, ``True``, ``1.0``
and ``"1"`` differ. The order of a dict or set does not count, as for ``==``.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import os
import re
import uuid
from dataclasses import fields, is_dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Final

import msgspec

from cachefs.errors import UsageError
from cachefs.keying.sources import read_tree
from cachefs.keying.tables import TABLES, encoded_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_DEPTH: Final = 64
"""How deep values may be nested: deeper ones are most likely part of themselves."""

_encoder: Final = msgspec.msgpack.Encoder()


class NoKeyError(UsageError):
    """A value is of a type that has no key."""


def encoded(value: Any, where: str, *, files: bool = True, depth: int = 0) -> list[Any]:
    """The value as nested lists of plain data.

    Args:
        value: None, a bool, number, text, bytes, date or time, Decimal, UUID, range, compiled
            pattern, or a member of an enum; a tuple, list, dict, set, dataclass or msgspec Struct
            of such values; a ``Path``, which counts by its name and by what it contains, or a
            ``PurePath``, which is just text; a table or array of NumPy, pandas, PyArrow or Polars.
            Not an object of a class derived from one of these.
        where: what the value is, for messages, such as ``argument 'rows'``.
        files: whether a ``Path`` has a key. Without, it is refused.
        depth: how deep this value is nested in others.

    Raises NoKeyError for other types, and UsageError for a path that does not exist.
    """
    if depth > MAX_DEPTH:
        raise NoKeyError(f"{where} has values in each other, more than {MAX_DEPTH} deep")
    kind = type(value)
    plain = _PLAIN.get(kind)
    if plain is not None:
        return [kind.__name__, plain(value)]

    def inner(item: Any, place: str) -> list[Any]:
        return encoded(item, f"{where}{place}", files=files, depth=depth + 1)

    collection = _COLLECTIONS.get(kind) or _kind_of_class(value)
    if collection is not None:
        return collection(value, inner)
    if isinstance(value, Path):
        if files:
            return ["Path", os.fsencode(value.name), str(_tree(value, where))]
        raise NoKeyError(f"{where} is a Path, whose content may change: pass it as an argument")
    table = _table(value, where, inner) if kind.__module__.partition(".")[0] in TABLES else None
    if table is not None:
        return [_name(kind), *table]
    raise NoKeyError(
        f"{where} is of type {_name(kind)}, which has no key: pass what it is made of, such as "
        "text, numbers, lists, dicts, dataclasses, Path or tables"
    )


def canonical(value: Any, where: str, *, files: bool = True) -> bytes:
    """The value as bytes, the same on every machine and in every process.

    Raises the errors of :func:`encoded`.
    """
    return _encoder.encode(encoded(value, where, files=files))


def _table(value: Any, where: str, inner: Callable[[Any, str], list[Any]]) -> list[Any] | None:
    try:
        return encoded_table(value, inner)
    except NoKeyError:
        raise
    except UsageError as error:
        raise NoKeyError(f"{where}: {error}") from error


def _tree(path: Path, where: str) -> str:
    try:
        return read_tree(path).digest
    except UsageError as error:
        raise UsageError(
            f"{where}: {error}; a Path counts by its content, so pass text if only its name counts"
        ) from error


def _text(value: str) -> str | bytes:
    """Text that is not Unicode, such as some names of files, as bytes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogatepass")
    return value


def _offset(value: dt.datetime | dt.time) -> list[Any]:
    zone = getattr(value.tzinfo, "key", None) or (value.tzinfo and str(value.tzinfo))
    offset = value.utcoffset()
    return [value.isoformat(), value.fold, zone, offset and str(offset)]


_PLAIN: Final[Mapping[type, Callable[[Any], Any]]] = {
    type(None): lambda _: None,
    type(Ellipsis): lambda _: None,
    bool: bool,
    int: hex,  # MessagePack ends at 64 bits
    float: float.hex,
    complex: lambda value: [value.real.hex(), value.imag.hex()],
    str: _text,
    bytes: bytes,
    bytearray: bytes,
    range: lambda value: [hex(value.start), hex(value.stop), hex(value.step)],
    slice: repr,
    dt.date: str,
    dt.datetime: _offset,
    dt.time: _offset,
    dt.timedelta: str,
    decimal.Decimal: str,
    uuid.UUID: str,
    re.Pattern: lambda value: [value.pattern, value.flags],
    **dict.fromkeys((PurePath, type(PurePath())), os.fsencode),
}

_COLLECTIONS: Final[Mapping[type, Callable[[Any, Any], list[Any]]]] = {
    tuple: lambda value, inner: ["tuple", _items(value, inner)],
    list: lambda value, inner: ["list", _items(value, inner)],
    dict: lambda value, inner: ["dict", sorted(_pairs(value, inner), key=_encoder.encode)],
    set: lambda value, inner: ["set", _unordered(value, inner)],
    frozenset: lambda value, inner: ["frozenset", _unordered(value, inner)],
}


def _items(value: Any, inner: Callable[[Any, str], list[Any]]) -> list[Any]:
    return [inner(item, f"[{index}]") for index, item in enumerate(value)]


def _pairs(value: Any, inner: Callable[[Any, str], list[Any]]) -> list[Any]:
    return [[inner(key, " (a key)"), inner(item, f"[{key!r}]")] for key, item in value.items()]


def _unordered(value: Any, inner: Callable[[Any, str], list[Any]]) -> list[Any]:
    return sorted((inner(item, " (an item)") for item in value), key=_encoder.encode)


def _kind_of_class(value: Any) -> Callable[[Any, Any], list[Any]] | None:
    """How objects of classes that users define become data."""
    if isinstance(value, enum.Enum):
        return _member
    if isinstance(value, msgspec.Struct):
        return _fields_of_struct
    if is_dataclass(value) and not isinstance(value, type):
        return _fields_of_dataclass
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return _fields_of_tuple
    return None


def _member(value: Any, inner: Callable[[Any, str], list[Any]]) -> list[Any]:
    return ["enum", _name(type(value)), value.name, inner(value.value, ".value")]


def _fields_of_struct(value: Any, inner: Callable[[Any, str], list[Any]]) -> list[Any]:
    return _fields("struct", value, type(value).__struct_fields__, inner)


def _fields_of_dataclass(value: Any, inner: Callable[[Any, str], list[Any]]) -> list[Any]:
    return _fields("dataclass", value, [field.name for field in fields(value)], inner)


def _fields_of_tuple(value: Any, inner: Callable[[Any, str], list[Any]]) -> list[Any]:
    return _fields("namedtuple", value, value._fields, inner)


def _fields(kind: str, value: Any, names: Any, inner: Callable[[Any, str], list[Any]]) -> list[Any]:
    parts = [[name, inner(getattr(value, name), f".{name}")] for name in names]
    return [kind, _name(type(value)), parts]


def _name(kind: type) -> str:
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
