"""The steering panel: a vector, a strength, and the same text with and without it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from ..steering import SAMPLING, WHERE, SteeringVector, finder
from .explorer import LOOK, Explorer, the_same

STRONGEST, STEP, SEEDS = 0.6, 0.05, 5


class steering_explorer(Explorer):
    """Choose a vector, a prompt, a strength and where it acts; see the text without and with it, from the same seed.

    >>> vector = SteeringVector.from_contrast(lm, ["I am glad."], ["I am sad."], 20)
    >>> steering_explorer(lm, {"glad": vector}, ["Yesterday we"], max_new_tokens=5)
    unsteered: Yesterday we...
    glad at strength ...: Yesterday we...

    Args:
        lm: the model that the vectors were built on.
        vectors: {name: vector}.
        prompts: what to choose from.
        words: it opens at the first seed whose steered text has one of these words; at seed 0 where none has, and where none are given.
        max_new_tokens: how much is written.

    Attributes:
        vector, prompt, where, seed, strength: what is chosen; `choose` changes them.
        limit: the largest size of a strength: `STRONGEST`, or that of the first vector's own where it is larger.

    Raises:
        ValueError: no vectors or no prompts.
    """

    waiting = "Writing…"

    def __init__(
        self,
        lm,
        vectors: Mapping[str, SteeringVector],
        prompts: Sequence[str],
        *,
        words: Sequence[str] = (),
        max_new_tokens: int = 40,
    ):
        if not vectors or isinstance(prompts, str) or not prompts:
            raise ValueError("The explorer needs vectors, {name: SteeringVector}, and a list of at least one prompt.")
        super().__init__({
            "vector": dict(vectors), "prompt": the_same(prompts), "where": the_same(WHERE), "seed": the_same(range(SEEDS)),
        })  # fmt: skip
        self.lm, self.max_new_tokens = lm, max_new_tokens
        self.vector, self.prompt, self.where, self.seed = next(iter(vectors.values())), prompts[0], WHERE[0], 0
        self.strength = 0.3 if self.vector.strength is None else self.vector.strength
        self.limit = max(STRONGEST, abs(self.strength))
        self._texts: dict[tuple, str] = {}
        if words:
            has_one = finder(words)
            self.seed = next((seed for seed in range(SEEDS) if has_one(self.choose(seed=seed).steered)), 0)

    def choose(self, *, strength: float | None = None, **changes) -> steering_explorer:
        """Change what is chosen; see `Explorer.choose`.

        Raises:
            ValueError: a strength beyond ±`limit`, too.
        """
        if strength is not None and not abs(strength) <= self.limit + 1e-9:  # NaN, too
            raise ValueError(f"strength={strength!r} is out of the panel's range, -{self.limit:g} to {self.limit:g}.")
        super().choose(**changes)
        self.strength = self.strength if strength is None else strength
        return self

    @property
    def base(self) -> str:
        """The continuation without steering."""
        return self._written(0.0)

    @property
    def steered(self) -> str:
        """The continuation with the chosen vector, of the same seed."""
        return self._written(self.strength)

    def _written(self, strength: float) -> str:
        """Written once; a slider that comes back shows the same text at once."""
        key = (self.prompt, self.seed, *((self._name, self.where, round(strength, 6)) if strength else ()))
        if key not in self._texts:
            with self.vector.apply(self.lm, strength, where=self.where) if strength else nullcontext():
                self._texts[key] = self.lm.generate(self.prompt, self.max_new_tokens, seed=self.seed, **SAMPLING)
        return self._texts[key]

    def _controls(self) -> dict:
        import ipywidgets as w

        strength = w.FloatSlider(
            value=self.strength, min=-self.limit, max=self.limit, step=STEP, description="strength", readout_format=".2f",
            continuous_update=False, **LOOK,
        )  # fmt: skip
        return {**super()._controls(), "strength": strength}

    @property
    def html(self) -> str:
        return side_by_side(
            self.prompt, {"unsteered": self.base, f"{self._name} at strength {self.strength:.2f}": self.steered}
        )

    @property
    def _name(self) -> str:
        return next(name for name, vector in self.choices["vector"].items() if vector is self.vector)

    def __repr__(self) -> str:
        return f"unsteered: {self.prompt}{self.base}\n{self._name} at strength {self.strength:.2f}: {self.prompt}{self.steered}"


def side_by_side(prompt: str, texts: Mapping[str, str]) -> str:
    """Two continuations {heading: text} of a prompt in columns, as HTML; on a narrow page one below the other."""
    columns = "".join(
        f'<div style="flex:1 1 16em;min-width:0;border-left:4px solid {colour};padding:.1em 0 .1em .8em">'
        f'<strong>{html.escape(heading)}</strong><p style="margin:.3em 0;white-space:pre-wrap;overflow-wrap:anywhere">'
        f'<span style="opacity:.65">{html.escape(prompt)}</span>{html.escape(text)}</p></div>'
        for (heading, text), colour in zip(texts.items(), ("#7f7f7f", "#D55E00"), strict=True)
    )
    return f'<div style="line-height:1.5;display:flex;flex-wrap:wrap;gap:1.2em;max-width:60em">{columns}</div>'
