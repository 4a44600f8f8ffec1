"""Interchange interventions: a base's run goes on with what a source has at a site, or in a subspace of it (Geiger et al. 2021).

Learning a subspace repeats one interchange some thousand times at one and the same site. Nothing before the site ever changes,
so both runs of every pair are computed up to it once, and wait there; what is computed again and again, with gradients, is only
what follows (`engine.resume`). Training and test are the same few lines with other pairs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from ..edits import replace, require_basis, swapped, vector_site
from ..engine import Run, agree, can_resume, frozen, tell_whole
from ..hooks import hooked_at, intervene, record
from ..models import Asked, LanguageModel, Layout, Place, one_a_row, take
from ..sites import Site
from .counterfactuals import Counterfactual, key

KEEP = 2**30  # bytes of captured runs; where they would take more, every interchange is a whole run
ROWS = 64  # pairs at once, where nothing is learnt


class Interchanges:
    """Pairs whose runs wait at a site, to go on with other values there.

    Args:
        model: a `LanguageModel`; or any module from a batch of inputs to logits (batch, class).
        site: a `Site`, one and the same for all pairs; for a plain module, the name of the submodule whose output (batch, d) is
            the site.
        pairs: counterfactuals, one or more.
        answers: the labels that compete; None: all.

    Attributes:
        labels: the counterfactual labels (pair,), as ids.
        finish: from pairs' numbers (row,) and values (row, *shape) to the logits (row, class) of these pairs' base runs with
            the values put in at the site; of a language model, the next token's. It carries gradients of the values.

    Raises:
        ValueError: no pairs, prompts of a length that doesn't fit the site, a position that doesn't exist, a label that isn't
            one token, or the attention pattern as a site.
    """

    def __init__(self, model, site, pairs: list[Counterfactual], answers: list | None = None):
        if not pairs:
            raise ValueError("There are no pairs: each is (base, source, label).")
        self.model, self.site, self.pairs, self.answers = model, site, pairs, answers
        words = isinstance(model, LanguageModel)
        if words and not isinstance(site, Site):
            raise ValueError(
                f"A language model's site is a Site, such as Site('block_output', 8, -1), and {site!r} was given."
            )
        if not words and not isinstance(site, str):
            raise ValueError(
                f"A plain module's site is the name of a submodule, such as 'layers.0', and {site!r} was given."
            )
        self.module: nn.Module = model.model if words else model
        self.device = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        labels, answers = [pair.label for pair in pairs], answers or []
        self._asked = Asked(model, labels) if words else None
        self.labels = (self._asked.ids if words else torch.tensor(list(map(int, labels)))).to(self.device)
        self._answers = torch.tensor(
            [model.token_id(one) if words else int(one) for one in answers], device=self.device
        )
        with torch.no_grad(), frozen(self.module):
            found = _in_language_model(model, site, pairs) if words else _in_module(model, site, pairs, self.device)
        self._values, self._bases, self._sources, self.finish = found

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what one pair has at the site: (place, d), or (place, head, d_head)."""
        return tuple(self._values.shape[1:])

    def base(self, rows: Tensor) -> Tensor:
        """What some pairs' base runs have at the site: (row, *shape)."""
        return self._values[self._bases[rows]]

    def source(self, rows: Tensor) -> Tensor:
        """What their source runs have there: (row, *shape)."""
        return self._values[self._sources[rows]]

    def logits(self, subspace, rows: Tensor) -> Tensor:
        """The logits (row, class) of some pairs, the subspace's content taken from the source; None is the whole component."""
        values, source = self.base(rows), self.source(rows)
        if subspace is None:
            values = source
        elif isinstance(subspace, Tensor):
            values = swapped(values, source, subspace)
        else:
            values = subspace.swap(values, source)
        return self.finish(rows, values)

    def compete(self, logits: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Of some pairs' logits (row, class) those that compete (row, answer), and the labels' places among them (row,).

        Raises:
            ValueError: a label that is none of the classes, or none of the answers.
        """
        labels, classes = self.labels[rows], logits.shape[-1]
        if self._asked:
            self._asked.check(logits, rows.tolist())
        if ((labels < 0) | (labels >= classes)).any():
            raise ValueError(f"Labels are classes, 0 to {classes - 1}, and {labels.unique().tolist()} were given.")
        if self.answers is None:
            return logits.float(), labels
        where = labels[:, None] == self._answers
        if not where.any(1).all():
            raise ValueError(f"Every label is one of the answers, {self.answers}, and some are not.")
        return logits[:, self._answers].float(), where.int().argmax(1)

    @torch.no_grad()
    def score(self, subspace) -> float:
        """The interchange-intervention accuracy."""
        right = 0
        with frozen(self.module):
            for rows in self.chunks():
                logits, target = self.compete(self.logits(subspace, rows), rows)
                right += int((logits.argmax(-1) == target).sum())
        return right / len(self)

    def chunks(self) -> Sequence[Tensor]:
        """All pairs' numbers, `ROWS` at a time."""
        return torch.arange(len(self)).split(ROWS)

    def require_fit(self, subspace) -> None:
        """
        Raises:
            ValueError: a subspace of another width, or a basis that is not orthonormal.
        """
        if subspace is None:
            return
        d = self.shape[-1]
        width = getattr(subspace, "d", d) if hasattr(subspace, "swap") else len(require_basis(subspace))
        if width != d:
            raise ValueError(f"The subspace is one of {width} dimensions, and activations at the site have {d}.")

    @torch.no_grad()
    def require_learnable(self) -> None:
        """
        Raises:
            ValueError: there is nothing to learn: source = base in every pair; labels that the model gives anyway, or never
                gives even if the whole component is interchanged.
        """
        if all(key(pair.source) == key(pair.base) for pair in self.pairs):
            raise ValueError(
                "In every pair the source is the base itself, so the interchange changes nothing, whatever the subspace, and there is "
                "no gradient to learn from: pair each base with another source."
            )
        given_anyway, ever, instead = True, False, None
        with frozen(self.module):
            for rows in self.chunks():
                untouched, target = self.compete(self.finish(rows, self.base(rows)), rows)
                patched, _ = self.compete(self.logits(None, rows), rows)
                given_anyway = given_anyway and bool((untouched.argmax(-1) == target).all())
                said = patched.argmax(-1)
                instead = int(said[0]) if instead is None else instead
                ever = ever or bool((said == target).any())
                if ever and not given_anyway:
                    return
        if given_anyway:
            raise ValueError(
                f"The model gives the label without any intervention in all of {len(self)} pairs, so there is nothing to learn: a label is "
                "what the base's answer becomes if the variable has its value in the source."
            )
        said = self.answers[instead] if self.answers else instead
        if isinstance(self.model, LanguageModel) and not isinstance(said, str):
            said = self.model.tokenizer.decode([said])
        raise ValueError(
            f"Even with the whole component interchanged the label comes out in none of {len(self)} pairs (in the first, {said!r} does "
            f"instead of {self.pairs[0].label!r}): is the variable kept at {self.site}, and are the labels right? A subspace that did better "
            "than the whole would be an artefact (Makelov et al. 2023); to see one, force=True."
        )


# -- up to the site, and on from there ----------------------------------------------------------------------------------

Waiting = tuple[Tensor, Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]]
"""What the distinct prompts have at the site, which of them is each pair's base, which its source, and `finish`."""


