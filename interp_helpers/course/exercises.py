"""Exercises: one check that serves the learner's cell and the folded solution below it.

An author writes the check as a function that says, with `require`, what must hold and why. The learner's
`check(...)` turns that into *not attempted yet*, *not yet, because …* or *correct*, and never raises; `solution(...)`
runs the very same check and does raise, so that a broken lesson fails its tests.
"""

from __future__ import annotations

import inspect
import linecache
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass

from . import registry
from .attempts import blank_in
from .progress import entry, update
from .render import Card, folded, folded_hints, frame, paragraph, prose, short

LOOKS = {  # status: (kind of card, icon, word)
    "not attempted": ("idle", "○", "Not attempted yet"),
    "not yet": ("wait", "△", "Not yet, because"),
    "correct": ("ok", "✓", "Correct"),
}


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


def require_returned(value):
    """In a check: hand back what a learner's function returned, unless it is None or still holds a `...`.

    >>> require_returned(3)
    3
    """
    require(require_attempted(value) is not None, "your function returned None: is there a `return`?")
    return value


def require_number(value) -> float:
    """In a check: what a learner's function returned, as a number; a tensor of one entry is one.

    >>> import torch
    >>> require_number(torch.tensor([0.5]))
    0.5
    """
    shape = tuple(getattr(require_returned(value), "shape", ()))
    require(all(n == 1 for n in shape), f"one number was expected, and a tensor of shape {shape} came back")
    return float(value)


@dataclass(frozen=True, repr=False)
class Verdict(Card):
    """What `check(...)` answers: `status` is 'not attempted', 'not yet' or 'correct'; `message` says why; `hints` are those shown so far.

    It is the call's value, so it shows itself when the call ends a cell, and tests can read it.
    """

    status: str = ""
    message: str = ""
    hints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exercise:
    """One exercise: what is said of it, and the function that checks an answer."""

    id: str
    number: int
    title: str
    difficulty: int
    minutes: int
    hints: tuple[str, ...]
    function: Callable

    @property
    def heading(self) -> str:
        """As it stands in the notebook, behind the `###`: 'Exercise 1 · Where is it?'"""
        return f"Exercise {self.number} · {self.title}"

    @property
    def effort(self) -> str:
        """As it stands below the heading: '●●○ · 6 minutes'."""
        dots = "●" * self.difficulty + "○" * (3 - self.difficulty)
        return f"{dots} · {self.minutes:g} minute" + "s" * (self.minutes != 1)

    def context(self, given: dict) -> dict:
        """Of what the notebook handed over, what the check asks for. A missing one is the author's mistake."""
        wanted = list(inspect.signature(self.function).parameters)[1:]
        if missing := [name for name in wanted if name not in given]:
            call = ", ".join([f"check({self.id!r}", "answer", *(f"{name}={name}" for name in missing)]) + ")"
            raise TypeError(f"the check of {self.id!r} needs {' and '.join(missing)} from the notebook: {call}")
        return {name: given[name] for name in wanted}


def exercise(id: str, *, number: int, title: str, difficulty: int, minutes: int) -> Callable[[Callable], Exercise]:
    """Register the decorated function `(answer, **context) -> explanation or None` as the check of an exercise. Its docstring is the
    list of the hints, each a line or more that begins with a dash.

    >>> @exercise("demo.last", number=1, title="Where is it?", difficulty=2, minutes=6)
    ... def _(answer, lm):  # after the answer: what the notebook hands over by name
    ...     "- Count from 0."
    ...     require(answer < lm.n_layers, f"{answer} is too far: blocks are counted from 0")
    ...     return "Yes, that is a block."
    >>> check("demo.last", 30, lm=lm)
    △ Not yet, because 30 is too far: blocks are counted from 0
    Exercise 1 · Where is it?
    Hint 1 of 1: Count from 0.
    """
    if not 1 <= difficulty <= 3:
        raise ValueError(f"difficulty is 1, 2 or 3; got {difficulty} for {id!r}")

    def keep(function: Callable) -> Exercise:
        before, *hints = re.split("^- ", inspect.getdoc(function) or "", flags=re.MULTILINE)
        if before:
            raise ValueError(f"the docstring of {id!r} is its hints, each behind a dash, and it begins with {before!r}")
        hints = tuple(" ".join(hint.split()) for hint in hints)
        made = Exercise(id, number, title, difficulty, minutes, hints, function)
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
    ex, status, message = _judge(id, answer, context)
    known = entry("exercise", id)
    shown = known.get("hints", 0)
    if status == "not yet":
        shown = min(len(ex.hints), shown + 1)
        update("exercise", id, attempts=known.get("attempts", 0) + 1, hints=shown)
    elif status == "correct" and not known.get("done"):
        update("exercise", id, attempts=known.get("attempts", 0) + 1, done=True)
    return _shown_anyway(_drawn(ex, status, message, shown, _standing(ex) if status == "correct" else ""))


