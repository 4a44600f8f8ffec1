"""Counterfactual pairs' runs, paused at a site.

Learning a subspace repeats one interchange some thousand times at one and the same site. Nothing below the site ever changes, so
both runs of every pair are computed up to it once, and paused; what is computed again and again, with gradients, is only what
follows (`replay`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..edits import editable, replace
from ..engine import Run, can_resume
from ..hooks import hooked_at, intervene, removing
from ..models import LanguageModel, Layout, Place, one_a_row, take
from ..sites import Site
from .counterfactuals import Counterfactual, as_counterfactuals, key


def pause(model: LanguageModel | nn.Module, site: Site | str, pairs: Sequence[Counterfactual]) -> Paused:
    """Run both sides of every pair up to a site.

    Args:
        model: a `LanguageModel`; or any module from a batch of inputs to logits (batch, class).
        site: a `Site`, whose positions may be one sequence a pair; for a plain module, the name of the submodule whose
            output (batch, d) is the site.
        pairs: each a `Counterfactual`, or plain (base, source, label).

    Raises:
        ValueError: no pairs, or something else in their place, sources of another number or length, a position that doesn't exist, a label that isn't one token, or
            the attention pattern as a site.
    """
    pairs = as_counterfactuals(pairs)
    if not pairs:
        raise ValueError("There are no pairs: each is (base, source, label).")
    if len({len(pair.sources) for pair in pairs}) > 1:
        raise ValueError(
            "Some pairs have more sources than others: a tuple has one for each subspace, None where it stays."
        )
    if isinstance(model, LanguageModel):
        if not isinstance(site, Site):
            raise ValueError(
                f"A language model's site is a Site, such as Site('block_output', 8, -1), and {site!r} was given."
            )
        return _pause_language_model(model, site, pairs)
    if not isinstance(site, str):
        raise ValueError(
            f"A plain module's site is the name of a submodule, such as 'layers.0', and {site!r} was given."
        )
    return _pause_module(model, site, pairs)


@dataclass(frozen=True)
class Paused:
    """Pairs whose runs wait at a site.

    Attributes:
        labels: the counterfactual labels (pair,), as ids.
        finish: from pairs' numbers (row,) and values (row, *shape) to the logits (row, class) of these pairs' base runs with
            the values put in at the site; of a language model, the next token's. It carries gradients of the values.
        shape: of what one pair has there: (place, d), or (place, head, d_head).
    """

    labels: Tensor
    finish: Callable[[Tensor, Tensor], Tensor]
    _values: Tensor  # what the distinct prompts have at the site
    _bases: Tensor  # which of them is each pair's base (pair,)
    _sources: Tensor  # and which are its sources (pair, subspace)
    _alone: Tensor  # whether there is none (pair, subspace)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._values.shape[1:])

    @property
    def sources(self) -> int:
        """How many sources each pair has."""
        return self._sources.shape[1]

    def here(self, rows: Tensor) -> Tensor:
        """What some pairs' base runs have at the site: (row, *shape)."""
        return self._values[self._bases[rows]]

    def there(self, rows: Tensor, subspace: int = 0) -> Tensor:
        """What their source runs have there; `subspace` says whose source, where a pair has several."""
        return self._values[self._sources[rows, subspace]]

    def alone(self, rows: Tensor, subspace: int = 0) -> Tensor:
        """Which of them have no source for a subspace, which is then left alone: (row,), true or false."""
        return self._alone[rows, subspace]


