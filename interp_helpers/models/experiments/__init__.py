"""What `anatomy` finds and proves a model's parts by."""

from .heads import TOKENS, Heads, Turning, hypotheses
from .middle import middles
from .parts import Part, parts_of
from .watch import Watch, close, same

__all__ = ["TOKENS", "Heads", "Part", "Turning", "Watch", "close", "hypotheses", "middles", "parts_of", "same"]
