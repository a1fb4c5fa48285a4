"""The JSON of OCI referrers: manifests that refer to another one, and lists of them.

A signature is in an annotation of such a manifest. Registries copy annotations into the list, so
that whoever has the list has the signatures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from msgspec import Struct, field

from cachefs.digest import Digest
from cachefs.wire import oci

if TYPE_CHECKING:
    from cachefs.wire.oci import Descriptor

ARTIFACT_TYPE: Final = "application/vnd.cachefs.signature.v1"

_EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
_KEY: Final = "io.cachefs.signature.key"
_SUBJECT: Final = "io.cachefs.signature.subject"
_STATEMENT: Final = "io.cachefs.signature.statement"


class Signature(NamedTuple):
    """A signature in a list of referrers, not checked: the signed statement as text."""

    key_id: str
    subject: str
    statement: str


class Referrer(Struct, omit_defaults=True, kw_only=True):
    """A descriptor in a list of referrers."""

    media_type: str = field(name="mediaType")
    digest: str
    size: int
    artifact_type: str = field(name="artifactType", default="")
    annotations: dict[str, str] = {}

    @property
    def signature(self) -> Signature | None:
        """The signature, None for a referrer of another kind."""
        values = [self.annotations.get(name, "") for name in (_KEY, _SUBJECT, _STATEMENT)]
        return Signature(*values) if all(values) else None


class Referrers(Struct, kw_only=True):
    """A list of referrers: an OCI index."""

    schema_version: int = field(name="schemaVersion", default=2)
    media_type: str = field(name="mediaType", default=oci.INDEX)
    manifests: list[Referrer] = []

    @classmethod
    def decode(cls, raw: bytes) -> Referrers:
        """Decode a list. Raises msgspec.DecodeError."""
        try:
            return _decoder.decode(raw)
        except (RecursionError, UnicodeDecodeError) as error:
            raise msgspec.DecodeError(str(error)) from error

    def encode(self) -> bytes:
        """The bytes of the list."""
        return msgspec.json.encode(self)

    def signatures(self) -> list[Signature]:
        """Those that are signatures."""
        return [found for one in self.manifests if (found := one.signature) is not None]

    def has(self, referrer: Referrer) -> bool:
        """Whether the list has a referrer."""
        return any(one.digest == referrer.digest for one in self.manifests)

    def with_one(self, referrer: Referrer) -> Referrers:
        """The list with one more, in place of an older signature by its key for its name."""
        new = referrer.signature
        replaced = None if new is None else new[:2]
        others = [
            one
            for one in self.manifests
            if (found := one.signature) is None or found[:2] != replaced
        ]
        return Referrers(manifests=[*others, referrer])


_decoder: Final = msgspec.json.Decoder(Referrers)


class Artifact(NamedTuple):
    """A manifest with a signature, and how a list of referrers describes it."""

    raw: bytes
    digest: Digest
    referrer: Referrer


def artifact(signed: Descriptor, key_id: str, subject: str, statement: str) -> Artifact:
    """Make the manifest that refers to the signed one."""
    empty = {"mediaType": _EMPTY_TYPE, "digest": str(Digest.of(b"{}")), "size": 2}
    annotations = {_KEY: key_id, _STATEMENT: statement, _SUBJECT: subject}
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "config": empty,
        "layers": [empty],
        "subject": {
            "mediaType": signed.media_type,
            "digest": signed.digest,
            "size": signed.size,
        },
        "annotations": annotations,
    }
    raw = msgspec.json.encode(manifest)
    digest = Digest.of(raw)
    referrer = Referrer(
        media_type=oci.MANIFEST,
        digest=str(digest),
        size=len(raw),
        artifact_type=ARTIFACT_TYPE,
        annotations=annotations,
    )
    return Artifact(raw, digest, referrer)


def fallback_tag(manifest: str) -> str:
    """The tag under which a registry without the list has it: ``sha256-`` and 64 hex digits."""
    return manifest.replace(":", "-")
