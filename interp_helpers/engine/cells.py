"""Many runs of one prompt, each with another site patched: a sweep's cells, batched.

Where the model can be resumed (`replay`), the cells are rows of batches that begin at the patched block and token, as many
as a stated amount of memory allows. Where not, `intervene` and a forward for each cell or a few: the plain way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..activations import Activations
from ..edits import replace
from ..hooks import Edit, intervene
from ..models import take
from ..sites import Site
from .resume import Patch, Run, can_resume

MEMORY = 64 * 2**20  # bytes that one call of a block may need for its intermediate results, about
GROUPS = 4  # rows are grouped by their first patched token: more groups waste fewer tokens, fewer make larger batches
ROWS = 64  # rows a forward, the plain way
SMALLEST = 256  # tokens a call below which a block costs the same however few they are


@dataclass(frozen=True)
class Cell:
    """What one patched run replaces: a component of some layers, at each row's positions, in all heads or one."""

    layers: range
    positions: tuple[tuple[int, ...], ...]
    head: int | None = None


def no_edits(rows: Sequence[int]) -> list[Edit]:
    """Nothing but the patch."""
    return []


@torch.no_grad()
def runs(
    lm,
    tokens: Tensor,
    component: str,
    cells: Sequence[Cell],
    source: Callable[[Sequence[int]], Activations],
    edits: Callable[[Sequence[int]], list[Edit]] = no_edits,
) -> Iterator[Tensor]:
    """The final logits (row, vocab) of the base run, and then of each cell's patched run, in order.

    Args:
        lm: a `LanguageModel`.
        tokens: the base prompts, as from `lm.tokens`.
        component: what is replaced.
        cells: where; one run each.
        source: the activations that replace the base's, for some of its rows: a record, with as many rows, of the cells'
            layers and of `Site("block_input", 0)`.
        edits: made in every run, before the patch: for some of the base's rows, a list.

    Raises:
        ValueError: a cell that doesn't fit the base or the source prompts.
    """
    entering = all((e.site.component, e.site.layer) == ("block_input", 0) for e in edits(range(len(tokens))))
    way = _resumed if entering and can_resume(lm) else _plain  # blocks are resumed without edits
    with tqdm(total=len(cells) * len(tokens), desc=f"patching {component}", unit="run", leave=False, delay=2) as bar:
        yield from way(lm, tokens, component, cells, source, edits, bar)


