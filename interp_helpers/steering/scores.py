"""Does a steering vector work? Sampled continuations, counted (after AxBench, Wu et al. 2025, in small).

    steering_scores(lm, prompts, {"named": ["Toronto"]}, steering=vector)

Three numbers belong together: how often the concept is there, the perplexity of what was written under the *unsteered* model,
and how much it repeats itself, for a text that goes round in circles has a low perplexity. And each belongs beside the same
numbers without steering, with a random direction, and with a plain prompt in the vector's place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from ..models import LanguageModel, as_ints, as_texts
from .vector import SteeringVector
from .words import finder, pieces, repeated

# Without the mild penalty a small model goes round in circles even when nobody steers it.
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.1}
ROWS = 96  # continuations per call
JUDGED = 32  # texts per forward of `surprise`, which holds the logits of all their tokens, not of the last alone


@dataclass(frozen=True)
class Scores:
    """What was written, and what it scored.

    Attributes:
        name: of the condition: the vector's, or "steered", "unsteered", "prompted".
        prompts, texts: what was continued, and the continuations, one a sample.
        hits: for each list of words, whether a continuation has one of them.
        nll: the sum of −log p of each continuation's tokens under the unsteered model, in nats, and `tokens`, their number.
        repeats: the share of each continuation's word triples that it had before.
    """

    name: str
    prompts: tuple[str, ...]
    texts: tuple[str, ...]
    hits: Mapping[str, tuple[bool, ...]]
    nll: Tensor
    tokens: Tensor
    repeats: Tensor

    @property
    def perplexity(self) -> float:
        """exp of the mean −log p over all tokens of all continuations; infinite where none has a token."""
        return math.exp(self.nll.sum() / self.tokens.sum()) if self.tokens.sum() else math.inf

    @property
    def perplexity_interval(self) -> tuple[float, float]:
        """95 %, by resampling continuations (a thousand times, seed 0)."""
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randint(len(self.nll), (1000, len(self.nll)), generator=generator)
        values = (self.nll[drawn].sum(1) / self.tokens[drawn].sum(1)).exp()
        low, high = values.quantile(torch.tensor([0.025, 0.975])).tolist()
        return low, high

    @property
    def repetition(self) -> float:
        """The mean share of word triples that a continuation had before, 0 to 1."""
        return self.repeats.mean().item()

    def rate(self, words: str) -> float:
        """The share of continuations that have one of a list's words."""
        return sum(self.hits[words]) / len(self.hits[words])

    def interval(self, words: str) -> tuple[float, float]:
        """95 % for `rate`, after Wilson (1927). It takes the continuations for independent, which those of one prompt aren't quite."""
        return wilson(sum(self.hits[words]), len(self.hits[words]))

    def by_prompt(self, words: str) -> dict[str, float]:
        """`rate` prompt by prompt: an average can hide prompts that are not steered at all (Tan et al. 2024)."""
        found: dict[str, list[bool]] = {}
        for prompt, hit in zip(self.prompts, self.hits[words], strict=True):
            found.setdefault(prompt, []).append(hit)
        return {prompt: sum(hits) / len(hits) for prompt, hits in found.items()}

    def compare(self, other: Scores, words: str) -> str:
        """Whether these continuations have one of a list's words in "more" cases than the other ones, in "fewer", or whether that is "open":
        so it is called where the two 95 % intervals overlap, a rule that rather leaves a difference open than finds one too many."""
        (low, high), (other_low, other_high) = self.interval(words), other.interval(words)
        return "more" if low > other_high else "fewer" if high < other_low else "open"

    def __repr__(self) -> str:
        rates = [
            f"{words} {self.rate(words):.2f} [{self.interval(words)[0]:.2f}, {self.interval(words)[1]:.2f}]"
            for words in self.hits
        ]
        return (
            f"{self.name}: {', '.join(rates)}, perplexity {self.perplexity:.1f}, repetition {self.repetition:.2f} "
            f"(n = {len(self.texts)})"
        )


