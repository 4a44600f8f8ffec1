"""Where each family of models keeps its parts.

The field's names (`block_output`, `mlp_input`, …) mean the same in every transformer; the modules behind them are
called `transformer.h.3.mlp.c_proj` in one and `model.layers.3.mlp.down_proj` in the next. A `Family` is that
translation, in a few dotted paths; `Anatomy` checks it against a loaded model at once, so that a wrong path fails
here and not in a result.

To teach it a new family, add an entry to `FAMILIES` under the model's `config.model_type`, such as

    FAMILIES["my_model"] = Family(attention_projection="self_attn.dense", norm="model.final_norm")
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Family:
    """Dotted paths to a family's parts: `blocks` and `norm` from the model, the others from one block. What isn't named is
    where Llama keeps it.

    `query_key_value` names three projections, or a single one that computes all three at once. A fused one lays them
    out either as [all queries | all keys | all values], or, with `interleaved`, as query, key and value of head 0,
    then of head 1, and so on.
    """

    blocks: str = "model.layers"
    attention: str = "self_attn"
    attention_projection: str = "self_attn.o_proj"
    query_key_value: tuple[str, str, str] | str = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    mlp: str = "mlp"
    mlp_projection: str = "mlp.down_proj"
    norm: str = "model.norm"
    interleaved: bool = False


FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        blocks="transformer.h",
        attention="attn",
        attention_projection="attn.c_proj",
        query_key_value="attn.c_attn",
        mlp_projection="mlp.c_proj",
        norm="transformer.ln_f",
    ),
    "gpt_neox": Family(
        blocks="gpt_neox.layers",
        attention="attention",
        attention_projection="attention.dense",
        query_key_value="attention.query_key_value",
        mlp_projection="mlp.dense_4h_to_h",
        norm="gpt_neox.final_layer_norm",
        interleaved=True,
    ),
    "opt": Family(
        blocks="model.decoder.layers",
        attention_projection="self_attn.out_proj",
        mlp="fc1",
        mlp_projection="fc2",
        norm="model.decoder.final_layer_norm",
    ),
    "phi": Family(attention_projection="self_attn.dense", mlp_projection="mlp.fc2", norm="model.final_layernorm"),
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma", "gemma2", "gemma3_text", "olmo2"), Family()
    ),
}

# Component -> the part of a block that it enters or leaves, under its name in `Family`.
WHERE = {
    "block_input": ("block", "input"),
    "block_output": ("block", "output"),
    "attention_input": ("attention", "input"),
    "attention_output": ("attention_projection", "output"),
    "attention_value_output": ("attention_projection", "input"),
    "query_output": ("query_key_value", "output"),
    "key_output": ("query_key_value", "output"),
    "value_output": ("query_key_value", "output"),
    "attention_weight": ("attention", "pattern"),
    "mlp_input": ("mlp", "input"),
    "mlp_activation": ("mlp_projection", "input"),
    "mlp_output": ("mlp_projection", "output"),
}
COMPONENTS = tuple(WHERE)
PER_HEAD = ("attention_value_output", "query_output", "key_output", "value_output")


@dataclass(frozen=True)
class Place:
    """One component of one block: the module to hook, which side of it, and the shape of an activation there.

    `side` is "input", "output", or "pattern", an attention's second output (batch, head, query, key), which is kept whole.
    `shape` is (d,), or (heads, d_head) for a per-head component; `view` turns what passes through the module,
    (batch, position, features), into (batch, position, *shape) without copying, so that writing to the view writes
    to the original.
    """

    module: nn.Module
    side: str
    shape: tuple[int, ...]
    view: Callable[[Tensor], Tensor]


class Anatomy:
    """The parts of one loaded model, by the field's names.

    It keeps the names of modules, not the modules: whoever puts another head or a wrapped block into the model finds it here.

    Args:
        model: a causal language model of the transformers library.

    Raises:
        ValueError: the model's family is unknown, or its modules are not where the family's paths say.
    """

    def __init__(self, model: nn.Module):
        config, kind = model.config, model.config.model_type
        if kind not in FAMILIES:
            raise ValueError(
                f"Models of type {kind!r} are not known yet (known: {', '.join(sorted(FAMILIES))}). To add it, name its "
                f"parts in a few lines: from interp_helpers.models import FAMILIES, Family; FAMILIES[{kind!r}] = {Family()} "
                "with the paths that print(model) shows."
            )
        self.model, self.family = model, FAMILIES[kind]
        self.n_heads = config.num_attention_heads
        self.n_key_value_heads = getattr(config, "num_key_value_heads", None) or self.n_heads
        self.d_model = config.hidden_size
        self.d_head = getattr(config, "head_dim", None) or self.d_model // self.n_heads
        try:
            self.n_layers, _ = len(self.blocks), self.norm
            for layer in range(self.n_layers):
                for component in COMPONENTS:
                    self.place(component, layer)
        except AttributeError as error:
            raise ValueError(
                f"This model says it is of type {kind!r}, but its parts are not where that family keeps them: {error}. "
                f"Correct interp_helpers.models.FAMILIES[{kind!r}] with the paths that print(model) shows."
            ) from error
        self.softcap = getattr(config, "final_logit_softcapping", None)  # Gemma 2
        scale, divisor = (getattr(config, name, None) or 1 for name in ("logit_scale", "logits_scaling"))
        self.logit_scale = scale / divisor  # Cohere; Granite

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.model.get_submodule(self.family.blocks))

    @property
    def norm(self) -> nn.Module:
        """The final norm."""
        return self.model.get_submodule(self.family.norm)

    @property
    def embedding(self) -> nn.Module:
        return self.model.get_input_embeddings()

    @property
    def unembedding(self) -> nn.Module:
        return self.model.get_output_embeddings()

    def unembed(self, stream: Tensor, norm: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Logits (…, vocab) of a residual stream (…, d_model): the final norm (or what stands in for it), then the unembedding."""
        weight = self.unembedding.weight
        dtype = weight.dtype if weight.is_floating_point() else stream.dtype  # the model's own precision
        logits = self.unembedding(self.norm(stream.to(dtype)) if norm is None else norm(stream).to(dtype))
        logits = logits if self.logit_scale == 1 else logits * self.logit_scale
        return logits if self.softcap is None else self.softcap * (logits / self.softcap).tanh()

    def place(self, component: str, layer: int) -> Place:
        """The place of a component in block `layer` (counted from 0)."""
        block, (part, side) = self.model.get_submodule(f"{self.family.blocks}.{layer}"), WHERE[component]
        path = getattr(self.family, part, "")  # "" is the block itself
        if part == "query_key_value":
            which = ("query_output", "key_output", "value_output").index(component)
            if isinstance(path, str):
                return self._fused(block.get_submodule(path), which)
            path = path[which]
        module = block.get_submodule(path)
        if component in PER_HEAD:
            heads = self.n_key_value_heads if component in ("key_output", "value_output") else self.n_heads
            shape = (heads, self.d_head)
            return Place(module, side, shape, lambda tensor: tensor.unflatten(-1, shape))
        width = self.d_model
        if component == "mlp_activation":  # GPT-2's projections have no `in_features`, and weights (in, out)
            width = getattr(module, "in_features", None) or len(module.weight)
        return Place(module, side, (width,), lambda tensor: tensor)

    def _fused(self, module: nn.Module, which: int) -> Place:
        """Queries (0), keys (1) or values (2) of a projection that computes all three."""
        heads = (self.n_heads, self.n_key_value_heads, self.n_key_value_heads)
        shape = (heads[which], self.d_head)
        if self.family.interleaved:
            per_head = (heads[which], 3, self.d_head)
            return Place(module, "output", shape, lambda tensor: tensor.unflatten(-1, per_head)[..., which, :])
        # Not `torch.split`, whose pieces autograd forbids to write to.
        start, width = self.d_head * sum(heads[:which]), self.d_head * heads[which]
        return Place(module, "output", shape, lambda tensor: tensor.narrow(-1, start, width).unflatten(-1, shape))


@contextmanager
def eager_attention(model: nn.Module, anatomy: Anatomy) -> Iterator[None]:
    """While the block lasts, attention modules return their pattern, which the fused kernels never form."""

    def ask(module, args, kwargs):
        return args, kwargs | {"output_attentions": True}

    with ExitStack() as stack:
        stack.callback(model.set_attn_implementation, model.config._attn_implementation)
        model.set_attn_implementation("eager")
        # Some models of transformers 4 drop the pattern unless asked. (Asking by way of the configuration would leave
        # hooks of transformers 5 in the model.)
        for layer in range(anatomy.n_layers):
            attention = anatomy.place("attention_weight", layer).module
            if "output_attentions" in inspect.signature(attention.forward).parameters:
                stack.callback(attention.register_forward_pre_hook(ask, with_kwargs=True).remove)
        yield
