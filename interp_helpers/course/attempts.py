"""Has the learner written anything yet? An untouched exercise must say 'not attempted', never 'wrong'.

A blank is a `...`: the answer itself, an item of it, or a place in a function that the learner was to fill. Functions
are read from their bytecode, because their source isn't always at hand.

>>> def patch(lm):
...     vector = ...
>>> blank_in(patch)
'line 2 of `patch` still has its `...`'
"""

from __future__ import annotations

import dis
import functools
import inspect
import types

# What may stand in the bytecode of a function that does nothing, besides loading None and returning it.
_IDLE = {"RESUME", "NOP", "CACHE", "COPY_FREE_VARS", "MAKE_CELL", "GEN_START", "EXTENDED_ARG", "NOT_TAKEN"}
_FILLERS = ("RETURN_VALUE", "STORE_FAST", "STORE_NAME", "STORE_GLOBAL", "STORE_DEREF", "CALL", "PRECALL", "KW_NAMES")


def blank_in(answer: object, what: str = "your answer") -> str | None:
    """Where the learner's answer is still blank, in words; None when there is nothing left to fill."""
    return _blank(answer, what, depth=0)


def _blank(value: object, what: str, depth: int) -> str | None:
    if value is ...:
        return f"{what} is still `...`"
    if depth > 5:
        return None
    if isinstance(value, dict):
        places = [(item, f"`{key!r}` in {what}") for key, item in value.items()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        places = [(item, f"item {i} of {what}") for i, item in enumerate(value, start=1)]
    elif isinstance(value, functools.partial):
        places = [(item, what) for item in (value.func, *value.args, *value.keywords.values())]
    elif inspect.isclass(value):
        return _blank_class(value)
    elif inspect.isfunction(value) or inspect.ismethod(value):
        function = inspect.unwrap(getattr(value, "__func__", value))
        return _blank_code(function.__code__) if inspect.isfunction(function) else None
    else:
        return None
    return next((found for item, name in places if (found := _blank(item, name, depth + 1))), None)


def _blank_class(cls: type) -> str | None:
    own = {k: getattr(v, "__func__", v) for k, v in vars(cls).items()}
    functions = [f for f in own.values() if inspect.isfunction(f) and f.__module__ == cls.__module__]
    members = [k for k in own if not (k.startswith("__") and k.endswith("__"))]
    if not members and not functions:
        return f"the class `{cls.__name__}` is still empty"
    for name in members:
        if own[name] is ...:
            return f"`{cls.__name__}.{name}` is still `...`"
    if found := next((b for f in functions if (b := _ellipsis_in(f.__code__))), None):
        return found
    if functions and all(_does_nothing(f.__code__) for f in functions):
        return f"the methods of `{cls.__name__}` are still empty"
    return None


def _blank_code(code: types.CodeType) -> str | None:
    if found := _ellipsis_in(code):
        return found
    return f"the function `{code.co_name}` is still empty" if _does_nothing(code) else None


def _instructions(code: types.CodeType) -> list[dis.Instruction]:
    return [i for i in dis.get_instructions(code) if i.opname not in _IDLE]


def _does_nothing(code: types.CodeType) -> bool:
    """`pass`, a docstring or a lone `...` all compile to 'return None'."""
    steps = [(i.opname, i.argval) for i in _instructions(code)]
    return steps in ([("RETURN_CONST", None)], [("LOAD_CONST", None), ("RETURN_VALUE", None)])


def _ellipsis_in(code: types.CodeType) -> str | None:
    """A `...` that is returned, put in a variable or handed to a call. In `x[..., 0]` it has its ordinary meaning."""
    line = code.co_firstlineno
    steps = list(dis.get_instructions(code))
    for here, after in zip(steps, steps[1:] + steps[-1:], strict=True):
        started = getattr(here, "line_number", None) or here.starts_line  # 3.13 and later, or before
        if started and started is not True:
            line = started
        if here.argval is ... and (
            here.opname == "RETURN_CONST" or (here.opname == "LOAD_CONST" and after.opname.startswith(_FILLERS))
        ):
            name = "your function" if code.co_name.startswith("<") else f"`{code.co_name}`"
            return f"line {line} of {name} still has its `...`"
    inner = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return next((found for c in inner if (found := _ellipsis_in(c))), None)
