"""``cachefs stats``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cachefs.amount import counted
from cachefs.cli.exits import Exit
from cachefs.cli.options import common_options, json_option
from cachefs.cli.output import age, is_terminal, print_json, print_table, say, size
from cachefs.filesystems.system import system_error
from cachefs.user_cache import statistics
from cachefs.user_cache.statistics import Saving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

WIDEST_COMMAND = 50
"""Maximum width of a command on a terminal, in characters."""


@click.command("stats")
@click.option("--reset", is_flag=True, help="Begin to count anew.")
@json_option
@common_options
def command(*, reset: bool, as_json: bool) -> Exit:
    """Show what 'cachefs run' saved on this machine, for each command and each cache.

    A run that a cache had the result of is a hit, and saves the time that making it took; any other
    run of a command that succeeded is a miss. The counts are kept in your cache directory.
    """
    if reset:
        try:
            statistics.reset()
        except OSError as error:
            raise system_error(error, "reset the counts", error.filename or "") from error
        return Exit.DONE
    savings = statistics.totals()
    if as_json:
        print_json(savings)
    elif not savings:
        say("nothing has been counted yet", err=True)
    else:
        _print(savings)
    return Exit.DONE


def _print(savings: list[Saving]) -> None:
    commands = _added(savings, lambda one: one.command)
    rows = [
        (_short(name), f"{one.hits:,}", f"{one.misses:,}", _seconds(one.saved), size(one.fetched))
        for name, one in commands.items()
    ]
    print_table(("command", "hits", "misses", "saved", "fetched"), rows, _RIGHT)
    click.echo()
    caches = _added((one for one in savings if one.hits), lambda one: one.cache)
    if caches:
        columns = ("cache", "hits", "saved", "fetched")
        print_table(
            columns,
            [
                (name, f"{one.hits:,}", _seconds(one.saved), size(one.fetched))
                for name, one in caches.items()
            ],
            _RIGHT,
        )
        click.echo()
    total = sum(savings, Saving())
    share = round(100 * total.hits / max(1, total.hits + total.misses))
    say(
        f"total: {counted(total.hits, 'hit')} ({share} %) saved {_seconds(total.saved)}; counting "
        f"began {age(total.since)}"
    )


_RIGHT = "hits|misses|saved|fetched"


def _added(savings: Iterable[Saving], key: Callable[[Saving], str]) -> dict[str, Saving]:
    added: dict[str, Saving] = {}
    for one in savings:
        added[key(one)] = added[key(one)] + one if key(one) in added else one
    return dict(sorted(added.items(), key=lambda item: -item[1].saved))


def _short(command: str) -> str:
    if is_terminal() and len(command) > WIDEST_COMMAND:
        return f"{command[: WIDEST_COMMAND - 3]}..."
    return command


def _seconds(seconds: float) -> str:
    """A time: ``14.2 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"
