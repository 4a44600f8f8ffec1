"""Exercises: one check that serves the learner's cell and the folded solution below it.

An author writes the check as a function that says, with `require`, what must hold and why. The learner's
`check(...)` turns that into *not attempted yet*, *not yet, because …* or *correct*, and never raises; `solution(...)`
runs the very same check and does raise, so that a broken lesson fails its tests.

>>> @exercise("patching.last-layer", number=2, title="Where is it?", difficulty=2, minutes=6, hints=("Count from 0.",))
... def _(answer, lm):              # after the answer: what the notebook hands over by name, check(..., lm=lm)
...     require(answer != lm.n_layers, f"{answer} is one too far: blocks are counted from 0")
...     return "Yes, the last one."
"""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import registry, store
from .attempts import blank_in
from .render import Card, dots, folded, folded_hints, frame, minutes, paragraph, prose, short
from .verdicts import Verdict, shown_anyway, verdict_card


class NotYet(AssertionError):
    """Raised by `require`: the answer isn't right yet, and the message says why."""


class NotAttempted(Exception):
    """Raised by `require_attempted`: the learner's code still returns its `...`."""


def require(condition: object, because: str) -> None:
    """In a check: go on if `condition` holds, else tell the learner 'not yet, because …'.

    >>> require(2 + 2 == 5, "two and two are four")
    Traceback (most recent call last):
    interp_helpers.course.exercises.NotYet: two and two are four
    """
    if not condition:
        raise NotYet(because)


def require_attempted(value, what: str = "what your function returns"):
    """In a check: hand `value` back, unless it is (or contains) `...`, which means that nothing was tried yet.

    >>> require_attempted(3)
    3
    >>> require_attempted([3, ...])
    Traceback (most recent call last):
    interp_helpers.course.exercises.NotAttempted: item 2 of what your function returns is still `...`
    """
    if found := blank_in(value, what):
        raise NotAttempted(found)
    return value


def require_number(value) -> float:
    """In a check: what a learner's function returned, as a number; a tensor of one entry is one.

    >>> import torch
    >>> require_number(torch.tensor([0.5]))
    0.5
    """
    require(require_attempted(value) is not None, "your function returned None: is there a `return`?")
    shape = tuple(getattr(value, "shape", ()))
    require(all(n == 1 for n in shape), f"one number was expected, and a tensor of shape {shape} came back")
    return float(value)


