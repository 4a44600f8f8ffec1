"""Glass Box: helpers for causal interpretability of language models. See `hooks` for the idea in one breath."""

from .activations import Activations
from .counterfactuals import Counterfactual, counterfactual_pairs
from .das import interchange_accuracy, interchange_logits, train_das
from .das_compare import compare_subspaces, das_sweep
from .direct import direct_logit_attribution
from .edits import add, apply, clamp, mean_ablate, noise, project_out, replace, swap_subspace, zero
from .hooks import intervene, record
from .loading import load_model
from .metrics import kl_divergence, logit_diff, probability, rank
from .models import LanguageModel
from .patching import attribution_sweep, patch_sweep
from .persona import personas
from .prompts import facts, ioi, known, pairs, pronouns, truths
from .sites import Site
from .steering import SteeringVector
from .steering_scores import SAMPLING, steering_scores
from .steering_sweep import layer_sweep
from .subspaces import BoundlessSubspace, RotatedSubspace, class_means, principal_angles, principal_components
from .sweeps import Sweep
from .tracing import average_traces, causal_trace, embedding_std

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
    "das_sweep",
    "direct_logit_attribution",
    "embedding_std",
    "facts",
    "interchange_accuracy",
    "interchange_logits",
    "intervene",
    "ioi",
    "kl_divergence",
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
    "zero",
]
