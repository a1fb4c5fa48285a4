"""Where a cache is: one parser for what a user types, for the library and the command line.

:func:`parse` takes builder attributes (``type=s3,bucket=b,...``), an fsspec URL or a path, with
Python keywords on top. The table of :mod:`cachefs.attributes` says which attributes there are, and
:mod:`cachefs.settings` how the three forms are told apart. Nothing here touches a store or a disk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple

from cachefs.attributes import ATTRIBUTES, TYPE, TYPES, Attribute, Group, Role, Type, find
from cachefs.errors import CacheNameError, LocationError
from cachefs.masking import MASK, Masked, Secret, mask_url
from cachefs.names import check_name, key_fault
from cachefs.settings import URL, in_attribute_form, read_attributes, read_keywords
from cachefs.values import BUCKET, parse_duration, quoted

__all__ = [
    "ATTRIBUTES",
    "Attribute",
    "AzureOptions",
    "ExportOptions",
    "Location",
    "OCIOptions",
    "Role",
    "S3Options",
    "Secret",
    "check_name",
    "parse",
    "parse_duration",
]

Layout = Literal["keyed", "oci", "auto"]
Engine = Literal["s3fs", "obstore"]

_S3_PROTOCOLS: Final = ("s3", "s3a")
_BUCKET_PROTOCOLS: Final = (*_S3_PROTOCOLS, "gs", "gcs")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class S3Options(Masked):
    """How to reach an S3 server. Without credentials, those that AWS clients find."""

    region: str | None = None
    endpoint_url: str | None = None
    use_path_style: bool = False
    access_key_id: Secret | None = None
    secret_access_key: Secret | None = None
    session_token: Secret | None = None
    retry_mode: Literal["standard", "adaptive"] = "standard"
    retry_max_attempts: int = 3
    disable_accept_encoding: bool = False

    def __post_init__(self) -> None:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise LocationError("access_key_id and secret_access_key go together: give both")
        if self.session_token is not None and self.access_key_id is None:
            raise LocationError("session_token needs access_key_id and secret_access_key")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AzureOptions(Masked):
    """How to reach an Azure storage account. Without a key, the credentials Azure clients find."""

    account_url: str
    account_name: str
    secret_access_key: Secret | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OCIOptions:
    """How an OCI image layout is written."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """How an export goes. ``touch_refresh`` is in seconds."""

    upload_parallelism: int = 4
    touch_refresh: float = 86400.0
    mode: Literal["min", "max"] = "min"
    ignore_error: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Location(Masked):
    """Where a cache is, checked. It can be pickled; neither ``str`` nor ``repr`` shows a secret.

    Attributes:
        type: the type that a builder would call it, or ``"fsspec"``.
        url: the root folder, as an fsspec URL or, on a local disk, an absolute path. It ends in
            ``/`` (before its query, if any), and may hold a password: show ``str(location)``.
        protocol: the URL's, in lower case; ``"file"`` for a path.
        layout: ``"oci"`` for an OCI image layout, ``"keyed"`` for blobs and manifests by key,
            ``"auto"`` where what lies in the directory decides.
        names: the manifests' names, or the tag, that were given.
        digest: the manifest to import instead of a tag.
        prefix, blobs_prefix, manifests_prefix: as given; see ``blobs`` and ``manifests``.
        s3: set where the protocol is S3's.
        azure: set for ``type=azblob``.
        oci: set for ``type=local``.
        engine: the library for S3; of no meaning elsewhere.
        storage_options: what fsspec's filesystem gets beside all this, from Python only.
        export: how an export goes.
        given: the attributes that the user set, other than the type and a URL or path alone.

    Raises LocationError and CacheNameError for keys that would leave the root or that not every
    store keeps.
    """

    type: Type
    url: str
    protocol: str
    layout: Layout
    names: tuple[str, ...] = ()
    digest: str | None = None
    prefix: str = ""
    blobs_prefix: str = ""
    manifests_prefix: str = ""
    s3: S3Options | None = None
    azure: AzureOptions | None = None
    oci: OCIOptions | None = None
    engine: Engine = "s3fs"
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    export: ExportOptions = field(default_factory=ExportOptions)
    given: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for of, prefix in (("blobs", self.blobs), ("manifests", self.manifests)):
            if (reason := key_fault(f"{prefix}x")) is not None:
                raise LocationError(
                    f"the prefix of {of}, {quoted(prefix)}, {reason}: correct prefix or {of}_prefix"
                )
        for name in self.names:
            check_name(name)
            if (reason := key_fault(f"{self.manifests}{name}")) is not None:
                raise CacheNameError(f"the name {quoted(name)} after its prefix {reason}")

    @property
    def blobs(self) -> str:
        """What the key of a blob, below the root, has before its digest."""
        return self._joined(self.blobs_prefix)

    @property
    def manifests(self) -> str:
        """What the key of a manifest, below the root, has before its name."""
        return self._joined(self.manifests_prefix)

    def _joined(self, prefix: str) -> str:
        """Azure's builders join folders; all others write one text after the other."""
        if self.type != "azblob":
            return self.prefix + prefix
        return re.sub("/+", "/", "".join(f"{part}/" for part in (self.prefix, prefix) if part))

    @property
    def default_names(self) -> tuple[str, ...]:
        """The names that were given, else the one that a builder would use."""
        return self.names or (("latest",) if self.layout == "oci" else ("buildkit",))

    def with_names(self, *names: str) -> Location:
        """The same cache with other names. Raises CacheNameError."""
        return replace(self, names=tuple(dict.fromkeys(names)))

    def __str__(self) -> str:
        """Short text that a user recognises: the folder, without any secret."""
        if self.protocol == "file":
            return f"{self.url}{self.prefix}"
        return f"{mask_url(self.url).removesuffix(f'?{MASK}')}{self.prefix}"


