"""Explorers: an experiment with handles, for a notebook.

An explorer recomputes with the library what the lesson computed, for whatever the reader chooses. Where widgets don't
run, it shows its present state as HTML, or as text. Each lives in a module of its own.

    patching_explorer(lm, pairs("capital"))
    lens_explorer(lm, ["The capital of Spain is"])
    rotation_explorer()
    steering_explorer(lm, {"happy": vector}, ["Yesterday we"])
    space_explorer(lm, {"cats": texts, "others": other_texts})
    contrast_builder(lm, layer=24)
"""

from .contrast import contrast_builder
from .lens import lens_explorer
from .patching import patching_explorer
from .positions import heads_explorer
from .rotation import rotation_explorer
from .space import space_explorer
from .steering import steering_explorer
from .tracing import tracing_explorer

__all__ = [
    "contrast_builder",
    "heads_explorer",
    "lens_explorer",
    "patching_explorer",
    "rotation_explorer",
    "space_explorer",
    "steering_explorer",
    "tracing_explorer",
]
