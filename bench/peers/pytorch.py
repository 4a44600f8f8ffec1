"""The jobs in plain PyTorch: forward hooks on the modules whose outputs are patched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from ..jobs import Alignment, CausalTrace, Collection, PatchSweep, path
from .learning import learn, swap_at


def wrap(model: PreTrainedModel, tokenizer) -> PreTrainedModel:
    return model


@contextmanager
def hooked(hooks: Iterable[tuple[torch.nn.Module, Callable[[Tensor], Tensor]]]) -> Iterator[None]:
    """While the block lasts, what a function makes of its module's output takes the output's place."""
    with ExitStack() as stack:
        for module, change in hooks:

            def hook(module, args, output, change=change):
                return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

            stack.callback(module.register_forward_hook(hook).remove)
        yield


def put(rows, positions, values: Tensor) -> Callable[[Tensor], Tensor]:
    """A change: these values at (row, position)."""

    def change(h: Tensor) -> Tensor:
        h = h.clone()
        h[rows, positions] = values
        return h

    return change


def corrupt(model: PreTrainedModel, noise: Tensor):
    """A hook that adds noise (row, position, d) where the embeddings are looked up."""
    return model.get_input_embeddings(), lambda h: h + noise


def places(model: PreTrainedModel, component: str) -> list[torch.nn.Module]:
    return [model.get_submodule(path(model, component, layer)) for layer in range(model.config.num_hidden_layers)]


def prefix(cache: DynamicCache, length: int, times: int) -> DynamicCache:
    """The keys and values of the first tokens, all rows several times over."""
    found = DynamicCache()
    for i, layer in enumerate(cache.layers if length else ()):
        found.update(*(kept[:, :, :length].repeat(times, 1, 1, 1) for kept in (layer.keys, layer.values)), i)
    return found


@torch.no_grad()
def collect_documented(model: PreTrainedModel, job: Collection) -> list[Tensor]:
    """Hooks that keep."""
    kept: list[Tensor] = []

    def keep(h: Tensor) -> Tensor:
        kept.append(h)
        return h

    with hooked([(place, keep) for place in places(model, job.component)]):
        model(job.ids)
    return kept


@torch.no_grad()
def collect_best(model: PreTrainedModel, job: Collection) -> list[Tensor]:
    """The same, with logits at the last token alone."""
    kept: list[Tensor] = []

    def keep(h: Tensor) -> Tensor:
        kept.append(h)
        return h

    with hooked([(place, keep) for place in places(model, job.component)]):
        model(job.ids, logits_to_keep=1)
    return kept


@torch.no_grad()
def patch_documented(model: PreTrainedModel, job: PatchSweep) -> Tensor:
    """One forward a cell."""
    source = collect_documented(model, Collection(job.source, job.component))
    found = torch.zeros(len(source), job.base.shape[1])
    for layer, place in enumerate(places(model, job.component)):
        for position in range(job.base.shape[1]):
            with hooked([(place, put(0, position, source[layer][0, position]))]):
                found[layer, position] = job.measure(model(job.base).logits[:, -1])
    return found


@torch.no_grad()
def patch_batched(model: PreTrainedModel, job: PatchSweep) -> Tensor:
    """One forward a layer, a row for each position."""
    source = collect_documented(model, Collection(job.source, job.component))
    each = torch.arange(job.base.shape[1])
    rows, found = job.base.expand(len(each), -1), []
    for layer, place in enumerate(places(model, job.component)):
        with hooked([(place, put(each, each, source[layer][0]))]):
            found.append(job.measure(model(rows).logits[:, -1]))
    return torch.stack(found)


@torch.no_grad()
def patch_best(model: PreTrainedModel, job: PatchSweep) -> Tensor:
    """One forward a position: a row for each layer, from that token on, after the base run's keys and values."""
    source = collect_best(model, Collection(job.source, job.component))
    before = model(job.base, use_cache=True, logits_to_keep=1).past_key_values
    n, found = len(source), []
    for position in range(job.base.shape[1]):
        rows = job.base[:, position:].expand(n, -1)
        hooks = [(place, put(i, 0, source[i][0, position])) for i, place in enumerate(places(model, job.component))]
        with hooked(hooks):
            run = model(rows, past_key_values=prefix(before, position, n), logits_to_keep=1)
        found.append(job.measure(run.logits[:, -1]))
    return torch.stack(found, 1)