@torch.no_grad()
def _pause_language_model(lm: LanguageModel, site: Site, pairs: Sequence[Counterfactual]) -> Paused:
    place, positions, resumable = editable(site).place(lm), per_pair(site, len(pairs)), can_resume(lm)
    found, which = _distinct(
        [(pair.base, at) for pair, at in zip(pairs, positions, strict=True)]
        + [
            (pair.base if source is None else source, at)
            for pair, at in zip(pairs, positions, strict=True)
            for source in pair.sources
        ]
    )
    which_base, which_source = which[: len(pairs)], which[len(pairs) :].view(len(pairs), -1)
    n = int(which_base.max()) + 1
    bases, others = found[:n], found[n:]  # a source that is some pair's base, too, needs no run of its own
    labels = torch.tensor([lm.token_id(pair.label) for pair in pairs], device=lm.device)
    tokens = lm.tokens([prompt for prompt, _ in bases])

    def at_the_site(tokens: Tensor, items: list[tuple], passing: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What passes at (prompt, positions), (row, *shape), in a run that has been made or is made here, and their columns
        (row, place)."""
        layout = Layout(tokens.attention_mask)
        try:
            spots = layout.spots(_together([at for _, at in items]))
        except ValueError as error:  # it counts rows of this batch, which nobody outside knows
            named = [f"Row {i} is the prompt {items[int(i)][0]!r}." for i in re.findall(r"\brow (\d+)", str(error))]
            raise ValueError(" ".join([str(error), *named])) from None
        if spots.each is None:
            raise ValueError(
                f"{site} names a different number of tokens in different prompts ({sorted(set(spots.counts))}): choose prompts "
                "of equal length, or name as many positions in each."
            )
        if passing is None:
            # Later tokens can't change what passes there; only an edit that counts from the end needs them.
            passing = _up_to(lm, place, tokens, int(spots.columns.max()) + 1 if resumable else tokens.shape[1])
        taken = place.view(layout.batched(passing))[spots.rows, spots.columns]
        taken = taken if site.heads is None else taken[:, site.head_list]
        return taken.unflatten(0, (-1, spots.each)), spots.columns.view(-1, spots.each)

    kept: list[Tensor] = []
    if resumable:
        with hooked_at(place, kept.append):
            run = Run(lm, tokens, since=site.layer + (site.component == "block_output"))
    values, columns = at_the_site(tokens, bases, kept.pop() if resumable else None)
    if others:
        there, _ = at_the_site(lm.tokens([prompt for prompt, _ in others]), others)
        if values.shape[1:] != there.shape[1:]:
            raise ValueError(
                f"{site} names {values.shape[1]} tokens of the bases and {there.shape[1]} of the sources, which don't pair up: choose "
                "prompts of equal length, or name positions that exist in both."
            )
        values = torch.cat([values, there])

    def resumed(rows: Tensor, values: Tensor) -> Tensor:
        rows = which_base[rows]
        first = int(columns[rows].min())
        spots = (torch.arange(len(rows))[:, None], columns[rows] - first)
        if site.heads is not None:
            spots = (spots[0][..., None], spots[1][..., None], torch.tensor(site.head_list))

        def put(tensor: Tensor) -> Tensor:
            result = tensor.clone()  # the captured run stays as it is
            view = place.view(result.view(len(rows), -1, result.shape[-1]))
            view[spots] = values.to(view)
            return result

        return lm.anatomy.unembed(run.resume_at(site.component, site.layer, rows, first, put))

    def whole(rows: Tensor, values: Tensor) -> Tensor:
        rows = which_base[rows].tolist()
        where = Site(site.component, site.layer, _together([bases[i][1] for i in rows]), site.heads)
        with intervene(lm, replace(where, values)):
            return lm.next_token_logits(take(tokens, rows), grad=torch.is_grad_enabled())

    return Paused(
        labels,
        resumed if resumable else whole,
        values,
        which_base,
        which_source,
        _alone(pairs),
    )


@torch.no_grad()
def _pause_module(module: nn.Module, name: str, pairs: Sequence[Counterfactual]) -> Paused:
    try:
        site = module.get_submodule(name)
    except AttributeError as error:
        names = ", ".join(repr(n) for n, _ in module.named_modules() if n)
        raise ValueError(f"There is no submodule {name!r}: it is one of {names}.") from error
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    sources = [pair.base if source is None else source for pair in pairs for source in pair.sources]
    inputs = [*(pair.base for pair in pairs), *sources]
    if not all(isinstance(one, Tensor) and one.shape == inputs[0].shape for one in inputs):
        given = sorted({str(tuple(one.shape)) if isinstance(one, Tensor) else type(one).__name__ for one in inputs})
        raise ValueError(
            f"A plain module's bases and sources are tensors of one shape, and {', '.join(given)} were given."
        )
    bases = torch.stack(inputs[: len(pairs)]).to(device)

    def read(inputs: Tensor) -> Tensor:
        kept: list = []

        def look(module, args, output) -> None:
            kept.append(output.clone() if isinstance(output, Tensor) else None)  # what follows may write to it

        with removing(site.register_forward_hook(look)):
            module(inputs)
        if len(kept) != 1:
            raise ValueError(
                f"The submodule {name!r} runs {len(kept)} times in one run, and a site is one place: name one that runs once."
            )
        if kept[0] is None or kept[0].shape[:-1] != inputs.shape[:1]:
            raise ValueError("The site of a plain module is a submodule whose output is one tensor (batch, d).")
        return kept[0][:, None]

    def finish(rows: Tensor, values: Tensor) -> Tensor:
        def put(module, args, output) -> Tensor:
            return values[:, 0].to(output, copy=True)

        with removing(site.register_forward_hook(put)):
            return module(bases[rows])

    return Paused(
        torch.tensor([int(pair.label) for pair in pairs], device=device),
        finish,
        read(torch.stack(inputs).to(device)),
        torch.arange(len(pairs)),
        torch.arange(len(pairs), len(inputs)).view(len(pairs), -1),
        _alone(pairs),
    )


def _up_to(lm: LanguageModel, place: Place, tokens: Tensor, columns: int) -> Tensor:
    """What passes a place in the first columns; the run ends there."""
    kept: list[Tensor] = []

    def stop(tensor: Tensor) -> None:
        kept.append(tensor.clone())
        raise _Enough

    with hooked_at(place, stop), suppress(_Enough):
        lm.model(tokens[:, :columns], attention_mask=tokens.attention_mask[:, :columns], use_cache=False)
    return kept.pop()


class _Enough(Exception):
    """The run has reached the site."""


def per_pair(site: Site, pairs: int) -> list:
    """The site's positions for each pair.

    Raises:
        ValueError: one sequence a pair, for another number of pairs.
    """
    where = site.positions
    if not one_a_row(where):
        return [where] * pairs
    if len(where) != pairs:
        raise ValueError(f"{len(where)} sequences of positions were given, one a pair, and there are {pairs} pairs.")
    return list(where)


def _together(positions: list):
    """Positions of several rows, as `Site` takes them."""
    if all(at == positions[0] for at in positions):
        return positions[0]
    return tuple(positions)


def _alone(pairs: Sequence[Counterfactual]) -> Tensor:
    return torch.tensor([[source is None for source in pair.sources] for pair in pairs])


def _distinct(items: list[tuple]) -> tuple[list[tuple], Tensor]:
    """The distinct (prompt, positions) among some, and which of them each one is."""

    keys = [(key(prompt), repr(at)) for prompt, at in items]
    numbers: dict[Hashable, int] = {}
    found = []
    for name, item in zip(keys, items, strict=True):
        if numbers.setdefault(name, len(numbers)) == len(found):
            found.append(item)
    return found, torch.tensor([numbers[name] for name in keys])
