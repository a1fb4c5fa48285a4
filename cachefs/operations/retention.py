"""Which names a prune removes: by age, by count, by size, or because blobs are missing. Pure."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from cachefs.errors import UsageError
from cachefs.location.keys import natural_order
from cachefs.transfer.renewing import DAY

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cachefs.digest import Digest


class PrunePolicy(Struct, frozen=True, kw_only=True):
    """Which names a prune removes in addition to deleting orphaned blobs; by default none.

    A name is never removed if ``keep`` matches it or it is among the newest of its ``keep_last``
    pattern. Of the others, those older than ``older_than`` or not used for ``unused_for`` are
    removed; without both, all that match a ``keep_last`` pattern.

    Attributes:
        older_than: seconds since a name was written, or its time was renewed.
        unused_for: seconds since a name was written or used. ``cachefs run`` renews the time of a
            name that it uses at most once a day, so a name is removed only if its time is one day
            older than that. Builders renew no times: of their names it is when they were written.
        keep_last: how many of the names that match a pattern are kept, the newest ones. A name
            belongs to the first pattern that matches it.
        keep: patterns of names that are never removed.
        max_size: bytes of all distinct blobs together; the oldest names are removed first.
        missing_blobs: whether to remove names with blobs that are not in the store.
        wanted: names that stay; all others are removed. None: this removes no name.

    Patterns are those of :mod:`fnmatch`; ``*`` matches a slash too.
    """

    older_than: float | None = None
    unused_for: float | None = None
    keep_last: dict[str, int] = {}
    keep: tuple[str, ...] = ()
    max_size: int | None = None
    missing_blobs: bool = False
    wanted: frozenset[str] | None = None

    def check(self) -> None:
        """Raise UsageError for values out of range, or text in place of several patterns."""
        if isinstance(self.keep, str):
            raise UsageError(f"keep is a tuple of patterns, not text: write ({self.keep!r},)")
        if self.older_than is not None and self.older_than < 0:
            raise UsageError("older_than is negative: every name would be removed")
        if self.unused_for is not None and self.unused_for < 0:
            raise UsageError("unused_for is negative: every name would be removed")
        if any(count < 0 for count in self.keep_last.values()):
            raise UsageError("keep_last is negative")
        if self.max_size is not None and self.max_size < 0:
            raise UsageError("max_size is negative")

    @property
    def needs_times(self) -> bool:
        """Whether the names' times matter."""
        limits = (self.older_than, self.unused_for, self.max_size)
        return bool(self.keep_last) or any(limit is not None for limit in limits)

    def outlived(self, age: float) -> str:
        """Why a name of this age in seconds is removed; empty if it is not."""
        if self.older_than is not None and age > self.older_than:
            return "too old"
        if self.unused_for is not None and age > self.unused_for + DAY:
            return "not used"
        return ""


class Candidate(NamedTuple):
    """A name as input of a policy. ``age`` is in seconds, None if the store has no times."""

    name: str
    age: float | None
    blobs: frozenset[Digest]
    misses_blobs: bool


def choose(
    candidates: Sequence[Candidate], policy: PrunePolicy, sizes: Mapping[Digest, int]
) -> dict[str, str]:
    """The names to remove, each with the reason, the oldest first. Raises UsageError.

    Args:
        candidates: all names of the cache.
        policy: which names to remove.
        sizes: the bytes of every blob in the store.
    """
    policy.check()
    if policy.needs_times and any(candidate.age is None for candidate in candidates):
        raise UsageError("the store has no times, so no name can be selected by its age")
    oldest_first = sorted(candidates, key=lambda c: (-(c.age or 0.0), natural_order(c.name)))
    groups = _groups(oldest_first, policy)
    protected = {name for group in groups.values() for name in group.kept}
    protected |= {c.name for c in candidates if _matches(c.name, policy.keep)}
    superseded = {name for group in groups.values() for name in group.rest}
    reasons = {
        candidate.name: reason
        for candidate in oldest_first
        if candidate.name not in protected
        and (reason := _reason(candidate, policy, superseded)) is not None
    }
    if policy.max_size is not None:
        staying = [c for c in oldest_first if c.name not in reasons]
        for name in _over_limit(staying, policy.max_size, protected, sizes):
            reasons[name] = "the cache is too large"
    return {c.name: reasons[c.name] for c in oldest_first if c.name in reasons}


def _reason(candidate: Candidate, policy: PrunePolicy, superseded: Collection[str]) -> str | None:
    if policy.wanted is not None and candidate.name not in policy.wanted:
        return "not in the source"
    if policy.missing_blobs and candidate.misses_blobs:
        return "blobs are missing"
    if policy.older_than is not None or policy.unused_for is not None:
        return policy.outlived(candidate.age or 0.0) or None
    return "not among the last" if candidate.name in superseded else None


class _Group(NamedTuple):
    kept: list[str]
    rest: list[str]


def _groups(oldest_first: Sequence[Candidate], policy: PrunePolicy) -> dict[str, _Group]:
    members: dict[str, list[str]] = {pattern: [] for pattern in policy.keep_last}
    for candidate in reversed(oldest_first):
        for pattern in policy.keep_last:
            if fnmatchcase(candidate.name, pattern):
                members[pattern].append(candidate.name)
                break
    return {
        pattern: _Group(names[: policy.keep_last[pattern]], names[policy.keep_last[pattern] :])
        for pattern, names in members.items()
    }


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _over_limit(
    oldest_first: Sequence[Candidate],
    limit: int,
    protected: Collection[str],
    sizes: Mapping[Digest, int],
) -> list[str]:
    """The names to remove, in this order, until the blobs that the others need fit."""
    users: dict[Digest, int] = {}
    for candidate in oldest_first:
        for blob in candidate.blobs:
            users[blob] = users.get(blob, 0) + 1
    total = sum(sizes.get(blob, 0) for blob in users)
    removals = []
    for candidate in oldest_first:
        if total <= limit:
            break
        if candidate.name in protected:
            continue
        removals.append(candidate.name)
        for blob in candidate.blobs:
            users[blob] -= 1
            if not users[blob]:
                total -= sizes.get(blob, 0)
    return removals
