"""BuildKit's own S3 exporter and manifest reader: the program in ``benchmarks/buildkit``."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.contenders import Command, Place, found


def _peer(operation: str, **arguments: Any) -> Command:
    words = [found("buildkit-peer") or "buildkit-peer", operation, "--json", "-"]
    return Command(words, first=json.dumps(arguments))


def upload(place: list[str], folder: str, parallelism: int | None, **more: str) -> Command:
    there = Place(*place)
    attributes = {
        "bucket": there.bucket,
        "region": there.region,
        "endpoint_url": there.endpoint,
        "use_path_style": "true",
        "access_key_id": there.key,
        "secret_access_key": there.secret,
        **more,
    }
    if parallelism is not None:
        attributes["upload_parallelism"] = str(parallelism)
    return _peer("export", attributes=attributes, folder=folder)


again = upload


def touch(place: list[str], folder: str, parallelism: int | None) -> Command:
    return upload(place, folder, parallelism, touch_refresh="0s")


def load(manifest: str) -> Command:
    return _peer("load", manifest=manifest)
