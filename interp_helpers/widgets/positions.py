"""The explorer of heads: choose a prompt, what is changed in it, and a place; see which heads carry the difference there,
and where a chosen head looks."""

from __future__ import annotations

import html
from collections.abc import Sequence

import torch

from ..hooks import record
from ..metrics import logit_diff
from ..prompts import IOIPrompt, ioi
from ..sweeps import Sweep, patch_sweep
from .explorer import SweepExplorer, layer_map, the_same

CHANGES = ("a third name for the repeated one", "another indirect object")
PLACES = ("indirect object", "subject, first time", "after it", "subject, second time", "last token")


class HeadsExplorer(SweepExplorer):
    """What `heads_explorer` shows: a head sweep at one place of an IOI prompt, and one head's attention from there.

    Attributes:
        prompt, change, place, layer, head: what is chosen; `choose` changes them.
    """

    sliders = {"layer": "layer", "head": "head"}
    waiting = "Patching every head of the new choice…"
    wide = "44em"

    def __init__(self, lm, prompts: Sequence[IOIPrompt]):
        if not prompts:
            raise ValueError("The explorer needs at least one IOI prompt, such as ioi(4).")
        choices = {"prompt": {p.prompt: p for p in prompts}, "change": the_same(CHANGES), "place": the_same(PLACES)}
        super().__init__(lm, choices)
        self._patterns: dict[str, list[torch.Tensor]] = {}
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

    def attention(self) -> dict[str, list[float]]:
        """Where the chosen head looks from the chosen place: {"prompt": weights, "changed": weights}, one a token."""
        return {
            name: self._pattern(text)[self.layer][self.head, self.position].tolist()
            for name, text in (("prompt", self.prompt.prompt), ("changed", self.base))
        }

    def _changed(self) -> tuple[str, str]:
        """The changed prompt, and the answer that the indirect object is compared with."""
        if self.change == CHANGES[0]:
            return self.prompt.corrupted, self.prompt.subject
        taken = self.prompt.prompt + self.prompt.corrupted
        other = next(p.indirect_object for p in ioi(60) if p.indirect_object.strip() not in taken)
        return self.prompt.prompt.replace(self.prompt.indirect_object, other), other

    def _pattern(self, text: str) -> list[torch.Tensor]:
        if text not in self._patterns:
            acts = record(self.lm, text, "attention_weight")
            self._patterns[text] = [acts["attention_weight", layer][0] for layer in range(self.lm.n_layers)]
        return self._patterns[text]

    # -- how it looks -------------------------------------------------------------------------------------------------

    @property
    def html(self) -> str:
        return f'<div style="line-height:1.5">{self._heatmap()}{self._looks()}</div>'

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

    def _looks(self) -> str:
        moved = float(self.sweep.values[self.layer, self.head] - self.sweep.base)
        lines = ""
        for name, text in (("prompt", self.prompt.prompt), ("changed", self.base)):
            tokens, weights = self.lm.str_tokens(text), self.attention()[name]
            shaded = "".join(
                f'<span title="{weight:.2f}" style="white-space:pre;font-family:monospace;background:rgba(0,114,178,{weight:.2f})">'
                f"{html.escape(token)}</span>"
                for token, weight in zip(tokens, weights, strict=True)
            )
            lines += f'<div>{name}: {shaded} <span style="opacity:.75">({html.escape(self._most(name))})</span></div>'
        return (
            f'<div class="glassbox-head" data-layer="{self.layer}" data-head="{self.head}" style="margin:.8em 0 .3em">'
            f"<strong>Head {self.layer}.{self.head}</strong> (layer {self.layer}, head {self.head}) moves it by {moved:+.2f}. From "
            f"token {self.position} it looks at:{lines}</div>"
        )

    def _most(self, name: str) -> str:
        tokens = self.lm.str_tokens(self.prompt.prompt if name == "prompt" else self.base)
        weights = self.attention()[name]
        best = sorted(range(len(weights)), key=lambda i: -weights[i])[:3]
        return ", ".join(f"{i} {tokens[i].strip()!r} {weights[i]:.0%}" for i in best)

    def __repr__(self) -> str:
        lines = [f"head {self.layer}.{self.head} looks from token {self.position} at"]
        lines += [f"{name}: {self._most(name)}" for name in ("prompt", "changed")]
        return "\n".join([f"{self.sweep!r}", *lines])


def heads_explorer(lm, prompts: Sequence[IOIPrompt]) -> HeadsExplorer:
    """Choose an IOI prompt, what is changed in it, a place and a head; see what each head carries there, and where it looks.

    >>> heads_explorer(lm, ioi(2)).choose(layer=23, head=3)
    Sweep of attention_value_output: 30 layers × 9 heads; logit(Alice) − logit(Bob); ...
    head 23.3 looks from token 14 at
    prompt: 10 'Bob' ...
    changed: 10 'John' ...

    Args:
        lm: a `LanguageModel`.
        prompts: what to choose from, such as `ioi(8)`.

    Raises:
        ValueError: no prompts.
    """
    return HeadsExplorer(lm, prompts)