def passes(id: str, answer, **context) -> bool:
    """Whether an answer would be accepted; nothing is shown or kept. For a solution that leaves a good answer in place.

    >>> passes("demo.last", 30, lm=lm), passes("demo.last", 29, lm=lm)
    (False, True)
    """
    return _judge(id, answer, context)[1] == "correct"


def solution(id: str, answer, **context) -> Card:
    """Run the same check on the solution. Doesn't count as the learner's progress; raises if it doesn't pass.

    >>> solution("demo.last", 29, lm=lm)
    ✓ The solution passes the same check.
    """
    ex, status, message = _judge(id, answer, context)
    if status != "correct":
        raise AssertionError(f"the solution of {id!r} doesn't pass its own check: {status}, because {message}")
    line, why = "The solution passes the same check.", folded("Why it is right", prose(message)) if message else ""
    return Card(frame("info", "✓", line, why), f"✓ {line}", {"glassbox": {"solution": id}})


def hint(id: str) -> None:
    """Print the next hint.

    >>> hint("demo.last")
    Hint 1 of 1: Count from 0.
    """
    ex = registry.find("exercise", id)
    shown = entry("exercise", id).get("hints", 0)
    if shown < len(ex.hints):
        update("exercise", id, hints=shown + 1)
        print(f"Hint {shown + 1} of {len(ex.hints)}: {ex.hints[shown]}")
    elif ex.hints:
        print(f"You have seen all the hints. The last one: {ex.hints[-1]}\nThe folded cell below holds a solution.")
    else:
        print("This exercise has no hints. The folded cell below it holds a solution.")


def _judge(id: str, answer, given: dict) -> tuple[Exercise, str, str]:
    """(exercise, status, message) of an answer: where it is blank, why it isn't right yet, or the explanation."""
    ex: Exercise = registry.find("exercise", id)
    context = ex.context(given)
    with registry.guard(given) as left:
        status, message = _verdict(ex, answer, context)
    if left and status != "not attempted":
        status, message = "not yet", ". ".join([*([message] if status == "not yet" else []), *left])
    return ex, status, message


def _verdict(ex: Exercise, answer, context: dict) -> tuple[str, str]:
    """(status, message) of an answer, by the check alone."""
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
    here = [id for id in registry.everything("exercise") if id.startswith(prefix)]
    done = sum(bool(entry("exercise", id).get("done")) for id in here)
    if done == len(here):
        return "Done, and with it all the exercises here."
    return f"Done, go on. That makes {done} of {len(here)} exercises here."


def _drawn(exercise: Exercise, status: str, message: str, shown: int, standing: str = "") -> Verdict:
    """Draw the verdict on `exercise`. `shown` hints are open, the others folded inside one another."""
    kind, icon, word = LOOKS[status]
    hints = exercise.hints[:shown] if status == "not yet" else ()
    blank = f"{message[:1].upper()}{message[1:]}. Fill it in and run the cell again."
    says = blank if status == "not attempted" else message
    text = [f"{icon} {word} · {exercise.heading}", says, standing]
    if status == "not yet":
        text = [f"{icon} {word} {message}", exercise.heading]
    body = paragraph(says) + paragraph(standing)
    if status != "correct":
        body += folded_hints(exercise.hints, opened=len(hints))
        text += [f"Hint {i} of {len(exercise.hints)}: {hint}" for i, hint in enumerate(hints, start=1)]
        if len(hints) < len(exercise.hints):
            text.append(f'For {"another" if hints else "a"} hint: hint("{exercise.id}")')
    aside = f"{prose(exercise.heading)} · {exercise.effort}"
    return Verdict(
        html=frame(kind, icon, word, body, aside),
        text="\n".join(line for line in text if line),
        metadata={"glassbox": {"exercise": exercise.id, "status": status, "message": message}},
        status=status,
        message=message,
        hints=hints,
    )


def _shown_anyway(verdict: Verdict) -> Verdict:
    """In IPython, show the verdict when its cell has run, unless it is what the cell ends in, which IPython shows by itself."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    if shell:

        def cell_has_run(result) -> None:
            shell.events.unregister("post_run_cell", cell_has_run)
            if result.result is not verdict:
                ipython.display.display(verdict)

        shell.events.register("post_run_cell", cell_has_run)
    return verdict
