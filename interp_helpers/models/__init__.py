"""Having a model: the wrapper, its parts, positions to rows and columns, and where models come from."""

from .anatomy import COMPONENTS, PER_HEAD, Place
from .language_model import LanguageModel
from .load import OFFLINE, load_model
from .measuring import ALONE, as_written, measuring
from .offline import cache_folder
from .pattern import looking_at, shown_attention
from .tokens import Layout, Spots, as_int, as_ints, as_list, as_positions, as_texts, one_a_row, take
from .words import Asked

__all__ = [
    "ALONE",
    "Asked",
    "COMPONENTS",
    "LanguageModel",
    "Layout",
    "OFFLINE",
    "PER_HEAD",
    "Place",
    "Spots",
    "as_int",
    "as_ints",
    "as_list",
    "as_positions",
    "as_texts",
    "as_written",
    "cache_folder",
    "load_model",
    "looking_at",
    "measuring",
    "one_a_row",
    "shown_attention",
    "take",
]
