"""What a learnt subspace has to beat: DAS beside its controls.

An interchange-intervention accuracy by itself says little. The whole component shows what the site carries in all, and a part that
does more is suspect (Makelov et al. 2023); a random subspace of the same rank shows what any exchange of this size does; principal components and the classes' means show what needs no
interventions to be found. And a subspace learnt from some items must do on others what it does on those.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import mean

import torch
from torch import Tensor

from ..models import as_ints
from ..sites import Site
from .counterfactuals import Counterfactual, as_answers, as_counterfactuals, require_held_out
from .interchange import Interchanges
from .subspaces import RotatedSubspace, class_means, principal_components
from .train import learn, training_runs


@dataclass(frozen=True)
class Comparison:
    """Interchange-intervention accuracies of several subspaces at one site.

    Attributes:
        train, test: {name: one IIA a seed} on the pairs that were learnt from, and on those held out. What needs no seed
            has one.
        pairs: how many pairs of each there were.
        subspaces: {name: the subspaces}, one a seed; None is the whole component.
    """

    train: Mapping[str, list[float]]
    test: Mapping[str, list[float]]
    pairs: tuple[int, int]
    subspaces: Mapping[str, list]

    def mean(self, name: str) -> float:
        """A row's mean over seeds, on the pairs held out."""
        return mean(self.test[name])

    def plot(self, title: str = ""):
        """The means over seeds on held-out pairs as bars; the error bars reach from the lowest seed to the highest.

        Args:
            title: the finding; by default what the first learnt subspace gets, and the classes' means and random ones beside it.
        """
        from ..plotting import bars

        if not title:
            first = next((name for name in self.test if name.startswith("DAS")), "")
            told = [name for name in (first, "class means", first.replace("DAS", "random")) if name in self.test]
            title = "; ".join(f"{name}: {self.mean(name):.0%}" for name in told).replace("%", "% of held-out pairs", 1)
        return bars(
            {name: mean(found) for name, found in self.test.items()},
            errors={name: (mean(found) - min(found), max(found) - mean(found)) for name, found in self.test.items()},
            title=title,
            ylabel=f"interchange-intervention accuracy on {self.pairs[1]} held-out pairs\n(mean over seeds; whiskers from the lowest seed to the highest)",
        )

    def __repr__(self) -> str:
        width = max(map(len, self.test))
        head = f"{'IIA':{width}}  {'trained on':>12}  {'held out':>9}  lowest to highest seed"
        lines = [head]
        for name, found in self.test.items():
            spread = f"{min(found):.2f} to {max(found):.2f} ({len(found)} seeds)" if len(found) > 1 else ""
            lines.append(f"{name:{width}}  {mean(self.train[name]):12.2f}  {mean(found):9.2f}  {spread}".rstrip())
        return "\n".join([*lines, f"{self.pairs[0]} pairs were trained on, {self.pairs[1]} held out."])


def compare_subspaces(
    model,
    site: Site | str,
    train: Sequence[Counterfactual | tuple],
    test: Sequence[Counterfactual | tuple],
    *,
    ranks: Sequence[int] = (1,),
    seeds: Sequence[int] = (0, 1, 2),
    answers: Sequence[str | int] | None = None,
    force: bool = False,
    **training,
) -> Comparison:
    """DAS and its controls, on the pairs that it learns from and on pairs held out.

    >>> train, test = counterfactual_pairs(pronouns()[:8]), counterfactual_pairs(pronouns()[8:16])
    >>> site = Site("block_output", 21, positions=1)
    >>> compared = compare_subspaces(lm, site, train, test, seeds=(0,), steps=3, batch_size=8)
    >>> list(compared.test)
    ['whole component', 'random, rank 1', 'class means', 'PCA, rank 1', 'DAS, rank 1']

    The controls: the whole component; a random subspace of each rank; the training sources' principal components; and the
    subspace of their class means, where a source's class is its pair's label (for two labels, the difference of means).

    Args:
        model, site, answers: as in `das.interchange_accuracy`.
        train, test: pairs that share no prompt.
        ranks, seeds: of the random and the learnt subspaces; a seed decides the beginning and the batches' order.
        force: as in `das.train_das`.
        training: how it learns, as in `das.train_das`: steps, batch_size, lr.

    Raises:
        ValueError: no seeds; test prompts that are trained on; and what `train_das` refuses.
    """
    train, test = map(as_counterfactuals, (train, test))
    ranks, seeds, answers = as_ints(ranks), as_ints(seeds), as_answers(answers)
    if not seeds:
        raise ValueError(
            "seeds=() names no seed: give one at least, for the random and the learnt subspaces begin with it."
        )
    require_held_out(train, test)
    runs = training_runs(model, site, train, answers, force)
    test_runs = Interchanges(model, site, test, answers)
    activations, labels = _sources(runs)
    d = activations.shape[-1]
    subspaces: dict[str, list] = {"whole component": [None]}
    subspaces |= {f"random, rank {rank}": [RotatedSubspace(d, rank, seed=seed) for seed in seeds] for rank in ranks}
    if len(set(labels)) in range(2, d):
        with suppress(ValueError):  # their means are equal
            subspaces["class means"] = [class_means(activations, labels)]
    for rank in ranks:
        if rank < len(activations):
            subspaces[f"PCA, rank {rank}"] = [principal_components(activations, rank)]
    for rank in ranks:
        learnt = subspaces[f"DAS, rank {rank}"] = []
        for seed in seeds:
            learnt.append(RotatedSubspace(d, rank, seed=1000 + seed))
            learn(runs, learnt[-1], seed=seed, **training)

    def measure(runs: Interchanges) -> dict[str, list[float]]:
        return {name: [runs.score(one) for one in some] for name, some in subspaces.items()}

    return Comparison(measure(runs), measure(test_runs), (len(train), len(test)), subspaces)


def _sources(runs: Interchanges) -> tuple[Tensor, list[int]]:
    """What the pairs' sources have at the site, (pair, d), and the pairs' labels."""
    if math.prod(runs.shape[:-1]) != 1:
        raise ValueError(
            f"Principal components and class means are of one activation a pair, and {runs.site} has {runs.shape[:-1]} of them: "
            "name a single position (and head)."
        )
    return runs.source(torch.arange(len(runs))).flatten(1).cpu(), runs.labels.tolist()
