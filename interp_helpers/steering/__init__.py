"""A direction added while the model writes: vectors, how they are built, and whether they work."""

from .build import pooled
from .chat import chat_prompt
from .fair_test import FairTest, fair_test, score_table
from .personas import Persona, personas, prompts, saved_vector, vector_path
from .report import results
from .scores import SAMPLING, Scores, perplexity, steering_scores, topic_scores, wilson
from .strengths import layer_sweep
from .vector import WHERE, SteeringVector
from .words import count_words, finder, first_words

__all__ = [
    "SAMPLING",
    "WHERE",
    "FairTest",
    "Persona",
    "Scores",
    "SteeringVector",
    "chat_prompt",
    "count_words",
    "fair_test",
    "finder",
    "first_words",
    "layer_sweep",
    "perplexity",
    "personas",
    "pooled",
    "prompts",
    "results",
    "saved_vector",
    "score_table",
    "steering_scores",
    "topic_scores",
    "vector_path",
    "wilson",
]
