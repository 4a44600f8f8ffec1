"""Quizzes with an explanation for every choice, right or wrong.

The author writes one in the notebook's module; `quiz(id)` shows it. In a running notebook the choices are buttons;
elsewhere each choice unfolds into its explanation without any kernel; in a terminal, `answers=` takes letters.

>>> Quiz("patching.quiz", Question("What does patching every position at one layer give?",
...     right("The source run", "The residual stream at one layer is all that later layers read."),
...     wrong("The layer that holds the fact", "Every layer would 'hold' it: nothing is localised.")))
>>> quiz("patching.quiz", answers=["a"])
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from ..plotting import mimebundle
from . import registry, store
from .predictions import letter
from .render import folded, frame, paragraph, prose


@dataclass(frozen=True)
class Choice:
    """One choice of a question: what it says, whether it is right, and why."""

    text: str
    because: str
    right: bool

    @property
    def feedback(self) -> str:
        return f"{'✓ Right' if self.right else '✗ Not this one'}: {self.because}"


def right(text: str, because: str) -> Choice:
    """A right choice and why it is right.

    >>> right("4", "Two and two are four.").feedback
    '✓ Right: Two and two are four.'
    """
    return Choice(text, because, True)


def wrong(text: str, because: str) -> Choice:
    """A wrong choice and what speaks against it.

    >>> wrong("5", "One too many.").feedback
    '✗ Not this one: One too many.'
    """
    return Choice(text, because, False)


class Question:
    """A question and its choices, of which at least one is right.

    >>> Question("What is 2 + 2?", right("4", "Two and two."), wrong("5", "One too many.")).text
    'What is 2 + 2?'
    """

    def __init__(self, text: str, *choices: Choice):
        if len(choices) < 2 or not any(c.right for c in choices) or not all(c.because for c in choices):
            raise ValueError(f"a question has two choices or more, a right one, and a reason for each: {text!r}")
        self.text, self.choices = text, choices

    def choice(self, answer) -> Choice | None:
        """The choice with that letter, or None."""
        return {letter(i): c for i, c in enumerate(self.choices)}.get(str(answer).strip().lower())


class Quiz:
    """Questions under an id `<notebook>.<slug>`; making one registers it.

    >>> question = Question("What is 2 + 2?", right("4", "Two and two."), wrong("5", "One too many."))
    >>> Quiz("demo.quiz", question).id
    'demo.quiz'
    """

    def __init__(self, id: str, *questions: Question, title: str = "Check yourself"):
        if not questions:
            raise ValueError(f"the quiz {id!r} has no questions")
        self.id, self.questions, self.title = id, questions, title
        self.module = sys._getframe(1).f_globals.get("__name__")
        registry.register("quiz", id, self)

    @property
    def kept(self) -> list[str | None]:
        """The letters on record, one a question."""
        answers = store.get("quiz", self.id).get("answers", [])
        fits = isinstance(answers, list) and len(answers) == len(self.questions)
        return answers if fits else [None] * len(self.questions)

    def score(self) -> int:
        """How many questions are answered right."""
        return sum(bool(c and c.right) for c in map(Question.choice, self.questions, self.kept))

    def record(self, number: int, answer: str) -> None:
        """Keep an answer. A question that is answered right stays so while its other choices are looked at."""
        answers = list(self.kept)
        before = self.questions[number].choice(answers[number])
        if not (before and before.right):
            answers[number] = answer
            store.update("quiz", self.id, answers=answers)

    @property
    def result(self) -> str:
        if not any(self.kept):
            return ""
        return f"{self.score()} of {len(self.questions)} right" + (
            ". Done, go on." if self.score() == len(self.questions) else " so far."
        )


class QuizView:
    """What `quiz` displays. `widget` is its live form; `answers` are the letters to comment on in the other forms."""

    def __init__(self, quiz: Quiz, answers: Sequence[str | None], trouble: str = ""):
        self.quiz, self.answers, self.trouble = quiz, answers, trouble
        self._widget = None

    @property
    def widget(self):
        self._widget = self._widget or _form(self.quiz)
        return self._widget

    @property
    def result(self) -> str:
        """The quiz's result, and that of the answers shown where these are fewer."""
        chosen = zip(self.quiz.questions, self.answers, strict=True)
        here = sum(bool(c and c.right) for c in (question.choice(answer) for question, answer in chosen))
        if here == self.quiz.score():
            return self.quiz.result
        return f"{here} of {len(self.answers)} right this time; on record: {self.quiz.result}"

    def _repr_mimebundle_(self, include=None, exclude=None):
        body = ""
        for n, question in enumerate(self.quiz.questions):
            body += f'<div style="margin-top:.7em"><strong>{n + 1}.</strong> {prose(question.text)}</div>'
            for i, choice in enumerate(question.choices):
                chosen = self.answers[n] == letter(i)
                body += folded(f"{letter(i)}) {choice.text}", prose(choice.feedback), opened=chosen)
        body += paragraph(self.trouble) + paragraph(self.result)
        html = frame("info", "?", self.quiz.title, body, "open a choice to see whether it is right, and why")
        return mimebundle(lambda: self.widget, html, repr(self))

    def __repr__(self) -> str:
        lines = [f"? {self.quiz.title}"]
        for n, question in enumerate(self.quiz.questions):
            lines += ["", f"{n + 1}. {question.text}"]
            for i, choice in enumerate(question.choices):
                lines.append(f"   {letter(i)}) {choice.text}")
                if self.answers[n] == letter(i):
                    lines.append(f"      {choice.feedback}")
        letters = ", ".join('"a"' for _ in self.quiz.questions)
        lines += ["", self.trouble, self.result or f'To answer: quiz("{self.quiz.id}", answers=[{letters}])']
        return "\n".join(lines).replace("\n\n\n", "\n\n")


