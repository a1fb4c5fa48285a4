"""What lay at the outputs before a command ran: moved aside, so that outputs are what it makes."""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from cachefs.amount import counted
from cachefs.building.outputs import by_filesystem, matches
from cachefs.building.restoring import Move, leads_to_directory, put_in_place
from cachefs.errors import UsageError, reason
from cachefs.keying.patterns import fixed_part, is_pattern
from cachefs.layers import leftovers
from cachefs.layers.beneath import Beneath, split

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from cachefs.building.outputs import Outputs, Place, Placed
    from cachefs.layers.beneath import Parts

logger = logging.getLogger("cachefs")

_LIST: Final = "outputs"
_FILES: Final = "files"


class Before:
    """What lay at a command's outputs before it runs.

    It is moved into a directory next to the outputs, on the same filesystem. What cannot be moved,
    what is in ``staying`` and what a symbolic link to a directory leads to stays in place.

    Args:
        directory: the command's working directory.
        outputs: its outputs.
        staying: outputs that are left in place.
    """

    def __init__(self, directory: Path, outputs: Outputs, staying: Sequence[str]) -> None:
        self._directory = directory
        self._outputs = outputs
        self._staying = frozenset(staying)
        self._links: dict[str, _Mark] = {}
        self._stuck: dict[str, str] = {}
        self._present: dict[str, dict[Path, _Mark]] = {}
        self._places: list[Place] = []
        self._asides: dict[str, _Aside] = {}

    def set_aside(self) -> None:
        """Move aside what can be moved, and note what stays. Raises nothing but interrupts."""
        self._places = by_filesystem(self._directory, self._outputs)
        for place in self._places:
            with suppress(OSError), Beneath.at(self._directory / place.top) as tree:
                for placed in place.outputs:
                    for path in matches(tree, placed.within):
                        with suppress(OSError):
                            self._set_aside(place, tree, path, placed)

    def _set_aside(self, place: Place, tree: Beneath, path: Parts, placed: Placed) -> None:
        output = placed.output
        if not is_pattern(output) and leads_to_directory(tree, path):
            self._links[output] = _mark(tree.status(path))
            return
        if output not in self._staying:
            try:
                if place.top not in self._asides:
                    within = [one.within for one in place.outputs]
                    self._asides[place.top] = _Aside(self._directory / place.top, within)
                self._asides[place.top].take(tree, path)
            except OSError as error:
                self._stuck[output] = error.strerror or str(error)
            else:
                return
        self._present.setdefault(output, {}).update(_marks(tree, path, Path(place.top)))

    def put_back(self) -> None:
        """Put everything back, after a command that failed."""
        self._put_back(self._outputs)

    def _put_back(self, outputs: Collection[str]) -> None:
        for place in self._places:
            if (aside := self._asides.pop(place.top, None)) is not None:
                aside.put_back([one.within for one in place.outputs if one.output in outputs])

    def settle(self) -> str:
        """After a command that succeeded: why its outputs cannot be kept; empty if they can.

        If it did not make a required output again, what was there is put back; all else is given
        up.
        """
        missing = [output for output in self._outputs.required if not self._is_there(output)]
        try:
            with Beneath.at(self._directory) as tree:
                whys = [self._objection(tree, output, missing) for output in self._outputs]
        except OSError as error:
            whys = [f"its outputs cannot be read: {reason(error)}"]
        self._put_back(missing)
        return next(filter(None, whys), "")

    def _is_there(self, output: str) -> bool:
        for place in self._places:
            for placed in place.outputs:
                if placed.output == output:
                    with suppress(OSError), Beneath.at(self._directory / place.top) as tree:
                        return bool(matches(tree, placed.within))
        return False

    def _objection(self, tree: Beneath, output: str, missing: Collection[str]) -> str:
        above = split(fixed_part(output) if is_pattern(output) else output.rpartition("/")[0])
        if link := _first_link(tree, above):
            return f"the output {output} is below {link}, which is a symbolic link"
        if output in missing:
            made = "nothing that matches" if is_pattern(output) else "no"
            return f"the command made {made} {output!r}, which is one of its outputs"
        if output in self._links and self._links[output] == _mark(tree.status(split(output))):
            return (
                f"the output {output} is a symbolic link to a directory; "
                "name that directory as the output"
            )
        untouched = self._untouched(output)
        if untouched and output in self._stuck:
            return (
                f"{counted(untouched, 'file')} that the command did not touch lay in {output} "
                f"before, and could not be moved aside ({self._stuck[output]})"
            )
        if untouched:
            logger.warning(
                "the command did not touch %s that lay in %s before; the result contains "
                "what lay there, too",
                counted(untouched, "file"),
                output,
            )
        return ""

    def _untouched(self, output: str) -> int:
        """How many files that stayed are the same as before."""
        untouched = 0
        with Beneath.at(self._directory) as tree:
            for path, mark in self._present.get(output, {}).items():
                with suppress(OSError):
                    untouched += _mark(tree.status(split(path))) == mark
        return untouched


