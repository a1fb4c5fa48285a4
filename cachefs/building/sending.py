"""Sending steps to an executor, and sending them again if their worker is lost."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from cachefs.building.executors import as_executor
from cachefs.building.losses import NotSentError, WorkerLostError
from cachefs.building.outputs import Outputs
from cachefs.building.remote import INLINE, RemoteInput, RemoteStep, bring
from cachefs.building.steps import Source, Step, failure

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cachefs.building.remote import RemoteResult
    from cachefs.building.scratch import Scratch
    from cachefs.building.steps import Part
    from cachefs.cache import Cache
    from cachefs.wire.cacheconfig import Layer

logger = logging.getLogger("cachefs")

ATTEMPTS: Final = 3
"""How often a step is sent, if its worker is lost each time."""

AT_A_TIME: Final = 1000
"""How many steps are sent at a time, unless the caller says otherwise: the executor queues them."""


class Sender:
    """Sends the steps of one build to an executor.

    Args:
        executor: a ``concurrent.futures.Executor``, or a Dask Client.
        shared: the cache that workers write to.
        caches: the caches of the build, where workers read.
        scratch: the build's directories.
        jobs: how many steps are sent at a time; None for as many as the executor takes.

    Attributes:
        shared: as given.

    Raises UsageError for another executor.
    """

    def __init__(
        self,
        executor: object,
        shared: Cache,
        caches: Sequence[Cache],
        scratch: Scratch,
        jobs: int | None,
    ) -> None:
        self._executor = as_executor(executor)
        self.shared = shared
        self._specs = [shared.spec, *(cache.spec for cache in caches if cache is not shared)]
        self._touch_refresh = shared.location.export.touch_refresh
        self._scratch = scratch
        self._places = asyncio.Semaphore(jobs or AT_A_TIME)
        self._sources: dict[Part, RemoteInput] = {}
        self._packing: defaultdict[Part, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def run(
        self,
        step: Step,
        layers: Mapping[str, Layer],
        parts: Sequence[str],
        damaged: Collection[str],
    ) -> RemoteResult:
        """Run a step on a worker.

        Args:
            step: the step.
            layers: the results that are inputs, by name.
            parts: paths in the result whose contents are to be known.
            damaged: blobs that are damaged in the shared cache.

        Raises StepError, RemoteInputError, StoreError, and ExecutorLostError.
        """
        sent = RemoteStep(
            name=step.name,
            action=step.action,
            inputs={name: await self._input(step, name, layers) for name in step.inputs},
            outputs=step.outputs,
            environment=step.definition.environment,
            parts=parts,
            caches=self._specs,
            compression=self._scratch.compression,
            touch_refresh=self._touch_refresh,
            damaged=damaged,
        )
        async with self._places:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    return await self._executor.run(sent)
                except WorkerLostError as error:
                    if attempt == ATTEMPTS:
                        raise failure(step, f"lost its worker each time: {error}") from error
                    logger.warning("step %r lost its worker; it is sent again", step.name)
                except NotSentError as error:
                    raise failure(step, f"cannot be sent to the executor: {error}") from error
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Nothing more is sent."""
        self._executor.close()

    async def _input(self, step: Step, name: str, layers: Mapping[str, Layer]) -> RemoteInput:
        part = step.inputs[name]
        if isinstance(part.node, Step):
            return RemoteInput(layers[name], part.node.outputs, part.path)
        async with self._packing[part]:
            if part not in self._sources and isinstance(part.node, Source):
                self._sources[part] = await self._packed(part.node, part.path)
        return self._sources[part]

    async def _packed(self, source: Source, path: str) -> RemoteInput:
        """A source as a layer: small ones are sent, others are written to the shared cache."""
        name = "source"
        layer, blob = await asyncio.to_thread(self._scratch.pack_source, source, path, name)
        if layer.size <= INLINE:
            return RemoteInput(
                layer, Outputs((name,)), name, await asyncio.to_thread(blob.read_bytes)
            )
        await bring(self.shared.layout, blob, layer, self._touch_refresh)
        return RemoteInput(layer, Outputs((name,)), name)
