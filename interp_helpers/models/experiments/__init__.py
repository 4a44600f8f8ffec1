"""What `anatomy` finds and proves a model's parts by."""

from .heads import TOKENS, Heads, Turning, hypotheses
from .parts import Part, parts_of
from .watch import Watch, close, same

__all__ = ["TOKENS", "Heads", "Part", "Turning", "Watch", "close", "hypotheses", "parts_of", "same"]
