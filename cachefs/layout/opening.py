"""From a location, or a filesystem that the caller made, to a layout."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cachefs.errors import LocationError
from cachefs.filesystems.adapting import adapt, unwrapped
from cachefs.filesystems.connecting import connect
from cachefs.filesystems.forking import again
from cachefs.filesystems.patience import PATIENCE
from cachefs.filesystems.rates import shared_rates
from cachefs.layout.keyed import KeyedLayout
from cachefs.store import Store
from cachefs.trust.library import needed

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from cachefs.filesystems.base import Filesystem
    from cachefs.layout.base import Layout
    from cachefs.location.options import Location


def open_layout(
    location: Location, *, fs: AbstractFileSystem | None = None, side: str | None = None
) -> Layout:
    """The layout at the location. No request is made. Raises LocationError for a local file.

    Args:
        location: where the cache is.
        fs: used as it is, instead of a filesystem made from the location.
        side: ``"source"`` or ``"target"``, for errors.
    """
    if fs is None:
        filesystem, root = connect(location)
    else:
        fs, root = unwrapped(fs, location.url.partition("://")[2] or location.url)
        filesystem = _adapted(fs, location)
    # What may not be looked at is no error yet: the first request states it.
    if location.protocol == "file" and os.path.isfile(root.removesuffix("/")):  # noqa: PTH113
        raise LocationError(f"{Path(root)} is a file, not a directory")
    _limit(filesystem, root, location)
    store = Store(filesystem, root, side, partial(_reopened, location, root, fs))
    layout: Layout
    if location.layout_kind == "registry":
        from cachefs.layout.registry import RegistryLayout  # noqa: PLC0415 - likewise

        layout = RegistryLayout(store, location.oci, location.digest)
    elif location.layout_kind == "oci" or (
        location.layout_kind == "auto" and os.path.exists(os.path.join(root, "oci-layout"))  # noqa: PTH110, PTH118
    ):
        from cachefs.layout.oci import OCILayout  # noqa: PLC0415 - seldom needed

        layout = OCILayout(store, location.oci, location.digest)
    else:
        layout = KeyedLayout(store, location.blobs, location.manifests, location.prefix)
    layout.max_records = location.max_records
    layout.signature_prefix, layout.identity = location.signatures, location.identity
    if location.signing.is_used:
        with needed():
            from cachefs.layout.signing import Signing  # noqa: PLC0415 - seldom needed

        layout.signing = Signing.at(location)
    return layout


def _adapted(fs: AbstractFileSystem, location: Location) -> Filesystem:
    return adapt(fs, location.upload_bound, location.patience or PATIENCE)


def _limit(filesystem: Filesystem, root: str, location: Location) -> None:
    filesystem.rates = shared_rates(root, location.upload_rate, location.download_rate)


def _reopened(location: Location, root: str, fs: AbstractFileSystem | None) -> Filesystem:
    """The same filesystem in a forked process."""
    filesystem = connect(location)[0] if fs is None else _adapted(again(fs), location)
    _limit(filesystem, root, location)
    return filesystem
