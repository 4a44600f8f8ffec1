"""A sweep: the sites that it goes over, what it measured there, and how to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


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

    def first_flip(self, position: int | str = -1) -> int | None:
        """The first layer where patching this position brings the metric to the source's side of zero; None if none does, or if the
        base run is on that side already.

        >>> leaning = logit_diff(lm, " Paris", " Rome")
        >>> patch_sweep(lm, base, source, leaning, layers=[10, 23], positions=[-1]).first_flip()
        23

        Args:
            position: along the second axis: its index, or its label.

        Raises:
            ValueError: a sweep of several pairs, or of shares of the way, whose zero is the base run.
        """
        if self.base.ndim or self.axes[0] != "layer":
            raise ValueError(f"This sweep has the axes {self.axes}: a flip is looked for in one pair's layers.")
        start, end = float(self.base), float(self.source)
        if start == 0:
            raise ValueError(
                "The base run is at 0, as in every sweep of shares, so no sign can change: sweep with normalize=False."
            )
        at = list(self.labels[self.axes[1]]).index(position) if isinstance(position, str) else position
        flipped = (self.values[:, at] * end > 0).nonzero() if start * end < 0 else []
        return self.labels["layer"][int(flipped[0])] if len(flipped) else None

    def plot(self, **options):
        """The sweep as a heatmap; options as in `plotting.heatmap`."""
        from ..plotting import heatmap

        return heatmap(self, **options)

    def __repr__(self) -> str:
        size = " × ".join(f"{len(self.labels[axis])} {axis}s" for axis in self.axes)
        best = ", ".join(f"{value:.2f} at {_words(cell)}" for cell, value in self.top(1))
        return (
            f"{type(self).__name__} of {self.component}: {size}; {self.metric}; {self.ends[0]} {float(self.base.mean()):.2f}, "
            f"{self.ends[1]} {float(self.source.mean()):.2f}; furthest from {self.ends[0]} {best}"
        )


def by_place(sweeps: Mapping[str, Sweep]) -> dict[str, dict]:
    """Means over pairs as lines along the layers, one for each place of each sweep, with their standard errors: what `plotting.curves` takes.

    >>> how = dict(layers=[10, 25], positions={"last token": -1}, normalize=True)
    >>> mean = patch_sweep(lm, [base, base], [source, source], logit_diff(lm, " Paris", " Rome"), **how).mean()
    >>> sorted(by_place({"right source": mean})["lines"])
    ['last token, right source']
    """
    cells = [
        (f"{place}, {name}", sweep.values[:, i], None if sweep.error is None else sweep.error[:, i])
        for name, sweep in sweeps.items()
        for i, place in enumerate(sweep.labels[sweep.axes[1]])
    ]
    return {"lines": {name: line for name, line, _ in cells}, "errors": {name: error for name, _, error in cells}}


def _words(cell: dict) -> str:
    return ", ".join(f"{axis} {label}" for axis, label in cell.items())
