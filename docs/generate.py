"""Writes the reference pages that follow from the code: ``python docs/generate.py``.

A test compares the committed pages with what this gives, so they cannot go stale.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cachefs.cli.exits import MEANINGS
from cachefs.cli.main import program as command_line
from cachefs.location.attributes import ATTRIBUTES, TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cachefs.location.attributes import Attribute, Type

REFERENCE = Path(__file__).parent / "reference"

TYPE_TITLES: dict[Type, str] = {
    "s3": "`type=s3`: a bucket, as builders write it",
    "azblob": "`type=azblob`: an Azure container, as builders write it",
    "local": "`type=local`: an OCI image layout directory",
    "fsspec": "`type=fsspec`, a URL or a path: any fsspec filesystem",
}

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN": "Credentials for S3, where the "
    "location gives none. Read by the AWS client, with the others that it knows.",
    "AWS_PROFILE, AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE": "Which profile of which files "
    "the credentials for S3 come from.",
    "AZURE_CLIENT_ID, AZURE_TENANT_ID, AZURE_CLIENT_SECRET": "Credentials for Azure, where the "
    "location gives no key. Read by the Azure client.",
    "GOOGLE_APPLICATION_CREDENTIALS": "Credentials for `gs://`. Read by gcsfs.",
    "NO_COLOR, FORCE_COLOR": "No colours anywhere; colours also where there is no terminal.",
    "COLUMNS": "The width of tables, in place of the terminal's.",
    "XDG_CACHE_HOME": "Where the cache of `cachefs run` and of builds lies when none is named: "
    "`cachefs` below it. Else `~/.cache/cachefs`.",
    "_CACHEFS_COMPLETE": "Set by the shell's completion, never by hand.",
}


def pages() -> dict[Path, str]:
    """The text of each generated page."""
    return {
        REFERENCE / "attributes.md": _page(_attributes()),
        REFERENCE / "commands.md": _page(_commands()),
        REFERENCE / "exit-status.md": _page(_exits()),
        REFERENCE / "environment.md": _page(_environment()),
    }


def _page(lines: Iterable[str]) -> str:
    note = "<!-- Written by docs/generate.py: change the code that it is written from. -->"
    return "\n".join([note, "", *lines]).rstrip() + "\n"


# --- attributes ----------------------------------------------------------------------------------


def _attributes() -> Iterator[str]:
    yield "# Attributes of a location"
    yield ""
    yield from _paragraph(
        "A location is a path, an fsspec URL, or attributes as a builder takes them:"
        " `type=s3,bucket=builds,region=eu-central-1`. The same names are keywords in Python"
        " (`-` becomes `_`): `cachefs.open('s3://builds/app/', touch_refresh='12h')`."
        " Attributes are read as comma separated values: a value with a comma in it is quoted"
        ' together with its name, as in `type=s3,bucket=builds,"name=a;b,c"`.'
        " An attribute that is set wins over the command line's `--engine`, that over the"
        " environment, and that over the default. Secrets are never shown."
    )
    for type_ in TYPES:
        yield f"## {TYPE_TITLES[type_]}"
        yield ""
        rows = [row for row in ATTRIBUTES if type_ in row.types]
        yield "| attribute | values | default | what it is |"
        yield "|---|---|---|---|"
        for row in rows:
            cells = (f"`{row.name}`", _cell(row.kind.words), _default(row, type_))
            yield f"| {' | '.join(cells)} | {_about(row, type_)} |"
        yield ""


def _default(row: Attribute, type_: Type) -> str:
    said = []
    if row.environ:
        said.append(f"`{row.environ}`")
    if row.default is not None and row.default != "":
        said.append(f"`{_spelled(row.default)}`")
    if not said and type_ in row.required and type_ not in row.keyword_only:
        return "required"
    return ", else ".join(said)


def _spelled(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value / 3600:g}h"
    return str(value)


def _about(row: Attribute, type_: Type) -> str:
    notes = {"import": " Import only.", "export": " Export only.", "both": ""}[row.scope]
    if type_ in row.keyword_only:
        notes += " From Python only."
    return _cell(row.about + notes)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# --- commands ------------------------------------------------------------------------------------


def _commands() -> Iterator[str]:
    context = click.Context(command_line, info_name="cachefs", **command_line.context_settings)
    yield "# Commands"
    yield ""
    yield from _paragraph(
        "Each command ends with an [exit status](exit-status.md) of one meaning. What it found"
        " goes to standard output, for programs with `--json`; all else goes to standard error."
    )
    yield from _usage(command_line, context)
    yield from _options(command_line, context)
    for name in command_line.list_commands(context):
        command = command_line.get_command(context, name)
        if command is None:
            raise KeyError(name)
        inner = click.Context(command, info_name=name, parent=context)
        yield f"## cachefs {name}"
        yield ""
        yield from _usage(command, inner)
        yield from _prose(command.help or "")
        yield from _options(command, inner)


def _usage(command: click.Command, context: click.Context) -> Iterator[str]:
    words = " ".join(command.collect_usage_pieces(context))
    yield "```text"
    yield (
        f"{context.command_path.split()[0]} {words}"
        if context.parent is None
        else (f"{context.parent.info_name} {context.info_name} {words}")
    )
    yield "```"
    yield ""


def _prose(text: str) -> Iterator[str]:
    for paragraph in text.split("\f", maxsplit=1)[0].split("\n\n"):
        if "\b" in paragraph:  # click's mark for lines that stay as they are
            yield "```text"
            # Python 3.13 takes a docstring's indentation away, those before keep some of it.
            yield from textwrap.dedent(paragraph.replace("\b", "")).strip("\n").splitlines()
            yield "```"
            yield ""
        else:
            yield from _paragraph(" ".join(paragraph.split()))


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    found = [one.get_help_record(context) for one in command.get_params(context)]
    rows = [record for record in found if record and record[1]]
    yield "| option | what it does |"
    yield "|---|---|"
    for option, text in rows:
        yield f"| `{option.replace('|', '/')}` | {_cell(' '.join(text.split()))} |"
    yield ""


# --- the rest ------------------------------------------------------------------------------------


def _exits() -> Iterator[str]:
    yield "# Exit status"
    yield ""
    yield from _paragraph(
        "The same in every command. `cachefs run` ends with its command's own status where that"
        " has run."
    )
    yield "| status | meaning |"
    yield "|---|---|"
    for exit_, meaning in MEANINGS.items():
        yield f"| {int(exit_)} | {meaning} |"


def _environment() -> Iterator[str]:
    yield "# Environment variables"
    yield ""
    yield "| variable | what it does |"
    yield "|---|---|"
    for row in ATTRIBUTES:
        if row.environ:
            types = " and ".join(f"type={type_}" for type_ in row.types)
            what = f"The attribute `{row.name}` of {types}, where it is not set."
            yield f"| `{row.environ}` | {what} |"
    for names, text in ENVIRONMENT.items():
        shown = ", ".join(f"`{name}`" for name in names.split(", "))
        yield f"| {shown} | {text} |"


def _paragraph(text: str) -> Iterator[str]:
    yield text
    yield ""


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
