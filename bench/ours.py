"""The jobs in this library."""

from __future__ import annotations

import torch
from torch import Tensor

from interp_helpers import (
    LanguageModel,
    RotatedSubspace,
    Site,
    causal_trace,
    logit_diff,
    patch_sweep,
    record,
    train_das,
)

from .jobs import Alignment, CausalTrace, Collection, PatchSweep

wrap = LanguageModel


def patch(lm: LanguageModel, job: PatchSweep) -> Tensor:
    base, source = (lm.tokenizer.decode(ids[0]) for ids in (job.base, job.source))
    return patch_sweep(lm, base, source, logit_diff(lm, job.right, job.wrong), job.component).values


def trace(lm: LanguageModel, job: CausalTrace) -> Tensor:
    prompt = lm.tokenizer.decode(job.ids[0])
    return causal_trace(lm, prompt, job.subject, job.answer, job.component, noise=job.noise).values


def collect(lm: LanguageModel, job: Collection) -> list[Tensor]:
    acts = record(lm, job.ids, job.component)
    return [acts[job.component, layer] for layer in range(lm.n_layers)]


def das_fresh(lm: LanguageModel, job: Alignment) -> Tensor:
    history = train_das(
        lm,
        Site(job.component, job.layer, positions=job.position),
        RotatedSubspace(*job.start.shape, start=job.start),
        list(zip(job.bases, job.sources, job.labels.tolist(), strict=True)),
        steps=len(job.rows),
        batch_size=job.batch,
        lr=job.lr,
        force=True,  # random weights have nothing to learn
    )
    return torch.tensor(history.loss)


das_cached = das_fresh  # nothing to be told: what lies before the site is always computed once
