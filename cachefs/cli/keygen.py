"""``cachefs keygen``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cachefs.cli.exits import Exit
from cachefs.cli.options import common_options, json_option
from cachefs.cli.output import print_json
from cachefs.trust.library import needed


@click.command("keygen")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@json_option
@common_options
def command(path: Path, *, as_json: bool) -> Exit:
    """Write a new private key to PATH, and its public part to PATH.pub.

    Only you may read the private key. On a terminal, a passphrase is asked for, which may be empty;
    elsewhere the key has none. It is an Ed25519 key as ssh-keygen makes it, and any key that it
    made is as good.
    """
    with needed():
        from cachefs.trust.keys import generate
    passphrase = ""
    if sys.stdin.isatty():
        passphrase = click.prompt(
            "Passphrase (empty for none)",
            default="",
            show_default=False,
            hide_input=True,
            confirmation_prompt=True,
            err=True,
        )
    public = generate(path, passphrase)
    if as_json:
        print_json({"public": f"{path}.pub", "fingerprint": public.fingerprint})
    else:
        click.echo(f"{path}.pub: {public.fingerprint}")
    return Exit.DONE
