"""The keywords of ``cachefs.open`` and their types, for type checkers and editors.

Written by docs/generate_keywords.py from the table of attributes: change that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    import os
    from datetime import timedelta

    from cachefs.location.masking import Secret


class LocationKeywords(TypedDict, total=False):
    """The attributes of a location with Python values. None means not given."""

    type: Literal["s3", "azblob", "local", "fsspec"] | None
    """The kind of store. A URL or a path alone means fsspec."""

    bucket: str | None
    """The bucket."""

    container: str | None
    """The container."""

    src: str | os.PathLike[str] | None
    """The OCI image layout directory to read."""

    dest: str | os.PathLike[str] | None
    """The OCI image layout directory to write."""

    url: str | os.PathLike[str] | None
    """The folder that holds the cache, as an fsspec URL or a path."""

    name: str | list[str] | tuple[str, ...] | None
    """The manifests: export writes all, import reads all. buildkit when not given."""

    tag: str | None
    """The tag in the image layout's index. latest when not given."""

    digest: str | None
    """The manifest to read, instead of a tag."""

    prefix: str | None
    """s3 and fsspec: What all keys begin with, as it is: give it a slash at its end. azblob: The
    folder of all keys."""

    blobs_prefix: str | None
    """s3 and fsspec: What keys of blobs have after prefix. azblob: The folder of blobs below
    prefix."""

    manifests_prefix: str | None
    """s3 and fsspec: What keys of manifests have after prefix. azblob: The folder of manifests
    below prefix."""

    region: str | None
    """The region."""

    endpoint_url: str | None
    """The S3 server, where it is not Amazon's."""

    use_path_style: bool | None
    """Whether the bucket stands in the path of requests, not in the host."""

    access_key_id: str | Secret | None
    """Credentials; else those that AWS clients find: environment, files, role."""

    secret_access_key: str | Secret | None
    """s3 and fsspec: The secret of access_key_id. azblob: The account's key; else the credentials
    that Azure clients find."""

    session_token: str | Secret | None
    """The token that temporary credentials need."""

    retry_mode: Literal["standard", "adaptive"] | None
    """How requests are repeated."""

    retry_max_attempts: int | None
    """How often a request is sent at most."""

    disable_accept_encoding: bool | None
    """Whether Accept-Encoding stays unsigned, for Google's S3 endpoint."""

    engine: Literal["s3fs", "obstore"] | None
    """The library that speaks S3. Builders do not know this attribute."""

    account_url: str | None
    """The storage account, for example https://account.blob.core.windows.net."""

    account_name: str | None
    """The account's name; else the first label of the host in account_url."""

    upload_parallelism: int | None
    """How many blobs are uploaded at a time."""

    touch_refresh: str | float | timedelta | None
    """The age at which the time of a blob that is there already is renewed."""

    mode: Literal["min", "max"] | None
    """min: the layers of the final results. max: those of every step."""

    ignore_error: bool | None
    """Whether an export that fails is a warning only."""

    oci_mediatypes: bool | None
    """Whether media types are OCI's, not Docker's."""

    image_manifest: bool | None
    """Whether an image manifest is written, not an index. As oci-mediatypes by default."""

    compression: Literal["gzip", "zstd", "uncompressed"] | None
    """How new layers are compressed."""

    compression_level: int | None
    """The level: 0 to 9 for gzip, 0 to 22 for zstd."""

    force_compression: bool | None
    """Whether layers that are compressed otherwise are compressed anew."""

    reset: bool | None
    """Refused when true, for it deletes what others need: use `cachefs prune`."""
