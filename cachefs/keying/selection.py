"""What of a directory counts as an input: include and exclude patterns, and ignore files.

Patterns are those of ``.gitignore``: one with no slash, except at its end, matches at any depth,
others start at the directory that they belong to. One that matches a directory matches everything
below it.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cachefs.errors import UsageError
from cachefs.keying.patterns import ignore_pattern
from cachefs.layers.leftovers import PREFIXES

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pathspec import GitIgnoreSpec
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern as Pattern

    Scan = Callable[[str], Iterable[tuple[str, os.stat_result]]]

IGNORE_FILES: Final = (".gitignore", ".cachefsignore")
"""Files with patterns of what does not count; the second has the last word."""

_VERSION_CONTROL: Final = (".git", ".hg", ".svn", ".bzr", ".jj", ".pijul", "_darcs", "CVS")
_NOT_CONTENT: Final = frozenset({*_VERSION_CONTROL, "__pycache__"})


@dataclass(frozen=True)
class Selection:
    """Which entries of a directory count.

    Attributes:
        include: patterns of what counts; none for everything.
        exclude: patterns of what does not, whatever ``include`` and ignore files say.
        ignore: leave out directories of version control, ``__pycache__``, and what ignore files
            name: those in the directory, below it, and above it, up to the root of its repository
            or, if it is in none, up to ``base``.
        without: absolute paths that never count, each with the reason.
        base: the directory that ``exclude`` and ``outputs`` belong to; None for the one that is
            read.
        outputs: glob patterns of outputs, which do not count either.
        follow: whether links below the directory count as what they lead to.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    ignore: bool = True
    without: Mapping[Path, str] = field(default_factory=dict)
    base: Path | None = None
    outputs: Sequence[str] = ()
    follow: bool = False


EVERYTHING: Final = Selection(ignore=False)


class Walk:
    """One pass over a directory.

    Iterating gives the name of each entry that counts, relative to the root, and its status; a
    directory comes before what is below it. Raises UsageError for a pattern that is not valid.

    Args:
        root: the directory.
        selection: what counts.
        scan: gives the names and status of what is in a directory, whose name it takes.

    Attributes:
        left_out: how many entries do not count, by the reason: the name of an ignore file or
            option, or what ``without`` says. A directory and all that is below it count as one.
        emptied: directories in which something does not count.
    """

    def __init__(self, root: Path, selection: Selection, scan: Scan) -> None:
        base = Path(os.path.realpath(selection.base or root))
        self._root = root
        self._base = base
        self._scan = scan
        self._ignore = selection.ignore
        self._include = _spec(selection.include) if selection.include else None
        self._deepest = _deepest(selection.include)
        self._exclude: list[_Rules] = []
        outputs = [ignore_pattern(output) for output in selection.outputs]
        for given, why in ((selection.exclude, "--exclude"), (outputs, "an output")):
            if given:
                patterns = _spec(given).patterns
                self._exclude.append(_Rules.of_parent(base, root, patterns, why))
        without = selection.without.items()
        self._without = {os.path.relpath(path, root): why for path, why in without}
        self._above = list(_rules_above(root, base)) if selection.ignore else []
        self.left_out: Counter[str] = Counter()
        self.emptied: set[str] = set()

    def __iter__(self) -> Iterator[tuple[str, os.stat_result]]:
        waiting = [("", self._above)]
        while waiting:
            above, rules = waiting.pop()
            entries = dict(self._scan(above))
            if self._ignore:
                rules = [*rules, *self._rules_among(entries, above)]
            for last, status in entries.items():
                if last.startswith(PREFIXES):
                    continue
                name = f"{above}/{last}" if above else last
                is_directory = stat.S_ISDIR(status.st_mode)
                shown = name + "/" if is_directory else name
                if why := self._why_not(name, shown, rules):
                    self.left_out[why] += 1
                    self.emptied.add(above)
                    continue
                counts = self._include is None or self._include.match_file(shown)
                if counts:
                    yield name, status
                if is_directory and (counts or shown.count("/") < self._deepest):
                    waiting.append((name, rules))

    def _rules_among(self, entries: Mapping[str, os.stat_result], above: str) -> Iterator[_Rules]:
        """The rules in the ignore files of a directory, the weightiest last."""
        for name in IGNORE_FILES:
            if name in entries and stat.S_ISREG(entries[name].st_mode):
                path = self._root / above / name
                skipped = len(above) + 1 if above else 0
                yield _Rules(_read(path), os.path.relpath(path, self._base), skipped=skipped)

    def _why_not(self, name: str, shown: str, rules: Sequence[_Rules]) -> str:
        """Why an entry does not count; empty if it does."""
        if name in self._without:
            return self._without[name]
        if self._ignore and name.rpartition("/")[2] in _NOT_CONTENT:
            return "default"
        for rule in [*rules, *self._exclude][::-1]:
            decided = rule.decide(shown)
            if decided is not None:
                return rule.where if decided else ""
        return ""


