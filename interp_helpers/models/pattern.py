"""The attention pattern, shown and changed: an attention function that transformers is told of.

transformers' models leave the softmax and what belongs to it to a function that their configuration names. This one computes what the
models' own does, with nothing fused, and hands its pattern to whoever looks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig
from transformers.masking_utils import eager_mask

Look = Callable[[Tensor], Tensor | None]
NAME = "glass_box"
_looks: WeakKeyDictionary[nn.Module, OrderedDict[int, Look]] = WeakKeyDictionary()


def attention(module, query, key, value, attention_mask=None, scaling=None, softcap=None, s_aux=None, **_):
    """What each head of each query gives (batch, query, head, d), and the pattern (batch, head, query, key). Sinks (`s_aux`)
    have a share of the softmax and give nothing."""
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * (scores / softcap).tanh() if softcap else scores
    queries, keys = scores.shape[-2:]
    if attention_mask is None and getattr(module, "is_causal", True):
        attention_mask = torch.ones(queries, keys, dtype=torch.bool, device=scores.device).tril(keys - queries)
    if attention_mask is not None:
        mask = attention_mask[..., :keys]
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min) if mask.dtype == torch.bool else scores + mask
    if s_aux is not None:
        scores = torch.cat([scores, s_aux.view(1, -1, 1, 1).expand(*scores.shape[:3], 1)], -1)
    pattern = scores.softmax(-1, dtype=torch.float32).to(query.dtype)[..., :keys]
    for look in [*_looks.get(module, {}).values()]:
        new = look(pattern)
        pattern = pattern if new is None else new
    return (pattern @ value).transpose(1, 2).contiguous(), pattern


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, eager_mask)


@contextmanager
def shown_attention(model: nn.Module) -> Iterator[None]:
    """While it lasts, the model's attention is the function above."""
    configs = [getattr(module, "config", None) for module in model.modules()]
    configs = {id(config): config for config in configs if isinstance(config, PretrainedConfig)}
    were = [(config, config._attn_implementation) for config in configs.values()]
    try:
        for config, _ in were:
            config._attn_implementation = NAME
        yield
    finally:
        for config, name in reversed(were):
            config._attn_implementation = name


@contextmanager
def nobody_looking() -> Iterator[None]:
    """While it lasts, those who look at patterns rest; whoever begins meanwhile doesn't."""
    kept = dict(_looks)
    _looks.clear()
    try:
        yield
    finally:
        _looks.clear()
        _looks.update(kept)


def looking_at(attention: nn.Module, look: Look) -> RemovableHandle:
    """Show `look` each pattern of an attention module; what it returns, unless None, takes the pattern's place. The handle is a
    context manager, which ends it on leaving."""
    looks = _looks.setdefault(attention, OrderedDict())
    handle = RemovableHandle(looks)
    looks[handle.id] = look
    return handle
