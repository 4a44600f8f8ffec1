"""The jobs in nnsight 0.8.

The documented sweeps are written as the layer × position map in its docs/patterns/activation-patching.md.
"""

from __future__ import annotations

import nnsight
import torch
from nnsight.modeling.transformers import TransformersModel
from torch import Tensor
from transformers import PreTrainedModel

from ..jobs import Alignment, CausalTrace, Collection, PatchSweep, path
from .learning import learn, swap_at, swapped


def wrap(model: PreTrainedModel, tokenizer) -> TransformersModel:
    return TransformersModel(model, tokenizer=tokenizer)


def places(model: TransformersModel, component: str) -> list:
    """The envoys of the modules whose outputs a component is."""
    return [model.get(path(model._module, component, i)) for i in range(model._module.config.num_hidden_layers)]


@torch.no_grad()
def collect_documented(model: TransformersModel, job: Collection) -> list[Tensor]:
    """One trace that saves every block's output."""
    blocks = places(model, job.component)
    with model.trace(job.ids):
        kept = nnsight.save([block.output for block in blocks])
    return kept


@torch.no_grad()
def collect_best(model: TransformersModel, job: Collection) -> list[Tensor]:
    """The same, stopped after the last block."""
    blocks = places(model, job.component)
    with model.trace(job.ids) as tracer:
        kept = nnsight.save([block.output for block in blocks])
        tracer.stop()
    return kept


@torch.no_grad()
def patch_single(model: TransformersModel, job: PatchSweep) -> Tensor:
    """One trace a cell."""
    source = collect_documented(model, Collection(job.source, job.component))
    found = torch.zeros(len(source), job.base.shape[1])
    for layer, block in enumerate(places(model, job.component)):
        for position in range(job.base.shape[1]):
            with model.trace(job.base):
                block.output[:, position, :] = source[layer][:, position, :]
                logits = model.output.logits[:, -1].save()
            found[layer, position] = job.measure(logits)
    return found


@torch.no_grad()
def patch_documented(model: TransformersModel, job: PatchSweep) -> Tensor:
    """One trace a layer, in it an invoke for each position."""
    source = collect_documented(model, Collection(job.source, job.component))
    found = []
    for layer, block in enumerate(places(model, job.component)):
        with model.trace() as tracer:
            row = nnsight.save([])
            for position in range(job.base.shape[1]):
                with tracer.invoke(job.base):
                    block.output[:, position, :] = source[layer][:, position, :]
                    row.append(job.measure(model.output.logits[:, -1]))
        found.append(torch.cat(row))
    return torch.stack(found)


@torch.no_grad()
def patch_best(model: TransformersModel, job: PatchSweep) -> Tensor:
    """One trace a layer: a row for each position, the blocks up to the patched one skipped, logits at the last token alone.
    (Of block outputs.)"""
    source, base = (collect_best(model, Collection(ids)) for ids in (job.source, job.base))
    each, blocks = torch.arange(job.base.shape[1]), places(model, "block_output")
    rows, found = job.base.expand(len(each), -1), []
    for layer in range(len(blocks)):
        stream = base[layer].repeat(len(each), 1, 1)
        stream[each, each] = source[layer][0]
        with model.trace(rows, logits_to_keep=1):
            for block in blocks[: layer + 1]:
                block.skip(stream)
            logits = model.output.logits.save()
        found.append(job.measure(logits[:, -1]))
    return torch.stack(found)


@torch.no_grad()
def trace_single(model: TransformersModel, job: CausalTrace) -> Tensor:
    """One trace a cell, of a row for each sample."""
    clean, noise = collect_documented(model, Collection(job.ids, job.component)), job.noise_everywhere
    found, embedding = torch.zeros(len(clean), job.ids.shape[1]), envoy_of_embedding(model)
    for layer, block in enumerate(places(model, job.component)):
        for position in range(job.ids.shape[1]):
            with model.trace(job.rows):
                embedding.output += noise
                block.output[:, position, :] = clean[layer][:, position, :]
                logits = model.output.logits[:, -1].save()
            found[layer, position] = job.measure(logits).mean()
    return found


