"""The explorer of heads: choose a prompt, what is changed in it, and a place; see which heads carry the difference there,
and where a chosen head looks."""

from __future__ import annotations

import html
from collections.abc import Sequence

from ..activations import Activations
from ..hooks import record
from ..metrics import logit_diff
from ..prompts import IOIPrompt, ioi
from ..sweeps import Sweep, patch_sweep
from .explorer import SweepExplorer, layer_map, the_same

CHANGES = ("a third name for the repeated one", "another indirect object")
PLACES = ("indirect object", "subject, first time", "after it", "subject, second time", "last token")


class heads_explorer(SweepExplorer):
    """Choose an IOI prompt, what is changed in it, a place and a head; see what each head carries there, and where it looks.

    >>> heads_explorer(lm, ioi(2)).choose(layer=23, head=3)
    Sweep of attention_value_output: 30 layers × 9 heads; logit(Alice) − logit(Bob); ...
    head 23.3 looks from token 14 at
    prompt: 10 'Bob' ...
    changed: 10 'John' ...

    Args:
        lm: a `LanguageModel`.
        prompts: what to choose from, such as `ioi(8)`.

    Attributes:
        prompt, change, place, layer, head: what is chosen; `choose` changes them.

    Raises:
        ValueError: no prompts.
    """

    sliders = {"layer": "layer", "head": "head"}
    waiting = "Patching every head of the new choice…"

    def __init__(self, lm, prompts: Sequence[IOIPrompt]):
        if not prompts:
            raise ValueError("The explorer needs at least one IOI prompt, such as ioi(4).")
        choices = {"prompt": {p.prompt: p for p in prompts}, "change": the_same(CHANGES), "place": the_same(PLACES)}
        super().__init__(lm, choices)
        self._patterns: dict[str, Activations] = {}
        self.prompt, self.change, self.place = prompts[0], CHANGES[0], PLACES[-1]
        strongest, _ = self.sweep.top(1)[0]
        self.layer, self.head = strongest["layer"], strongest["head"]

    def sizes(self) -> tuple[int, int]:
        return self.lm.n_layers, self.lm.n_heads

    @property
    def base(self) -> str:
        """The changed prompt, into which the heads' outputs are patched."""
        return self._changed()[0]

    @property
    def position(self) -> int:
        """The chosen place, counted from 0."""
        text, (io, subject) = self.prompt.prompt, (self.prompt.indirect_object, self.prompt.subject)
        first = self.lm.find(text, subject.strip(), occurrence=0)[-1]
        return {
            "indirect object": self.lm.find(text, io.strip())[-1],
            "subject, first time": first,
            "after it": first + 1,
            "subject, second time": self.lm.find(text, subject.strip(), occurrence=1)[-1],
            "last token": len(self.lm.str_tokens(text)) - 1,
        }[self.place]

    def compute(self) -> Sweep:
        base, other = self._changed()
        metric = logit_diff(self.lm, self.prompt.indirect_object, other)
        heads, where = range(self.lm.n_heads), dict(positions=self.position)
        return patch_sweep(self.lm, base, self.prompt.prompt, metric, "attention_value_output", heads=heads, **where)

    def attention(self) -> dict[str, list[tuple[str, float]]]:
        """Where the chosen head looks from the chosen place: {"prompt": [(token, weight), …], "changed": …}."""
        looks = {}
        for name, text in (("prompt", self.prompt.prompt), ("changed", self.base)):
            if text not in self._patterns:
                self._patterns[text] = record(self.lm, text, "attention_weight")
            weights = self._patterns[text]["attention_weight", self.layer][0, self.head, self.position]
            looks[name] = list(zip(self.lm.str_tokens(text), weights.tolist(), strict=True))
        return looks

    def _changed(self) -> tuple[str, str]:
        """The changed prompt, and the answer that the indirect object is compared with."""
        if self.change == CHANGES[0]:
            return self.prompt.corrupted, self.prompt.subject
        taken = self.prompt.prompt + self.prompt.corrupted
        other = next(p.indirect_object for p in ioi(60) if p.indirect_object.strip() not in taken)
        return self.prompt.prompt.replace(self.prompt.indirect_object, other), other

    def _heatmap(self) -> str:
        sweep = self.sweep
        moved = sweep.values - sweep.base
        limit = float(moved.abs().max())
        caption = (
            f"Each head's output at token {self.position} ({self.place}), from “{self.prompt.prompt}” into “{self.base}”: change of "
            f"{sweep.metric}, {float(sweep.base):.2f} in the changed prompt and {float(sweep.source):.2f} in the other. Red is "
            f"up, blue is down; the strongest moves it by {limit:.2f}."
        )
        names = [(f"head {head}", f"head {head}") for head in range(self.lm.n_heads)]
        return layer_map(moved, names, (self.layer, self.head), limit, caption)

    def _table(self) -> str:
        moved = float(self.sweep.values[self.layer, self.head] - self.sweep.base)
        lines = ""
        for name, looks in self.attention().items():
            shaded = "".join(
                f'<span title="{weight:.2f}" style="white-space:pre;font-family:monospace;background:rgba(0,114,178,{weight:.2f})">'
                f"{html.escape(token)}</span>"
                for token, weight in looks
            )
            lines += f'<div>{name}: {shaded} <span style="opacity:.75">({html.escape(_most(looks))})</span></div>'
        return (
            f'<div class="glassbox-head" data-layer="{self.layer}" data-head="{self.head}" style="margin:.8em 0 .3em">'
            f"<strong>Head {self.layer}.{self.head}</strong> (layer {self.layer}, head {self.head}) moves it by {moved:+.2f}. From "
            f"token {self.position} it looks at:{lines}</div>"
        )

    def __repr__(self) -> str:
        lines = [f"head {self.layer}.{self.head} looks from token {self.position} at"]
        lines += [f"{name}: {_most(looks)}" for name, looks in self.attention().items()]
        return "\n".join([f"{self.sweep!r}", *lines])


def _most(looks: list[tuple[str, float]]) -> str:
    best = sorted(range(len(looks)), key=lambda i: -looks[i][1])[:3]
    return ", ".join(f"{i} {looks[i][0].strip()!r} {looks[i][1]:.0%}" for i in best)
