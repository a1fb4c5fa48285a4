"""rclone, with ``rclone copy``. It compares MD5 sums and does not sync files to disk."""

from __future__ import annotations

from benchmarks.contenders import Command, Place, found


def _remotes(**places: list[str]) -> dict[str, str]:
    """Environment variables that define a remote for each bucket, without configuration file."""
    settings = {"RCLONE_CONFIG": "/dev/null"}
    for name, place in places.items():
        there = Place(*place)
        remote = {
            "TYPE": "s3",
            "PROVIDER": "Other",
            "ENDPOINT": there.endpoint,
            "ACCESS_KEY_ID": there.key,
            "SECRET_ACCESS_KEY": there.secret,
            "REGION": there.region,
            "NO_CHECK_BUCKET": "true",
        }
        settings |= {f"RCLONE_CONFIG_{name.upper()}_{key}": value for key, value in remote.items()}
    return settings


def _copy(source: str, target: str, parallelism: int | None, *more: str) -> list[str]:
    words = [found("rclone") or "rclone", "copy", source, target, *more]
    if parallelism is not None:
        at_a_time = str(parallelism)
        words += ["--transfers", at_a_time, "--s3-upload-concurrency", at_a_time]
    return words


def upload(place: list[str], folder: str, parallelism: int | None) -> Command:
    words = _copy(folder, f"there:{Place(*place).bucket}/blobs", parallelism)
    return Command(words, _remotes(there=place))


again = upload


def fetch(place: list[str], into: str, parallelism: int | None) -> Command:
    words = _copy(f"there:{Place(*place).bucket}/blobs", into, parallelism)
    return Command(words, _remotes(there=place))


def copy(place: list[str], to: list[str], parallelism: int | None) -> Command:
    """Use two remotes, so that bytes pass through this process as with the other tools."""
    source, target = f"here:{Place(*place).bucket}/blobs", f"there:{Place(*to).bucket}/blobs"
    return Command(_copy(source, target, parallelism), _remotes(here=place, there=to))
