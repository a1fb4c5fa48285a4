"""``cachefs sign``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import cachefs
from cachefs.amount import counted
from cachefs.cli.exits import Exit
from cachefs.cli.failing import one_line
from cachefs.cli.locations import location_argument, named, names_option, say_empty
from cachefs.cli.options import common_options, json_option
from cachefs.cli.output import digest, print_json, print_table
from cachefs.cli.quantities import duration
from cachefs.cli.signing import key_option, signing

if TYPE_CHECKING:
    from cachefs.location.options import Location


@click.command("sign")
@location_argument
@names_option("Sign this name only.")
@key_option
@click.option(
    "--expires",
    callback=duration,
    metavar="DURATION",
    help="How long the signatures count, such as 30d. By default for ever.",
)
@json_option
@common_options
def command(
    location: Location,
    names: tuple[str, ...],
    key: str | None,
    expires: float | None,
    *,
    as_json: bool,
) -> Exit:
    """Sign what the names of the cache at LOCATION hold now, and so every layer in it.

    Signs the names given with --name, or else by name=..., or else all. The manifests stay as they
    are, and signatures by other keys remain. Keys are those of ssh-keygen, or in PEM; one with a
    passphrase is used by ssh-keygen, which asks for it.
    """
    cache = cachefs.open(signing(location, key))
    chosen = names or location.names
    if len(chosen) == 1:
        with named(cache, chosen[0]):
            signed = cache.sign(chosen, expires=expires)
    else:
        signed = cache.sign(chosen, expires=expires)
    if as_json:
        print_json(signed)
    elif not signed:
        say_empty(cache)
    else:
        print_table(
            ("name", "manifest"), [(one_line(name), digest(of)) for name, of in signed.items()]
        )
        click.echo(f"signed {counted(len(signed), 'name')}")
    return Exit.DONE
