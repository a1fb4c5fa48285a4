"""Inline caches: the records in the config of an image, whose layers are the cache's.

Builders write them with ``--cache-to type=inline``. The field holds the JSON of the records in
base64; the layers are those of the image's manifest, each on the one before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct, field

from cachefs.errors import ManifestError
from cachefs.wire import oci, timestamps
from cachefs.wire.bounds import MAX_RECORDS, check_bounds
from cachefs.wire.cacheconfig import Annotations, CacheConfig, Layer, LayerIndex, Record
from cachefs.wire.rules import check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cachefs.wire.oci import Descriptor


class _History(Struct):
    created: str | None = None
    empty_layer: bool = False


class _RootFS(Struct):
    diff_ids: list[str] = []


class _Image(Struct):
    rootfs: _RootFS = field(default_factory=_RootFS)
    history: list[_History] = []
    cache: bytes | None = field(name="moby.buildkit.cache.v0", default=None)


_image_decoder: Final = msgspec.json.Decoder(_Image)
_records_decoder: Final = msgspec.json.Decoder(list[Record])


def inline_config(
    image: bytes, layers: Sequence[Descriptor], max_records: int = MAX_RECORDS
) -> CacheConfig | None:
    """The cache config in an image's config, None if it has none. Raises ManifestError.

    Args:
        image: the bytes of the image's config.
        layers: the descriptors of the image's layers.
        max_records: as for :func:`cachefs.wire.codec.decode`.
    """
    check_bounds(image, max_records)
    try:
        found = _image_decoder.decode(image)
        if found.cache is None:
            return None
        check_bounds(found.cache, max_records)
        records = _records_decoder.decode(found.cache)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ManifestError(f"the inline cache of the image is not valid: {error}") from error
    if len(found.rootfs.diff_ids) != len(layers):
        raise ManifestError(
            f"the image has {len(layers)} layers and {len(found.rootfs.diff_ids)} diffIDs"
        )
    dates = [one.created for one in found.history if not one.empty_layer]
    config = CacheConfig(
        [
            Layer(
                layer.digest,
                LayerIndex(index - 1),
                Annotations(
                    media_type=oci.oci_media_type(layer.media_type),
                    diff_id=found.rootfs.diff_ids[index],
                    size=layer.size,
                    created_at=_date(dates[index] if index < len(dates) else None),
                ),
            )
            for index, layer in enumerate(layers)
        ],
        records,
    )
    check(config)
    return config


def _date(created: str | None) -> str:
    return created if created and timestamps.is_timestamp(created) else timestamps.ZERO
