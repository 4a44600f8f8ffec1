"""The jobs in pyvene.

The documented sweeps are written as its tutorials Basic_Intervention and Causal_Tracing, in which the source prompt is run again
for each cell, and a model without a head is followed by the unembedding of every token.
"""

from __future__ import annotations

from functools import partial

import pyvene as pv
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..jobs import Alignment, CausalTrace, Collection, PatchSweep
from .learning import learn
from .pytorch import prefix


def wrap(model: PreTrainedModel, tokenizer) -> PreTrainedModel:
    return model  # an IntervenableModel is made for each configuration


def logits_of(model: PreTrainedModel, output) -> Tensor:
    """Every token's logits, as pyvene's tutorials compute them: from the stream that its model, without a head, returns."""
    return model.get_output_embeddings()(output.last_hidden_state)


class Noise(pv.ConstantSourceIntervention, pv.LocalistRepresentationIntervention):
    """Adds given noise, (row, place, d)."""

    def __init__(self, noise: Tensor, **kwargs):
        super().__init__(**kwargs)
        self.noise = noise

    def forward(self, base, source=None, subspaces=None, **kwargs):
        return base + self.noise


class Put(pv.ConstantSourceIntervention, pv.LocalistRepresentationIntervention):
    """Puts a value into some of the rows."""

    def __init__(self, rows: slice, value: Tensor, **kwargs):
        super().__init__(**kwargs)
        self.rows, self.value = rows, value

    def forward(self, base, source=None, subspaces=None, **kwargs):
        base[self.rows] = self.value
        return base


@torch.no_grad()
def collect_documented(model: PreTrainedModel, job: Collection) -> list[Tensor]:
    """A `CollectIntervention` on each layer."""
    n, (rows, tokens) = model.config.num_hidden_layers, job.ids.shape
    at = {"component": job.component, "unit": "pos", "max_number_of_units": tokens}
    config = pv.IntervenableConfig([{"layer": i} | at for i in range(n)], intervention_types=pv.CollectIntervention)
    (_, kept), _ = pv.IntervenableModel(config, model)(
        {"input_ids": job.ids}, unit_locations={"base": [[list(range(tokens))] * rows] * n}
    )
    return kept


@torch.no_grad()
def collect_best(model: PreTrainedModel, job: Collection) -> list[Tensor]:
    """The same on the model without its unembedding."""
    return collect_documented(model.base_model, job)


@torch.no_grad()
def patch_documented(model: PreTrainedModel, job: PatchSweep) -> Tensor:
    """A model a layer; for each cell a forward of the source and one of the base."""
    n, tokens = model.config.num_hidden_layers, job.base.shape[1]
    found = torch.zeros(n, tokens)
    for layer in range(n):
        at = {"layer": layer, "component": job.component, "unit": "pos", "max_number_of_units": 1}
        config = pv.IntervenableConfig([at], intervention_types=pv.VanillaIntervention)
        intervenable = pv.IntervenableModel(config, model.base_model)
        for position in range(tokens):
            _, output = intervenable(
                {"input_ids": job.base},
                [{"input_ids": job.source}],
                {"sources->base": ([[[position]]], [[[position]]])},
            )
            found[layer, position] = job.measure(logits_of(model, output)[:, -1])
    return found


@torch.no_grad()
def patch_batched(model: PreTrainedModel, job: PatchSweep) -> Tensor:
    """One model and one forward a layer, a row for each position."""
    n, found = job.base.shape[1], []
    base, source = ({"input_ids": ids.expand(n, -1)} for ids in (job.base, job.source))
    each = [[[position] for position in range(n)]]
    for layer in range(model.config.num_hidden_layers):
        at = {"layer": layer, "component": job.component, "unit": "pos", "max_number_of_units": 1}
        config = pv.IntervenableConfig([at], intervention_types=pv.VanillaIntervention)
        _, output = pv.IntervenableModel(config, model.base_model)(base, [source], {"sources->base": (each, each)})
        found.append(job.measure(logits_of(model, output)[:, -1]))
    return torch.stack(found)


@torch.no_grad()
def patch_best(model: PreTrainedModel, job: PatchSweep) -> Tensor:
    """One forward a position: a row for each layer, from that token on, after the base run's keys and values."""
    source = collect_best(model, Collection(job.source, job.component))
    before = model(job.base, use_cache=True, logits_to_keep=1).past_key_values
    n, found = len(source), []
    for position in range(job.base.shape[1]):
        puts = [Put(slice(i, i + 1), source[i][0, position]) for i in range(n)]
        config = [{"layer": i, "component": job.component, "intervention": put} for i, put in enumerate(puts)]
        rows = {"input_ids": job.base[:, position:].expand(n, -1), "logits_to_keep": 1}
        _, output = pv.IntervenableModel(config, model)(
            rows | {"past_key_values": prefix(before, position, n)}, unit_locations={"base": [[[0]] * n] * n}
        )
        found.append(job.measure(output.logits[:, -1]))
    return torch.stack(found, 1)


