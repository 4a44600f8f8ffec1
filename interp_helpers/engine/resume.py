"""Resume a run from a block: the engine under every sweep.

A sweep runs one prompt hundreds of times, each time with another site patched. Nearly all of that work is the same
work again: before the patched block nothing has changed, and neither has anything at the tokens before the patched one, for a
causal model's tokens see only what precedes them. So the base run is captured once (the stream entering each block, the
arguments that the block was called with, its keys and values), and a patched run is *resumed*: it joins at the patched
block, at the patched token, as one row of a batch that grows as later blocks' patches join it. Blocks are the model's own,
called as the model called them, so nothing here knows an architecture. Whether that works, on this model as it stands, is never
taken for granted: whoever resumes runs some of the same runs whole, too, and `agree` compares them.
"""

from __future__ import annotations

import inspect
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from transformers import DynamicCache

from ..hooks import Edit, hooked_at, intervene
from ..models import Layout

Put = Callable[[int], Callable[[Tensor], Tensor] | None]
_asked: ContextVar[Callable[[], bool]] = ContextVar("asked", default=lambda: False)


class Stopped(Exception):
    """A sweep was asked to stop, by `stop_when`."""


@contextmanager
def stop_when(asked: Callable[[], bool]) -> Iterator[None]:
    """While the block lasts, `patch_sweep` and `causal_trace` in this thread raise `Stopped` soon after `asked()` is true: within a forward pass or so."""
    before = _asked.set(asked)
    try:
        yield
    finally:
        _asked.reset(before)


def stop_if_asked() -> None:
    """
    Raises:
        Stopped: `stop_when` says so.
    """
    if _asked.get()():
        raise Stopped


class Run:
    """A base run, captured so that it can be resumed.

    Args:
        lm: a `LanguageModel`.
        tokens: the prompts, as from `lm.tokens`.
        edits: made in the run.
        since: the first layer that it will be resumed from; what only earlier ones would need is let go.

    Attributes:
        streams: the residual stream (row, column, d) entering each block; last, the one leaving the last block.
        last: the column of each row's last token.
        logits: the model's own (row, vocab) at each row's last token.
    """

    def __init__(self, lm, tokens: Tensor, edits: Sequence[Edit] = (), since: int = 0):
        self.lm, self.streams, self._calls = lm, [], []
        mask = tokens.attention_mask
        self.layout = Layout(mask)
        self.last = torch.tensor(self.layout.starts) + torch.tensor(self.layout.lengths) - 1
        cache = DynamicCache()

        def entering(block, args, kwargs) -> None:
            given = inspect.signature(block.forward).bind(*args, **kwargs)
            named = {k: v for k, v in given.arguments.items() if not isinstance(v, dict)}
            for rest in (v for v in given.arguments.values() if isinstance(v, dict)):
                named |= rest
            stream = named.pop(next(iter(named)))
            self.streams.append(stream if len(self.streams) >= since else None)
            self._calls.append(named)

        with ExitStack() as stack:
            if edits:
                stack.enter_context(intervene(lm, *edits))
            for block in lm.anatomy.blocks:
                stack.enter_context(block.register_forward_pre_hook(entering, with_kwargs=True))
            stack.enter_context(hooked_at(lm.anatomy.place("block_output", lm.n_layers - 1), self.streams.append))
            self.logits = lm.next_token_logits(tokens, past_key_values=cache, use_cache=True)
        self._keys = [layer.keys if i >= since else None for i, layer in enumerate(cache.layers)]
        self._values = [layer.values if i >= since else None for i, layer in enumerate(cache.layers)]

    def resume(self, component: str, layers: Sequence[int], rows: Tensor, first: int, put: Put) -> Tensor:
        """The stream (row, d) that leaves the last block at each row's last token, with a component changed on the way.

        Args:
            component: what is changed.
            layers: for each row the first layer where it is; in ascending order, for a row joins the others there.
            rows: which of the base's rows each one is.
            first: the column from which on they are run; the tokens before are the base's.
            put: from a layer to a function of what passes there, (row, column, …) for the rows that have joined, which
                returns it changed, or to None. Gradients flow through it.
        """
        n, shift = self.lm.n_layers, component == "block_output"  # what leaves a block is what enters the next
        inside = component not in ("block_input", "block_output")
        h, joined = self.streams[-1][:0, first:], 0
        for layer in range(layers[0] + shift, n + 1):
            stop_if_asked()
            until = bisect_right(layers, layer - shift)
            if until > joined:
                h, joined = torch.cat([h, self.streams[layer][rows[joined:until], first:]]), until
            change = put(layer - shift) if layer - shift in range(n) else None
            if change and not inside:
                h = change(h)
            if layer < n:
                with self._inside(component, layer, change if inside else None, rows[:joined], first):
                    h = self.call_block(layer, h, rows[:joined], first)
        return h[torch.arange(len(rows)), self.last[rows] - first]

    @contextmanager
    def _inside(self, component: str, layer: int, put: Callable | None, rows: Tensor, first: int) -> Iterator[None]:
        """While it lasts, `put` patches a component within block `layer`. Where there is nothing to patch and the block is the last,
        only each row's last token goes through the attention's projection and through the MLP, since nothing else is read of what
        leaves it: added to the stream, it is broadcast over the other tokens, where it means nothing."""
        hooks = {component: put} if put else {}
        narrow = ("attention_value_output", "mlp_input")
        if not put and layer == self.lm.n_layers - 1 and all(self.lm.anatomy.offers(c, layer) for c in narrow):
            last = torch.arange(len(rows)), self.last[rows] - first

            def only_last(tensor: Tensor) -> Tensor | None:
                return tensor[last][:, None] if tensor.ndim == 3 else None  # OPT's MLP is given (row · column, d)

            hooks = dict.fromkeys(narrow, only_last)
        with ExitStack() as stack:
            for name, change in hooks.items():
                stack.enter_context(hooked_at(self.lm.anatomy.place(name, layer), change))
            yield

    def call_block(self, layer: int, h: Tensor, rows: Tensor, first: int) -> Tensor:
        """Block `layer` on the tokens from column `first` on of some rows; the tokens before are the base run's."""
        batch, columns = self.streams[-1].shape[:2]
        before = [
            kept[:, :, :first].expand(len(rows), -1, -1, -1) if batch == 1 else kept[rows, :, :first]
            for kept in (self._keys[layer], self._values[layer])
        ]

        def cut(name: str, value):
            if name == "attention_mask" and value is None and first:
                value = torch.ones(columns, columns, dtype=torch.bool, device=h.device).tril()[None, None]
            if isinstance(value, tuple):
                return tuple(cut(name, part) for part in value)
            if isinstance(value, DynamicCache):
                return _Before(*before)
            if not isinstance(value, Tensor) or name == "logits_to_keep":  # of the model's head
                return value
            if name == "cache_position":
                return value[first:]
            axis = {"attention_mask": -2, "position_ids": -1}.get(
                name, -2 if name.startswith("position_embeddings") else None
            )
            if axis is None or value.shape[axis] != columns or len(value) not in (1, batch):
                raise ValueError(f"A block was called with {name}, which can't be cut to some rows and columns.")
            value = value.narrow(axis, first, columns - first)
            return value if len(value) == 1 else value[rows]

        named = {name: cut(name, value) for name, value in self._calls[layer].items()}
        out = self.lm.anatomy.blocks[layer](h, **named)
        return out[0] if isinstance(out, tuple) else out


