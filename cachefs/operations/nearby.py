"""What to say where there is no cache: which cache is near, so that a mistyped location is noticed.

Only called once no names were found, so a location that is right costs no request more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from cachefs.concurrency import LOOKUP_PARALLELISM, for_each
from cachefs.errors import IntegrityError, ManifestError, NoCacheError, StoreError
from cachefs.filesystems.base import Folder
from cachefs.operations.beside import folder_of, manifests_beside
from cachefs.store import Store
from cachefs.transfer.lookup import PAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cachefs.layout.base import Layout

    Kind = Literal["keyed", "oci"]

SHOWN: Final = 3
"""Maximum number of caches that an error names."""

SEARCHED: Final = 24
"""Maximum number of folders below the location that are listed."""

DEPTH: Final = 3
"""Levels of folders below the location that are searched."""

_INDEXES: Final = ("oci-layout", "index.json")


async def require_cache(layout: Layout) -> None:
    """Raise NoCacheError if there is no cache, not even one without names.

    A cache without names has an index, blobs or, on a disk, its folders; or it is a whole bucket
    with nothing in it, because a bucket is made for a purpose. If its manifests are under another
    prefix, NoCacheError is raised too. Raises StoreError.
    """
    try:
        if await layout.names():
            return
    except (ManifestError, IntegrityError):
        return  # it is there, and unreadable
    if not layout.store.filesystem.lists_blobs:
        raise NoCacheError(
            await _in_repository(layout), side=layout.store.side, key=layout.store.root
        )
    place = folder_of(layout.manifest_prefix)
    here = await layout.store.folder(place)
    if not place and _is_empty_bucket(layout.store, here):
        return
    hint = await (_without_names(layout) if _is_there(layout, here) else _hint(layout, here))
    if hint is not None:
        at = shown(layout.store, layout.store.root + place)
        raise NoCacheError(hint, side=layout.store.side, key=at)


async def _in_repository(layout: Layout) -> str:
    tags = [stat.path for stat in await layout.store.list(layout.manifest_prefix)]
    if not tags:
        return "the repository has no tags, or does not exist: check ref"
    shown = ", ".join(tag.removeprefix(layout.manifest_prefix) for tag in tags[:SHOWN])
    return f"the repository has images, but no caches (its tags: {shown}): check ref"


def _is_empty_bucket(store: Store, here: Folder) -> bool:
    is_whole = store.root.count("/") == 1 and not store.filesystem.has_directories
    return is_whole and not here.folders and not here.objects


def shown(store: Store, path: str) -> str:
    """A path as a location that users can type, if the protocol is all that it lacks."""
    if path.startswith("/") or "://" in path:
        return path
    protocol = store.filesystem.fs.protocol
    return f"{protocol if isinstance(protocol, str) else protocol[0]}://{path}"


def _is_there(layout: Layout, here: Folder) -> bool:
    """Whether there is a cache of this layout."""
    if not layout.manifest_prefix:
        return _kind(here, "") == "oci" or layout.blob_prefix in here.folders
    blobs = layout.blob_prefix.rpartition("/")[0] + "/"
    there = layout.manifest_prefix in here.folders or blobs in here.folders
    return there and _kind(here, folder_of(layout.manifest_prefix)) != "oci"


async def _without_names(layout: Layout) -> str | None:
    """A hint if manifests are under another prefix; None if the cache has no names."""
    if not layout.manifest_prefix:
        return None
    page = await layout.store.page(layout.blob_prefix, "", PAGE)
    digests = {digest for stat in page.objects if (digest := layout.digest_of(stat.path))}
    found = await manifests_beside([layout], digests)
    if not found:
        return None
    prefixes = " or ".join(key.removeprefix(layout.prefix) for key in found)
    return (
        f"there are no manifests below {layout.manifest_prefix!r}, but below {found[0]!r} are some "
        f"that need these blobs: give manifests_prefix={prefixes}"
    )


async def _hint(layout: Layout, here: Folder) -> str:
    store = layout.store
    place = folder_of(layout.manifest_prefix)
    kind = _kind(here, place)
    if kind == "oci":
        path = store.root + place
        how = f"give type=local,src={path}" if path.startswith("/") else "copy it to a disk first"
        return f"this is an OCI image layout, not a keyed cache: {how}"
    if kind == "keyed":
        return "this is a keyed cache, not an OCI image layout: give its path or URL alone"
    if (slash := await _slash(layout, here)) is not None:
        return slash
    everywhere = Store(store.filesystem, "", store.side)
    path = store.root + place
    if (slash := await _root_slash(everywhere, layout)) is not None:
        return slash
    if found := await _below(everywhere, [store.root + folder for folder in here.folders]):
        return f"there is no cache here, but below: {_listed(store, found)}"
    there = "there is no cache here" if here.folders or here.objects else "there is nothing here"
    if (above := await _above(everywhere, path)) is not None:
        return f"{there}; {above}"
    return f"{there}: check the location and its prefixes"


async def _slash(layout: Layout, here: Folder) -> str | None:
    """Whether the prefix has no slash at its end, and the cache's has, or the other way round."""
    place = folder_of(layout.manifest_prefix)
    rest = layout.manifest_prefix.removeprefix(place)
    for folder in here.folders:
        prefix = folder.removesuffix("/")
        if rest and layout.manifest_prefix.startswith(prefix):
            inside = f"{folder}{layout.manifest_prefix.removeprefix(prefix)}"
            if inside in (await _look(layout.store, folder)).folders:
                return (
                    f"prefix={prefix} has no slash at its end, and that of a cache which is here "
                    f"has one: give prefix={folder}"
                )
    if place:
        joined = f"{place.removesuffix('/')}{rest}"
        if joined in (await _look(layout.store, folder_of(place))).folders:
            prefix = place.removesuffix("/")
            return (
                f"prefix={place} has a slash at its end, and that of a cache which is here has "
                f"none: give prefix={prefix}"
            )
    return None


