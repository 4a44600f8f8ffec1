"""The jobs in TransformerLens 4, on a `TransformerBridge`.

(Its `start_at_layer` saves nothing: a bridge runs the blocks below, too, and discards what they give.)
"""

from __future__ import annotations

import tempfile

import torch
from torch import Tensor
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer, PreTrainedModel

from ..jobs import Alignment, CausalTrace, Collection, PatchSweep
from .learning import learn, swap_at
from .pytorch import prefix

HOOKS = {"block_output": "hook_resid_post", "mlp_output": "hook_mlp_out"}


def wrap(model: PreTrainedModel, tokenizer) -> TransformerBridge:
    with tempfile.TemporaryDirectory() as folder:
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        name = f"random/{model.config.model_type}"
        return TransformerBridge.boot_transformers(name, hf_model=model, tokenizer=tokenizer, device="cpu")


def names(model: TransformerBridge, component: str) -> list[str]:
    return [f"blocks.{layer}.{HOOKS[component]}" for layer in range(model.cfg.n_layers)]


def put(rows, positions, values: Tensor):
    """A hook that puts values at (row, position)."""

    def hook(h: Tensor, hook) -> Tensor:
        h = h.clone()
        h[rows, positions] = values
        return h

    return hook


@torch.no_grad()
def collect_documented(model: TransformerBridge, job: Collection) -> list[Tensor]:
    """`run_with_cache`, with a filter of names."""
    wanted = names(model, job.component)
    _, cache = model.run_with_cache(job.ids, names_filter=lambda name: name in wanted)
    return [cache[name] for name in wanted]


@torch.no_grad()
def collect_best(model: TransformerBridge, job: Collection) -> list[Tensor]:
    """The same with logits at the last token alone."""
    wanted = names(model, job.component)
    _, cache = model.run_with_cache(
        job.ids, names_filter=lambda name: name in wanted, return_type=None, logits_to_keep=1
    )
    return [cache[name] for name in wanted]


@torch.no_grad()
def patch_documented(model: TransformerBridge, job: PatchSweep) -> Tensor:
    """`patching.generic_activation_patch`: one forward a cell."""
    _, cache = model.run_with_cache(job.source)
    return patching.generic_activation_patch(
        model,
        job.base,
        cache,
        lambda logits: job.measure(logits[:, -1])[0],
        patch_setter=patching.layer_pos_patch_setter,
        activation_name=HOOKS[job.component].removeprefix("hook_"),
        index_axis_names=("layer", "pos"),
    )


@torch.no_grad()
def patch_batched(model: TransformerBridge, job: PatchSweep) -> Tensor:
    """`run_with_hooks`: one forward a layer, a row for each position."""
    source, each = collect_documented(model, Collection(job.source, job.component)), torch.arange(job.base.shape[1])
    rows, found = job.base.expand(len(each), -1), []
    for layer, name in enumerate(names(model, job.component)):
        logits = model.run_with_hooks(rows, fwd_hooks=[(name, put(each, each, source[layer][0]))])
        found.append(job.measure(logits[:, -1]))
    return torch.stack(found)


@torch.no_grad()
def patch_best(model: TransformerBridge, job: PatchSweep) -> Tensor:
    """One forward a position: a row for each layer, from that token on, after the base run's keys and values."""
    source = collect_best(model, Collection(job.source, job.component))
    _, before = model(job.base, return_type="logits_and_cache", use_cache=True, logits_to_keep=1)
    n, found = len(source), []
    for position in range(job.base.shape[1]):
        rows = job.base[:, position:].expand(n, -1)
        hooks = [(name, put(i, 0, source[i][0, position])) for i, name in enumerate(names(model, job.component))]
        past = prefix(before, position, n)
        logits = model.run_with_hooks(rows, fwd_hooks=hooks, past_key_values=past, logits_to_keep=1)
        found.append(job.measure(logits[:, -1]))
    return torch.stack(found, 1)


