"""What can go wrong with a step on an executor.

Apart from the executors, so that builds without one need not load them.
"""

from __future__ import annotations

from cachefs.errors import CacheError


class WorkerLostError(Exception):
    """The worker that ran a step was lost."""


class ExecutorLostError(Exception):
    """The executor takes no more work."""


class NotSentError(Exception):
    """The step cannot be pickled."""


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
