"""The table of attributes: their names, the types of cache that have them, and their values.

:data:`ATTRIBUTES` determines how text and keywords are read. The reference page, the types of
keywords and the command line's help are generated from it.
"""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass
from typing import Any, Final, Literal, get_args

from cachefs.errors import LocationError
from cachefs.location.kinds import (
    BUCKET,
    COMPRESSION,
    COUNT,
    DIGEST,
    DURATION,
    FILE,
    FILLED,
    FLAG,
    FOLDER,
    HTTP,
    KEYS,
    LEVEL,
    NAME,
    NAMES,
    PATH,
    RATE,
    REFERENCE,
    RESET,
    SECRET,
    TEXT,
    WAIT,
    Kind,
    one_of,
    quoted,
)
from cachefs.similar import most_similar

Role = Literal["import", "export"]
Type = Literal["s3", "azblob", "local", "registry", "fsspec"]
Scope = Literal["both", "import", "export"]
Group = Literal[
    "root",
    "names",
    "keys",
    "store",
    "s3",
    "engine",
    "azure",
    "registry",
    "oci",
    "reading",
    "trust",
    "export",
]

TYPES: Final[tuple[Type, ...]] = get_args(Type)


@dataclass(frozen=True, slots=True)
class Attribute:
    """One row of the table.

    Attributes:
        name: the name that builders use.
        types: the types of cache that have it, with this default.
        group: the options class or the part of a location that it belongs to.
        kind: the type of its values.
        about: one line for users.
        scope: ``"import"`` or ``"export"`` if it is for one of them only.
        default: its value if it is not set; None for no value.
        environ: the environment variable that takes precedence over the default.
        required: the types for which it must be set.
        keyword_only: the types for which it can be set only from Python.
    """

    name: str
    types: tuple[Type, ...]
    group: Group
    kind: Kind
    about: str
    _: KW_ONLY
    scope: Scope = "both"
    default: Any = None
    environ: str | None = None
    required: tuple[Type, ...] = ()
    keyword_only: tuple[Type, ...] = ()

    @property
    def keyword(self) -> str:
        """The name as a Python keyword and as a field of the options class."""
        return self.name.replace("-", "_").replace(".", "_")

    @property
    def secret(self) -> bool:
        """Whether the value is never shown."""
        return self.kind is SECRET

    def read(self, value: object, source: str | None = None) -> Any:
        """Check and convert the value. Raises LocationError, which says what would be valid.

        ``source`` is what the user set, if that is not the attribute itself.
        """
        try:
            return self.kind.read(value)
        except ValueError as error:
            shown = source or self.name
            if not self.secret:
                shown = f"{shown}={quoted(value)}"
            raise LocationError(f"{shown} {error}") from None


_S3: Final[tuple[Type, ...]] = ("s3",)
_AZURE: Final[tuple[Type, ...]] = ("azblob",)
_LOCAL: Final[tuple[Type, ...]] = ("local",)
_REGISTRY: Final[tuple[Type, ...]] = ("registry",)
_OCI: Final[tuple[Type, ...]] = ("local", "registry")
_S3_URL: Final[tuple[Type, ...]] = ("s3", "fsspec")
_KEYED: Final[tuple[Type, ...]] = ("s3", "azblob", "fsspec")
_REMOTE: Final[tuple[Type, ...]] = ("s3", "azblob", "registry", "fsspec")