@torch.no_grad()
def trace_documented(model: TransformerBridge, job: CausalTrace) -> Tensor:
    """`run_with_hooks`: one forward a cell, a row for each sample."""
    wanted = names(model, job.component)
    _, cache = model.run_with_cache(job.ids, names_filter=lambda name: name in wanted)
    noise, found = job.noise_everywhere, torch.zeros(len(wanted), job.ids.shape[1])
    for layer, name in enumerate(wanted):
        for position in range(job.ids.shape[1]):
            hooks = [
                ("hook_embed", lambda h, hook: h + noise),
                (name, put(slice(None), position, cache[name][0, position])),
            ]
            logits = model.run_with_hooks(job.rows, fwd_hooks=hooks)
            found[layer, position] = job.measure(logits[:, -1]).mean()
    return found


@torch.no_grad()
def trace_batched(model: TransformerBridge, job: CausalTrace) -> Tensor:
    """`run_with_hooks`: one forward a layer, a row for each position and sample."""
    clean = collect_documented(model, Collection(job.ids, job.component))
    n, samples = job.ids.shape[1], len(job.noise)
    each = torch.arange(n).repeat_interleave(samples)
    rows, noise, found = job.ids.expand(len(each), -1), job.noise_everywhere.repeat(n, 1, 1), []
    for layer, name in enumerate(names(model, job.component)):
        restore = name, put(torch.arange(len(each)), each, clean[layer][0, each])
        logits = model.run_with_hooks(rows, fwd_hooks=[("hook_embed", lambda h, hook: h + noise), restore])
        found.append(job.measure(logits[:, -1]).view(n, samples).mean(1))
    return torch.stack(found)


@torch.no_grad()
def trace_best(model: TransformerBridge, job: CausalTrace) -> Tensor:
    """One forward a position: a row for each layer and sample, from that token on, after the corrupted runs' keys and values."""
    clean = collect_best(model, Collection(job.ids, job.component))
    n, samples, noise = len(clean), len(job.noise), job.noise_everywhere
    with model.hooks(fwd_hooks=[("hook_embed", lambda h, hook: h + noise)]):
        _, before = model(job.rows, return_type="logits_and_cache", use_cache=True, logits_to_keep=1)
    found = []
    for position in range(job.ids.shape[1]):
        rows, left = job.ids[:, position:].expand(n * samples, -1), noise[:, position:].repeat(n, 1, 1)
        hooks = [("hook_embed", lambda h, hook, left=left: h + left)]
        for i, name in enumerate(names(model, job.component)):
            hooks.append((name, put(slice(i * samples, (i + 1) * samples), 0, clean[i][0, position])))
        past = prefix(before, position, n)
        logits = model.run_with_hooks(rows, fwd_hooks=hooks, past_key_values=past, logits_to_keep=1)
        found.append(job.measure(logits[:, -1]).view(n, samples).mean(1))
    return torch.stack(found, 1)


def das_fresh_documented(model: TransformerBridge, job: Alignment, **options) -> Tensor:
    """`run_with_cache` on the sources and `run_with_hooks` on the bases, each step."""

    def interchanged(rows: Tensor, basis: Tensor) -> Tensor:
        return interchange(model, job, rows, sources_of(model, job, rows, **options), basis, **options)

    return learn(job, interchanged)


das_cached_documented = das_fresh_documented


def das_fresh_best(model: TransformerBridge, job: Alignment) -> Tensor:
    """The same with logits at the last token alone."""
    return das_fresh_documented(model, job, logits_to_keep=1)


def das_cached_best(model: TransformerBridge, job: Alignment) -> Tensor:
    """The sources run once; logits at the last token alone."""
    sources = sources_of(model, job, slice(None), logits_to_keep=1)

    def interchanged(rows: Tensor, basis: Tensor) -> Tensor:
        return interchange(model, job, rows, sources[rows], basis, logits_to_keep=1)

    return learn(job, interchanged)


@torch.no_grad()
def sources_of(model: TransformerBridge, job: Alignment, rows, **options) -> Tensor:
    name = names(model, job.component)[job.layer]
    _, cache = model.run_with_cache(job.sources[rows], names_filter=name, **options)
    return cache[name][:, job.position]


def interchange(model: TransformerBridge, job: Alignment, rows, source: Tensor, basis: Tensor, **options) -> Tensor:
    change, name = swap_at(job.position, source, basis), names(model, job.component)[job.layer]
    logits = model.run_with_hooks(job.bases[rows], fwd_hooks=[(name, lambda h, hook: change(h))], **options)
    return logits[:, -1]
