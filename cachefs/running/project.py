"""``cachefs.toml``: default caches, policies and named steps of a project.

The same tables may be below ``[tool.cachefs]`` of ``pyproject.toml``. Reading the file starts
nothing and opens no cache.
"""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from cachefs.errors import UsageError
from cachefs.keying.patterns import is_pattern, may_overlap
from cachefs.keying.selection import repository
from cachefs.similar import most_similar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

S = TypeVar("S", bound=Struct)

FILE: Final = "cachefs.toml"
SHARED_FILE: Final = "pyproject.toml"
"""Has other tools' tables too, so it counts only if it has ours."""

_TABLE: Final = "tool.cachefs"
_STEP_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]*")
_EXPECTED: Final = re.compile(r"Expected `(.+?)`, got `(.+?)`")
_QUOTED: Final = re.compile(r"`(\w+)`")
_PLACE: Final = re.compile(r" - at `\$\.?(.*)`\Z")
_IN_TOML: Final = {
    "str": "a string",
    "int": "an integer",
    "bool": "true or false",
    "float": "a float",
    "array": "a list",
    "object": "a table",
}

Words = str | list[str]
Locations = str | list[str]


class NamedStep(Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """A table ``[steps.NAME]``."""

    command: Annotated[
        Words,
        Meta(
            description="What runs, in the file's directory. A list is a program with its "
            "arguments, exactly as they are. A string is a script for `sh -e -c`, so `&&`, `|` and "
            "`$VAR` work, and it ends with the first line that fails. Required."
        ),
    ]
    inputs: Annotated[
        list[str],
        Meta(
            description="Files, directories and glob patterns that the result depends on, as "
            "`--input`. The outputs of the steps in `needs` are added."
        ),
    ] = []
    exclude: Annotated[
        list[str],
        Meta(description="What of the inputs does not count, as `--exclude`."),
    ] = []
    outputs: Annotated[
        list[str],
        Meta(description="Files, directories and patterns that the command makes, as `--output`."),
    ] = []
    optional_outputs: Annotated[
        list[str],
        Meta(description="Those that it need not make, as `--optional-output`."),
    ] = []
    env: Annotated[
        list[str] | dict[str, str],
        Meta(
            description="Variables that the result depends on, as `--env`: a list of names, "
            "patterns and `NAME=VALUE`; or a table of names and values that are set."
        ),
    ] = field(default_factory=list)
    needs: Annotated[
        list[str],
        Meta(
            description="Steps that run before this one, and whose outputs are inputs of it. A "
            "step whose output is named in `inputs` is needed without being listed here."
        ),
    ] = []
    ignore: Annotated[
        bool,
        Meta(description="`false` counts what ignore files name, as `--no-ignore`."),
    ] = True
    follow: Annotated[
        bool,
        Meta(description="`true` counts links below inputs as what they lead to, as `--follow`."),
    ] = False
    incremental: Annotated[
        bool,
        Meta(description="`true` leaves the outputs in place, as `--incremental`."),
    ] = False
    ttl: Annotated[
        str,
        Meta(description="How long a result of this step counts, instead of the file's `ttl`."),
    ] = ""

    @property
    def argv(self) -> tuple[str, ...]:
        """The words of the command."""
        if isinstance(self.command, str):
            return ("sh", "-e", "-c", self.command)
        return tuple(self.command)

    @property
    def shown(self) -> str:
        """The command as it was written; it may contain secrets."""
        return self.command if isinstance(self.command, str) else " ".join(self.command)

    @property
    def variables(self) -> list[str]:
        """The variables, as ``--env`` takes them."""
        if isinstance(self.env, list):
            return self.env
        return [f"{name}={value}" for name, value in self.env.items()]


class Settings(Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """What is not in a table of its own."""

    cache: Annotated[
        Locations,
        Meta(
            description="A cache, or a list of caches, to read and write where none is given, as "
            "`--cache`. A path is relative to the file."
        ),
    ] = []
    cache_from: Annotated[
        Locations, Meta(description="Caches that are only read, as `--cache-from`.")
    ] = []
    cache_to: Annotated[
        Locations, Meta(description="Caches that are only written, as `--cache-to`.")
    ] = []
    signed_by: Annotated[
        list[str],
        Meta(
            description="Files with public keys, relative to this file, of which one has to have "
            "signed what is read, as `--signed-by`, unless a cache's own text or "
            "`$CACHEFS_TRUSTED_KEYS` says it."
        ),
    ] = []
    write: Annotated[
        bool, Meta(description="`false` writes nothing to any cache, as `--no-write`.")
    ] = True
    ttl: Annotated[
        str,
        Meta(
            description="How long a result counts, such as `30d`, as `--ttl`; by default for ever."
        ),
    ] = ""
    describe: Annotated[
        bool,
        Meta(description="`false` stores no descriptions of results, as `--no-describe`."),
    ] = True
    jobs: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="How many steps run side by side, as `--jobs`; by default the number of "
            "processors.",
        ),
    ] = None

    @property
    def caches(self) -> tuple[list[str], list[str], list[str]]:
        """The caches that are read and written, only read, and only written."""
        texts = (self.cache, self.cache_from, self.cache_to)
        read_write, read, write = ([one] if isinstance(one, str) else one for one in texts)
        return read_write, read, write


