"""Counterfactual pairs: a base, a source, and the label that a hypothesis predicts.

The experiment behind DAS is one interchange repeated: what becomes of the base's answer once a variable has the value that it
has in the source? (Geiger et al. 2021, 2023.)
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from ..models import as_list


class Counterfactual(NamedTuple):
    """A base, a source, and the label that the model gives for the base if the variable has its value in the source.

    >>> pair = Counterfactual("When Mary got home,", "When John got home,", " he")
    >>> pair.label
    ' he'

    Attributes:
        base: a prompt (a string, or token ids (position,)); for a plain module, one input tensor.
        source: likewise.
        label: a word that is one token, or its id; for a plain module, the class.
    """

    base: str | Tensor
    source: str | Tensor
    label: str | int


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
    items = as_list(items, "items with a prompt and an answer")
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
    pairs = as_list(pairs, "pairs")
    for pair in pairs:
        if isinstance(pair, str | Mapping) or not hasattr(pair, "__len__") or len(pair) != 3:
            raise ValueError(
                f"Each pair is (base, source, label), and {pair!r} was given: of a pair of facts make "
                "Counterfactual(pair.base, pair.source, pair.source_answer), of a row with these keys Counterfactual(**row)."
            )
    return [Counterfactual(*pair) for pair in pairs]


def key(prompt) -> Hashable:
    """What equal prompts have in common, and others haven't."""
    if isinstance(prompt, Tensor):
        return tuple(prompt.flatten().tolist())
    return prompt if isinstance(prompt, str) else repr(prompt)


def as_answers(answers) -> list | None:
    """The answers that compete as a list, or None.

    Raises:
        ValueError: a single one.
    """
    if isinstance(answers, str | int):
        raise ValueError(
            f"answers is a list of words that compete, such as [' he', ' she'], and {answers!r} alone was given."
        )
    return None if answers is None else as_list(answers, "answers")


def require_held_out(train: list, held_out: list) -> None:
    """Refuse test pairs whose prompts are trained on as well.

    Raises:
        ValueError: some do.
    """
    prompts = {key(prompt): prompt for pair in held_out for prompt in pair[:2]}
    shared = prompts.keys() & {key(prompt) for pair in train for prompt in pair[:2]} if prompts else ()
    if shared:
        example = next(prompt for name, prompt in prompts.items() if name in shared)
        raise ValueError(
            f"{len(shared)} of the test pairs' prompts are trained on as well, {example!r} for one: hold out whole items, so that no base "
            "or source stands on both sides."
        )
