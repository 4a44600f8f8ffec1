"""What notebook 06 prints, titles and reveals about its own run, and the arithmetic of its tables."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from ...edits import apply
from ...hooks import intervene, record
from ...metrics import logit_diff
from ...prompts import known, pronouns
from ...sites import Site
from ...steering import FairTest, Scores, SteeringVector

GLAD = "glad words"


def distance(lm, vector: SteeringVector, positive: Sequence[str], negative: Sequence[str]) -> float:
    """How far two groups of texts lie apart along a vector, in units of strength: the difference of their mean coordinates. A text's
    coordinate is the mean over its tokens, without the first, which is a sink."""

    def coordinate(texts: Sequence[str]) -> float:
        found = record(lm, list(texts), vector.site)[vector.site].cpu().float() @ vector.direction
        ends = [len(lm.tokens(text)[0]) for text in texts]
        return torch.stack([x[1:end].mean() for x, end in zip(found, ends, strict=True)]).mean().item()

    return (coordinate(positive) - coordinate(negative)) / vector.scale


def table_rows(unsteered: Scores, steered: Mapping[float, Scores]) -> list[dict]:
    """A dictionary a strength, the unsteered texts first, for the rule that chooses."""
    return [
        {"strength": s, "hits": x.rate(GLAD), "perplexity": x.perplexity}
        for s, x in ({0.0: unsteered} | dict(steered)).items()
    ]


def shares(unsteered: Scores, **by_strength: Mapping[float, Scores]) -> dict:
    """Shares with their intervals, for `intervals`: a row a strength, and in it each kind of vector."""
    found = {"unsteered": {next(iter(by_strength)): unsteered}}
    for name, scores in by_strength.items():
        for s, x in scores.items():
            found.setdefault(f"strength {s:g}", {})[name.replace("_", " ")] = x
    return {
        row: {name: (x.rate(GLAD), *x.interval(GLAD)) for name, x in conditions.items()}
        for row, conditions in found.items()
    }


def prices(unsteered: Scores, by_vector: Mapping[str, Mapping[float, Scores]]) -> tuple[dict, dict]:
    """Of each vector the strengths, from none to the strongest, and the perplexities there in multiples of the unsteered texts'."""
    strengths = {name: [0.0, *scores] for name, scores in by_vector.items()}
    times = {
        name: [1.0] + [x.perplexity / unsteered.perplexity for x in scores.values()]
        for name, scores in by_vector.items()
    }
    return strengths, times


def price_title(times: Mapping[str, Sequence[float]], strongest: float) -> str:
    """What the strongest push of each kind costs, as a title. `times`: perplexities as multiples of the unsteered one."""
    told = ", ".join(f"{values[-1]:.0f} with {name}" for name, values in times.items())
    return f"Perplexity at strength {strongest:g}, in multiples of the unsteered: {told}"


def course(hits: Sequence[float]) -> str:
    """What the hits do from no steering to the strongest, in the words of the prediction's choices."""
    if max(hits) <= hits[0] + 0.2:
        return "stay about the same"
    return "rise all the way" if hits[-1] > max(hits[:-1]) + 0.1 else "rise, then stop or fall"


def compared(scores: Mapping, others: Scores | Mapping, beside: str) -> str:
    """A line a condition: do more texts have a glad word than of the other texts, fewer, or is it open?"""
    lines = []
    for name, x in scores.items():
        if other := others if isinstance(others, Scores) else others.get(name):
            one, two = x.rate(GLAD), other.rate(GLAD)
            lines.append(f"{name}: {one:.0%} against {two:.0%} {beside}: {x.compare(other, GLAD)}")
    return "\n".join(lines)


def best_request(test: FairTest) -> str:
    """The request that the judge finds happy most often."""
    return max((name for name in test.scores if "request" in name), key=lambda name: test.scores[name].rate("judged"))


def more_or_fewer(one: float, other: float) -> str:
    """In the words of the prediction's choices."""
    return "more" if one > other + 0.1 else "fewer" if one < other - 0.1 else "about as many"


def passed(test: FairTest, words: str = "judged") -> bool:
    """Whether the steered texts have it in more cases than the unsteered, and than the randomly pushed ones."""
    steered, unsteered, random = (test.scores[name] for name in ("steered", "unsteered", "random direction"))
    return steered.compare(unsteered, words) == steered.compare(random, words) == "more"


