"""A fair test: a steering vector beside everything else that could have done it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ..models import LanguageModel, as_ints, as_texts
from .scores import Scores, steering_scores, topic_scores, word_lists
from .vector import SteeringVector


@dataclass(frozen=True, repr=False)
class FairTest:
    """What `fair_test` found.

    Attributes:
        scores: the `Scores` of each condition, in the order of the table. Besides the lists of words their hits have "judged": whether
            the judge puts a text above 19 in 20 unsteered ones. `scores["steered"].rate("judged")` is a share,
            `.interval("judged")` its 95 % interval.
    """

    scores: Mapping[str, Scores]

    def plot(self, title: str):
        """Each share with its interval: a row a list of words, a dot a condition."""
        from .. import plotting

        first, *_ = self.scores.values()
        return plotting.intervals(
            {
                words: {name: (x.rate(words), *x.interval(words)) for name, x in self.scores.items()}
                for words in first.hits
            },
            title=title,
            xlabel=f"share of {len(first.texts)} texts, with 95 % interval",
        )

    def __repr__(self) -> str:
        return score_table(self.scores)


def score_table(scores: Mapping[str, Scores]) -> str:
    """A line a condition: the share of its texts with a word of each list that all conditions have, with the 95 % interval, their
    perplexity and repetition."""
    first, *_ = scores.values()
    listed = [words for words in first.hits if all(words in x.hits for x in scores.values())]
    lines = [f"{'':18}" + "".join(f"{words:>20}" for words in listed) + f"{'perplexity':>12}{'repetition':>12}"]
    for name, x in scores.items():
        shares = [f"{x.rate(words):.2f} [{{:.2f}}, {{:.2f}}]".format(*x.interval(words)) for words in listed]
        told = "".join(f"{share:>20}" for share in shares)
        lines.append(f"{name:18}{told}{x.perplexity:12.1f}{x.repetition:12.2f}")
    return "\n".join(lines)


def fair_test(
    lm: LanguageModel,
    vector: SteeringVector,
    prompts: Sequence[str],
    words: Mapping[str, Sequence[str]],
    *,
    topic: str,
    left_out: Sequence[str] = (),
    request: str | None = None,
    reference: Scores | None = None,
    samples: int = 4,
    seeds: Sequence[int] = (0, 1, 2),
    max_new_tokens: int = 40,
) -> FairTest:
    """Steer, and do the same without the vector: unsteered, with a random direction of the same length (another for each seed), and
    with a request in its place, in plain words and, where the model knows that format, in a chat. Every text is counted, and judged
    without the words that the vector was made from (after AxBench, Wu et al. 2025, where prompting is the method to beat).

    >>> glad = SteeringVector.train(lm, ["I am so glad.", "What joy!"], 22, steps=2, name="glad")
    >>> how = dict(topic="joy", samples=2, seeds=(0,), max_new_tokens=5)
    >>> test = fair_test(lm, glad, ["Yesterday we"], {"words": ["glad", "joy"]}, **how)
    >>> list(test.scores), list(test.scores["steered"].hits)
    (['unsteered', 'steered', 'random direction', 'plain request', 'request in a chat'], ['words', 'judged'])

    Args:
        lm: the model.
        vector: with the strength and mode to be tested, which were chosen on other prompts than these.
        prompts, words, samples, seeds, max_new_tokens: as for `steering_scores`.
        topic: what the judge is told that a text is about, as in `topic_scores`.
        left_out: the texts that the vector was made from. Their words don't count for the judge, nor do those of `words`.
        request: what is put before each prompt in the vector's place; by default “Talk about” the topic.
        reference: scores of other unsteered texts, which set the judge's bar. By default the unsteered condition does, of which one in
            twenty is above it whatever it says.

    Returns:
        A `FairTest`: `.scores` by condition, a table as its repr, and `.plot()`.

    Raises:
        ValueError: a vector without a strength or of another model, or as `steering_scores`.
    """
    how = {"samples": samples, "max_new_tokens": max_new_tokens}
    seeds, prompts, words = as_ints(seeds), as_texts(prompts, "prompts"), word_lists(words)
    request = request or f"Talk about {topic}."
    asked = {"plain request": f"{request} "}
    if lm.tokenizer.chat_template:
        turn = [{"role": "user", "content": request}]
        asked["request in a chat"] = lm.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    steered = steering_scores(lm, prompts, words, steering=vector, seeds=seeds, **how)
    pushed = [steering_scores(lm, prompts, words, steering=vector.random(seed), seeds=seed, **how) for seed in seeds]
    scores = {
        "unsteered": steering_scores(lm, prompts, words, seeds=seeds, **how),
        "steered": steered,
        "random direction": _joined(pushed),
    } | {name: steering_scores(lm, prompts, words, before=said, seeds=seeds, **how) for name, said in asked.items()}
    known = [*as_texts(left_out, least=0), *(word for listed in words.values() for word in listed)]
    judged = {name: topic_scores(lm, x.prompts, x.texts, topic, known) for name, x in scores.items()}
    others = topic_scores(lm, reference.prompts, reference.texts, topic, known) if reference else judged["unsteered"]
    bar = others.quantile(0.95)
    return FairTest(
        {
            name: replace(x, name=name, hits={**x.hits, "judged": tuple((judged[name] > bar).tolist())})
            for name, x in scores.items()
        }
    )


def _joined(parts: Sequence[Scores]) -> Scores:
    """The scores of all texts together."""
    whole = {key: sum((getattr(part, key) for part in parts), ()) for key in ("prompts", "texts")}
    whole |= {key: torch.cat([getattr(part, key) for part in parts]) for key in ("nll", "tokens", "repeats")}
    return replace(parts[0], hits={w: sum((part.hits[w] for part in parts), ()) for w in parts[0].hits}, **whole)