def parse(
    text: str | os.PathLike[str],
    *,
    role: Role | None = None,
    storage_options: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    **attributes: object,
) -> Location:
    """The location that a user typed.

    Args:
        text: builder attributes, an fsspec URL or a path.
        role: refuses attributes that belong to the other side; None allows all.
        storage_options: handed to fsspec's filesystem, and never shown.
        environ: where defaults such as ``$AWS_REGION`` come from; None means ``os.environ``.
        **attributes: the same attributes with Python values, ``-`` spelled ``_``: ``mode="max"``,
            ``name=["a", "b"]``, ``touch_refresh=3600``. None means not given.

    Raises:
        LocationError: for what was typed wrong; it says what would be right.
        CacheNameError: for a name that cannot be one.
    """
    if not isinstance(text, str | os.PathLike):
        raise LocationError(f"a location is text or a path, not {type(text).__name__}")
    if not isinstance(storage_options, Mapping | None):
        raise LocationError("storage_options is a mapping of names to values")
    in_form = isinstance(text, str) and in_attribute_form(text)
    typed: Mapping[str, object] = (
        read_attributes(str(text)) if in_form else {"type": "fsspec", "url": text}
    )
    keywords = read_keywords(attributes)
    type_ = _type(typed, keywords)
    given = _Values(type_, os.environ if environ is None else environ)
    for name, value in typed.items():
        attribute = find(name, type_, role)
        if type_ in attribute.keyword_only:
            raise LocationError(f"{name} belongs to type=s3; for a URL it is set from Python only")
        given.put(attribute, value)
    for name, value in keywords.items():
        given.put(find(name, type_, role), value)
    implied = {"type"} if in_form or "url" in keywords else {"type", "url"}
    return _location(given, role, dict(storage_options or {}), implied)


def _type(*sources: Mapping[str, object]) -> Type:
    given = {TYPE.read(source["type"]) for source in sources if "type" in source}
    if not given:
        raise LocationError(
            f"type= is missing: write one of {', '.join(TYPES)}, or ./ before a path with '=' in it"
        )
    if len(given) > 1:
        raise LocationError("type is given twice: a URL or a path alone is type=fsspec")
    return given.pop()  # type: ignore[no-any-return]  # the row reads nothing else


@dataclass
class _Values:
    """The attributes that were given, and the values of all others."""

    type: Type
    environ: Mapping[str, str]
    chosen: dict[str, Any] = field(default_factory=dict)

    def put(self, attribute: Attribute, value: object) -> None:
        read = attribute.read(value)
        if read is None:
            return
        if self.chosen.setdefault(attribute.name, read) != read:
            raise LocationError(f"{attribute.name} is given twice, with different values")

    def group(self, group: Group) -> dict[str, Any]:
        """The values of a group by keyword, ready for its options class."""
        rows = [row for row in ATTRIBUTES if row.group == group and self.type in row.types]
        return {row.keyword: self._value(row) for row in rows}

    def _value(self, row: Attribute) -> Any:
        if row.name in self.chosen:
            return self.chosen[row.name]
        if row.environ and self.environ.get(row.environ):
            return row.read(self.environ[row.environ], f"${row.environ}")
        if self.type in row.required:
            variable = f" or set ${row.environ}" if row.environ else ""
            raise LocationError(f"type={self.type} needs {row.name}: give {row.name}=...{variable}")
        return row.default


