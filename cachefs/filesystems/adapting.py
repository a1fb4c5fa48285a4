"""Choosing the :class:`Filesystem` for an fsspec filesystem object, by its class."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from cachefs.filesystems.base import Filesystem
from cachefs.filesystems.patience import PATIENCE

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# By name, so that no back end is imported only to compare with its class, and no other family.
_FAMILIES: Final = {
    "adlfs.spec.AzureBlobFileSystem": ("azure", "AzureFilesystem"),
    "fsspec.implementations.http.HTTPFileSystem": ("http", "HTTPFilesystem"),
    "fsspec.implementations.local.LocalFileSystem": ("local", "LocalFilesystem"),
    "fsspec.implementations.memory.MemoryFileSystem": ("memory", "MemoryFilesystem"),
    "fsspec.implementations.sftp.SFTPFileSystem": ("sftp", "SFTPFilesystem"),
    "gcsfs.core.GCSFileSystem": ("gcs", "GCSFilesystem"),
    "obstore.fsspec.FsspecStore": ("obstore.filesystem", "ObstoreFilesystem"),
    "s3fs.core.S3FileSystem": ("s3.filesystem", "S3Filesystem"),
}
"""The class for each family of filesystems, and its module in this package."""


_FOLDER: Final = "fsspec.implementations.dirfs.DirFileSystem"


def unwrapped(fs: AbstractFileSystem, path: str) -> tuple[AbstractFileSystem, str]:
    """Replace a filesystem that is a folder of another by that other one and the path in it.

    ``DirFileSystem`` claims to be asynchronous over any filesystem, but is not.
    """
    while _FOLDER in {f"{kind.__module__}.{kind.__name__}" for kind in type(fs).__mro__}:
        path = f"{fs.path.rstrip('/')}/{path.lstrip('/')}"
        fs = fs.fs
    return fs, path


def adapt(
    fs: AbstractFileSystem, bound: int | None = None, patience: float = PATIENCE
) -> Filesystem:
    """Wrap the filesystem object in the class for its family; subclasses belong to it as well.

    All others are used through fsspec's general methods: files are written to temporary files and
    renamed, and old blobs are uploaded again rather than touched.
    """
    for kind in type(fs).__mro__:
        place = _FAMILIES.get(f"{kind.__module__}.{kind.__name__}")
        if place is not None:
            module, name = place
            family: type[Filesystem] = getattr(import_module(f"{__package__}.{module}"), name)
            return family(fs, bound, patience)
    return Filesystem(fs, bound, patience)
