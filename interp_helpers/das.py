"""Distributed alignment search: learn the subspace in which a network keeps a variable, and test that it is the one.

A hypothesis says: at this site the network keeps a variable, and whatever else is there, the variable alone decides. DAS
(Geiger et al. 2023) learns a subspace such that interchanging it between two runs changes the answer as interchanging the
variable would. *Interchange-intervention accuracy* (IIA) is the share of pairs in which it does.

A high IIA on pairs that were not trained on shows that this subspace is sufficient to carry the variable's value from run to
run. It shows neither that the network uses this subspace when nobody intervenes (Makelov et al. 2023; Wu et al. 2024 in
reply), nor that no other does as well. So compare: with the whole component, with random subspaces, with subspaces
that need no training, on items held out (`das_compare`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from .counterfactuals import Counterfactual, Paused, frozen, key, pause, per_pair
from .models import LanguageModel
from .sites import Site
from .subspaces import principal_angles, require_basis, swapped

KEEP = 2**30  # bytes of paused runs that are kept over epochs; where they would take more, each batch is run anew
ROWS = 64  # pairs at once, where nothing is learnt


def interchange_logits(model, site, subspace, pairs: Sequence[Counterfactual | tuple]) -> Tensor:
    """The logits (pair, class) after each pair's interchange; arguments as in `interchange_accuracy`."""
    pairs, subspaces = _as_pairs(pairs), _listed(subspace)
    if not pairs:
        raise ValueError("There are no pairs: each is (base, source, label).")
    _require_places(site, pairs)
    found = []
    with torch.no_grad(), frozen(module_of(model)):
        for paused, rows in _some_at_a_time(model, site, subspaces, pairs):
            found.append(_interchanged(paused, rows, subspaces))
    return torch.cat(found)


def interchange_accuracy(
    model: LanguageModel | nn.Module,
    site: Site | str,
    subspace,
    pairs: Sequence[Counterfactual | tuple],
    *,
    answers: Sequence[str | int] | None = None,
) -> float:
    """Interchange-intervention accuracy (Geiger et al. 2023, section 3): the share of pairs whose label comes out on top when the
    subspace's content at the site is taken from the source.

        interchange_accuracy(lm, site, subspace, test_pairs)

    Args:
        model: a `LanguageModel`, or any module from inputs to logits.
        site: a `Site`; for a plain module, the name of a submodule.
        subspace: anything with a method `swap`; an orthonormal basis (d, rank); None for the whole component; or a list
            of these, one for each of a pair's several sources.
        pairs: `Counterfactual`s, or plain (base, source, label).
        answers: rank the label among these words, and not among the whole vocabulary.

    Raises:
        ValueError: pairs that don't fit the site, a subspace of another width, or a basis that is not orthonormal.
    """
    pairs, answers = _as_pairs(pairs), None if answers is None else list(answers)
    logits, labels = interchange_logits(model, site, subspace, pairs), labels_of(model, pairs)
    ids, target = _among(model, answers, labels, logits.shape[-1])
    return (logits[:, ids].argmax(-1) == target.to(logits.device)).float().mean().item()


