"""The parts in ``deploy/``: their formats by the linters of each, and the shell in them is run.

The linters are large and not installed with the other test libraries: ``nox -s deploy`` has them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import cachefs
from tests import signing
from tests.servers.s3 import S3Server

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
ACTION = yaml.safe_load((DEPLOY / "github" / "action.yml").read_text())


def program(name: str) -> str:
    """A linter, from beside Python or from the machine; without it the test is skipped."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed: nox -s deploy")
    return found


def passes(*words: str | Path) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_shell() -> None:
    passes(program("shellcheck"), *sorted(DEPLOY.rglob("*.sh")))


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.github-actions", "github/action.yml"),
        ("vendor.gitlab-ci", "gitlab/cachefs.gitlab-ci.yml"),
    ],
)
def test_ci_files(schema: str, file: str) -> None:
    transformed = ("--data-transform", "gitlab-ci") if "gitlab" in schema else ()
    passes(program("check-jsonschema"), "--builtin-schema", schema, *transformed, DEPLOY / file)


def test_container_file() -> None:
    passes(program("hadolint"), "--failure-threshold", "warning", DEPLOY / "container/Dockerfile")


def test_kubernetes() -> None:
    passes(program("kubernetes-validate"), "--strict", DEPLOY / "kubernetes" / "cachefs.yaml")


def test_systemd(tmp_path: Path) -> None:
    """With a command that exists in place of /usr/local/bin/cachefs, which systemd looks for."""
    units = [tmp_path / unit.name for unit in sorted((DEPLOY / "systemd").iterdir())]
    for unit in units:
        text = (DEPLOY / "systemd" / unit.name).read_text()
        unit.write_text(text.replace("/usr/local/bin/cachefs", "/bin/true"))
    passes(program("systemd-analyze"), "verify", *units)


def test_a_damaged_cache_is_verified() -> None:
    """A prune and a du of one fail; systemd would then leave out the commands after them."""
    service = (DEPLOY / "systemd" / "cachefs-care@.service").read_text()
    lines = re.findall(r"^ExecStart=(-?)\S+ (\S+)", service, re.MULTILINE)
    assert lines == [("-", "prune"), ("-", "du"), ("", "verify")]


