"""The JSON of OCI referrers: manifests that refer to another one, and lists of them.

A signature is in an annotation of such a manifest. Registries copy annotations into the list, so
that whoever has the list has the signatures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from cachefs.digest import Digest
from cachefs.errors import ManifestError
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


class Referrers:
    """A list of referrers: an OCI index, in which other tools may have descriptors of their own.

    Args:
        document: the JSON object.
    """

    def __init__(self, document: dict[str, Any] | None = None) -> None:
        empty = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": []}
        self._document: dict[str, Any] = document or empty

    @classmethod
    def decode(cls, raw: bytes) -> Referrers:
        """Decode a list. Raises ManifestError for anything else."""
        try:
            document = msgspec.json.decode(raw)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise ManifestError(f"it is no list of referrers: {error}") from error
        if not (isinstance(document, dict) and isinstance(document.get("manifests"), list)):
            raise ManifestError("it is no list of referrers, but something else")
        return cls(document)

    def encode(self) -> bytes:
        """The bytes of the list."""
        return msgspec.json.encode(self._document)

    def signatures(self) -> list[Signature]:
        """Those that are signatures."""
        found = map(_signature, self._document["manifests"])
        return [one for one in found if one is not None]

    def has(self, referrer: Mapping[str, Any]) -> bool:
        """Whether the list has a referrer."""
        return referrer in self._document["manifests"]

    def with_one(self, referrer: Mapping[str, Any]) -> Referrers:
        """The list with one more, in place of an older signature by its key for its name.

        All else in it stays as it is.
        """
        new = _signature(referrer)
        others = [
            one
            for one in self._document["manifests"]
            if new is None or (found := _signature(one)) is None or found[:2] != new[:2]
        ]
        return Referrers({**self._document, "manifests": [*others, referrer]})


def _signature(descriptor: object) -> Signature | None:
    """The signature in a descriptor, None for anything else."""
    annotations = descriptor.get("annotations") if isinstance(descriptor, Mapping) else None
    if not isinstance(annotations, Mapping):
        return None
    values = [annotations.get(name) for name in (_KEY, _SUBJECT, _STATEMENT)]
    texts = [value for value in values if isinstance(value, str) and value]
    return Signature(*texts) if len(texts) == len(values) else None


class Artifact(NamedTuple):
    """A manifest with a signature, and how a list of referrers describes it."""

    raw: bytes
    digest: Digest
    referrer: dict[str, Any]


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
    referrer = {
        "mediaType": oci.MANIFEST,
        "digest": str(digest),
        "size": len(raw),
        "artifactType": ARTIFACT_TYPE,
        "annotations": annotations,
    }
    return Artifact(raw, digest, referrer)


def fallback_tag(manifest: str) -> str:
    """The tag under which a registry without the list has it: ``sha256-`` and 64 hex digits."""
    return manifest.replace(":", "-")