def quiz(id: str, answers: Sequence[str | None] | None = None) -> QuizView:
    """Show the quiz with that id. `answers`, one letter a question (None: not yet), answers it in plain text.

    >>> quiz("demo.quiz", answers=["b"])
    ? Check yourself
    <BLANKLINE>
    1. What is 2 + 2?
       a) 4
       b) 5
          ✗ Not this one: One too many.
    <BLANKLINE>
    0 of 1 right so far.
    """
    found: Quiz = registry.find("quiz", id)
    if answers is None or answers is ...:
        return QuizView(found, found.kept)
    given = [None if a in (None, "", ...) else str(a).strip().lower() for a in answers]
    if len(given) != len(found.questions):
        return QuizView(found, found.kept, f"There are {len(found.questions)} questions and {len(given)} answers.")
    trouble = ""
    for n, (question, answer) in enumerate(zip(found.questions, given, strict=True)):
        if answer is None:
            continue
        if question.choice(answer) is None:
            last = letter(len(question.choices) - 1)
            trouble += f"Question {n + 1} has no choice {answer!r}: its choices are a to {last}. "
        else:
            found.record(n, answer)
    return QuizView(found, given, trouble.strip())


def _form(quiz: Quiz):
    """For each choice a button with its letter, its text, and, once it is pressed, its explanation below."""
    import ipywidgets as w

    result = w.HTML()
    rows: list = [w.HTML(f"<strong>{prose(quiz.title)}</strong>")]

    def refresh() -> None:
        result.value = f'<div role="status" class="glassbox-result">{prose(quiz.result)}</div>'

    def row(n: int, i: int, choice: Choice) -> list:
        button = w.Button(description=letter(i), tooltip=choice.text, layout=w.Layout(width="4.5em", flex="0 0 auto"))
        said = w.HTML()

        def show() -> None:
            button.icon = "check" if choice.right else "times"
            said.value = f'<div role="status" style="margin-left:5em">{prose(choice.feedback)}</div>'

        def pressed(_) -> None:
            quiz.record(n, letter(i))
            show()
            refresh()

        button.on_click(pressed)
        if quiz.kept[n] == letter(i):
            show()
        return [w.HBox([button, w.HTML(prose(choice.text))]), said]

    for n, question in enumerate(quiz.questions):
        rows.append(w.HTML(f"<strong>{n + 1}.</strong> {prose(question.text)}"))
        for i, choice in enumerate(question.choices):
            rows += row(n, i, choice)
    refresh()
    return w.VBox([*rows, result])
