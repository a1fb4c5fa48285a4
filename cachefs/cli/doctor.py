"""``cachefs doctor``."""

from __future__ import annotations

import signal
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

import cachefs
from cachefs.cli.exits import Exit
from cachefs.cli.locations import location_argument
from cachefs.cli.options import common_options, json_option
from cachefs.cli.output import print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cachefs import Finding
    from cachefs.location.options import Location


@click.command("doctor")
@location_argument
@click.option(
    "--read-only", is_flag=True, help="Change nothing; then less can be found out about writing."
)
@json_option
@common_options
def command(location: Location, *, read_only: bool, as_json: bool) -> Exit:
    """Examine the store at LOCATION: what works, what to mind, and what would break a cache.

    \b
    good  nothing to do
    mind  it works, with a drawback
    bad   it loses data or builds,
          or some commands fail

    The cache need not exist yet. A few small objects and four of 1 MiB are written next to the
    blobs, named .cachefs-doctor-..., and deleted again, also after Ctrl-C. If they may not be
    deleted, as few as possible are written, and the last line says where they are. What does not
    apply to a store is left out. The exit status is 1 if something is bad.
    """  # noqa: D301 - click's mark, not a backslash
    with _ended_in_order():
        found = cachefs.open(location).examine(read_only=read_only)
    if as_json:
        print_json(found)
    else:
        _print(found.findings)
    return Exit.FAULTS if found.worst == "bad" else Exit.DONE


def _print(findings: Sequence[Finding]) -> None:
    rows = [(one.verdict, one.check, _text(one)) for one in findings]
    print_table(("verdict", "check", "found"), rows)
    click.echo()
    counts = Counter(one.verdict for one in findings)
    click.echo(", ".join(f"{counts[verdict]} {verdict}" for verdict in ("good", "mind", "bad")))


def _text(finding: Finding) -> str:
    return f"{finding.found}; {finding.advice}" if finding.advice else finding.found


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Treat signals that end the program as Ctrl-C, so that objects are deleted first."""

    def end(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signals = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, end) for number in signals}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
