"""Noticing that a name was taken back to an older state: later signatures supersede earlier ones.

Whoever may write to a cache can put back what a trusted key signed before. So this machine keeps
the time of the last signature of each key that it has accepted for a name, in the user's cache
directory. What is lost there is only the memory: names are read as by a machine that is new.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from cachefs.layout.signatures import subject
from cachefs.trust.trusted import CLOCKS
from cachefs.user_directory import read_checked, sweep, write_checked

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cachefs.trust.statement import Statement
    from cachefs.trust.trusted import Claim

FOLDER: Final = "signatures"


class _Last(Struct, array_like=True, frozen=True):
    """The last signature by one key: when it was made, and of which manifest."""

    signed: str
    signed_at: float
    manifest: str


_decoder: Final = msgspec.msgpack.Decoder(dict[str, _Last])


def superseded(claim: Claim, signed: Sequence[tuple[str, Statement]], keys: Collection[str]) -> str:
    """Why a later signature stands against these; empty if none does, and they are remembered.

    Args:
        claim: what is signed.
        signed: valid signatures of it, each with the id of its key.
        keys: the ids of the keys that are trusted. What others signed does not count.
    """
    name = subject(claim.cache, claim.name)
    seen = _read(name)
    latest = max(
        (last for key, last in seen.items() if key in keys),
        key=lambda last: last.signed_at,
        default=None,
    )
    newest = max(statement.signed_at for _, statement in signed)
    # Two signers whose clocks differ may write one name right after each other.
    if (
        latest is not None
        and latest.manifest != claim.manifest
        and newest < latest.signed_at - CLOCKS
    ):
        return (
            f"it was signed at {max(s.signed for _, s in signed)}, and this machine has seen what "
            f"was signed under this name at {latest.signed}: the name was taken back to an older "
            "state. If that was meant, sign it again"
        )
    now = dict(seen)
    for key, statement in signed:
        if key not in seen or seen[key].signed_at < statement.signed_at:
            now[key] = _Last(statement.signed, statement.signed_at, statement.manifest)
    if now != seen:
        sweep(FOLDER)
        write_checked(msgspec.msgpack.encode(now), FOLDER, name)
    return ""


def _read(name: str) -> dict[str, _Last]:
    data = read_checked(FOLDER, name)
    try:
        return _decoder.decode(data) if data else {}
    except msgspec.DecodeError:
        return {}
