"""A build cache on any filesystem: BuildKit's cache format over fsspec.

    >>> import cachefs
    >>> cache = cachefs.open("s3://bucket/ci/", name="app")
    >>> graph = cache.load()

The names below are the public ones; everything else may change.
"""

from __future__ import annotations

from importlib.metadata import version as _version

from cachefs.cache import Cache, CachedResult, copy
from cachefs.cache import open_cache as open  # noqa: A004 - cachefs.open reads as what it does
from cachefs.copying import CopyError
from cachefs.digest import Digest
from cachefs.errors import (
    AccessError,
    CacheError,
    CacheNameError,
    DigestError,
    IntegrityError,
    LocationError,
    ManifestError,
    NotFoundError,
    StoreError,
    UnreachableError,
    UsageError,
)
from cachefs.exporter import Amount, ExportReport
from cachefs.graph import Found, Key, RecordGraph, merge, output_key
from cachefs.importer import Miss
from cachefs.layout import Manifest, Name
from cachefs.location import Location
from cachefs.sources import BlobSource

__version__ = _version("cachefs")

__all__ = [
    "AccessError",
    "Amount",
    "BlobSource",
    "Cache",
    "CacheError",
    "CacheNameError",
    "CachedResult",
    "CopyError",
    "Digest",
    "DigestError",
    "ExportReport",
    "Found",
    "IntegrityError",
    "Key",
    "Location",
    "LocationError",
    "Manifest",
    "ManifestError",
    "Miss",
    "Name",
    "NotFoundError",
    "RecordGraph",
    "StoreError",
    "UnreachableError",
    "UsageError",
    "copy",
    "merge",
    "open",
    "output_key",
]
