"""Experiments whose result is a map: one number for each site."""

from .direct_effects import DirectEffects, direct_logit_attribution, frozen_norm
from .heads import Head, average_share, confirm_heads, strongest_heads
from .live import LivePatches, laid_over, live_events
from .names import patch_names
from .patching import attribution_sweep, patch_sweep, wrong_source_control
from .probing import (
    Erasure,
    Probe,
    ProbeAccuracy,
    at_last_token,
    fit_probe,
    mean_difference,
    probe,
    probe_bars,
    probe_curves,
    push_heads,
    share_left,
)
from .sweep import Sweep, by_place
from .tracing import average_traces, causal_trace, draws, embedding_std

__all__ = [
    "DirectEffects",
    "Erasure",
    "Head",
    "LivePatches",
    "Probe",
    "ProbeAccuracy",
    "Sweep",
    "at_last_token",
    "attribution_sweep",
    "average_share",
    "average_traces",
    "by_place",
    "causal_trace",
    "confirm_heads",
    "direct_logit_attribution",
    "draws",
    "embedding_std",
    "fit_probe",
    "frozen_norm",
    "laid_over",
    "live_events",
    "mean_difference",
    "patch_names",
    "patch_sweep",
    "probe",
    "probe_bars",
    "probe_curves",
    "push_heads",
    "share_left",
    "strongest_heads",
    "wrong_source_control",
]
