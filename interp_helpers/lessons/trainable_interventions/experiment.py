"""Arithmetic of notebook 3: a task whose algorithm is known and a network that learns it, names and pronouns, what an MLP's output reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ...das import Counterfactual, RotatedSubspace, interchange_logits
from ...metrics import logit_diff
from ...prompts import Fact, facts, known, pronouns
from ...sites import Site

WIDTH = 64  # of the network's hidden layers
COMPARED = {
    "a = b": ((0, 1), (2, 3)),
    "a = c": ((0, 2), (1, 3)),
}  # the first comparison and the other, as places of a, b, c, d
OTHER = {" she": " he", " he": " she"}


@contextmanager
def one_thread() -> Iterator[None]:
    """Matrices this small are multiplied faster by one thread than by several that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# -- hierarchical equality ----------------------------------------------------------------------------------------------


def equality_inputs(n: int, *, seed: int, about: str = "a = b") -> tuple[Tensor, Tensor, Tensor]:
    """n inputs (n, 16), four vectors of four numbers each, and for each whether the first comparison and the other are true.

    >>> x, left, right = equality_inputs(1000, seed=0)
    >>> x.shape, bool((x[left, :4] == x[left, 4:8]).all())
    (torch.Size([1000, 16]), True)

    Args:
        about: "a = b", whose other comparison is c = d; or "a = c", with b = d. Each is true in half of the inputs.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, 4, generator=generator)
    equal = torch.rand(2, n, generator=generator) < 0.5
    for (i, j), same in zip(COMPARED[about], equal, strict=True):
        x[same, j] = x[same, i]
    return x.flatten(1), equal[0], equal[1]


def trained_network(seed: int = 0, steps: int = 1000) -> nn.Sequential:
    """A network with three hidden layers that has learnt hierarchical equality from inputs and answers alone: is a = b as true as c = d?
    Its submodules "1", "3" and "5" give the hidden layers."""
    sizes = [(16, WIDTH), (WIDTH, WIDTH), (WIDTH, WIDTH)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            *[part for size in sizes for part in (nn.Linear(*size), nn.ReLU())], nn.Linear(WIDTH, 2)
        )
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1.0)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    with one_thread():
        for step in range(steps):
            x, left, right = equality_inputs(512, seed=100_000 * (seed + 1) + step)
            loss = cross_entropy(network(x), (left == right).long())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            decay.step()
    return network.requires_grad_(False)


def pairs_about(about: str, n: int, *, seed: int) -> list[Counterfactual]:
    """n pairs whose label is the answer with the comparison `about` as it is in the source, and the other as in the base.

    >>> pair = pairs_about("a = b", 4, seed=0)[0]
    >>> pair.base.shape, pair.label in (0, 1)
    (torch.Size([16]), True)
    """
    base, _, other = equality_inputs(n, seed=2 * seed, about=about)
    source, first, _ = equality_inputs(n, seed=2 * seed + 1, about=about)
    return [Counterfactual(*pair) for pair in zip(base, source, (first == other).long().tolist(), strict=True)]


def stacked(pairs: Sequence[Counterfactual]) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs' bases (pair, 16), sources (pair, 16) and labels (pair,)."""
    bases, sources, labels = zip(*pairs, strict=True)
    return torch.stack(bases), torch.stack(sources), torch.tensor(labels)


def how_well(later: float, first: float) -> str:
    """The choice of prediction *das.layer* that a later layer's IIA bears out, beside the first layer's."""
    if later > first - 0.03:
        return "as well"
    return "not as well, but better than chance" if later > 0.55 else "no better than chance"


def what_became(before: float, after: float) -> str:
    """The choice of prediction *das.self* that the loss bears out."""
    if abs(after - before) < 1e-4:
        return "stays where it was"
    return "falls" if after < before else "rises"


# -- he or she ----------------------------------------------------------------------------------------------------------


