"""Examining a store: what works, what a cache there should mind, and what would break it.

Everything is tried with objects of its own, next to the blobs, which are deleted again. Their keys
are those of temporary objects, so that listings omit them, and a prune deletes what is left if the
process was killed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec import Struct, field

from cachefs.amount import counted
from cachefs.errors import (
    AccessError,
    CacheError,
    IntegrityError,
    ManifestError,
    NoCacheError,
    NotFoundError,
    StoreError,
)
from cachefs.filesystems.findings import Finding
from cachefs.filesystems.patience import attempted
from cachefs.masking import mask_text
from cachefs.operations.nearby import require_cache
from cachefs.operations.observe import MAX_SKEW

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from cachefs.filesystems.findings import Verdict
    from cachefs.layout.base import Layout, NamedManifest

T = TypeVar("T")

logger = logging.getLogger("cachefs")

_OFF: Final = 60.0
"""Seconds that the clocks may differ before it is told. S3 refuses requests after 15 minutes."""

_SAMPLE: Final = 1024 * 1024
_SAMPLES: Final = 4
_ROUND_TRIPS: Final = 5
_FAR: Final = 0.1
"""Seconds of a round trip from which on a cache of many small blobs is slow."""
_SLOW: Final = 1024 * 1024
"""Bytes per second below which a build may be faster than its cache."""

_KIND: Final = "doctor-"

_LAST: Final = 10.0
"""Seconds that an interrupted examination waits for requests that are under way."""


class Speed(Struct, frozen=True, kw_only=True):
    """What was measured with a few objects.

    Attributes:
        round_trip: seconds of a small request, the median of five.
        up, down: bytes per second of four objects of 1 MiB at a time.
    """

    round_trip: float
    up: float
    down: float


class Examination(Struct, frozen=True, kw_only=True):
    """What an examination of a cache's store found.

    Attributes:
        findings: a line for each check, in the order of the checks. What does not apply to the
            store is left out.
        left: full paths of objects that were written and could not be deleted.
        speed: None if it was not measured.
        seconds: the whole time.
    """

    findings: list[Finding]
    left: list[str] = field(default_factory=list)
    speed: Speed | None = None
    seconds: float = 0.0

    @property
    def worst(self) -> Verdict:
        """The worst verdict of all findings."""
        verdicts = {finding.verdict for finding in self.findings}
        return "bad" if "bad" in verdicts else "mind" if "mind" in verdicts else "good"


async def examine(
    layout: Layout, *, read_only: bool = False, clock: Callable[[], float] = time.time
) -> Examination:
    """Examine the store of a cache, which need not exist yet.

    What fails becomes a finding; only mistakes of the caller are raised. If the first listing finds
    no store at all, that is the only finding.

    Args:
        layout: the cache.
        read_only: change nothing: rights are found out by requests about what does not exist.
        clock: this machine's time, in seconds since 1970.
    """
    began = time.perf_counter()
    doctor = _Doctor(layout, clock)
    try:
        with doctor.noting("store"):
            if await doctor.look() and await doctor.writable():
                asks = read_only or not layout.store.filesystem.lists_blobs
                await (doctor.ask() if asks else doctor.try_all())
    finally:
        await doctor.clean_up()
    return Examination(
        findings=doctor.findings,
        left=[layout.store.root + key for key in doctor.left],
        speed=doctor.speed,
        seconds=time.perf_counter() - began,
    )


class _Doctor:
    """Makes the checks, one after the other, and remembers what it wrote."""

    def __init__(self, layout: Layout, clock: Callable[[], float]) -> None:
        self.findings: list[Finding] = []
        self.left: list[str] = []
        self.speed: Speed | None = None
        self._layout = layout
        self._store = layout.store
        self._clock = clock
        self._key = self._new_key()
        self._written: list[str] = []
        self._versions: list[str] = []
        self._folders: Sequence[str] = ()
        self._may_delete = False

    def _new_key(self) -> str:
        return self._store.temporary(self._layout.blob_prefix, _KIND)

    def _note(self, check: str, verdict: Verdict, found: str, advice: str = "") -> None:
        self.findings.append(Finding(check, verdict, mask_text(found), advice))

    @contextmanager
    def noting(self, check: str) -> Iterator[None]:
        """Note an error of the body. What it says to do follows its reason."""
        try:
            yield
        except CacheError as error:
            self._note(check, "bad", error.reason)

    async def _attempt(self, check: str, work: Coroutine[Any, Any, object], good: str) -> bool:
        """Note whether the work succeeds."""
        with self.noting(check):
            await work
            self._note(check, "good", good)
            return True
        return False

    # --- without a change -------------------------------------------------------------------------

    async def look(self) -> bool:
        """List, read, and have the store tell about itself. Returns False if there is no store."""
        names = []
        try:
            names = await self._layout.names()
        except (AccessError, ManifestError, IntegrityError) as error:
            is_denied = isinstance(error, AccessError)
            self._note("list" if is_denied else "names", "bad", error.reason)
            if is_denied and not await self._answers():
                return False
        except StoreError as error:
            self._note("list", "bad", error.reason)
            return False
        else:
            found = counted(len(names), "name") if names else await self._without_names()
            self._note("list", "good", found)
        layout = self._layout
        with self.noting("store"):
            self.findings += await self._store.examine(layout.blob_prefix, layout.manifest_prefix)
        if names:
            await self._attempt("get", self._read(names[0]), "objects can be read")
        with self.noting("signatures"):
            await self._look_at_signatures()
        return True

    async def _look_at_signatures(self) -> None:
        """Say whether names are read unsigned although others may write, or somebody signs them."""
        signing = self._layout.signing
        if signing is not None and signing.trusted is not None:
            keys = counted(len(signing.trusted.keys), "key")
            self._note("signatures", "good", f"names are read only if one of {keys} signed them")
            return
        others = any(one.check == "others" and one.verdict != "good" for one in self.findings)
        if others or await self._has_signatures():
            why = "others may write here" if others else "names here are signed"
            self._note(
                "signatures",
                "mind",
                f"{why}, but whatever they hold is read, whoever wrote it",
                "read only what a trusted key has signed: signed_by=..., or $CACHEFS_TRUSTED_KEYS",
            )

    async def _has_signatures(self) -> bool:
        if not self._store.filesystem.lists_blobs:
            return False
        try:
            return bool(await self._store.list(self._layout.signature_prefix))
        except (AccessError, NotFoundError):
            return False

    async def _without_names(self) -> str:
        """What to say of a place without names: a mistyped one may have a cache near it."""
        try:
            await require_cache(self._layout)
        except NoCacheError as error:
            return error.reason
        except CacheError:
            pass  # what is near may not be listed
        return "no names here yet"

    async def _answers(self) -> bool:
        """Whether credentials that may not list are accepted for anything."""
        try:
            await self._store.stat(self._key)
        except StoreError:
            pass
        else:
            return True
        try:
            return (await self._store.allowed(self._key)).put is True
        except StoreError:
            return False

    async def _read(self, name: NamedManifest) -> None:
        (found,) = await self._store.read_batch([(name.key, 1)])
        if isinstance(found, StoreError):
            raise found

    async def writable(self) -> bool:
        """Whether it makes sense to look at rights to write; if not, note why."""
        if not self._store.filesystem.writes:
            self._note("put", "mind", "this kind of store is only read: builds cannot store there")
        elif not await self._store.is_there():
            words = "there is no container yet; the first export makes it, so nothing was tried"
            self._note("put", "mind", words, "run it again after the first export")
        else:
            return True
        return False

    async def ask(self) -> None:
        """Find out rights without a change."""
        allowed = await self._store.allowed(self._key)
        for right, found in allowed._asdict().items():
            if found is None and not self._store.filesystem.lists_blobs:
                continue  # a registry deletes nothing for others
            if found is None:
                words = "cannot be told without a change"
                self._note(right, "mind", words, "leave out --read-only to try it")
            elif found:
                self._note(right, "good", "allowed")
            else:
                advice = f"allow it, if this user is to {_NEEDED_FOR[right]}"
                self._note(right, "bad", "access is denied", advice)

    # --- with objects -----------------------------------------------------------------------------

    async def try_all(self) -> None:
        """Write an object, and whatever else is needed for the checks."""
        self._folders = await self._store.absent_folders(self._key)
        before = self._clock()
        if not await _ended(self._attempt("put", self._put(), "objects can be written")):
            return
        with self.noting("clock"):
            await self._compare_clocks(before)
        if not any(finding.check == "get" for finding in self.findings):
            await self._attempt("get", self._read_back(), "objects can be read")
        await _ended(self._touch())
        deleted = await self._attempt("delete", self._delete(), "objects can be deleted")
        self._may_delete = deleted and not self._versions
        await _ended(self._conditions())
        await _ended(self._family())
        with self.noting("speed"):
            await _ended(self._measure())

    async def _family(self) -> None:
        """What only this kind of store does."""
        self._written.append(self._key)
        with self.noting("multipart"):
            self.findings += await self._store.try_out(self._key)

    async def _put(self) -> None:
        self._written.append(self._key)
        try:
            await self._store.put(self._key, b"tried")
        except AccessError:
            self._written.remove(self._key)
            raise

    async def _compare_clocks(self, before: float) -> None:
        """Compare the time of the object that was just written with this machine's."""
        stat = await self._store.stat(self._key)
        if stat is None or stat.modified is None:
            words = "the store has no times, so prune cannot tell old blobs from new ones"
            self._note("clock", "bad", words, "keep the cache elsewhere, or never prune it")
            return
        # Some stores have whole seconds.
        skew = max(before - stat.modified - 1, stat.modified - self._clock(), 0.0)
        words = f"the clocks of the store and of this machine differ by {skew:,.0f} seconds"
        if skew > MAX_SKEW:
            self._note("clock", "bad", f"{words}: prune refuses to run", "set the clocks")
        elif skew > _OFF:
            self._note("clock", "mind", words, "set the clocks")
        else:
            self._note("clock", "good", "the clocks of the store and of this machine agree")

    async def _read_back(self) -> None:
        if await self._store.read(self._key, 1024) != b"tried":
            raise StoreError("other bytes are read than were written")

    async def _touch(self) -> None:
        if not self._store.filesystem.touches:
            words = "times cannot be renewed here, so old blobs are sent again"
            self._note("touch", "mind", words)
            return
        await self._attempt("touch", self._renew(), "times of blobs can be renewed")

    async def _renew(self) -> None:
        stat = await self._store.stat(self._key)
        if stat is None or not await self._store.touch(stat):
            raise StoreError("what was written cannot be renewed")

    async def _delete(self) -> None:
        await self._erase(self._key)
        self._written.remove(self._key)
        try:
            stat = await self._store.stat(self._key)
        except AccessError:
            return  # who may not list may not look up what is absent
        if stat is not None:
            self._written.append(self._key)
            raise StoreError("the store says that it deleted an object, but has it still")

    async def _erase(self, key: str) -> None:
        if not await self._store.erase(key):
            self._versions.append(key)

    async def _conditions(self) -> None:
        if not (self._may_delete or self._store.conditions_are_known):
            words = "not tried, because an object would be left"
            self._note("conditions", "mind", words)
            return
        key = self._new_key()
        self._written.append(key)
        with self.noting("conditions"):
            if await self._store.keeps_conditions_at(key):
                words = "writers of one name at the same time lose nothing"
                self._note("conditions", "good", words)
                return
            words = "the store cannot compare before it writes: of two writers of a name at once, "
            advice = "let only one job at a time write a name, or give each a name of its own"
            self._note("conditions", "mind", f"{words}one is lost", advice)

    async def _measure(self) -> None:
        """A few small requests, then objects at a time; without a right to delete, only one."""
        count = _SAMPLES if self._may_delete else 1
        keys = [self._key, *(self._new_key() for _ in range(count - 1))]
        self._written += keys[1:]
        data = os.urandom(_SAMPLE)
        up = await _timed(asyncio.gather(*(self._store.put(key, data) for key in keys)))
        trips = [await _timed(self._store.stat(self._key)) for _ in range(_ROUND_TRIPS)]
        objects = [(key, _SAMPLE) for key in keys]
        down = await _timed(self._store.read_batch(objects))
        size = _SAMPLE * count
        self.speed = Speed(round_trip=median(trips), up=size / up, down=size / down)
        self.findings.append(speed_finding(self.speed))

    async def clean_up(self) -> None:
        """Delete what was written; note what cannot be deleted. Also after an interruption."""
        for key in dict.fromkeys(self._written):
            try:
                await self._erase(key)
            except StoreError as error:
                logger.debug("could not delete %s: %s", self._store.root + key, error.reason)
                if await self._may_be_there(key):
                    self.left.append(key)
        await attempted(self._store.remove_folders(self._folders))
        self._tell(self.left, "bad", "objects", _DELETE_LEFT)
        versions = [key for key in dict.fromkeys(self._versions) if key not in self.left]
        self._tell(versions, "mind", "earlier versions of deleted objects", _DELETE_VERSIONS)
        self.left += versions

    def _tell(self, keys: Sequence[str], verdict: Verdict, what: str, advice: str) -> None:
        if keys:
            paths = ", ".join(self._store.root + key for key in keys)
            logger.warning("left behind, because it could not be deleted: %s: %s", what, paths)
            self._note("left behind", verdict, f"{what}: {paths}", advice)

    async def _may_be_there(self, key: str) -> bool:
        try:
            return await self._store.stat(key) is not None
        except StoreError:
            return True