@dataclass(frozen=True)
class Exercise:
    """One exercise: what the card shows, and the function that checks an answer."""

    id: str
    number: int
    title: str
    difficulty: int
    minutes: int
    hints: tuple[str, ...]
    function: Callable

    @property
    def module(self) -> str:
        return self.function.__module__

    @property
    def heading(self) -> str:
        return f"Exercise {self.number} · {self.title}"

    @property
    def effort(self) -> str:
        return f"{dots(self.difficulty)} · {minutes(self.minutes)}"

    def context(self, given: dict) -> dict:
        """Of what the notebook handed over, what the check asks for. A missing one is the author's mistake."""
        wanted = list(inspect.signature(self.function).parameters.values())[1:]
        missing = [p.name for p in wanted if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
        missing = [name for name in missing if name not in given]
        if missing:
            call = ", ".join([f"check({self.id!r}", "answer", *(f"{name}={name}" for name in missing)]) + ")"
            raise TypeError(f"the check of {self.id!r} needs {' and '.join(missing)} from the notebook: {call}")
        if any(p.kind is p.VAR_KEYWORD for p in wanted):
            return given
        return {p.name: given[p.name] for p in wanted if p.name in given}


def exercise(
    id: str, *, number: int, title: str, difficulty: int, minutes: int, hints: Sequence[str] = ()
) -> Callable[[Callable], Exercise]:
    """Register the decorated function `(answer, **context) -> explanation or None` as the check of an exercise.

    >>> @exercise("demo.last", number=1, title="Where is it?", difficulty=2, minutes=6, hints=("Count from 0.",))
    ... def _(answer, lm):  # after the answer: what the notebook hands over by name
    ...     require(answer < lm.n_layers, f"{answer} is too far: blocks are counted from 0")
    ...     return "Yes, that is a block."
    >>> check("demo.last", 30, lm=lm)
    △ Not yet, because 30 is too far: blocks are counted from 0
    Exercise 1 · Where is it?
    Hint 1 of 1: Count from 0.
    """
    if not 1 <= difficulty <= 3:
        raise ValueError(f"difficulty is 1, 2 or 3; got {difficulty} for {id!r}")
    if isinstance(hints, str):
        raise ValueError(f"the hints of {id!r} are a single string; write hints=('…',) with a comma")

    def keep(function: Callable) -> Exercise:
        made = Exercise(id, number, title, difficulty, minutes, tuple(hints), function)
        registry.register("exercise", id, made)
        return made

    return keep


def check(id: str, answer, **context) -> Verdict:
    """Judge the learner's answer. Never raises on account of the answer; the cell that it stands in shows the verdict.

    >>> check("demo.last", ..., lm=lm)
    ○ Not attempted yet · Exercise 1 · Where is it?
    Your answer is still `...`. Fill it in and run the cell again.
    For a hint: hint("demo.last")
    >>> check("demo.last", 29, lm=lm)
    ✓ Correct · Exercise 1 · Where is it?
    Yes, that is a block.
    Done, and with it all the exercises here.
    """
    ex = registry.find("exercise", id)
    status, message = _judge(ex, answer, ex.context(context))
    known = store.get("exercise", id)
    shown = known.get("hints", 0)
    if status == "not yet":
        shown = min(len(ex.hints), shown + 1)
        store.update("exercise", id, attempts=known.get("attempts", 0) + 1, hints=shown)
    elif status == "correct" and not known.get("done"):
        store.update("exercise", id, attempts=known.get("attempts", 0) + 1, done=True)
    return shown_anyway(verdict_card(ex, status, message, shown, _standing(ex) if status == "correct" else ""))


def passes(id: str, answer, **context) -> bool:
    """Whether an answer would be accepted; nothing is shown or kept. For a solution that leaves a good answer in place.

    >>> passes("demo.last", 30, lm=lm), passes("demo.last", 29, lm=lm)
    (False, True)
    """
    ex = registry.find("exercise", id)
    return _judge(ex, answer, ex.context(context))[0] == "correct"


def solution(id: str, answer, **context) -> Card:
    """Run the same check on the solution. Doesn't count as the learner's progress; raises if it doesn't pass.

    >>> solution("demo.last", 29, lm=lm)
    ✓ The solution passes the same check.
    """
    ex = registry.find("exercise", id)
    status, message = _judge(ex, answer, ex.context(context))
    if status != "correct":
        raise AssertionError(f"the solution of {id!r} doesn't pass its own check: {status}, because {message}")
    line = "The solution passes the same check."
    why = folded("Why it is right", prose(message)) if message else ""
    return Card(frame("info", "✓", line, why), f"✓ {line}", {"glassbox": {"solution": id}})


def hint(id: str) -> None:
    """Print the next hint.

    >>> hint("demo.last")
    Hint 1 of 1: Count from 0.
    """
    ex = registry.find("exercise", id)
    shown = store.get("exercise", id).get("hints", 0)
    if shown < len(ex.hints):
        store.update("exercise", id, hints=shown + 1)
        print(f"Hint {shown + 1} of {len(ex.hints)}: {ex.hints[shown]}")
    elif ex.hints:
        print(f"You have seen all the hints. The last one: {ex.hints[-1]}\nThe folded cell below holds a solution.")
    else:
        print("This exercise has no hints. The folded cell below it holds a solution.")


def card(id: str) -> Card:
    """The exercise's card, to show before the task: its title, difficulty and minutes, and the hints, folded.

    >>> card("demo.last")
    Exercise 1 · Where is it?
    ●●○ · 6 minutes
    For a hint: hint("demo.last")
    """
    ex = registry.find("exercise", id)
    done = " · done" if store.get("exercise", id).get("done") else ""
    text = f"{ex.heading}\n{ex.effort}{done}"
    if ex.hints:
        text += f'\nFor a hint: hint("{id}")'
    body = paragraph(ex.effort + done) + folded_hints(ex.hints)
    return Card(frame("info", "✎", ex.heading, body), text)


def _judge(ex: Exercise, answer, context: dict) -> tuple[str, str]:
    """(status, message) of an answer: where it is blank, why it isn't right yet, or the explanation."""
    try:
        if found := blank_in(answer):
            return "not attempted", found
        praise = ex.function(answer, **context)
        return "correct", praise if isinstance(praise, str) else ""
    except (NotAttempted, NotImplementedError) as error:
        return "not attempted", str(error) or "your code raises NotImplementedError"
    except NotYet as error:
        return "not yet", str(error)
    except Exception as error:
        return "not yet", _crash(error, answer, ex.function.__code__)


def _crash(error: Exception, answer, check_code) -> str:
    """Say what went wrong, and the line of the learner's own code where it did."""
    said = f"{type(error).__name__}: {error}".rstrip(": ")
    files = {getattr(getattr(answer, "__code__", None), "co_filename", None)}
    place, step = None, error.__traceback__
    while step:
        code = step.tb_frame.f_code
        learners = step.tb_frame.f_globals.get("__name__") == "__main__" or code.co_filename in files
        if learners and code is not check_code:
            place = code, step.tb_lineno
        step = step.tb_next
    if place is None:
        return f"the check can't work with {_described(answer)}: {said}"
    code, number = place
    source = linecache.getline(code.co_filename, number).strip()
    where = f"in line {number}" if code.co_name.startswith("<") else f"in line {number} of `{code.co_name}`"
    return f"your code raised {said}\n{where}" + (f": `{source}`" if source else "")


def _described(answer) -> str:
    kind = type(answer).__name__
    article = "an" if kind[0] in "aeiouAEIOU" else "a"
    try:
        return f"your answer, {short(answer)} ({article} {kind})"
    except Exception:  # its own repr is broken
        return f"your answer, {article} {kind}"


def _standing(ex: Exercise) -> str:
    """How far the learner is in this notebook: 'Done, go on. That makes 2 of 5 exercises here.'"""
    prefix = ex.id.split(".")[0] + "."
    here = [id for id in registry.loaded("exercise") if id.startswith(prefix)]
    kept = store.read()["exercise"]
    done = sum(bool(kept.get(id, {}).get("done")) for id in here)
    if done == len(here):
        return "Done, and with it all the exercises here."
    return f"Done, go on. That makes {done} of {len(here)} exercises here."
