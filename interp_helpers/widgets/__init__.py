"""Explorers: an experiment with handles, for a notebook.

An explorer recomputes with the library what the lesson computed, for whatever the reader chooses. Where widgets don't
run, it shows its present state as HTML, or as text. Each is a class in a module of its own, named like the functions
of the library, since a notebook calls it as one.
"""

from .contrast import contrast_builder
from .lens import lens_explorer
from .live import LIVE_VIEW, live_patching
from .positions import heads_explorer
from .rotation import rotation_explorer
from .space import space_explorer
from .steering import steering_explorer
from .tracing import tracing_explorer

__all__ = [
    "LIVE_VIEW",
    "contrast_builder",
    "heads_explorer",
    "lens_explorer",
    "live_patching",
    "rotation_explorer",
    "space_explorer",
    "steering_explorer",
    "tracing_explorer",
]
