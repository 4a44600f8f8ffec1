"""Glass Box: helpers for causal interpretability of language models. See `hooks` for the idea in one breath."""

import os
import sys

if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
    # torch's threads wait for each other by spinning, and stall where other programs share the cores; so they spin briefly,
    # then sleep. torch reads this while it is loaded, and only then.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from .activations import Activations
from .das import (
    BoundlessSubspace,
    Counterfactual,
    RotatedSubspace,
    class_means,
    compare_subspaces,
    counterfactual_pairs,
    interchange_accuracy,
    interchange_logits,
    principal_angles,
    principal_components,
    train_das,
)
from .edits import add, apply, clamp, knock_out, mean_ablate, noise, project_out, replace, swap_subspace, zero
from .hooks import intervene, record
from .metrics import kl_divergence, logit_diff, probability, rank
from .models import LanguageModel, load_model
from .prompts import facts, ioi, known, pairs, pronouns, truths, wrong_sources
from .sites import Site
from .steering import SAMPLING, SteeringVector, fair_test, layer_sweep, personas, steering_scores
from .sweeps import (
    Sweep,
    attribution_sweep,
    average_traces,
    causal_trace,
    direct_logit_attribution,
    embedding_std,
    patch_sweep,
    wrong_source_control,
)

__all__ = [
    "SAMPLING",
    "Activations",
    "BoundlessSubspace",
    "Counterfactual",
    "LanguageModel",
    "RotatedSubspace",
    "Site",
    "SteeringVector",
    "Sweep",
    "add",
    "apply",
    "attribution_sweep",
    "average_traces",
    "causal_trace",
    "clamp",
    "class_means",
    "compare_subspaces",
    "counterfactual_pairs",
    "direct_logit_attribution",
    "embedding_std",
    "facts",
    "fair_test",
    "interchange_accuracy",
    "interchange_logits",
    "intervene",
    "ioi",
    "kl_divergence",
    "knock_out",
    "known",
    "layer_sweep",
    "load_model",
    "logit_diff",
    "mean_ablate",
    "noise",
    "pairs",
    "patch_sweep",
    "personas",
    "principal_angles",
    "principal_components",
    "probability",
    "project_out",
    "pronouns",
    "rank",
    "record",
    "replace",
    "steering_scores",
    "swap_subspace",
    "train_das",
    "truths",
    "wrong_source_control",
    "wrong_sources",
    "zero",
]
