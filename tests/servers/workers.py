"""Workers for tests of executors: processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch


def process_pool(workers: int = 2) -> ProcessPoolExecutor:
    """A pool whose processes are spawned: filesystems do not survive a fork."""
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))


@contextmanager
def dask_client(folder: Path) -> Iterator[Any]:
    """A client of a Dask cluster of two processes, which has its files in this folder.

    What Dask leaves in the environment, for its workers, is removed in the end: programs that later
    tests start would get it too.
    """
    with patch.dict(os.environ), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distributed: Any = import_module("distributed")  # it has no types
        with (
            distributed.LocalCluster(
                n_workers=2,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=None,
                local_directory=str(folder),
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
