"""Experiments whose result is a map: one number for each site."""

from .direct_effects import DirectEffects, direct_logit_attribution, frozen_norm
from .patching import attribution_sweep, patch_sweep, wrong_source_control
from .sweep import Sweep, by_place
from .tracing import average_traces, causal_trace, draws, embedding_std

__all__ = [
    "DirectEffects",
    "Sweep",
    "attribution_sweep",
    "average_traces",
    "by_place",
    "causal_trace",
    "direct_logit_attribution",
    "draws",
    "embedding_std",
    "frozen_norm",
    "patch_sweep",
    "wrong_source_control",
]