class Project(Struct, frozen=True):
    """What the file of a project says.

    Attributes:
        file: its path.
        settings: caches and policies.
        steps: the named steps, in the order in which they are written.
    """

    file: Path
    settings: Settings
    steps: dict[str, NamedStep]

    @property
    def directory(self) -> Path:
        """The directory of the file, which all paths in it are relative to."""
        return self.file.parent

    def outputs(self, name: str) -> list[str]:
        """The outputs of a step, in one spelling: relative to the directory of the file."""
        step = self.steps[name]
        return [self._relative(output) for output in (*step.outputs, *step.optional_outputs)]

    def optional(self, name: str) -> list[str]:
        """The optional ones among the outputs of a step."""
        return [self._relative(output) for output in self.steps[name].optional_outputs]

    def _relative(self, path: str) -> str:
        return os.path.relpath(self.directory / path, self.directory)


def find_project(start: Path) -> Project | None:
    """The project of a directory: that of the nearest file, up to the repository's root.

    Outside of a repository, only the directory itself is looked at: a file further up may be
    anybody's. Raises UsageError if the file cannot be read or is not valid.
    """
    start = Path(os.path.realpath(start))
    root = repository(start) or start
    for directory in (start, *start.parents):
        own, shared = directory / FILE, directory / SHARED_FILE
        if own.is_file():
            return _read(own)
        if shared.is_file() and (project := _read_shared(shared)) is not None:
            return project
        if directory == root:
            break
    return None


def _read(path: Path) -> Project:
    return _project(path, _loaded(path, _bytes(path)), "")


def _read_shared(path: Path) -> Project | None:
    """The project in a file that need not have one, and that may not even be valid then."""
    data = _bytes(path)
    if b"cachefs" not in data:
        return None
    table = _loaded(path, data).get("tool", {}).get("cachefs")
    return None if table is None else _project(path, table, _TABLE)


def _bytes(path: Path) -> bytes:
    """The bytes of a file that may be trusted with commands and caches. Raises UsageError.

    In a directory that all may write to, such as /tmp, anybody could have put it there.
    """
    try:
        owner, directory = path.stat().st_uid, path.parent.stat().st_uid
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    if owner not in (os.geteuid(), 0, directory):
        raise UsageError(
            f"{path} belongs to user {owner}, who owns neither the directory nor this process, so "
            "no cache is taken from it and no command is run; move it away, or own it"
        )
    return data


def _loaded(path: Path, data: bytes) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - most runs find no file

    try:
        return tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error


def _project(path: Path, table: object, prefix: str) -> Project:
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {prefix} must be a table")
    steps = table.get("steps", {})
    rest = {key: value for key, value in table.items() if key != "steps"}
    if not isinstance(steps, dict):
        raise UsageError(f"{path}: steps must be tables, as in [{_named(prefix, 'steps.build')}]")
    settings = _converted(path, prefix, rest, Settings, ["steps"])
    named = {name: _step(path, prefix, name, step) for name, step in steps.items()}
    project = Project(path, settings, named)
    for fault in _faults(project):
        raise UsageError(f"{path}: {fault}")
    return project


