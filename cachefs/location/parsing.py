"""The parser of locations, for the library and the command line.

:func:`parse` accepts builder attributes (``type=s3,bucket=b,...``), an fsspec URL or a path, and
Python keywords. :mod:`cachefs.location.attributes` has the table of attributes, and
:mod:`cachefs.location.syntax` distinguishes the three forms. Nothing here accesses a store or a
disk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Unpack

from cachefs.errors import LocationError
from cachefs.location.attributes import ATTRIBUTES, TYPE, TYPES, Attribute, Group, Role, Type, find
from cachefs.location.keys import key_fault
from cachefs.location.kinds import BUCKET
from cachefs.location.options import (
    AzureOptions,
    ExportOptions,
    LayoutKind,
    Location,
    OCIOptions,
    RegistryOptions,
    S3Options,
    SigningOptions,
)
from cachefs.location.syntax import URL, in_attribute_form, read_attributes, read_keywords

if TYPE_CHECKING:
    from cachefs.location.keywords import LocationKeywords

_S3_PROTOCOLS: Final = ("s3", "s3a")
_BUCKET_PROTOCOLS: Final = (*_S3_PROTOCOLS, "gs", "gcs")
_HTTP_PROTOCOLS: Final = ("http", "https")
_HOST_PROTOCOLS: Final = (*_HTTP_PROTOCOLS, "sftp", "ssh", "ftp", "smb", "hdfs", "webhdfs")
_PROTOCOLS: Final = (*_BUCKET_PROTOCOLS, *_HOST_PROTOCOLS, "abfs", "abfss", "az", "file")
_NO_PATH: Final = re.compile(
    rf"(?:{'|'.join(_PROTOCOLS)})(?::|//)|/{{2,}}[^/]*@[^/]*:|/{{2,}}[^/]+:[^/]*@"
    r"|[^/]*@[^/]*:|[^/]+:[^/]*@",
    re.IGNORECASE,
)
"""The beginning of a mistyped URL, or of a host as ssh takes it, which would become a folder."""
_USER: Final = re.compile(r"[^#\[\]]*")
_HOST: Final = re.compile(r"(?:[^\s@:\[\]/]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def parse(
    text: str | os.PathLike[str],
    *,
    role: Role | None = None,
    storage_options: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    **attributes: Unpack[LocationKeywords],
) -> Location:
    """Parse a location that a user typed.

    Args:
        text: builder attributes, an fsspec URL or a path.
        role: refuses attributes of the other role; None allows all.
        storage_options: passed to fsspec's filesystem, and never shown.
        environ: the environment for defaults such as ``$AWS_REGION``; None for ``os.environ``.
        **attributes: the same attributes with Python values, and ``_`` for ``-``: ``mode="max"``,
            ``name=["a", "b"]``, ``touch_refresh=3600``. None means not given.

    Raises:
        LocationError: for a location that is not valid; it says what would be valid.
        CacheNameError: for a name that is not valid.
    """
    if not isinstance(text, str | os.PathLike):
        raise LocationError(f"a location must be text or a path, not {type(text).__name__}")
    if not isinstance(storage_options, Mapping | None):
        raise LocationError("storage_options must be a mapping of names to values")
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
            raise LocationError(
                f"{name} belongs to type=s3; for a URL it can be set only from Python"
            )
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
    return given.pop()  # type: ignore[no-any-return]  # the row allows only these


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
        """The values of a group by keyword, for its options class."""
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
    root = _root(given, role)
    names = _names(given, role)
    s3 = _s3(given, root.protocol)
    return Location(
        type=given.type,
        **root._asdict(),
        **names,
        **given.group("keys"),
        s3=s3,
        azure=_azure(given) if given.type == "azblob" else None,
        registry=RegistryOptions(**given.group("registry")) if given.type == "registry" else None,
        oci=_oci(given) if given.type in {"local", "registry"} else None,
        engine=given.group("engine")["engine"] if s3 else "s3fs",
        **given.group("store"),
        max_records=given.group("reading")["max_records"],
        storage_options=storage_options,
        export=ExportOptions(**given.group("export")),
        signing=SigningOptions(**given.group("trust")),
        given=frozenset(given.chosen) - implied,
    )


def _names(given: _Values, role: Role | None) -> dict[str, Any]:
    """The names and the digest that were given."""
    if given.type != "registry":
        values = given.group("names")
        names = values.get("name") or values.get("tag") or ()
        return {"names": names, "digest": values.get("digest")}
    reference = given.group("root")["ref"]
    if reference.digest is not None and role == "export":
        raise LocationError("ref has a digest, which is for import: give a tag in its place")
    return {"names": (reference.tag,) if reference.tag else (), "digest": reference.digest}


class _Root(NamedTuple):
    url: str
    protocol: str
    layout_kind: LayoutKind


def _root(given: _Values, role: Role | None) -> _Root:
    values = given.group("root")
    match given.type:
        case "s3":
            return _Root(f"s3://{values['bucket']}/", "s3", "keyed")
        case "azblob":
            return _Root(f"abfs://{values['container']}/", "abfs", "keyed")
        case "local":
            return _directory(_local_path(values["src"], values["dest"], role), "oci")
        case "registry":
            return _Root(
                f"oci://{values['ref'].host}/{values['ref'].repository}/", "oci", "registry"
            )
        case "fsspec":
            return _folder(values["url"])


def _local_path(
    src: str | os.PathLike[str] | None, dest: str | os.PathLike[str] | None, role: Role | None
) -> str:
    if src is not None and dest is not None:
        raise LocationError("src and dest are both given, but a location is one directory")
    path = dest if src is None else src
    if path is None:
        needed = {"import": "src=DIR", "export": "dest=DIR", None: "src=DIR or dest=DIR"}[role]
        raise LocationError(f"type=local needs its directory: give {needed}")
    return os.fsdecode(path)


def _folder(url: str | os.PathLike[str]) -> _Root:
    if isinstance(url, os.PathLike) or not URL.match(url):
        return _directory(os.fsdecode(url), "auto")
    scheme, _, rest = url.partition("://")
    protocol = scheme.lower()
    if protocol in ("file", "local"):
        if not rest.startswith("/"):
            raise LocationError(
                "a file URL needs an absolute path: write for example file:///var/cache"
            )
        return _directory(rest, "auto")
    rest, question, query = rest.partition("?")
    if question and protocol in _S3_PROTOCOLS:
        raise LocationError(
            "an S3 URL of a folder cannot have a query, such as ?versionId=: remove it"
        )
    root = _remote(protocol, rest)
    if question and protocol in _HTTP_PROTOCOLS:
        raise LocationError(
            f"an {protocol} URL of a folder cannot have a query, such as a signature or a token: "
            "it would be valid for one object only"
        )
    return _Root(f"{protocol}://{root}{question}{query}", protocol, "keyed")


def _remote(protocol: str, rest: str) -> str:
    """Check host or bucket and path, and end it with a slash. Errors show none of it."""
    host, _, path = rest.partition("/")
    if protocol in _BUCKET_PROTOCOLS:
        try:
            BUCKET.read(host)
        except ValueError:
            raise LocationError(
                f"{protocol}:// is not followed by a bucket: write {protocol}://bucket/folder/"
            ) from None
    user, _, name = host.rpartition("@")
    if protocol in _HOST_PROTOCOLS and not (_HOST.fullmatch(name) and _USER.fullmatch(user)):
        raise LocationError(
            f"the {protocol}:// URL has no host, or its port is not a number: write "
            f"{protocol}://host/folder/ or {protocol}://user@host:port/folder/, and in a password "
            "%2F, %3F, %23 and %40 for '/', '?', '#' and '@'"
        )
    path = path.removesuffix("/")
    for part in (host.rpartition("@")[2], path):
        if part and (reason := key_fault(part)) is not None:
            raise LocationError(f"the folder of the {protocol}:// URL {reason}")
    return f"{host}/{path}/" if path else f"{host}/"


def _directory(path: str, layout_kind: LayoutKind) -> _Root:
    if "::" in path:
        raise LocationError(
            "'::' chains filesystems in fsspec, which is not supported: give the store's own URL"
        )
    if _NO_PATH.match(path):
        raise LocationError(
            "the path begins as a URL or the address of a host does: write a URL alone and with "
            "its '://', as in s3://bucket/folder/ or sftp://user@host/folder/; give a folder of "
            "that name by its absolute path"
        )
    absolute = os.path.abspath(os.path.expanduser(path)).strip("/")  # noqa: PTH100, PTH111 - lexical
    return _Root(f"/{absolute}/" if absolute else "/", "file", layout_kind)


def _s3(given: _Values, protocol: str) -> S3Options | None:
    if protocol in _S3_PROTOCOLS:
        return S3Options(**given.group("s3"))
    for row in ATTRIBUTES:
        if row.group in ("s3", "engine") and given.type == "fsspec" and row.name in given.chosen:
            raise LocationError(
                f"{row.name} is for s3:// URLs only, and this is {protocol}://: remove it"
            )
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
