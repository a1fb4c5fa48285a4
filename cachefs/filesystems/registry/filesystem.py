"""Repositories of registries, whose objects have the paths of the registry's interface.

``{host}/{repository}/blobs/sha256:{hex}`` is a blob, and
``{host}/{repository}/manifests/{tag or digest}`` is a manifest. Blobs can be written and read, but
neither listed nor deleted nor dated.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct, field
from yarl import URL

from cachefs.concurrency import closing
from cachefs.digest import Digest
from cachefs.errors import AccessError, IntegrityError, StoreError, UnreachableError
from cachefs.filesystems.base import Allowed, Filesystem, Folder, Stat
from cachefs.filesystems.chunks import joined
from cachefs.filesystems.copies import Copied
from cachefs.filesystems.findings import Finding, transport
from cachefs.filesystems.patience import PATIENCE, attempted
from cachefs.filesystems.registry.auth import PUSH, Access
from cachefs.filesystems.registry.client import ATTEMPTS, BROKEN, RegistryClient, target_of
from cachefs.location.reference import TAG
from cachefs.wire import oci

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from aiohttp import ClientResponse

ACCEPT: Final = f"{oci.MANIFEST}, {oci.INDEX}, {oci.DOCKER_MANIFEST}, {oci.DOCKER_LIST}"
_READ_SIZE: Final = 1024 * 1024
_MOST_TAGS: Final = 1_000_000
_LARGEST_PAGE: Final = 16 * 1024 * 1024


class _Tags(Struct):
    tags: list[str] | None = None


class _Typed(Struct):
    media_type: str = field(default="", name="mediaType")


class RegistryFilesystem(Filesystem):
    """One repository of a registry.

    Args:
        client: sends the requests.
        bound: how many objects are written at a time, None for the default.
        patience: how long calls may go without progress, in seconds.
    """

    lists_blobs = False
    copies_small = True

    def __init__(
        self, client: RegistryClient, bound: int | None = None, patience: float = PATIENCE
    ) -> None:
        super().__init__(None, bound, patience)
        self._client = client

    async def list(self, prefix: str) -> list[Stat]:
        """List the tags, as manifests of unknown size."""
        repository, _, start = prefix.rpartition("/manifests/")
        if not repository:
            raise StoreError("a registry lists tags, but no blobs")
        tags = await self._tags(repository)
        return [
            Stat(f"{repository}/manifests/{tag}", 0, None) for tag in tags if tag.startswith(start)
        ]

    async def folder(self, path: str) -> Folder:  # noqa: ARG002 - registries have none
        """Nothing: a repository has no folders."""
        return Folder([], [])

    async def read(self, path: str, size: int | None = None) -> AsyncIterator[bytes]:
        """Read an object in chunks, and go on where it stopped if the connection is lost."""
        at = 0
        failures = 0
        whole = False
        while not whole:
            before = at
            try:
                async with closing(self._read_from(path, at)) as chunks:
                    async for chunk in chunks:
                        at += len(chunk)
                        yield chunk
                        if size is not None and at > size:
                            return  # it is longer than it should be, which is noticed
                whole = True
            except StoreError:
                raise  # such as for a registry that was not reached again
            except BROKEN:
                failures = failures + 1 if at == before else 1
                if failures >= ATTEMPTS:
                    raise

    async def _read_from(self, path: str, start: int) -> AsyncIterator[bytes]:
        """Read the rest of an object from its byte ``start`` on."""
        headers = {"Accept": ACCEPT} | ({"Range": f"bytes={start}-"} if start else {})
        async with self._client.request(
            "GET", self._url(path), headers=headers, expected={200, 206}
        ) as response:
            skipped = start if response.status == HTTPStatus.OK else 0
            async for chunk in response.content.iter_chunked(_READ_SIZE):
                self.patience.progressed()
                rest = chunk[skipped:]
                skipped -= len(chunk) - len(rest)
                if rest:
                    yield rest

    async def read_range(self, path: str, start: int, end: int) -> bytes:
        """Read the bytes from ``start`` on, and close the connection at ``end``."""
        found = bytearray()
        async with closing(self._read_from(path, start)) as chunks:
            async for chunk in chunks:
                found += chunk
                if len(found) >= end - start:
                    break
        return bytes(found[: end - start])

    async def read_checked(self, path: str, limit: int) -> bytes:
        """Read an object, and compare a manifest with the digest that the registry states."""
        headers = {"Accept": ACCEPT}
        async with self._client.request(
            "GET", self._url(path), headers=headers, expected={200}
        ) as response:
            data = await joined(response.content.iter_chunked(_READ_SIZE), limit)
            stated = response.headers.get("Docker-Content-Digest", "")
        if len(data) <= limit and stated.startswith("sha256:") and stated != str(Digest.of(data)):
            raise IntegrityError("its bytes do not have the digest that the registry states")
        return data

    async def put(self, path: str, chunks: AsyncIterator[bytes], size: int | None) -> None:
        """Write a blob under its digest, or a manifest; both are seen whole or not at all."""
        if _is_manifest(path):
            await self._put_whole(path, [chunk async for chunk in chunks])
        else:
            await super().put(path, chunks, size)

    async def delete(self, path: str, unless_changed: Stat | None = None) -> bool:  # noqa: ARG002 - registries cannot compare
        """Delete a manifest. One that does not exist is not an error."""
        if not _is_manifest(path):
            raise StoreError("a registry deletes blobs itself, once no manifest needs them")
        async with self._client.request(
            "DELETE", self._url(path), access=PUSH, expected={202, 204, 404}
        ):
            return True

    async def account(self) -> str | None:
        """The registry: it mounts a blob of one repository in another."""
        return str(self._client.base)

    async def copy_checked(self, source: str, path: str, size: int, digest: Digest) -> Copied:  # noqa: ARG002 - it takes no time
        """Have the blob of another repository mounted in this one.

        Registries compare a blob with its digest when they receive it, and keep it by its digest.
        """
        repository, _, _ = path.rpartition("/blobs/")
        origin = source.rpartition("/blobs/")[0].removeprefix(f"{self._client.host}/")
        begin = self._url(f"{repository}/blobs/uploads/") % {"mount": str(digest), "from": origin}
        access = Access(PUSH.actions, origin)
        try:
            async with self._client.request(
                "POST", begin, access=access, expected={201, 202}
            ) as response:
                stated = response.headers.get("Docker-Content-Digest", str(digest))
                if response.status == HTTPStatus.CREATED:
                    return Copied.CHECKED if stated == digest else Copied.OTHER_BYTES
                target = target_of(response)
        except UnreachableError:
            raise
        except (StoreError, FileNotFoundError):
            return Copied.NEVER  # it may be uploaded nevertheless
        await attempted(self._abort(target))
        return Copied.NEVER

    async def copy_trusted(self, source: str, path: str, size: int, digest: Digest) -> Copied:
        """The same, since a registry always compares."""
        return await self.copy_checked(source, path, size, digest)

    async def allowed(self, path: str) -> Allowed:
        """Whether an upload can be begun; it is ended at once, so that nothing is left."""
        try:
            async with self._upload(path) as target:
                await self._abort(target)
        except AccessError:
            return Allowed(put=False)
        return Allowed(put=True)

    async def examine(self, blobs: str, manifests: str) -> Sequence[Finding]:  # noqa: ARG002 - it is the same for all keys
        """What holds for every registry, and whether others can read what is sent."""
        return [
            transport(str(self._client.base)),
            Finding(
                "delete",
                "mind",
                "a registry lists and deletes no blobs for others, so prune does not work",
                "set the registry's own rules of retention",
            ),
            Finding(
                "conditions",
                "mind",
                "a registry cannot compare before it writes: of two writers of a tag at once, one "
                "is lost",
                "give each job a tag of its own, and merge them",
            ),
        ]

    async def unfinished(self, prefix: str) -> Sequence[Stat]:  # noqa: ARG002 - they are not listed
        """Nothing: a registry removes unfinished uploads itself."""
        return ()

    async def _stat(self, path: str) -> Stat | None:
        try:
            async with self._client.request(
                "HEAD", self._url(path), headers={"Accept": ACCEPT}, expected={200}
            ) as response:
                size = response.content_length
                version = response.headers.get("Docker-Content-Digest", "")
            if size is None:
                size = await self._size(path)
        except FileNotFoundError:
            return None
        return Stat(path, size, None, version)

    async def _size(self, path: str) -> int:
        """The size of an object, for registries that do not state it without sending it."""
        headers = {"Accept": ACCEPT, "Range": "bytes=0-0"}
        async with self._client.request(
            "GET", self._url(path), headers=headers, expected={200, 206, 416}
        ) as response:
            total = response.headers.get("Content-Range", "").rpartition("/")[2]
            if response.status != HTTPStatus.OK:
                return int(total) if total.isascii() and total.isdigit() else 0
            if response.content_length is not None:
                return response.content_length
            size = 0
            async for chunk in response.content.iter_chunked(_READ_SIZE):
                self.patience.progressed()
                size += len(chunk)
            return size

    async def _put_whole(self, path: str, chunks: Sequence[bytes]) -> None:
        data = b"".join(chunks)
        if _is_manifest(path):
            kind = {"Content-Type": msgspec.json.decode(data, type=_Typed).media_type}
            url = self._url(path)
            async with self._client.request(
                "PUT", url, access=PUSH, headers=kind, body=data, expected={201}
            ):
                return
        async with self._upload(path) as target:
            await self._send_blob(target, data, len(data))

    async def _put_parts(self, path: str, chunks: AsyncIterator[bytes], size: int) -> None:
        async with self._upload(path) as target:
            await self._send_blob(target, chunks, size)

    async def _send_blob(self, target: URL, data: bytes | AsyncIterator[bytes], size: int) -> None:
        headers = {"Content-Type": "application/octet-stream"}
        if size:
            headers["Content-Length"] = str(size)
        async with self._client.request(
            "PUT", target, access=PUSH, headers=headers, body=data, expected={201}
        ):
            return

    async def _abort(self, target: URL) -> None:
        async with self._client.request(
            "DELETE", target, access=PUSH, expected={202, 204, 404, 405}
        ):
            return

    async def _tags(self, repository: str) -> Sequence[str]:
        """All tags of the repository, none if it does not exist."""
        url = self._url(f"{repository}/tags/list?n=1000")
        tags: set[str] = set()
        while len(tags) <= _MOST_TAGS:
            try:
                async with self._client.request("GET", url, expected={200}) as response:
                    raw = await joined(response.content.iter_chunked(_READ_SIZE), _LARGEST_PAGE)
                    following = _next(response)
            except FileNotFoundError:
                return []
            self.patience.progressed()
            # What cannot be a tag could be a path to elsewhere.
            found = {tag for tag in _decoded(raw) if TAG.fullmatch(tag)}
            if following is None or not found - tags:
                return sorted(tags | found)
            tags |= found
            url = following
        raise StoreError(f"the registry lists more than {_MOST_TAGS} tags")

    @asynccontextmanager
    async def _upload(self, path: str) -> AsyncIterator[URL]:
        """Begin an upload, yield the URL that takes the bytes of this blob, and abort on errors."""
        repository, _, digest = path.rpartition("/blobs/")
        begin = self._url(f"{repository}/blobs/uploads/")
        async with self._client.request("POST", begin, access=PUSH, expected={202}) as response:
            target = target_of(response)
        mark = "&" if target.raw_query_string else "?"
        target = URL(f"{target}{mark}digest={digest.replace(':', '%3A')}", encoded=True)
        try:
            yield target
        except BaseException:
            await attempted(self._abort(target))
            raise

    def _url(self, path: str) -> URL:
        return URL(f"{self._client.base}{path.removeprefix(self._client.host + '/')}")


def _is_manifest(path: str) -> bool:
    return path.rpartition("/")[0].endswith("/manifests")


def _next(response: ClientResponse) -> URL | None:
    """The next page of a listing, None if there is none."""
    try:
        following = response.links.get("next")
        return URL(str(following["url"])) if following and "url" in following else None
    except ValueError:
        raise StoreError("the registry names no valid next page of tags") from None


def _decoded(raw: bytes) -> list[str]:
    try:
        return msgspec.json.decode(raw, type=_Tags).tags or []
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise StoreError("the registry sent no valid list of tags") from None
