"""The interface of a layout, and what is read through it."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cachefs.amount import counted
from cachefs.digest import Digest
from cachefs.errors import DigestError, StoreError, UntrustedError, UsageError
from cachefs.filesystems.base import TEMPORARY
from cachefs.filesystems.system import A_FILE
from cachefs.layout.signatures import no_key
from cachefs.store import Store
from cachefs.wire import codec
from cachefs.wire.bounds import MAX_RECORDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
    from typing import Self

    from cachefs.layout.signing import Signing
    from cachefs.trust.trusted import Trusted
    from cachefs.wire.cacheconfig import CacheConfig


@dataclass(frozen=True, slots=True)
class NamedManifest:
    """A name and its manifest as the store lists it.

    Attributes:
        name: the name, or tag.
        key: the key of the manifest.
        size: bytes of the manifest.
        modified: seconds since 1970, None if the store has no times.
        version: changes whenever the manifest does; empty if the store has no versions.
    """

    name: str
    key: str
    size: int
    modified: float | None
    version: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as it was read: decoded and checked, with annotations on every layer.

    Attributes:
        name: the name that it was read by.
        config: the cache config. If a builder left inputs without alternatives, it is the part that
            is valid, with all layers.
        raw: the bytes of a keyed layout's manifest; a copy to another keyed layout writes them
            unchanged. None if the manifest was made from several objects.
        left_out: why records are not in that part; empty if nothing was left out.
        annotations: for each blob, what else the descriptors of an OCI layout say of it, such as
            where the table of contents of an estargz layer is. A keyed layout has no place for it.
        version: tells it from what was under the name before or after, for
            :meth:`Layout.publish_if`; empty if it was not read, or nothing can be compared there.
    """

    name: str
    config: CacheConfig
    raw: bytes | None = None
    left_out: str = ""
    annotations: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    version: str = field(default="", compare=False)

    def changed(self, config: CacheConfig) -> Manifest:
        """The manifest with another cache config, from which nothing was left out."""
        return replace(self, config=config, raw=None, left_out="")

    @property
    def refusal(self) -> str:
        """Why builders refuse to import it although it is not damaged; empty if they do not."""
        lacking = [i for i, layer in enumerate(self.config.layers) if not layer.diff_id]
        reasons = [self.left_out] if self.left_out else []
        if lacking:
            reasons.append(
                f"layer {lacking[0]} has no diffID ({counted(len(lacking), 'layer')} without)"
            )
        return "; ".join(reasons)


