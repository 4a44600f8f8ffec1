"""The same run many times, cheaply: what every sweep and DAS is computed with."""

from .cells import Cell, runs
from .frozen import frozen, require_gradients
from .grid import Grid, window_of
from .resume import Run, can_resume

__all__ = ["Cell", "Grid", "Run", "can_resume", "frozen", "require_gradients", "runs", "window_of"]