@torch.no_grad()
def trace_documented(model: TransformersModel, job: CausalTrace) -> Tensor:
    """One trace a layer, in it an invoke for each position, of a row for each sample."""
    clean, noise = collect_documented(model, Collection(job.ids, job.component)), job.noise_everywhere
    found, embedding = [], envoy_of_embedding(model)
    for layer, block in enumerate(places(model, job.component)):
        with model.trace() as tracer:
            row = nnsight.save([])
            for position in range(job.ids.shape[1]):
                with tracer.invoke(job.rows):
                    embedding.output += noise
                    block.output[:, position, :] = clean[layer][:, position, :]
                    row.append(job.measure(model.output.logits[:, -1]).mean())
        found.append(torch.stack(row))
    return torch.stack(found)


@torch.no_grad()
def trace_best(model: TransformersModel, job: CausalTrace) -> Tensor:
    """One trace a layer: a row for each position and sample, the blocks up to the restored one skipped, logits at the last
    token alone. (Of block outputs.)"""
    clean, noise, blocks = collect_best(model, Collection(job.ids)), job.noise_everywhere, places(model, "block_output")
    embedding, n, samples = envoy_of_embedding(model), job.ids.shape[1], len(job.noise)
    with model.trace(job.rows) as tracer:
        embedding.output += noise
        corrupted = nnsight.save([block.output for block in blocks])
        tracer.stop()
    each = torch.arange(n).repeat_interleave(samples)
    rows, found = job.ids.expand(len(each), -1), []
    for layer in range(len(blocks)):
        stream = corrupted[layer].repeat(n, 1, 1)
        stream[torch.arange(len(each)), each] = clean[layer][0, each]
        with model.trace(rows, logits_to_keep=1):
            for block in blocks[: layer + 1]:
                block.skip(stream)
            logits = model.output.logits.save()
        found.append(job.measure(logits[:, -1]).view(n, samples).mean(1))
    return torch.stack(found)


def das_fresh_documented(model: TransformersModel, job: Alignment) -> Tensor:
    """A trace of the sources and one of the bases a step."""
    block, position = places(model, job.component)[job.layer], job.position

    def interchanged(rows: Tensor, basis: Tensor) -> Tensor:
        with torch.no_grad(), model.trace(job.sources[rows]):
            source = block.output[:, position].save()
        with model.trace(job.bases[rows]):
            block.output[:, position] = swapped(block.output[:, position], source, basis)
            logits = model.output.logits[:, -1].save()
        return logits

    return learn(job, interchanged)


das_cached_documented = das_fresh_documented


def das_fresh_best(model: TransformersModel, job: Alignment) -> Tensor:
    """The same, with the sources' trace stopped at the site, and logits at the last token alone."""
    block, position = places(model, job.component)[job.layer], job.position

    def interchanged(rows: Tensor, basis: Tensor) -> Tensor:
        source = up_to(model, block, job.sources[rows])[:, position]
        with model.trace(job.bases[rows], logits_to_keep=1):
            block.output[:, position] = swapped(block.output[:, position], source, basis)
            logits = model.output.logits[:, -1].save()
        return logits

    return learn(job, interchanged)


def das_cached_best(model: TransformersModel, job: Alignment) -> Tensor:
    """All runs up to the site once; in a step's trace the blocks up to there are skipped, and logits are the last token's
    alone. (Of block outputs.)"""
    blocks = places(model, "block_output")[: job.layer + 1]
    bases, sources = up_to(model, blocks[-1], job.bases), up_to(model, blocks[-1], job.sources)[:, job.position]

    def interchanged(rows: Tensor, basis: Tensor) -> Tensor:
        stream = swap_at(job.position, sources[rows], basis)(bases[rows])
        with model.trace(job.bases[rows], logits_to_keep=1):
            for block in blocks:
                block.skip(stream)
            logits = model.output.logits[:, -1].save()
        return logits

    return learn(job, interchanged)


@torch.no_grad()
def up_to(model: TransformersModel, block, ids: Tensor) -> Tensor:
    """What a block gives; the trace ends there."""
    with model.trace(ids) as tracer:
        kept = block.output.save()
        tracer.stop()
    return kept


def envoy_of_embedding(model: TransformersModel):
    wanted = model._module.get_input_embeddings()
    return model.get(next(name for name, module in model._module.named_modules() if module is wanted))
