"""Counterfactual pairs: a base, a source, and the label that a hypothesis predicts.

The experiment behind DAS is one interchange repeated: what becomes of the base's answer once a variable has the value that it
has in the source? (Geiger et al. 2021, 2023.)
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

from torch import Tensor


class Counterfactual(NamedTuple):
    """A base, a source, and the label that the model gives for the base if the variable has its value in the source.

    >>> pair = Counterfactual("When Mary got home,", "When John got home,", " he")
    >>> pair.label
    ' he'

    Attributes:
        base: a prompt (a string, or token ids (position,)); for a plain module, one input tensor.
        source: likewise; or a tuple (or list) with a source for each of several subspaces, None for one that is left alone.
        label: a word that is one token, or its id; for a plain module, the class.
    """

    base: str | Tensor
    source: str | Tensor | tuple
    label: str | int

    @property
    def sources(self) -> tuple:
        """The sources, one for each subspace."""
        return tuple(self.source) if isinstance(self.source, tuple | list) else (self.source,)


def counterfactual_pairs(items: Sequence, n: int | None = None, *, seed: int = 0) -> list[Counterfactual]:
    """Pairs of a bank's items with different answers, each labelled with its source's: what the base's answer becomes if the
    whole fact is the source's.

    >>> pair = counterfactual_pairs(pronouns()[:4])[0]
    >>> pair.base, pair.source, pair.label
    ('When Victoria got home,', 'When Patrick got home,', ' he')

    Args:
        items: with a `prompt` and an `answer`, such as `prompts.Fact`.
        n: how many different pairs; by default each item is a base once at most, and a source once at most: pairs are drawn while
            two such items with different answers are left, so that some items may be left over.
        seed: of the choice.

    Raises:
        ValueError: fewer than n pairs exist, or n is negative.
    """
    items = list(items)
    everything = [(base, source) for base in items for source in items if base.answer != source.answer]
    random.Random(seed).shuffle(everything)
    if n is None:
        bases, sources, chosen = set(), set(), []
        for base, source in everything:
            if base not in bases and source not in sources:
                bases.add(base)
                sources.add(source)
                chosen.append((base, source))
    elif 0 <= n <= len(everything):
        chosen = everything[:n]
    else:
        raise ValueError(
            f"{len(items)} items make {len(everything)} pairs with different answers, and {n} were asked for."
        )
    return [Counterfactual(base.prompt, source.prompt, source.answer) for base, source in chosen]


def as_counterfactuals(pairs: Iterable) -> list[Counterfactual]:
    """Pairs, each a `Counterfactual` or plain (base, source, label), as a list.

    Raises:
        ValueError: something else.
    """
    pairs = list(pairs)
    for pair in pairs:
        if isinstance(pair, str) or not hasattr(pair, "__len__") or len(pair) != 3:
            raise ValueError(
                f"Each pair is (base, source, label), and {pair!r} was given: of a pair of facts make "
                "Counterfactual(pair.base, pair.source, pair.source_answer)."
            )
    return [Counterfactual(*pair) for pair in pairs]


def key(prompt) -> Hashable:
    """What equal prompts have in common, and others haven't."""
    if isinstance(prompt, Tensor):
        return tuple(prompt.flatten().tolist())
    return prompt if isinstance(prompt, str) else repr(prompt)