def commands() -> dict[str, list[str]]:
    """The command lines of ``cachefs`` in the timers and jobs, without what the shell fills in."""
    service = (DEPLOY / "systemd" / "cachefs-care@.service").read_text()
    lines = re.findall(r"^ExecStart=-?/usr/local/bin/cachefs (.*)$", service, re.MULTILINE)
    found = {line: line.replace("%%", "%").replace(" $PRUNE", "").split() for line in lines}
    assert len(found) == 3
    for document in yaml.safe_load_all((DEPLOY / "kubernetes" / "cachefs.yaml").read_text()):
        if document["kind"] == "CronJob":
            (container,) = document["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
            found[document["metadata"]["name"]] = container["args"]
    assert len(found) == 5
    return found


@pytest.mark.parametrize("words", commands().values(), ids=commands().keys())
def test_scheduled_commands(words: list[str], recorded: Path, tmp_path: Path) -> None:
    shutil.copytree(recorded / "s3" / "max", tmp_path / "cache")
    words = [word.replace("/var/lib/cachefs", str(tmp_path)) for word in words]
    done = call(["cachefs", *words], tmp_path, CACHEFS_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.prom"))) == words.count("--metrics")


def test_the_image_has_what_the_build_needs() -> None:
    """What the Dockerfile copies is what hatchling needs, and .dockerignore lets it through."""
    text = (DEPLOY / "container" / "Dockerfile").read_text()
    copied = {
        word
        for line in re.findall(r"^COPY ([^-].*) \S+$", text, re.MULTILINE)
        for word in line.split()
    }
    let = (DEPLOY / "container" / "Dockerfile.dockerignore").read_text().splitlines()
    assert copied == {line[1:] for line in let if line.startswith("!")}
    assert copied == {"pyproject.toml", "README.md", "LICENSE", "cachefs"}
    extras = re.search(r"^ARG EXTRAS=(\S+)$", text, re.MULTILINE)
    assert extras
    assert not set(extras[1].split(",")) - set(declared_extras())


def declared_extras() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return list(project["optional-dependencies"])


def call(words: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program with ``cachefs`` on its path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        words,
        cwd=folder,
        env=os.environ | {"PATH": path} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


class Runner:
    """A CI runner: what an action may rely on, and the outputs that it sets.

    cachefs counts as installed, because tests reach no network.
    """

    def __init__(self, folder: Path, server: S3Server) -> None:
        self.folder = folder
        self._variables = {
            "AWS_ENDPOINT_URL": server.endpoint_url,
            "AWS_ACCESS_KEY_ID": server.access_key_id,
            "AWS_SECRET_ACCESS_KEY": server.secret_access_key,
            "AWS_REGION": server.region,
        }
        installed = folder / "temporary" / "cachefs"
        (installed / "bin").mkdir(parents=True)
        (installed / "bin" / "cachefs").symlink_to(Path(sys.executable).with_name("cachefs"))
        (installed / "done").touch()
        (folder / "work").mkdir()

    def action(self, *, ref_name: str = "main", **inputs: str) -> dict[str, str]:
        """Run the action's step. Raises CalledProcessError."""
        values = {name: about.get("default", "") for name, about in ACTION["inputs"].items()}
        values |= {name.replace("_", "-"): value for name, value in inputs.items()}
        assert values.keys() == ACTION["inputs"].keys()
        (step,) = ACTION["runs"]["steps"]
        output = self.folder / "output"
        output.write_text("")
        done = call(
            [step["shell"], "-c", step["run"]],
            self.folder / "work",
            **{name: evaluated(text, values, ref_name) for name, text in step["env"].items()},
            **self._variables,
            GITHUB_ACTION_PATH=str(DEPLOY / "github"),
            GITHUB_OUTPUT=str(output),
            GITHUB_PATH=str(self.folder / "path"),
            RUNNER_TEMP=str(self.folder / "temporary"),
        )
        self.printed = done.stdout + done.stderr
        done.check_returncode()
        return outputs(output.read_text())

    def gitlab(self, script: str, **variables: str) -> str:
        """Run the script of a part of the template, and print a variable after it."""
        text = (DEPLOY / "gitlab" / "cachefs.gitlab-ci.yml").read_text()
        parts = yaml.safe_load(text)
        known = {"CACHEFS_DIRECTORY": parts[".cachefs"]["variables"]["CACHEFS_DIRECTORY"]}
        lines = [*parts[script]["script"], 'echo "$CACHE_FROM|$CACHE_TO"']
        words = "\n".join(lines).replace("/opt/cachefs.git", str(ROOT))
        done = call(
            ["sh", "-ec", words], self.folder / "work", **self._variables, **known, **variables
        )
        self.printed = done.stdout + done.stderr
        done.check_returncode()
        return done.stdout.splitlines()[-1]


def evaluated(text: str, inputs: dict[str, str], ref_name: str) -> str:
    """The value of an expression of the action."""
    expression = re.fullmatch(r"\$\{\{ inputs\.([a-z-]+)( \|\| github\.ref_name)? \}\}", text)
    assert expression, text
    return inputs[expression[1]] or (ref_name if expression[2] else "")


def outputs(text: str) -> dict[str, str]:
    """What a step set: ``name=value`` lines, and ``name<<END`` with lines up to END."""
    found: dict[str, str] = {}
    lines = iter(text.splitlines())
    for line in lines:
        if match := re.fullmatch(r"([a-z-]+)<<(\S+)", line):
            value = []
            while (one := next(lines)) != match[2]:
                value.append(one)
            found[match[1]] = "\n".join(value)
        else:
            name, _, found[name] = line.partition("=")
    return found


def build(option: str, folder: Path, seed: int = 1) -> None:
    """Stand in for the builder: write a cache as its option ``cache-to`` says."""
    fields = dict(part.split("=", 1) for part in option.split(","))
    assert (fields["type"], fields["mode"]) == ("local", "max")
    cache = cachefs.open(f"type=local,dest={folder / fields['dest']}")
    signing.export(cache, fields["tag"], seed=seed)


@pytest.fixture
def bucket(moto_s3: S3Server) -> str:
    return moto_s3.bucket()


@pytest.fixture
def runner(tmp_path: Path, moto_s3: S3Server) -> Callable[[str], Runner]:
    """Makes the runner of a job; each has a directory of its own."""
    return lambda name: Runner(tmp_path / name, moto_s3)


def names(location: str) -> list[str]:
    return sorted(one.name for one in cachefs.open(location).names())


def test_the_next_build_reads_what_the_first_has_saved(
    runner: Callable[[str], Runner], bucket: str
) -> None:
    first, cache = runner("first"), f"s3://{bucket}/app/"
    options = first.action(mode="restore", cache=cache, ref_name="feature/x")
    assert options == {
        "cache-from": "",
        "cache-to": "type=local,dest=buildkit-cache-new,tag=feature/x,mode=max",
    }
    build(options["cache-to"], first.folder / "work")
    first.action(mode="save", cache=cache, ref_name="feature/x")
    second = runner("second")
    options = second.action(mode="restore", cache=cache, names="main feature/x")
    assert options == {
        "cache-from": "type=local,src=buildkit-cache,tag=feature/x",
        "cache-to": "type=local,dest=buildkit-cache-new,tag=main,mode=max",
    }
    assert names(f"type=local,src={second.folder}/work/buildkit-cache") == ["feature/x"]
    assert str(second.folder / "temporary/cachefs/path") in (second.folder / "path").read_text()


def test_jobs_of_a_matrix_share_a_name(
    runner: Callable[[str], Runner], bucket: str, moto_s3: S3Server
) -> None:
    cache = f"s3://{bucket}/app/"
    for seed, name in enumerate(("amd64", "arm64")):
        job = runner(name)
        build("type=local,dest=buildkit-cache-new,tag=main,mode=max", job.folder / "work", seed)
        job.action(mode="save", cache=cache, names="main", merge="true")
    location = moto_s3.attributes(bucket, prefix="app/")
    both = cachefs.open(location).load("main")
    assert len(both.records) > len(job_records(job))


def job_records(job: Runner) -> list[object]:
    written = cachefs.open(f"type=local,src={job.folder}/work/buildkit-cache-new")
    return list(written.load("main").records)


def test_only_what_a_trusted_key_has_signed_is_restored(
    runner: Callable[[str], Runner], bucket: str, tmp_path: Path
) -> None:
    cache, (key, other) = f"s3://{bucket}/app/", signing.keys(tmp_path, "key", "other")
    job = runner("job")
    for name, signing_key in (("signed", key.read_text()), ("unsigned", "")):
        build(f"type=local,dest=buildkit-cache-new,tag={name},mode=max", job.folder / "work")
        job.action(mode="save", cache=cache, names=name, signing_key=signing_key)
    assert not list((job.folder / "temporary").rglob("signing-key"))
    assert "PRIVATE" not in job.printed
    for trusted, expected in ((key, "type=local,src=buildkit-cache,tag=signed"), (other, "")):
        reader = runner(f"trusts-{trusted.name}")
        options = reader.action(
            mode="restore",
            cache=cache,
            names="unsigned signed",
            trusted_keys=signing.public(trusted),
        )
        assert options["cache-from"] == expected
        assert "unsigned" in reader.printed


@pytest.mark.parametrize(
    "name", ["$(touch${IFS}made)", "`touch${IFS}made`", ";touch${IFS}made", "*"]
)
def test_a_branch_cannot_run_commands_by_its_name(
    runner: Callable[[str], Runner], bucket: str, name: str
) -> None:
    job = runner("job")
    options = job.action(mode="restore", cache=f"s3://{bucket}/app/", ref_name=name)
    assert options["cache-to"] == f"type=local,dest=buildkit-cache-new,tag={name},mode=max"
    assert list((job.folder / "work").iterdir()) == []


def test_what_the_builder_would_misread_is_an_error(
    runner: Callable[[str], Runner], bucket: str
) -> None:
    job = runner("job")
    for inputs in ({"names": "main,mode=min"}, {"directory": 'a"b'}, {"mode": "other"}):
        with pytest.raises(subprocess.CalledProcessError) as caught:
            job.action(**{"mode": "restore", "cache": f"s3://{bucket}/app/", **inputs})
        assert caught.value.returncode == 2


def test_gitlab(runner: Callable[[str], Runner], bucket: str) -> None:
    variables = {"CACHEFS_CACHE": f"s3://{bucket}/app/", "CACHEFS_NAMES": "feature main"}
    job = runner("job")
    line = job.gitlab(".cachefs-restore", **variables)
    assert line == "|--cache-to type=local,dest=buildkit-cache-new,tag=feature,mode=max"
    build(line.removeprefix("|--cache-to "), job.folder / "work")
    job.gitlab(".cachefs-save", **variables)
    line = runner("next").gitlab(".cachefs-restore", **variables)
    assert line.startswith("--cache-from type=local,src=buildkit-cache,tag=feature|")