@torch.no_grad()
def trace_documented(model: PreTrainedModel, job: CausalTrace) -> Tensor:
    """One forward a cell, a row for each sample."""
    clean = collect_documented(model, Collection(job.ids, job.component))
    found = torch.zeros(len(clean), job.ids.shape[1])
    for layer, place in enumerate(places(model, job.component)):
        for position in range(job.ids.shape[1]):
            restore = place, put(slice(None), position, clean[layer][0, position])
            with hooked([corrupt(model, job.noise_everywhere), restore]):
                found[layer, position] = job.measure(model(job.rows).logits[:, -1]).mean()
    return found


@torch.no_grad()
def trace_batched(model: PreTrainedModel, job: CausalTrace) -> Tensor:
    """One forward a layer, a row for each position and sample."""
    clean = collect_documented(model, Collection(job.ids, job.component))
    n, samples = job.ids.shape[1], len(job.noise)
    each = torch.arange(n).repeat_interleave(samples)
    rows, noise, found = job.ids.expand(len(each), -1), job.noise_everywhere.repeat(n, 1, 1), []
    for layer, place in enumerate(places(model, job.component)):
        restore = place, put(torch.arange(len(each)), each, clean[layer][0, each])
        with hooked([corrupt(model, noise), restore]):
            found.append(job.measure(model(rows).logits[:, -1]).view(n, samples).mean(1))
    return torch.stack(found)


@torch.no_grad()
def trace_best(model: PreTrainedModel, job: CausalTrace) -> Tensor:
    """One forward a position: a row for each layer and sample, from that token on, after the corrupted runs' keys and values."""
    clean, noise = collect_best(model, Collection(job.ids, job.component)), job.noise_everywhere
    with hooked([corrupt(model, noise)]):
        before = model(job.rows, use_cache=True, logits_to_keep=1).past_key_values
    n, samples, found = len(clean), len(noise), []
    for position in range(job.ids.shape[1]):
        rows = job.ids[:, position:].expand(n * samples, -1)
        hooks = [corrupt(model, noise[:, position:].repeat(n, 1, 1))]
        for i, place in enumerate(places(model, job.component)):
            hooks.append((place, put(slice(i * samples, (i + 1) * samples), 0, clean[i][0, position])))
        with hooked(hooks):
            run = model(rows, past_key_values=prefix(before, position, n), logits_to_keep=1)
        found.append(job.measure(run.logits[:, -1]).view(n, samples).mean(1))
    return torch.stack(found, 1)


def das_fresh_documented(model: PreTrainedModel, job: Alignment) -> Tensor:
    """A run of the sources and one of the bases a step, both whole."""
    place = places(model, job.component)[job.layer]

    def interchanged(rows: Tensor, basis: Tensor) -> Tensor:
        kept: list[Tensor] = []
        with torch.no_grad(), hooked([(place, lambda h: kept.append(h) or h)]):
            model(job.sources[rows])
        with hooked([(place, swap_at(job.position, kept[0][:, job.position], basis))]):
            return model(job.bases[rows]).logits[:, -1]

    return learn(job, interchanged)


das_cached_documented = das_fresh_documented


def das_fresh_best(model: PreTrainedModel, job: Alignment) -> Tensor:
    """The same, with the sources' run stopped at the site, and logits at the last token alone."""
    place = places(model, job.component)[job.layer]

    def interchanged(rows: Tensor, basis: Tensor) -> Tensor:
        source = up_to(model, place, job.sources[rows])[:, job.position]
        with hooked([(place, swap_at(job.position, source, basis))]):
            return model(job.bases[rows], logits_to_keep=1).logits[:, -1]

    return learn(job, interchanged)


def das_cached_best(model: PreTrainedModel, job: Alignment) -> Tensor:
    """All runs up to the site once; a step calls the blocks that follow, and the unembedding of the last token. (Of GPT-2.)"""
    place, blocks = places(model, job.component)[job.layer], places(model, "block_output")[job.layer + 1 :]
    bases, sources = up_to(model, place, job.bases), up_to(model, place, job.sources)[:, job.position]

    def interchanged(rows: Tensor, basis: Tensor) -> Tensor:
        h = swap_at(job.position, sources[rows], basis)(bases[rows])
        for block in blocks:
            h = block(h)
        return model.lm_head(model.transformer.ln_f(h[:, -1]))

    return learn(job, interchanged)


@torch.no_grad()
def up_to(model: PreTrainedModel, place: torch.nn.Module, ids: Tensor) -> Tensor:
    """What a module gives; the run ends there."""
    kept: list[Tensor] = []

    def stop(h: Tensor) -> Tensor:
        kept.append(h)
        raise StopIteration

    with suppress(StopIteration), hooked([(place, stop)]):
        model(ids)
    return kept[0]