# Formatted by hand, so that it reads as a table.
# fmt: off
ATTRIBUTES: Final[tuple[Attribute, ...]] = (
    Attribute("type", TYPES, "root", one_of(*TYPES),
              "The kind of store. A URL or a path alone means fsspec."),
    Attribute("bucket", _S3, "root", BUCKET,
              "The bucket.", environ="AWS_BUCKET", required=("s3",)),
    Attribute("container", _AZURE, "root", BUCKET,
              "The container.",
              default="buildkit-cache", environ="BUILDKIT_AZURE_STORAGE_CONTAINER"),
    Attribute("src", _LOCAL, "root", PATH,
              "The OCI image layout directory to read.", scope="import"),
    Attribute("dest", _LOCAL, "root", PATH,
              "The OCI image layout directory to write.", scope="export"),
    Attribute("ref", _REGISTRY, "root", REFERENCE,
              "The repository and the tag, such as ghcr.io/org/app:cache. By default Docker Hub "
              "and the tag latest; for import also @sha256:... in place of a tag.",
              required=("registry",)),
    Attribute("url", ("fsspec",), "root", FOLDER,
              "The folder of the cache, as an fsspec URL or a path.", required=("fsspec",)),
    Attribute("name", _KEYED, "names", NAMES,
              "The names of manifests: export writes all, import reads all (BuildKit's s3 reads "
              "only the first). By default buildkit."),
    Attribute("tag", _LOCAL, "names", NAME,
              "The tag in the index of the image layout. By default latest."),
    Attribute("digest", _LOCAL, "names", DIGEST,
              "The digest of the manifest to read, instead of a tag.", scope="import"),
    Attribute("prefix", _S3_URL, "keys", TEXT,
              "Prepended to every key unchanged; usually ends with a slash.", default=""),
    Attribute("prefix", _AZURE, "keys", TEXT,
              "The folder of all keys.", default="", environ="BUILDKIT_AZURE_STORAGE_PREFIX"),
    Attribute("blobs_prefix", _S3_URL, "keys", TEXT,
              "The part of blobs' keys after prefix.", default="blobs/"),
    Attribute("blobs_prefix", _AZURE, "keys", TEXT,
              "The folder of blobs below prefix.", default="blobs"),
    Attribute("manifests_prefix", _S3_URL, "keys", TEXT,
              "The part of manifests' keys after prefix.", default="manifests/"),
    Attribute("manifests_prefix", _AZURE, "keys", TEXT,
              "The folder of manifests below prefix.", default="manifests"),
    Attribute("patience", _REMOTE, "store", WAIT,
              "How long the store may make no progress, retries included. By default 1m, and 10s "
              "for `cachefs run`. Builders do not have this attribute.",
              environ="CACHEFS_PATIENCE"),
    Attribute("upload_rate", _REMOTE, "store", RATE,
              "How many bytes may be sent in a second, for a line that others need too. All that a "
              "process opens with one location share it. Builders do not have this attribute.",
              environ="CACHEFS_UPLOAD_RATE"),
    Attribute("download_rate", _REMOTE, "store", RATE,
              "How many bytes may be received in a second. Builders do not have this attribute.",
              environ="CACHEFS_DOWNLOAD_RATE"),
    Attribute("region", _S3_URL, "s3", FILLED,
              "The region. By default AWS_DEFAULT_REGION or that of the profile.",
              environ="AWS_REGION", keyword_only=("fsspec",)),
    Attribute("endpoint_url", _S3_URL, "s3", HTTP,
              "The URL of the S3 server. By default that of the AWS configuration, or Amazon's."),
    Attribute("use_path_style", _S3_URL, "s3", FLAG,
              "Whether the bucket is in the path of requests, not in the host.", default=False),
    Attribute("access_key_id", _S3_URL, "s3", SECRET,
              "The access key. By default from AWS: environment, files, role.",
              keyword_only=("fsspec",)),
    Attribute("secret_access_key", _S3_URL, "s3", SECRET,
              "The secret of access_key_id.", keyword_only=("fsspec",)),
    Attribute("session_token", _S3_URL, "s3", SECRET,
              "The session token of temporary credentials.", keyword_only=("fsspec",)),
    Attribute("profile", _S3_URL, "s3", FILLED,
              "The profile of the AWS config files. By default AWS_PROFILE."),
    Attribute("anonymous", _S3_URL, "s3", FLAG,
              "Whether requests carry no credentials, for public buckets.", default=False),
    Attribute("acl", _S3_URL, "s3", FILLED,
              "The canned ACL of objects, such as bucket-owner-full-control."),
    Attribute("server_side_encryption", _S3_URL, "s3", one_of("AES256", "aws:kms", "aws:kms:dsse"),
              "How the server encrypts objects. By default as the bucket says."),
    Attribute("sse_kms_key_id", _S3_URL, "s3", FILLED,
              "The KMS key for server_side_encryption=aws:kms. By default the account's."),
    Attribute("storage_class", _S3_URL, "s3", FILLED,
              "The storage class of objects, such as STANDARD_IA."),
    Attribute("requester_pays", _S3_URL, "s3", FLAG,
              "Whether whoever sends a request pays for it.", default=False),
    Attribute("retry_mode", _S3_URL, "s3", one_of("standard", "adaptive"),
              "How requests are retried.", default="standard"),
    Attribute("retry_max_attempts", _S3_URL, "s3", COUNT,
              "How often a request is sent at most. If it is not given, one that a server refuses "
              "because it has too much to do is repeated for 20 seconds.", default=3),
    Attribute("disable_accept_encoding", _S3_URL, "s3", FLAG,
              "Whether Accept-Encoding stays unsigned, for Google's S3 endpoint.", default=False),
    Attribute("engine", _S3_URL, "engine", one_of("s3fs", "obstore"),
              "The library for S3. Builders do not have this attribute.",
              default="s3fs", environ="CACHEFS_ENGINE"),
    Attribute("max_records", TYPES, "reading", COUNT,
              "How many records and layers a manifest may have to be read: bounds memory. "
              "Builders do not have this attribute.",
              default=1_000_000, environ="CACHEFS_MAX_RECORDS"),
    Attribute("signed_by", TYPES, "trust", KEYS,
              "Public keys, or files of them. One of them must have signed each name that is read. "
              "By default names need no signature. Builders do not have this attribute.",
              environ="CACHEFS_TRUSTED_KEYS"),
    Attribute("signed_within", TYPES, "trust", WAIT,
              "How old a signature may be. By default only as it says itself. Builders do not have "
              "this attribute."),
    Attribute("signed_as", TYPES, "trust", FILLED,
              "What signatures call this cache. By default its URL. Builders do not have this "
              "attribute."),
    Attribute("signing_key", TYPES, "trust", FILE,
              "The private key to sign names with when they are written. By default they are not "
              "signed. Builders do not have this attribute.",
              environ="CACHEFS_SIGNING_KEY"),
    Attribute("account_url", _AZURE, "azure", HTTP,
              "The storage account, for example https://account.blob.core.windows.net.",
              environ="BUILDKIT_AZURE_STORAGE_ACCOUNT_URL", required=("azblob",)),
    Attribute("account_name", _AZURE, "azure", FILLED,
              "The name of the account. By default the first label of the host in account_url.",
              environ="BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME"),
    Attribute("secret_access_key", _AZURE, "azure", SECRET,
              "The key of the account. By default the Azure client finds credentials."),
    Attribute("registry.insecure", _REGISTRY, "registry", FLAG,
              "Whether the registry is reached by plain http. localhost always is.",
              default=False),
    Attribute("upload_parallelism", _S3_URL, "export", COUNT,
              "How many blobs are uploaded at a time. If it is not given, this many large ones, "
              "and as many small ones as the store takes.", scope="export", default=4),
    Attribute("touch_refresh", _S3_URL, "export", DURATION,
              "The age at which the time of an existing blob is renewed.",
              scope="export", default=86400.0),
    Attribute("mode", TYPES, "export", one_of("min", "max"),
              "min: the layers of the final results. max: those of all steps.",
              scope="export", default="min"),
    Attribute("ignore-error", TYPES, "export", FLAG,
              "Whether an export that fails is only a warning.", scope="export", default=False),
    Attribute("oci-mediatypes", _OCI, "oci", FLAG,
              "Whether media types are OCI's, not Docker's.", scope="export", default=True),
    Attribute("image-manifest", _OCI, "oci", FLAG,
              "Whether an image manifest is written, not an index. By default as oci-mediatypes.",
              scope="export"),
    Attribute("compression", _OCI, "oci", COMPRESSION,
              "How new layers are compressed.", scope="export", default="gzip"),
    Attribute("compression-level", _OCI, "oci", LEVEL,
              "The level: 0 to 9 for gzip, 0 to 22 for zstd.", scope="export"),
    Attribute("force-compression", _OCI, "oci", FLAG,
              "Whether layers with another compression are compressed again.",
              scope="export", default=False),
    Attribute("reset", _LOCAL, "root", RESET,
              "Refused if true: it would delete blobs that others need. Use `cachefs prune`.",
              scope="export", default=False),
)
# fmt: on