@dataclass(frozen=True)
class _Rules:
    """The patterns of one directory, applied to names relative to the root of a walk.

    Attributes:
        patterns: in the order in which they were written.
        where: the file that they are from, relative to the base of the selection, or the option.
        prefix: the root's name in the directory, with a slash at its end, if it is below it.
        skipped: the length of the directory's name, if the directory is below the root.
    """

    patterns: Sequence[Pattern]
    where: str
    prefix: str = ""
    skipped: int = 0

    @classmethod
    def of_parent(
        cls, directory: Path, root: Path, patterns: Sequence[Pattern], where: str
    ) -> _Rules:
        """The rules of a directory above the root, less those that match the root itself.

        The root was named by the user, so it counts.
        """
        if directory == root:
            return cls(patterns, where)
        prefix = os.path.relpath(root, directory) + "/"
        kept = [pattern for pattern in patterns if not pattern.match_file(prefix)]
        return cls(kept, where, prefix)

    def decide(self, shown: str) -> bool | None:
        """Whether a name is to be left out; None if no pattern says so or otherwise.

        As in git, the last pattern that matches decides. The library's patterns also match what is
        below a directory that they match. Such matches do not count here: what is below a directory
        that is left out is never seen, and another pattern may have kept the directory.
        """
        path = self.prefix + shown[self.skipped :]
        for pattern in reversed(self.patterns):
            if pattern.regex is not None and _matches(pattern.regex, path):
                return pattern.include
        return None


def _matches(expression: re.Pattern[str], path: str) -> bool:
    """Whether a pattern matches a path itself. Its only group is the slash after a directory."""
    return any(
        match.lastgroup is None or match.end(match.lastgroup) == len(path)
        for match in expression.finditer(path)
    )


def _rules_above(root: Path, base: Path) -> Iterator[_Rules]:
    """The rules of the directories above, from the root of the repository down."""
    for directory in reversed(_parents(root, base)):
        for name in IGNORE_FILES:
            path = directory / name
            if path.is_file() and not path.is_symlink():
                where = os.path.relpath(path, base)
                yield _Rules.of_parent(directory, root, _read(path), where)


def _parents(root: Path, base: Path) -> list[Path]:
    """The directories above, nearest first, up to the repository's root or else the base."""
    above = [root, *root.parents]
    last = repository(root) or base
    return above[1 : above.index(last) + 1] if last in above else []


def repository(directory: Path) -> Path | None:
    """The root of the repository that a directory is in; None if it is in none."""
    for above in (directory, *directory.parents):
        if any((above / name).exists() for name in _VERSION_CONTROL):
            return above
    return None


def _read(path: Path) -> Sequence[Pattern]:
    """The patterns of a file. As git does, those that are not valid or name nothing are ignored."""
    valid: list[Pattern] = []
    try:
        text = path.read_text(errors="surrogateescape")
    except OSError:
        text = ""
    for line in text.splitlines():
        if line.strip().strip("!/"):
            with suppress(UsageError):
                valid += _spec([line]).patterns
    return valid


def _spec(patterns: Iterable[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec  # noqa: PLC0415 - slow to load, and seldom needed

    try:
        return GitIgnoreSpec.from_lines(patterns)
    except ValueError as error:
        raise UsageError(f"a pattern is not valid: {error}") from error


def _deepest(patterns: Iterable[str]) -> float:
    """How many names deep something may begin to match."""
    return max(map(_depth, patterns), default=0)


def _depth(pattern: str) -> float:
    anywhere = "**" in pattern or "/" not in pattern.rstrip("/")
    return float("inf") if anywhere else pattern.strip("/").count("/") + 1
