"""What fsspec filesystems say of objects, each in its own words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

_TIME_FIELDS: Final = ("mtime", "LastModified", "last_modified", "modified", "updated", "created")


def modified_in(info: dict[str, Any]) -> float | None:
    """The modification time, which has different names and types in different filesystems."""
    for name in _TIME_FIELDS:
        value = info.get(name)
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            return datetime.fromisoformat(value).timestamp()
    return None
