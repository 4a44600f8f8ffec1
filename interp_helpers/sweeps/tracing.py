"""Causal tracing: corrupt what the prompt is about, restore one site, and see how much of the answer comes back.

Three runs (Meng et al. 2022, section 2.1): a *clean* one; a *corrupted* one, in which Gaussian noise is added to the embeddings
of the subject's tokens; and a *corrupted with restoration* one, in which one site of the corrupted run gets its clean
activation back. With p the answer's probability, p(restored) − p(corrupted) is the site's *indirect effect*, and p(clean) −
p(corrupted) the *total effect*. A large indirect effect shows that the site is sufficient, in this corrupted context, to
bring the answer back. It shows neither that the site is necessary, nor that editing there changes what the model knows
(Hase et al. 2023); and it depends on the noise (Zhang & Nanda 2024, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..edits import add
from ..engine import Grid, in_steps
from ..hooks import Edit, record
from ..metrics import probability
from ..models import as_ints, take
from ..sites import Site
from .sweep import Sweep

ROLES = (
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "next token",
    "further tokens",
    "last token",
)


@dataclass(frozen=True, repr=False)
class Trace(Sweep):
    """What `causal_trace` measured: a `Sweep` whose values are probabilities after restoring, means over the noise samples.
    `error` is the standard error of their *indirect effect*: each sample is compared with its own corrupted run.

    Attributes:
        subject: the positions of the corrupted tokens.
        length: how many tokens the prompt has.
        places: the positions that each cell of the position axis restores.
    """

    subject: range = range(0)
    length: int = 0
    places: tuple[tuple[int, ...], ...] = ()

    @property
    def clean(self) -> Tensor:
        """The answer's probability in the clean run, ()."""
        return self.source

    @property
    def corrupted(self) -> Tensor:
        """The answer's probability in the corrupted run, (), mean over the samples."""
        return self.base

    @property
    def total_effect(self) -> Tensor:
        """clean − corrupted, ()."""
        return self.clean - self.corrupted

    def mean(self) -> Sweep:
        """
        Raises:
            ValueError: a trace is of one prompt.
        """
        raise ValueError("A trace is of one prompt, its values means over noise: average_traces takes several.")

    @property
    def indirect_effect(self) -> Trace:
        """The same sweep with values − corrupted: 0 where nothing comes back, the total effect where all does."""
        return replace(
            self,
            values=self.values - self.corrupted,
            base=self.corrupted * 0,
            source=self.total_effect,
            metric=f"indirect effect on the {self.metric}",
            ends=("nothing", "total effect"),
        )


def embedding_std(lm) -> float:
    """σ, the standard deviation of the token embeddings (all entries of the matrix) as they enter the residual stream; noise is
    given in units of it. (Gemma multiplies its embeddings by √d.)

    >>> round(embedding_std(lm), 3)
    0.136

    Raises:
        ValueError: the embeddings are kept on the disk or in another memory, where they can't be read.
    """
    weight = lm.anatomy.embedding.weight.detach()
    if weight.is_meta:
        raise ValueError(
            "The token embeddings are offloaded and can't be read, so σ isn't known: load the model with a device_map that keeps them, or "
            "give the noise as a tensor."
        )
    return float(weight.float().std()) * lm.anatomy.embedding_scale


def draws(lm, n: int, noise: float, samples: int, seed: int) -> Tensor:
    """The noise that `causal_trace` adds to n tokens, (sample, token, d_model), in the activations' own units.

    Raises:
        ValueError: noise or samples that are not positive.
    """
    if noise <= 0 or samples < 1:
        raise ValueError(f"noise={noise} with samples={samples} corrupts nothing: both are positive.")
    shape, generator = (samples, n, lm.d_model), torch.Generator().manual_seed(seed)
    return noise * embedding_std(lm) * torch.randn(shape, generator=generator, dtype=torch.float32)


