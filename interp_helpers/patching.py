"""Activation patching over many sites: which ones carry what makes two prompts differ?

Run a *source* prompt and keep its activations; run a *base* prompt again and again, each time with one site's
activation replaced by the source's; measure what each replacement does to the answer. A site that moves the answer
to the source's carries information that is *sufficient* to change it in this context (denoising, when the source is
the clean prompt); with the roles exchanged, one asks what is *necessary* (noising). Neither shows that the site is
the only one: backups hide necessity, and the chosen pair defines what can be seen at all (Heimersheim & Nanda 2024,
sections 2 and 3; Zhang & Nanda 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm.auto import tqdm

from . import edits
from .hooks import intervene, record
from .sites import Layout, Site

ROWS_PER_RUN = 64  # as many cells share a forward as fit; a batch of more pairs than this is one run a cell


@dataclass(frozen=True)
class Sweep:
    """One number for each site of a sweep, and what is needed to read it.

    Attributes:
        values: the metric after each patch; its axes are named by `axes` ("layer", "position", …; "pair" comes first
            for a batch of pairs).
        axes: the axes' names.
        labels: what stands along each axis.
        base, source: the metric of the two unpatched runs: shape (), or (pair,).
        metric, component: what was measured, and where it was patched.
        error: the standard error of `values`, where they are means over pairs.
    """

    values: Tensor
    axes: tuple[str, ...]
    labels: Mapping[str, Sequence]
    base: Tensor
    source: Tensor
    metric: str
    component: str
    error: Tensor | None = None

    @property
    def normalized(self) -> Sweep:
        """The share of the way from the base run to the source run: (patched − base) / (source − base).

        Raises:
            ValueError: the metric is the same in both runs.
        """
        gap = self.source - self.base
        same = (gap.abs() < 1e-4 * torch.maximum(self.source.abs(), self.base.abs())) | (gap == 0)
        if same.any():
            which = f" (pairs {same.nonzero().flatten().tolist()})" if same.ndim else ""
            raise ValueError(
                f"{self.metric} is the same in the base and the source run{which}, so there is no way to share: choose a "
                "metric, or prompts, that tell the two apart."
            )
        shape = (-1, *[1] * (self.values.ndim - 1)) if gap.ndim else ()
        values = (self.values - self.base.reshape(shape)) / gap.reshape(shape)
        error = None if self.error is None else self.error / gap.reshape(shape).abs()
        one = torch.ones_like(self.base)
        metric = "share of the way from base to source"
        return replace(self, values=values, base=0 * one, source=one, metric=metric, error=error)

    def mean(self) -> Sweep:
        """The mean over pairs, with its standard error (normalise first, if that is what is to be averaged).

        Raises:
            ValueError: the sweep is of a single pair.
        """
        if self.axes[0] != "pair":
            raise ValueError(
                "This sweep is of one pair, and there is nothing to average: give patch_sweep lists of prompts."
            )
        n = len(self.values)
        return replace(
            self,
            values=self.values.mean(0),
            error=self.values.std(0) / n**0.5 if n > 1 else None,
            axes=self.axes[1:],
            base=self.base.mean(),
            source=self.source.mean(),
        )

    def top(self, k: int = 5) -> list[tuple[dict, float]]:
        """The k sites whose patch moved the metric furthest from the base run: [({axis: label}, value), …]."""
        shape = (-1, *[1] * (self.values.ndim - 1)) if self.base.ndim else ()
        moved = (self.values - self.base.reshape(shape)).abs().flatten()
        cells = [torch.unravel_index(i, self.values.shape) for i in moved.topk(min(k, len(moved))).indices]
        return [
            (
                {axis: self.labels[axis][int(i)] for axis, i in zip(self.axes, cell, strict=True)},
                float(self.values[cell]),
            )
            for cell in cells
        ]

    def plot(self, **options):
        """The sweep as a heatmap; options as in `plotting.heatmap`."""
        from .plotting import heatmap

        return heatmap(self, **options)

    def __repr__(self) -> str:
        size = " × ".join(f"{len(self.labels[axis])} {axis}s" for axis in self.axes)
        best = ", ".join(f"{value:.2f} at {_words(cell)}" for cell, value in self.top(1))
        return (
            f"Sweep of {self.component}: {size}; {self.metric}; base {float(self.base.mean()):.2f}, "
            f"source {float(self.source.mean()):.2f}; furthest from base {best}"
        )


def patch_sweep(
    lm,
    base: str | Sequence[str],
    source: str | Sequence[str],
    metric: Callable[[Tensor], Tensor],
    component: str = "block_output",
    *,
    layers: Sequence[int] | None = None,
    positions: Sequence | Mapping[str, object] | None = None,
    heads: Sequence[int] | None = None,
    window: int = 1,
    normalize: bool = False,
) -> Sweep:
    """Patch each site of a component, one at a time, from the source run into the base run, and measure.

        sweep = patch_sweep(lm, base, source, logit_diff(lm, " Paris", " Rome"))
        sweep.plot()

    Args:
        lm: a `LanguageModel`.
        base, source: two prompts, or two lists of prompts that pair up.
        metric: from the base run's final logits (batch, vocab) to (batch,); see `metrics`.
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

    Returns:
        A `Sweep` of shape (layer, position), or (layer, head); with lists of prompts, a first axis "pair".

    Raises:
        ValueError: prompts that don't pair up, or of unequal lengths where positions are not named.
    """
    single = isinstance(base, str)
    bases, sources = ([base], [source]) if single else (list(base), list(source))
    if isinstance(source, str) != single or len(bases) != len(sources):
        given = [
            "one string" if isinstance(prompts, str) else f"a list of {len(prompts)}" for prompts in (base, source)
        ]
        raise ValueError(
            f"Base and source pair up: give two strings, or two lists of one length, not {given[0]} and {given[1]}."
        )
    layers = list(range(lm.n_layers)) if layers is None else [layers] if isinstance(layers, int) else list(layers)
    for layer in layers:
        Site(component, layer).place(lm)
    windows = [_window(layer, window, lm.n_layers) for layer in layers]
    tokens = lm.tokens(bases)
    layout = Layout(tokens.attention_mask)
    acts = record(lm, sources, component)
    if heads is None:
        cells = _cells(lm, bases, layout, acts.layout, positions)
        axis = "position"
        labels, sites = list(cells), [dict(positions=_by_row(where, layout, acts.layout)) for where in cells.values()]
    else:
        axis, labels = "head", [heads] if isinstance(heads, int) else list(heads)
        sites = [dict(positions=positions, heads=head) for head in labels]
    if not layers or not sites:
        raise ValueError(f"There is nothing to patch: layers={layers}, {axis}s={labels}.")

    values = torch.stack(
        [
            _patch_layer(lm, tokens, acts, metric, component, layers_at_once, sites)
            for layers_at_once in tqdm(
                windows, desc=f"patching {component}", unit="layer", leave=False, delay=2, disable=len(layers) < 3
            )
        ]
    )  # (layer, cell, pair)
    sweep = Sweep(
        values=values.movedim(-1, 0),
        axes=("pair", "layer", axis),
        labels={"pair": list(range(len(bases))), "layer": layers, axis: labels},
        base=metric(lm.next_token_logits(tokens)).float().cpu(),
        source=metric(lm.next_token_logits(sources)).float().cpu(),
        metric=getattr(metric, "name", getattr(metric, "__name__", "metric")),
        component=component if window == 1 else f"{component}, windows of {window} layers",
    )
    if single:
        sweep = replace(sweep, values=sweep.values[0], axes=sweep.axes[1:], base=sweep.base[0], source=sweep.source[0])
    return sweep.normalized if normalize else sweep


def _patch_layer(
    lm, tokens: Tensor, acts, metric: Callable, component: str, layers: range, sites: list[dict]
) -> Tensor:
    """The metric (cell, pair) after patching each cell of one layer (or window of layers)."""
    pairs = len(tokens)
    if "heads" in sites[0]:  # heads differ between cells: a run each
        batches = [(site, 1) for site in sites]
    else:  # positions differ: several cells are rows of one run
        per_run = max(1, ROWS_PER_RUN // pairs)
        chunks = [sites[i : i + per_run] for i in range(0, len(sites), per_run)]
        batches = [({"positions": sum((site["positions"] for site in chunk), ())}, len(chunk)) for chunk in chunks]
    found = []
    for where, n in batches:
        rows = list(range(pairs)) * n
        these = tokens[rows]
        these.attention_mask = tokens.attention_mask[rows]
        patches = [edits.replace(Site(component, layer, **where), acts.rows(rows)) for layer in layers]
        with intervene(lm, *patches):
            logits = lm.next_token_logits(these)
        found += [metric(logits[i : i + pairs]).float().cpu() for i in range(0, len(rows), pairs)]
    return torch.stack(found)


def _cells(lm, bases: list[str], ours: Layout, theirs: Layout, positions) -> dict[str, object]:
    """The position axis: {label: positions as in `Site`}."""
    if isinstance(positions, Mapping):
        return dict(positions)
    if positions is not None:
        if not hasattr(positions, "__iter__"):
            raise ValueError(
                f"positions={positions!r} was not understood: give a sequence, or named places, one a cell."
            )
        positions = list(positions)
        if len(positions) == len(bases) > 1 and all(hasattr(where, "__iter__") for where in positions):
            raise ValueError(
                f"positions={positions!r} could be {len(bases)} cells, or one cell with a place for each of {len(bases)} pairs: name "
                "the cells, positions={'subject': …}."
            )
        return {str(where): where for where in positions}
    if ours.lengths != theirs.lengths or len(set(ours.lengths)) > 1:
        raise ValueError(
            f"Base prompts have {list(ours.lengths)} tokens and source prompts {list(theirs.lengths)}: to sweep over every token "
            "all must be equally long. Choose such prompts, or name the places, positions={'subject': …, 'last token': -1}."
        )
    names = lm.str_tokens(bases[0]) if len(bases) == 1 else [""] * ours.lengths[0]
    return {f"{i} {name}".strip(): i for i, name in enumerate(names)}


def _by_row(positions, ours: Layout, theirs: Layout) -> tuple[tuple[int, ...], ...]:
    """Positions as one tuple a row, so that different cells can be rows of one batch."""
    where = Site("block_output", 0, positions=positions).positions
    n = len(ours.lengths)
    if isinstance(where, int | tuple):
        flat = isinstance(where, int) or not where or isinstance(where[0], int)
        rows = (((where,) if isinstance(where, int) else where),) * n if flat else where
        if len(rows) != n:
            raise ValueError(
                f"Positions were given for {len(rows)} rows, one sequence a pair, and there are {n} pairs."
            )
        return rows
    for from_the_end in (False, True):  # a slice may count from either end of prompts that differ in length
        found = _places(where, ours, from_the_end)
        if found == _places(where, theirs, from_the_end):
            return found
    raise ValueError(
        f"positions={where!r} names tokens of the base prompts, of {list(ours.lengths)} tokens, and of the source prompts, of "
        f"{list(theirs.lengths)}, that don't pair up: choose prompts of equal length, or name positions that exist in both."
    )


def _places(where: slice | None, layout: Layout, from_the_end: bool) -> tuple[tuple[int, ...], ...]:
    spots, found = layout.spots(where), [[] for _ in layout.lengths]
    for row, column in zip(spots.rows.tolist(), spots.columns.tolist(), strict=True):
        found[row].append(column - layout.starts[row] - (layout.lengths[row] if from_the_end else 0))
    return tuple(map(tuple, found))


def _window(layer: int, width: int, n_layers: int) -> range:
    if width < 1:
        raise ValueError(f"A window is one layer or more, and {width} was given.")
    return range(max(0, layer - width // 2), min(n_layers, layer - width // 2 + width))


def _words(cell: dict) -> str:
    return ", ".join(f"{axis} {label}" for axis, label in cell.items())