async def _root_slash(everywhere: Store, layout: Layout) -> str | None:
    """Whether the location is a prefix of a cache, which has no slash at its end."""
    above = _parent(layout.store.root)
    if above is None or layout.store.filesystem.has_directories or not layout.manifest_prefix:
        return None
    joined = layout.store.root.removesuffix("/") + folder_of(f"{layout.manifest_prefix}x")
    content = await _look(everywhere, folder_of(joined.removesuffix("/")))
    if joined not in content.folders:
        return None
    prefix = layout.store.root.partition("/")[2].removesuffix("/") + layout.prefix
    return (
        f"a cache whose prefix has no slash at its end is here: give attributes with "
        f"prefix={prefix}, as in type=s3,bucket=...,prefix={prefix}"
    )


async def _below(store: Store, folders: Sequence[str]) -> list[str]:
    """The caches below: folders are listed level by level, a bounded number of them."""
    found: list[str] = []
    left = SEARCHED
    for _ in range(DEPTH):
        level, left = folders[:left], left - len(folders[:left])
        inside: list[str] = []

        async def look(folder: str, inside: list[str] = inside) -> None:
            content = await _look(store, folder)
            if _kind(content, folder) is not None:
                found.append(folder)
            else:
                inside.extend(content.folders)

        await for_each(level, look, LOOKUP_PARALLELISM)
        folders = sorted(inside)
        if found or not folders or not left:
            break
    return sorted(found)


async def _above(store: Store, path: str) -> str | None:
    """Whether the location is inside a cache, or next to one whose name is similar."""
    above = _parent(path)
    if above is None:
        return None
    content = await _look(store, above)
    if _kind(content, above) is not None:
        return f"the cache is one folder up, at {shown(store, above)}"
    names = {folder[len(above) : -1]: folder for folder in content.folders}
    import difflib  # noqa: PLC0415 - slow to load, and needed only for errors

    for near in difflib.get_close_matches(path[len(above) : -1], names, SHOWN):
        if _kind(await _look(store, names[near]), names[near]) is not None:
            return f"did you mean {shown(store, names[near])}?"
    grand = _parent(above)
    if grand is not None and _kind(await _look(store, grand), grand) is not None:
        return f"the cache is two folders up, at {shown(store, grand)}"
    return None


def _parent(path: str) -> str | None:
    above = folder_of(path)
    return None if above in {"", "/"} or above.endswith("//") else above


def _kind(content: Folder, path: str) -> Kind | None:
    """What kind of cache is in a folder, by what is directly in it."""
    if any(f"{path}{name}" in {stat.path for stat in content.objects} for name in _INDEXES):
        return "oci"
    return "keyed" if f"{path}manifests/" in content.folders else None


async def _look(store: Store, key: str) -> Folder:
    """What is directly in a folder; nothing if it cannot be listed, because it is only a guess."""
    try:
        return await store.folder(key)
    except StoreError:
        return Folder([], [])


def _listed(store: Store, paths: Sequence[str]) -> str:
    text = ", ".join(shown(store, path) for path in paths[:SHOWN])
    return f"{text} and {len(paths) - SHOWN} more" if len(paths) > SHOWN else text