def causal_trace(
    lm,
    prompt: str,
    subject: str | Sequence[int],
    answer: str | int,
    component: str = "block_output",
    *,
    layers: Sequence[int] | None = None,
    positions: Sequence | Mapping[str, object] | None = None,
    heads: Sequence[int] | None = None,
    window: int = 1,
    noise: float | Tensor = 3.0,
    samples: int = 10,
    seed: int = 0,
    progressive: bool = False,
) -> Trace | Iterator[Trace]:
    """Corrupt the subject's tokens, restore each site of a component, and measure the answer's probability.

    >>> trace = causal_trace(lm, source, "Eiffel Tower", " Paris", layers=[5, 15], samples=2)
    >>> tuple(trace.indirect_effect.values.shape)  # layers × tokens
    (2, 9)
    >>> trace.indirect_effect.top(1)[0][0]  # where restoring brings most of the answer back
    {'layer': 5, 'position': '2 iffel'}
    >>> figure = trace.indirect_effect.plot()

    Args:
        lm: a `LanguageModel`.
        prompt: one prompt.
        subject: the part of it that is corrupted, or its positions, such as lm.find(prompt, "Paris", occurrence=0).
        answer: a word that is one token, or a token id.
        component: what is restored. Meng et al. restore single `block_output`s, and windows of 10 for `mlp_output` and
            `attention_output`.
        layers, positions, heads, window: which sites, as in `patch_sweep`.
        noise: the noise's standard deviation, in units of the embeddings' (`embedding_std`); or the noise itself, a tensor
            (samples, subject tokens, d_model), in the activations' own units (`samples` and `seed` then count for nothing). It is added where the embeddings enter block 0.
        samples: how many draws; the same draws in the corrupted run and with every restoration.
        seed: of the draws. The global random state is left alone.
        progressive: give an iterator of traces, of more and more layers, as in `patch_sweep`.

    Returns:
        A `Trace`, (layer, position) or (layer, head); with `progressive`, an iterator of them.

    Raises:
        ValueError: several prompts, a subject that isn't in the prompt, or noise of another shape.
    """
    clean = lm.tokens(prompt)
    if len(clean) > 1:
        raise ValueError(f"causal_trace takes one prompt, and {len(clean)} were given: trace each, and average_traces.")
    span = _span(lm, prompt, subject)
    if getattr(noise, "ndim", 0):
        noise = torch.as_tensor(noise)
        if noise.ndim != 3 or noise.shape[1:] != (len(span), lm.d_model) or not len(noise):
            raise ValueError(
                f"The noise is a tensor (samples, subject tokens, d_model) = (…, {len(span)}, {lm.d_model}), and one of shape "
                f"{tuple(noise.shape)} was given."
            )
    else:
        noise = draws(lm, len(span), noise, samples, seed)
    tokens = take(clean, [0] * len(noise))
    grid = Grid.of(lm, component, clean, clean, layers, positions, heads, window)
    grid = replace(grid, places=[(rows * len(noise), head) for rows, head in grid.places])  # the same in every sample
    acts = record(lm, clean, Site("block_input", 0), *grid.sites)

    def corrupt(rows: Sequence[int]) -> list[Edit]:
        return [add(Site("block_input", 0, positions=tuple(span)), noise[list(rows)])]

    def source(rows: Sequence[int]):
        return acts.rows([0] * len(rows))

    metric = probability(lm, answer)
    unharmed = metric(acts.next_token_logits)[0].float().cpu()
    length = tokens.shape[1]

    def trace(grid: Grid, found: Tensor) -> Trace:  # found: (run, sample)
        values = grid.table(found[1:])  # (sample, layer, position)
        return Trace(
            values=values.mean(0),
            axes=("layer", grid.axis),
            labels={"layer": grid.layers, grid.axis: grid.labels},
            base=found[0].mean(),
            source=unharmed,
            metric=metric.name,
            component=grid.name,
            error=grid.table(found[1:] - found[0]).std(0) / len(noise) ** 0.5 if len(noise) > 1 else None,
            ends=("corrupted", "clean"),
            subject=span,
            length=length,
            places=tuple(tuple(i % length for i in rows[0]) for rows, _ in grid.places),
        )

    def measure(logits: Tensor) -> Tensor:
        return metric(logits).float().cpu()

    steps = in_steps(lm, tokens, grid, source, measure, corrupt, progressive=progressive)
    traces = (trace(*step) for step in steps)
    return traces if progressive else next(traces)


