"""OCI image layout, as far as a cache uses it: descriptors, image manifests and indexes.

Field order follows Go's structs, so that the bytes are those that a builder writes.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct, field

from cachefs.errors import ManifestError
from cachefs.wire.bounds import MAX_RECORDS, check_bounds
from cachefs.wire.cacheconfig import Size  # noqa: TC001 - msgspec needs it
from cachefs.wire.go_json import go_json

INDEX: Final = "application/vnd.oci.image.index.v1+json"
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"

IMAGE_MANIFESTS: Final = frozenset({MANIFEST, DOCKER_MANIFEST})
INDEXES: Final = frozenset({INDEX, DOCKER_LIST})

REF_NAME: Final = "org.opencontainers.image.ref.name"
"""The annotation that holds a tag."""

UNCOMPRESSED: Final = "containerd.io/uncompressed"
"""The annotation that holds a layer's diffID."""

CREATED_AT: Final = "buildkit/createdat"
"""The annotation that holds the time a layer was made; optional."""

LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
"""The content of the file ``oci-layout``."""

_DOCKER_LAYERS: Final = {
    "application/vnd.oci.image.layer.v1.tar": "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip": (
        "application/vnd.docker.image.rootfs.diff.tar.gzip"
    ),
    "application/vnd.oci.image.layer.v1.tar+zstd": (
        "application/vnd.docker.image.rootfs.diff.tar.zstd"
    ),
}
_OCI_LAYERS: Final = {docker: oci for oci, docker in _DOCKER_LAYERS.items()}


class Descriptor(Struct, omit_defaults=True, kw_only=True):
    """A reference to a blob: its media type, digest, size in bytes and annotations."""

    media_type: str = field(name="mediaType")
    digest: str
    size: Size
    annotations: dict[str, str] = {}


class Manifest(Struct, omit_defaults=True, kw_only=True):
    """An image manifest whose config is a cache config and whose layers are the blobs."""

    schema_version: int = field(name="schemaVersion")
    media_type: str = field(name="mediaType", default="")
    config: Descriptor
    layers: list[Descriptor]


class Index(Struct, omit_defaults=True, kw_only=True):
    """An OCI index or Docker manifest list: of tags, or of layers and one cache config."""

    schema_version: int = field(name="schemaVersion")
    media_type: str = field(name="mediaType", default="")
    manifests: list[Descriptor]


def docker_media_type(media_type: str) -> str:
    """The Docker name of an OCI layer type; others are returned as they are."""
    return _DOCKER_LAYERS.get(media_type, media_type)


def oci_media_type(media_type: str) -> str:
    """The OCI name of a Docker layer type; others are returned as they are."""
    return _OCI_LAYERS.get(media_type, media_type)


_index_decoder: Final = msgspec.json.Decoder(Index)
_manifest_decoder: Final = msgspec.json.Decoder(Manifest)


def decode_index(raw: bytes, max_records: int = MAX_RECORDS) -> Index:
    """Parse an index, bounded as :func:`cachefs.wire.codec.decode` is. Raises ManifestError."""
    check_bounds(raw, max_records)
    try:
        return _index_decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ManifestError(f"the manifest is not an OCI index: {error}") from error


def decode_manifest(raw: bytes, max_records: int = MAX_RECORDS) -> Manifest:
    """Parse an image manifest, bounded likewise. Raises ManifestError."""
    check_bounds(raw, max_records)
    try:
        return _manifest_decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ManifestError(f"the manifest is not an OCI image manifest: {error}") from error


class _Sketch(Struct):
    media_type: str = field(name="mediaType", default="")
    manifests: msgspec.Raw = msgspec.Raw()


_sketch_decoder: Final = msgspec.json.Decoder(_Sketch)


def media_type_of(raw: bytes) -> str:
    """The media type of a manifest, which OCI's may leave out. Raises ManifestError."""
    try:
        found = _sketch_decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ManifestError(f"the manifest is not one of OCI's: {error}") from error
    if found.media_type:
        return found.media_type
    return INDEX if bytes(found.manifests) else MANIFEST


def encode(value: Index | Manifest) -> bytes:
    """The bytes a builder would have written."""
    return go_json(value)
