"""What the verbs ask of a layout, whichever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cachefs.digest import Digest
from cachefs.errors import DigestError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cachefs.store import Store
    from cachefs.wire.cacheconfig import CacheConfig


@dataclass(frozen=True, slots=True)
class NamedManifest:
    """A name in a cache: the key of its manifest, its bytes, and its time in seconds since 1970.

    ``version`` changes with the manifest, where the store has such a mark.
    """

    name: str
    key: str
    size: int
    modified: float | None
    version: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as it was read: decoded and checked, with annotations on every layer.

    ``raw`` are the bytes of a keyed layout's manifest; a copy to another keyed layout writes these
    and not their re-encoding. None where the facts lay in several objects.
    """

    name: str
    config: CacheConfig
    raw: bytes | None = None


class Layout(ABC):
    """Names, manifests and blobs in a store.

    Attributes:
        store: where they lie.
        blob_prefix: what the key of a blob begins with, up to its hexadecimal digits.
        default_name: the name that is meant where none is given.
    """

    store: Store
    blob_prefix: str
    default_name: str

    def blob_key(self, digest: Digest) -> str:
        """The key of a blob."""
        return self.blob_prefix + digest.hex

    def digest_of(self, key: str) -> Digest | None:
        """The digest of the blob with this key; None for a key that is no blob's."""
        try:
            return Digest.from_hex(key.removeprefix(self.blob_prefix))
        except DigestError:
            return None

    @abstractmethod
    async def names(self) -> list[NamedManifest]:
        """All names, sorted. Raises StoreError and ManifestError."""

    @abstractmethod
    async def read(self, name: str) -> Manifest:
        """A name's manifest, decoded and checked.

        Raises NotFoundError, StoreError, ManifestError, and IntegrityError where its parts are
        damaged.
        """

    @abstractmethod
    async def publish(self, names: Sequence[str], manifest: Manifest) -> None:
        """Put the manifest under each name, whole, in place of what was there.

        All of its blobs must be in the store. Raises StoreError.
        """

    @abstractmethod
    async def unpublish(self, names: Collection[str]) -> None:
        """Take the names away; the blobs stay. Names that are not there are no error."""

    @abstractmethod
    async def withdraw(self, name: NamedManifest) -> bool:
        """Take the name away unless it has changed since it was listed: False then, True if gone.

        Raises StoreError.
        """

    async def unnamed_references(self) -> set[Digest]:
        """Every blob that manifests without a name need. Raises as :meth:`references`."""
        return set()

    @abstractmethod
    async def references(self, name: str) -> set[Digest]:
        """Every blob that this name needs, also those that only describe others."""