@torch.no_grad()
def trace_documented(model: PreTrainedModel, job: CausalTrace) -> Tensor:
    """A model a cell, which runs the clean prompt and then the corrupted one, a row for each sample."""
    n, tokens, samples = model.config.num_hidden_layers, job.ids.shape[1], len(job.noise)
    prompt, found = {"input_ids": job.rows}, torch.zeros(n, tokens)
    for layer in range(n):
        for position in range(tokens):
            config = pv.IntervenableConfig(
                [pv.RepresentationConfig(0, "block_input"), pv.RepresentationConfig(layer, job.component)],
                intervention_types=[partial(Noise, job.noise), pv.VanillaIntervention],
            )
            there = [[position]] * samples
            _, output = pv.IntervenableModel(config, model.base_model)(
                prompt, [None, prompt], {"sources->base": ([None, there], [[list(job.subject)] * samples, there])}
            )
            found[layer, position] = job.measure(logits_of(model, output)[:, -1]).mean()
    return found


@torch.no_grad()
def trace_batched(model: PreTrainedModel, job: CausalTrace) -> Tensor:
    """One model and one forward a layer, a row for each position and sample."""
    n, samples, found = job.ids.shape[1], len(job.noise), []
    prompt = {"input_ids": job.ids.expand(n * samples, -1)}
    each = [[position] for position in range(n) for _ in range(samples)]
    for layer in range(model.config.num_hidden_layers):
        config = pv.IntervenableConfig(
            [pv.RepresentationConfig(0, "block_input"), pv.RepresentationConfig(layer, job.component)],
            intervention_types=[partial(Noise, job.noise.repeat(n, 1, 1)), pv.VanillaIntervention],
        )
        _, output = pv.IntervenableModel(config, model.base_model)(
            prompt, [None, prompt], {"sources->base": ([None, each], [[list(job.subject)] * len(each), each])}
        )
        found.append(job.measure(logits_of(model, output)[:, -1]).view(n, samples).mean(1))
    return torch.stack(found)


@torch.no_grad()
def trace_best(model: PreTrainedModel, job: CausalTrace) -> Tensor:
    """One forward a position: a row for each layer and sample, from that token on, after the corrupted runs' keys and values."""
    clean = collect_best(model, Collection(job.ids, job.component))
    n, samples, tokens, noise = len(clean), len(job.noise), job.ids.shape[1], job.noise_everywhere
    everywhere = {"layer": 0, "component": "block_input"}
    corrupted = pv.IntervenableModel([everywhere | {"intervention": Noise(noise)}], model)
    run = {"input_ids": job.rows, "logits_to_keep": 1}
    _, output = corrupted(run, unit_locations={"base": [[list(range(tokens))] * samples]}, use_cache=True)
    before, found = output.past_key_values, []
    for position in range(tokens):
        config = [everywhere | {"intervention": Noise(noise[:, position:].repeat(n, 1, 1))}]
        for i in range(n):
            put = Put(slice(i * samples, (i + 1) * samples), clean[i][0, position])
            config.append({"layer": i, "component": job.component, "intervention": put})
        rows = {"input_ids": job.ids[:, position:].expand(n * samples, -1), "logits_to_keep": 1}
        where = [[list(range(tokens - position))] * len(rows["input_ids"])] + [[[0]] * len(rows["input_ids"])] * n
        _, output = pv.IntervenableModel(config, model)(
            rows | {"past_key_values": prefix(before, position, n)}, unit_locations={"base": where}
        )
        found.append(job.measure(output.logits[:, -1]).view(n, samples).mean(1))
    return torch.stack(found, 1)


class Rotation(torch.nn.Module):
    """A rotation layer whose basis (d, rank), `weight`, is learnt elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def swapping(model: PreTrainedModel, job: Alignment) -> tuple[pv.IntervenableModel, Rotation]:
    """A model with a low-rank rotation at the site."""
    at = {"layer": job.layer, "component": job.component, "unit": "pos", "max_number_of_units": 1}
    config = pv.IntervenableConfig(
        [at | {"low_rank_dimension": job.start.shape[1]}], intervention_types=pv.LowRankRotatedSpaceIntervention
    )
    intervenable = pv.IntervenableModel(config, model)
    (intervention,) = intervenable.interventions.values()
    intervention.rotate_layer = Rotation()
    return intervenable, intervention.rotate_layer


def das_fresh_documented(model: PreTrainedModel, job: Alignment, **options) -> Tensor:
    """A `LowRankRotatedSpaceIntervention`, which runs the sources and the bases."""
    intervenable, rotation = swapping(model, job)

    def interchanged(rows: Tensor, basis: Tensor) -> Tensor:
        rotation.weight = basis
        bases, sources = ({"input_ids": ids[rows]} | options for ids in (job.bases, job.sources))
        where = [[[job.position]] * len(rows)]
        _, output = intervenable(bases, [sources], {"sources->base": (where, where)})
        return output.logits[:, -1]

    return learn(job, interchanged)


das_cached_documented = das_fresh_documented


def das_fresh_best(model: PreTrainedModel, job: Alignment) -> Tensor:
    """The same with logits at the last token alone."""
    return das_fresh_documented(model, job, logits_to_keep=1)


def das_cached_best(model: PreTrainedModel, job: Alignment) -> Tensor:
    """The sources run once, and their activations given; logits at the last token alone."""
    intervenable, rotation = swapping(model, job)
    sources = collect_best(model, Collection(job.sources, job.component))[job.layer][:, [job.position]]
    (name,) = intervenable.interventions

    def interchanged(rows: Tensor, basis: Tensor) -> Tensor:
        rotation.weight = basis
        _, output = intervenable(
            {"input_ids": job.bases[rows], "logits_to_keep": 1},
            unit_locations={"base": [[[job.position]] * len(rows)]},
            source_representations={name: sources[rows]},
        )
        return output.logits[:, -1]

    return learn(job, interchanged)
