"""The temporary directory of one build: its blobs, and the directories that steps run in."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cachefs.building import log
from cachefs.building.in_place import note
from cachefs.building.outputs import Outputs
from cachefs.building.steps import Source, Step, StepError, failure
from cachefs.digest import Digest
from cachefs.errors import CacheError, LayerError, UsageError
from cachefs.keying.sources import read_part
from cachefs.layers import leftovers, packing
from cachefs.layers.beneath import Beneath, split
from cachefs.layers.extracting import LayerSource, extract_chain
from cachefs.layers.limits import DEFAULT_LIMITS, Limits
from cachefs.layers.listing import Listing
from cachefs.user_cache.index import clock
from cachefs.user_cache.listings import keep_listing, keep_log
from cachefs.wire import description, timestamps
from cachefs.wire.cacheconfig import NO_PARENT, Annotations, Layer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cachefs.building.steps import Named
    from cachefs.layers.compression import Compression
    from cachefs.layers.packing import PackedLayer
    from cachefs.wire.description import Description

logger = logging.getLogger("cachefs")

_SHOWN: Final = 5
_LOG_DIRECTORY: Final = "log"
_LOG_LIMITS: Final = Limits(max_entries=1, max_depth=1)


class UnusableInputError(Exception):
    """The result of a step cannot be laid out as the named input of another."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Scratch:
    """Directories below one temporary directory.

    Args:
        root: the directory; the caller removes it.
        compression: how new layers are compressed.
        level: the compression level; None for the compression's default.

    Attributes:
        compression: both.
    """

    def __init__(
        self, root: Path, compression: Compression = "zstd", level: int | None = None
    ) -> None:
        self._root = root
        self.compression = compression, level
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
            leftovers.remove(path)

    def lasting_directory(self) -> Path:
        """An empty directory, kept until the build ends."""
        return Path(tempfile.mkdtemp(dir=self._root))

    @contextmanager
    def log(self, outside: Path) -> Iterator[log.LogWriter]:
        """The log of a step that runs in this directory's ``work``."""
        (outside / _LOG_DIRECTORY).mkdir()
        writer = log.LogWriter((outside / _LOG_DIRECTORY / log.NAME).open("wb"))
        try:
            yield writer
        finally:
            writer.close()

    def extract_log(self, layers: Sequence[tuple[Path, Layer]], directory: Path) -> None:
        """Extract the log of a result, apart from its files, so that it cannot change them.

        Raises the errors of extract_chain.
        """
        self.extract(Outputs([log.NAME]), layers, directory, limits=_LOG_LIMITS)
        if facts := layers[0][1].annotations:
            with log.opened(directory) as file:
                keep_log(facts.diff_id, file)

    def extract_files(
        self, outputs: Outputs, layers: Sequence[tuple[Path, Layer]], directory: Path
    ) -> None:
        """Extract the files of a result, and keep their listing. Raises as :meth:`extract`."""
        listing = Listing()
        self.extract(outputs, layers[:1], directory, listing=listing)
        if facts := layers[0][1].annotations:
            keep_listing(facts.diff_id, listing)

    def extract(
        self,
        outputs: Outputs,
        layers: Sequence[tuple[Path, Layer]],
        directory: Path,
        *,
        limits: Limits = DEFAULT_LIMITS,
        listing: Listing | None = None,
    ) -> None:
        """Extract a result whose blobs are on disk; all required outputs must be in it.

        ``listing`` receives its members. Raises the errors of extract_chain.
        """
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
                limits=limits,
                listing=listing,
            )
        with Beneath.at(directory) as tree:
            for output in outputs.missing(tree):
                raise LayerError(f"the layer has no {output!r}, which is one of the outputs")

    def lay_inputs(
        self, step: Step, fetched: Mapping[str, Sequence[tuple[Path, Layer]]], directory: Path
    ) -> None:
        """Lay out a step's inputs in a new directory.

        Raises UsageError and OSError, and UnusableInputError for the result of another step.
        """
        directory.mkdir()
        for name, part in step.inputs.items():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(part.node, Source):
                part.node.lay_out(part.path, target)
            elif isinstance(part.node, Step):
                try:
                    self.lay_result(part.node.outputs, fetched[name], part.path, target)
                except (CacheError, OSError) as error:
                    raise UnusableInputError(name) from error

    def lay_result(
        self,
        outputs: Outputs,
        layers: Sequence[tuple[Path, Layer]],
        path: str,
        target: Path,
    ) -> None:
        """Lay out a result whose blobs are on disk, or the part at a path, at a new path.

        Raises the errors of extract_chain.
        """
        with self.directory() as temporary:
            tree = temporary / "tree"
            self.extract(outputs, layers[:1], tree)
            if not path:
                tree.rename(target)
                return
            with Beneath.at(tree) as beneath, Beneath.at(target.parent) as place:
                try:
                    beneath.rename(split(path), place, split(target.name))
                except (FileNotFoundError, NotADirectoryError) as error:
                    raise LayerError(f"there is no {path!r}") from error

    def pack_source(self, source: Source, path: str, name: str) -> tuple[Layer, Path]:
        """A source, or the part at a path, as a layer that holds it at a name; and its blob."""
        with self.directory() as directory:
            source.lay_out(path, directory / name)
            layer = _layer(self._pack(directory, packing.tree(directory, [name])), timestamps.ZERO)
        return layer, self.blob(layer.blob)

    def collect(self, step: Named, directory: Path, outside: Path) -> tuple[tuple[Layer, ...], str]:
        """Pack a step's declared outputs. Raises StepError if a required one is missing."""
        with Beneath.at(directory) as tree:
            for output in step.outputs.missing(tree):
                raise failure(step, f"made no {output!r}, which is one of its outputs", 0)
            found = step.outputs.found(tree)
        created_at = timestamps.now()
        listing, since = Listing(), clock()
        files = self._pack(directory, packing.tree(directory, found), listing)
        keep_listing(files.diff_id, listing)
        if step.action.working_directory is not None:
            note(directory, step.outputs, listing.members, since)
        _tell_special(files)
        packed = [files]
        if step.action.logs:
            packed.append(self._pack(outside / _LOG_DIRECTORY, [log.NAME]))
            with (outside / _LOG_DIRECTORY / log.NAME).open("rb") as file:
                keep_log(packed[1].diff_id, file)
        return tuple(_layer(one, created_at) for one in packed), created_at

    def keep_description(self, described: Description) -> Layer:
        """Keep a description as a blob, whose layer has the time when the step began."""
        raw = description.encode(described)
        digest = Digest.of(raw)
        self.blob(digest).write_bytes(raw)
        facts = Annotations(
            media_type=description.MEDIA_TYPE,
            diff_id=digest,
            size=len(raw),
            created_at=described.started_at,
        )
        return Layer(digest, NO_PARENT, facts)

    def _pack(
        self, directory: Path, names: Sequence[str], listing: Listing | None = None
    ) -> PackedLayer:
        descriptor, temporary = tempfile.mkstemp(dir=self._blobs)
        try:
            with os.fdopen(descriptor, "wb") as file:
                compression, level = self.compression
                packed = packing.pack(
                    directory, names, file, compression=compression, level=level, listing=listing
                )
        except BaseException:
            Path(temporary).unlink()
            raise
        Path(temporary).replace(self.blob(packed.digest))
        return packed


def _tell_special(packed: PackedLayer) -> None:
    """Tell of which files the result does not keep all of the mode."""
    if packed.special:
        names = ", ".join(packed.special[:_SHOWN])
        more = len(packed.special) - _SHOWN
        logger.warning(
            "the result does not keep set-user-ID and set-group-ID bits: %s%s",
            names,
            f" and {more} more" if more > 0 else "",
        )


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
    try:
        return read_part(directory, path).digest
    except UsageError as error:
        raise StepError(f"the result of the step has no {path!r}") from error
