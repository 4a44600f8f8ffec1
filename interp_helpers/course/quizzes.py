"""Quizzes with an explanation for every choice, right or wrong.

The author writes one in the lesson's `quiz.md`; `quiz(id)` shows it. In a running notebook the choices are buttons;
elsewhere each choice unfolds into its explanation without any kernel; in a terminal, `answers=` takes letters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..plotting import Live
from . import registry
from .predictions import letter
from .progress import entry, update
from .render import folded, frame, paragraph, prose

TITLE = "Check yourself"
_CHOICE = re.compile(r"- \[([ x])\] (\S.*?) — (\S.*)")


@dataclass(frozen=True)
class Choice:
    """One choice of a question: what it says, whether it is right, and why."""

    text: str
    because: str
    right: bool

    @property
    def feedback(self) -> str:
        return f"{'✓ Right' if self.right else '✗ Not this one'}: {self.because}"


@dataclass(frozen=True)
class Question:
    """A question and its choices, of which at least one is right."""

    text: str
    choices: tuple[Choice, ...]

    @property
    def lettered(self) -> dict[str, Choice]:
        """The choices by their letters."""
        return {letter(i): choice for i, choice in enumerate(self.choices)}


@dataclass(frozen=True)
class Quiz:
    """The questions of one file, under the id `<notebook>.quiz`."""

    id: str
    questions: tuple[Question, ...]

    @property
    def kept(self) -> list[str | None]:
        """The letters on record, one a question."""
        answers = entry("quiz", self.id).get("answers", [])
        fits = isinstance(answers, list) and len(answers) == len(self.questions)
        return answers if fits else [None] * len(self.questions)

    def score(self, answers: Sequence[str | None] | None = None) -> int:
        """How many of these answers are right; without them, of those on record."""
        chosen = zip(self.questions, self.kept if answers is None else answers, strict=True)
        return sum(answer in q.lettered and q.lettered[answer].right for q, answer in chosen)

    def record(self, number: int, answer: str) -> None:
        """Keep an answer. A question that is answered right stays so while its other choices are looked at."""
        answers = list(self.kept)
        before = self.questions[number].lettered.get(answers[number])
        if not (before and before.right):
            answers[number] = answer
            update("quiz", self.id, answers=answers)

    @property
    def result(self) -> str:
        if not any(self.kept):
            return ""
        return f"{self.score()} of {len(self.questions)} right" + (
            ". Done, go on." if self.score() == len(self.questions) else " so far."
        )


def read_quiz(id: str, path: Path) -> Quiz:
    """Read a quiz from a file and register it. A question is a heading `## …`, and each of its choices a line
    `- [x] choice — reason`, with the cross in a right one.

    Raises:
        ValueError: a line is something else, or a question lacks choices or a right one; the message names file and line.
    """
    asked: list[tuple[int, str, list[Choice]]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        choice = _CHOICE.fullmatch(line)
        if line.startswith("## "):
            asked.append((number, line[3:].strip(), []))
        elif choice and asked:
            asked[-1][2].append(Choice(choice[2], choice[3], choice[1] == "x"))
        elif line.strip() and (asked or not line.startswith("# ")):
            raise ValueError(
                f"{path}, line {number}: a question (`## …`), or below one a choice (`- [x] choice — reason`, `- [ ] …`) was expected, "
                f"and “{line}” stands there"
            )
    for number, text, choices in asked:
        if len(choices) < 2 or not any(c.right for c in choices):
            raise ValueError(
                f"{path}, line {number}: a question has two choices or more, a right one (`- [x]`) among them: “{text}”"
            )
    if not asked:
        raise ValueError(f"{path}, line 1: a quiz has a question (`## …`) or more, and none stands there")
    quiz = Quiz(id, tuple(Question(text, tuple(choices)) for _, text, choices in asked))
    registry.register("quiz", id, quiz)
    return quiz


class QuizView(Live):
    """What `quiz` displays. `widget` is its live form; `answers` are the letters to comment on in the other forms."""

    def __init__(self, quiz: Quiz, answers: Sequence[str | None], trouble: str = ""):
        self.quiz, self.answers, self.trouble = quiz, answers, trouble

    @property
    def result(self) -> str:
        """The quiz's result, and that of the answers shown where these are fewer."""
        here = self.quiz.score(self.answers)
        if here == self.quiz.score():
            return self.quiz.result
        return f"{here} of {len(self.answers)} right this time; on record: {self.quiz.result}"

    @property
    def html(self) -> str:
        body = ""
        for n, question in enumerate(self.quiz.questions):
            body += f'<div style="margin-top:.7em"><strong>{n + 1}.</strong> {prose(question.text)}</div>'
            for name, choice in question.lettered.items():
                body += folded(f"{name}) {choice.text}", prose(choice.feedback), opened=self.answers[n] == name)
        body += paragraph(self.trouble) + paragraph(self.result)
        return frame("info", "?", TITLE, body, "open a choice to see whether it is right, and why")

    def __repr__(self) -> str:
        lines = [f"? {TITLE}"]
        for n, question in enumerate(self.quiz.questions):
            lines += ["", f"{n + 1}. {question.text}"]
            for name, choice in question.lettered.items():
                lines.append(f"   {name}) {choice.text}")
                if self.answers[n] == name:
                    lines.append(f"      {choice.feedback}")
        letters = ", ".join('"a"' for _ in self.quiz.questions)
        lines += ["", self.trouble, self.result or f'To answer: quiz("{self.quiz.id}", answers=[{letters}])']
        return "\n".join(lines).replace("\n\n\n", "\n\n")

    def _form(self):
        """For each choice a button with its letter, its text, and, once it is pressed, its explanation below."""
        import ipywidgets as w

        quiz = self.quiz
        result = w.HTML()
        rows: list = [w.HTML(f"<strong>{TITLE}</strong>")]

        def refresh() -> None:
            result.value = f'<div role="status" class="glassbox-result">{prose(quiz.result)}</div>'

        def row(n: int, name: str, choice: Choice) -> list:
            layout = w.Layout(width="4.5em", flex="0 0 auto")
            button = w.Button(description=name, tooltip=choice.text, layout=layout)
            said = w.HTML()

            def show() -> None:
                button.icon = "check" if choice.right else "times"
                said.value = f'<div role="status" style="margin-left:5em">{prose(choice.feedback)}</div>'

            def pressed(_) -> None:
                quiz.record(n, name)
                show()
                refresh()

            button.on_click(pressed)
            if quiz.kept[n] == name:
                show()
            return [w.HBox([button, w.HTML(prose(choice.text))]), said]

        for n, question in enumerate(quiz.questions):
            rows.append(w.HTML(f"<strong>{n + 1}.</strong> {prose(question.text)}"))
            for name, choice in question.lettered.items():
                rows += row(n, name, choice)
        refresh()
        return w.VBox([*rows, result])


def quiz(id: str, answers: Sequence[str | None] | None = None) -> QuizView:
    """Show the quiz with that id. `answers`, one letter a question (None: not yet), answers it in plain text.

    >>> quiz("tracing.quiz", answers=["a", None, None, None, None, None])
    ? Check yourself
    <BLANKLINE>
    1. The indirect effect of a site is …
       a) p(restored) − p(corrupted)
          ✓ Right: Both runs have the same noise, so only the restoration differs.
       b) p(clean) − p(corrupted)
    ...
    1 of 6 right so far.
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
        if answer not in question.lettered:
            trouble += f"Question {n + 1} has no choice {answer!r}: its choices are a to {max(question.lettered)}. "
        else:
            found.record(n, answer)
    return QuizView(found, given, trouble.strip())
