"""Every public name has a docstring with an example, and the examples run and print what they say.

They run on the offline model, which they call `lm`, as the notebooks do; `base` and `source` are the README's two prompts, and everything
that `interp_helpers` exports is there by name. The course's examples go on from that of `exercise`.
"""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pytest
import torch

import interp_helpers
from interp_helpers import course, plotting, widgets
from interp_helpers.course import registry

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PLACES = {"": interp_helpers, "widgets.": widgets, "plotting.": plotting, "course.": course}
NEVER_CALLED = {"course.NotYet", "course.UnknownId", "course.Verdict"}  # they are raised, or come back
NAMES = {
    f"{place}{name}": getattr(module, name)
    for place, module in PLACES.items()
    for name in module.__all__
    if callable(getattr(module, name)) and f"{place}{name}" not in NEVER_CALLED
}


@pytest.fixture(scope="module")
def given():
    """What an example finds without importing it."""
    exported = {name: getattr(interp_helpers, name) for name in interp_helpers.__all__}
    prompts = {"base": "The Colosseum is in the city of", "source": "The Eiffel Tower is in the city of"}
    return exported | prompts | {"lm": interp_helpers.load_model("offline"), "torch": torch}


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """What an example writes, registers and keeps is gone after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INTERP_PROGRESS", str(tmp_path / "progress.json"))
    kept = {kind: registry.everything(kind) for kind in registry.ITEMS}
    monkeypatch.setattr(registry, "ITEMS", kept)


def run(name: str, given: dict) -> tuple[int, str]:
    """How many examples a function has, or a class with its methods, and what is wrong with them."""
    module = course if name.startswith("course.") else inspect.getmodule(NAMES[name])
    finder, said, count = doctest.DocTestFinder(exclude_empty=True), [], 0
    for test in finder.find(NAMES[name], name, module=inspect.getmodule(NAMES[name])):
        test.globs = {**vars(module), **given}
        count += len(test.examples)
        doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(test, out=said.append, clear_globs=False)
    return count, "".join(said)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_an_example_that_runs(name, given):
    if name.startswith("course."):
        if name != "course.exercise":
            run("course.exercise", given)
        Path("progress.json").unlink(missing_ok=True)
    count, said = run(name, given)
    assert count, f"{name} has no example in its docstring"
    assert not said, said


def test_an_example_that_prints_something_else_is_caught(given, monkeypatch):
    def wrong():
        """It is two.

        >>> 1 + 2
        2
        """

    monkeypatch.setitem(NAMES, "wrong", wrong)
    count, said = run("wrong", given)
    assert count == 1 and "Expected:\n    2\nGot:\n    3" in said