class _Mark(NamedTuple):
    """Shows whether a file or link is still the same."""

    device: int
    inode: int
    ctime: int


def _mark(status: os.stat_result) -> _Mark:
    return _Mark(status.st_dev, status.st_ino, status.st_ctime_ns)


def _marks(tree: Beneath, path: Parts, top: Path) -> dict[Path, _Mark]:
    """The marks of an output: of all that is below it, if it is a directory, except directories.

    Names begin with ``top``, where the tree is below the working directory.
    """
    status = tree.status(path)
    if not stat.S_ISDIR(status.st_mode):
        return {top.joinpath(*map(os.fsdecode, path)): _mark(status)}
    marks = {}
    with suppress(OSError):  # what cannot be read cannot be packed either
        for name, found in tree.below(path):
            if not stat.S_ISDIR(found.st_mode):
                marks[top.joinpath(*map(os.fsdecode, name))] = _mark(found)
    return marks


def _first_link(tree: Beneath, path: Parts) -> str:
    """The first directory on a path that is a symbolic link; empty if none is."""
    for depth in range(1, len(path) + 1):
        if not tree.exists(path[:depth]):
            break
        if stat.S_ISLNK(tree.status(path[:depth]).st_mode):
            return os.fsdecode(b"/".join(path[:depth]))
    return ""


class _Aside:
    """The directory that things are moved to, locked for as long as the command runs.

    It has a list of the outputs, so that the next run can put them back if this one is killed.
    """

    def __init__(self, directory: Path, outputs: Sequence[str]) -> None:
        self._directory = directory
        self._path, self._lock = leftovers.locked_directory(directory, leftovers.BEFORE)
        try:
            (self._path / _LIST).write_bytes(b"\0".join(map(os.fsencode, outputs)))
            (self._path / _FILES).mkdir()
        except BaseException:
            leftovers.remove(self._path)
            os.close(self._lock)
            raise

    def take(self, place: Beneath, path: Parts) -> None:
        """Move something here. Raises OSError."""
        with Beneath.at(self._path / _FILES) as files:
            files.directory(path[:-1], make=True)
            place.rename(path, files, path)

    def put_back(self, outputs: Sequence[str]) -> None:
        """Put these outputs back, and give the others up."""
        _put_back(self._path, self._directory, outputs)
        os.close(self._lock)


def _put_back(aside: Path, directory: Path, outputs: Sequence[str]) -> None:
    try:
        put_in_place([Move(aside / _FILES, directory, outputs)], back=True)
    except (OSError, UsageError) as error:
        logger.warning(
            "what lay at the outputs before is in %s, because it cannot be put back: %s",
            aside / _FILES,
            reason(error),
        )
        return
    # From now on it is worthless, even if this process is killed while it removes the rest.
    worthless = aside.with_name(aside.name.replace(leftovers.BEFORE, leftovers.RESTORING))
    with suppress(OSError):
        aside.rename(worthless)
        leftovers.remove(worthless)


def recover(directory: Path, outputs: Iterable[str] = ()) -> None:
    """Put back what killed runs had moved aside here, and remove what killed restores left.

    Outputs of other filesystems than that of the directory were moved aside there.
    """
    for top in {"", *(place.top for place in by_filesystem(directory, outputs))}:
        with leftovers.of_ended_processes(directory / top, leftovers.BEFORE) as asides:
            for aside in asides:
                names = _listed(aside)
                if names is None:
                    continue
                logger.warning("a run was killed here; what lay at its outputs before is put back")
                _put_back(aside, directory / top, names)
        leftovers.sweep(directory / top)


def _listed(aside: Path) -> list[str] | None:
    """The outputs in a list; None if it is not one that this program wrote."""
    with suppress(OSError), Beneath.at(aside) as beneath:
        with os.fdopen(beneath.open_file(split(_LIST)), "rb") as file:
            names = [os.fsdecode(name) for name in file.read().split(b"\0") if name]
        if not any(Path(name).is_absolute() or ".." in Path(name).parts for name in names):
            return names
    return None
