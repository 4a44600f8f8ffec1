"""The explorer of the residual stream: what the logit lens reads at every layer and token, and how long the vectors are."""

from __future__ import annotations

import html
from collections.abc import Sequence

from torch import Tensor

from ..hooks import record
from .explorer import SiteExplorer, code, heat_table, site, the_same

SHADES = ("probability of the top token", "norm of the residual stream")


class lens_explorer(SiteExplorer):
    """Choose a prompt and a site; see what the logit lens (nostalgebraist 2020) reads at every layer and token, and the
    norms of the residual stream.

    >>> lens_explorer(lm, ["The capital of Spain is"]).choose(layer=29)
    The logit lens on 'The capital of Spain is'
    at layer 29, token 4 (' is'): norm ..., ' Madrid' ...
    top token at the last position, layer by layer: 0: ..., 28: ' capital', 29: ' Madrid'

    Args:
        lm: a `LanguageModel`.
        prompts: what to choose from.

    Attributes:
        prompt, shade, layer, position: what is chosen; `choose` changes them.

    Raises:
        ValueError: no prompts.
    """

    waiting = "Reading every site…"

    def __init__(self, lm, prompts: Sequence[str]):
        if isinstance(prompts, str) or not prompts:
            raise ValueError("The explorer needs a list of at least one prompt, such as ['The capital of Spain is'].")
        self._runs: dict[str, tuple[Tensor, list[list[tuple[str, float]]]]] = {}
        self.prompt, self.shade = prompts[0], SHADES[0]
        super().__init__(lm, {"prompt": the_same(prompts), "shade": the_same(SHADES)})

    def _first(self) -> int:
        return len(self.tokens) - 1

    @property
    def norms(self) -> Tensor:
        """The residual stream's norm (layer, position) after each block."""
        return self._run()[0].norm(dim=-1)

    @property
    def top(self) -> list[list[tuple[str, float]]]:
        """The lens's top token and its probability, as [layer][position]."""
        return self._run()[1]

    def top_tokens(self, k: int = 8) -> list[tuple[str, float]]:
        """The lens's k likeliest tokens at the chosen site, as `LanguageModel.top` gives them."""
        return self.lm.top_of(self.lm.unembed(self._run()[0][self.layer, self.position]), k)

    def _run(self) -> tuple[Tensor, list[list[tuple[str, float]]]]:
        if self.prompt not in self._runs:
            stream = record(self.lm, self.prompt, "block_output").stack("block_output")[:, 0]
            # A layer at a time: a vocabulary of logits for every site would fill the memory for nothing.
            top = [[self.lm.top_of(logits, 1)[0] for logits in self.lm.unembed(layer)] for layer in stream]
            self._runs[self.prompt] = stream, top
        return self._runs[self.prompt]

    def darkness(self, layer: int, position: int) -> float:
        """How dark a site is shaded, from 0 to 1: the probability, or the norm on a logarithmic scale."""
        if self.shade == SHADES[0]:
            return self.top[layer][position][1]
        logs = self.norms.clamp(min=1e-9).log()
        return float((logs[layer, position] - logs.min()) / (logs.max() - logs.min()).clamp(min=1e-9))

    def _heatmap(self) -> str:
        def cell(layer: int, position: int, token: str) -> tuple[str, str, float, str]:
            top, share = self.top[layer][position]
            said = f"layer {layer}, {token}: {top!r} {share:.1%}, norm {self.norms[layer, position]:.0f}"
            return said, "0,114,178", 0.75 * self.darkness(layer, position), code(shown_token(top))

        layers = range(self.lm.n_layers)[::-1]
        rows = [(f"{layer}", [cell(layer, i, token) for i, token in enumerate(self.tokens)]) for layer in layers]
        caption = (
            f"The logit lens on “{self.prompt}”: the top token that the final norm and the unembedding read off the residual "
            f"stream after each block. The darker, the larger the {self.shade}. The last layer is at the top."
        )
        foot = [code(shown_token(token)) for token in self.tokens]
        return heat_table(rows, (layers.index(self.layer), self.position), foot, caption)

    def _table(self) -> str:
        body = "".join(
            f'<span style="display:inline-block;padding-right:1.6em">{code(shown_token(token))} {share:.1%}</span>'
            for token, share in self.top_tokens()
        )
        where = html.escape(f"layer {self.layer}, token {self.position} ({self.tokens[self.position]!r})")
        norm = f"{self.norms[self.layer, self.position]:.0f}"
        said = f"<strong>At {where}</strong> the stream's norm is {norm}, and the lens reads:"
        return f"{site(self.layer, self.position, said)}<div>{body}</div>"

    def __repr__(self) -> str:
        at = f"layer {self.layer}, token {self.position} ({self.tokens[self.position]!r})"
        lens = ", ".join(f"{token!r} {share:.1%}" for token, share in self.top_tokens())
        last = ", ".join(f"{layer}: {row[-1][0]!r}" for layer, row in enumerate(self.top))
        return (
            f"The logit lens on {self.prompt!r}\nat {at}: norm {self.norms[self.layer, self.position]:.0f}, {lens}\n"
            f"top token at the last position, layer by layer: {last}"
        )


def shown_token(token: str) -> str:
    """A token on one line; a lone space is shown as one."""
    return "␣" * len(token) if token and not token.strip(" ") else token.replace("\n", "\\n")