@dataclass
class History:
    """What happened while `train_das` learnt.

    Attributes:
        loss, accuracy: of each step's batch: the loss, and the IIA.
        checked: the steps after which the following were measured.
        validation, validation_loss: IIA and loss on the validation pairs, if there are any.
        angle: the largest principal angle to a subspace's beginning, in degrees: how far it has turned.
        best: the step whose subspace was kept.
        stopped_early: did validation stop it?
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    checked: list[int] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    angle: list[float] = field(default_factory=list)
    best: int = 0
    stopped_early: bool = False

    def plot(self, title: str | None = None):
        """IIA against steps, on training batches and on the validation pairs."""
        from .plotting import curves

        batches = [self.accuracy[step - 1] for step in self.checked]
        return curves(
            self.checked,
            {"training batch": batches} | ({"validation pairs": self.validation} if self.validation else {}),
            title=title or f"{self.accuracy[-1]:.0%} on the last training batch",
            xlabel="training step",
            ylabel="interchange-intervention accuracy",
        )

    def __repr__(self) -> str:
        after = f", validation IIA {self.validation[self.checked.index(self.best)]:.2f}" if self.validation else ""
        return (
            f"History of {len(self.loss)} steps: loss {self.loss[0]:.2f} → {self.loss[-1]:.2f}, batch IIA "
            f"{self.accuracy[0]:.2f} → {self.accuracy[-1]:.2f}; kept step {self.best}{after}; turned by {self.angle[-1]:.0f}°"
        )


def train_das(
    model: LanguageModel | nn.Module,
    site: Site | str,
    subspace,
    pairs: Sequence[Counterfactual | tuple],
    *,
    steps: int = 100,
    batch_size: int = 16,
    lr: float = 0.01,
    seed: int = 0,
    validation: Sequence[Counterfactual | tuple] = (),
    validation_site: Site | None = None,
    patience: int = 5,
    answers: Sequence[str | int] | None = None,
) -> History:
    """Turn a subspace until interchanges within it give the counterfactual labels (Geiger et al. 2023, section 3).

        subspace = RotatedSubspace(lm.d_model, rank=1)
        history = train_das(lm, Site("block_output", 12, positions=1), subspace, train_pairs, validation=validation_pairs)
        interchange_accuracy(lm, site, subspace, test_pairs)

    The loss is the cross-entropy of the label; the optimiser Adam, whose rate falls linearly to zero; the model's weights
    stay as they are. Without validation the last step's subspace is kept, else the one with the highest validation IIA
    (of equals, the lowest loss).

    Args:
        model, site, pairs, answers: as in `interchange_accuracy`. With `answers` the loss ranks these words alone, too.
        subspace: a `RotatedSubspace`, a `BoundlessSubspace`, or a list of them (`RotatedSubspace.split`) where a pair has
            several sources; it is changed in place.
        steps, batch_size, lr: of the training.
        seed: of the batches' order. The global random state is left alone.
        validation: pairs to choose the step by, with prompts that are not trained on.
        validation_site: their site, where positions are given one sequence a pair.
        patience: stop after so many checks (twenty in all) without an improvement.

    Raises:
        ValueError: before training, where nothing could be learnt: source = base in every pair; labels that the model
            gives anyway, or never gives even if the whole component is interchanged; validation prompts that are
            trained on; a subspace of another width.
    """
    pairs, held_out, subspaces = _as_pairs(pairs), _as_pairs(validation), _listed(subspace)
    answers = None if answers is None else list(answers)
    if not pairs or steps < 1 or batch_size < 1:
        raise ValueError(f"Nothing to train: {len(pairs)} pairs, steps={steps}, batch_size={batch_size}.")
    require_held_out(pairs, held_out, "validation")
    _require_places(site, pairs)
    if held_out:
        validation_site = site_of_others(site, validation_site, "validation")
        _require_places(validation_site, held_out)
    modules = nn.ModuleList(one for one in subspaces if isinstance(one, nn.Module))
    if not list(modules.parameters()):
        raise ValueError(f"There is nothing to train in {subspace!r}: give a RotatedSubspace or a BoundlessSubspace.")
    with frozen(module_of(model)):
        _require_learnable(model, site, subspaces, pairs, answers)
        runs = _Runs(model, site, pairs)
        modules.to(runs.device)
        check = _Check(model, validation_site, held_out, subspaces, answers) if held_out else None
        return _train(model, runs, subspaces, modules, check, steps, batch_size, lr, seed, patience, answers)


# ---------------------------------------------------------------------------------------------------------------------


def _train(model, runs, subspaces, modules, check, steps, batch_size, lr, seed, patience, answers) -> History:
    history, kept, waited = History(), None, 0
    optimiser = torch.optim.Adam(_groups(modules, lr))
    decay = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    start = _bases(subspaces)
    batches = _batches(len(runs), batch_size, torch.Generator().manual_seed(seed))
    checks = {round(steps * (i + 1) / min(steps, 20)) for i in range(min(steps, 20))}
    with tqdm(total=steps, desc="DAS", unit="step", leave=False, delay=2) as bar:
        for step in range(1, steps + 1):
            for one in modules:
                getattr(one, "anneal", lambda share: None)((step - 1) / max(1, steps - 1))
            with torch.enable_grad():
                paused, rows = runs.batch(next(batches))
                logits = _interchanged(paused, rows, subspaces)
                ids, target = _among(model, answers, paused.labels[rows], logits.shape[-1])
                loss = cross_entropy(logits[:, ids].float(), target)
                loss = loss + sum(one.penalty for one in modules if hasattr(one, "penalty"))
                gradients = torch.autograd.grad(loss, list(modules.parameters()))
            for parameter, gradient in zip(modules.parameters(), gradients, strict=True):
                parameter.grad = gradient
            optimiser.step()
            optimiser.zero_grad()
            decay.step()
            history.loss.append(loss.item())
            history.accuracy.append((logits[:, ids].argmax(-1) == target).float().mean().item())
            bar.update()
            if step not in checks:
                continue
            history.checked.append(step)
            history.angle.append(_turned(start, _bases(subspaces)))
            if check is None:
                history.best = step
                continue
            accuracy, loss = check()
            history.validation.append(accuracy)
            history.validation_loss.append(loss)
            waited += 1
            if kept is None or (accuracy, -loss) > kept[0]:
                kept, waited, history.best = ((accuracy, -loss), deepcopy(modules.state_dict())), 0, step
            if waited >= patience and step < steps:
                history.stopped_early = True
                break
    if kept is not None:
        modules.load_state_dict(kept[1])
    return history


class _Runs:
    """Paused runs of all pairs, or of one batch at a time where they would take too much memory."""

    def __init__(self, model, site, pairs: list[Counterfactual]):
        self.model, self.site, self.pairs = model, site, pairs
        self._all = pause(model, site, pairs) if _weight(model, pairs) <= KEEP else None
        self.device = _device(model)

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, rows: list[int]) -> tuple[Paused, Tensor]:
        if self._all is not None:
            return self._all, torch.tensor(rows)
        paused = pause(self.model, _site_of(self.site, rows), [self.pairs[i] for i in rows])
        return paused, torch.arange(len(rows))


def _some_at_a_time(model, site, subspaces: list, pairs: list[Counterfactual]) -> Iterator[tuple[Paused, Tensor]]:
    """Paused runs of `ROWS` pairs at a time, and their numbers, where each is needed once."""
    for start in range(0, len(pairs), ROWS):
        rows = range(start, min(start + ROWS, len(pairs)))
        paused = pause(model, _site_of(site, rows), [pairs[i] for i in rows])
        _require_fit(subspaces, paused)
        yield paused, torch.arange(len(rows))


class _Check:
    """IIA and loss on validation pairs."""

    def __init__(self, model, site, pairs, subspaces, answers):
        self.model, self.subspaces, self.answers = model, subspaces, answers
        self.runs = _Runs(model, site, pairs)

    @torch.no_grad()
    def __call__(self) -> tuple[float, float]:
        right = total = 0.0
        for start in range(0, len(self.runs), ROWS):
            paused, rows = self.runs.batch(list(range(start, min(start + ROWS, len(self.runs)))))
            logits = _interchanged(paused, rows, self.subspaces)
            ids, target = _among(self.model, self.answers, paused.labels[rows], logits.shape[-1])
            total += cross_entropy(logits[:, ids].float(), target, reduction="sum").item()
            right += (logits[:, ids].argmax(-1) == target).sum().item()
        return right / len(self.runs), total / len(self.runs)


def _interchanged(paused: Paused, rows: Tensor, subspaces: list) -> Tensor:
    """Logits after the interchange, in each subspace from its own source."""
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
    return paused.finish(rows, values)


def _batches(n: int, size: int, generator: torch.Generator):
    """Batches without end: every pair once an epoch, in a new order each time."""
    waiting: list[int] = []
    while True:
        while len(waiting) < size:
            waiting += torch.randperm(n, generator=generator).tolist()
        yield waiting[:size]
        waiting = waiting[size:]


def _groups(modules: nn.ModuleList, lr: float) -> list[dict]:
    """Boundaries learn at ten times the rotation's rate, as in pyvene's tutorials."""
    named = list(modules.named_parameters())
    boundaries = [p for name, p in named if name.endswith("boundary")]
    return [{"params": [p for name, p in named if not name.endswith("boundary")], "lr": lr}] + (
        [{"params": boundaries, "lr": 10 * lr}] if boundaries else []
    )


def _bases(subspaces: list) -> list[Tensor]:
    return [one.basis.detach().clone() for one in subspaces if hasattr(one, "basis")]


def _turned(before: list[Tensor], now: list[Tensor]) -> float:
    """The largest principal angle, in degrees, between a subspace and what it was."""
    angles = [principal_angles(*both).max().item() for both in zip(before, now, strict=True)]
    return max(angles, default=math.nan)


# -- what is refused --------------------------------------------------------------------------------------------------


def require_held_out(train: Sequence[Counterfactual], held_out: Sequence[Counterfactual], name: str) -> None:
    """Refuse pairs whose prompts stand in the training pairs, too.

    Raises:
        ValueError: some do.
    """
    seen = {key(prompt) for pair in train for prompt in (pair.base, *pair.sources) if prompt is not None}
    shared = {
        key(prompt): prompt
        for pair in held_out
        for prompt in (pair.base, *pair.sources)
        if prompt is not None and key(prompt) in seen
    }
    if shared:
        raise ValueError(
            f"{len(shared)} of the {name} pairs' prompts are trained on as well, {next(iter(shared.values()))!r} for one: hold out "
            "whole items, so that no base or source stands on both sides."
        )


def _require_learnable(model, site, subspaces: list, pairs: list[Counterfactual], answers) -> None:
    if all(key(source) == key(pair.base) for pair in pairs for source in pair.sources if source is not None):
        raise ValueError(
            "In every pair the source is the base itself, so the interchange changes nothing, whatever the subspace, and there is "
            "no gradient to learn from: pair each base with another source."
        )
    given_anyway, ever = True, len(subspaces) > 1  # several sources can't be put in as a whole
    instead = None
    for paused, rows in _some_at_a_time(model, site, subspaces, pairs):
        with torch.no_grad():
            untouched, patched = (paused.finish(rows, values(rows)) for values in (paused.here, paused.there))
        ids, target = _among(model, answers, paused.labels, untouched.shape[-1])
        untouched, patched = (logits[:, ids].argmax(-1) for logits in (untouched, patched))
        given_anyway = given_anyway and bool((untouched == target).all())
        ever = ever or bool((patched == target).any())
        instead = int(ids[patched[0]] if isinstance(ids, Tensor) else patched[0]) if instead is None else instead
        if ever and not given_anyway:
            return
    if given_anyway:
        raise ValueError(
            f"The model gives the label without any intervention in all of {len(pairs)} pairs, so there is nothing to learn: a label is "
            "what the base's answer becomes if the variable has its value in the source."
        )
    said = repr(model._text(instead)) if isinstance(model, LanguageModel) else instead
    raise ValueError(
        f"Even with the whole component interchanged the label comes out in none of {len(pairs)} pairs (in the first, {said} does "
        f"instead of {pairs[0].label!r}), so no subspace of it can do better: is the variable kept at {site}, and are the labels right?"
    )


def _require_fit(subspaces: list, paused: Paused) -> None:
    d = paused.shape[-1]
    for one in subspaces:
        if one is not None and not hasattr(one, "swap"):
            require_basis(one)
        width = len(one) if isinstance(one, Tensor) else getattr(one, "d", d)
        if width != d:
            raise ValueError(f"The subspace is one of {width} dimensions, and activations at the site have {d}.")
    sources = paused.sources
    if sources != len(subspaces):
        raise ValueError(
            f"Each pair has {sources} sources and there are {len(subspaces)} subspaces: one for each is needed."
        )


# -- small things -----------------------------------------------------------------------------------------------------


def _as_pairs(pairs) -> list[Counterfactual]:
    return [Counterfactual(*pair) for pair in pairs]


def _listed(subspace) -> list:
    return list(subspace) if isinstance(subspace, list | tuple | nn.ModuleList) else [subspace]


def module_of(model) -> nn.Module:
    return model.model if isinstance(model, LanguageModel) else model


def _device(model) -> torch.device:
    return next((p.device for p in module_of(model).parameters()), torch.device("cpu"))


def has_places_of_pairs(site) -> bool:
    """Are a site's positions given one sequence a pair?"""
    where = getattr(site, "positions", None)
    return isinstance(where, tuple) and bool(where) and isinstance(where[0], tuple)


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


