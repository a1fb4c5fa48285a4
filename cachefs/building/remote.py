"""Steps on an executor of the caller's: other processes or machines, which share a cache.

What is sent is small: the action, and for each input the layers of its result, which the worker
reads from the caches of the build. Sources travel as layers too, small ones with the step. The
worker runs the step in a scratch directory of its own and writes the blobs of its result to the
shared cache; the driver, which is the process of the build, only records it.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from cachefs.building.processes import ended
from cachefs.building.scratch import Scratch, part_content
from cachefs.building.steps import failure
from cachefs.concurrency import run
from cachefs.digest import Digest
from cachefs.errors import CacheError, NotFoundError
from cachefs.layers import leftovers
from cachefs.transfer.exporter import Blob, Transfer
from cachefs.transfer.importer import fetch_blob
from cachefs.transfer.sources import MappingSource

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cachefs.building.actions import Action
    from cachefs.building.outputs import Outputs
    from cachefs.layers.compression import Compression
    from cachefs.layout.base import Layout
    from cachefs.transfer.workers import CacheSpec
    from cachefs.wire.cacheconfig import Layer

INLINE: Final = 64 * 1024
"""Blobs of sources up to this many bytes are sent with the step."""


class RemoteInput(NamedTuple):
    """An input of a step that is sent: the part at ``path`` of a layer.

    ``blob`` has the bytes of a small layer, instead of a cache.
    """

    layer: Layer
    outputs: Outputs
    path: str
    blob: bytes | None = None


class RemoteStep:
    """What is sent to a worker. Dask takes tuples and dataclasses apart; this is neither.

    Args:
        name: the step's name.
        action: what it does.
        inputs: its inputs by name.
        outputs: what it makes.
        environment: its variables.
        parts: paths in its result whose contents other steps are keyed by.
        caches: where inputs are read; the first is the shared cache, to which the result is
            written.
        compression: how its layers are compressed, and how much.
        touch_refresh: seconds after which a blob's time is renewed.
        damaged: blobs that are damaged in the shared cache, and are replaced.
    """

    def __init__(
        self,
        *,
        name: str,
        action: Action,
        inputs: Mapping[str, RemoteInput],
        outputs: Outputs,
        environment: Mapping[str, str | None],
        parts: Sequence[str],
        caches: Sequence[CacheSpec],
        compression: tuple[Compression, int | None],
        touch_refresh: float,
        damaged: Collection[str],
    ) -> None:
        self.name = name
        self.action = action
        self.inputs = dict(inputs)
        self.outputs = outputs
        self.environment = dict(environment)
        self.parts = list(parts)
        self.caches = list(caches)
        self.compression = compression
        self.touch_refresh = touch_refresh
        self.damaged = list(damaged)


class RemoteResult:
    """What a worker sends back: the layers of the result, which are in the shared cache."""

    def __init__(
        self, layers: tuple[Layer, ...], created_at: str, parts: dict[str, Digest]
    ) -> None:
        self.layers = layers
        self.created_at = created_at
        self.parts = parts


class RemoteInputError(CacheError):
    """An input cannot be read or laid out by a worker.

    Attributes:
        name: the input.
        error: why.
    """

    def __init__(self, reason: str, name: str = "", error: Exception | None = None) -> None:
        super().__init__(reason)
        self.name = name
        self.error = error


def work(step: RemoteStep) -> RemoteResult:
    """Run a step on a worker. Raises StepError, RemoteInputError and StoreError."""
    root, lock = leftovers.locked_directory(Path(tempfile.gettempdir()), leftovers.SCRATCH)
    try:
        return _Worker(step, Scratch(root, *step.compression)).run()
    finally:
        leftovers.remove(root)
        os.close(lock)


class _Worker:
    def __init__(self, step: RemoteStep, scratch: Scratch) -> None:
        self._step = step
        self._scratch = scratch
        self._layouts = [spec.open() for spec in step.caches]

    def run(self) -> RemoteResult:
        step = self._step
        with self._scratch.directory() as outside:
            directory = outside / "work"
            directory.mkdir()
            for name, one in step.inputs.items():
                try:
                    self._lay(one, directory / name)
                except (CacheError, OSError) as error:
                    raise RemoteInputError(str(error), name, error) from error
            self._act(directory, outside)
            layers, created_at = self._scratch.collect(step, directory, outside)
        blobs = {Digest(layer.blob): layer.size for layer in layers}
        source = MappingSource({blob: self._scratch.blob(blob) for blob in blobs})
        transfer = Transfer(self._layouts[0], source)
        run(transfer.send([Blob(one, size) for one, size in blobs.items() if one in step.damaged]))
        run(transfer.bring(blobs, step.touch_refresh))
        return RemoteResult(layers, created_at, self._contents(layers[0]))

    def _lay(self, one: RemoteInput, target: Path) -> None:
        blob = self._scratch.blob(one.layer.blob)
        if one.blob is not None:
            blob.write_bytes(one.blob)
        elif not blob.exists():
            self._fetch(one.layer, blob)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._scratch.lay_result(one.outputs, [(blob, one.layer)], one.path, target)

    def _fetch(self, layer: Layer, path: Path) -> None:
        *others, last = self._layouts
        for layout in others:
            with suppress(NotFoundError):
                return run(fetch_blob(layout, Digest(layer.blob), path, layer.size or None))
        return run(fetch_blob(last, Digest(layer.blob), path, layer.size or None))

    def _act(self, directory: Path, outside: Path) -> None:
        step = self._step
        with self._scratch.log(outside) as log:
            try:
                status = step.action.begin(directory, step.environment, log.write).run()
            except OSError as error:
                raise failure(step, f"cannot run: {error.strerror or error}") from error
            tail = log.tail()
        if status != 0:
            raise failure(step, ended(status), status, tail)

    def _contents(self, layer: Layer) -> dict[str, Digest]:
        """The contents of the parts, for early cutoff."""
        if not self._step.parts:
            return {}
        with self._scratch.directory() as directory:
            tree = directory / "tree"
            blob = self._scratch.blob(layer.blob)
            self._scratch.extract(self._step.outputs, [(blob, layer)], tree)
            return {path: part_content(tree, path) for path in self._step.parts}


async def bring(layout: Layout, path: Path, layer: Layer, touch_refresh: float) -> None:
    """Write a blob that the driver has to the shared cache. Raises StoreError."""
    digest = Digest(layer.blob)
    await Transfer(layout, MappingSource({digest: path})).bring({digest: layer.size}, touch_refresh)
