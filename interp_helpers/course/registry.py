"""Where exercises and quizzes are found by their id, `<notebook>.<slug>`.

They stand in `interp_helpers.lessons`, whose table names the folders, and are read when an id is first looked up that nobody has
registered yet.
"""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path

LESSONS = f"{__package__.rpartition('.')[0]}.lessons"
ITEMS: dict[str, dict[str, object]] = {"exercise": {}, "quiz": {}}
_loaded: set[str] = set()
_broken: dict[str, Exception] = {}


class UnknownId(LookupError):
    """No exercise or quiz has that id; the message names the ones that look like it."""


def register(kind: str, id: str, item) -> None:
    """Keep `item` under its id."""
    if id.count(".") != 1 or not all(id.split(".")):
        raise ValueError(f"an id is '<notebook>.<slug>', such as 'patching.last-layer'; got {id!r}")
    ITEMS[kind][id] = item


def find(kind: str, id: str):
    """The exercise or quiz with that id, reading the lessons if nobody has registered it yet."""
    if id not in ITEMS[kind]:
        load_all()
    if id in ITEMS[kind]:
        return ITEMS[kind][id]
    close = difflib.get_close_matches(str(id), ITEMS[kind], n=3, cutoff=0.5)
    article = "an exercise" if kind == "exercise" else f"a {kind}"
    message = f"there isn't {article} called {id!r}"
    message += "; did you mean " + " or ".join(repr(c) for c in close) + "?" if close else "."
    if _broken:
        message += f" These lessons could not be read: {_broken}"
    raise UnknownId(message)


def everything(kind: str) -> dict:
    """Every registered item of that kind by id, after reading the lessons: in their order, whichever was read first."""
    load_all()
    order = list(titles())
    of = {id: id.split(".")[0] for id in ITEMS[kind]}
    return {id: ITEMS[kind][id] for id in sorted(of, key=lambda id: [*order, of[id]].index(of[id]))}


def guard(given: dict):
    """The lessons' guard around a check: a context manager whose list says what an answer has left changed."""
    return importlib.import_module(f"{LESSONS}.guard").untouched(given)


def titles() -> dict[str, str]:
    """The notebooks' titles, by the prefix of their ids."""
    return {lesson.prefix: lesson.title for lesson in _lessons()}


def load_all() -> None:
    """Read the checks and quizzes of all lessons, each once. Failures are kept: one broken lesson must not take the others down."""
    from .quizzes import read_quiz

    _broken.clear()
    for lesson in _lessons():
        if lesson.folder in _loaded:
            continue
        try:
            checks = importlib.import_module(f"{LESSONS}.{lesson.folder}.checks")
            read_quiz(f"{lesson.prefix}.quiz", Path(checks.__file__).with_name("quiz.md"))
            _loaded.add(lesson.folder)
        except Exception as error:
            _broken[lesson.folder] = error


def _lessons() -> list:
    return list(importlib.import_module(LESSONS).LESSONS.values())
