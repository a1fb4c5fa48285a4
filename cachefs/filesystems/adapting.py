"""Choosing the :class:`Filesystem` for an fsspec filesystem object, by its class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachefs.filesystems.azure import AzureFilesystem
from cachefs.filesystems.base import Filesystem
from cachefs.filesystems.gcs import GCSFilesystem
from cachefs.filesystems.local import LocalFilesystem
from cachefs.filesystems.memory import MemoryFilesystem
from cachefs.filesystems.obstore import ObstoreFilesystem
from cachefs.filesystems.patience import PATIENCE
from cachefs.filesystems.s3 import S3Filesystem
from cachefs.filesystems.sftp import SFTPFilesystem

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# By name, so that no back end is imported only to compare with its class.
_FAMILIES: Final[dict[str, type[Filesystem]]] = {
    "adlfs.spec.AzureBlobFileSystem": AzureFilesystem,
    "fsspec.implementations.local.LocalFileSystem": LocalFilesystem,
    "fsspec.implementations.memory.MemoryFileSystem": MemoryFilesystem,
    "fsspec.implementations.sftp.SFTPFileSystem": SFTPFilesystem,
    "gcsfs.core.GCSFileSystem": GCSFilesystem,
    "obstore.fsspec.FsspecStore": ObstoreFilesystem,
    "s3fs.core.S3FileSystem": S3Filesystem,
}


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
        family = _FAMILIES.get(f"{kind.__module__}.{kind.__name__}")
        if family is not None:
            return family(fs, bound, patience)
    return Filesystem(fs, bound, patience)
