"""What results have, kept on this machine: to know whether one is in place needs no download.

Each result has two small files in the user's cache directory, named after the diffIDs of its
layers: the listing of its files, and its log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec
import xxhash

from cachefs.layers.listing import Listed
from cachefs.user_directory import read_checked, sweep, write_checked

if TYPE_CHECKING:
    from cachefs.layers.listing import Listing

_MOST_MEMBERS: Final = 500_000
_MOST_LOG_BYTES: Final = 1024 * 1024
_FOLDER: Final = "results"

_decoder: Final = msgspec.msgpack.Decoder(dict[bytes, Listed])
_encoder: Final = msgspec.msgpack.Encoder()


def keep_listing(diff_id: str, listing: Listing) -> None:
    """Keep the listing of a layer, unless it is very large."""
    if listing.whole and len(listing.members) <= _MOST_MEMBERS:
        _keep(_files(diff_id), _encoder.encode(listing.members))


def kept_listing(diff_id: str) -> dict[bytes, Listed] | None:
    """The members of a layer by name; None if they are not known here."""
    data = read_checked(_FOLDER, _files(diff_id))
    try:
        return None if data is None else _decoder.decode(data)
    except msgspec.DecodeError:
        return None


def keep_log(diff_id: str, log: BinaryIO) -> None:
    """Keep a log, unless it is large."""
    data = log.read(_MOST_LOG_BYTES + 1)
    if len(data) <= _MOST_LOG_BYTES:
        _keep(_log(diff_id), data)


def kept_log(diff_id: str) -> bytes | None:
    """A log; None if it is not known here."""
    return read_checked(_FOLDER, _log(diff_id))


def _keep(name: str, data: bytes) -> None:
    if read_checked(_FOLDER, name) != data:
        sweep(_FOLDER)
        write_checked(data, _FOLDER, name)


def _files(diff_id: str) -> str:
    return xxhash.xxh3_128_hexdigest(b"files\0" + diff_id.encode())


def _log(diff_id: str) -> str:
    return xxhash.xxh3_128_hexdigest(b"log\0" + diff_id.encode())
