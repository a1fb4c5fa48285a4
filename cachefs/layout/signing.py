"""Signing names when they are published, and demanding signatures when they are read."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from cachefs.errors import (
    IntegrityError,
    LocationError,
    UntrustedError,
)
from cachefs.layout.places import Beside, InRegistry, Place, Stored
from cachefs.layout.signatures import no_key, subject
from cachefs.layout.superseding import superseded
from cachefs.trust.signer import Signer
from cachefs.trust.statement import Signed, decode, state
from cachefs.trust.trusted import Claim, Trusted, load_trusted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cachefs.location.options import Location
    from cachefs.store import Store


class Signing:
    """How the names of one cache are signed, and whose signatures are wanted.

    Args:
        place: where the signatures are.
        identity: what signatures call the cache.
        trusted: the keys of which one has to have signed what is read; None if names need no
            signature.
        signer: signs what is published; None if nothing is signed.

    Attributes:
        joinable: the keys of which one has to have signed what is joined with something to be
            signed, so that nobody signs what others wrote: the trusted keys and the own one.
    """

    def __init__(
        self, place: Place, identity: str, trusted: Trusted | None, signer: Signer | None
    ) -> None:
        self._place = place
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
        signer = Signer(options.signing_key) if options.signing_key else None
        if options.signed_within is not None and not options.signed_by:
            raise LocationError("signed_within needs signed_by: say whose signatures are meant")
        trusted = None
        if options.signed_by:
            trusted = load_trusted(options.signed_by, options.signed_within)
        in_registry = location.layout_kind == "registry"
        place: Place = InRegistry() if in_registry else Beside(location.signatures)
        return cls(place, location.identity, trusted, signer)

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
            await self._place.put(
                store,
                manifest,
                self.signer.public.id,
                subject(self.identity, name),
                line + signature.encode(),
            )

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
        key_ids = [key.id for key in trusted.keys]
        stored = await self._place.by(store, claim.manifest, key_ids, subject(self.identity, name))
        found = [_checked(trusted, each, claim) for each in stored]
        signed = [(one.key_id, one.statement) for one in found if isinstance(one, Signed)]
        if signed:
            superseding = superseded(claim, signed, key_ids)
            why = [superseding] if superseding else []
        else:
            why = [fault for fault in found if isinstance(fault, str)]
            why = why or await self._others(trusted, store, claim)
        if why:
            raise UntrustedError("; ".join(why), operation="read", side=store.side)

    async def _others(self, trusted: Trusted, store: Store, claim: Claim) -> list[str]:
        """Why signatures of the manifest by other keys, or for other names, do not count."""
        stored = await self._place.some(store, claim.manifest)
        found = [_checked(trusted, each, claim) for each in stored]
        faults = list(dict.fromkeys(fault for fault in found if isinstance(fault, str)))
        return faults or ["it is not signed by a trusted key"]


def _checked(trusted: Trusted, stored: Stored, claim: Claim) -> Signed | str:
    """The signature, or why it does not count."""
    if isinstance(stored.data, IntegrityError):
        return f"the signature {stored.where} cannot be read: {stored.data.reason}"
    try:
        signed = decode(stored.data)
    except ValueError as error:
        return f"the signature {stored.where} is not valid: {error}"
    return trusted.fault(signed, claim, time.time()) or signed
