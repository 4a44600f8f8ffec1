"""Banks of prompts, and which of them this model gets right."""

from .banks import (
    Fact,
    IOIPrompt,
    Pair,
    Statement,
    facts,
    ioi,
    ioi_places,
    known,
    pairs,
    pronouns,
    truths,
    wrong_sources,
)

__all__ = [
    "Fact",
    "IOIPrompt",
    "Pair",
    "Statement",
    "facts",
    "ioi",
    "ioi_places",
    "known",
    "pairs",
    "pronouns",
    "truths",
    "wrong_sources",
]
