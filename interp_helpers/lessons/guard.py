"""After every check the model is as it was: what an answer left on it is taken off, and said."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import nn

from .. import LanguageModel
from ..models import ALONE

OURS = ("transformers.", "accelerate.", "peft.", "torch.")  # whose hooks belong to a model
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_weights: WeakKeyDictionary[LanguageModel, dict[str, int]] = WeakKeyDictionary()  # as they were at the first check


@contextmanager
def untouched(given: dict) -> Iterator[list[str]]:
    """Around a check: take off what the answer's cell has left on the models, and what its function leaves there. What was found is in
    the list, a sentence each, when the block ends.

    >>> with untouched({"lm": lm}) as left:
    ...     handle = lm.model.lm_head.register_forward_hook(print)
    >>> left
    ['your code leaves a hook on the model, …: it is taken off now']

    Args:
        given: what the notebook hands to the check, by name. A model that it doesn't hand over is looked for in the notebook.
    """
    models = {id(value): value for value in (*given.values(), *_in_the_notebook()) if isinstance(value, LanguageModel)}
    left: list[str] = []
    for lm in models.values():
        _put_right(lm, left)
    try:
        yield left
    finally:
        for lm in models.values():
            _put_right(lm, left)
        left[:] = dict.fromkeys(left)


def _in_the_notebook() -> list:
    return list(vars(sys.modules["__main__"]).values())


def _put_right(lm: LanguageModel, left: list[str]) -> None:
    if not torch.is_grad_enabled():
        torch.set_grad_enabled(True)
        left.append(
            "your code switches gradients off for all that follows; they are on again. "
            "Inside `with torch.no_grad():` they are off for a block only"
        )
    if lm.running.interventions:
        for end in reversed(list(lm.running.interventions)):
            end()
        left.append(
            "your code leaves an `intervene` open, so every later run would be edited; it is closed now. "
            "`with intervene(lm, …):` closes it by itself"
        )
    with ALONE:  # another thread's hooks are its own
        number = sum(_unhook(module) for module in lm.model.modules())
    if number:
        hooks, are = ("a hook", "it is") if number == 1 else (f"{number} hooks", "they are")
        left.append(
            f"your code leaves {hooks} on the model, so every later run would be changed; {are} taken off now. "
            "A hook stays until its handle's `.remove()` is called; `with intervene(lm, …):` removes its own"
        )
    if any(module.training for module in lm.model.modules()):
        lm.model.eval()
        left.append(
            "your code leaves the model in training mode, where numbers are dropped at random; it is in evaluation mode again"
        )
    for parameter in lm.model.parameters():
        parameter.grad = None
    now = {name: _fingerprint(weight) for name, weight in lm.model.named_parameters() if weight.device.type != "meta"}
    before = _weights.setdefault(lm, now)
    if changed := [name for name in now if now[name] != before.get(name)]:
        _weights[lm] = now
        left.append(
            f"your code has changed the model's weights ({changed[0]}{', …' if len(changed) > 1 else ''}), and every later number with them: "
            "run the cell with `load_model` again"
        )


def _unhook(module: nn.Module) -> int:
    """Take off a module's hooks, but for those of libraries, and a function put in its forward's place; says how many there were."""
    found = 0
    for kind in HOOKS:
        hooks = getattr(module, kind)
        for number, hook in list(hooks.items()):
            if not getattr(inspect.unwrap(hook), "__module__", "").startswith(OURS):
                del hooks[number]
                found += 1
    forward = module.__dict__.get("forward")
    if forward is not None and getattr(forward, "__module__", "") == "__main__":
        del module.forward
        found += 1
    return found


def _fingerprint(weight: torch.Tensor) -> int:
    """A number that another weight hardly has: the sum of its bits, read as whole numbers."""
    flat, size = weight.detach().flatten(), weight.element_size()
    eights = flat.numel() * size % 8 == 0 and flat.storage_offset() * size % 8 == 0  # the fastest to read
    return int(flat.view(torch.int64 if eights else torch.uint8).sum(dtype=torch.int64))
