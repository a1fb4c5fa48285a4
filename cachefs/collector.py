"""Pausing the garbage collector when it would find nothing."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def collection_paused() -> Iterator[None]:
    """Pause the garbage collector for work that makes many objects and no reference cycles.

    Its repeated passes take two thirds of the time of decoding a manifest of 100,000 records, and
    half of merging two.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
