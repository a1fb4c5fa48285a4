"""The program: commands that are imported when called, and errors as one line."""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, NoReturn

import click

from cachefs import __version__
from cachefs.cli.exits import MEANINGS, Exit, status_of
from cachefs.cli.failing import error_object, pattern_hint, tell
from cachefs.cli.noise import silence
from cachefs.cli.options import common_options
from cachefs.cli.streams import finish, prepare
from cachefs.errors import CacheError, NoCacheError
from cachefs.io_loop import begin_without_fsspec
from cachefs.similar import most_similar

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# name: (module in this package, line in --help). A new command needs one line here.
COMMANDS = {
    "cat": ("cat", "Print files of a result or layer."),
    "copy": ("copy", "Copy a cache, or some of its names, to any other location."),
    "diff": ("diff", "Show how two caches, or two names of one cache, differ."),
    "doctor": ("doctor", "Examine a store: rights, clock, rules, speed, and what to do."),
    "du": ("du", "Show what a cache uses: shared, unique, orphaned and missing blobs."),
    "extract": ("extract", "Extract the files of a result or layer to a directory."),
    "files": ("files", "List the files of a result or layer."),
    "graph": ("graph", "Draw a name's records and layers, as Mermaid or DOT."),
    "keygen": ("keygen", "Make a key to sign names with."),
    "ls": ("ls", "List the names of a cache, with age and size."),
    "merge": ("merge", "Merge names of one or more caches into one name."),
    "promote": ("promote", "Bring signed names to a cache that few may write."),
    "prune": ("prune", "Remove names by age, count or size, and delete orphaned blobs."),
    "repair": ("repair", "Repair a cache from replicas; results that none has become misses."),
    "run": ("run", "Run a command, or restore its outputs from a cache."),
    "show": ("show", "Show the layers and records of names."),
    "sign": ("sign", "Sign names, for those who read only what a trusted key has signed."),
    "stats": ("stats", "Show what 'cachefs run' saved, by command and cache."),
    "verify": ("verify", "Verify that manifests are valid and blobs exist and are undamaged."),
}

NOTES = """\
Where two locations are expected, as by copy and diff, one alone is the second of them, and the
first is $CACHEFS_CACHE, which must be set. Patterns such as 'pr-*' have to be quoted.

With --json, standard output is one JSON document. If the whole command fails, it is
{"error": {"type", "message", "operation", "side", "key"}}, in addition to the line on standard
error.

The engine for S3 comes from the location's engine=..., or else from --engine, or else from
$CACHEFS_ENGINE; the default is s3fs.

To complete commands, options and the names of local caches in bash, run
eval "$(_CACHEFS_COMPLETE=bash_source cachefs)"; for other shells, use zsh_source or fish_source.
"""

WIDEST = 80
"""Maximum width of --help, in columns."""

NARROWEST = 30


class Interrupted(Exception):  # noqa: N818 - it is not an error
    """Ctrl-C. Click must not see it: it would print an empty line."""


class Commands(click.Group):
    """A group whose commands are imported when called, so that --help is fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, sorted."""
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module and take ``command`` from it."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        # Imported modules are not garbage. Having the garbage collector traverse them, now, later
        # and at exit, would take a fifth of the time of a short command.
        gc.disable()
        try:
            module = import_module(f"cachefs.cli.{COMMANDS[cmd_name][0]}")
        finally:
            gc.freeze()
            gc.enable()
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command. Raises UsageError, with the most similar command if there is one."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = most_similar(args[0], COMMANDS)
            if not near:
                raise
            message = f"{error.message.rstrip('.')}. Did you mean {near!r}?"
            raise click.UsageError(message, ctx) from error

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete commands and options without importing the commands."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=line)
            for name, (_, line) in sorted(COMMANDS.items())
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in sorted(COMMANDS)])
        with formatter.section("Exit status"):
            formatter.write_dl([(str(int(code)), text) for code, text in MEANINGS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn Ctrl-C into an exception that click ignores, and name OSErrors."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted from error
        except NoCacheError as error:
            from cachefs.cli.locations import default_hint

            error.reason += default_hint(ctx)
            raise
        except CacheError:
            raise
        except OSError as error:
            # Errors of stores are CacheErrors, and output never fails: this is the machine's.
            from cachefs.filesystems.system import system_error

            raise system_error(error, str(ctx.invoked_subcommand)) from error


@click.group(
    cls=Commands,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND] [ARGS]...",  # older releases of click require a command
    epilog=NOTES,
    context_settings={
        "help_option_names": ["-h", "--help"],
        # click does not go below 50 columns by itself.
        "terminal_width": max(min(get_terminal_size().columns, WIDEST) - 2, NARROWEST),
    },
)
@click.version_option(__version__, message="cachefs %(version)s")
@common_options
@click.pass_context
def program(context: click.Context) -> None:
    """A build cache on any filesystem, in the format of BuildKit's cache back ends.

    A LOCATION is a path, a URL (s3://bucket/ci/) or a builder's attributes
    (type=s3,bucket=builds,region=eu-central-1,name=app). Without it, a command uses $CACHEFS_CACHE,
    or else the cache in your cache directory that "cachefs run" uses by default.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main() -> NoReturn:
    """Run the program and end the process with its exit status."""
    prepare()
    silence()
    begin_without_fsspec()
    try:
        status = _run()
        fault = finish()
    except KeyboardInterrupt:  # while a slow reader takes the last of the output
        status, fault = int(Exit.INTERRUPTED), None
    if fault is not None:
        tell(OSError(fault))
        status = status or Exit.FAULTS
    _end(status)


def _run() -> int:
    """Run the program; errors become one line and a status."""
    try:
        return int(program.main(prog_name="cachefs", standalone_mode=False) or 0)
    except click.ClickException as error:
        return _failed(error, Exit.USAGE, _advice(error))
    except CacheError as error:
        return _failed(error, status_of(error))
    except (Interrupted, click.Abort):
        click.echo("cachefs: interrupted", err=True)
        return Exit.INTERRUPTED


def _end(status: int) -> NoReturn:
    """End the process; if obstore was used, without finalizing the interpreter.

    Its threads may still hand results to Python. If one does so while Python is finalizing, it
    aborts the process with a signal, after all work is done. This is rare, and also happens with
    obstore alone.
    """
    if "obstore" in sys.modules:
        os._exit(status)
    sys.exit(status)


def _failed(error: Exception, status: Exit, message: str | None = None) -> Exit:
    tell(error, message)
    if "--json" in sys.argv and _command() != "run":  # whose output is that of its own command
        from cachefs.cli.output import print_json

        print_json({"error": error_object(error, message)})
    return status


def _advice(error: click.ClickException) -> str:
    """Click's message, followed by the --help to see."""
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    if context is not None and message.startswith("Got unexpected extra argument"):
        message += pattern_hint()
    return f"{message} (see {context.command_path if context else 'cachefs'} --help)"


def _command() -> str | None:
    """The command that was typed, for errors of click, which come before it is known."""
    return next((word for word in sys.argv[1:] if word in COMMANDS), None)
