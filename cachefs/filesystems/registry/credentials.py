"""The credentials for a registry that a log-in with Docker or with Podman left on this machine."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from cachefs.errors import AccessError
from cachefs.filesystems.threads import DaemonThreads

if TYPE_CHECKING:
    from collections.abc import Iterator

HELPER_SECONDS: Final = 30.0
"""How long a credential helper may take."""

_threads: Final = DaemonThreads(2, "cachefs-credentials")
"""A helper may hang, which must not keep the program from ending."""


class Credentials(NamedTuple):
    """A user and a password, or the refresh token that a log-in left; nothing of it is shown."""

    user: str = ""
    password: str = ""
    refresh_token: str = ""

    def __repr__(self) -> str:
        return "Credentials(***)"


async def credentials_for(host: str, repository: str) -> Credentials | None:
    """What log-ins and credential helpers have for a repository, None if there is nothing.

    Raises AccessError if they cannot be read, or a helper does not end.
    """
    work = asyncio.get_running_loop().run_in_executor(_threads, _found, host, repository)
    try:
        async with asyncio.timeout(HELPER_SECONDS):
            return await work
    except TimeoutError:
        raise AccessError(
            f"the credential helper for {host} did not answer for {HELPER_SECONDS:g} seconds: "
            "check credsStore and credHelpers in Docker's config.json"
        ) from None


def _found(host: str, repository: str) -> Credentials | None:
    for path in _files():
        found = _in_file(path, host, repository)
        if found is not None:
            return found
    return None


def _files() -> Iterator[Path]:
    """The files that log-ins write: the one that Podman's variable names, Docker's, Podman's."""
    from docker.utils.config import find_config_file  # noqa: PLC0415 - takes long to load

    if named := os.environ.get("REGISTRY_AUTH_FILE"):
        yield Path(named)
    if docker := find_config_file():
        yield Path(docker)
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime, "containers", "auth.json")


def _in_file(path: Path, host: str, repository: str) -> Credentials | None:
    from docker.auth import AuthConfig  # noqa: PLC0415 - takes long to load

    try:
        config = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        found = config and AuthConfig.load_config(None, config)
        entry = found and (
            _of_path(found.auths, host, repository) or found.resolve_authconfig(host)
        )
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 - what the library raises for odd files is no promise
        raise AccessError(
            f"the credentials for {host} cannot be read from {path} ({type(error).__name__}): "
            "check that file and its credential helper"
        ) from None  # its text may quote them
    if not entry:
        return None
    lower = {key.lower(): value or "" for key, value in entry.items()}
    return Credentials(
        lower.get("username", ""), lower.get("password", ""), lower.get("identitytoken", "")
    )


def _of_path(auths: dict[str, Any], host: str, repository: str) -> Any:
    """What Podman has for the repository or a folder above it, the nearest first."""
    path = f"{host}/{repository}"
    while path != host:
        if path in auths:
            return auths[path]
        path = path.rpartition("/")[0]
    return None
