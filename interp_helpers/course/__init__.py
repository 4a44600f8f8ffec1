"""The course around the experiments: exercises with checks that say why, predictions, quizzes and progress.

Each notebook has a module of its own here with its exercises and its quiz; the rest is the machinery they share,
which knows nothing of models.

>>> from interp_helpers.course import check, solution, predict, reveal, quiz, progress
"""

from __future__ import annotations

from .exercises import NotYet, card, check, exercise, hint, passes, require, require_attempted, require_number, solution
from .expectations import expect, measured
from .overview import progress, reset_progress
from .predictions import predict, reveal
from .quizzes import Question, Quiz, quiz, right, wrong
from .registry import UnknownId, notebook
from .render import short
from .verdicts import Verdict

__all__ = [
    "NotYet",
    "Question",
    "Quiz",
    "UnknownId",
    "Verdict",
    "card",
    "check",
    "exercise",
    "expect",
    "hint",
    "measured",
    "notebook",
    "passes",
    "predict",
    "progress",
    "quiz",
    "require",
    "require_attempted",
    "require_number",
    "reset_progress",
    "reveal",
    "right",
    "short",
    "solution",
    "wrong",
]
