"""The same run many times, cheaply: what every sweep and DAS is computed with."""

from .cells import Cell, runs
from .frozen import frozen, require_gradients
from .grid import Grid, window_of
from .resume import Run, agree, can_resume, tell_whole

__all__ = [
    "Cell",
    "Grid",
    "Run",
    "agree",
    "can_resume",
    "frozen",
    "require_gradients",
    "runs",
    "tell_whole",
    "window_of",
]
