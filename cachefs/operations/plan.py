"""What all plans have in common: data to inspect, and one way to execute them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from fsspec.callbacks import DEFAULT_CALLBACK
from msgspec import Struct

from cachefs.concurrency import run
from cachefs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fsspec.callbacks import Callback

R = TypeVar("R")


class Plan(Struct, Generic[R], frozen=True, kw_only=True, dict=True):
    """What an operation is going to do, as plain data. Nothing has changed yet.

    A plan remembers the caches that it was made from. They are not part of its data: they are lost
    in JSON, a pickle or a copy, and such a plan can be read but not executed.
    """

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        raise NotImplementedError

    def execute(self, *, callback: Callback = DEFAULT_CALLBACK) -> R:
        """Do what the plan says, and report what was done. Blocks until it is done.

        Args:
            callback: an fsspec callback that receives the number of bytes transferred.

        Raises UsageError for a plan without its caches, and the errors documented by the method
        that made the plan.
        """
        result: R = run(self.work(self, callback))
        return result

    @property
    def work(self) -> Callable[[Any, Callback], Coroutine[Any, Any, R]]:
        """What :meth:`execute` runs. Raises UsageError for a plan without its caches."""
        work: Callable[[Any, Callback], Coroutine[Any, Any, R]] | None = self.__dict__.get("_work")
        if work is None:
            raise UsageError("this plan was copied or decoded and has lost its caches: plan again")
        return work

    def remembering(self, work: Callable[[Any, Callback], Coroutine[Any, Any, R]]) -> Self:
        """The plan; :meth:`execute` passes it to this coroutine function, with a callback."""
        # msgspec encodes, compares and copies fields only, so that the plan stays plain data.
        self.__dict__["_work"] = work
        return self
