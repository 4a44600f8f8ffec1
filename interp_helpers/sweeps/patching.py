"""Activation patching over many sites: which ones carry what makes two prompts differ?

Run a *source* prompt and keep its activations; run a *base* prompt again and again, each time with one site's
activation replaced by the source's; measure what each replacement does to the answer. A site that moves the answer
to the source's carries information that is *sufficient* to change it in this context (denoising, when the source is
the clean prompt); with the roles exchanged, one asks what is *necessary* (noising). Neither shows that the site is
the only one: backups hide necessity, and the chosen pair defines what can be seen at all (Heimersheim & Nanda 2024,
sections 2 and 3; Zhang & Nanda 2024).

`patch_sweep` runs every patch. `attribution_sweep` estimates them all from one gradient. `wrong_source_control` says how much of
a patch's effect any other source would have had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..engine import Grid, in_steps, require_gradients
from ..hooks import record
from ..models import as_texts, take
from ..sites import Site
from .sweep import Sweep

Metrics = Callable[[Tensor], Tensor] | Sequence[Callable[[Tensor], Tensor]]
PAIRS_PER_GRADIENT = 16  # a gradient keeps every intermediate result of its forward


def patch_sweep(
    lm,
    base: str | Sequence[str],
    source: str | Sequence[str],
    metric: Metrics,
    component: str = "block_output",
    *,
    layers: Sequence[int] | None = None,
    positions: Sequence | Mapping[str, object] | None = None,
    heads: Sequence[int] | None = None,
    window: int = 1,
    normalize: bool = False,
    progressive: bool = False,
) -> Sweep | list[Sweep] | Iterator[Sweep | list[Sweep]]:
    """Patch each site of a component, one at a time, from the source run into the base run, and measure.

    >>> sweep = patch_sweep(lm, base, source, logit_diff(lm, " Paris", " Rome"), layers=[10, 25], normalize=True)
    >>> tuple(sweep.values.shape)  # layers × tokens
    (2, 9)
    >>> [place for place, share in sweep.top(2)]  # first the landmark carries the city, then the last token
    [{'layer': 10, 'position': '2 osse'}, {'layer': 25, 'position': '8  of'}]
    >>> figure = sweep.plot()

    Args:
        lm: a `LanguageModel`.
        base, source: two prompts, or two lists of prompts that pair up.
        metric: from the base run's final logits (batch, vocab) to (batch,); see `metrics`. A list of metrics is measured in
            one pass.
        component: what is replaced.
        layers: which layers (default: all).
        positions: the cells along the position axis: None for every token; a sequence whose entries are positions, or
            sequences of positions patched together; or named cells, {"subject": …, "last token": -1}, where each is
            positions as in `Site` and may thus be another place for each pair. In prompts of unequal length the
            same positions are read in both: what isn't at the same place from the start is named from the end.
        heads: patch these heads, one at a time, instead of positions; `positions` then names one set of places for
            all of them, as in `Site` (default: every token).
        window: how many neighbouring layers are patched at once, centred as in ROME's code: layers
            max(0, L − window//2) to min(n, L − window//2 + window) − 1.
        normalize: give (patched − base) / (source − base).
        progressive: give an iterator: first the sweep of about five layers, from the first to the last, then with those between,
            and at the end the whole one. Each works only while it is asked for the next.

    Returns:
        A `Sweep` of shape (layer, position), or (layer, head); with lists of prompts, a first axis "pair". For a list of
        metrics, a list of sweeps. With `progressive`, an iterator of these.

    Raises:
        ValueError: prompts that don't pair up, or of unequal lengths where positions are not named.
    """
    where = dict(component=component, layers=layers, positions=positions, heads=heads, window=window)
    sweeps = _sweeps(_patched, lm, base, source, metric, normalize, progressive, **where)
    return sweeps if progressive else next(sweeps)


def attribution_sweep(
    lm, base, source, metric: Metrics, component: str = "block_output", *, normalize: bool = False, **where
) -> Sweep | list[Sweep]:
    """Attribution patching: estimate what `patch_sweep` would measure, from two forward passes and one backward.

    >>> metric = logit_diff(lm, " Paris", " Rome")
    >>> estimated = attribution_sweep(lm, base, source, metric, layers=[23], positions=[-1], normalize=True)
    >>> patched = patch_sweep(lm, base, source, metric, layers=[23], positions=[-1], normalize=True)
    >>> round(estimated.values.item(), 1), round(patched.values.item(), 1)
    (0.6, 0.8)

    To first order, replacing h by s changes the metric by (s − h) · ∂metric/∂h, with the gradient of the base run (Nanda
    2023; Syed et al. 2023, equation 2). Good for small differences, poor for large ones, such as the residual stream's in
    early layers, where the metric bends between h and s.

    Arguments (layers, positions, heads and window among them), errors and what is returned as in `patch_sweep`; a window's
    estimate is the sum of its layers'.
    """
    require_gradients()
    return next(_sweeps(_estimated, lm, base, source, metric, normalize, component=component, **where))


def wrong_source_control(
    lm, base, source, wrong: Sequence[str], metric: Callable[[Tensor], Tensor], component: str = "block_output", **where
) -> Sweep:
    """The control of a patch: sources whose answer is a third one, on the scale of the right source (0: the base run, 1: its own).

    >>> wrong = ["The Parthenon is in the city of", "The Brandenburg Gate is in the city of"]
    >>> metric = logit_diff(lm, " Paris", " Rome")
    >>> control = wrong_source_control(lm, base, source, wrong, metric, layers=[10], positions=[2])
    >>> right = patch_sweep(lm, base, source, metric, layers=[10], positions=[2], normalize=True)
    >>> round(control.values.item(), 1), round(right.values.item(), 1)
    (0.2, 0.9)

    A patch takes something away and brings something in. A logit difference rises when the source's answer is gained, and
    when the base's answer is lost, which any other source does, too. What lies above the control was brought in.

    Args:
        lm, metric, component: as for `patch_sweep`.
        base, source: the pair, or two lists of prompts.
        wrong: for one pair, several prompts whose answer is neither of the two; for lists, one such prompt a pair
            (`prompts.wrong_sources` finds them).
        **where: `layers`, `positions`, `heads` and `window`, as for `patch_sweep`.

    Returns:
        A `Sweep` of shares. For one pair it is the mean over the wrong sources, with its standard error; for lists it
        has an axis "pair".
    """
    one, wrong = isinstance(base, str), as_texts(wrong, "prompts")
    bases, sources = ([base] * len(wrong), [source] * len(wrong)) if one else (list(base), list(source))
    swept = patch_sweep(lm, bases, wrong, metric, component, **where)
    ends = _measured([metric], lm.next_token_logits(sources))[0]
    shares = replace(swept, source=ends).normalized
    return shares.mean() if one else shares


# ---------------------------------------------------------------------------------------------------------------------


def _sweeps(
    measure: Callable, lm, base, source, metric: Metrics, normalize: bool, progressive: bool = False, **where
) -> Iterator[Sweep | list[Sweep]]:
    """The sweep of each metric, once after each step of the work. `measure(lm, bases, sources, grid, metrics, progressive)` gives
    after each the grid up to there, the metrics after each patch, (metric, cell, pair), and of both unpatched runs, (metric, pair)
    each. What doesn't fit is told at once."""
    metrics = [metric] if callable(metric) else list(metric) if hasattr(metric, "__iter__") else []
    if not metrics or not all(map(callable, metrics)):
        raise ValueError(
            f"A metric such as logit_diff(lm, …), or a list of them, was expected, and {metric!r} was given."
        )
    bases, sources = _paired(lm, base, source)
    whole = Grid.of(lm, base=bases, source=sources, **where)
    estimated = ", estimated from the gradient" * (measure is _estimated)

    def sweep(grid: Grid, one: Callable, values: Tensor, start: Tensor, end: Tensor) -> Sweep:
        labels = {"pair": list(range(len(start))), "layer": grid.layers, grid.axis: grid.labels}
        values, axes = grid.table(values), tuple(labels)
        if isinstance(base, str):
            values, axes, start, end = values[0], axes[1:], start[0], end[0]
        found = Sweep(values, axes, labels, start, end, metric=_name(one), component=grid.name + estimated)
        return found.normalized if normalize else found

    def steps() -> Iterator[Sweep | list[Sweep]]:
        for grid, *measured in measure(lm, bases, sources, whole, metrics, progressive):
            sweeps = [sweep(grid, *each) for each in zip(metrics, *measured, strict=True)]
            yield sweeps[0] if callable(metric) else sweeps

    return steps()


def _patched(
    lm, bases: Tensor, sources: Tensor, grid: Grid, metrics: list[Callable], progressive: bool
) -> Iterator[tuple[Grid, Tensor, Tensor, Tensor]]:
    """Every patch is run."""
    from_source: dict[int, Tensor] = {}

    def read(rows: Sequence[int]):
        acts = record(lm, take(sources, rows), Site("block_input", 0), *grid.sites)
        from_source.update(zip(rows, acts.next_token_logits, strict=True))
        return acts

    def measure(logits: Tensor) -> Tensor:
        return _measured(metrics, logits)

    for so_far, found in in_steps(lm, bases, grid, read, measure, progressive=progressive):
        end = _measured(metrics, torch.stack([from_source[row] for row in range(len(bases))]))
        found = found.movedim(0, 1)  # (metric, run, pair)
        yield so_far, found[:, 1:], found[:, 0], end


@torch.enable_grad()
def _estimated(
    lm, bases: Tensor, sources: Tensor, grid: Grid, metrics: list[Callable], _progressive: bool
) -> Iterator[tuple[Grid, Tensor, Tensor, Tensor]]:
    """Every patch is estimated in one step, from the gradient of the base run."""
    base_logits, sites = lm.next_token_logits(bases), grid.sites
    starts, from_source = _measured(metrics, base_logits), []
    values = starts[:, None].repeat(1, len(grid.cells), 1)
    # Inside an intervention rows may be named one by one, and stay together.
    at_once = len(bases) if lm.running.interventions else PAIRS_PER_GRADIENT
    for rows in (range(i, min(i + at_once, len(bases))) for i in range(0, len(bases), at_once)):
        acts, run = record(lm, take(sources, rows), *sites), record(lm, take(bases, rows), *sites, grad=True)
        from_source.append(acts.next_token_logits)
        logits = base_logits.clone()
        logits[rows] = run.next_token_logits.to(logits)
        for i, one in enumerate(metrics):
            total = _checked(one, logits).sum()
            if not total.requires_grad:
                raise ValueError(f"{_name(one)} has no gradient: take logit_diff or probability, or use patch_sweep.")
            slopes = torch.autograd.grad(total, [run[site] for site in sites], retain_graph=True)
            slope_of = {site.layer: slope for site, slope in zip(sites, slopes, strict=True)}
            for j, cell in enumerate(grid.cells):
                where = tuple(cell.positions[row] for row in rows)
                ours, theirs = run.layout.spots(where), acts.layout.spots(where)
                for layer in cell.layers:
                    site = Site(grid.component, layer, where, cell.head)
                    slope = slope_of[layer][ours.rows, ours.columns]
                    slope = slope if cell.head is None else slope[:, [cell.head]]
                    change = (acts.at(site, theirs).float() - run.at(site, ours).detach().float()) * slope.float()
                    values[i, j].index_add_(0, rows[0] + ours.rows, change.flatten(1).sum(1).cpu())
    yield grid, values, starts, _measured(metrics, torch.cat(from_source))


def _paired(lm, base, source) -> tuple[Tensor, Tensor]:
    """The tokens of the base and of the source prompts."""
    bases, sources = lm.tokens(base), lm.tokens(source)
    if isinstance(base, str) != isinstance(source, str) or len(bases) != len(sources):
        given = [
            "one string" if isinstance(prompts, str) else f"a list of {len(tokens)}"
            for prompts, tokens in ((base, bases), (source, sources))
        ]
        raise ValueError(
            f"Base and source pair up: give two strings, or two lists of one length, not {given[0]} and {given[1]}."
        )
    return bases, sources


def _name(metric: Callable) -> str:
    return getattr(metric, "name", getattr(metric, "__name__", "metric"))


def _measured(metrics: list[Callable], logits: Tensor) -> Tensor:
    """(metric, pair), without gradients, on the CPU."""
    return torch.stack([_checked(one, logits).detach().float().cpu() for one in metrics])


def _checked(metric: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """
    Raises:
        ValueError: the metric gives anything but one number a row.
    """
    values = metric(logits)
    if not isinstance(values, Tensor) or values.shape != logits.shape[:1]:
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(
            f"A metric takes logits (batch, vocab) to (batch,) = ({len(logits)},), and got {got} from {_name(metric)}: leave "
            "out .mean() and .item()."
        )
    return values