def steering_scores(
    lm: LanguageModel,
    prompts: Sequence[str],
    words: Mapping[str, Sequence[str]],
    *,
    steering: SteeringVector | Callable[[], AbstractContextManager] | None = None,
    before: str = "",
    samples: int = 4,
    seeds: Sequence[int] = (0, 1, 2),
    max_new_tokens: int = 40,
    **options,
) -> Scores:
    """Sample continuations, steered or not, and score them.

    >>> glad = {"glad": ["glad", "joy"]}
    >>> scores = steering_scores(lm, ["Yesterday we", "I think"], glad, samples=2, seeds=(0,), max_new_tokens=6)
    >>> len(scores.texts), scores.rate("glad")  # so many texts, and the share that has one of the words
    (4, 0.0)

    Args:
        lm: the model.
        prompts: what is continued: other prompts than those that the vector or its strength were chosen on.
        words: lists of words that count as a hit, each under a name; case doesn't matter, and only whole words count (in scripts
            without spaces a word counts wherever it stands, and in Korean with its particles).
        steering: a vector, applied as it says itself; or a function that gives the context manager to sample in, such as
            `lambda: vector.apply(lm, 0.3)`; None for the unsteered model.
        before: put in front of each prompt while sampling: steering by a plain prompt. What it is scored on doesn't have it.
        samples, seeds: so many continuations of each prompt with each seed.
        max_new_tokens: their length at most.
        options: of the sampling, in place of `SAMPLING`'s.

    Raises:
        ValueError: no prompts, samples or seeds, words that are no mapping or an empty list, a steering that is neither a vector
            nor a function, or an open `intervene`.
    """
    _require_unsteered(lm)
    prompts, words = as_texts(prompts, "prompts"), word_lists(words)
    if isinstance(steering, AbstractContextManager) or not (
        steering is None or isinstance(steering, SteeringVector) or callable(steering)
    ):
        raise ValueError(
            f"steering is a vector, or a function that gives a context manager, for it is entered once a batch; got {type(steering).__name__}: "
            "give lambda: vector.apply(lm, 0.3)."
        )
    seeds = as_ints(seeds)
    if samples < 1 or not seeds:
        raise ValueError(f"Scores need a sample and a seed at least, and got samples={samples} and seeds={seeds}.")
    have = {which: finder(listed) for which, listed in words.items()}
    rows = [prompt for prompt in prompts for _ in range(samples)]
    entered = nullcontext if steering is None else steering
    said = "prompted" if before else "unsteered" if steering is None else "steered"
    if isinstance(steering, SteeringVector):
        entered, said = (lambda: steering.apply(lm)), steering.name
    sampling = SAMPLING | options
    likeliest = lm.model.generation_config.top_k  # which `transformers` takes for 50 where it is None
    if sampling.keys() == SAMPLING.keys() and likeliest != 0:
        nucleus = Nucleus(sampling["temperature"], likeliest or 50, sampling["top_p"])
        sampling |= {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "logits_processor": LogitsProcessorList([nucleus])}
    texts: list[str] = []
    for seed in seeds:
        for start in range(0, len(rows), ROWS):
            batch = [before + prompt for prompt in rows[start : start + ROWS]]
            with entered():
                texts += lm.generate(batch, max_new_tokens, seed=seed + 1_000 * start, **sampling)
    rows = rows * len(seeds)
    nll = surprise(lm, rows, texts)
    return Scores(
        said,
        tuple(rows),
        tuple(texts),
        {which: tuple(map(found, texts)) for which, found in have.items()},
        torch.stack([each.sum() for each in nll]),
        torch.tensor([float(len(each)) for each in nll]),
        torch.tensor([repeated(text) for text in texts]),
    )


def surprise(lm: LanguageModel, prompts: Sequence[str], texts: Sequence[str]) -> list[Tensor]:
    """−log p, in nats, of each token of each text after its prompt: a tensor (token,) a text. A token in which the prompt's end and
    the text's beginning have merged counts as the text's."""
    found = []
    for start in range(0, len(texts), JUDGED):
        rows = range(start, min(start + JUDGED, len(texts)))
        tokens = lm.tokens([prompts[row] + texts[row] for row in rows])
        logits = lm(tokens)[:, :-1].float()
        nll = logits.logsumexp(-1) - logits.gather(-1, tokens[:, 1:, None])[..., 0]
        for i, row in enumerate(rows):
            own, end = lm.tokens(prompts[row])[0], int(tokens.attention_mask[i].sum())
            shared = tokens[i, : min(len(own), end)] == own[:end]
            begin = max(1, int(shared.long().cumprod(0).sum()))
            found.append(nll[i, begin - 1 : end - 1].cpu())
    return found


