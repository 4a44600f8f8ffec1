"""Pairs and subspaces: the interchanges that DAS learns from and is judged by.

`Runs` holds some pairs' runs, paused at the site (`paused`), and finishes them with whatever a subspace makes of
them. Training, validation and test are the same few lines with other pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..edits import require_basis, swapped
from ..engine import frozen
from ..models import LanguageModel, one_a_row
from ..sites import Site
from .counterfactuals import Counterfactual, as_counterfactuals, key
from .paused import Paused, pause, per_pair

KEEP = 2**30  # bytes of paused runs that are kept; where they would take more, each batch is run anew
ROWS = 64  # pairs at once, where nothing is learnt


class Runs:
    """Some pairs at a site, and the answers that compete.

    Args:
        model, site, pairs, answers: as in `das.interchange_accuracy`.

    Raises:
        ValueError: no pairs, or something else in their place, answers that are no list, or what doesn't fit the site.
    """

    def __init__(
        self, model, site, pairs: Sequence[Counterfactual | tuple], answers: Sequence[str | int] | None = None
    ):
        self.model, self.site, self.pairs = model, site, as_counterfactuals(pairs)
        self.answers = as_answers(answers)
        name = model.token_id if isinstance(model, LanguageModel) else int
        self._answer_ids = [name(answer) for answer in self.answers or ()]
        if not self.pairs:
            raise ValueError("There are no pairs: each is (base, source, label).")
        if isinstance(site, Site):
            per_pair(site, len(self.pairs))  # refuses places of other pairs
        with frozen(module_of(model)):
            self._all = pause(model, site, self.pairs) if self._weight() <= KEEP else None

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, rows: Sequence[int]) -> tuple[Paused, Tensor]:
        """Paused runs that hold these pairs, and the pairs' numbers among them."""
        if self._all is not None:
            return self._all, torch.tensor(list(rows))
        site = self.site
        if has_places_of_pairs(site):
            site = Site(site.component, site.layer, tuple(site.positions[i] for i in rows), site.heads)
        with frozen(module_of(self.model)):
            return pause(self.model, site, [self.pairs[i] for i in rows]), torch.arange(len(rows))

    def interchange(self, subspaces: list, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The logits (row, class) of some pairs, each subspace's content taken from its own source, and their labels (row,).
        None is the whole component."""
        paused, rows = self.batch(rows)
        values = paused.here(rows)
        for i, subspace in enumerate(subspaces):
            source = paused.there(rows, i)
            if subspace is None:
                new = source
            elif isinstance(subspace, Tensor):
                new = swapped(values, source, subspace)
            else:
                new = subspace.swap(values, source)
            alone = paused.alone(rows, i).to(values.device)
            values = torch.where(alone.view(-1, *[1] * (values.ndim - 1)), values, new) if alone.any() else new
        return paused.finish(rows, values), paused.labels[rows]

    def compete(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Of logits (row, class) those that compete (row, answer), and the labels' places among them (row,).

        Raises:
            ValueError: a label that is none of the classes, or none of the answers.
        """
        classes = logits.shape[-1]
        if ((labels < 0) | (labels >= classes)).any():
            raise ValueError(f"Labels are classes, 0 to {classes - 1}, and {labels.unique().tolist()} were given.")
        if self.answers is None:
            return logits.float(), labels
        ids = torch.tensor(self._answer_ids, device=logits.device)
        where = labels[:, None] == ids
        if not where.any(1).all():
            raise ValueError(f"Every label is one of the answers, {self.answers}, and some are not.")
        return logits[:, ids].float(), where.int().argmax(1)

    @torch.no_grad()
    def score(self, subspace) -> tuple[float, float]:
        """The interchange-intervention accuracy, and the mean cross-entropy."""
        subspaces, right, loss = listed(subspace), 0, 0.0
        self.require_fit(subspaces)
        with frozen(module_of(self.model)):
            for rows in self.chunks():
                logits, target = self.compete(*self.interchange(subspaces, rows))
                right += int((logits.argmax(-1) == target).sum())
                loss += cross_entropy(logits, target, reduction="sum").item()
        return right / len(self), loss / len(self)

    def chunks(self) -> list[range]:
        """All pairs' numbers, `ROWS` at a time."""
        return [range(i, min(i + ROWS, len(self))) for i in range(0, len(self), ROWS)]

    def require_fit(self, subspaces: list) -> None:
        """
        Raises:
            ValueError: subspaces of another width, or of another number than a pair's sources, or a basis that is not orthonormal.
        """
        paused, _ = self.batch([0])
        d = paused.shape[-1]
        for one in subspaces:
            if one is not None and not hasattr(one, "swap"):
                require_basis(one)
            width = len(one) if isinstance(one, Tensor) else getattr(one, "d", d)
            if width != d:
                raise ValueError(f"The subspace is one of {width} dimensions, and activations at the site have {d}.")
        if paused.sources != len(subspaces):
            raise ValueError(
                f"Each pair has {paused.sources} sources and there are {len(subspaces)} subspaces: one for each is needed."
            )

    @torch.no_grad()
    def require_learnable(self) -> None:
        """
        Raises:
            ValueError: there is nothing to learn: source = base in every pair; labels that the model gives anyway, or never
                gives even if the whole component is interchanged.
        """
        pairs = self.pairs
        if all(key(source) == key(pair.base) for pair in pairs for source in pair.sources if source is not None):
            raise ValueError(
                "In every pair the source is the base itself, so the interchange changes nothing, whatever the subspace, and there is "
                "no gradient to learn from: pair each base with another source."
            )
        several = len(pairs[0].sources) > 1  # which can't be put in as a whole
        given_anyway, ever, instead = True, several, None
        with frozen(module_of(self.model)):
            for rows in self.chunks():
                paused, at = self.batch(rows)
                untouched, target = self.compete(paused.finish(at, paused.here(at)), paused.labels[at])
                patched, _ = self.compete(paused.finish(at, paused.there(at)), paused.labels[at])
                given_anyway = given_anyway and bool((untouched.argmax(-1) == target).all())
                ever = ever or bool((patched.argmax(-1) == target).any())
                instead = int(patched[0].argmax()) if instead is None else instead
                if ever and not given_anyway:
                    return
        if given_anyway:
            raise ValueError(
                f"The model gives the label without any intervention in all of {len(pairs)} pairs, so there is nothing to learn: a label is "
                "what the base's answer becomes if the variable has its value in the source."
            )
        said = self.answers[instead] if self.answers else instead
        if isinstance(self.model, LanguageModel) and not isinstance(said, str):
            said = self.model.tokenizer.decode([said])
        raise ValueError(
            f"Even with the whole component interchanged the label comes out in none of {len(pairs)} pairs (in the first, {said!r} does "
            f"instead of {pairs[0].label!r}): is the variable kept at {self.site}, and are the labels right? A subspace that did better than the "
            "whole would be an artefact (Makelov et al. 2023); to see one, force=True."
        )

    def _weight(self) -> int:
        """The bytes that all paused runs take, about: a stream, keys and values for every layer and token of the bases."""
        if not isinstance(self.model, LanguageModel):
            return 0
        lm, bases = self.model, {key(pair.base): pair.base for pair in self.pairs}
        tokens = lm.tokens(list(bases.values())).numel()
        return 3 * tokens * lm.n_layers * lm.d_model * lm.anatomy.embedding.weight.element_size()


def as_answers(answers) -> list | None:
    """The answers that compete as a list, or None.

    Raises:
        ValueError: a single one.
    """
    if isinstance(answers, str | int):
        raise ValueError(
            f"answers is a list of words that compete, such as [' he', ' she'], and {answers!r} alone was given."
        )
    return None if answers is None else list(answers)


def listed(subspace) -> list:
    """Subspaces, one for each of a pair's sources."""
    return list(subspace) if isinstance(subspace, list | tuple | nn.ModuleList) else [subspace]


def module_of(model) -> nn.Module:
    """The module behind a `LanguageModel`, or a plain one itself."""
    return model.model if isinstance(model, LanguageModel) else model


def has_places_of_pairs(site) -> bool:
    """Are a site's positions given one sequence a pair?"""
    return one_a_row(getattr(site, "positions", None))


def require_held_out(train: Sequence, held_out: Sequence, name: str, used: str = "trained on") -> None:
    """Refuse pairs whose prompts stand in other pairs, too, which are `used` already.

    Raises:
        ValueError: some do.
    """
    train, held_out = map(as_counterfactuals, (train, held_out))
    seen = {key(prompt) for pair in train for prompt in (pair.base, *pair.sources) if prompt is not None}
    shared = {
        key(prompt): prompt
        for pair in held_out
        for prompt in (pair.base, *pair.sources)
        if prompt is not None and key(prompt) in seen
    }
    if shared:
        raise ValueError(
            f"{len(shared)} of the {name} pairs' prompts are {used} as well, {next(iter(shared.values()))!r} for one: hold out "
            "whole items, so that no base or source stands on both sides."
        )


def site_of_others(site, other, name: str):
    """The site of pairs that are not the training pairs.

    Raises:
        ValueError: none was given, and the training pairs' says nothing of them.
    """
    if other is None and has_places_of_pairs(site):
        raise ValueError(
            f"{site} has a sequence of positions for each training pair, which says nothing of the {name} pairs: give theirs, "
            f"{name}_site=Site(…)."
        )
    return other or site