def average_traces(traces: Sequence[Trace]) -> Sweep:
    """The mean indirect effect over prompts by token role, as in Meng et al. 2022, figure 2.

    >>> some = facts("capital")[:2]
    >>> average = average_traces([causal_trace(lm, f.prompt, f.subject, f.answer, layers=[10], samples=1) for f in some])
    >>> average.labels["role"]
    ['last subject token', 'last token']

    The roles are the subject's first, middle and last tokens, the token after it, further tokens, and the prompt's last one. A
    subject of one token is its last. Several tokens of one role in one prompt are averaged first; a role that a prompt
    doesn't have is left out there, and the label says how many prompts have it. Tokens before the subject, which nothing
    corrupted, have no role.

    Returns:
        A `Sweep` (layer, role), its `error` the standard error over prompts; `base` is 0 and `source` the mean total effect.

    Raises:
        ValueError: no traces, traces of different components or layers, or of cells that are not single tokens.
    """
    traces = list(traces) if hasattr(traces, "__iter__") else []
    if not traces or not all(isinstance(trace, Trace) for trace in traces):
        raise ValueError("average_traces takes a list of what causal_trace returns, one or more.")
    first = traces[0]
    for trace in traces:
        if (trace.component, trace.labels["layer"], trace.axes) != (first.component, first.labels["layer"], first.axes):
            raise ValueError(
                f"These traces don't go together: one is of {first.component} at layers {first.labels['layer']}, by "
                f"{first.axes[1]}, another of {trace.component} at layers {trace.labels['layer']}, by {trace.axes[1]}."
            )
        if trace.axes[1] != "position" or any(len(place) != 1 for place in trace.places):
            raise ValueError("Roles are of single tokens: trace each position by itself, without named spans or heads.")
    by_role: dict[str, list[Tensor]] = {role: [] for role in ROLES}
    for trace in traces:
        columns: dict[str, list[int]] = {}
        for column, (position,) in enumerate(trace.places):
            columns.setdefault(_role(position, trace.subject, trace.length), []).append(column)
        effect = trace.indirect_effect.values
        for role in ROLES:
            if role in columns:
                by_role[role].append(effect[:, columns[role]].mean(1))
    roles = [role for role in ROLES if by_role[role]]
    n = len(traces)
    return Sweep(
        values=torch.stack([torch.stack(by_role[role]).mean(0) for role in roles], 1),
        axes=("layer", "role"),
        labels={
            "layer": first.labels["layer"],
            "role": [r if len(by_role[r]) == n else f"{r} ({len(by_role[r])} of {n})" for r in roles],
        },
        base=torch.zeros(()),
        source=torch.stack([trace.total_effect for trace in traces]).mean(),
        metric="average indirect effect",
        component=first.component,
        error=torch.stack([_standard_error(by_role[role]) for role in roles], 1) if n > 1 else None,
        ends=("nothing", "total effect"),
    )


def _standard_error(values: list[Tensor]) -> Tensor:
    if len(values) == 1:  # of one prompt, nothing is known
        return torch.full_like(values[0], float("nan"))
    return torch.stack(values).std(0) / len(values) ** 0.5


def _role(position: int, subject: range, length: int) -> str | None:
    """The role of a token; None before the subject, where nothing was corrupted."""
    if position < subject[0]:
        return None
    if position == length - 1:
        return "last token"
    if position in subject:
        if position == subject[-1]:
            return "last subject token"
        return "first subject token" if position == subject[0] else "middle subject tokens"
    return "next token" if position == subject[-1] + 1 else "further tokens"


def _span(lm, prompt: str, subject: str | Sequence[int]) -> range:
    if isinstance(subject, str):
        return lm.find(prompt, subject)
    found, length = as_ints(subject), lm.tokens(prompt).shape[1]
    if not found or found != list(range(found[0], found[-1] + 1)) or not 0 <= found[0] <= found[-1] < length:
        raise ValueError(
            f"The subject is a part of the prompt, or neighbouring positions of it (0 to {length - 1}), and {subject!r} was given."
        )
    return range(found[0], found[-1] + 1)
