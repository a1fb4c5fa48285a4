"""Measure cachefs and its peers, and show and compare the results."""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.console import Console

from benchmarks import machine, results
from benchmarks.cases import GROUPS, all_cases
from benchmarks.comparing import compare
from benchmarks.measuring import measure
from benchmarks.stage import Stage
from benchmarks.tables import put_into, text
from benchmarks.workloads import FULL, QUICK
from tests.servers.seaweed import shared_seaweed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.s3 import S3Server

LATEST = Path("benchmarks/results/local/latest.json")
PAGE = Path("docs/performance.md")
PLOTS = Path("docs/plots")


def main() -> None:
    """Parse the command line and run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("measure", help="run the cases, print tables, write JSON")
    one.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS))
    one.add_argument("--runs", type=int, default=5, help="counted runs of each case (default 5)")
    one.add_argument(
        "--most", type=float, default=40.0, help="seconds after which a case is not run again"
    )
    one.add_argument(
        "--only", default="", metavar="TEXT", help="only cases whose work or tool contains this"
    )
    one.add_argument(
        "--quick", action="store_true", help="tiny sizes, to check that everything works"
    )
    one.add_argument(
        "--json", type=Path, default=LATEST, help=f"file for the results (default {LATEST})"
    )
    one.set_defaults(do=_measure)

    one = commands.add_parser("table", help="write the tables of a result into a page")
    one.add_argument("json", type=Path)
    one.add_argument("--page", type=Path, default=PAGE)
    one.set_defaults(do=_table)

    one = commands.add_parser("plot", help="draw the plots of a result")
    one.add_argument("json", type=Path)
    one.add_argument("--into", type=Path, default=PLOTS)
    one.set_defaults(do=_plot)

    one = commands.add_parser(
        "compare", help="list what got slower; if anything did, the status is 1"
    )
    one.add_argument("before", type=Path)
    one.add_argument("after", type=Path)
    one.set_defaults(do=_compare)

    options = parser.parse_args()
    # Clean up as after Ctrl-C: end the processes and remove the files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    sys.exit(options.do(options))


def _measure(options: argparse.Namespace) -> str | None:
    if unknown := set(options.groups) - set(GROUPS):
        return f"there is no group {', '.join(sorted(unknown))}; groups are {', '.join(GROUPS)}"
    sizes = QUICK if options.quick else FULL
    wanted = [
        case
        for case in all_cases(sizes)
        if case.group in (options.groups or GROUPS) and options.only in f"{case.work}, {case.name}"
    ]
    skipped = {case.name: missing for case in wanted if (missing := case.contender.missing)}
    cases = [case for case in wanted if case.name not in skipped]
    console = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory(prefix="cachefs-bench-", ignore_cleanup_errors=True) as folder,
        _server(Path(folder)) as server,
        console.status("starting") as status,
    ):
        facts = machine.facts()
        stage = Stage(server, Path(folder), sizes)
        # A status line does not show in a log.
        tell = status.update if console.is_terminal else console.print
        found, failed = measure(cases, stage, options.runs, options.most, tell)
    done = results.Results(
        machine=facts, runs=options.runs, quick=options.quick, cases=found, skipped=skipped
    )
    results.write(done, options.json)
    for group in GROUPS:
        if done.of(group):
            print(text(done, group), end="\n\n")
    for name, reason in skipped.items():
        print(f"skipped: {name}: {reason}")
    print(f"written to {options.json}")
    return "\n".join(f"failed: {name}: {why}" for name, why in failed.items()) or None


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[S3Server]:
    data = folder / "seaweed"
    data.mkdir()
    with shared_seaweed(data) as server:
        yield server
    _wait_for_the_end(server)


def _wait_for_the_end(server: S3Server) -> None:
    """Wait until the server has ended, so that nothing writes to the directory any more."""
    address = urlsplit(server.endpoint_url)
    for _ in range(100):
        time.sleep(0.2)
        try:
            socket.create_connection((address.hostname, address.port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
            return


def _table(options: argparse.Namespace) -> None:
    page = options.page.read_text()
    options.page.write_text(put_into(page, results.read(options.json)))


def _plot(options: argparse.Namespace) -> None:
    from benchmarks.plots import plot  # matplotlib comes with the extra "bench"

    plot(results.read(options.json), options.into)


def _compare(options: argparse.Namespace) -> int:
    found = compare(results.read(options.before), results.read(options.after))
    print("\n".join(found.lines))
    return 1 if found.slower else 0


if __name__ == "__main__":
    main()