class Layout(ABC):
    """Names, manifests and blobs in a store.

    Attributes:
        store: where they are.
        blob_prefix: the beginning of every blob's key, up to its hexadecimal digits.
        manifest_prefix: the beginning of every manifest's key; empty if one object lists all names.
        prefix: the attribute ``prefix``, with which all keys begin.
        default_name: the name to use if none is given.
        digest: the one manifest to read, if the cache was opened by a digest, else None.
        builder_limit: bytes of a cache config above which builders refuse to import it from this
            layout, None if there is no such limit.
        max_records: how many records and layers a manifest may have to be read.
        has_name_keys: whether each name is an object of its own.
        keeps_annotations: whether descriptors of layers have a place for annotations of others.
        signature_prefix: the beginning of every signature's key.
        identity: what signatures call the cache.
        signing: how names are signed and which signatures are wanted; None for neither.
    """

    store: Store
    blob_prefix: str
    manifest_prefix: str = ""
    prefix: str = ""
    default_name: str
    digest: str | None = None
    builder_limit: int | None = None
    max_records: int = MAX_RECORDS
    has_name_keys: bool = False
    keeps_annotations: bool = True
    signature_prefix: str = "signatures/"
    identity: str = ""
    signing: Signing | None = None

    def with_side(self, side: str | None) -> Self:
        """The same layout, whose errors say which side of an operation it is on."""
        layout = copy.copy(self)
        layout.store = Store(self.store.filesystem, self.store.root, side)
        return layout

    def held(self) -> Self:
        """The layout for reading many names: an object that has all of them is read only once.

        What is written after that is not seen by it.
        """
        return self

    @asynccontextmanager
    async def together(self) -> AsyncIterator[Self]:
        """The layout for publishing many names, which may be seen only when the context ends.

        An object that has all names is written only once.
        """
        yield self

    def selected(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The names that are meant: these, or the one selected by a digest; empty for all."""
        return names or ((self.default_name,) if self.digest is not None else ())

    def require_names(self, operation: str) -> None:
        """Raise UsageError if the layout was opened by a manifest's digest."""
        if self.digest is not None:
            raise UsageError(
                "digest=... selects one manifest, but this needs all names: leave it out",
                operation=operation,
                key=self.store.root,
            )

    async def require_folder(self, prefix: str) -> None:
        """Raise StoreError if a file is in place of the folder of this prefix.

        On a disk nothing can be below a file, but that nothing was listed does not say why.
        """
        folder = prefix.rpartition("/")[0]
        if not (folder and self.store.filesystem.has_directories):
            return
        if await self.store.stat(folder) is not None:
            raise StoreError(
                A_FILE,
                operation="list",
                side=self.store.side,
                key=self.store.root + folder,
            )

    def require_listing(self, operation: str) -> None:
        """Raise UsageError if blobs cannot be listed and deleted here."""
        if not self.store.filesystem.lists_blobs:
            raise UsageError(
                "a registry neither lists nor deletes blobs for others: set its own rules of "
                "retention, or delete tags there",
                operation=operation,
                side=self.store.side,
                key=self.store.root,
            )

    def blob_key(self, digest: Digest) -> str:
        """The key of a blob."""
        return self.blob_prefix + digest.hex

    def name_key(self, name: str) -> str:
        """The key of the object that is this name. Raises UsageError if one object has all names.

        Then a name cannot be brought back by itself.
        """
        raise UsageError(
            "all names of an OCI image layout are in one object, so they cannot be brought back by "
            "themselves: prune with --backup-to",
            operation="undo",
            key=self.store.root + name,
        )

    def digest_of(self, key: str) -> Digest | None:
        """The digest of the blob with this key, or None if it is not the key of a blob."""
        try:
            return Digest.from_hex(key.removeprefix(self.blob_prefix))
        except DigestError:
            return None

    @abstractmethod
    async def names(self, prefix: str = "") -> list[NamedManifest]:
        """All names that begin with a prefix, in natural order.

        Raises StoreError and ManifestError.
        """

    @abstractmethod
    async def find(self, name: str) -> NamedManifest | None:
        """The name as it is in the store now, or None if it does not exist. Raises StoreError."""

    async def read(self, name: str) -> Manifest:
        """A name's manifest, decoded and checked, and signed if signatures are wanted.

        A manifest that was asked for by its digest needs no signature. Raises NotFoundError,
        StoreError, ManifestError, IntegrityError if a part is damaged, and UntrustedError.
        """
        manifest = await self._read(name)
        if self.signing is not None and self.digest is None:
            await self._require(self.signing, self.signing.trusted, manifest)
        return manifest

    async def read_to_join(self, name: str) -> Manifest:
        """The same, for joining it with what is going to be signed: it has to be signed, too.

        Otherwise whoever joins would sign what somebody else wrote.
        """
        manifest = await self._read(name)
        if self.signing is not None:
            await self._require(self.signing, self.signing.joinable, manifest)
        return manifest

    async def digest_of_name(self, name: str) -> str:
        """The digest of the manifest that the name holds, signed or not. Raises as that does."""
        return str(self._digest_read(await self._read(name)))

    async def sign_held(self, name: str, expires: float | None) -> str:
        """Sign what the name holds now, until a time in seconds since 1970; return its digest.

        Whose signatures it has does not matter. Raises the errors of :meth:`read`, and UsageError
        without a key, or if it cannot be used.
        """
        if self.signing is None:
            raise no_key()
        digest = await self.digest_of_name(name)
        await self.signing.sign(self.store, [name], digest, expires)
        return digest

    async def _require(self, signing: Signing, trusted: Trusted | None, manifest: Manifest) -> None:
        try:
            await signing.require(
                trusted, self.store, manifest.name, lambda: self._digest_read(manifest)
            )
        except UntrustedError as error:
            error.key = f"{self.store.root}{self.manifest_prefix}{manifest.name}"
            raise

    @abstractmethod
    async def _read(self, name: str) -> Manifest:
        """The same, signed or not."""

    def _digest_read(self, manifest: Manifest) -> str:
        """The digest of the very bytes that the manifest was read from."""
        return self._digest(manifest)

    @abstractmethod
    def _digest(self, manifest: Manifest) -> str:
        """The digest that a manifest has when it is written here."""

    async def publish(
        self, names: Sequence[str], manifest: Manifest, modified: float | None = None
    ) -> None:
        """Write the manifest under each name, atomically, replacing what was there.

        All of its blobs must be in the store. If there is a key, the names are signed before they
        are written. With ``modified``, in seconds since 1970, the names get this time if the store
        can set the time of a name. Raises StoreError, and CacheNameError for a name that this store
        cannot have beside another one.
        """
        await self.sign(names, manifest)
        await self._publish(names, manifest, modified)

    async def sign(self, names: Sequence[str], manifest: Manifest) -> None:
        """Sign that the names hold the manifest, if there is a key. Raises StoreError.

        UsageError is raised if the key cannot be used.
        """
        if self.signing is not None and self.signing.signer is not None:
            await self.signing.sign(self.store, names, self._digest(manifest))

    @abstractmethod
    async def _publish(
        self, names: Sequence[str], manifest: Manifest, modified: float | None = None
    ) -> None:
        """The same, without a signature."""

    @abstractmethod
    async def compares(self) -> bool:
        """Whether :meth:`publish_if` compares and writes in one step here. Raises StoreError.

        What a server does is tried, once in this process for each opened cache.
        """

    @abstractmethod
    async def version(self, name: str) -> str:
        """The version of what is under the name, readable or not; empty if there is nothing.

        Raises StoreError, and IntegrityError and ManifestError if it cannot be told.
        """

    async def publish_if(self, name: str, manifest: Manifest, version: str) -> bool:
        """Write the manifest if the name still holds what has this version; empty: if it is new.

        Returns False if something else is there. After a response that was lost, that may be this
        manifest. Raises the same errors as :meth:`publish`, and ConflictError.
        """
        await self.sign([name], manifest)
        return await self._publish_if(name, manifest, version)

    @abstractmethod
    async def _publish_if(self, name: str, manifest: Manifest, version: str) -> bool:
        """The same, without a signature."""

    @abstractmethod
    async def holds(self, name: NamedManifest, manifest: Manifest) -> bool:
        """Whether the name already holds what :meth:`publish` would write. Raises StoreError."""

    async def date(self, name: NamedManifest, modified: float) -> bool:  # noqa: ARG002 - for stores that can
        """Set when a name was written, in seconds since 1970. Returns False if it cannot."""
        return False

    @abstractmethod
    async def remove(self, names: Collection[str]) -> None:
        """Remove the names; the blobs stay. Names that do not exist are ignored."""

    @abstractmethod
    async def remove_unchanged(self, names: Sequence[NamedManifest]) -> list[str]:
        """Remove the names whose manifests are still those that were listed, in this order.

        Returns those of the names that do not exist any more. Raises StoreError.
        """

    async def unnamed_references(self) -> set[Digest]:
        """Every blob that manifests without a name need. Raises as :meth:`references`."""
        return set()

    async def unclear_keys(self) -> list[str]:
        """Keys among the manifests that cannot be read by a name: their blobs are unknown."""
        return []

    def temporary_prefixes(self, names: Iterable[NamedManifest]) -> set[str]:
        """Prefixes under which interrupted writes of names and blobs leave temporary keys."""
        directories = {name.key.rpartition("/")[0] for name in names}
        return {f"{directory}/{TEMPORARY}".lstrip("/") for directory in directories} | {
            self.blob_prefix
        }

    def encode(self, config: CacheConfig) -> bytes:
        """The bytes of a cache config as this layout stores it."""
        return codec.encode(config)

    @abstractmethod
    async def references(self, name: str) -> set[Digest]:
        """Every blob that this name needs, including those that only describe others."""
