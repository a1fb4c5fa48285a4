"""Signing names when they are published, and demanding signatures when they are read."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from cachefs.concurrency import LOOKUP_PARALLELISM, collected
from cachefs.errors import (
    AccessError,
    IntegrityError,
    LocationError,
    NotFoundError,
    UntrustedError,
    UsageError,
)
from cachefs.layout.signatures import no_key, subject
from cachefs.layout.superseding import superseded
from cachefs.trust.signer import Signer
from cachefs.trust.statement import LARGEST, Signed, decode, state
from cachefs.trust.trusted import Claim, Trusted, load_trusted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cachefs.location.options import Location
    from cachefs.store import Store

EXPLAINED: Final = 20
"""Number of other signatures that are read to say why none of them counts."""


class Signing:
    """How the names of one cache are signed, and whose signatures are wanted.

    Args:
        prefix: the beginning of the keys of signatures.
        identity: what signatures call the cache.
        trusted: the keys of which one has to have signed what is read; None if names need no
            signature.
        signer: signs what is published; None if nothing is signed.

    Attributes:
        joinable: the keys of which one has to have signed what is joined with something to be
            signed, so that nobody signs what others wrote: the trusted keys and the own one.
    """

    def __init__(
        self, prefix: str, identity: str, trusted: Trusted | None, signer: Signer | None
    ) -> None:
        self.prefix = prefix
        self.identity = identity
        self.signer = signer
        self.trusted = trusted
        self.joinable = trusted
        if signer is not None:
            self.joinable = (trusted or Trusted([])).and_key(signer.public)

    @classmethod
    def at(cls, location: Location) -> Signing:
        """What the location says of signatures. Raises LocationError and UsageError."""
        options = location.signing
        if location.layout_kind == "registry":
            raise UsageError(
                "names in a registry cannot be signed or checked yet: leave signed_by and "
                "signing_key out ($CACHEFS_TRUSTED_KEYS, $CACHEFS_SIGNING_KEY), or mirror the "
                "cache to another store"
            )
        signer = Signer(options.signing_key) if options.signing_key else None
        if options.signed_within is not None and not options.signed_by:
            raise LocationError("signed_within needs signed_by: say whose signatures are meant")
        trusted = None
        if options.signed_by:
            trusted = load_trusted(options.signed_by, options.signed_within)
        return cls(location.signatures, location.identity, trusted, signer)

    def key(self, manifest: str, key_id: str, name: str) -> str:
        """The key of one signature."""
        return f"{self.prefix}{manifest}/{key_id}/{subject(self.identity, name)}"

    async def sign(
        self, store: Store, names: Sequence[str], manifest: str, expires: float | None = None
    ) -> None:
        """Sign that each of these names holds the manifest. Raises StoreError and UsageError."""
        if self.signer is None:
            raise no_key()
        for name in names:
            statement = state(
                cache=self.identity,
                name=name,
                manifest=manifest,
                signed=time.time(),
                expires=expires,
            )
            line = statement.encode()
            # ssh-keygen may wait for a passphrase or a finger.
            signature = await asyncio.to_thread(self.signer.sign, line)
            data = line + signature.encode()
            await store.put(self.key(manifest, self.signer.public.id, name), data)

    async def require(
        self, trusted: Trusted | None, store: Store, name: str, digest: Callable[[], str]
    ) -> None:
        """Raise UntrustedError unless a trusted key signed that the name holds this manifest.

        Args:
            trusted: the keys; None if no signature is needed.
            store: where the cache is.
            name: the name.
            digest: computes the digest of the manifest, if it is needed.

        Raises StoreError, too.
        """
        if trusted is None:
            return
        claim = Claim(self.identity, name, digest())
        keys = [self.key(claim.manifest, key.id, name) for key in trusted.keys]
        found = await collected(
            keys, lambda key: _checked(trusted, store, key, claim), LOOKUP_PARALLELISM
        )
        signed = [(one.key_id, one.statement) for one in found if isinstance(one, Signed)]
        if signed:
            superseding = superseded(claim, signed, {key.id for key in trusted.keys})
            why = [superseding] if superseding else []
        else:
            why = [fault for fault in found if isinstance(fault, str)]
            why = why or await self._others(trusted, store, claim)
        if why:
            raise UntrustedError("; ".join(why), operation="read", side=store.side)

    async def _others(self, trusted: Trusted, store: Store, claim: Claim) -> list[str]:
        """Why signatures of the manifest by other keys, or for other names, do not count."""
        try:
            listed = await store.list(f"{self.prefix}{claim.manifest}/")
        except (AccessError, NotFoundError):
            listed = []
        found = [await _checked(trusted, store, stat.path, claim) for stat in listed[:EXPLAINED]]
        faults = list(dict.fromkeys(fault for fault in found if isinstance(fault, str)))
        return faults or ["it is not signed by a trusted key"]


async def _checked(trusted: Trusted, store: Store, key: str, claim: Claim) -> Signed | str | None:
    """The signature with this key, why it does not count, or None if there is none."""
    try:
        signed = decode(await store.read(key, LARGEST))
    except NotFoundError:
        return None
    except IntegrityError as error:
        return f"the signature {key} cannot be read: {error.reason}"
    except ValueError as error:
        return f"the signature {key} is not valid: {error}"
    return trusted.fault(signed, claim, time.time()) or signed
