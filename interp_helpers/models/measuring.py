"""A model as it is measured: in evaluation mode, and not compiled."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch import nn
from transformers import PreTrainedModel

ALONE = threading.RLock()  # held while a model runs, or has hooks on it: one thread's runs wait for another's


@contextmanager
def measuring(module: nn.Module) -> Iterator[None]:
    """While the block lasts nothing is dropped out, and what was compiled runs as it was written, so that hooks are seen.
    Afterwards every module is in the mode that it was in."""
    with ALONE:
        training = [part for part in module.modules() if part.training]
        for part in training:
            part.training = False
        try:
            with as_written():
                yield
        finally:
            for part in training:
                part.training = True


def as_written():
    """A context in which what torch.compile made runs uncompiled. (Where its machinery was never loaded nothing is compiled,
    and loading it takes seconds.)"""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    import torch

    return torch.compiler.set_stance("force_eager")


def entered(model: nn.Module) -> nn.Module:
    """The model itself, out of the wrappers that change nothing but how it is called: torch.compile's, and PEFT's whose adapters
    are in the model.

    Raises:
        ValueError: a wrapper of another kind.
    """
    if hasattr(model, "_orig_mod"):
        return entered(model._orig_mod)
    if hasattr(model, "get_base_model") and hasattr(model, "peft_config"):
        if any(config.is_prompt_learning for config in model.peft_config.values()):
            raise ValueError(
                f"{type(model).__name__} puts learnt vectors before every prompt, so that positions would be others than the prompt's: "
                "give the model without them, .get_base_model()."
            )
        return entered(model.get_base_model())
    if not isinstance(model, PreTrainedModel):
        inside = next(((n, m) for n, m in model.named_modules() if isinstance(m, PreTrainedModel)), None)
        if inside:
            raise ValueError(
                f"A {type(model).__name__} around a model was given, and hooks need the model itself: give the {type(inside[1]).__name__} "
                f"inside, .{inside[0]}."
            )
    return model
