"""The temporary directory of one build: its blobs, and the directories that steps run in."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cachefs.building import log
from cachefs.building.sources import read_tree
from cachefs.building.steps import Source, StepError
from cachefs.digest import Digest
from cachefs.layers.extracting import LayerSource, extract_chain
from cachefs.layers.packing import PackedLayer, pack, tree
from cachefs.wire import timestamps
from cachefs.wire.cacheconfig import NO_PARENT, Annotations, Layer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cachefs.building.steps import Step
    from cachefs.layers.compression import Compression

_LOG_DIRECTORY = "log"


class Scratch:
    """Directories below one temporary directory.

    Args:
        root: the directory; the caller removes it.
        compression: how new layers are compressed.
        level: the compression level; None for the compression's default.
    """

    def __init__(
        self, root: Path, compression: Compression = "zstd", level: int | None = None
    ) -> None:
        self._root = root
        self._compression = compression
        self._level = level
        self._blobs = root / "blobs"
        self._blobs.mkdir()

    def blob(self, digest: str) -> Path:
        """The path of a blob, whether or not it exists yet."""
        return self._blobs / Digest(digest).hex

    @contextmanager
    def directory(self) -> Iterator[Path]:
        """An empty directory, removed at the end."""
        path = self.lasting_directory()
        try:
            yield path
        finally:
            shutil.rmtree(path, onerror=_remove_stubborn)

    def lasting_directory(self) -> Path:
        """An empty directory, kept until the build ends."""
        return Path(tempfile.mkdtemp(dir=self._root))

    @contextmanager
    def log(self, outside: Path) -> Iterator[log.LogWriter]:
        """The log of a step that runs in this directory's ``work``."""
        (outside / _LOG_DIRECTORY).mkdir()
        with (outside / _LOG_DIRECTORY / log.NAME).open("wb") as file:
            yield log.LogWriter(file)

    def extract(self, layers: Sequence[tuple[Path, Layer]], directory: Path) -> None:
        """Extract layers whose blobs are on disk. Raises the errors of extract_chain."""
        with ExitStack() as stack:
            extract_chain(
                (
                    LayerSource(
                        stack.enter_context(path.open("rb")), facts.media_type, _diff(facts)
                    )
                    for path, layer in layers
                    if (facts := layer.annotations)
                ),
                directory,
            )

    def lay_inputs(
        self, step: Step, fetched: Mapping[str, Sequence[tuple[Path, Layer]]], directory: Path
    ) -> None:
        """Lay out a step's inputs in a new directory. Raises UsageError and OSError."""
        directory.mkdir()
        for name, part in step.inputs.items():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(part.node, Source):
                part.node.lay_out(part.path, target)
                continue
            with self.directory() as temporary:
                self.extract(fetched[name][:1], temporary / "tree")
                origin = temporary / "tree" / part.path
                if not os.path.lexists(origin):
                    raise StepError(f"step {step.name!r}: its input {name} has no {part.path!r}")
                origin.rename(target)

    def collect(self, step: Step, directory: Path, outside: Path) -> tuple[tuple[Layer, ...], str]:
        """Pack a step's declared outputs. Raises StepError if one is missing."""
        for output in step.outputs:
            if not os.path.lexists(directory / output):
                raise StepError(
                    f"step {step.name!r} made no {output!r}, which is one of its outputs",
                    step=step.name,
                    argv=step.action.argv,
                    exit_code=0,
                )
        created_at = timestamps.now()
        packed = [self._pack(directory, tree(directory, step.outputs))]
        if step.action.logs:
            packed.append(self._pack(outside / _LOG_DIRECTORY, [log.NAME]))
        return tuple(_layer(one, created_at) for one in packed), created_at

    def _pack(self, directory: Path, names: Sequence[str]) -> PackedLayer:
        descriptor, temporary = tempfile.mkstemp(dir=self._blobs)
        with os.fdopen(descriptor, "wb") as file:
            packed = pack(directory, names, file, compression=self._compression, level=self._level)
        Path(temporary).replace(self.blob(packed.digest))
        return packed


def _layer(packed: PackedLayer, created_at: str) -> Layer:
    facts = Annotations(
        media_type=packed.media_type,
        diff_id=packed.diff_id,
        size=packed.size,
        created_at=created_at,
    )
    return Layer(packed.digest, NO_PARENT, facts)


def _diff(facts: Annotations) -> Digest:
    return Digest(facts.diff_id)


def part_content(directory: Path, path: str) -> Digest:
    """The digest of what a result has at a path, computed as for a source."""
    if not os.path.lexists(directory / path):
        raise StepError(f"the result of the step has no {path!r}")
    return read_tree(directory / path, remember=False).digest


def _remove_stubborn(function: object, path: str, _error: object) -> None:
    """Remove the contents of directories that even their owner may not write to."""
    del function
    parent = Path(path).parent
    parent.chmod(0o700)
    if Path(path).is_dir() and not Path(path).is_symlink():
        Path(path).chmod(0o700)
        shutil.rmtree(path, ignore_errors=True)
    else:
        Path(path).unlink(missing_ok=True)
