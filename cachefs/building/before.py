"""What lay at the outputs before a command ran: moved aside, so that outputs are what it makes."""

from __future__ import annotations

import logging
import os
import stat
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from cachefs.amount import counted
from cachefs.building import leftovers
from cachefs.building.reasons import reason
from cachefs.building.restoring import leads_to_directory, put_in_place
from cachefs.errors import UsageError
from cachefs.layers.beneath import Beneath, split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cachefs.layers.beneath import Parts

logger = logging.getLogger("cachefs")

_LIST: Final = "outputs"
_FILES: Final = "files"


class Before:
    """What lay at a command's outputs before it runs.

    It is moved into a directory next to the outputs. What cannot be moved, what is in ``staying``
    and what a symbolic link to a directory leads to stays in place.

    Args:
        directory: the command's working directory.
        outputs: its outputs.
        staying: outputs that are left in place.
    """

    def __init__(self, directory: Path, outputs: Sequence[str], staying: Sequence[str]) -> None:
        self._directory = directory
        self._outputs = outputs
        self._staying = frozenset(staying)
        self._links: dict[str, _Mark] = {}
        self._stuck: dict[str, str] = {}
        self._present: dict[str, dict[Parts, _Mark]] = {}
        self._aside: _Aside | None = None

    def set_aside(self) -> None:
        """Move aside what can be moved, and note what stays. Raises nothing but interrupts."""
        with suppress(OSError), Beneath.at(self._directory) as place:
            for output in self._outputs:
                path = split(output)
                with suppress(OSError):
                    if place.exists(path):
                        self._set_aside(place, path, output)

    def _set_aside(self, place: Beneath, path: Parts, output: str) -> None:
        if leads_to_directory(place, path):
            self._links[output] = _mark(place.status(path))
            return
        if output not in self._staying:
            try:
                if self._aside is None:
                    self._aside = _Aside(self._directory, self._outputs)
                self._aside.take(place, path)
            except OSError as error:
                self._stuck[output] = error.strerror or str(error)
            else:
                return
        self._present[output] = _marks(place, path)

    def put_back(self) -> None:
        """Put everything back, after a command that failed."""
        if self._aside is not None:
            self._aside.put_back(self._outputs)

    def settle(self) -> str:
        """After a command that succeeded: why its outputs cannot be kept; empty if they can.

        What it did not make again is put back, and what it made again is given up.
        """
        missing: list[str] = list(self._outputs)
        try:
            with Beneath.at(self._directory) as place:
                missing = [output for output in self._outputs if not place.exists(split(output))]
                whys = [self._objection(place, output) for output in self._outputs]
        except OSError as error:
            whys = [f"its outputs cannot be read: {reason(error)}"]
        if self._aside is not None:
            self._aside.put_back(missing)
            self._aside = None
        return next(filter(None, whys), "")

    def _objection(self, place: Beneath, output: str) -> str:
        path = split(output)
        if link := _link_above(place, path):
            return f"the output {output} is below {link}, which is a symbolic link"
        if not place.exists(path):
            return f"the command made no {output!r}, which is one of its outputs"
        if output in self._links and self._links[output] == _mark(place.status(path)):
            return (
                f"the output {output} is a symbolic link to a directory; "
                "name that directory as the output"
            )
        untouched = self._untouched(place, path, output)
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

    def _untouched(self, place: Beneath, path: Parts, output: str) -> int:
        before = self._present.get(output)
        if not before:
            return 0
        now = _marks(place, path)
        return sum(now.get(name) == mark for name, mark in before.items())


class _Mark(NamedTuple):
    """Shows whether a file or link is still the same."""

    device: int
    inode: int
    ctime: int


def _mark(status: os.stat_result) -> _Mark:
    return _Mark(status.st_dev, status.st_ino, status.st_ctime_ns)


def _marks(place: Beneath, path: Parts) -> dict[Parts, _Mark]:
    """The marks of an output: of all that is below it, if it is a directory, except directories."""
    status = place.status(path)
    if not stat.S_ISDIR(status.st_mode):
        return {path: _mark(status)}
    marks = {}
    with suppress(OSError):  # what cannot be read cannot be packed either
        for name, found in place.below(path):
            if not stat.S_ISDIR(found.st_mode):
                marks[name] = _mark(found)
    return marks


def _link_above(place: Beneath, path: Parts) -> str:
    """The first directory on the way to a path that is a symbolic link; empty if none is."""
    for depth in range(1, len(path)):
        if not place.exists(path[:depth]):
            break
        if stat.S_ISLNK(place.status(path[:depth]).st_mode):
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
        put_in_place(aside / _FILES, directory, outputs, over_links=True)
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


def recover(directory: Path) -> None:
    """Put back what killed runs had moved aside here, and remove what killed restores left."""
    with ExitStack() as stack:
        for aside in stack.enter_context(leftovers.of_ended_processes(directory, leftovers.BEFORE)):
            names = _listed(aside)
            if names is None:
                continue
            logger.warning("a run was killed here; what lay at its outputs before is put back")
            _put_back(aside, directory, names)
    leftovers.sweep(directory)


def _listed(aside: Path) -> list[str] | None:
    """The outputs in a list; None if it is not one that this program wrote."""
    with suppress(OSError), Beneath.at(aside) as beneath:
        with os.fdopen(beneath.open_file(split(_LIST)), "rb") as file:
            names = [os.fsdecode(name) for name in file.read().split(b"\0") if name]
        if not any(Path(name).is_absolute() or ".." in Path(name).parts for name in names):
            return names
    return None
