"""The keys of functions: what of a function counts, and which functions are refused."""

from __future__ import annotations

import functools
import logging
import types
from pathlib import Path
from typing import Any

import pytest

import cachefs
from cachefs import Build, UsageError
from cachefs.keying.functions import function_key

logger = logging.getLogger("here")


def made(text: str, name: str = "f", file: Path | None = None, **variables: Any) -> Any:
    """A function from source, whose text is found only if there is a file with it."""
    module = types.ModuleType("made")
    vars(module).update(variables)
    if file is not None:
        file.write_text(text)
    exec(compile(text, str(file or "<none>"), "exec"), vars(module))  # noqa: S102 - as a module is
    return vars(module)[name]


def key(text: str, **variables: Any) -> tuple[bytes, ...]:
    return function_key(made(text, **variables))


SAME = (
    "def f(d):\n    def inner(): return [x for x in (1, 'a', frozenset({'p', 'q'}))]\n    inner()\n"
)


@pytest.mark.parametrize("has_text", [True, False])
def test_line_numbers_and_files_do_not_count(tmp_path: Path, has_text: bool) -> None:
    files = [tmp_path / "one.py", tmp_path / "other.py"] if has_text else [None, None]
    one = made(SAME, file=files[0])
    other = made("\n\nx = 1\n" + SAME, file=files[1])
    changed = made(SAME.replace("'a'", "'b'"), file=tmp_path / "third.py" if has_text else None)
    assert function_key(one) == function_key(other)
    assert function_key(one) != function_key(changed)


def test_code_counts_to_its_constants_types() -> None:
    codes = ["1", "1.0", "True", "'1'", "b'1'", "-0.0", "0.0", "(1,)", "d", "d.a", "d.b", "d()"]
    assert len({key(f"def f(d): return {code}") for code in codes}) == len(codes)


def test_lambdas_on_one_line_differ() -> None:
    one, other = (lambda d: d / "a"), (lambda d: d / "b")
    assert function_key(one) != function_key(other)


def test_decorators_with_their_arguments_are_no_part_of_the_code(tmp_path: Path) -> None:
    decorator = {"plain": lambda *_arguments: lambda function: function}
    body = "def f(d):\n    return d\n"
    one = made("@plain(1)\n" + body, file=tmp_path / "1.py", **decorator)
    other = made("@plain(\n    2,\n)\n" + body, file=tmp_path / "2.py", **decorator)
    assert function_key(one) == function_key(other)


@pytest.mark.parametrize("value", [1, "a", (1, 2), None, 2.5, frozenset({1}), {"a": [1]}, b"x"])
def test_a_constant_that_the_code_reads_counts(value: Any) -> None:
    text = "def f(d):\n    def inner(): return LIMIT\n    return inner"
    assert key(text, LIMIT=value) == key(text, LIMIT=value)
    assert key(text, LIMIT=value) != key(text, LIMIT="other")
    assert key(text, LIMIT=value, OTHER=1) == key(text, LIMIT=value, OTHER=2)


def test_modules_functions_classes_and_loggers_do_not_count() -> None:
    text = "def f(d): return A.b, d, len(d), logger"
    for code in (logging, print, Path, function_key, Any, list[int], int | str):
        assert key(text, A=code, logger=logger) == key(text, A=Path, logger=logger)


@pytest.mark.parametrize("value", [object(), Path("/usr"), [object()]])
def test_another_global_is_refused_unless_there_is_a_version(value: Any) -> None:
    function = made("def f(d): return G", G=value)
    with pytest.raises(UsageError, match=r"the global 'G', which made\.f reads,") as caught:
        function_key(function)
    assert "version=" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert function_key(function, "1") != function_key(function, "2")


def test_defaults_count() -> None:
    assert key("def f(d, x=N): pass", N=1) != key("def f(d, x=N): pass", N=2)
    assert key("def f(d, *, x=N): pass", N=1) != key("def f(d, *, x=N): pass", N=2)
    with pytest.raises(UsageError, match=r"a default value of made\.f"):
        key("def f(d, x=N): pass", N=object())


