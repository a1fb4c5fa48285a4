"""A build cache on any filesystem: BuildKit's cache format over fsspec.

    >>> import cachefs
    >>> cache = cachefs.open("s3://bucket/ci/", name="app")
    >>> graph = cache.load()

The public names are listed in ``__init__.pyi``; everything else may change. Each is loaded when it
is first used, so that ``import cachefs`` costs next to nothing.
"""

from __future__ import annotations

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
