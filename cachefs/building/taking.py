"""Taking a hit: its outputs are put in place, all or none, and its log is opened."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from cachefs.building.executing import UNUSABLE
from cachefs.building.in_place import is_in_place, put_and_note
from cachefs.building.log import opened
from cachefs.building.restoring import staged
from cachefs.building.threads import in_thread
from cachefs.concurrency import run
from cachefs.user_cache.listings import kept_log

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cachefs.building.engine import Engine
    from cachefs.building.states import Output
    from cachefs.building.steps import Step


def take_hit(engine: Engine, step: Step, directory: Path) -> BinaryIO | None:
    """Put the outputs of a hit into a directory, and return its log, opened.

    If they are there already, nothing is fetched but a log that is not known here. Whatever goes
    wrong, nothing is changed and None is returned: no result in the caches read so far is usable.
    """
    state = engine.states[step]
    while state.outcome == "hit" and (output := state.output) is not None:
        try:
            if is_in_place(state.content, directory, step.outputs):
                if (log := _log(engine, step, output)) is not None:
                    return log
                continue
            with staged(directory, step.outputs) as stages:
                pulled = run(_pull(engine, step, [stage.path for stage in stages]))
                if pulled is None:
                    break
                output = pulled.output
                log = opened(pulled.log)
                moves = [stage.move(pulled.files) for stage in stages]
                try:
                    put_and_note(moves, state.content, directory, step.outputs)
                except BaseException:
                    log.close()
                    raise
                return log
        except UNUSABLE as error:
            engine.refuse(step, output, error)
    return None


class _Pulled(NamedTuple):
    """A result on disk.

    Attributes:
        files: the name of the directory of its files, below each directory that was given.
        log: the directory of its log.
        output: the result.
    """

    files: str
    log: Path
    output: Output


async def _pull(engine: Engine, step: Step, places: Sequence[Path]) -> _Pulled | None:
    """Extract the result of a hit below each of these directories, and its log below the first.

    None if no result is usable.
    """
    state, scratch = engine.states[step], engine.scratch
    async with state.fetching:
        while (fetched := await engine.fetched_hit(step)) and (output := state.output):
            number = len(engine.results.refused)
            files, log = f"files-{number}", places[0] / f"log-{number}"
            try:
                for place in places:
                    await in_thread(scratch.extract_files, step.outputs, fetched, place / files)
                await in_thread(scratch.extract_log, fetched[1:], log)
            except UNUSABLE as error:
                engine.refuse(step, output, error)
            else:
                return _Pulled(files, log, output)
    return None


def _log(engine: Engine, step: Step, output: Output) -> BinaryIO | None:
    """The log of a hit; None if it is lost. Raises what makes the result unusable."""
    facts = output.layers[-1].annotations
    if facts and (kept := kept_log(facts.diff_id)) is not None:
        return BytesIO(kept)
    with engine.scratch.directory() as directory:
        if run(_pull_log(engine, step, output, directory / "log")):
            return opened(directory / "log")
    return None


async def _pull_log(engine: Engine, step: Step, output: Output, directory: Path) -> bool:
    """Extract the log of a result, and nothing else, to a new directory; False if it is lost."""
    state, layer = engine.states[step], output.layers[-1]
    async with state.fetching:
        path = await engine.fetch(state, layer)
        if path is None:
            engine.pick(step, state)
            return False
        await in_thread(engine.scratch.extract_log, [(path, layer)], directory)
        return True
