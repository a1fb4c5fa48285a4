"""Why a step missed, from what the results in the caches are: also where it never ran before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachefs.building.describing import describe, entries_of, grouped_like
from cachefs.building.history import changed_files
from cachefs.concurrency import run
from cachefs.errors import CacheError
from cachefs.operations.describe import newest_described
from cachefs.wire import timestamps

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cachefs.building.steps import Step
    from cachefs.cache import Cache
    from cachefs.keying.keys import Entry
    from cachefs.wire.description import Description

NEWEST: Final = 5
"""How many results of each cache are compared with."""


def explain(step: Step, caches: Iterable[tuple[Cache, str]]) -> list[str]:
    """How the step differs from the result in the caches that it has most in common with.

    Empty if there is none. The first line says which result that is, and each other one names a
    part that differs. Of variables, only the names are told.

    Args:
        step: the step, without inputs that other steps make.
        caches: where to look, with how the names begin that may have results of it.
    """
    now = describe(step, {})
    entries = entries_of(step)
    nearest: list[str] = []
    least = 0
    for cache, prefix in caches:
        try:
            found = run(newest_described(cache.layout, prefix, NEWEST))
        except CacheError:
            continue  # a warning has said so when the cache was read
        for result in found:
            before = result.description
            if before.command != now.command or result.created_at == timestamps.ZERO:
                continue
            lines = list(differences(before, now, entries)) or [_unseen(before, now)]
            number = sum(1 + line.count(", ") for line in lines)
            if not nearest or number < least:
                nearest = [_which(before, result.created_at, cache), *lines]
                least = number
    return nearest


def differences(
    before: Description, now: Description, entries: Mapping[str, Mapping[bytes, Entry]]
) -> Iterator[str]:
    """A line for each part that differs.

    Args:
        before: what a result is.
        now: what would be made now.
        entries: the files of inputs now.
    """
    for name in sorted(before.inputs.keys() | now.inputs.keys()):
        if name not in before.inputs:
            yield f"input {name} is new"
        elif name not in now.inputs:
            yield f"input {name} was removed"
        elif before.inputs[name] != now.inputs[name]:
            detail = _files(before.files.get(name), entries.get(name))
            yield f"input {name} changed{': ' if detail else ''}{detail}"
    yield from _variables(before.variables, now.variables)
    added = sorted(set(now.outputs) - set(before.outputs))
    removed = sorted(set(before.outputs) - set(now.outputs))
    if added or removed:
        named = [*(f"{name} added" for name in added), *(f"{name} removed" for name in removed)]
        yield f"the declared outputs differ: {', '.join(named)}"
    if before.platform != now.platform:
        yield f"the platform is {now.platform or 'any'}, not {before.platform or 'any'}"


def _variables(before: Mapping[str, str | None], now: Mapping[str, str | None]) -> Iterator[str]:
    for name in sorted(before.keys() | now.keys()):
        if name not in before:
            yield f"environment variable {name} is new"
        elif name not in now:
            yield f"environment variable {name} was removed"
        elif before[name] != now[name]:
            yield f"environment variable {name} changed"


def _files(before: Mapping[str, str] | None, now: Mapping[bytes, Entry] | None) -> str:
    if before is None or now is None:
        return ""
    grouped = grouped_like(now, before)
    return changed_files(
        {name.encode(errors="replace"): digest for name, digest in before.items()},
        {name.encode(errors="replace"): digest for name, digest in grouped.items()},
    )


def _unseen(before: Description, now: Description) -> str:
    """What differs although no part that a description has does."""
    if before.definition == now.definition:
        return "nothing differs, but the result cannot be found or used"
    return "the value of a variable differs, or a word of the command that is masked"


def _which(before: Description, created_at: str, cache: Cache) -> str:
    moment = timestamps.in_utc(created_at).replace("T", " ").partition(".")[0].removesuffix("Z")
    commit = f", commit {before.commit[:12]}" if before.commit else ""
    host = f" by {before.host}" if before.host else ""
    return f"compared with the result of {moment} UTC{host}{commit} in {cache.location}"