def _require_places(site, pairs: list) -> None:
    if isinstance(site, Site):
        per_pair(site, len(pairs))


def _site_of(site, rows: Sequence[int]):
    """The site for some of the pairs, where positions are given one sequence a pair."""
    if not has_places_of_pairs(site):
        return site
    return Site(site.component, site.layer, tuple(site.positions[i] for i in rows), site.heads)


def _weight(model, pairs: list[Counterfactual]) -> int:
    """The bytes that the pairs' paused runs take, about: a stream, keys and values for every layer and token of the bases."""
    if not isinstance(model, LanguageModel):
        return 0
    bases = {key(pair.base): pair.base for pair in pairs}
    tokens = model.tokens(list(bases.values())).numel()
    return 3 * tokens * model.n_layers * model.d_model * model.anatomy.embedding.weight.element_size()


def labels_of(model, pairs) -> Tensor:
    name = model.token_id if isinstance(model, LanguageModel) else int
    return torch.tensor([name(pair.label) for pair in pairs])


def _among(model, answers, labels: Tensor, classes: int):
    """Which logits compete, and the place of each label among them.

    Raises:
        ValueError: a label that is none of the classes, or none of the answers.
    """
    if ((labels < 0) | (labels >= classes)).any():
        raise ValueError(f"Labels are classes, 0 to {classes - 1}, and {labels.unique().tolist()} were given.")
    if answers is None:
        return slice(None), labels
    ids = torch.tensor([model.token_id(a) if isinstance(model, LanguageModel) else int(a) for a in answers])
    ids = ids.to(labels.device)
    where = labels[:, None] == ids
    if not where.any(1).all():
        raise ValueError(f"Every label is one of the answers, {list(answers)}, and some are not.")
    return ids, where.int().argmax(1)