class _Before:
    """Stands in for a key-value cache: the earlier tokens' keys and values, which stay as they are."""

    def __init__(self, keys: Tensor, values: Tensor):
        self.keys, self.values = keys, values

    def update(self, keys: Tensor, values: Tensor, *_, **__) -> tuple[Tensor, Tensor]:
        return torch.cat([self.keys, keys], -2), torch.cat([self.values, values], -2)


def can_resume(lm) -> bool:
    """Whether it is worth trying: nobody's code is in the model that may expect whole runs, and the attention is one that takes
    some of a run's tokens."""
    kernel = getattr(lm.model.config, "_attn_implementation", None)
    return not lm.running.interventions and kernel in ("eager", "sdpa") and not _hooked(lm)


def agree(resumed: Tensor, whole: Tensor) -> bool:
    """Are two runs' logits (row, vocab) the same in each row but for rounding? What is the same for all words doesn't count."""
    tolerance = 1e-4 if torch.finfo(whole.dtype).bits >= 32 else 3e-2
    size = (whole - whole.mean(-1, keepdim=True)).float().norm(dim=-1)
    return bool(((resumed - whole).float().norm(dim=-1) <= tolerance * size).all())


def tell_whole(lm) -> None:
    """The notice that resumed runs were not what whole runs are."""
    warnings.warn(
        f"On {lm.name} a run that is resumed from a block isn't what a whole run is, so every run is a whole one, which is slower and "
        "exact: something in the model acts on some tokens only, as adapters and editing methods do.",
        stacklevel=2,
    )


def _hooked(lm) -> bool:
    """Is somebody's code in the model, which may expect whole runs: hooks, or a block's `forward` put in another's place?
    (transformers leaves some hooks of its own.)"""
    everywhere = torch.nn.modules.module
    hooks = [*everywhere._global_forward_hooks.values(), *everywhere._global_forward_pre_hooks.values()]
    for module in lm.model.modules():
        hooks += [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    foreign = any(not getattr(hook, "__module__", "").startswith("transformers.") for hook in hooks)
    return foreign or any("forward" in vars(block) for block in lm.anatomy.blocks)
