"""Signing what names hold."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cachefs.layout.base import Layout


async def sign(layout: Layout, names: Sequence[str], lifetime: float | None) -> dict[str, str]:
    """Sign names, or all of them, for a lifetime in seconds; return the digests that they hold.

    Raises the errors of :meth:`Layout.sign_held`; names before the one that failed are signed.
    """
    layout.require_names("sign")
    expires = None if lifetime is None else time.time() + lifetime
    chosen = names or [one.name for one in await layout.names()]
    return {name: await layout.sign_held(name, expires) for name in chosen}
