"""The peer for packing and extracting: ``tar | zstd``. Nothing is hashed or verified."""

from __future__ import annotations

from benchmarks.contenders import Command


def _bash(script: str, *words: str) -> Command:
    return Command(["bash", "-c", f"set -o pipefail; {script}", *words])


def pack(folder: str, blob: str) -> Command:
    return _bash('tar --sort=name -C "$0" -c . | zstd -q -f -T1 -o "$1"', folder, blob)


def unpack(blob: str, into: str) -> Command:
    return _bash('mkdir "$1"; zstd -q -d -c "$0" | tar -C "$1" -x', blob, into)