def _location(
    given: _Values, role: Role | None, storage_options: dict[str, Any], implied: set[str]
) -> Location:
    place = _place(given, role)
    names = given.group("names")
    s3 = _s3(given, place.protocol)
    return Location(
        type=given.type,
        **place._asdict(),
        names=names.get("name") or names.get("tag") or (),
        digest=names.get("digest"),
        **given.group("keys"),
        s3=s3,
        azure=_azure(given) if given.type == "azblob" else None,
        oci=_oci(given) if given.type == "local" else None,
        engine=given.group("engine")["engine"] if s3 else "s3fs",
        storage_options=storage_options,
        export=ExportOptions(**given.group("export")),
        given=frozenset(given.chosen) - implied,
    )


class _Place(NamedTuple):
    url: str
    protocol: str
    layout: Layout


def _place(given: _Values, role: Role | None) -> _Place:
    values = given.group("place")
    match given.type:
        case "s3":
            return _Place(f"s3://{values['bucket']}/", "s3", "keyed")
        case "azblob":
            return _Place(f"abfs://{values['container']}/", "abfs", "keyed")
        case "local":
            return _directory(_local_path(values["src"], values["dest"], role), "oci")
        case "fsspec":
            return _folder(values["url"])


def _local_path(
    src: str | os.PathLike[str] | None, dest: str | os.PathLike[str] | None, role: Role | None
) -> str:
    if src is not None and dest is not None:
        raise LocationError("src and dest are both given: one location is one directory")
    path = dest if src is None else src
    if path is None:
        needed = {"import": "src=DIR", "export": "dest=DIR", None: "src=DIR or dest=DIR"}[role]
        raise LocationError(f"type=local needs its directory: give {needed}")
    return os.fsdecode(path)


def _folder(url: str | os.PathLike[str]) -> _Place:
    if isinstance(url, os.PathLike) or not URL.match(url):
        return _directory(os.fsdecode(url), "auto")
    scheme, _, rest = url.partition("://")
    protocol = scheme.lower()
    if protocol in ("file", "local"):
        if not rest.startswith("/"):
            raise LocationError("a file URL has an absolute path: write file:///var/cache")
        return _directory(rest, "auto")
    rest, question, query = rest.partition("?")
    if question and protocol in _S3_PROTOCOLS:
        raise LocationError("an S3 URL of a folder has no query, such as ?versionId=")
    return _Place(f"{protocol}://{_remote(protocol, rest)}{question}{query}", protocol, "keyed")


def _remote(protocol: str, rest: str) -> str:
    """Host or bucket and path, checked, with a slash at the end. Messages show none of it."""
    host, _, path = rest.partition("/")
    if protocol in _BUCKET_PROTOCOLS:
        try:
            BUCKET.read(host)
        except ValueError:
            raise LocationError(
                f"{protocol}:// is not followed by a bucket: write {protocol}://bucket/folder/"
            ) from None
    path = path.removesuffix("/")
    for part in (host.rpartition("@")[2], path):
        if part and (reason := key_fault(part)) is not None:
            raise LocationError(f"the folder of the {protocol}:// URL {reason}")
    return f"{host}/{path}/" if path else f"{host}/"


def _directory(path: str, layout: Layout) -> _Place:
    if "::" in path:
        raise LocationError(
            "'::' chains filesystems in fsspec, which is not supported: give the store's own URL"
        )
    absolute = os.path.abspath(os.path.expanduser(path)).strip("/")  # noqa: PTH100, PTH111 - lexical
    return _Place(f"/{absolute}/" if absolute else "/", "file", layout)


def _s3(given: _Values, protocol: str) -> S3Options | None:
    if protocol in _S3_PROTOCOLS:
        return S3Options(**given.group("s3"))
    for row in ATTRIBUTES:
        if row.group in ("s3", "engine") and given.type == "fsspec" and row.name in given.chosen:
            raise LocationError(f"{row.name} is for s3:// URLs only, and this is {protocol}://")
    return None


def _azure(given: _Values) -> AzureOptions:
    values = given.group("azure")
    if values["account_name"] is None:
        label = re.match(r"https?://([A-Za-z0-9-]+)", values["account_url"])
        if label is None:
            raise LocationError(
                "account_url does not begin with the account: give account_name=..."
            )
        values["account_name"] = label[1]
    return AzureOptions(**values)


def _oci(given: _Values) -> OCIOptions:
    values = given.group("oci")
    if values["image_manifest"] is None:
        values["image_manifest"] = values["oci_mediatypes"]
    return OCIOptions(**values)
