"""Fixtures for every test: an empty environment, real servers, the recorded caches."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from moto.server import ThreadedMotoServer

import cachefs
from tests.damaging import Bucket, Folder, MakePlace, Place
from tests.servers.proxy import RecordingProxy, recording_proxy
from tests.servers.registry import PROGRAM, running_registry
from tests.servers.s3 import S3Server
from tests.servers.seaweed import shared_seaweed

# No deadline: machines that run tests are slow and uneven. HYPOTHESIS_PROFILE selects another.
hypothesis.settings.register_profile("quick", deadline=None, max_examples=50)
hypothesis.settings.register_profile("slow", deadline=None, max_examples=500)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

_CONFIGURING = (
    "AWS_",
    "AZURE_",
    "BUILDKIT_",
    "CACHEFS_",
    "FSSPEC_",
    "GOOGLE_",
    "SOURCE_DATE_EPOCH",
)
_ENDING = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM)
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-outputs",
        action="store_true",
        help="write into the pages what their snippets print (tests/project/test_snippets.py)",
    )


@pytest.fixture(autouse=True, scope="session")
def _nobodys_session() -> Iterator[None]:
    """Keep the developer's credentials and proxies from session fixtures too."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(_CONFIGURING) or name.lower() in _PROXIES:
                patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all workers of the run have in common."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(autouse=True, scope="session")
def _compiled_once(shared: Path) -> Iterator[None]:
    """Let the programs that tests start keep their byte code: they start twice as fast.

    Where an environment forbids to write it, each of them would compile all modules again.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        patch.setenv("PYTHONPYCACHEPREFIX", str(shared / "compiled"))
        yield


@pytest.fixture(autouse=True, scope="session")
def _usual_signals() -> Iterator[None]:
    """Let programs that tests start receive signals, also if this run ignores some.

    A shell ignores SIGINT and SIGQUIT for what it runs in the background, and nohup SIGHUP.
    Programs inherit that, and a shell cannot even trap what was ignored when it began.
    """
    usual = {signal.SIGINT: signal.default_int_handler}
    ignored = [one for one in _ENDING if signal.getsignal(one) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, usual.get(number, signal.SIG_DFL))
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(autouse=True)
def nobodys_home(
    _nobodys_session: None,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """An empty home directory for each test, also for the AWS configuration."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(home / ".aws" / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home / ".aws" / "credentials"))
    return home


@pytest.fixture(scope="session")
def recorded() -> Path:
    """The caches that a real builder wrote. Read or copy them, but never write to them."""
    return Path(__file__).parent / "data" / "buildkit-caches"


@pytest.fixture(scope="session")
def moto_s3(_nobodys_session: None) -> Iterator[S3Server]:
    """A fast S3 server inside this process. It accepts any credentials."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield S3Server(f"http://127.0.0.1:{port}", "moto-key-id", "moto-secret")
    server.stop()


@pytest.fixture(scope="session")
def seaweed_s3(_nobodys_session: None, shared: Path) -> Iterator[S3Server]:
    """A real S3 server that checks signatures, one for all workers of the run."""
    folder = shared / "seaweed"
    folder.mkdir(exist_ok=True)
    with shared_seaweed(folder) as server:
        yield server


@pytest.fixture(scope="session")
def registry(_nobodys_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The host and port of a real registry, one for each worker of the run."""
    if PROGRAM is None:
        pytest.skip("docker-registry is not installed")
    with running_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture
def recording() -> Iterator[Callable[[S3Server], RecordingProxy]]:
    """Puts a recording, fault injecting proxy before a server: ``proxy = recording(moto_s3)``."""
    with contextlib.ExitStack() as stack:
        yield lambda server: stack.enter_context(recording_proxy(server))


@pytest.fixture
def make_place(request: pytest.FixtureRequest, recorded: Path, tmp_path: Path) -> MakePlace:
    """A copy of the recorded "max" cache, to damage: ``place = make_place("oci")``."""

    def make(kind: str) -> Place:
        if kind == "s3":
            server: S3Server = request.getfixturevalue("moto_s3")
            bucket = server.bucket()
            location = server.attributes(bucket)
            place = Place(location, Bucket(server, bucket), cachefs.open(location))
        else:
            folder = tmp_path / f"place-{len(list(tmp_path.iterdir()))}"
            location = f"type=local,dest={folder}" if kind == "oci" else str(folder)
            place = Place(location, Folder(folder), cachefs.open(location))
        cachefs.copy(recorded / "s3" / "max", place.cache)
        return place

    return make
