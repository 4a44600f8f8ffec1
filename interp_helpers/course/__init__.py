"""The course around the experiments: exercises with checks that say why, predictions, quizzes and progress.

What the exercises and quizzes say stands in `interp_helpers.lessons`; this is the machinery, which knows nothing of models.

>>> from interp_helpers.course import check, solution, predict, reveal, quiz, progress
"""

from .exercises import (
    NotYet,
    Verdict,
    check,
    exercise,
    hint,
    passes,
    require,
    require_attempted,
    require_number,
    require_returned,
    solution,
)
from .expectations import expect, written_for
from .predictions import predict, reveal
from .progress import progress, reset_progress
from .quizzes import quiz
from .registry import UnknownId
from .render import short

__all__ = [
    "NotYet",
    "UnknownId",
    "Verdict",
    "check",
    "exercise",
    "expect",
    "hint",
    "passes",
    "predict",
    "progress",
    "quiz",
    "require",
    "require_attempted",
    "require_number",
    "require_returned",
    "reset_progress",
    "reveal",
    "short",
    "solution",
    "written_for",
]
