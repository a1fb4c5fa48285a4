"""Objects of a store, read and damaged past the code that is tested; and caches to damage."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import NamedTuple

import cachefs
from cachefs.filesystems.local import LOCK
from tests.servers.s3 import S3Server


class Folder(MutableMapping[str, bytes]):
    """The files below a folder, by relative path."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __getitem__(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def __setitem__(self, key: str, data: bytes) -> None:
        (self.root / key).parent.mkdir(parents=True, exist_ok=True)
        (self.root / key).write_bytes(data)

    def __delitem__(self, key: str) -> None:
        (self.root / key).unlink()

    def __iter__(self) -> Iterator[str]:
        return (
            str(path.relative_to(self.root))
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and path.name not in {"index.json.lock", LOCK}
        )

    def __len__(self) -> int:
        return len(list(iter(self)))


class Bucket(MutableMapping[str, bytes]):
    """The objects of a bucket, by key."""

    def __init__(self, server: S3Server, bucket: str) -> None:
        self.server = server
        self.bucket = bucket

    def __getitem__(self, key: str) -> bytes:
        found = self.server.client.get_object(Bucket=self.bucket, Key=key)
        data: bytes = found["Body"].read()
        return data

    def __setitem__(self, key: str, data: bytes) -> None:
        self.server.client.put_object(Bucket=self.bucket, Key=key, Body=data)

    def __delitem__(self, key: str) -> None:
        self.server.client.delete_object(Bucket=self.bucket, Key=key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.server.keys(self.bucket))

    def __len__(self) -> int:
        return len(self.server.keys(self.bucket))


class Place(NamedTuple):
    """A cache, and its objects past it."""

    location: str
    objects: MutableMapping[str, bytes]
    cache: cachefs.Cache

    def blob_key(self, digest: str) -> str:
        return self.cache.layout.blob_key(cachefs.Digest(digest))

    def manifest_key(self, name: str) -> str:
        """The object without which the name cannot be read."""
        return next(each.key for each in self.cache.names() if each.name == name)

    def needs(self) -> dict[str, dict[str, int]]:
        """For each name, the blobs and their sizes."""
        cache = self.cache
        return {
            each.name: {str(d): size for d, size in cache.load(each.name).blobs().items()}
            for each in cache.names()
        }


MakePlace = Callable[[str], Place]


def delete(objects: MutableMapping[str, bytes], key: str) -> None:
    del objects[key]


def truncate(objects: MutableMapping[str, bytes], key: str) -> None:
    objects[key] = objects[key][:-1]


def lengthen(objects: MutableMapping[str, bytes], key: str) -> None:
    objects[key] += b"\0"


def flip(objects: MutableMapping[str, bytes], key: str) -> None:
    data = bytearray(objects[key])
    data[len(data) // 2] ^= 0x10
    objects[key] = bytes(data)


DAMAGES = (delete, truncate, lengthen, flip)


def damage_some(place: Place, seed: int) -> dict[str, str]:
    """Damage about half of the blobs; what was done, by digest."""
    chance = random.Random(seed)  # noqa: S311 - the same damage every time
    done = {}
    for digest in sorted({digest for blobs in place.needs().values() for digest in blobs}):
        if chance.random() < 0.5:
            damage = chance.choice(DAMAGES)
            damage(place.objects, place.blob_key(digest))
            done[digest] = damage.__name__
    return done
