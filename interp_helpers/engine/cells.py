"""Many runs of one prompt, each with another site patched: a sweep's cells, batched.

Where the model can be resumed (`resume`), the cells are rows of batches that begin at the patched block and token, as many
as a stated amount of memory allows. Of every batch one cell is run the plain way, too, before any number is shown: where they
differ, and where a model can't be resumed, all take the plain way, `intervene` and a forward for each cell or a few.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..activations import Activations
from ..edits import replace
from ..hooks import Edit, intervene
from ..models import ALONE, measuring, take
from ..sites import Site
from .resume import Run, Stopped, agree, can_resume, stop_if_asked, tell_whole

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


BASE = Cell(range(0), ())  # the base run: nothing is replaced


@torch.no_grad()
def runs(
    lm,
    tokens: Tensor,
    component: str,
    steps: Sequence[Sequence[Cell]],
    source: Callable[[Sequence[int]], Activations],
    measure: Callable[[Tensor], Tensor],
    edits: Callable[[Sequence[int]], list[Edit]] = lambda rows: [],
) -> Iterator[Tensor]:
    """What is measured of the base run, and then of each cell's patched run, in order, (1 + cell, …): once after each step, of the
    cells up to there.

    Args:
        lm: a `LanguageModel`.
        tokens: the base prompts, as from `lm.tokens`.
        component: what is replaced.
        steps: where, one run each: the cells that are run before something is given, and those that are run then.
        source: the activations that replace the base's, for some of its rows: a record, with as many rows, of the cells'
            layers and of `Site("block_input", 0)`.
        measure: from a run's final logits (row, vocab) to a tensor, the same shape for each run.
        edits: made in every run, before the patch: for some of the base's rows, a list.

    Raises:
        ValueError: a cell that doesn't fit the base or the source prompts.
        Stopped: see `stop_when`.
    """
    cells = [cell for step in steps for cell in step]
    entering = all((e.site.component, e.site.layer) == ("block_input", 0) for e in edits(range(len(tokens))))
    capture = lru_cache(1)(lambda rows: Run(lm, take(tokens, rows), edits(rows)))  # kept between steps
    source = lru_cache(1)(source)
    elsewhere = (
        True if threading.current_thread() is not threading.main_thread() else None
    )  # a bar there is in nobody's cell
    with tqdm(
        total=len(cells) * len(tokens),
        desc=f"patching {component}",
        unit="run",
        leave=False,
        delay=2,
        disable=elsewhere,
    ) as bar:
        found: list[Tensor] = []
        resuming, done = entering, 0  # blocks are resumed without edits
        for step in steps:
            done += len(step)
            with ALONE:  # another thread's hooks are no reason
                before, resuming = resuming, resuming and can_resume(lm)
            if resuming:
                try:
                    with measuring(lm.model):
                        streams = _resumed(
                            lm, tokens, component, step, capture, source, None if found else measure, edits, bar
                        )
                    found += [measure(logits) for logits in _read_off(lm, streams[bool(found) :])]
                except Stopped:
                    raise
                except _Differs:
                    resuming = False
                    tell_whole(lm)
                except Exception:  # whatever it is that this model can't do, the plain way can, or says what is wrong
                    resuming = False
            if before and not resuming:  # what was found before isn't to be relied on either
                found = []
                source.cache_clear()
                bar.reset()
            if not resuming:
                todo = [BASE, *cells[:done]][len(found) :]
                found += [measure(logits) for logits in _plain(lm, tokens, component, todo, source, edits, bar)]
            yield torch.stack(found)


def rows_per_call(lm, new: int, width: int) -> int:
    """How many rows go through a block at once, each with its last `new` tokens of `width`, so that what they need at once stays
    within `MEMORY` bytes (but one row at least): for each new token some eight streams, three times the MLP's width and
    three patterns a head; for each token of the prompt its keys and values, four times."""
    mlp, heads = lm.anatomy.d_mlp, lm.n_heads * lm.d_head or lm.d_model
    numbers = new * (8 * lm.d_model + 3 * mlp + 3 * lm.n_heads * width) + 8 * width * heads
    return max(1, MEMORY // (numbers * lm.anatomy.embedding.weight.element_size()))


# -- the plain way ------------------------------------------------------------------------------------------------------


def _plain(lm, tokens, component, cells, source, edits, bar) -> Iterator[Tensor]:
    """One forward for each cell, or for as many cells of the same layers and head as `ROWS` rows hold."""
    everything, acts = list(range(len(tokens))), None
    # Somebody's edits may be of just these rows, and so a batch has no others.
    at_once = 1 if lm.running.interventions else max(1, ROWS // len(tokens))
    for (layers, head), group in groupby(cells, key=lambda cell: (cell.layers, cell.head)):
        alike = list(group)
        for i in range(0, len(alike), at_once):
            stop_if_asked()
            together = alike[i : i + at_once]
            rows = everything * len(together)
            these, changes = take(tokens, rows), edits(rows)
            if layers:
                acts = acts or source(range(len(tokens)))
                positions = sum((cell.positions for cell in together), ())
                theirs = acts.rows(rows)
                changes = [*changes, *(replace(Site(component, layer, positions, head), theirs) for layer in layers)]
            with intervene(lm, *changes) if changes else nullcontext():
                logits = lm.next_token_logits(these)
            bar.update(len(rows) * bool(layers))
            yield from logits.unflatten(0, (-1, len(tokens)))


# -- resuming -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Patch:
    """One row of a resumed batch: the cell's number, the base row, and the (base column, source column) pairs that
    differ, the first column first."""

    cell: int
    row: int
    layers: range
    columns: list[list[int]]
    head: int | None


class _Differs(Exception):
    """A resumed run isn't what a whole one is."""


