"""Which names of a cache are to go: by age, by count, by size, because they are broken. Pure."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from cachefs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cachefs.digest import Digest


class PrunePolicy(Struct, frozen=True, kw_only=True):
    """What a prune may take away beside orphans; by default nothing.

    A name that ``keep`` matches, or that is among the last of its group, never goes. Of the others
    those go that are older than ``older_than``; where that is not given, all those of a group.

    Attributes:
        older_than: seconds since a name was written.
        keep_last: by pattern, how many of the names that match are kept, the newest first. A name
            belongs to the first pattern that matches it; one that none matches is in no group.
        keep: patterns of names that stay whatever else is said.
        max_size: bytes of all different blobs together; the names written longest ago go first.
        broken: also names with blobs that are not in the store go.
        wanted: names that stay; all others go. None: no name goes for this.

    Patterns are those of :mod:`fnmatch`; ``*`` matches a slash too.
    """

    older_than: float | None = None
    keep_last: dict[str, int] = {}
    keep: tuple[str, ...] = ()
    max_size: int | None = None
    broken: bool = False
    wanted: frozenset[str] | None = None

    def check(self) -> None:
        """Raises UsageError for what makes no sense."""
        if self.older_than is not None and self.older_than < 0:
            raise UsageError("older_than is negative: every name would go")
        if any(count < 0 for count in self.keep_last.values()):
            raise UsageError("keep_last is negative")
        if self.max_size is not None and self.max_size < 0:
            raise UsageError("max_size is negative")

    @property
    def needs_times(self) -> bool:
        """Whether the names' times matter."""
        return bool(self.keep_last) or self.older_than is not None or self.max_size is not None


class Candidate(NamedTuple):
    """A name as policies see it. ``age`` is in seconds, None where the store has no times."""

    name: str
    age: float | None
    blobs: frozenset[Digest]
    broken: bool


def choose(
    candidates: Sequence[Candidate], policy: PrunePolicy, sizes: Mapping[Digest, int]
) -> dict[str, str]:
    """The names that go, each with the reason, the oldest first. Raises UsageError.

    Args:
        candidates: all names of the cache.
        policy: what goes.
        sizes: the bytes of every blob in the store.
    """
    policy.check()
    if policy.needs_times and any(candidate.age is None for candidate in candidates):
        raise UsageError("the store has no times, so that no name can be chosen by its age")
    oldest_first = sorted(candidates, key=lambda c: (-(c.age or 0.0), c.name))
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
        for name in _too_much(staying, policy.max_size, protected, sizes):
            reasons[name] = "the cache is too large"
    return {c.name: reasons[c.name] for c in oldest_first if c.name in reasons}


def _reason(candidate: Candidate, policy: PrunePolicy, superseded: Collection[str]) -> str | None:
    if policy.wanted is not None and candidate.name not in policy.wanted:
        return "not in the source"
    if policy.broken and candidate.broken:
        return "blobs are missing"
    if policy.older_than is not None:
        is_old = candidate.age is not None and candidate.age > policy.older_than
        return "too old" if is_old else None
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


def _too_much(
    oldest_first: Sequence[Candidate],
    limit: int,
    protected: Collection[str],
    sizes: Mapping[Digest, int],
) -> list[str]:
    """The names to take away, one after the other, until what the rest needs fits."""
    users: dict[Digest, int] = {}
    for candidate in oldest_first:
        for blob in candidate.blobs:
            users[blob] = users.get(blob, 0) + 1
    total = sum(sizes.get(blob, 0) for blob in users)
    going = []
    for candidate in oldest_first:
        if total <= limit:
            break
        if candidate.name in protected:
            continue
        going.append(candidate.name)
        for blob in candidate.blobs:
            users[blob] -= 1
            if not users[blob]:
                total -= sizes.get(blob, 0)
    return going
