"""What identifies a Python function: its name, its code, and the values that its code uses.

Code is the text of the function's definition, without decorators; without text, or for a lambda,
whose text is that of whole lines, it is the compiled code. Neither contains line numbers or names
of files.
"""

from __future__ import annotations

import ast
import builtins
import dis
import functools
import inspect
import logging
import textwrap
import types
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final

from cachefs.errors import UsageError
from cachefs.keying.values import NoKeyError, canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_REMEMBERED: Final = 1000
"""How many functions' code is kept in memory."""

_CODE: Final = (types.ModuleType, type, types.GenericAlias, types.UnionType, logging.Logger)

_MUTABLE: Final = (list, dict, set, bytearray)

_ADVICE: Final = "pass it as an argument, or give version= and change it when that changes"


class Keyed(ABC):
    """A callable around a function, such as a cached function, that says what identifies it.

    Attributes:
        function: the function.
        version: its version.
    """

    function: Callable[..., object]
    version: str

    @abstractmethod
    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Call the function."""


def unwrapped(function: Callable[..., object]) -> Callable[..., object]:
    """The function that a partial calls in the end."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def is_deferred(function: Callable[..., object]) -> bool:
    """Whether calling it runs nothing yet: an async function or a generator."""
    return any(
        test(function)
        for test in (
            inspect.iscoroutinefunction,
            inspect.isgeneratorfunction,
            inspect.isasyncgenfunction,
        )
    )


def label(function: Callable[..., object]) -> str:
    """The function's module and qualified name."""
    inner = unwrapped(function)
    name = getattr(inner, "__qualname__", None) or type(inner).__qualname__
    return f"{getattr(inner, '__module__', '')}.{name}"


def function_key(function: Callable[..., object], version: str = "") -> tuple[bytes, ...]:
    """What identifies a function: its name and code, the version, and values that it uses.

    These are its defaults, the arguments of a ``functools.partial``, and the global variables that
    the code reads, if they are of types that have keys (:func:`cachefs.keying.values.encoded`).
    Modules, classes, loggers and other functions do not count; cached functions do, with all cached
    functions that those call.

    Args:
        function: a function or lambda, or a partial of one.
        version: with one, what has no key does not count, nor do global lists, dicts and sets,
            which functions often fill.

    Raises NoKeyError for other callables, and, without a version, for closures and for values that
    have no key.
    """
    own, waiting = _own_key(function, version)
    others: dict[int, tuple[bytes, ...]] = {id(unwrapped(function)): ()}
    while waiting:
        other = waiting.pop()
        inner = unwrapped(other.function)
        if id(inner) not in others:
            others[id(inner)], more = _own_key(other.function, other.version)
            waiting += more
    return (*own, *(part for key in sorted(others.values()) for part in key))


def _own_key(
    function: Callable[..., object], version: str
) -> tuple[tuple[bytes, ...], list[Keyed]]:
    """What identifies a function apart from the cached functions that it calls, and these."""
    arguments: list[bytes] = []
    while isinstance(function, functools.partial):
        where = f"an argument of the partial of {label(function)}"
        arguments.append(canonical((function.args, function.keywords), where, files=False))
        function = function.func
    if isinstance(function, Keyed):
        return (b"cached", *arguments), [function]
    plain, name = _plain(function, version), label(function)
    values, called = _values(plain, name, tolerant=bool(version))
    code = _code(plain.__code__)
    return (b"function", name.encode(), code, version.encode(), *values, *arguments), called


def _plain(function: object, version: str) -> types.FunctionType:
    if inspect.ismethod(function):
        raise NoKeyError(
            f"{label(function)} is a method, whose object is not part of the key: use a function"
        )
    if not inspect.isfunction(function):
        raise NoKeyError(
            f"{function!r} is neither a command nor a plain Python function: its code has no key"
        )
    if function.__closure__ and not version:
        names = ", ".join(function.__code__.co_freevars)
        raise NoKeyError(
            f"{label(function)} depends on variables of the function around it ({names}), as a "
            f"decorated function does: {_ADVICE}"
        )
    return function