def _step(path: Path, prefix: str, name: str, table: object) -> NamedStep:
    where = _named(prefix, f"steps.{name}")
    if not _STEP_NAME.fullmatch(name):
        raise UsageError(
            f"{path}: {name!r} cannot be the name of a step: use letters, digits and _ . : / -, "
            "and do not begin with one of the last four"
        )
    step = _converted(path, where, table, NamedStep)
    if not step.argv or not step.shown.strip():
        raise UsageError(f"{path}: [{where}] command is empty")
    return step


def _converted(path: Path, where: str, table: object, kind: type[S], more: Sequence[str] = ()) -> S:
    """A table as a struct. Raises UsageError, with the table, the key and what would be right."""
    shown = f"[{where}] " if where else ""
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {shown}must be a table with the keys of a step")
    known = [*kind.__struct_encode_fields__, *more]
    for key in table:
        if key not in known:
            near = most_similar(key, known, 0.5)
            hint = f"did you mean {near!r}?" if near else f"there are: {', '.join(known)}"
            raise UsageError(f"{path}: {shown}has an unknown key {key!r}; {hint}")
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {shown}{_fault(str(error))}") from error


def _fault(text: str) -> str:
    """What is wrong in a table, from msgspec's message. It shows no value."""
    found = _PLACE.search(text)
    key = found[1].replace("[...]", "") if found else ""
    text = _PLACE.sub("", text)
    if types := _EXPECTED.match(text):
        wanted, got = types.groups()
        kinds = dict.fromkeys(_IN_TOML.get(one, one) for one in wanted.split(" | "))
        kinds.pop("null", None)
        text = f"must be {' or '.join(kinds)}, not {_IN_TOML.get(got, got)}"
    elif text.startswith("Object missing required field"):
        text = "has no " + text.split("`")[1]
    else:
        text = text.replace("Expected", "must be", 1)
        text = _QUOTED.sub(lambda word: _IN_TOML.get(word[1], word[1]), text)
    return f"{key} {text}".strip()


def _named(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _faults(project: Project) -> Iterator[str]:
    """What is wrong with the steps, each alone and together, except needs in a circle."""
    outputs: dict[str, str] = {}
    for name, step in project.steps.items():
        for needed in step.needs:
            if needed not in project.steps:
                yield f"step {name!r} needs {needed!r}: {unknown(needed, project.steps)}"
        for output in project.outputs(name):
            if output.split("/", 1)[0] in ("..", "."):
                yield f"step {name!r} has an output that is not below the file: {output!r}"
            if output in outputs:
                yield f"steps {outputs[output]!r} and {name!r} make the same output {output!r}"
            outputs[output] = name
    yield from _overlapping(outputs)


def _overlapping(outputs: Mapping[str, str]) -> Iterator[str]:
    """Which outputs are inside others, or may be, of the names of steps by their outputs."""
    for output, name in outputs.items():
        for above in map(str, PurePath(output).parents):
            if above in outputs:
                yield (
                    f"the output {output!r} of step {name!r} is inside the output {above!r} of "
                    f"step {outputs[above]!r}; each step needs outputs of its own"
                )
    for (one, name), (other, other_name) in itertools.combinations(outputs.items(), 2):
        patterns = is_pattern(one) or is_pattern(other)
        if name != other_name and patterns and may_overlap(one, other):
            yield (
                f"the output {one!r} of step {name!r} and the output {other!r} of step "
                f"{other_name!r} may be the same file, or one inside the other; each step needs "
                "outputs of its own"
            )


def unknown(name: str, steps: Mapping[str, NamedStep]) -> str:
    """That there is no such step, and which there are."""
    if near := most_similar(name, steps):
        return f"there is no step {name!r}; did you mean {near!r}?"
    return f"there is no step {name!r}; there are: {', '.join(steps)}"
