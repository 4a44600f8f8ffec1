"""Where exercises and quizzes are found by their id, `<notebook>.<slug>`.

A notebook's checks and quiz live in a folder of its own in `interp_helpers.lessons` and register when they are imported, so an
author adds them there and nothing else. They are imported when an id is first looked up that nobody has registered yet.

>>> notebook("patching", "1 · Activation patching")     # optional: the title in the progress table
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil

LESSONS = f"{__package__.rpartition('.')[0]}.lessons"
_items: dict[str, dict[str, object]] = {"exercise": {}, "quiz": {}, "notebook": {}}
_broken: dict[str, Exception] = {}


class UnknownId(LookupError):
    """No exercise or quiz has that id; the message names the ones that look like it."""


def register(kind: str, id: str, item: object) -> None:
    """Keep `item` under its id. The same module may register it again (a reload); another module may not."""
    if kind != "notebook" and (id.count(".") != 1 or not all(id.split("."))):
        raise ValueError(f"an id is '<notebook>.<slug>', such as 'patching.last-layer'; got {id!r}")
    known = _items[kind].get(id)
    if known is not None and getattr(known, "module", None) != getattr(item, "module", None):
        raise ValueError(f"two modules register the {kind} {id!r}: {known.module} and {item.module}")
    _items[kind][id] = item


def notebook(prefix: str, title: str) -> None:
    """Give the exercises whose ids start with `prefix` a title for the progress table.

    >>> notebook("demo", "A demonstration")
    >>> progress()
    Notebook Exercises Quiz Exercise minutes Next
    A demonstration 0 of 1 0 of 1 0 of 6 Exercise 1 · Where is it?
    (kept in ...)
    """
    register("notebook", prefix, title)


def find(kind: str, id: str):
    """The exercise or quiz with that id, importing the notebooks' modules if nobody has registered it yet."""
    if id not in _items[kind]:
        load_all()
    if id in _items[kind]:
        return _items[kind][id]
    close = difflib.get_close_matches(str(id), _items[kind], n=3, cutoff=0.5)
    article = "an exercise" if kind == "exercise" else f"a {kind}"
    message = f"there isn't {article} called {id!r}"
    message += "; did you mean " + " or ".join(repr(c) for c in close) + "?" if close else "."
    if _broken:
        message += " These modules could not be imported: " + "; ".join(
            f"{name} ({type(error).__name__}: {error})" for name, error in _broken.items()
        )
    raise UnknownId(message)


def loaded(kind: str) -> dict:
    """The items of that kind that are registered so far."""
    return dict(_items[kind])


def everything(kind: str) -> dict:
    """Every registered item of that kind by id, after importing the notebooks' modules."""
    load_all()
    return dict(_items[kind])


def load_all() -> None:
    """Import the lessons' checks and quizzes; those that are imported already cost nothing. Failures are kept."""
    _broken.clear()
    package = importlib.import_module(LESSONS)
    for module in pkgutil.walk_packages(package.__path__, prefix=f"{LESSONS}."):
        if module.ispkg or module.name.endswith(".wrong_answers"):
            continue
        try:
            importlib.import_module(module.name)
        except Exception as error:  # one broken notebook must not take the others down
            _broken[module.name] = error
