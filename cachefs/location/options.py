"""The data of a location: where the cache is, and how to reach and write it.

Nothing here accesses a store or a disk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from cachefs.errors import CacheNameError, LocationError
from cachefs.location.keys import as_names, check_name, key_fault
from cachefs.location.kinds import quoted
from cachefs.location.masking import Masked, Secret
from cachefs.masking import MASK, mask_text, mask_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cachefs.location.attributes import Type
    from cachefs.location.keys import Names

LayoutKind = Literal["keyed", "oci", "registry", "auto"]
Engine = Literal["s3fs", "obstore"]


@dataclass(frozen=True, kw_only=True, repr=False)
class S3Options(Masked):
    """How to reach an S3 server. What is None here, the AWS client finds in its configuration."""

    region: str | None = None
    endpoint_url: str | None = None
    use_path_style: bool = False
    access_key_id: Secret | None = None
    secret_access_key: Secret | None = None
    session_token: Secret | None = None
    profile: str | None = None
    anonymous: bool = False
    acl: str | None = None
    server_side_encryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = None
    sse_kms_key_id: str | None = None
    storage_class: str | None = None
    requester_pays: bool = False
    retry_mode: Literal["standard", "adaptive"] = "standard"
    retry_max_attempts: int = 3
    disable_accept_encoding: bool = False

    def __post_init__(self) -> None:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise LocationError("access_key_id and secret_access_key belong together: give both")
        if self.session_token is not None and self.access_key_id is None:
            raise LocationError(
                "session_token needs access_key_id and secret_access_key: give all three"
            )
        if self.anonymous and self.access_key_id is not None:
            raise LocationError("anonymous=true sends no credentials: leave access_key_id out")
        if self.anonymous and self.requester_pays:
            raise LocationError(
                "requester_pays=true needs credentials, as somebody has to pay: leave anonymous out"
            )
        if self.sse_kms_key_id and "kms" not in (self.server_side_encryption or ""):
            raise LocationError("sse_kms_key_id needs server_side_encryption=aws:kms: give both")


@dataclass(frozen=True, kw_only=True, repr=False)
class AzureOptions(Masked):
    """How to reach an Azure storage account. Without a key, the Azure client finds credentials."""

    account_url: str
    account_name: str
    secret_access_key: Secret | None = None


@dataclass(frozen=True, kw_only=True)
class RegistryOptions:
    """How to reach a registry. Credentials are those that Docker has for it."""

    registry_insecure: bool = False


@dataclass(frozen=True, kw_only=True)
class OCIOptions:
    """How manifests are written to an OCI image layout or a registry."""

    oci_mediatypes: bool = True
    image_manifest: bool = True
    compression: Literal["gzip", "zstd", "uncompressed"] = "gzip"
    compression_level: int | None = None
    force_compression: bool = False

    def __post_init__(self) -> None:
        if self.image_manifest and not self.oci_mediatypes:
            raise LocationError(
                "image-manifest=true needs oci-mediatypes=true: Docker has no such manifests"
            )
        highest = {"gzip": 9, "zstd": 22}.get(self.compression, -1)
        if self.compression_level is not None and not 0 <= self.compression_level <= highest:
            levels = f"levels 0 to {highest}" if highest > 0 else "no levels"
            raise LocationError(
                f"compression-level={self.compression_level}: {self.compression} has {levels}"
            )


@dataclass(frozen=True, kw_only=True)
class SigningOptions:
    """Whose signatures are wanted, and how to sign. ``signed_within`` is in seconds."""

    signed_by: tuple[str, ...] | None = None
    signed_within: float | None = None
    signed_as: str | None = None
    signing_key: str | None = None

    @property
    def is_used(self) -> bool:
        """Whether anything is signed, or has to be."""
        return bool(self.signed_by or self.signed_within or self.signing_key)


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How to export. ``touch_refresh`` is in seconds."""

    upload_parallelism: int = 4
    touch_refresh: float = 86400.0
    mode: Literal["min", "max"] = "min"
    ignore_error: bool = False


