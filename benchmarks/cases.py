"""The table of cases: which contender does which work, and where."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import projects
from benchmarks.contenders import (
    ALONE,
    BARE_OBSTORE,
    BARE_REQUESTS,
    BUILDKIT,
    CACHEFS,
    CCACHE,
    DVC,
    INCREMENTAL,
    INTERPRETER,
    OBSTORE,
    OBSTORE_LOOP,
    RCLONE,
    RUN,
    S3FS,
    S3FS_LOOP,
    S5CMD,
    SCCACHE,
    SHA256,
    SHELL,
    STARTING,
    TURBOREPO,
    Contender,
)
from benchmarks.line import Line
from benchmarks.workloads import amount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.projects import Project
    from benchmarks.stage import Stage
    from benchmarks.workloads import Sizes, Workload

Arguments = dict[str, Any]
Prepare = Callable[["Stage"], AbstractContextManager[Arguments]]

ENGINES: Final = (S3FS, OBSTORE)
LOOPS: Final = (S3FS_LOOP, OBSTORE_LOOP)
PROGRAMS: Final = (RCLONE, S5CMD)
TRANSFERS: Final = (*ENGINES, *LOOPS, *PROGRAMS)
BOUNDS: Final = (BARE_OBSTORE, BARE_REQUESTS)
AT_A_TIME: Final = 4
LINES: Final = (Line(20), Line(50), Line(20, 200))


@dataclass(frozen=True)
class Case:
    """One tool doing one work.

    Attributes:
        group: the table that it belongs to.
        work: what is done, as shown in tables.
        contender: what does it.
        operation: the function in the contender's module.
        prepare: a context manager around each run, which yields the operation's arguments.
        tool: the name in tables, if it is not the contender's.
        parallelism: blobs at a time.
        bytes: bytes that are moved, or 0 if throughput is not meaningful.
        point: position in a plot.
        each_round: runs in each round; more than one for short work.
        line: what is between the tool and the server; then each tool has its default parallelism.
    """

    group: str
    work: str
    contender: Contender
    operation: str
    prepare: Prepare = field(repr=False)
    tool: str = ""
    parallelism: int = AT_A_TIME
    bytes: int = 0
    point: int | None = None
    each_round: int = 1
    line: Line | None = None

    @property
    def name(self) -> str:
        """The name of the tool in tables."""
        return self.tool or self.contender.name


def all_cases(sizes: Sizes) -> list[Case]:
    """Every case, in the order of the tables."""
    return [case for group in GROUPS.values() for case in group(sizes)]


# --- where ---------------------------------------------------------------------------------------


def _to_new_bucket(workload: Workload, parallelism: int = AT_A_TIME) -> Prepare:
    @contextlib.contextmanager
    def prepare(stage: Stage) -> Iterator[Arguments]:
        folder = str(stage.blobs(workload))
        with stage.new_bucket() as bucket:
            place = stage.place(bucket)
            yield {"place": place, "folder": folder, "parallelism": parallelism}
            stored = len(stage.server.keys(bucket, "blobs/"))
            if stored != workload.blobs:
                raise RuntimeError(f"{stored} blobs were stored of {workload}")

    return prepare


def _to_filled_bucket(workload: Workload, by: Contender = OBSTORE) -> Prepare:
    @contextlib.contextmanager
    def prepare(stage: Stage) -> Iterator[Arguments]:
        place = stage.place(stage.filled(workload, by))
        folder = str(stage.blobs(workload))
        yield {"place": place, "folder": folder, "parallelism": AT_A_TIME}

    return prepare


def _to_store(count: int, of: int) -> Prepare:
    @contextlib.contextmanager
    def prepare(stage: Stage) -> Iterator[Arguments]:
        place = stage.place(stage.store(of))
        yield {"place": place, "count": count, "of": of, "parallelism": AT_A_TIME}

    return prepare


def _to_new_folder(workload: Workload) -> Prepare:
    @contextlib.contextmanager
    def prepare(stage: Stage) -> Iterator[Arguments]:
        place = stage.place(stage.filled(workload))
        with stage.new_folder() as into:
            yield {"place": place, "into": str(into), "parallelism": AT_A_TIME}
            stored = sum(path.stat().st_size for path in into.rglob("sha256:*"))
            if stored != workload.bytes:
                raise RuntimeError(f"{stored} bytes were fetched of {workload}")

    return prepare


def _between_buckets(workload: Workload) -> Prepare:
    @contextlib.contextmanager
    def prepare(stage: Stage) -> Iterator[Arguments]:
        source = stage.place(stage.filled(workload))
        with stage.new_bucket() as bucket:
            target = stage.place(bucket)
            yield {"place": source, "to": target, "parallelism": AT_A_TIME}

    return prepare


def _with(make: Callable[[Stage], Arguments]) -> Prepare:
    @contextlib.contextmanager
    def prepare(stage: Stage) -> Iterator[Arguments]:
        yield make(stage)

    return prepare


# --- what ----------------------------------------------------------------------------------------


def _uploads(sizes: Sizes) -> Iterator[Case]:
    for load in (sizes.large, sizes.small, sizes.huge):
        for who in (*TRANSFERS, BUILDKIT, *BOUNDS):
            where = _to_new_bucket(load)
            yield Case("upload", f"upload {load}", who, "upload", where, bytes=load.bytes)


def _again(sizes: Sizes) -> Iterator[Case]:
    load = sizes.small
    work = f"export {load} again, nothing changed"
    where = _to_filled_bucket(load)
    for who in ENGINES:
        yield Case("again", work, who, "again", where)
    for who in LOOPS:
        for operation, verb in (("again", "HEAD"), ("again_listed", "LIST")):
            tool = f"{who.name}, {verb}"
            yield Case("again", work, who, operation, where, tool=tool)
    # rclone compares times that it stores with its own uploads.
    yield Case("again", work, RCLONE, "again", _to_filled_bucket(load, RCLONE))
    for who in (S5CMD, BUILDKIT):
        yield Case("again", work, who, "again", where)
    for who in (*ENGINES, S3FS_LOOP, BUILDKIT):
        yield Case("again", f"touch all of {load}", who, "touch", where)
    few, store = sizes.few, sizes.stores[-2]
    for who in (*ENGINES, *LOOPS):
        where = _to_store(few, store)
        tool = f"{who.name}, HEAD" if who in LOOPS else ""
        work = f"export {few} again into a store of {store:,}"
        yield Case("again", work, who, "again_numbers", where, tool=tool)


def _fetches(sizes: Sizes) -> Iterator[Case]:
    for load in (sizes.large, sizes.small, sizes.huge):
        for who in TRANSFERS:
            where = _to_new_folder(load)
            yield Case("fetch", f"fetch {load}", who, "fetch", where, bytes=load.bytes)
    load = sizes.large
    for who in (*ENGINES, *LOOPS, RCLONE):
        where = _between_buckets(load)
        work = f"copy {load} from bucket to bucket"
        yield Case("fetch", work, who, "copy", where, bytes=load.bytes)


def _graphs(sizes: Sizes) -> Iterator[Case]:
    work = f"load {sizes.records:,} records, ready for look-ups"
    where = _with(lambda stage: {"manifest": str(stage.manifest(0))})
    for who in (CACHEFS, BUILDKIT):
        yield Case("graph", work, who, "load", where, parallelism=1)
    work = f"merge 2 x {sizes.records:,} records"
    where = _with(lambda stage: {"manifests": [str(stage.manifest(seed)) for seed in (0, 1)]})
    yield Case("graph", work, CACHEFS, "merge", where, parallelism=1)


def _care(sizes: Sizes) -> Iterator[Case]:
    store, keep = sizes.stores[-1], sizes.names // 2

    @contextlib.contextmanager
    def bucket(stage: Stage) -> Iterator[Arguments]:
        place = stage.place(stage.store(store))
        yield {"place": place, "keep": keep, "parallelism": AT_A_TIME}

    work = f"plan a prune of {store:,} blobs, {sizes.names:,} names"
    folder = _with(lambda stage: {"folder": str(stage.stored_folder()), "keep": keep})
    local = "cachefs, local directory"
    yield Case("care", work, CACHEFS, "plan_prune_of_folder", folder, tool=local)
    for who in ENGINES:
        yield Case("care", work, who, "plan_prune", bucket)
    load = sizes.large
    work = f"verify {load}, all read"
    where = _with(lambda stage: {"folder": str(stage.exported(load))})
    yield Case("care", work, CACHEFS, "verify", where, bytes=load.bytes)
    yield Case("care", work, SHA256, "sha256", where, parallelism=1, bytes=load.bytes)


def _builds(sizes: Sizes) -> Iterator[Case]:
    for operation, work in (
        ("nothing", "start Python"),
        ("importing", "import cachefs"),
        ("help_", "cachefs --help"),
        ("no_op", "cachefs run, nothing to do"),
    ):
        who = INTERPRETER if operation == "nothing" else STARTING
        where = _with(lambda stage: {"folder": str(stage.step())})
        yield Case("build", work, who, operation, where, parallelism=1, each_round=5)
    for twice, which in ((False, "first"), (True, "second")):
        where = _looking(twice)
        work = f"{which} look at a tree of {sizes.tree:,} files"
        yield Case("build", work, CACHEFS, "look", where, parallelism=1)
    for what, folder in (
        ("botocore's files", "package"),
        (f"a file of {amount(sizes.output)}", "output"),
    ):
        where = _packing(folder)
        yield Case("build", f"pack {what}", CACHEFS, "pack", where, parallelism=1)
        if folder == "package":
            yield Case("build", f"pack {what}", SHELL, "pack", where, "tar, zstd", 1)
        yield Case("build", f"unpack {what}", CACHEFS, "unpack", where, parallelism=1)
        if folder == "package":
            where = _unpacking(folder)
            yield Case("build", f"unpack {what}", SHELL, "unpack", where, "tar, zstd", 1)


def _projects(sizes: Sizes) -> Iterator[Case]:
    everywhere = (ALONE, DVC, TURBOREPO, RUN, INCREMENTAL)
    for project, tools in (
        (projects.C, (ALONE, CCACHE, SCCACHE, *everywhere[1:])),
        (projects.PYTHON, everywhere),
    ):
        about = f"{project.name}, {sizes.files} files"
        for operation, work, prepare in (
            ("cold", "nothing cached", _never_made),
            ("cached", "all cached, outputs removed", _outputs_removed),
            ("in_place", "all cached, outputs in place", _all_in_place),
            ("edited", "one file edited", _one_edited),
        ):
            for who in tools:
                if operation == "cached" and who in (ALONE, INCREMENTAL):
                    continue  # they have nothing to take, or what "cachefs run" takes
                where = prepare(project, who)
                yield Case("step", f"{about}, {work}", who, operation, where, parallelism=2)


def _never_made(project: Project, who: Contender) -> Prepare:
    return lambda stage: stage.new_project(project, who)


def _all_in_place(project: Project, who: Contender) -> Prepare:
    return lambda stage: stage.made_project(project, who)


def _outputs_removed(project: Project, who: Contender) -> Prepare:
    @contextlib.contextmanager
    def prepare(stage: Stage) -> Iterator[Arguments]:
        with stage.made_project(project, who) as arguments:
            shutil.rmtree(Path(arguments["folder"], project.output))
            yield arguments
            if not any(Path(arguments["folder"], project.output).iterdir()):
                raise RuntimeError(f"{who.name} made nothing of {project.name}")

    return prepare


def _one_edited(project: Project, who: Contender) -> Prepare:
    edits = itertools.count(1)

    @contextlib.contextmanager
    def prepare(stage: Stage) -> Iterator[Arguments]:
        with stage.made_project(project, who) as arguments:
            projects.edit(project, Path(arguments["folder"]), next(edits))
            yield arguments

    return prepare


def _looking(twice: bool) -> Prepare:
    return _with(lambda stage: {"folder": str(stage.tree()), "twice": twice})


def _packing(what: str) -> Prepare:
    @contextlib.contextmanager
    def prepare(stage: Stage) -> Iterator[Arguments]:
        with stage.new_folder() as into:
            yield {"folder": str(getattr(stage, what)()), "blob": str(into)}

    return prepare


def _unpacking(what: str) -> Prepare:
    @contextlib.contextmanager
    def prepare(stage: Stage) -> Iterator[Arguments]:
        with stage.new_folder() as into:
            yield {"blob": str(stage.packed(getattr(stage, what)())), "into": str(into)}

    return prepare


def _parallelisms(sizes: Sizes) -> Iterator[Case]:
    load = sizes.parallel
    for at_a_time in sizes.parallelisms:
        for who in (*ENGINES, *LOOPS):
            yield Case(
                "parallelism",
                f"upload {load}",
                who,
                "upload",
                _to_new_bucket(load, at_a_time),
                parallelism=at_a_time,
                bytes=load.bytes,
                point=at_a_time,
            )


def _counts(sizes: Sizes) -> Iterator[Case]:
    for load in sizes.counted:
        for who in (*ENGINES, *LOOPS):
            where = _to_new_bucket(load)
            yield Case("blobs", f"upload {load}", who, "upload", where, point=load.blobs)


def _lines(sizes: Sizes) -> Iterator[Case]:
    for line in LINES:
        for case in _over_a_line(sizes, line):
            work = f"{case.work}, {line}"
            yield replace(case, group="line", work=work, line=line, parallelism=0)


def _over_a_line(sizes: Sizes, line: Line) -> Iterator[Case]:
    small, large = sizes.small, sizes.large
    peers = (*PROGRAMS, BUILDKIT)
    for load in (large,) if line.mbits else (small, large):
        for who in (*ENGINES, *peers):
            where = _to_new_bucket(load)
            yield Case("line", f"upload {load}", who, "upload", where, bytes=load.bytes)
        for who in (*ENGINES, *PROGRAMS):
            where = _to_new_folder(load)
            yield Case("line", f"fetch {load}", who, "fetch", where, bytes=load.bytes)
    if line.mbits:
        return  # it makes no difference to works that move few bytes
    for who in (*ENGINES, *peers):
        where = _to_filled_bucket(small, RCLONE if who is RCLONE else OBSTORE)
        yield Case("line", f"export {small} again, nothing changed", who, "again", where)
    for who in (*ENGINES, BUILDKIT):
        yield Case("line", f"touch all of {small}", who, "touch", _to_filled_bucket(small))


def _stores(sizes: Sizes) -> Iterator[Case]:
    for count in (sizes.few, sizes.many):
        for store in sizes.stores:
            for who in ENGINES:
                if count <= store:
                    work = f"export {count} again"
                    where = _to_store(count, store)
                    yield Case("store", work, who, "again_numbers", where, point=store)


GROUPS: Final[dict[str, Callable[[Sizes], Iterator[Case]]]] = {
    "upload": _uploads,
    "again": _again,
    "fetch": _fetches,
    "line": _lines,
    "graph": _graphs,
    "care": _care,
    "build": _builds,
    "step": _projects,
    "parallelism": _parallelisms,
    "blobs": _counts,
    "store": _stores,
}
