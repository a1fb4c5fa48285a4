"""The credentials for S3, as they are at each request: both engines ask here."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import botocore.session
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import NoCredentialsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from botocore.credentials import ReadOnlyCredentials


class CredentialSource:
    """Credentials that were given, or those that botocore finds for a profile.

    botocore renews those that expire. Those in a file are found anew when one of the AWS config
    files has changed, because other programs renew them there. Threads may share a source.

    Args:
        profile: the profile, None for that of the environment.
        region: where to ask for the credentials of a role, if the profile does not say.
        keys: access key, its secret and a session token, if they were given.
    """

    def __init__(
        self,
        profile: str | None = None,
        region: str | None = None,
        keys: tuple[str, str, str | None] | None = None,
    ) -> None:
        self._profile = profile
        self._region = region
        self._given = None if keys is None else Credentials(*keys)
        self._found: Any = self._given
        self._files: Sequence[object] | None = None
        self._lock = Lock()

    @property
    def fixed(self) -> bool:
        """Whether they never change: they were given, or are in the environment."""
        return self._given is not None or getattr(self._found, "method", None) == "env"

    def at_hand(self) -> ReadOnlyCredentials | None:
        """The credentials, or None if :meth:`current` has to find or renew them first."""
        found = self._found
        if found is None or self._changed():
            return None
        if isinstance(found, RefreshableCredentials) and found.refresh_needed():
            return None
        return found.get_frozen_credentials()

    def current(self) -> ReadOnlyCredentials:
        """The credentials as they are now. This may send requests, and run programs.

        Raises NoCredentialsError and other errors of botocore.
        """
        with self._lock:
            if self._files is None or self._changed():
                self._find()
            found = self._found
        if found is None:
            raise NoCredentialsError
        return found.get_frozen_credentials()

    def _find(self) -> None:
        """Let botocore look everywhere again. A file that is being rewritten changes nothing."""
        session = botocore.session.Session(profile=self._profile)
        if self._region and not session.get_config_variable("region"):
            session.set_config_variable("region", self._region)
        names = ("config_file", "credentials_file")
        self._paths = [Path(session.get_config_variable(name)).expanduser() for name in names]
        before = [_state(path) for path in self._paths]
        try:
            found = session.get_credentials()
        except Exception:
            if self._found is None:
                raise
            found = None
        self._found = found or self._found
        self._files = before

    def _changed(self) -> bool:
        if self.fixed:
            return False
        return self._files is None or self._files != [_state(path) for path in self._paths]


def _state(path: Path) -> object:
    """What differs once a file has been written again or replaced; None if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
