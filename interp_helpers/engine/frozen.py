"""A module as it stands: no weight asks for gradients, and nothing is dropped."""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch import nn

from ..models import measuring


@contextmanager
def frozen(module: nn.Module):
    """While the block lasts no weight asks for gradients, and dropout is off."""
    weights = [p for p in module.parameters() if p.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        with measuring(module):
            yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def require_gradients() -> None:
    """
    Raises:
        ValueError: inside `torch.inference_mode`, where there are none.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "Nothing can be learnt inside torch.inference_mode(), where no tensor has a gradient: leave it first, or take "
            "torch.no_grad() in its place."
        )