def _in_language_model(lm: LanguageModel, site: Site, pairs: list[Counterfactual]) -> Waiting:
    if can_resume(lm):
        try:
            return _waiting(lm, site, pairs, resume=True)
        except _Differs:
            tell_whole(lm)
        except Exception:  # whatever it is that this model can't do, whole runs can, or say what is wrong
            pass
    return _waiting(lm, site, pairs, resume=False)


class _Differs(Exception):
    """A resumed run isn't what a whole one is."""


def _waiting(lm: LanguageModel, site: Site, pairs: list[Counterfactual], resume: bool) -> Waiting:
    """
    Raises:
        _Differs: of runs that were resumed, one that was run whole, too, differs.
    """
    place = vector_site(site).place(lm)
    if one_a_row(site.positions):
        raise ValueError(
            f"{site} names a sequence of positions for each row, and all pairs are interchanged at one place: choose prompts in which "
            "it is the same token, counted from the start or from the end."
        )
    prompts, which = _distinct([pair.base for pair in pairs] + [pair.source for pair in pairs])
    which_base, which_source = which.view(2, -1)
    n = int(which_base.max()) + 1
    bases, others = prompts[:n], prompts[n:]  # a source that is some pair's base, too, needs no run of its own
    tokens = lm.tokens(bases)
    # A captured run has a stream, keys and values for every layer and token.
    weight = 3 * tokens.numel() * lm.n_layers * lm.d_model * lm.anatomy.embedding.weight.element_size()
    resume = resume and weight <= KEEP

    def at_the_site(prompts: list, tokens: Tensor, passing: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What prompts have at the site, (row, *shape), in a run that has been made or is made here, and the columns (row, place)."""
        layout = Layout(tokens.attention_mask)
        try:
            spots = layout.spots(site.positions)
        except ValueError as error:  # it counts rows of this batch, which nobody outside knows
            named = [f"Row {i} is the prompt {prompts[int(i)]!r}." for i in re.findall(r"\brow (\d+)", str(error))]
            raise ValueError(" ".join([str(error), *named])) from None
        if spots.each is None:
            raise ValueError(
                f"{site} names a different number of tokens in different prompts ({sorted(set(spots.counts))}): choose prompts "
                "of equal length, or name as many positions in each."
            )
        if passing is None:
            # Later tokens can't change what passes there; only an edit that counts from the end needs them.
            passing = _up_to(lm, place, tokens, int(spots.columns.max()) + 1 if resume else tokens.shape[1])
        taken = place.view(layout.batched(passing))[spots.rows, spots.columns]
        taken = taken if site.heads is None else taken[:, site.head_list]
        return taken.unflatten(0, (-1, spots.each)), spots.columns.view(-1, spots.each)

    kept: list[Tensor] = []
    if resume:
        with hooked_at(place, kept.append):
            run = Run(lm, tokens, since=site.layer + (site.component == "block_output"))
    values, columns = at_the_site(bases, tokens, *kept)
    if others:
        there, _ = at_the_site(others, lm.tokens(others))
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

        layers = [site.layer] * len(rows)
        at_the_layer = {site.layer: put}.get
        return lm.anatomy.unembed(run.resume(site.component, layers, rows, first, at_the_layer))

    def whole(rows: Tensor, values: Tensor) -> Tensor:
        with intervene(lm, replace(site, values)):
            return lm.next_token_logits(take(tokens, which_base[rows].tolist()), grad=torch.is_grad_enabled())

    if resume:
        # Batches differ in the first column that they run, and rows in their length: for each a pair that the interchange changes.
        changes = (values[which_base] != values[which_source]).flatten(1).any(1)
        kinds = list(zip(columns[which_base].min(1).values.tolist(), run.last[which_base].tolist(), strict=True))
        chosen = list({kinds[i]: i for i in changes.int().argsort(stable=True).tolist()}.values())
        with intervene(lm, replace(site, record(lm, [pairs[i].source for i in chosen], site))):
            by_itself = lm.next_token_logits([pairs[i].base for i in chosen])
        ones = torch.tensor(chosen).split(1)
        if not agree(torch.cat([resumed(row, values[which_source[row]]) for row in ones]), by_itself):
            raise _Differs
        if not agree(lm.unembed(run.streams[-1][torch.arange(n), run.last]), run.logits):
            raise _Differs
    return values, which_base, which_source, resumed if resume else whole


def _in_module(module: nn.Module, name: str, pairs: list[Counterfactual], device: torch.device) -> Waiting:
    try:
        site = module.get_submodule(name)
    except AttributeError as error:
        names = ", ".join(repr(n) for n, _ in module.named_modules() if n)
        raise ValueError(f"There is no submodule {name!r}: it is one of {names}.") from error
    inputs = [*(pair.base for pair in pairs), *(pair.source for pair in pairs)]
    if not all(isinstance(one, Tensor) and one.shape == inputs[0].shape for one in inputs):
        given = sorted({str(tuple(one.shape)) if isinstance(one, Tensor) else type(one).__name__ for one in inputs})
        raise ValueError(
            f"A plain module's bases and sources are tensors of one shape, and {', '.join(given)} were given."
        )
    inputs, kept = torch.stack(inputs).to(device), []

    def look(module, args, output) -> None:
        kept.append(output.clone() if isinstance(output, Tensor) else None)  # what follows may write to it

    with site.register_forward_hook(look):
        module(inputs)
    if len(kept) != 1:
        raise ValueError(
            f"The submodule {name!r} runs {len(kept)} times in one run, and a site is one place: name one that runs once."
        )
    if kept[0] is None or kept[0].shape[:-1] != inputs.shape[:1]:
        raise ValueError("The site of a plain module is a submodule whose output is one tensor (batch, d).")

    def finish(rows: Tensor, values: Tensor) -> Tensor:
        def put(module, args, output) -> Tensor:
            return values[:, 0].to(output, copy=True)

        with site.register_forward_hook(put):
            return module(inputs[rows])

    return kept[0][:, None], *torch.arange(len(inputs)).view(2, -1), finish


def _up_to(lm: LanguageModel, place: Place, tokens: Tensor, columns: int) -> Tensor:
    """What passes a place in the first columns; the run ends there."""
    kept: list[Tensor] = []

    def stop(tensor: Tensor) -> None:
        kept.append(tensor.clone())
        raise _Enough

    some = tokens[:, :columns]
    some.attention_mask = tokens.attention_mask[:, :columns]
    with hooked_at(place, stop), suppress(_Enough):
        lm.run(some)
    return kept.pop()


class _Enough(Exception):
    """The run has reached the site."""


def _distinct(prompts: list) -> tuple[list, Tensor]:
    """The distinct prompts among some, and which of them each one is."""
    keys = [key(prompt) for prompt in prompts]
    found = dict(zip(keys, prompts, strict=True))
    numbers = {name: i for i, name in enumerate(found)}
    return list(found.values()), torch.tensor([numbers[name] for name in keys])