@dataclass(frozen=True, kw_only=True, repr=False)
class Location(Masked):
    """A location, checked. It can be pickled. ``str`` and ``repr`` show no secrets.

    Attributes:
        type: the builders' type, or ``"fsspec"``.
        url: the root folder, as an fsspec URL or, on a local disk, an absolute path. It ends in
            ``/`` (before its query, if any), and may contain a password: show ``str(location)``
            instead.
        protocol: the URL's, in lower case; ``"file"`` for a path.
        layout_kind: ``"oci"`` for an OCI image layout, ``"registry"`` for a repository, ``"keyed"``
            for blobs and manifests by key, ``"auto"`` if the content of the directory decides.
        names: the names of manifests, or the tag, that were given.
        digest: the manifest to import instead of a tag.
        prefix, blobs_prefix, manifests_prefix: as given; see ``blobs`` and ``manifests``.
        s3: set if the protocol is S3's.
        azure: set for ``type=azblob``.
        registry: set for ``type=registry``.
        oci: set for ``type=local`` and ``type=registry``.
        engine: the library for S3; not used for other protocols.
        patience: seconds that the store may go without progress; None for the default.
        upload_rate, download_rate: bytes per second that may be sent and received; None for any.
        max_records: how many records and layers a manifest may have to be read.
        storage_options: more options for fsspec's filesystem, from Python only.
        export: how to export.
        signing: how names are signed, and whose signatures are wanted.
        given: the attributes that the user set, except the type and a URL or path alone.

    Raises LocationError and CacheNameError for keys that would leave the root or that some stores
    would change.
    """

    type: Type
    url: str
    protocol: str
    layout_kind: LayoutKind
    names: tuple[str, ...] = ()
    digest: str | None = None
    prefix: str = ""
    blobs_prefix: str = ""
    manifests_prefix: str = ""
    s3: S3Options | None = None
    azure: AzureOptions | None = None
    registry: RegistryOptions | None = None
    oci: OCIOptions | None = None
    engine: Engine = "s3fs"
    patience: float | None = None
    upload_rate: int | None = None
    download_rate: int | None = None
    max_records: int = 1_000_000
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    export: ExportOptions = field(default_factory=ExportOptions)
    signing: SigningOptions = field(default_factory=SigningOptions)
    given: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for of, prefix in (("blobs", self.blobs), ("manifests", self.manifests)):
            if (reason := key_fault(f"{self._without_slash(prefix)}x")) is not None:
                raise LocationError(
                    f"the prefix of {of}, {quoted(prefix)}, {reason}: correct prefix or {of}_prefix"
                )
        for name in self.names:
            check_name(name)
            if (reason := key_fault(self._without_slash(f"{self.manifests}{name}"))) is not None:
                raise CacheNameError(f"the name {quoted(name)} after its prefix {reason}")

    def _without_slash(self, key: str) -> str:
        """The key without the slash that it may begin with, where that is a part of the key.

        Builders use ``prefix=/ci/`` as it is, so their keys begin with a slash.
        """
        return key.removeprefix("/") if self.type in {"s3", "azblob"} else key

    @property
    def upload_bound(self) -> int | None:
        """How many blobs the user lets be uploaded at a time, None if that is left open."""
        given = "upload_parallelism" in self.given
        return self.export.upload_parallelism if given else None

    @property
    def has_slash_first(self) -> bool:
        """Whether keys begin with a slash. obstore would drop it."""
        return self.blobs.startswith("/") or self.manifests.startswith("/")

    @property
    def blobs(self) -> str:
        """The part before the digest of blobs' keys, below the root."""
        return self._joined(self.blobs_prefix)

    @property
    def manifests(self) -> str:
        """The part before the name of manifests' keys, below the root."""
        return self._joined(self.manifests_prefix)

    @property
    def signatures(self) -> str:
        """The part before the digest of signatures' keys, below the root."""
        return self._joined("signatures" if self.type == "azblob" else "signatures/")

    @property
    def identity(self) -> str:
        """What a signature calls this cache: its place, without how to reach it.

        Caches over the same blobs differ in their manifests prefix, so it is a part of it.
        """
        if self.signing.signed_as:
            return self.signing.signed_as
        if self.azure is not None:
            return f"{self.azure.account_name}:{self.url}{self.manifests}"
        scheme = "file://" if self.protocol == "file" else ""
        return scheme + mask_url(self.url).removesuffix(f"?{MASK}") + self.manifests

    def _joined(self, prefix: str) -> str:
        """Join as builders do: folders on Azure, plain text elsewhere."""
        if self.type != "azblob":
            return self.prefix + prefix
        return re.sub("/+", "/", "".join(f"{part}/" for part in (self.prefix, prefix) if part))

    def require_no_recompression(self) -> None:
        """Raise LocationError for ``force-compression=true``, before anything is written there."""
        if self.oci is not None and self.oci.force_compression:
            raise LocationError(
                "force-compression=true: existing layers cannot be compressed again yet; leave "
                "force-compression out, and compression is used for new layers"
            )

    def with_names(self, names: Names) -> Location:
        """Return the same location with other names. Raises CacheNameError."""
        return replace(self, names=as_names(names))

    def unsigned(self) -> Location:
        """The same location without signatures, for the user's own cache: nobody else writes it."""
        return replace(self, signing=SigningOptions())

    def __str__(self) -> str:
        """The folder, as short text without secrets."""
        if self.protocol == "file":
            return mask_text(f"{self.url}{self.prefix}")
        return mask_text(f"{mask_url(self.url).removesuffix(f'?{MASK}')}{self.prefix}")
