"""The program: commands that load when they are called, and errors as one line."""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from typing import NoReturn

import click

from cachefs import __version__
from cachefs.cli.exits import MEANINGS, Exit, status_of
from cachefs.errors import CacheError

# name: (module in this package, the line that --help shows). A new command is one line here.
COMMANDS = {
    "copy": ("copy", "Copy a cache, or some of its names, to any other location."),
    "ls": ("ls", "List the names of a cache, with age and size."),
    "show": ("show", "Show the layers and records of names."),
}


class Commands(click.Group):
    """A group whose commands are imported when they are called, so that --help is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, sorted."""
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module and take ``command`` from it."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"cachefs.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in sorted(COMMANDS)])
        with formatter.section("Exit status"):
            formatter.write_dl([(str(int(code)), text) for code, text in MEANINGS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="cachefs %(version)s")
@click.option("-v", "--verbose", is_flag=True, help="Say more on standard error.")
def program(*, verbose: bool) -> None:
    """A build cache on any filesystem, in the format of BuildKit's cache back ends.

    A LOCATION is a path, a URL (s3://bucket/ci/) or a builder's attributes
    (type=s3,bucket=ci,region=eu-central-1,name=app).
    """
    logging.basicConfig(format="cachefs: %(levelname)s: %(message)s", level=logging.ERROR)
    logging.getLogger("cachefs").setLevel(logging.DEBUG if verbose else logging.WARNING)


def main() -> NoReturn:
    """Run the program and end the process with its exit status."""
    try:
        status = program.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        status = Exit.USAGE
    except CacheError as error:
        click.echo(f"cachefs: error: {error}", err=True)
        status = status_of(error)
    except (KeyboardInterrupt, click.Abort):
        click.echo("cachefs: interrupted", err=True)
        status = Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader has gone, as after "| head": nobody is left to be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = Exit.DONE
    sys.exit(int(status or 0))
