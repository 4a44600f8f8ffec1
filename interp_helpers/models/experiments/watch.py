"""A run of a few tokens, watched: what every module is given and what it returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from ..measuring import measuring


class Watch:
    """A run of a few tokens, and what every module (or those of some names) was seen to be given and to return: tensors
    (batch, position, features). `change(name, side, tensor)` may replace what passes. Nobody else's hooks act meanwhile.
    """

    def __init__(self, model: nn.Module, ids: Tensor, change: Callable[[str, str, Tensor], Tensor | None], names=None):
        self.model, self.ids, self.shape = model, ids, ids.shape
        self.order: list[tuple[str, str]] = []
        self.calls: Counter[str] = Counter()
        self._seen: dict[tuple[str, str], Tensor | None] = {}

        def look(name: str, side: str, tensor) -> Tensor | None:
            if not isinstance(tensor, Tensor):
                return None
            new = change(name, side, tensor)
            if (name, side) not in self._seen:
                self.order.append((name, side))
                tensor = new if new is not None and side == "input" else tensor
                # A copy, for some models add to it in place.
                self._seen[name, side] = tensor if tensor.is_meta else self._flat(tensor.clone())
            return new

        def entering(name: str):
            def hook(module, args, kwargs):
                self.calls[name] += 1
                new = look(name, "input", args[0] if args else kwargs.get("hidden_states"))
                if new is not None:
                    return ((new, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": new})

            return hook

        def leaving(name: str):
            def hook(module, args, output):
                if isinstance(output, Tensor):
                    return look(name, "output", output)
                new = look(name, "output", next(iter(output.values() if isinstance(output, dict) else output), None))
                if new is not None:
                    return type(output)([new, *output[1:]])

            return hook

        with measuring(model), without_hooks(model), torch.no_grad(), ExitStack() as stack:
            for name, module in model.named_modules():
                if names is None or name in names:
                    stack.enter_context(module.register_forward_pre_hook(entering(name), with_kwargs=True))
                    stack.enter_context(module.register_forward_hook(leaving(name)))
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)

    def _flat(self, tensor: Tensor) -> Tensor | None:
        """(batch, position, features), also of (batch · position, features); None of anything else."""
        if tensor.ndim == 2 and len(tensor) == self.shape.numel():
            return tensor.unflatten(0, self.shape)
        return tensor if tensor.ndim == 3 and tensor.shape[:2] == self.shape else None

    def into(self, name: str) -> Tensor | None:
        return self._seen.get((name, "input"))

    def out_of(self, name: str) -> Tensor | None:
        return self._seen.get((name, "output"))

    def within(self, block: str) -> Iterator[tuple[int, Tensor]]:
        """What passed in a block, in order, numbered."""
        for i, key in enumerate(self.order):
            if f"{key[0]}.".startswith(f"{block}.") and self._seen[key] is not None:
                yield i, self._seen[key]

    def chained(self, names: list[str]) -> bool:
        """Was each called once, and given what the one before returned?"""
        known = all(self.calls[n] == 1 and self.into(n) is not None and self.out_of(n) is not None for n in names)
        return known and all(same(self.out_of(a), self.into(b)) for a, b in zip(names, names[1:], strict=False))

    def width(self, name: str) -> int | None:
        """Of what a module returns."""
        return None if self.out_of(name) is None else self.out_of(name).shape[-1]

    def outermost(self, within: str, which: Callable[[str], bool] = lambda name: True) -> list[str]:
        """The modules in one (but not itself) that were called and are of some kind, in order; not those within these."""
        found: list[str] = []
        inside = [name for name in self.calls if name.startswith(f"{within}.")]
        for name in inside:
            if not any(name.startswith(f"{n}.") for n in found) and which(name):
                found.append(name)
        return found

    def linear(self, name: str) -> bool:
        """Is it a linear map? What an adapter wraps counts as one."""
        module = self.model.get_submodule(name)
        weight = getattr(module, "weight", None)
        matrix = isinstance(weight, Tensor) and weight.ndim == 2 and not isinstance(module, nn.Embedding)
        return matrix or hasattr(module, "in_features")

    def has_matrix(self, name: str) -> bool:
        parameters = self.model.get_submodule(name).parameters()
        return self.linear(name) or any(p.ndim > 1 for p in parameters) or bool(self.outermost(name, self.linear))

    def mixed(self, tensor: Tensor | None) -> bool:
        """Do the two rows, whose first tokens differ, differ at later ones?"""
        return tensor is not None and not close(tensor[1, 1:], tensor[0, 1:])


def adds(total: Tensor, *parts: Tensor) -> bool:
    """Is the total a weighted sum of all these? (The first token is left out, where trained models have huge values.)"""
    u, *columns = (t[:, 1:].cpu().double().flatten() for t in (total, *parts))
    basis = torch.stack([c / c.norm().clamp(min=1e-30) for c in columns], 1)
    gram = basis.T @ basis
    if torch.linalg.det(gram) < 1e-9:
        return False
    weights = torch.linalg.solve(gram, basis.T @ u)
    return bool((u - basis @ weights).norm() < 20 * noise(total) * weights.abs().min())


def same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None or one.shape != other.shape:
        return False
    return one is other or (not one.is_meta and torch.equal(one, other.to(one.device)))


def close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= 10 * noise(one) * one.abs().max())


def noise(tensor: Tensor) -> float:
    """What rounding may do to numbers of a tensor's kind, in their own size, generously."""
    return 5e-5 if tensor.dtype in (torch.float32, torch.float64) else 5e-3


@contextmanager
def without_hooks(model: nn.Module) -> Iterator[None]:
    """While it lasts, nobody's hooks act in the model."""
    places = [hooks for module in model.modules() for hooks in (module._forward_hooks, module._forward_pre_hooks)]
    kept = [dict(hooks) for hooks in places]
    for hooks in places:
        hooks.clear()
    try:
        yield
    finally:
        for hooks, were in zip(places, kept, strict=True):
            hooks.clear()
            hooks.update(were)
