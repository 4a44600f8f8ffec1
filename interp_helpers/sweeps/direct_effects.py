"""Direct logit attribution: how much does each head and each MLP write straight towards an answer?

The last residual stream is a sum: the embeddings, every head's write, every MLP's, and biases. Logits are linear in it
once the final norm's scale is held at what it was in the run, so a logit difference is a sum of one number for each
part, its *direct* effect (Elhage et al. 2021; Wang et al. 2022, section 3.1). A part that works by changing what
later blocks compute has no direct effect, and patching shows it; and what a part writes, a later one may erase.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..hooks import record
from ..metrics import Words, logit_diff
from ..sites import Site
from .sweep import Sweep


@dataclass(frozen=True)
class DirectEffects:
    """A logit difference, taken apart; all the parts add up to it.

    Attributes:
        heads: a `Sweep` (pair, layer, head), whose base is 0 and whose source is the logit difference itself.
        mlps: (pair, layer).
        embeddings: (pair,), what the stream held before the first block.
        biases: (pair,), of the heads' projections, of the final norm and of the unembedding.
    """

    heads: Sweep
    mlps: Tensor
    embeddings: Tensor
    biases: Tensor

    @property
    def total(self) -> Tensor:
        """The sum of all parts (pair,), equal to the logit difference but for rounding."""
        return self.heads.values.sum((1, 2)) + self.mlps.sum(1) + self.embeddings + self.biases


def direct_logit_attribution(lm, prompts, right: Words, wrong: Words) -> DirectEffects:
    """What each head and each MLP adds to logit(right) − logit(wrong) by what it writes at the last token.

    >>> prompt = ioi(1)[0]
    >>> effects = direct_logit_attribution(lm, prompt.prompt, prompt.indirect_object, prompt.subject)
    >>> tuple(effects.heads.mean().values.shape)  # layers × heads
    (30, 9)
    >>> effects.heads.mean().top(1)[0][0]
    {'layer': 23, 'head': 3}

    Args:
        lm: a `LanguageModel`.
        prompts: as `lm` takes them.
        right, wrong: a word or token id, or one for each prompt.

    Returns:
        `DirectEffects`; a single prompt is a batch of one.

    Raises:
        ValueError: a model whose logits are not such a sum: it normalises what attention or MLP return before adding
            it, or squashes or changes its logits, or has quantised weights; or an open `intervene`.
    """
    if lm.running.interventions:
        raise ValueError("Direct effects are of a plain run: leave the intervention first, or patch and measure.")
    if lm.anatomy.softcap is not None:
        raise ValueError(f"{lm.name} squashes its logits (a softcap), so they are not a sum of the parts' effects.")
    weight = lm.anatomy.place("attention_output", 0).module.weight
    if weight.is_meta:
        raise ValueError(
            f"Some weights of {lm.name} are offloaded, and direct effects are read through them: load it with a device_map that keeps them."
        )
    if not weight.is_floating_point():
        raise ValueError(
            f"{lm.name} has quantised weights, and direct effects are read through them: load it in 16 or 32 bits."
        )
    acts = record(
        lm, prompts, "attention_value_output", "attention_output", "mlp_output", "block_input", "block_output"
    )

    def last(component: str, layer: int) -> Tensor:
        return acts[Site(component, layer, positions=-1)][:, 0].float()

    layers, metric = range(lm.n_layers), logit_diff(lm, right, wrong)
    difference = metric(acts.next_token_logits).float().cpu()
    tolerance = 1e-3 if torch.finfo(lm.anatomy.embedding.weight.dtype).bits >= 32 else 3e-2
    for layer in layers:
        added, out = last("attention_output", layer) + last("mlp_output", layer), last("block_output", layer)
        if ((last("block_input", layer) + added - out).norm(dim=-1) > tolerance * out.norm(dim=-1)).any():
            raise ValueError(
                f"In block {layer} of {lm.name} the stream is not input + attention + MLP, as where a norm follows them: "
                "their direct effects can't be told."
            )
    stream = last("block_output", lm.n_layers - 1)
    norm = frozen_norm(lm, stream)

    def direct(write: Tensor) -> Tensor:  # (pair, d) to (pair,): linear, so that its gradient is the answer's direction
        return metric(lm.anatomy.unembed(write, norm).float())

    with torch.enable_grad():
        nothing = torch.zeros_like(stream, requires_grad=True)
        constant = direct(nothing)
        (direction,) = torch.autograd.grad(constant.sum(), nothing)
    heads, biases = [], [constant.detach()]
    for layer in layers:
        projection = lm.anatomy.place("attention_output", layer).module
        with torch.enable_grad():  # the same direction, seen through the heads' output projection
            z = last("attention_value_output", layer).flatten(1).to(stream).requires_grad_()
            write = projection(z.to(projection.weight)).float()
            (seen,) = torch.autograd.grad((write * direction).sum(), z)
        heads.append((z * seen).detach().unflatten(-1, (lm.n_heads, lm.d_head)).sum(-1))
        biases.append((write.detach() * direction).sum(-1) - heads[-1].sum(-1))
    heads = torch.stack(heads, 1).cpu()
    sweep = Sweep(
        values=heads,
        axes=("pair", "layer", "head"),
        labels={"pair": list(range(len(heads))), "layer": list(layers), "head": list(range(lm.n_heads))},
        base=torch.zeros(len(heads)),
        source=difference,
        metric="direct effect on the logit difference",
        component="attention heads",
        ends=("nothing", "their sum"),
    )
    mlps = torch.stack([(last("mlp_output", layer) * direction).sum(-1) for layer in layers], 1).cpu()
    embeddings = (last("block_input", 0) * direction).sum(-1).cpu()
    effects = DirectEffects(sweep, mlps, embeddings, torch.stack(biases).sum(0).cpu())
    size = heads.abs().sum((1, 2)) + mlps.abs().sum(1) + embeddings.abs() + effects.biases.abs()
    if ((effects.total - sweep.source).abs() > tolerance * size).any():
        raise ValueError(
            f"The parts of {lm.name} don't add up to its logit difference, as where it does something to its logits that isn't known "
            "here: their direct effects can't be told."
        )
    return effects


def frozen_norm(lm, stream: Tensor) -> Callable[[Tensor], Tensor]:
    """The final norm with its scale held at that of `stream` (…, d_model): a function that is affine in what it is given,
    and at `stream` itself equals the norm.

    A norm divides by the vector's own length, which makes it non-linear; the rest of it, centring (LayerNorm only), gain
    and offset, is found by calling it, so that every family's is the right one.
    """

    def module(h: Tensor) -> Tensor:
        return lm.anatomy.norm(h.to(lm.anatomy.embedding.weight)).float()

    with torch.no_grad():
        sign = torch.ones(lm.d_model).to(stream)
        sign[1::2] = -1
        offset = module(torch.zeros_like(sign))
        gain = sign * (module(1e3 * sign) - offset)  # both kinds of norm make ±1 of it, times the gain
        centres = (module(torch.ones_like(sign)) - offset).abs().max() < 0.1 * gain.abs().max()  # 0 or the gain

        def shape(h: Tensor) -> Tensor:
            return gain * (h - h.mean(-1, keepdim=True) if centres else h)

        unscaled, wanted = shape(stream), module(stream) - offset
        scale = (unscaled * wanted).sum(-1, keepdim=True) / (unscaled**2).sum(-1, keepdim=True)
    return lambda h: scale * shape(h) + offset
