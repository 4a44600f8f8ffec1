"""Which layer, and how strongly? Steer at several of each, and look at the effect beside what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tqdm.auto import tqdm

from ..models import LanguageModel, as_list, as_texts
from .scores import Scores, steering_scores, word_lists
from .vector import SteeringVector


@dataclass(frozen=True)
class SteeringSweep:
    """Scores by layer and strength, and the setting that the rule chose.

    Attributes:
        vectors: one a layer.
        strengths: those tried, in units of each layer's residual norm.
        mode: "add" or "clamp".
        scores: scores[i][j] is of the i-th vector at the j-th strength.
        unsteered: the same without steering.
        words: the list of words that counts.
        budget: how many times the unsteered perplexity is allowed.
    """

    vectors: tuple[SteeringVector, ...]
    strengths: tuple[float, ...]
    mode: str
    scores: tuple[tuple[Scores, ...], ...]
    unsteered: Scores
    words: str
    budget: float = 2.5

    @property
    def layers(self) -> list[int]:
        return [vector.layer for vector in self.vectors]

    @property
    def chosen(self) -> tuple[int, int]:
        """The rule: of the settings within the budget, the one with most hits; if several tie, the one with the lowest perplexity.
        Where none is within, the one with the lowest perplexity."""
        cells = [(i, j) for i in range(len(self.vectors)) for j in range(len(self.strengths))]
        within = [(i, j) for i, j in cells if self.cost(i, j) <= self.budget]
        if not within:
            return min(cells, key=lambda cell: self.cost(*cell))
        return max(within, key=lambda cell: (self.scores[cell[0]][cell[1]].rate(self.words), -self.cost(*cell)))

    @property
    def best(self) -> SteeringVector:
        """The chosen vector, with its strength and mode, and in its provenance what it scored here."""
        i, j = self.chosen
        about = {
            "hits": self.scores[i][j].rate(self.words),
            "perplexity": self.cost(i, j),
            "n": len(self.unsteered.texts),
        }
        vector = self.vectors[i]
        provenance = vector.provenance | {"chosen": about}
        return replace(vector, strength=self.strengths[j], mode=self.mode, provenance=provenance)

    def cost(self, i: int, j: int) -> float:
        """The perplexity of a setting's continuations, in multiples of the unsteered ones'."""
        return self.scores[i][j].perplexity / self.unsteered.perplexity

    def plot(self, title: str | None = None):
        """Hits against perplexity, a line a layer and a point a strength; what costs more than the budget says so."""
        from .. import plotting

        costs = {
            f"layer {v.layer}": [self.cost(i, j) for j in range(len(self.strengths))]
            for i, v in enumerate(self.vectors)
        }
        hits = [[scores.rate(self.words) for scores in row] for row in self.scores]
        i, j = self.chosen
        return plotting.curves(
            costs,
            dict(zip(costs, hits, strict=True)),
            title=title or f"Chosen: layer {self.layers[i]} at strength {self.strengths[j]:.2g}",
            limits={f"allowed: {self.budget:g}": self.budget},
            beside={
                layer: [
                    f"{strength:g}" + ", too dear" * (cost > self.budget)
                    for strength, cost in zip(self.strengths, row, strict=True)
                ]
                for layer, row in costs.items()
            },
            xlabel="perplexity, in multiples of the unsteered; beside each point its strength",
            ylabel=f"share of texts\nwith a word of “{self.words}”",
        )

    def __repr__(self) -> str:
        i, j = self.chosen
        return (
            f"SteeringSweep({self.vectors[0].name!r}: layers {self.layers}, strengths {list(self.strengths)}, {self.mode}; chosen layer "
            f"{self.layers[i]} at {self.strengths[j]:.2g}: {self.words} {self.scores[i][j].rate(self.words):.2f}, perplexity "
            f"{self.cost(i, j):.1f} times the unsteered, {self.unsteered.perplexity:.1f})"
        )


def layer_sweep(
    lm: LanguageModel,
    vectors: Sequence[SteeringVector],
    prompts: Sequence[str],
    words: Mapping[str, Sequence[str]],
    *,
    strengths: Sequence[float] = (0.2, 0.3, 0.4),
    mode: str = "clamp",
    samples: int = 2,
    max_new_tokens: int = 30,
) -> SteeringSweep:
    """Steer at each layer and strength, and choose by a rule: most hits within 2.5 times the perplexity of unsteered texts.

    >>> vectors = SteeringVector.from_contrast(lm, ["I am glad.", "What joy!"], ["I am sad.", "What grief!"], [18, 24])
    >>> how = dict(strengths=(0.3,), samples=1, max_new_tokens=4)
    >>> sweep = layer_sweep(lm, vectors, ["Yesterday we"], {"glad words": ["glad", "joy"]}, **how)
    >>> sweep.layers, sweep.best.strength
    ([18, 24], 0.3)

    What is chosen on these prompts is to be judged on others: of many settings the best one is lucky, too.

    Args:
        lm: the model.
        vectors: one a layer.
        prompts, words: as for `steering_scores`; the first list of words is the one that counts.
        strengths: in units of each layer's residual norm.
        mode: "clamp" or "add".
        samples, max_new_tokens: as for `steering_scores`, with the one seed 0.

    Raises:
        ValueError: no vectors, strengths, prompts or words.
    """
    vectors, prompts, words = as_list(vectors, "vectors, one a layer,"), as_texts(prompts, "prompts"), word_lists(words)
    strengths = tuple(map(float, as_list(strengths, "strengths")))
    if not vectors or not strengths or not words:
        got = f"{len(vectors)}, {len(strengths)} and {len(words)}"
        raise ValueError(f"A sweep needs vectors and strengths, and a list of words that counts, and got {got}.")
    how = {"samples": samples, "seeds": (0,), "max_new_tokens": max_new_tokens}
    unsteered = steering_scores(lm, prompts, words, **how)
    settings = [replace(vector, strength=strength, mode=mode) for vector in vectors for strength in strengths]
    bar = tqdm(settings, desc="layers × strengths", leave=False)
    found = [steering_scores(lm, prompts, words, steering=setting, **how) for setting in bar]
    rows = tuple(tuple(found[i : i + len(strengths)]) for i in range(0, len(found), len(strengths)))
    return SteeringSweep(tuple(vectors), strengths, mode, rows, unsteered, next(iter(words)))
