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
    """The folder of the cache, as an fsspec URL or a path."""

    name: str | list[str] | tuple[str, ...] | None
    """The names of manifests: export writes all, import reads all. By default buildkit."""

    tag: str | None
    """The tag in the index of the image layout. By default latest."""

    digest: str | None
    """The digest of the manifest to read, instead of a tag."""

    prefix: str | None
    """s3 and fsspec: The beginning of all keys, as it is: end it with a slash. azblob: The folder
    of all keys."""

    blobs_prefix: str | None
    """s3 and fsspec: What the keys of blobs have after prefix. azblob: The folder of blobs below
    prefix."""

    manifests_prefix: str | None
    """s3 and fsspec: What the keys of manifests have after prefix. azblob: The folder of manifests
    below prefix."""

    region: str | None
    """The region."""

    endpoint_url: str | None
    """The URL of the S3 server, if it is not Amazon's."""

    use_path_style: bool | None
    """Whether the bucket is in the path of requests, not in the host."""

    access_key_id: str | Secret | None
    """The access key. By default from AWS: environment, files, role."""

    secret_access_key: str | Secret | None
    """s3 and fsspec: The secret of access_key_id. azblob: The key of the account. By default Azure
    clients find credentials."""

    session_token: str | Secret | None
    """The session token of temporary credentials."""

    retry_mode: Literal["standard", "adaptive"] | None
    """How requests are retried."""

    retry_max_attempts: int | None
    """The most times that a request is sent."""

    disable_accept_encoding: bool | None
    """Whether Accept-Encoding is not signed, for Google's S3 endpoint."""

    engine: Literal["s3fs", "obstore"] | None
    """The library for S3. Builders do not have this attribute."""

    account_url: str | None
    """The storage account, for example https://account.blob.core.windows.net."""

    account_name: str | None
    """The name of the account. By default the first label of the host in account_url."""

    upload_parallelism: int | None
    """How many blobs are uploaded at a time."""

    touch_refresh: str | float | timedelta | None
    """The age at which the time of an existing blob is renewed."""

    mode: Literal["min", "max"] | None
    """min: the layers of the final results. max: those of all steps."""

    ignore_error: bool | None
    """Whether an export that fails is only a warning."""

    oci_mediatypes: bool | None
    """Whether media types are OCI's, not Docker's."""

    image_manifest: bool | None
    """Whether an image manifest is written, not an index. By default as oci-mediatypes."""

    compression: Literal["gzip", "zstd", "uncompressed"] | None
    """How new layers are compressed."""

    compression_level: int | None
    """The level: 0 to 9 for gzip, 0 to 22 for zstd."""

    force_compression: bool | None
    """Whether layers with another compression are compressed again."""

    reset: bool | None
    """Refused if true, as it would delete blobs that others need: use `cachefs prune`."""
