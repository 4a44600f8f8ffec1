"""The same run many times, cheaply: what every sweep and DAS is computed with."""

from .cells import Cell, runs
from .frozen import frozen, require_gradients
from .grid import Grid, in_steps, window_of
from .resume import Run, Stopped, agree, can_resume, stop_if_asked, stop_when, tell_whole

__all__ = [
    "Cell",
    "Grid",
    "Run",
    "Stopped",
    "agree",
    "can_resume",
    "frozen",
    "in_steps",
    "require_gradients",
    "runs",
    "stop_if_asked",
    "stop_when",
    "tell_whole",
    "window_of",
]
