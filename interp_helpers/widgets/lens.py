"""The explorer of the residual stream: what the logit lens reads at every layer and token, and how long the vectors are."""

from __future__ import annotations

import html
from collections.abc import Sequence

from torch import Tensor

from ..hooks import record
from .explorer import SiteExplorer, the_same

SHADES = ("probability of the top token", "norm of the residual stream")


class LensExplorer(SiteExplorer):
    """What `lens_explorer` shows: for one prompt, the lens's top token at each layer and position, and a chosen site.

    Attributes:
        prompt, shade, layer, position: what is chosen; `choose` changes them.
    """

    waiting = "Reading every site…"

    def __init__(self, lm, prompts: Sequence[str], *, layer: int | None = None, position: int = -1):
        if isinstance(prompts, str) or not prompts:
            raise ValueError("The explorer needs a list of at least one prompt, such as ['The capital of Spain is'].")
        self._runs: dict[str, tuple[Tensor, list[list[tuple[str, float]]]]] = {}
        self.prompt, self.shade = prompts[0], SHADES[0]
        super().__init__(lm, {"prompt": the_same(prompts), "shade": the_same(SHADES)}, layer, position)

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

    # -- how it looks -------------------------------------------------------------------------------------------------

    def _strength(self, layer: int, position: int) -> float:
        """How dark a site is shaded, from 0 to 1: the probability, or the norm on a logarithmic scale."""
        if self.shade == SHADES[0]:
            return self.top[layer][position][1]
        logs = self.norms.clamp(min=1e-9).log()
        return float((logs[layer, position] - logs.min()) / (logs.max() - logs.min()).clamp(min=1e-9))

    def _heatmap(self) -> str:
        norms, rows = self.norms, ""
        for layer in reversed(range(self.lm.n_layers)):
            cells = ""
            for position, token in enumerate(self.tokens):
                top, share = self.top[layer][position]
                said = f"layer {layer}, {token}: {top!r} {share:.1%}, norm {norms[layer, position]:.0f}"
                chosen = (layer, position) == (self.layer, self.position)
                strength = 0.75 * self._strength(layer, position)
                cells += (
                    f'<td title="{html.escape(said)}" style="padding:0 .35em;text-align:left;white-space:pre;max-width:7em;'
                    f"overflow:hidden;background:rgba(0,114,178,{strength:.2f});"
                    f'outline:{"3px solid #E69F00" if chosen else "1px solid rgba(128,128,128,.18)"};outline-offset:-1px">'
                    f'<code style="background:transparent;color:inherit">{html.escape(_shown(top))}</code></td>'
                )
            rows += (
                f'<tr style="background:transparent"><th scope="row" style="text-align:right;padding:0 .6em 0 0;'
                f'font-weight:normal">{layer}</th>{cells}</tr>'
            )
        foot = "".join(
            f'<th scope="col" style="text-align:left;padding:.2em .35em;white-space:pre"><code>{html.escape(_shown(t))}</code></th>'
            for t in self.tokens
        )
        caption = (
            f"The logit lens on “{self.prompt}”: the top token that the final norm and the unembedding read off the residual "
            f"stream after each block. The darker, the larger the {self.shade}. The last layer is at the top."
        )
        return (
            f'<table aria-label="{html.escape(caption)}" style="border-collapse:collapse;color:inherit;font-size:.85em">'
            f'<caption style="caption-side:top;text-align:left;color:inherit;padding-bottom:.4em">{html.escape(caption)}</caption>'
            f'{rows}<tr style="background:transparent"><th scope="row" style="text-align:right;padding-right:.6em;'
            f'font-weight:normal">layer</th>{foot}</tr></table>'
        )

    def _table(self) -> str:
        body = "".join(
            f'<span style="display:inline-block;padding-right:1.6em;white-space:pre"><code>{html.escape(_shown(token))}</code> '
            f"{share:.1%}</span>"
            for token, share in self.top_tokens()
        )
        where = f"layer {self.layer}, token {self.position} ({self.tokens[self.position]!r})"
        return (
            f'<div class="glassbox-site" data-layer="{self.layer}" data-position="{self.position}" style="margin:.8em 0 .3em">'
            f"<strong>At {html.escape(where)}</strong> the stream's norm is {self.norms[self.layer, self.position]:.0f}, and "
            f"the lens reads:</div><div>{body}</div>"
        )

    def __repr__(self) -> str:
        at = f"layer {self.layer}, token {self.position} ({self.tokens[self.position]!r})"
        lens = ", ".join(f"{token!r} {share:.1%}" for token, share in self.top_tokens())
        last = ", ".join(f"{layer}: {row[-1][0]!r}" for layer, row in enumerate(self.top))
        return (
            f"The logit lens on {self.prompt!r}\nat {at}: norm {self.norms[self.layer, self.position]:.0f}, {lens}\n"
            f"top token at the last position, layer by layer: {last}"
        )


def _shown(token: str) -> str:
    """A token on one line; a lone space is shown as one."""
    return "␣" * len(token) if token and not token.strip(" ") else token.replace("\n", "\\n")


def lens_explorer(lm, prompts: Sequence[str], *, layer: int | None = None, position: int = -1) -> LensExplorer:
    """Choose a prompt and a site; see what the logit lens (nostalgebraist 2020) reads at every layer and token, and the
    norms of the residual stream.

    >>> lens_explorer(lm, ["The capital of Spain is"]).choose(layer=29)
    The logit lens on 'The capital of Spain is'
    at layer 29, token 4 (' is'): norm ..., ' Madrid' ...
    top token at the last position, layer by layer: 0: ..., 28: ' capital', 29: ' Madrid'

    Args:
        lm: a `LanguageModel`.
        prompts: what to choose from.
        layer, position: the site chosen at first (default: the middle layer, the last token).

    Raises:
        ValueError: no prompts.
    """
    return LensExplorer(lm, prompts, layer=layer, position=position)
