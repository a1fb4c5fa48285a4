"""What the lifecycle rules of a bucket do to a cache.

A rule sees the age of an object only, and a name lives as long as the youngest of its exports. What
reads a cache renews nothing, so rules by age delete or archive what is in use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cachefs.filesystems.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Rule = Mapping[str, Any]

_UNREADABLE: Final = {"GLACIER", "DEEP_ARCHIVE"}
_FREE_TO_READ: Final = {"INTELLIGENT_TIERING"}


def judge(rules: Sequence[Rule], blobs: str, manifests: str) -> Iterator[Finding]:
    """What rules mean for blobs and manifests whose keys begin with these prefixes."""
    ours = [rule for rule in rules if _is_on(rule) and _touches(rule, blobs, manifests)]
    found = [one for rule in ours for one in _of_rule(rule, blobs, manifests)]
    yield from found or [Finding("lifecycle", "good", "no rule deletes or archives objects by age")]
    aborts = [rule for rule in ours if "AbortIncompleteMultipartUpload" in rule]
    if any(blobs.startswith(_prefix(rule) or "") for rule in aborts):
        yield Finding("unfinished uploads", "good", "a rule aborts them")
    else:
        yield Finding(
            "unfinished uploads",
            "mind",
            "no rule aborts them, and they cost as much as objects",
            "add AbortIncompleteMultipartUpload with 7 days, or prune, which aborts them too",
        )


def expires_versions(rules: Sequence[Rule], blobs: str, manifests: str) -> bool:
    """Whether a rule deletes earlier versions."""
    return any(
        "NoncurrentVersionExpiration" in rule
        for rule in rules
        if _is_on(rule) and _touches(rule, blobs, manifests)
    )


def _of_rule(rule: Rule, blobs: str, manifests: str) -> Iterator[Finding]:
    name = f"rule {rule['ID']}" if rule.get("ID") else "a rule"
    expiration = rule.get("Expiration", {})
    if "Date" in expiration:
        yield Finding(
            "lifecycle",
            "bad",
            f"{name} deletes all objects from {str(expiration['Date'])[:10]} on",
            "remove it, and let 'cachefs prune' delete what no name needs",
        )
    if "Days" in expiration:
        yield _expiring(name, int(expiration["Days"]), rule, blobs, manifests)
    for one in rule.get("Transitions", ()):
        kind = one.get("StorageClass", "")
        if kind in _UNREADABLE:
            yield Finding(
                "lifecycle",
                "bad",
                f"{name} archives objects ({kind}), which cannot be read then",
                "leave the cache out of it",
            )
        elif kind not in _FREE_TO_READ:
            yield Finding(
                "lifecycle",
                "mind",
                f"{name} moves objects to {kind}, where reading and renewing them costs",
                "leave the cache out of it, unless it is rarely used",
            )


def _expiring(name: str, days: int, rule: Rule, blobs: str, manifests: str) -> Finding:
    takes_names = _covers(rule, manifests)
    takes_blobs = _covers(rule, blobs)
    after = f"{days} day{'' if days == 1 else 's'}"
    instead = "remove it, and run 'cachefs prune' in a schedule: it deletes what no name needs"
    if takes_blobs and not takes_names:
        return Finding(
            "lifecycle",
            "bad",
            f"{name} deletes blobs after {after}, but not the names that need them",
            instead,
        )
    if takes_blobs and days <= _SHORT:
        return Finding(
            "lifecycle",
            "bad",
            f"{name} deletes objects after {after}: an export counts on a blob for as long as that",
            instead,
        )
    if takes_blobs:
        return Finding(
            "lifecycle",
            "mind",
            f"{name} deletes objects after {after}, needed or not: only exports renew them, so a "
            "name that is only read is lost, and its blobs up to touch_refresh before it",
            instead,
        )
    return Finding(
        "lifecycle",
        "mind",
        f"{name} deletes names after {after}, and their blobs stay",
        "run 'cachefs prune' in a schedule: it removes names by age, and then their blobs",
    )


_SHORT: Final = 2
"""Days: a blob that an export keeps may be as old as touch_refresh, by default a day."""


def _is_on(rule: Rule) -> bool:
    return bool(rule.get("Status") == "Enabled")


def _prefix(rule: Rule) -> str | None:
    """The prefix of the keys that a rule is for; None if it is for objects with tags only."""
    chosen = rule.get("Filter", {})
    every = chosen.get("And", chosen)
    if every.get("Tag") or every.get("Tags"):
        return None  # objects of a cache have no tags
    return str(every.get("Prefix", rule.get("Prefix", "")) or "")


def _touches(rule: Rule, blobs: str, manifests: str) -> bool:
    return _covers(rule, blobs) or _covers(rule, manifests)


def _covers(rule: Rule, keys: str) -> bool:
    """Whether the rule is for all keys with this prefix, or for some of them."""
    prefix = _prefix(rule)
    return prefix is not None and (keys.startswith(prefix) or prefix.startswith(keys))
