"""Plain loops over the fsspec filesystems of s3fs and obstore, as in a script.

Nothing is hashed or verified, and no manifest is written; fetched files are neither synced nor
renamed. The filesystems' own methods are called in parallel.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.contenders import Place
from benchmarks.workloads import numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    Work = Callable[[], object]


def _connected(place: list[str], library: str) -> tuple[Any, str]:
    there = Place(*place)
    fs = _s3fs(there) if library == "s3fs" else _obstore(there)
    fs.ls(there.bucket)
    return fs, f"{there.bucket}/blobs"


def _s3fs(there: Place) -> Any:
    import s3fs

    return s3fs.S3FileSystem(
        key=there.key,
        secret=there.secret,
        endpoint_url=there.endpoint,
        client_kwargs={"region_name": there.region},
        config_kwargs={"s3": {"addressing_style": "path"}},
        use_listings_cache=False,
    )


def _obstore(there: Place) -> Any:
    from obstore.fsspec import FsspecStore

    config = {
        "endpoint": there.endpoint,
        "access_key_id": there.key,
        "secret_access_key": there.secret,
        "region": there.region,
    }
    options = {"allow_http": True}
    return FsspecStore("s3", config=config, client_options=options)


def _loop(
    fs: Any,
    items: Iterable[str],
    work: Callable[[str], Coroutine[Any, Any, object]],
    parallelism: int,
) -> Work:
    from fsspec.asyn import sync

    async def loop() -> None:
        left = iter(list(items))

        async def worker() -> None:
            for item in left:
                await work(item)

        await asyncio.gather(*(worker() for _ in range(parallelism)))

    return lambda: sync(fs.loop, loop)


def _names(folder: str) -> list[str]:
    return sorted(file.name for file in Path(folder).iterdir())


def upload(place: list[str], folder: str, parallelism: int, library: str) -> Work:
    """Put each file, even if it is already stored."""
    fs, root = _connected(place, library)
    return _loop(
        fs,
        _names(folder),
        lambda name: fs._put_file(f"{folder}/{name}", f"{root}/{name}"),
        parallelism,
    )


def again(place: list[str], folder: str, parallelism: int, library: str) -> Work:
    """Look up each file with a HEAD, as BuildKit does; all are stored."""
    fs, root = _connected(place, library)
    return _loop(fs, _names(folder), lambda name: fs._info(f"{root}/{name}"), parallelism)


def again_numbers(place: list[str], count: int, of: int, parallelism: int, library: str) -> Work:
    """Look up tiny blobs with a HEAD each."""
    fs, root = _connected(place, library)
    return _loop(fs, numbered(count, of), lambda name: fs._info(f"{root}/{name}"), parallelism)


def again_listed(place: list[str], folder: str, parallelism: int, library: str) -> Work:
    """List the whole store, and compare."""
    del parallelism
    fs, root = _connected(place, library)
    names = _names(folder)
    return lambda: set(names) - {Path(path).name for path in fs.ls(root, detail=False)}


def touch(place: list[str], folder: str, parallelism: int, library: str) -> Work:
    """Copy each object onto itself."""
    fs, root = _connected(place, library)
    bucket = root.partition("/")[0]

    async def copy(name: str) -> None:
        key = f"blobs/{name}"
        await fs._call_s3(
            "copy_object",
            Bucket=bucket,
            Key=key,
            CopySource={"Bucket": bucket, "Key": key},
            MetadataDirective="REPLACE",
        )

    return _loop(fs, _names(folder), copy, parallelism)


def fetch(place: list[str], into: str, parallelism: int, library: str) -> Work:
    """Get each blob into a file."""
    fs, root = _connected(place, library)
    names = [Path(path).name for path in fs.ls(root, detail=False)]
    Path(into).mkdir()
    return _loop(
        fs, names, lambda name: fs._get_file(f"{root}/{name}", f"{into}/{name}"), parallelism
    )


def copy(place: list[str], to: list[str], parallelism: int, library: str) -> Work:
    """Read each blob into memory and write it to the other bucket."""
    fs, root = _connected(place, library)
    _, target = _connected(to, library)

    async def move(name: str) -> None:
        await fs._pipe_file(f"{target}/{name}", await fs._cat_file(f"{root}/{name}"))

    names = [Path(path).name for path in fs.ls(root, detail=False)]
    return _loop(fs, names, move, parallelism)
