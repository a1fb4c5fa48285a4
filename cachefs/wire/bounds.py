"""How large a manifest may be. Checked on its bytes, before any object is made of them.

Objects take up to twenty times the bytes of the JSON that they are made from, and anyone who may
write to a cache may write a manifest. The bounds follow from the number of records alone, so that
users have one number to raise.
"""

from __future__ import annotations

from typing import Final

from cachefs.errors import ManifestError

MAX_RECORDS: Final = 1_000_000
"""The default for how many records and layers a manifest may have: several times the largest that
is known."""

_BYTES: Final = 512
_VALUES: Final = 16


def max_bytes(max_records: int) -> int:
    """The bytes of the largest manifest that is read: 512 for each record or layer."""
    return _BYTES * max_records


def check_bounds(raw: bytes, max_records: int) -> None:
    """Check the bytes of a manifest. Raises ManifestError if objects could take too much memory.

    Commas and brackets are counted, as every value in JSON but the first follows one. Characters
    beyond ASCII are stored in up to four bytes each, also those next to them.
    """
    # One byte is found ten times as fast as two, and a builder's manifest has no backslash.
    wide = not raw.isascii() or (b"\\" in raw and b"\\u" in raw)
    if len(raw) * (4 if wide else 1) > max_bytes(max_records):
        raise too_large(f"{len(raw)} bytes", max_records)
    values = sum(map(raw.count, (b",", b"{", b"[")))
    if values > _VALUES * max_records:
        raise too_large(f"{values} values", max_records)


def too_large(what: str, max_records: int) -> ManifestError:
    """The error for a manifest with ``what``, which is more than the bounds allow."""
    return ManifestError(
        f"the manifest has {what}, too many for max_records={max_records}: "
        "raise max_records if you trust who wrote it"
    )
