"""Heads in a sweep: how far they move the answer on average, which ones the most, and whether that holds on other prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from .sweep import Sweep


class Head(NamedTuple):
    """An attention head, written layer.head: `str(Head(23, 3))` is "23.3"."""

    layer: int
    number: int

    def __str__(self) -> str:
        return f"{self.layer}.{self.number}"


@dataclass(frozen=True)
class Confirmed:
    """Heads that were chosen on some prompts, measured on others.

    Attributes:
        values, errors: {"layer.head": share on the other prompts, and its standard error}; the last entry of `values` is the mean
            size of all heads that weren't chosen.
        held: the heads that move over a tenth of the way on both, in the same direction.
        rest: that mean size.
    """

    values: dict[str, float]
    errors: dict[str, float]
    held: list[Head]
    rest: float


def average_share(sweep: Sweep, rows: Sequence[int] | None = None) -> Sweep:
    """What each patch moved, on average over the pairs, as a share of the average way from base to source.

    >>> p = ioi(2)
    >>> metric = logit_diff(lm, [one.indirect_object for one in p], [one.subject for one in p])
    >>> sweep = patch_sweep(lm, [one.corrupted for one in p], [one.prompt for one in p], metric, layers=[29], positions=[-1])
    >>> round(average_share(sweep).values.item(), 3)
    1.0

    A mean of ratios is at the mercy of pairs whose two runs hardly differ; this is a ratio of means. Its standard error is that of a
    ratio, too: 0 where every patch moves the same share of its own way.

    Args:
        sweep: of several pairs, as `patch_sweep` makes it, not normalised.
        rows: some of the pairs (default: all).

    Raises:
        ValueError: a sweep without pairs, or pairs whose two runs don't differ on average.
    """
    if sweep.axes[0] != "pair":
        raise ValueError(
            "This sweep is of one pair, and there is nothing to average: give patch_sweep lists of prompts."
        )
    rows = list(range(len(sweep.values)) if rows is None else rows)
    shape = (-1, *[1] * (sweep.values.ndim - 1))
    way = (sweep.source - sweep.base)[rows]
    if way.mean().abs() < 1e-6:
        raise ValueError(
            f"{sweep.metric} is the same in the base and the source runs, on average: there is no way to share."
        )
    moved = (sweep.values - sweep.base.reshape(shape))[rows]
    share = moved.mean(0) / way.mean()
    off = moved - share * way.reshape(shape)
    error = off.std(0) / (len(rows) ** 0.5 * way.mean().abs()) if len(rows) > 1 else None
    nothing, metric = torch.zeros(()), "share of the average way from base to source"
    return replace(
        sweep, values=share, error=error, axes=sweep.axes[1:], base=nothing, source=nothing + 1, metric=metric
    )


def strongest_heads(sweep: Sweep, k: int | None = None, *, over: float | None = None) -> dict[Head, float]:
    """The k heads with the largest values of a sweep (layer, head), up or down, the largest first; those with more than `over`.

    >>> sweep = direct_logit_attribution(lm, base, " Rome", " Paris").heads.mean()
    >>> [str(head) for head in strongest_heads(sweep, 1)]
    ['23.4']
    """
    found = {Head(place["layer"], place["head"]): value for place, value in sweep.top(sweep.values.numel())}
    return {head: value for head, value in list(found.items())[:k] if over is None or abs(value) > over}


def confirm_heads(sweep: Sweep, halves: Sequence[Sequence[int]], k: int = 6) -> Confirmed:
    """Choose the k strongest heads on some pairs, and measure them on others: the largest of many noisy numbers is too large.

    Args:
        sweep: of several pairs, as `patch_sweep` makes it with `heads`, not normalised.
        halves: the pairs to choose with, and the pairs to measure with.
    """
    ours, theirs = (average_share(sweep, rows) for rows in halves)
    chosen = strongest_heads(ours, k)
    found = strongest_heads(theirs)
    rest = [abs(value) for head, value in found.items() if head not in chosen]
    mean = sum(rest) / max(1, len(rest))
    row = {layer: i for i, layer in enumerate(sweep.labels["layer"])}
    column = {head: i for i, head in enumerate(sweep.labels["head"])}
    errors = {str(head): float(theirs.error[row[head.layer], column[head.number]]) for head in chosen}
    held = [
        head for head, value in chosen.items() if min(abs(value), abs(found[head])) > 0.1 and value * found[head] > 0
    ]
    values = {str(head): found[head] for head in chosen} | {f"the other {len(rest)}, mean size": mean}
    return Confirmed(values, errors, held, mean)
