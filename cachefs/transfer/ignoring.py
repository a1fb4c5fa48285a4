"""The attribute ``ignore-error``: an export that fails is a warning."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from msgspec.structs import replace

from cachefs.errors import CacheError, UsageError
from cachefs.transfer.exporter import ExportReport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cachefs.location.options import Location

logger = logging.getLogger("cachefs")


class PartlyDoneError(CacheError):
    """An operation failed in part; :attr:`report` says what was done."""

    report: ExportReport


async def unless_ignored(
    work: Callable[[], Awaitable[ExportReport]], target: Location
) -> ExportReport:
    """The report of an export or copy; with ``ignore-error``, also if it failed."""
    try:
        return await work()
    except UsageError:
        raise
    except CacheError as error:
        if not target.export.ignore_error:
            raise
        logger.warning("the export to %s failed and is ignored: %s", target, error)
        done = error.report if isinstance(error, PartlyDoneError) else ExportReport(names=[])
        return replace(done, error=str(error))