def pronoun_bank(lm, least: int = 64) -> tuple[list[Fact], bool]:
    """The names whose pronoun the model scores above the other one, and whether they are `least` or more; if they are fewer, all
    names, and that is said."""
    names = pronouns()
    above = over_the_other(lm, [Counterfactual(fact.prompt, fact.prompt, fact.answer) for fact in names])
    right = above(lm.next_token_logits([fact.prompt for fact in names])) > 0
    bank = [fact for fact, it_is in zip(names, right.tolist(), strict=True) if it_is]
    if len(bank) >= least:
        return bank, True
    print(
        f"{lm.name} gets the pronoun of only {len(bank)} names right. What follows shows the method; its numbers mean little."
    )
    return names, False


def over_the_other(lm, pairs: Sequence[Counterfactual]):
    """A metric: by how much the logit of each pair's label exceeds the other pronoun's."""
    return logit_diff(lm, [pair.label for pair in pairs], [OTHER[pair.label] for pair in pairs])


def last_carrying(layers: Sequence[int], shares: Sequence[float], least: float = 0.9) -> int:
    """The last of the layers whose share is `least` or more; if none is, the layer with the largest.

    >>> last_carrying([0, 10, 20, 25], [1.0, 0.98, 0.95, 0.2])
    20
    """
    best = max(range(len(shares)), key=lambda i: shares[i])
    return layers[max((i for i, share in enumerate(shares) if share >= least), default=best)]


def first_carrying(layers: Sequence[int], shares: Sequence[float], least: float = 0.9) -> int:
    """The first of the layers whose share is `least` or more; if none is, the layer with the largest."""
    best = max(range(len(shares)), key=lambda i: shares[i])
    return layers[next((i for i, share in enumerate(shares) if share >= least), best)]


def same_pronoun_pairs(bank: Sequence[Fact]) -> list[Counterfactual]:
    """Pairs of names with one pronoun: whatever is exchanged of the pronoun, the answer has to stay."""
    by_answer = [[fact for fact in bank if fact.answer == answer] for answer in OTHER]
    return [
        Counterfactual(one.prompt, two.prompt, one.answer)
        for some in by_answer
        for one, two in zip(some, some[1:], strict=False)
    ]


# -- train = test -------------------------------------------------------------------------------------------------------


def capital_bank(lm, least: int = 12) -> list[Fact]:
    """“The capital of X is”, for the countries of one token that the model knows; if they are few, for 20, and that is said."""

    def simple(bank: Sequence[Fact]) -> list[Fact]:
        bank = [fact for fact in bank if fact.prompt == f"The capital of {fact.subject} is"]
        return [fact for fact in bank if len(lm.find(fact.prompt, fact.subject)) == 1]

    bank = simple(known(lm, facts("capital")))
    if len(bank) >= least:
        return bank
    print(
        f"{lm.name} knows only {len(bank)} of these capitals. What follows shows the method; its numbers mean little."
    )
    return simple(facts("capital"))[:20]


# -- the part and the whole -----------------------------------------------------------------------------------------------


def read_and_unread(lm, site: Site, direction: RotatedSubspace) -> tuple[Tensor, Tensor]:
    """A direction inside an MLP, (width, 1), as the part that the MLP's output reads, and the part of which it reads nothing."""
    projection = lm.anatomy.place("mlp_output", site.layer).module
    width = direction.d
    with torch.no_grad():  # what it writes for each unit alone: its weight matrix, without the bias
        units, nothing = torch.eye(width, device=lm.device), torch.zeros(1, width, device=lm.device)
        written = (projection(units) - projection(nothing)).cpu().float()
    read = torch.linalg.qr(written).Q
    basis = direction.basis.detach().cpu()
    part = read @ (read.T @ basis)
    return part, basis - part


def shares_moved(lm, site: Site, parts: Mapping, pairs: Sequence[Counterfactual]) -> dict[str, tuple[float, float]]:
    """How far an exchange of each part moves the pairs, as a share of the mean way from the bases' logit difference to the sources':
    {part: (mean, its standard error)}."""
    metric = over_the_other(lm, pairs)
    base, source = (metric(lm.next_token_logits([pair[i] for pair in pairs])) for i in (0, 1))
    found = {}
    for name, part in parts.items():
        share = (metric(interchange_logits(lm, site, part, pairs)) - base) / (source - base).mean()
        found[name] = share.mean().item(), (share.std() / len(pairs) ** 0.5).item()
    return found