_DELETE_LEFT: Final = (
    "delete them, if need be with other credentials; a prune that may delete does so as well"
)
_DELETE_VERSIONS: Final = (
    "allow s3:ListBucketVersions and s3:DeleteObjectVersion, or add a rule with "
    "NoncurrentVersionExpiration"
)

_NEEDED_FOR: Final = {"put": "store builds", "delete": "prune"}


def speed_finding(speed: Speed) -> Finding:
    """What the speed means for builds."""
    milliseconds = f"{1000 * speed.round_trip:.3g} ms"
    rates = f"{speed.up / _SLOW:.3g} MiB/s up, {speed.down / _SLOW:.3g} MiB/s down"
    words = f"a round trip takes {milliseconds}; {rates}"
    if speed.round_trip > _FAR:
        advice = "move the cache closer to the builds: a look-up of each blob is a round trip"
        return Finding("speed", "mind", words, advice)
    if min(speed.up, speed.down) < _SLOW:
        return Finding("speed", "mind", words, "check the line: steps may be faster than the cache")
    return Finding("speed", "good", words)


async def _ended(work: Coroutine[Any, Any, T]) -> T:
    """Await the work; if this is interrupted, until it has ended by itself.

    A write that was cancelled may reach the store after its object was deleted.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=_LAST)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise


async def _timed(work: Any) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began