def check_function(function: Callable[..., object], version: str) -> None:
    """Raise UsageError for a function that cannot be cached, before it is called."""
    inner = unwrapped(function)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise UsageError(f"{label(inner)} is a generator, which can be read once: return a list")
    if isinstance(inner, staticmethod | classmethod):
        raise UsageError(f"put @cached below @{type(inner).__name__}")
    if isinstance(inner, Keyed):
        raise UsageError(f"{label(inner)} is cached already")
    _plain(inner, version)


def check_call(function: Callable[..., object], *args: object, **keywords: object) -> None:
    """Raise UsageError unless the function can be called so."""
    try:
        inspect.signature(function).bind(*args, **keywords)
    except TypeError as error:
        taken = f"{label(function)}{inspect.signature(function)}"
        raise UsageError(f"{taken} cannot be called as the step's function: {error}") from error
    except ValueError:  # it is not written in Python and has no signature
        return


# --- code -----------------------------------------------------------------------------------------


@functools.lru_cache(_REMEMBERED)
def _code(code: types.CodeType) -> bytes:
    text = _text(code)
    return canonical(_compiled(code), "code") if text is None else text.encode()


def _text(code: types.CodeType) -> str | None:
    """The text of a definition without its decorators; None if there is none."""
    try:
        text = textwrap.dedent(inspect.getsource(code))
        definition = ast.parse(text).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return None
    if not isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    lines = text.splitlines(keepends=True)
    return "".join(lines[definition.lineno - 1 : definition.end_lineno])


def _compiled(code: types.CodeType) -> tuple[Any, ...]:
    constants = tuple(
        _compiled(one) if isinstance(one, types.CodeType) else one for one in code.co_consts
    )
    return (
        code.co_name,
        code.co_code,
        constants,
        *(code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars),
        *(code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags),
        code.co_exceptiontable,
    )


# --- values ---------------------------------------------------------------------------------------


def _values(
    function: types.FunctionType, name: str, *, tolerant: bool
) -> tuple[list[bytes], list[Keyed]]:
    """The defaults and the global variables that have keys, and the cached functions among them.

    Args:
        function: the function.
        name: its name, for messages.
        tolerant: whether values that may change or have no key do not count.
    """
    values: list[bytes] = []
    called: list[Keyed] = []
    for where, value in _used(function, name):
        if tolerant and isinstance(value, _MUTABLE):
            continue
        try:
            if isinstance(value, Keyed):
                called.append(value)
            elif isinstance(value, functools.partial):
                key, more = _own_key(value, "")
                called += more
                values += (where.encode(), *key)
            else:
                values += (where.encode(), canonical(value, where, files=False))
        except NoKeyError as error:
            if not tolerant:
                raise NoKeyError(f"{error}; or {_ADVICE.partition(', or ')[2]}") from error
    return values, called


def _used(function: types.FunctionType, name: str) -> Iterator[tuple[str, object]]:
    if function.__defaults__ or function.__kwdefaults__:
        defaults = (function.__defaults__ or (), function.__kwdefaults__ or {})
        yield f"a default value of {name}", defaults
    for variable in _globals_read(function.__code__):
        value = function.__globals__.get(variable, function)
        if not _is_code(value):
            yield f"the global {variable!r}, which {name} reads,", value


@functools.lru_cache(_REMEMBERED)
def _globals_read(code: types.CodeType) -> tuple[str, ...]:
    """The names that the code, and functions and classes defined in it, look up outside, sorted."""
    names = {
        str(instruction.argval)
        for instruction in dis.get_instructions(code)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(_globals_read(constant))
    return tuple(sorted(names - vars(builtins).keys()))


def _is_code(value: object) -> bool:
    """Whether a global is code, which does not count: only ``version`` says that it changed."""
    if isinstance(value, Keyed | functools.partial):
        return False
    return (
        isinstance(value, _CODE)
        or inspect.isroutine(value)
        or type(value).__module__ == "typing"
        or (callable(value) and type(value).__module__ == "numpy")  # its functions are objects
    )