def _read_off(lm, streams: Tensor) -> Iterator[Tensor]:
    """The logits (row, vocab) of each run's last streams (run, row, d), a bounded number at once."""
    rows = streams.shape[1]
    per_call = max(1, MEMORY // (rows * lm.model.config.vocab_size * streams.element_size()))
    for some in streams.split(per_call):
        yield from lm.unembed(some.to(lm.device).flatten(0, 1)).unflatten(0, (-1, rows))


def _resumed(lm, tokens, component, cells, capture, source, measure, edits, bar) -> Tensor:
    """The stream (run, row, d) that leaves the last block at each row's last token: of the base run, then of each cell's.

    Raises:
        _Differs: one that was run whole, too, differs.
    """
    streams = torch.empty(1 + len(cells), len(tokens), lm.d_model, dtype=lm.anatomy.embedding.weight.dtype)
    batch, columns = tokens.shape
    # Captured runs weigh about six streams a block (the stream, keys, values, the source's): as much as some calls do.
    at_once = max(1, 8 * MEMORY // (6 * lm.n_layers * columns * lm.d_model * streams.element_size()))
    for rows in (range(batch)[i : i + at_once] for i in range(0, batch, at_once)):
        run = capture(rows)
        unpatched = run.streams[-1][torch.arange(len(rows)), run.last]
        if not agree(lm.unembed(unpatched), run.logits):
            raise _Differs
        if measure and not rows.start:  # what doesn't fit is told before the work
            measure(run.logits if len(rows) == batch else lm.next_token_logits(tokens))
        acts = source(rows)
        streams[:, rows] = unpatched.to(streams)
        chosen, ends, proven, lengths = [], [], set(), run.layout.lengths
        for group in _grouped(_patches(run, cells, acts, rows), columns, lambda new: rows_per_call(lm, new, columns)):
            where = torch.tensor([(1 + patch.cell, rows[patch.row]) for patch in group])
            found = run_together(run, component, group, acts)
            streams[where[:, 0], where[:, 1]] = found.to(streams)
            before = unpatched[[patch.row for patch in group]]
            moved = ((found - before).norm(dim=-1) > 1e-2 * before.norm(dim=-1)).nonzero().flatten().tolist() or [0]
            # The first that is changed joined before the others and went through more blocks; and one of each length of prompts.
            new = {lengths[group[i].row]: i for i in reversed(moved) if lengths[group[i].row] not in proven}
            proven |= new.keys()
            for i in new.values() or [moved[0]]:
                chosen.append(group[i])
                ends.append(found[i])
            bar.update(len(group))
        for i in range(0, len(chosen), ROWS):
            whole = _whole(lm, tokens, component, cells, chosen[i : i + ROWS], rows, acts, edits)
            if not agree(lm.unembed(torch.stack(ends[i : i + ROWS])), whole):
                raise _Differs
    return streams


def _whole(lm, tokens, component, cells, patches: list[_Patch], rows: range, acts: Activations, edits) -> Tensor:
    """The logits (patch, vocab) of some patched runs, the plain way: as rows of one batch, each patched at places of its own."""
    bases, theirs = [rows[patch.row] for patch in patches], acts.rows([patch.row for patch in patches])
    changes = list(edits(bases))
    for i, patch in enumerate(patches):
        where = [()] * len(patches)
        where[i] = cells[patch.cell].positions[bases[i]]
        changes += [replace(Site(component, layer, tuple(where), patch.head), theirs) for layer in patch.layers]
    with intervene(lm, *changes):
        return lm.next_token_logits(take(tokens, bases))


def run_together(run: Run, component: str, patches: list[_Patch], acts: Activations) -> Tensor:
    """The stream (patch, d) that leaves the last block at each patched run's last token."""
    first = min(patch.columns[0][0] for patch in patches)
    layers, rows = [patch.layers[0] for patch in patches], torch.tensor([patch.row for patch in patches])
    places = [(i, at - first, p.row, of, p.head or 0) for i, p in enumerate(patches) for at, of in p.columns]
    spans = [(p.layers.start, p.layers.stop) for p in patches for _ in p.columns]
    where, (begin, end) = torch.tensor(places), torch.tensor(spans).unbind(1)

    def put(layer: int) -> Callable[[Tensor], Tensor] | None:
        """What puts the source's activations of a layer into the rows that are patched there."""
        to_row, to_column, row, column, head = where[(begin <= layer) & (layer < end)].unbind(1)
        if not len(to_row):
            return None
        heads = () if patches[0].head is None else (head,)
        place = run.lm.anatomy.place(component, layer)

        def change(tensor: Tensor) -> Tensor:
            result = tensor.clone()  # others may hold on to the original
            view = place.view(result.view(-1, run.streams[-1].shape[1] - first, result.shape[-1]))
            view[(to_row, to_column, *heads)] = acts[component, layer][(row, column, *heads)].to(view)
            return result

        return change

    return run.resume(component, layers, rows, first, put)


def _patches(run: Run, cells, acts: Activations, rows: range) -> list[_Patch]:
    """A patch for each cell and row; those that can't change anything are left out: before the first column where base and
    source differ, things are replaced by themselves."""
    found, spots = [], {}
    ours, theirs = run.streams[0], acts["block_input", 0]
    shared = min(ours.shape[1], theirs.shape[1])
    differs = (ours[:, :shared] != theirs[:, :shared]).any(-1)
    alike = [int(row.nonzero()[0]) if row.any() else shared for row in differs]
    for number, cell in enumerate(cells):
        positions = tuple(cell.positions[row] for row in rows)
        if positions not in spots:
            to, of = run.layout.spots(positions), acts.layout.spots(positions)
            pairs: list[list] = [[] for _ in rows]
            for row, *columns in zip(to.rows.tolist(), to.columns.tolist(), of.columns.tolist(), strict=True):
                if columns[0] != columns[1] or columns[0] >= alike[row]:
                    pairs[row].append(columns)
            spots[positions] = list(map(sorted, pairs))
        found += [_Patch(number, i, cell.layers, to, cell.head) for i, to in enumerate(spots[positions]) if to]
    return found


def _grouped(patches: list[_Patch], width: int, rows_of: Callable[[int], int]) -> Iterator[list[_Patch]]:
    """Patches that share their batches: of neighbouring first tokens, as many as the memory allows."""
    patches = sorted(patches, key=lambda patch: patch.columns[0][0])
    groups = max(1, min(GROUPS, len(patches) * width // (2 * SMALLEST)))
    share = -(-len(patches) // groups)
    while patches:
        size = min(share, rows_of(width - patches[0].columns[0][0]))
        yield sorted(patches[:size], key=lambda patch: patch.layers[0])
        patches = patches[size:]
