"""Which directions carry a variable: distributed alignment search (Geiger et al. 2023)."""

from .compare import compare_subspaces
from .counterfactuals import Counterfactual, counterfactual_pairs
from .subspaces import BoundlessSubspace, RotatedSubspace, class_means, principal_angles, principal_components
from .train import interchange_accuracy, interchange_logits, train_das

__all__ = [
    "BoundlessSubspace",
    "Counterfactual",
    "RotatedSubspace",
    "class_means",
    "compare_subspaces",
    "counterfactual_pairs",
    "interchange_accuracy",
    "interchange_logits",
    "principal_angles",
    "principal_components",
    "train_das",
]