def outcome(test: FairTest) -> str:
    """What this run's fair test shows of the vector, said outright."""
    rate = {name: {words: x.rate(words) for words in x.hits} for name, x in test.scores.items()}
    request = best_request(test)
    judged = f"{rate['steered']['judged']:.0%} of the steered texts are judged happy, {rate['unsteered']['judged']:.0%} of the unsteered"
    if passed(test):
        said = [f"Our vector passed this test: {judged}, and the intervals lie apart."]
        said += ["They lie apart from the random direction's, too."]
    else:
        said = [f"Our vector failed this test. {judged}. So it is not shown that steering makes the texts happier."]
        if passed(test, GLAD):
            said += ["It does bring glad words. The words came, but the rest of the text is not shown to be happier."]
        else:
            said += ["More glad words are not shown either, on these new beginnings."]
        said += ["The lesson: test on beginnings on which nothing was chosen, and have the rest of the text judged."]
    asked = test.scores[request]
    if asked.compare(test.scores["unsteered"], "judged") == "more":
        said += [f"The test can be passed: the {request} passes it, with {rate[request]['judged']:.0%}."]
    else:
        said += [
            f"For the {request}, with {rate[request]['judged']:.0%}, it is not shown either: few texts show only large differences."
        ]
    return textwrap.fill(" ".join(said), 100)


def names(lm, most: int = 40) -> tuple[list[str], list[str]]:
    """(her prompts, his prompts) whose pronoun the model gets right; all of them where it knows too few."""
    bank = known(lm, pronouns())
    if min(sum(fact.answer == answer for fact in bank) for answer in (" she", " he")) < 20:
        bank = pronouns()
    hers, his = ([fact.prompt for fact in bank if fact.answer == answer][:most] for answer in (" she", " he"))
    n = min(len(hers), len(his))
    return hers[:n], his[:n]


def says_she(lm, groups: Mapping[str, Sequence[str]], *edits) -> dict[str, float]:
    """In what share of each group's prompts “she” is likelier than “he”, under the edits."""
    with intervene(lm, *edits) if edits else nullcontext():
        logits = {name: lm.next_token_logits(list(prompts)) for name, prompts in groups.items()}
    she_over_he = logit_diff(lm, " she", " he")
    return {name: (she_over_he(found) > 0).float().mean().item() for name, found in logits.items()}


def after_ablation(shares: Mapping[str, float]) -> str:
    """In the words of the prediction's choices."""
    hers, his = shares["her names"], shares["his names"]
    if max(hers, his) < 0.2:
        return "“he” for both"
    if min(hers, his) > 0.8:
        return "“she” for both"
    return "he and she as before" if hers - his > 0.6 else "a coin toss for both"


def coordinates(lm, prompts: Sequence[str], u: Tensor) -> Tensor:
    """Where a group lies along a direction of length 1, on average, after each block at each token: (layer, position)."""
    return (record(lm, list(prompts), "block_output").stack("block_output") @ u).mean(1)


def set_to(level: Tensor, u: Tensor) -> list:
    """Edits that set everybody's coordinate along u to a level, (layer, position), at all tokens but the first."""
    layers, positions = level.shape
    return [
        apply(Site("block_output", i, p), lambda h, to=level[i, p]: h + (to - h @ u)[..., None] * u)
        for i in range(layers)
        for p in range(1, positions)
    ]


def she_table(results: Mapping[str, Mapping[str, float]]) -> str:
    """A line an edit: the share of her and of his names to whom the model says “she”."""
    lines = [f"{'says “she”':34}her names  his names"]
    lines += [f"{name:34}{found['her names']:9.2f}{found['his names']:11.2f}" for name, found in results.items()]
    return "\n".join(lines)


def like_zero(results: Mapping[str, Mapping[str, float]]) -> str:
    """Which of the other levels zero acts like: the one whose two shares lie nearest to zero's."""
    zero = results["zero"]
    far = {
        name: sum(abs(found[group] - zero[group]) for group in zero)
        for name, found in results.items()
        if name != "zero"
    }
    nearest = [name for name, value in far.items() if value <= min(far.values()) + 0.01]
    return f"Here zero acts most like {' and '.join(nearest)}: the shares differ by {min(far.values()):.2f} in all."