TYPE: Final = ATTRIBUTES[0]
NAMES_KNOWN: Final = frozenset(attribute.name for attribute in ATTRIBUTES)

_WORD: Final = re.compile(r"[a-z][a-z0-9_.-]{0,23}")


def find(name: str, type_: Type, role: Role | None) -> Attribute:
    """Find the row of a known attribute. Raises LocationError if the type or role has none."""
    rows = [row for row in ATTRIBUTES if row.name == name]
    for row in rows:
        if type_ in row.types:
            if role is not None and row.scope not in ("both", role):
                side = "export (cache-to)" if row.scope == "export" else "import (cache-from)"
                raise LocationError(f"{name} belongs to {side}, and this location is for {role}")
            return row
    types = " and ".join(dict.fromkeys(f"type={type_}" for row in rows for type_ in row.types))
    raise LocationError(f"{name} belongs to {types}, not to type={type_}")


def unknown(name: str, where: str, *, show: bool = True) -> LocationError:
    """Make the error for an unknown attribute, with the most similar known one.

    A name that does not look like an attribute, or must not be shown, is replaced by its position,
    because it may be a part of a secret that was not quoted.
    """
    near = most_similar(name, NAMES_KNOWN)
    hint = f": did you mean {near}?" if near else ""
    shown = repr(name) if show and _WORD.fullmatch(name) else f"in {where}"
    return LocationError(f"unknown attribute {shown}{hint}")
