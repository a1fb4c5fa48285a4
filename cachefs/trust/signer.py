"""Signing: in this process, or by ``ssh-keygen``, which knows agents, tokens and passphrases."""

from __future__ import annotations

import shutil
import subprocess
from functools import cached_property
from pathlib import Path
from typing import Final

from cachefs.errors import UsageError, reason
from cachefs.trust import sshsig
from cachefs.trust.keys import EncryptedKeyError, PrivateKey, PublicKey, load_private
from cachefs.trust.sshsig import NAMESPACE
from cachefs.trust.trusted import load_trusted

_LARGEST: Final = 64 * 1024


class Signer:
    """A key to sign with. It is read when it is used first.

    Args:
        path: a private key, or the public part (``.pub``) of one that an SSH agent holds.

    Every method raises UsageError if the key cannot be used.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __repr__(self) -> str:
        return f"<Signer {self._path}>"

    @property
    def public(self) -> PublicKey:
        """The public part of the key."""
        key = self._key
        return key.public if isinstance(key, PrivateKey) else key

    def sign(self, message: bytes) -> str:
        """An armored SSH signature of the message. May ask for a passphrase on the terminal."""
        key = self._key
        if isinstance(key, PrivateKey):
            return key.sign(message)
        text = self._by_program(message)
        try:
            signature = sshsig.decode(text)
        except ValueError as error:
            raise self._unusable(f"ssh-keygen wrote something else: {error}") from error
        if not key.verifies(signature, message):
            raise self._unusable(
                "ssh-keygen signed with another key than the public part beside it"
            )
        return text

    @cached_property
    def _key(self) -> PrivateKey | PublicKey:
        """The private key, or the public part of one that only ``ssh-keygen`` can use."""
        if self._path.endswith(".pub"):
            return self._public_part(self._path)
        try:
            with Path(self._path).open("rb") as file:
                data = file.read(_LARGEST)
        except OSError as error:
            raise self._unusable(reason(error)) from error
        try:
            return load_private(data)
        except EncryptedKeyError as error:
            beside = f"{self._path}.pub"
            if not Path(beside).is_file():
                raise self._unusable(
                    f"it is protected by a passphrase, and {beside} is missing, which ssh-keygen "
                    "needs to ask for it"
                ) from error
            return self._public_part(beside)
        except ValueError as error:
            raise self._unusable(str(error)) from error

    def _public_part(self, path: str) -> PublicKey:
        return load_trusted([path]).keys[0]

    def _by_program(self, message: bytes) -> str:
        program = shutil.which("ssh-keygen")
        if program is None:
            raise self._unusable(
                "a key with a passphrase or in an agent is used by ssh-keygen, which is not "
                "installed"
            )
        # The passphrase is asked for on the terminal, which is not standard input.
        done = subprocess.run(  # noqa: S603 - the program that was found, and a path of the user
            [program, "-Y", "sign", "-q", "-n", NAMESPACE, "-f", self._path],
            input=message,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise self._unusable(f"ssh-keygen failed: {said[-1] if said else 'it says nothing'}")
        return done.stdout.decode(errors="replace")

    def _unusable(self, why: str) -> UsageError:
        return UsageError(
            f"the signing key cannot be used: {why}", operation="sign", key=self._path
        )