def rows_per_call(lm, new: int, width: int) -> int:
    """How many rows go through a block at once, each with its last `new` tokens of `width`, so that what they need at once stays
    within `MEMORY` bytes (but one row at least): for each new token some eight streams, three times the MLP's width and
    three patterns a head; for each token of the prompt its keys and values, four times."""
    mlp, heads = lm.anatomy.place("mlp_activation", 0).shape[0], lm.n_heads * lm.d_head
    numbers = new * (8 * lm.d_model + 3 * mlp + 3 * lm.n_heads * width) + 8 * width * heads
    return max(1, MEMORY // (numbers * lm.anatomy.embedding.weight.element_size()))


# -- the plain way ------------------------------------------------------------------------------------------------------


def _plain(lm, tokens, component, cells, source, edits, bar) -> Iterator[Tensor]:
    """One forward for each cell, or for as many cells of the same layers and head as `ROWS` rows hold."""
    everything = list(range(len(tokens)))
    acts = source(everything)

    def run(together: list[Cell]) -> Iterator[Tensor]:
        rows = everything * max(1, len(together))
        these = take(tokens, rows)
        changes = edits(rows)
        for layer in together[0].layers if together else ():
            where = dict(positions=sum((cell.positions for cell in together), ()), heads=together[0].head)
            changes = [*changes, replace(Site(component, layer, **where), acts.rows(rows))]
        with intervene(lm, *changes) if changes else nullcontext():
            logits = lm.next_token_logits(these)
        bar.update(len(rows) * bool(together))
        return logits.unflatten(0, (-1, len(tokens)))

    yield from run([])
    # Somebody's edits may be of just these rows, and so a batch has no others.
    at_once = 1 if lm.interventions else max(1, ROWS // len(tokens))
    waiting: list[Cell] = []
    for cell in cells:
        if waiting and ((cell.layers, cell.head) != (waiting[0].layers, waiting[0].head) or len(waiting) == at_once):
            yield from run(waiting)
            waiting = []
        waiting.append(cell)
    if waiting:
        yield from run(waiting)


# -- resuming -----------------------------------------------------------------------------------------------------------


def _resumed(lm, tokens, component, cells, source, edits, bar) -> Iterator[Tensor]:
    streams = torch.empty(1 + len(cells), len(tokens), lm.d_model, dtype=lm.anatomy.embedding.weight.dtype)
    batch, columns = tokens.shape
    # Captured runs weigh about six streams a block (the stream, keys, values, the source's): as much as some calls do.
    at_once = max(1, 8 * MEMORY // (6 * lm.n_layers * columns * lm.d_model * streams.element_size()))
    for rows in (range(batch)[i : i + at_once] for i in range(0, batch, at_once)):
        run, acts = Run(lm, take(tokens, rows), edits(rows)), source(rows)
        streams[:, rows] = run.final.to(streams)
        patches = _patches(lm, run, component, cells, acts, rows)
        for group in _grouped(patches, columns, lambda new: rows_per_call(lm, new, columns)):
            where = torch.tensor([(1 + patch.cell, rows[patch.row]) for patch in group])
            streams[where[:, 0], where[:, 1]] = run.resume(component, group, acts).to(streams)
            bar.update(len(group))
    per_call = max(1, MEMORY // (batch * lm.model.config.vocab_size * streams.element_size()))
    for i in range(0, len(streams), per_call):
        yield from lm.unembed(streams[i : i + per_call].to(lm.device).flatten(0, 1)).unflatten(0, (-1, batch))


def _patches(lm, run: Run, component: str, cells, acts: Activations, rows: range) -> list[Patch]:
    """A patch for each cell and row; those that can't change anything are left out."""
    found, spots = [], {}
    alike = _alike(run, acts)
    for number, cell in enumerate(cells):
        positions = tuple(cell.positions[row] for row in rows)
        if positions not in spots:
            site = Site(component, cell.layers[0], positions, cell.head)
            ours, theirs = run.layout.spots(positions), acts.layout.spots(positions)
            place = site.place(lm)
            replace(site, acts).prepare(
                place.shape if cell.head is None else (1, place.shape[1]), ours
            )  # refuses misfits
            pairs: list[list] = [[] for _ in rows]
            for row, at, of in zip(ours.rows.tolist(), ours.columns.tolist(), theirs.columns.tolist(), strict=True):
                if at != of or at >= alike[row]:
                    pairs[row].append((at, of))
            spots[positions] = pairs
        for row, columns in enumerate(spots[positions]):
            if columns:
                found.append(Patch(number, row, cell.layers, tuple(columns), cell.head))
    return found


def _alike(run: Run, acts: Activations) -> list[int]:
    """For each row, the first column where base and source differ: before it, a patch replaces things by themselves."""
    ours, theirs = run.streams[0], acts["block_input", 0]
    columns = min(ours.shape[1], theirs.shape[1])
    differs = (ours[:, :columns] != theirs[:, :columns]).any(-1)
    return [int(row.nonzero()[0]) if row.any() else columns for row in differs]


def _grouped(patches: list[Patch], width: int, rows_of: Callable[[int], int]) -> Iterator[list[Patch]]:
    """Patches that share their batches: of neighbouring first tokens, as many as the memory allows."""
    patches = sorted(patches, key=lambda patch: patch.start)
    groups = max(1, min(GROUPS, len(patches) * width // (2 * SMALLEST)))
    share = -(-len(patches) // groups)
    while patches:
        size = min(share, rows_of(width - patches[0].start))
        yield sorted(patches[:size], key=lambda patch: patch.layers[0])
        patches = patches[size:]
