"""A real registry, Debian's ``docker-registry``, and a token server that guards one."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.servers.answering import Answer, answering

PROGRAM = shutil.which("docker-registry")

_START_SECONDS = 60.0


@contextlib.contextmanager
def running_registry(folder: Path, auth: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Run a registry whose data is in the folder. Yields its host and port."""
    assert PROGRAM is not None
    config = {
        "version": "0.1",
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": "127.0.0.1:0", "secret": "no secret"},
        **({"auth": {"token": auth}} if auth else {}),
    }
    (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    log = folder / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [PROGRAM, "serve", str(folder / "config.yml")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={},
        ) as process,
    ):
        try:
            yield f"127.0.0.1:{_port(log, process)}"
        finally:
            process.kill()


def _port(log: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"listening on 127\.0\.0\.1:(\d+)", log.read_text()):
            return found[1]
        time.sleep(0.01)
    raise RuntimeError(f"the registry did not start:\n{log.read_text()[-2000:]}")


@dataclass
class TokenServer:
    """Grants tokens for the registry that trusts it.

    Attributes:
        users: passwords of users, who may do all; others may only pull if ``anonymous``.
        refresh_tokens: tokens that a log-in may have left, which may do all.
        granted: the scopes and the users of the tokens that were granted.
        seconds: how long a token is valid.
    """

    users: dict[str, str] = field(default_factory=lambda: {"me": "my-password"})
    refresh_tokens: set[str] = field(default_factory=lambda: {"a-refresh-token"})
    anonymous: bool = True
    granted: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""
    seconds: int = 300

    def __post_init__(self) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokens")])
        now = dt.datetime.now(dt.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(1)
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .sign(self._key, hashes.SHA256())
        )

    def config(self, folder: Path) -> dict[str, str]:
        """What the registry is told of it."""
        bundle = folder / "tokens.pem"
        bundle.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        return {
            "realm": f"{self.url}/token",
            "service": "registry",
            "issuer": "tokens",
            "rootcertbundle": str(bundle),
        }

    def answer(self, headers: Message) -> Answer:
        """Answer a request for a token."""
        asked = {
            name: " ".join(values)
            for name, values in parse_qs(urlsplit(headers["x-asked"]).query).items()
        }
        asked |= {name: values[0] for name, values in parse_qs(headers.get("x-body", "")).items()}
        user = self._user(headers.get("Authorization", ""), asked.get("refresh_token"))
        if user is None:
            return Answer(401, b"{}")
        self.granted.append((asked["scope"], user))
        access = []
        for scope in asked["scope"].split():
            kind, name, actions = scope.split(":")
            allowed = actions.split(",") if user else ["pull"] if self.anonymous else []
            access.append({"type": kind, "name": name, "actions": allowed})
        granted = {"token": self._signed(user, access), "expires_in": self.seconds}
        return Answer(200, json.dumps(granted).encode())

    def _user(self, authorization: str, refresh_token: str | None) -> str | None:
        if refresh_token is not None:
            return "refreshed" if refresh_token in self.refresh_tokens else None
        if not authorization:
            return ""
        user, _, password = base64.b64decode(authorization.split()[1]).decode().partition(":")
        return user if self.users.get(user) == password else None

    def _signed(self, user: str, access: list[dict[str, Any]]) -> str:
        der = base64.b64encode(self.certificate.public_bytes(Encoding.DER)).decode()
        now = int(time.time())
        claims = {
            "iss": "tokens",
            "sub": user,
            "aud": "registry",
            "exp": now + self.seconds,
            "nbf": now - 10,
            "iat": now,
            "jti": secrets.token_hex(8),
            "access": access,
        }
        header = {"typ": "JWT", "alg": "RS256", "x5c": [der]}
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
        signature = self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{text}.{_encoded(signature)}"


@contextlib.contextmanager
def guarded_registry(folder: Path) -> Iterator[tuple[str, TokenServer]]:
    """Run a registry that wants tokens. Yields its host and port, and what grants them."""
    tokens = TokenServer()
    with answering(tokens.answer) as server:
        tokens.url = server.endpoint_url
        with running_registry(folder, tokens.config(folder)) as host:
            yield host, tokens


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
