"""The one place that says which package is missing if signatures cannot be made or checked."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from cachefs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def needed() -> Iterator[None]:
    """Say what to install if an import in the body fails. Raises UsageError."""
    try:
        yield
    except ImportError as error:
        raise UsageError(
            "signatures need a library; pip install 'buildcachefs[sign]'", operation="sign"
        ) from error
