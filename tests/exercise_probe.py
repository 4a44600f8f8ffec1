"""The part of the exercise harness that runs in the notebook's kernel: names are kept, and wrong answers tried in copies of them.

Only a language model with its tokenizer and hooks, and widgets, are shared; after each exercise `untouched` compares the models, bit
for bit, with what they were at the first exercise.
"""

from __future__ import annotations

import ast
import copy
import gc
from functools import wraps
from types import FunctionType, ModuleType

import plain
import torch
from IPython import get_ipython
from ipywidgets import Widget
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from interp_helpers import LanguageModel

IPYTHONS = {"In", "Out", "get_ipython", "exit", "quit", "open"}
_kept: dict[str, dict] = {}  # {exercise: its names}
_before: dict[str, tuple[LanguageModel, dict]] = {}  # {name: the model, and all that must stay as it was}

_copy_of_a_leaf = torch.Tensor.__deepcopy__


def _copy_of_a_tensor(tensor: torch.Tensor, memo: dict) -> torch.Tensor:
    """torch's, which refuses a tensor that was computed with gradients: its copy begins a graph of its own."""
    if tensor.is_leaf:
        return _copy_of_a_leaf(tensor, memo)
    memo[id(tensor)] = tensor.detach().clone().requires_grad_()
    return memo[id(tensor)]


torch.Tensor.__deepcopy__ = _copy_of_a_tensor
for shared in (LanguageModel, PreTrainedModel, PreTrainedTokenizerBase, RemovableHandle, Widget):
    shared.__deepcopy__ = lambda self, memo: self


class Copy(dict):
    """A copy of a namespace, in which a name is copied when it is first looked up. Functions that were written there look up here."""

    def __init__(self, names: dict):
        super().__init__(__name__="__main__")
        self.names = names
        self.memo = {
            id(f): FunctionType(f.__code__, self, f.__name__, f.__defaults__, f.__closure__)
            for f in gc.get_referrers(names)
            if isinstance(f, FunctionType)
        }

    def __missing__(self, name: str):
        if name.startswith("_") or name in IPYTHONS:
            raise KeyError(name)
        value = self.names[name]
        self[name] = value if isinstance(value, ModuleType) else copy.deepcopy(value, self.memo)
        return self[name]


def keep(id: str) -> None:
    """Copy all the kernel's names as they are after the exercise's cell, so that nothing that runs later can matter."""
    names = get_ipython().user_ns
    _kept[id] = Copy(names)
    for name in [name for name in names if not name.startswith("_") and name not in IPYTHONS]:
        if isinstance(_kept[id][name], LanguageModel) and name not in _before:
            _before[name] = names[name], plain.snapshot(names[name])


def attempt(id: str, code: str):
    """Run an exercise's cell with a wrong answer in it, in a copy of the names that it would have had; returns the verdict."""
    names = Copy(_kept[id])
    *body, call = ast.parse(code).body
    file = get_ipython().compile.cache(code)  # so that a check can show the line that failed
    exec(compile(ast.Module(body, []), file, "exec"), names)
    return eval(compile(ast.Expression(call.value), file, "eval"), names)


def attack(id: str, solved: str, call: str) -> None:
    """The solution, with something left on each language model by its cell, and by its function while that is checked: that must be said,
    and taken off. Raises AssertionError where it isn't."""
    names = Copy(_kept[id])
    exec(compile(solved, "<solution>", "exec"), names)
    models = [lm for lm, _ in _before.values()]
    judged = ast.parse(call).body[-1].value
    name = judged.args[1].id if isinstance(judged.args[1], ast.Name) else None
    answer = names.get(name)

    def verdict():
        return eval(call, names)

    def leave() -> None:
        for lm in models:
            lm.model.register_forward_hook(lambda *_: None)
            lm.model.train()
        torch.set_grad_enabled(False)

    def leaving(*args, **kwargs):
        leave()
        return answer(*args, **kwargs)

    if not models:
        return
    leave()
    says(verdict(), "hook", "training mode", "gradients off")
    if isinstance(answer, FunctionType):
        names[name] = wraps(answer)(leaving)
        says(verdict(), "hook", "training mode")  # a check may switch gradients off and on again
        names[name] = answer
    assert verdict().status == "correct", f"afterwards the solution gets {verdict().message!r}"


def says(verdict, *left: str) -> None:
    assert verdict.status == "not yet" and torch.is_grad_enabled(), f"{verdict.status}: {verdict.message}"
    for what in left:
        assert what in verdict.message, f"{what!r} isn't told: {verdict.message!r}"


def untouched() -> None:
    """Raises AssertionError where a model isn't what it was at the first exercise."""
    for lm, before in _before.values():
        plain.assert_untouched(lm, before)
