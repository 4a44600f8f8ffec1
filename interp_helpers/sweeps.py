"""A sweep: the sites that it goes over, what it measured there, and how to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .batches import Cell
from .edits import _editable
from .sites import Layout, Site, as_ints, one_a_row


@dataclass(frozen=True)
class Sweep:
    """One number for each site of a sweep, and what is needed to read it.

    >>> sweep = patch_sweep(lm, base, source, logit_diff(lm, " Paris", " Rome"), layers=[10, 25], normalize=True)
    >>> sweep.axes, tuple(sweep.values.shape)
    (('layer', 'position'), (2, 9))
    >>> place, share = sweep.top(1)[0]
    >>> place, round(share, 1)
    ({'layer': 10, 'position': '2 osse'}, 0.9)

    Attributes:
        values: the metric after each patch; its axes are named by `axes` ("layer", "position", …; "pair" comes first
            for a batch of pairs).
        axes: the axes' names.
        labels: what stands along each axis.
        base, source: the metric of the two unpatched runs: shape (), or (pair,).
        metric, component: what was measured, and where it was patched.
        error: the standard error of `values`, where they are means (over pairs, say).
        ends: what the runs of `base` and `source` are called in figures.
    """

    values: Tensor
    axes: tuple[str, ...]
    labels: Mapping[str, Sequence]
    base: Tensor
    source: Tensor
    metric: str
    component: str
    error: Tensor | None = None
    ends: tuple[str, str] = ("base", "source")

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
            ValueError: the sweep has no axis "pair".
        """
        if self.axes[0] != "pair":
            hint = f"sweep one {self.axes[0]} at a time" if self.axes[2:] else "give patch_sweep lists of prompts"
            raise ValueError(f"This sweep is of one pair, and there is nothing to average: {hint}.")
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
            f"{type(self).__name__} of {self.component}: {size}; {self.metric}; {self.ends[0]} {float(self.base.mean()):.2f}, "
            f"{self.ends[1]} {float(self.source.mean()):.2f}; furthest from {self.ends[0]} {best}"
        )


def _words(cell: dict) -> str:
    return ", ".join(f"{axis} {label}" for axis, label in cell.items())


@dataclass(frozen=True)
class Grid:
    """The sites that a sweep goes over, one after the other: windows of layers × places (or heads)."""

    layers: list[int]
    windows: list[range]
    axis: str
    labels: list
    places: list[tuple[tuple[tuple[int, ...], ...], int | None]]  # positions, one sequence a row, and a head

    @classmethod
    def of(cls, lm, component: str, base: Tensor, source: Tensor, layers, positions, heads, window: int) -> Grid:
        """From what a caller says; see `patching.patch_sweep`. `base` and `source` are tokens.

        Raises:
            ValueError: what doesn't exist in the model or the prompts, or nothing to go over.
        """
        layers = as_ints(range(lm.n_layers) if layers is None else layers)
        for layer in layers:
            _editable(Site(component, layer)).place(lm)
        ours, theirs = Layout(base.attention_mask), Layout(source.attention_mask)
        if heads is None:
            axis, cells = "position", _cells(lm, base, ours, theirs, positions)
            labels, places = [label for label, _ in cells], [(_by_row(where, ours, theirs), None) for _, where in cells]
        else:
            axis, labels = "head", as_ints(heads)
            places = [(_by_row(positions, ours, theirs), head) for head in labels]
        for layer in layers:
            for head in labels if heads is not None else ():
                Site(component, layer, heads=head).place(lm)
        if not layers or not labels:
            raise ValueError(f"There is nothing to patch: layers={layers}, {axis}s={labels}.")
        if len(set(layers)) < len(layers) or len(set(labels)) < len(labels):
            raise ValueError(f"Each cell is measured once, and one is named twice: layers={layers}, {axis}s={labels}.")
        return cls(layers, [window_of(layer, window, lm.n_layers) for layer in layers], axis, labels, places)

    @property
    def cells(self) -> list[Cell]:
        return [Cell(layers, *place) for layers in self.windows for place in self.places]

    def sites(self, component: str) -> list[Site]:
        """All that a sweep reads from the source run."""
        return [Site(component, layer) for layer in sorted(set().union(*self.windows))]

    def table(self, values: Tensor) -> Tensor:
        """From (cell, …) to (…, layer, place)."""
        return values.unflatten(0, (len(self.layers), len(self.labels))).movedim((0, 1), (-2, -1))


def _cells(lm, base: Tensor, ours: Layout, theirs: Layout, positions) -> list[tuple[str, object]]:
    """The position axis: (label, positions as in `Site`)."""
    if isinstance(positions, Mapping):
        return list(positions.items())
    if isinstance(positions, Tensor):
        positions = positions.tolist()
    if positions is not None:
        if not hasattr(positions, "__iter__"):
            raise ValueError(
                f"positions={positions!r} was not understood: give a sequence, or named places, one a cell."
            )
        positions = list(positions)
        if len(positions) == len(base) > 1 and all(hasattr(where, "__iter__") for where in positions):
            raise ValueError(
                f"positions={positions!r} could be {len(base)} cells, or one cell with a place for each of {len(base)} pairs: name "
                "the cells, positions={'subject': …}."
            )
        return [(str(where), where) for where in positions]
    if ours.lengths != theirs.lengths or len(set(ours.lengths)) > 1:
        raise ValueError(
            f"Base prompts have {list(ours.lengths)} tokens and source prompts {list(theirs.lengths)}: to sweep over every token "
            "all must be equally long. Choose such prompts, or name the places, positions={'subject': …, 'last token': -1}."
        )
    alike = bool((base == base[0]).all())
    names = lm.str_tokens(base[:1]) if alike else [""] * ours.lengths[0]
    return [(f"{i} {name}".strip(), i) for i, name in enumerate(names)]


def _by_row(positions, ours: Layout, theirs: Layout) -> tuple[tuple[int, ...], ...]:
    """Positions as one tuple a row, so that different cells can be rows of one batch."""
    where = Site("block_output", 0, positions=positions).positions
    n = len(ours.lengths)
    if isinstance(where, int | tuple):
        rows = where if one_a_row(where) else ((where,) if isinstance(where, int) else where,) * n
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


def named(component: str, window: int) -> str:
    """What a sweep's component is called."""
    return component if window == 1 else f"{component}, windows of {window} layers"


def window_of(layer: int, width: int, n_layers: int) -> range:
    """The layers of a window centred at a layer, as in ROME's code."""
    if width < 1:
        raise ValueError(f"A window is one layer or more, and {width} was given.")
    return range(max(0, layer - width // 2), min(n_layers, layer - width // 2 + width))
