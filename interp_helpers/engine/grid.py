"""The sites that a sweep goes over, one after the other: windows of layers × places (or heads)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from torch import Tensor

from ..edits import vector_site
from ..models import Layout, as_ints, one_a_row
from ..sites import Site
from .cells import Cell, runs

COARSE = 5  # layers that a first picture has, about


@dataclass(frozen=True)
class Grid:
    """The sites of a component that a sweep goes over.

    Attributes:
        name: what the component is called, with its window.
        layers, windows: along the first axis; a window is the layers that are patched together.
        axis, labels, places: along the second, "position" or "head"; a place is positions, one sequence a row, and a head.
    """

    component: str
    name: str
    layers: list[int]
    windows: list[range]
    axis: str
    labels: list
    places: list[tuple[tuple[tuple[int, ...], ...], int | None]]

    @classmethod
    def of(
        cls, lm, component: str, base: Tensor, source: Tensor, layers=None, positions=None, heads=None, window: int = 1
    ) -> Grid:
        """From what a caller says; see `patching.patch_sweep`. `base` and `source` are tokens.

        Raises:
            ValueError: what doesn't exist in the model or the prompts, or nothing to go over.
        """
        layers = as_ints(range(lm.n_layers) if layers is None else layers)
        for layer in layers:
            vector_site(Site(component, layer)).place(lm)
        ours, theirs = Layout(base.attention_mask), Layout(source.attention_mask)
        if heads is None:
            axis, cells = "position", _cells(lm, base, ours, theirs, positions)
            labels, places = [label for label, _ in cells], [(_by_row(where, ours, theirs), None) for _, where in cells]
        else:
            axis, labels, where = "head", as_ints(heads), _by_row(positions, ours, theirs)
            places = [(where, head) for head in labels]
        if not layers or not labels:
            raise ValueError(f"There is nothing to patch: layers={layers}, {axis}s={labels}.")
        if len(set(layers)) < len(layers) or len(set(labels)) < len(labels):
            raise ValueError(f"Each cell is measured once, and one is named twice: layers={layers}, {axis}s={labels}.")
        if heads is not None:
            Site(component, layers[0], heads=labels).place(lm)
        windows = [window_of(layer, window, lm.n_layers) for layer in layers]
        name = component if window == 1 else f"{component}, windows of {window} layers"
        return cls(component, name, layers, windows, axis, labels, places)

    @property
    def cells(self) -> list[Cell]:
        return [Cell(layers, *place) for layers in self.windows for place in self.places]

    def only(self, layers: Sequence[int]) -> Grid:
        """The same sites of some layers alone."""
        windows = dict(zip(self.layers, self.windows, strict=True))
        return replace(self, layers=list(layers), windows=[windows[layer] for layer in layers])

    def steps(self, progressive: bool = True) -> list[list[int]]:
        """The layers in the order in which each step shows most: some `COARSE` from the first to the last, those between, the rest.
        Otherwise all in one step."""
        if not progressive:
            return [self.layers]
        last = len(self.layers) - 1
        marks = sorted({round(i * last / (COARSE - 1)) for i in range(COARSE)})
        between = [(a + b) // 2 for a, b in pairwise(marks) if b - a > 1]
        rest = sorted(set(range(last + 1)) - {*marks, *between})
        return [[self.layers[i] for i in step] for step in (marks, between, rest) if step]

    def so_far(self, steps: Sequence[Sequence[int]]) -> tuple[Grid, list[int]]:
        """The grid of the layers of some steps, in the grid's own order; and for each of its cells, which one of the steps' it is, the
        steps one after the other."""
        taken = [layer for step in steps for layer in step]
        layers, n = [layer for layer in self.layers if layer in taken], len(self.places)
        return self.only(layers), [taken.index(layer) * n + i for layer in layers for i in range(n)]

    @property
    def sites(self) -> list[Site]:
        """All that a sweep reads from the source run."""
        return [Site(self.component, layer) for layer in sorted(set().union(*self.windows))]

    def table(self, values: Tensor) -> Tensor:
        """From (cell, …) to (…, layer, place)."""
        return values.unflatten(0, (len(self.layers), len(self.labels))).movedim((0, 1), (-2, -1))


def in_steps(
    lm, tokens: Tensor, grid: Grid, source: Callable, measure: Callable, *edits: Callable, progressive: bool = False
) -> Iterator[tuple[Grid, Tensor]]:
    """The grid of the layers so far, and what was measured of the base run and of each of its cells (1 + cell, …), once after each
    step; the arguments are those of `runs`."""
    steps = grid.steps(progressive)
    found = runs(lm, tokens, grid.component, [grid.only(step).cells for step in steps], source, measure, *edits)
    for n, values in enumerate(found, 1):
        so_far, order = grid.so_far(steps[:n])
        yield so_far, values[[0, *(1 + i for i in order)]]


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
    """Positions as one tuple a row, the same of base and source, so that different cells can be rows of one batch."""
    where = Site("block_output", 0, positions=positions).positions
    n = len(ours.lengths)
    if isinstance(where, int | tuple):
        rows = where if one_a_row(where) else ((where,) if isinstance(where, int) else where,) * n
        if len(rows) != n:
            raise ValueError(
                f"Positions were given for {len(rows)} rows, one sequence a pair, and there are {n} pairs."
            )
        return rows
    for ends in (0, 1):  # a slice may count from either end of prompts that differ in length
        found = []
        for layout in (ours, theirs):
            spots = layout.spots(where)
            rows = zip(spots.positions.split(spots.counts), layout.lengths, strict=True)
            found.append(tuple(tuple((row - ends * length).tolist()) for row, length in rows))
        if found[0] == found[1]:
            return found[0]
    raise ValueError(
        f"positions={where!r} names tokens of the base prompts, of {list(ours.lengths)} tokens, and of the source prompts, of "
        f"{list(theirs.lengths)}, that don't pair up: choose prompts of equal length, or name positions that exist in both."
    )


def window_of(layer: int, width: int, n_layers: int) -> range:
    """The layers of a window centred at a layer, as in ROME's code."""
    if width < 1:
        raise ValueError(f"A window is one layer or more, and {width} was given.")
    return range(max(0, layer - width // 2), min(n_layers, layer - width // 2 + width))
