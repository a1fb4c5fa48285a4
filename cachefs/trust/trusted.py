"""Whom to trust: keys, each with the times in which it is valid, and keys that were revoked.

A trust file is an ``allowed_signers`` file of OpenSSH: a line for each key, with a name for people,
options and the key. Lines of public keys alone are understood, too, and a line that begins with
``@revoked`` as in OpenSSH's ``known_hosts``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cachefs.errors import LocationError, reason
from cachefs.trust.keys import TYPES, PublicKey
from cachefs.trust.sshsig import NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cachefs.trust.statement import Signed

CLOCKS: Final = 300.0
"""Seconds by which the clocks of a signer and a reader may differ."""

MOST: Final = 64
"""Number of keys that may be trusted at the same time: each takes a request for each name."""

_REVOKED: Final = "@revoked"
_LARGEST: Final = 1024 * 1024
_OPTION: Final = re.compile(r'([a-z-]+)(?:="([^"]*)")?(?:,|$)', re.IGNORECASE)
_TIME: Final = re.compile(r"(\d{8})(?:(\d{4})(\d\d)?)?(Z?)", re.ASCII)


@dataclass(frozen=True)
class Signatory:
    """A key that is trusted.

    Attributes:
        who: what people call it; empty for a key alone.
        key: the key.
        after: it is valid from this time on, in seconds since 1970; None for ever.
        before: it is valid until then.
    """

    who: str
    key: PublicKey
    after: float | None = None
    before: float | None = None

    def __str__(self) -> str:
        return f"{self.who} ({self.key.fingerprint})" if self.who else self.key.fingerprint

    def is_valid(self, moment: float) -> bool:
        """Whether the key is valid at that time."""
        return (self.after is None or self.after <= moment) and (
            self.before is None or moment < self.before
        )


@dataclass(frozen=True)
class Claim:
    """What a reader wants to be signed: that this name of this cache holds this manifest."""

    cache: str
    name: str
    manifest: str


class Trusted:
    """The keys that a reader trusts.

    Args:
        signatories: the keys; one that is in several lines is valid as any of them says.
        revoked: ids of keys that are not trusted whatever else is said of them.
        within: seconds that a signature may be old; None for any age.
    """

    def __init__(
        self,
        signatories: Sequence[Signatory],
        revoked: Iterable[str] = (),
        within: float | None = None,
    ) -> None:
        self.revoked = frozenset(revoked)
        self._all = tuple(signatories)
        self._within = within

    @property
    def keys(self) -> list[PublicKey]:
        """The keys that are not revoked, each once."""
        return [
            key for key in dict.fromkeys(one.key for one in self._all) if key.id not in self.revoked
        ]

    def and_key(self, key: PublicKey) -> Trusted:
        """These keys and one more, unless that is revoked."""
        return Trusted([*self._all, Signatory("", key)], self.revoked, self._within)

    def fault(self, signed: Signed, claim: Claim, now: float) -> str:
        """Why the signed statement does not prove the claim; empty if it does.

        Args:
            signed: the statement with its signature.
            claim: what is to be proven.
            now: this machine's time, in seconds since 1970.
        """
        key = PublicKey(signed.signature.key)
        if key.id in self.revoked:
            return f"the key {key.fingerprint} was revoked"
        holders = [one for one in self._all if one.key == key]
        if not holders:
            return f"it is signed by {key.fingerprint}, which is not trusted"
        if not holders[0].key.verifies(signed.signature, signed.line):
            return f"the signature of {holders[0]} is wrong: it or the statement was changed"
        return self._fault_of_claim(signed, claim) or self._fault_of_times(signed, holders, now)

    def _fault_of_claim(self, signed: Signed, claim: Claim) -> str:
        statement = signed.statement
        if statement.manifest != claim.manifest:
            return f"the signature is for the manifest {statement.manifest}"
        if statement.name != claim.name:
            return f"the signature is for the name {statement.name!r}"
        if statement.cache != claim.cache:
            return (
                f"the signature is for the cache {statement.cache}, and this is {claim.cache} "
                "(signed_as= gives a cache another identity)"
            )
        return ""

    def _fault_of_times(self, signed: Signed, holders: Sequence[Signatory], now: float) -> str:
        statement = signed.statement
        if statement.signed_at > now + CLOCKS:
            return f"the signature is from the future ({statement.signed}): set the clocks"
        if statement.expires_at is not None and statement.expires_at <= now:
            return f"the signature expired at {statement.expires}"
        if self._within is not None and statement.signed_at < now - self._within:
            return f"the signature is too old: it is from {statement.signed}"
        if not any(one.is_valid(now) and one.is_valid(statement.signed_at) for one in holders):
            return (
                f"the key of {holders[0]} was not valid at {statement.signed}, or is not any more"
            )
        return ""


def load_trusted(sources: Sequence[str], within: float | None = None) -> Trusted:
    """Read keys and trust files. Raises LocationError if one cannot be read or is not valid.

    Args:
        sources: each a line with a public key, or the path of a file with such lines.
        within: seconds that a signature may be old; None for any age.
    """
    signatories: list[Signatory] = []
    revoked: set[str] = set()
    for source in sources:
        for number, line in enumerate(_lines(source), 1):
            if not line:
                continue
            try:
                one, is_revoked = _read_line(line)
            except ValueError as error:
                where = "the key" if is_key(source) else f"{source}, line {number}"
                raise LocationError(f"signed_by: {where}: {error}") from error
            if is_revoked:
                revoked.add(one.key.id)
            else:
                signatories.append(one)
    trusted = Trusted(signatories, revoked, within)
    if not signatories:
        raise LocationError(f"signed_by: there is no key in {', '.join(sources)}")
    if len(trusted.keys) > MOST:
        raise LocationError(f"signed_by: {len(trusted.keys)} keys are too many: at most {MOST}")
    return trusted


def is_key(source: str) -> bool:
    """Whether this is the line of a key, and no path."""
    return source.partition(" ")[0] in TYPES


def _lines(source: str) -> list[str]:
    if is_key(source):
        return [source]
    try:
        with Path(source).open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise LocationError(f"signed_by: {reason(error)}") from error
    if len(data) > _LARGEST:
        raise LocationError(f"signed_by: {source} is too large for a file of keys")
    if data.lstrip().startswith(b"-----BEGIN"):
        try:
            return [PublicKey.of_pem(data).line]
        except ValueError as error:
            raise LocationError(
                f"signed_by: {source} is no public key: give the file with its public part, "
                "such as ci.pub"
            ) from error
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise LocationError(f"signed_by: {source} is not text with keys") from error
    return ["" if line.lstrip().startswith("#") else line.strip() for line in lines]


def _read_line(line: str) -> tuple[Signatory, bool]:
    """The key of a line, and whether it is revoked. Raises ValueError."""
    words = _words(line)
    is_revoked = words[0] == _REVOKED
    words = words[is_revoked:]
    at = next((i for i, word in enumerate(words) if word in TYPES), None)
    if at is None or at + 1 >= len(words) or at > 2:
        raise ValueError(f"there is no key of the types {', '.join(TYPES)}")
    signatory = Signatory(words[0].strip('"') if at else "", PublicKey.of_line(*words[at : at + 2]))
    return (_with_options(signatory, words[1]) if at > 1 else signatory), is_revoked


def _with_options(signatory: Signatory, text: str) -> Signatory:
    position = 0
    while position < len(text):
        found = _OPTION.match(text, position)
        if found is None:
            raise ValueError(f"the options {text[:60]!r} are not valid")
        position = found.end()
        match found[1].lower(), found[2]:
            case "valid-after", str(value):
                signatory = replace(signatory, after=_moment(value))
            case "valid-before", str(value):
                signatory = replace(signatory, before=_moment(value))
            case "namespaces", str(value):
                if NAMESPACE not in value.split(","):
                    raise ValueError(f"the key is for {value!r}, and not for {NAMESPACE}")
            case option, _:
                raise ValueError(f"the option {option!r} is not supported")
    return signatory


def _moment(text: str) -> float:
    """A time as OpenSSH has it: ``20300131`` or ``20300131235959``, local unless ``Z`` ends it."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is no time: write for example 20300131 or 20300131120000Z")
    day, hours, seconds, zone = found.groups()
    moment = datetime.strptime(f"{day}{hours or '0000'}{seconds or '00'}", "%Y%m%d%H%M%S")  # noqa: DTZ007 - below
    return (moment.replace(tzinfo=UTC) if zone else moment).timestamp()


def _words(line: str) -> list[str]:
    """The words of a line; what is in quotes is not divided."""
    return re.findall(r'(?:[^\s"]|"[^"]*")+', line)
