"""The content of the course: for each notebook a folder with its checks, its quiz and wrong answers. See README.md beside this file."""

from __future__ import annotations

from typing import NamedTuple


class Lesson(NamedTuple):
    folder: str  # beside this file
    prefix: str  # of its ids: 'patching' in 'patching.site'; never changed, or learners lose what they have done
    title: str  # in the table of progress


LESSONS = {
    "01_activation_patching": Lesson("activation_patching", "patching", "1 · Activation patching"),
    "02_causal_tracing": Lesson("causal_tracing", "tracing", "2 · Causal tracing"),
    "03_trainable_interventions": Lesson("trainable_interventions", "das", "3 · Trainable interventions"),
    "04_position_specific": Lesson("position_specific", "positions", "4 · Position-specific intervention"),
    "05_collecting_activations": Lesson("collecting_activations", "collecting", "5 · Collecting activations"),
    "06_generation_with_interventions": Lesson(
        "generation_with_interventions", "generation", "6 · Generation with interventions"
    ),
    "steering_workshop": Lesson("steering_workshop", "workshop", "Steering workshop"),
}
