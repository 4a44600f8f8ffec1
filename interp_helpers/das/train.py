"""Distributed alignment search: learn the subspace in which a network keeps a variable, and test that it is the one.

A hypothesis says: at this site the network keeps a variable, and whatever else is there, the variable alone decides. DAS
(Geiger et al. 2023) learns a subspace such that interchanging it between two runs changes the answer as interchanging the
variable would. *Interchange-intervention accuracy* (IIA) is the share of pairs in which it does.

A high IIA on pairs that were not trained on shows that this subspace is sufficient to carry the variable's value from run to
run. It shows neither that the network uses this subspace when nobody intervenes (Makelov et al. 2023; Wu et al. 2024 in
reply), nor that no other does as well. So compare: with the whole component, with random subspaces, with subspaces
that need no training, on items held out (`compare_subspaces`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from ..engine import frozen, require_gradients
from ..models import LanguageModel
from ..sites import Site
from .counterfactuals import Counterfactual, as_answers, as_counterfactuals
from .interchange import Interchanges


def interchange_logits(model, site, subspace, pairs: Sequence[Counterfactual | tuple]) -> Tensor:
    """The logits (pair, class) after each pair's interchange; arguments as in `interchange_accuracy`.

    >>> pairs = counterfactual_pairs(pronouns()[:8])
    >>> interchange_logits(lm, Site("block_output", 15, positions=1), None, pairs).shape
    torch.Size([8, 49152])
    """
    runs = Interchanges(model, site, as_counterfactuals(pairs))
    runs.require_fit(subspace)
    with torch.no_grad(), frozen(runs.module):
        return torch.cat([runs.logits(subspace, rows) for rows in runs.chunks()])


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

    >>> pairs = counterfactual_pairs(pronouns()[:8])
    >>> interchange_accuracy(lm, Site("block_output", 15, positions=1), None, pairs)  # None: the whole component
    1.0

    Args:
        model: a `LanguageModel`, or any module from inputs to logits.
        site: a `Site`; for a plain module, the name of a submodule.
        subspace: anything with a method `swap`; an orthonormal basis (d, rank); or None for the whole component.
        pairs: each a `Counterfactual`, or plain (base, source, label).
        answers: rank the label among these words, and not among the whole vocabulary.

    Raises:
        ValueError: pairs that don't fit the site, a subspace of another width, or a basis that is not orthonormal.
    """
    runs = Interchanges(model, site, as_counterfactuals(pairs), as_answers(answers))
    runs.require_fit(subspace)
    return runs.score(subspace)


@dataclass
class History:
    """What happened while `train_das` learnt.

    Attributes:
        loss, accuracy: of each step's batch: the loss, and the IIA.
    """

    loss: list[float]
    accuracy: list[float]

    def __repr__(self) -> str:
        return (
            f"History of {len(self.loss)} steps: loss {self.loss[0]:.2f} → {self.loss[-1]:.2f}, batch IIA "
            f"{self.accuracy[0]:.2f} → {self.accuracy[-1]:.2f}"
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
    answers: Sequence[str | int] | None = None,
    force: bool = False,
) -> History:
    """Turn a subspace until interchanges within it give the counterfactual labels (Geiger et al. 2023, section 3).

    >>> pairs = counterfactual_pairs(pronouns()[:8])
    >>> subspace = RotatedSubspace(lm.d_model, rank=1)
    >>> history = train_das(lm, Site("block_output", 21, positions=1), subspace, pairs[:8], steps=3, lr=0.06, batch_size=8)
    >>> history.loss[-1] < history.loss[0]
    True

    The loss is the cross-entropy of the label; the optimiser Adam, whose rate falls linearly to zero; the model's weights
    stay as they are.

    Args:
        model, site, pairs, answers: as in `interchange_accuracy`. With `answers` the loss ranks these words alone, too.
        subspace: a `RotatedSubspace` or a `BoundlessSubspace`; it is changed in place.
        steps, batch_size, lr: of the training.
        seed: of the batches' order. The global random state is left alone.
        force: train even where there is nothing to learn, to see what comes of it.

    Raises:
        ValueError: before training, unless forced, where there is nothing to learn: source = base in every pair; labels that
            the model gives anyway, or never gives even if the whole component is interchanged. Always: a subspace of another
            width, or inside `torch.inference_mode`.
    """
    runs = training_runs(model, site, as_counterfactuals(pairs), as_answers(answers), force)
    return learn(runs, subspace, steps=steps, batch_size=batch_size, lr=lr, seed=seed)


def training_runs(model, site, pairs: list, answers: list | None, force: bool) -> Interchanges:
    """The training pairs' runs, for `learn`; arguments and errors as in `train_das`."""
    require_gradients()
    runs = Interchanges(model, site, pairs, answers)
    if not force:
        runs.require_learnable()
    return runs


def learn(
    runs: Interchanges, subspace, *, steps: int = 100, batch_size: int = 16, lr: float = 0.01, seed: int = 0
) -> History:
    """`train_das` on runs that are there already, so that several subspaces can be learnt from the same."""
    if steps < 1 or batch_size < 1:
        raise ValueError(f"Training takes steps and batches of one or more: steps={steps}, batch_size={batch_size}.")
    if not isinstance(subspace, nn.Module) or not any(p.requires_grad for p in subspace.parameters()):
        raise ValueError(f"There is nothing to train in {subspace!r}: give a RotatedSubspace or a BoundlessSubspace.")
    runs.require_fit(subspace)
    subspace.to(runs.device)
    learnt = {name: p for name, p in subspace.named_parameters() if p.requires_grad}
    # Boundaries learn at ten times the rotation's rate, as in pyvene's tutorials.
    rates = [{"params": p, "lr": 10 * lr if name.endswith("boundary") else lr} for name, p in learnt.items()]
    optimiser = torch.optim.Adam(rates)
    decay = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    anneal = getattr(subspace, "anneal", lambda share: None)
    batches = random_batches(len(runs), batch_size, torch.Generator().manual_seed(seed))
    losses, accuracies = [], []
    with frozen(runs.module):
        for step in tqdm(range(steps), desc="DAS", unit="step", leave=False, delay=2):
            anneal(step / max(1, steps - 1))
            rows = next(batches)
            with torch.enable_grad():
                logits, target = runs.compete(runs.logits(subspace, rows), rows)
                loss = cross_entropy(logits, target) + getattr(subspace, "penalty", 0.0)
                gradients = torch.autograd.grad(loss, list(learnt.values()))
            for parameter, gradient in zip(learnt.values(), gradients, strict=True):
                parameter.grad = gradient
            optimiser.step()
            optimiser.zero_grad()
            decay.step()
            losses.append(loss.item())
            accuracies.append((logits.argmax(-1) == target).double().mean().item())
    anneal(1.0)  # as it will be used
    return History(losses, accuracies)


def random_batches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches without end: every pair once an epoch, in a new order each time."""
    waiting = torch.zeros(0, dtype=torch.long)
    while True:
        while len(waiting) < size:
            waiting = torch.cat([waiting, torch.randperm(n, generator=generator)])
        yield waiting[:size]
        waiting = waiting[size:]
