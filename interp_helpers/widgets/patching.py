"""The explorer of activation patching: choose a pair, a component and a site; see what the patch does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..edits import replace
from ..hooks import intervene, record
from ..metrics import kl_divergence, logit_diff, probability
from ..prompts import Pair
from ..sites import Site
from ..sweeps import Sweep, patch_sweep
from .explorer import SiteExplorer, the_same

COMPONENTS = {"residual stream": "block_output", "attention": "attention_output", "MLP": "mlp_output"}
METRICS: dict[str, Callable] = {
    "logit difference": lambda lm, pair, base: logit_diff(lm, pair.source_answer, pair.base_answer),
    "probability of the source's answer": lambda lm, pair, base: probability(lm, pair.source_answer),
    "KL from the base run": lambda lm, pair, base: kl_divergence(base),
}


class patching_explorer(SiteExplorer):
    """Choose a pair, a component, a metric and a site; see the heatmap, and the next tokens before and after the patch.

    >>> patching_explorer(lm, pairs("capital")[:2]).choose(layer=25, position=4)
    Sweep of block_output: 30 layers × 5 positions; share of the way from base to source; ...
    patched at layer 25, token 4:
    base: ' Havana' ...
    patched: ' Vienna' ...
    source: ' Vienna' ...

    Args:
        lm: a `LanguageModel`.
        pairs: what to choose from; base and source of each equally long.

    Attributes:
        pair, component, metric, layer, position: what is chosen; `choose` changes them.

    Raises:
        ValueError: no pairs.
    """

    def __init__(self, lm, pairs: Sequence[Pair]):
        if not pairs:
            raise ValueError("The explorer needs at least one pair of prompts, such as pairs('capital').")
        self._runs: dict[Pair, tuple] = {}
        self.pair, self.component, self.metric = pairs[0], "residual stream", "logit difference"
        choices = {
            "pair": {f"{pair.source} → {pair.base}": pair for pair in pairs},
            "component": the_same(COMPONENTS),
            "metric": the_same(METRICS),
        }
        super().__init__(lm, choices)

    @property
    def prompt(self) -> str:
        return self.pair.base

    @property
    def caption(self) -> str:
        return f"Patching the {self.component} from “{self.pair.source}” into “{self.pair.base}”"

    def compute(self) -> Sweep:
        metric = METRICS[self.metric](self.lm, self.pair, self._run()[1])
        sweep = patch_sweep(self.lm, self.pair.base, self.pair.source, metric, COMPONENTS[self.component])
        return sweep.normalized if self.metric == "logit difference" else sweep

    def top_tokens(self, k: int = 5) -> dict[str, list[tuple[str, float]]]:
        """The likeliest next tokens {"base": …, "patched": …, "source": …} for a patch at the chosen site."""
        acts, base, source = self._run()
        site = Site(COMPONENTS[self.component], self.layer, self.position)
        with intervene(self.lm, replace(site, acts)):
            patched = self.lm.next_token_logits(self.pair.base)
        return {name: self.lm.top_of(x[0], k) for name, x in (("base", base), ("patched", patched), ("source", source))}

    def _run(self) -> tuple:
        if self.pair not in self._runs:
            acts = record(self.lm, self.pair.source, *COMPONENTS.values())
            self._runs[self.pair] = acts, self.lm.next_token_logits(self.pair.base), acts.next_token_logits
        return self._runs[self.pair]
