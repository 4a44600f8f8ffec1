"""What the notebook on activation patching needs besides the package: which pair to open with, and which pairs to average over."""

from __future__ import annotations

from types import SimpleNamespace

from ...metrics import logit_diff
from ...prompts import Pair, known, pairs, wrong_sources

LANDMARKS = Pair(
    base="The Colosseum is in the city of",
    source="The Eiffel Tower is in the city of",
    base_subject="Colosseum",
    source_subject="Eiffel Tower",
    base_answer=" Rome",
    source_answer=" Paris",
    family="landmark_city",
)
FAMILIES = ("capital", "country_of_city", "language", "landmark_city")
TOKENS = ("a token of the subject", "the last token of the prompt", "a token in between")


def opening_pair(lm) -> Pair:
    """The Eiffel Tower and the Colosseum where this model knows both cities, else the first pair that it knows, or any with a notice."""
    fit = [pair for pair in (LANDMARKS, *pairs("landmark_city"), *pairs("capital")) if _fits(lm, pair)]
    for pair in fit:
        if known(lm, [pair]) and wrong_sources(lm, pair, 1):
            return pair
    print(f"{lm.name} answers none of the pairs. The experiments run, and their numbers mean little.")
    return (fit or [LANDMARKS])[0]


def pairs_to_average(lm, each: int = 4) -> SimpleNamespace:
    """Of each family the first pairs that this model answers rightly on both sides, filled up with others where they are few: as
    lists that a sweep takes, with a wrong source for each, and `metric`, each pair's own logit difference."""
    chosen, others = [], []
    for family in FAMILIES:
        fit = [pair for pair in pairs(family)[: each + 2] if _fits(lm, pair)]
        chosen += known(lm, fit)[:each]
        others += fit[:each]
    if len(chosen) < len(others) // 2:
        print(f"{lm.name} answers {len(chosen)} of these pairs. They are filled up with others, and mean little.")
        chosen += [pair for pair in others if pair not in chosen][: len(others) - len(chosen)]
    wrong = {pair: found[0] for pair in chosen if (found := wrong_sources(lm, pair, 1))}
    answers = [pair.source_answer for pair in wrong], [pair.base_answer for pair in wrong]
    return SimpleNamespace(
        pairs=list(wrong),
        bases=[pair.base for pair in wrong],
        sources=[pair.source for pair in wrong],
        wrong=list(wrong.values()),
        metric=logit_diff(lm, *answers),
        subjects=[lm.find(pair.base, pair.base_subject) for pair in wrong],
    )


def kind_of_token(position: int, subject: range, last: int) -> str:
    """Which of `TOKENS` stands there."""
    return TOKENS[0] if position in subject else TOKENS[1] if position == last else TOKENS[2]


def _fits(lm, pair: Pair) -> bool:
    """Whether the prompts have as many tokens for this model, the subject at the same places, and one-token answers."""
    try:
        lm.token_id(pair.base_answer), lm.token_id(pair.source_answer)
        spans = lm.find(pair.base, pair.base_subject), lm.find(pair.source, pair.source_subject)
    except ValueError:
        return False
    return spans[0] == spans[1] and len(lm.str_tokens(pair.base)) == len(lm.str_tokens(pair.source))
