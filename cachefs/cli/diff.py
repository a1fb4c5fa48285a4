"""``cachefs diff``."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import click
from msgspec import to_builtins

import cachefs
from cachefs.amount import counted
from cachefs.cli.exits import Exit
from cachefs.cli.failing import one_line, pattern_hint
from cachefs.cli.locations import LOCATION, default_location, names_option, other_location
from cachefs.cli.options import common_options, json_option
from cachefs.cli.output import digest, print_json, print_table, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachefs import Cache, CacheDiff, Change, Divergence, NamesDiff
    from cachefs.location.options import Location

PAIR: Final = 2
"""A and B."""


@click.command("diff")
@click.argument("locations", metavar="[A] [B]", nargs=-1, type=LOCATION)
@names_option("Compare this name; the first is A's, the second B's.")
@click.option(
    "--details", is_flag=True, help="Also show the digests, and where the chains first differ."
)
@json_option
@common_options
def command(
    locations: tuple[Location, ...], names: tuple[str, ...], *, details: bool, as_json: bool
) -> Exit:
    """Show how B differs from A: two caches, or two names of one cache.

    \b
      cachefs diff s3://eu/ci/ s3://us/ci/
      cachefs diff s3://eu/ci/ --name main --name feature
      cachefs diff s3://eu/ci/ s3://us/ci/ --name main
      cachefs diff s3://eu/ci/ /var/cache/ci --name main --name local

    The first --name belongs to A, the second to B. Without --name, each location contributes the
    names given by its name=..., or all names together. Without A, $CACHEFS_CACHE is compared.

    Names come first, then what all of them need together. What is gained (+) is in B but not in A;
    what is lost (-) is in A but not in B; a name that both have is marked ~ if it changed. Two
    records are equal if their digests and everything that they are built on are equal. A record
    that differs only in what it is built on is both gained and lost, and with --details marked ~.
    Times are not compared.

    The exit status is 0 if nothing differs, else 1.
    """  # noqa: D301 - click's mark, not a backslash
    first, second = _sides(locations, names)
    found = first.diff(second)
    if as_json:
        print_json(to_builtins(found) | {"equal": found.is_equal})
    elif found.is_equal:
        named = "" if found.names is None else f"{counted(found.names.kept, 'name')}, "
        click.echo(f"equal: {named}{counted(found.records.kept, 'record')}")
    else:
        _print(found)
        if details:
            _print_details(found)
    return Exit.DONE if found.is_equal else Exit.FAULTS


def _sides(locations: tuple[Location, ...], names: tuple[str, ...]) -> tuple[Cache, Cache]:
    """The caches A and B, each with its names; no names mean those of the location, or all."""
    if max(len(locations), len(names)) > PAIR:
        hint = pattern_hint()
        raise click.UsageError(f"give at most two locations and two names to compare{hint}")
    context = click.get_current_context()
    caches = [cachefs.open(location) for location in locations or (default_location(context),)]
    if len(caches) == 1:
        two_names = names or caches[0].location.names
        if len(two_names) == PAIR:
            names = two_names
        elif not locations:
            raise click.UsageError("give B: another location, or two names with --name")
        else:
            caches.insert(0, cachefs.open(other_location(context, "B", "A")))
    if not names:
        return caches[0], caches[-1]
    return caches[0].with_names(names[:1]), caches[-1].with_names(names[-1:])


def _print(found: CacheDiff) -> None:
    if found.names is not None:
        _print_names(found.names)
    rows = [("bytes of blobs", size(found.gained.bytes), size(found.lost.bytes), "")]
    parts = [("blobs", found.blobs), *_parts(found)]
    rows += [(what, f"{len(c.gained):,}", f"{len(c.lost):,}", f"{c.kept:,}") for what, c in parts]
    print_table(("", "gained", "lost", "kept"), rows, right="gained|lost|kept")


def _print_names(names: NamesDiff) -> None:
    marked = (("+", "only in B", names.gained), ("-", "only in A", names.lost))
    rows = [
        (mark, name, what)
        for mark, what, group in (*marked, ("~", "changed", names.changed))
        for name in group
    ]
    if rows:
        print_table(("", "name", "is"), rows)
        click.echo()
    click.echo(f"{counted(names.kept, 'name')} the same")
    click.echo()


def _parts(found: CacheDiff) -> tuple[tuple[str, Change], ...]:
    return (("layers", found.layers), ("results", found.results), ("records", found.records))


def _print_details(found: CacheDiff) -> None:
    lines = [
        (mark, what.removesuffix("s"), digest(one))
        for what, change in _parts(found)
        for mark, digests in _marked(change)
        for one in digests
    ]
    if lines:
        click.echo()
        print_table(("", "what", "digest"), lines)
    if found.divergence is not None:
        click.echo()
        _print_divergence(found.divergence)


def _marked(change: Change) -> Iterator[tuple[str, list[str]]]:
    """Digests only in B (+), only in A (-), and in both but built on other records (~)."""
    gained, lost = Counter(change.gained), Counter(change.lost)
    other = gained & lost
    for mark, digests in (("+", gained - other), ("-", lost - other), ("~", other)):
        yield mark, list(digests.elements())


def _print_divergence(divergence: Divergence) -> None:
    if divergence.counterpart is None:
        other = ""
    elif divergence.counterpart == divergence.digest:
        other = " from the same digest in A"
    else:
        other = f" from {digest(divergence.counterpart)} in A"
    below = f"{counted(divergence.depth, 'record')} deep" if divergence.depth else "a root"
    record = one_line(digest(divergence.digest))
    click.echo(
        f"the chains diverge at record {record} ({below}){one_line(other)}: {divergence.reason}"
    )