def perplexity(lm: LanguageModel, prompts: Sequence[str], texts: Sequence[str]) -> float:
    """exp of the mean −log p over all tokens of the texts, each after its prompt, under the model *as it is now*: steered where steering is
    on, as a writer finds its own text. `Scores.perplexity` is always that of the unsteered model."""
    return torch.cat(surprise(lm, as_texts(prompts, "prompts"), as_texts(texts, "texts"))).mean().exp().item()


def topic_scores(
    lm: LanguageModel, prompts: Sequence[str], texts: Sequence[str], topic: str, contrast: Sequence[str]
) -> Tensor:
    """A judge that shares no words with the vector: how much likelier the unsteered model finds a text once it is told the topic.

    log p(text | "A text about …:") − log p(text | "A text:"), per token, over those tokens that are no part of a word of the
    contrast set. A word list rewards a vector for the very words that it was built from; this asks whether the rest of the
    text is about the matter, too.

    Args:
        lm, prompts, texts: the unsteered model, and what it judges: each text after its prompt.
        topic: as a reader would say it: "tabby cats".
        contrast: the texts that the vector was built from.

    Returns:
        (text,), in nats a token; 0 for a text of which no token is left.

    Raises:
        ValueError: inside an open `intervene`, where the model is not the unsteered one.
    """
    _require_unsteered(lm)
    prompts, texts = as_texts(prompts, "prompts"), as_texts(texts, "texts")
    known = {piece for text in as_texts(contrast, "texts", least=0) for piece, *_ in pieces(text)}
    told, untold = (
        surprise(lm, [f"{heading}\n\n{prompt}" for prompt in prompts], texts)
        for heading in (f"A text about {topic}:", "A text:")
    )
    scores = []
    for prompt, text, with_topic, without in zip(prompts, texts, told, untold, strict=True):
        spans = [span for piece, *span in pieces(prompt + text, singles=True) if piece in known]
        offsets = lm.tokenizer(prompt + text, return_offsets_mapping=True)["offset_mapping"]
        offsets = offsets[len(offsets) - len(without) :]
        kept = torch.tensor([all(end <= a or start >= b for a, b in spans) for start, end in offsets], dtype=torch.bool)
        scores.append((without - with_topic)[kept].mean().item() if kept.any() else 0.0)
    return torch.tensor(scores)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval for a share (Wilson 1927): unlike p ± z·s, it is no point where all or none are hits."""
    z = 1.96
    p, spread = hits / n, z * z / n
    centre = (p + spread / 2) / (1 + spread)
    half = z * math.sqrt(p * (1 - p) / n + spread / (4 * n)) / (1 + spread)
    return 0.0 if hits == 0 else centre - half, 1.0 if hits == n else centre + half  # exactly, whatever rounding does


class Nucleus(LogitsProcessor):
    """Temperature, top-k and top-p as `transformers` has them, which sorts the whole vocabulary: a third of the time that a text takes."""

    def __init__(self, temperature: float, top_k: int, top_p: float):
        self._temperature, self._top_k, self._top_p = temperature, top_k, top_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        top, where = (scores / self._temperature).topk(min(self._top_k, scores.shape[-1]))
        shares = top.softmax(-1)
        likelier = shares.cumsum(-1) - shares  # the share of the tokens before it
        return torch.full_like(scores, -math.inf).scatter(1, where, top.masked_fill(likelier >= self._top_p, -math.inf))


def _require_unsteered(lm: LanguageModel) -> None:
    if lm.running.interventions:
        raise ValueError(
            "Texts are scored under the unsteered model: leave the intervention first, and hand it over as steering=."
        )


def word_lists(words: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Lists of words, each under its name.

    Raises:
        ValueError: no mapping, or a list that is empty, has an empty word or is a single text.
    """
    if not isinstance(words, Mapping):
        raise ValueError(
            f"Lists of words were expected, each under a name, such as {{'glad': ['joy']}}, and {words!r} was given."
        )
    lists: dict[str, list[str]] = {}
    for name, listed in words.items():
        with suppress(ValueError):
            lists[name] = as_texts(listed)
        if not all(map(str.strip, lists.get(name, [""]))):
            raise ValueError(
                f"{name!r} needs a list of words, one at least and none of them empty, and got {listed!r}."
            )
    return lists
