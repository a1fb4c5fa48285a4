"""BuildKit's figures, for orientation only.

Used when the BuildKit peer is not installed. They are from another run, on another machine with 2
cores, against a SeaweedFS on loopback at parallelism 4. They show the order of magnitude and are
not used in any ratio.
"""

from __future__ import annotations

from typing import Final

BUILDKIT: Final = {
    "upload 64 x 8 MiB": "3.3 to 4.5",
    "upload 2000 x 16 KiB": "2.8 to 3.3",
    "upload 1 x 1 GiB": "6.9 to 7.6",
    "export 2000 x 16 KiB again, nothing changed": "0.72 to 0.84",
    "touch all of 2000 x 16 KiB": "2.7",
    "load 100,000 records, ready for look-ups": "4.6",
}