def test_arguments_of_a_partial_count() -> None:
    partial = functools.partial
    function = made("def f(d, x, y=1): pass")
    keys = [
        function_key(one)
        for one in (
            partial(function, x=1),
            partial(function, x=2),
            partial(function, x=1, y=2),
            partial(partial(function, x=1), y=3),
        )
    ]
    assert len(set(keys)) == 4
    assert keys[0] == function_key(partial(function, x=1))
    with pytest.raises(UsageError, match=r"an argument of the partial of made\.f"):
        function_key(partial(function, x=object()))


class Holder:
    def method(self, directory: Path) -> None: ...

    @staticmethod
    def static(directory: Path) -> None: ...


def _wrapping(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(directory: Path) -> None:
        function(directory)

    return wrapper


@_wrapping
def _wrapped(directory: Path) -> None:
    (directory / "out").touch()


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (Holder().method, "is a method, whose object is not part of the key"),
        (print, "its code has no key"),
        (Holder, "its code has no key"),
        (_wrapped, r"variables of the function around it \(function\), as a decorated function"),
    ],
)
def test_what_has_no_key_is_refused_in_one_line(function: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        function_key(function)
    assert "\n" not in str(caught.value)


def test_a_decorated_function_needs_a_version() -> None:
    assert function_key(_wrapped, "1") != function_key(_wrapped, "2")
    assert function_key(Holder.static)


def test_cached_functions_that_the_code_calls_count() -> None:
    text = "def f(d): return g(d)"
    changed = "def g(x): return x + 1"
    keys = [
        key(text, g=cachefs.cached(made(code, "g")))
        for code in ("def g(x): return x", changed, changed)
    ]
    assert keys[0] != keys[1] == keys[2]


def test_functions_that_call_each_other_have_keys() -> None:
    text = "def f(x): return g(x)\ndef g(x): return f(x)\n"
    module = types.ModuleType("made")
    exec(text, vars(module))  # noqa: S102 - as a module is
    module.f, module.g = cachefs.cached(module.f), cachefs.cached(module.g)  # type: ignore[attr-defined]
    assert module.f.key(1) == module.f.key(1) != module.g.key(1)


# --- steps ----------------------------------------------------------------------------------------


def _train(directory: Path, *, rate: float, layers: tuple[int, ...] = (1,)) -> None:
    (directory / "out").write_text(f"{rate} {layers}")


def test_params_are_arguments_and_part_of_the_key(tmp_path: Path) -> None:
    said, outcomes = [], []
    for params in ({"rate": 0.1}, {"rate": 0.1}, {"rate": 0.2}, {"rate": 0.1, "layers": (2,)}):
        with Build(cache_to=str(tmp_path / "cache")) as build:
            step = build.step(_train, params=params, outputs=["out"])
            said.append(step.files()["out"].read_text())
        outcomes.append(build.report.steps[0].outcome)
    assert said == ["0.1 (1,)", "0.1 (1,)", "0.2 (1,)", "0.1 (2,)"]
    assert outcomes == ["ran", "hit", "ran", "ran"]


def test_a_partial_is_a_step(tmp_path: Path) -> None:
    outcomes = []
    for rate in (0.1, 0.1, 0.2):
        with Build(cache_to=str(tmp_path / "cache")) as build:
            build.step(functools.partial(_train, rate=rate), outputs=["out"])
        outcomes.append(build.report.steps[0].outcome)
    assert outcomes == ["ran", "hit", "ran"]
    assert build.report.steps[0].name == "tests.keying.test_functions._train"


async def _async(directory: Path) -> None: ...


@pytest.mark.parametrize(
    ("function", "params", "match"),
    [
        (_train, {}, r"_train\(directory: .*\) -> 'None' cannot be called .*missing .*'rate'"),
        (_train, {"rate": 1, "x": 2}, "unexpected keyword argument 'x'"),
        (_train, {"rate": object()}, "params of .*'rate'.* is of type object"),
        (_async, {}, "is an async function or a generator"),
        (lambda: None, {}, "too many positional arguments"),
        (["true"], {"a": 1}, "params are for functions"),
    ],
)
def test_a_wrong_call_is_told_in_one_line_when_it_is_declared(
    function: Any, params: Any, match: str
) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        Build().step(function, params=params, outputs=["out"])
    assert "\n" not in str(caught.value)
