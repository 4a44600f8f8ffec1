"""The explorer of causal tracing: choose a fact, what is restored and how much noise; see what comes back."""

from __future__ import annotations

from collections.abc import Sequence

from ..edits import add, replace
from ..engine import window_of
from ..hooks import intervene, record
from ..prompts import Fact
from ..sites import Site
from ..sweeps import Sweep, causal_trace, draws
from .explorer import SiteExplorer, the_same

COMPONENTS = {"residual stream": "block_output", "MLP": "mlp_output", "attention": "attention_output"}
SAMPLES = 3


class tracing_explorer(SiteExplorer):
    """Choose a fact, a component, a window, a noise level and a site; see the indirect effects, and the next tokens of the
    clean, the corrupted and the restored run.

    >>> tracing_explorer(lm, facts("capital")[:2]).choose(layer=10)
    Trace of block_output: 30 layers × 5 positions; indirect effect on the probability of Damascus; ...
    restored at layer 10, token 3:
    clean: ' Damascus' ...
    corrupted: ' ' ...
    restored: ' Damascus' ...

    Args:
        lm: a `LanguageModel`.
        facts: what to choose from.

    Attributes:
        fact, component, window, noise (in units of the embeddings' standard deviation), layer, position: what is chosen;
            `choose` changes them.

    Raises:
        ValueError: no facts.
    """

    acted = "Restored"
    waiting = "Restoring every site of the new choice…"

    def __init__(self, lm, facts: Sequence[Fact]):
        if not facts:
            raise ValueError("The explorer needs at least one fact, such as facts('capital').")
        self.fact, self.component, self.window, self.noise = facts[0], "residual stream", 1, 3.0
        choices = {
            "fact": {f"{fact.prompt} →{fact.answer}": fact for fact in facts},
            "component": the_same(COMPONENTS),
            "window": the_same([1, 3, 5, 10]),
            "noise": {f"{level} σ": level for level in (0.5, 1.0, 3.0, 10.0)},
        }
        super().__init__(lm, choices)

    @property
    def prompt(self) -> str:
        return self.fact.prompt

    @property
    def caption(self) -> str:
        layers = "one layer" if self.window == 1 else f"{self.window} layers"
        return (
            f"Restoring the {self.component} of {layers} in “{self.prompt}”, its subject under {self.noise} σ of noise"
        )

    def compute(self) -> Sweep:
        return causal_trace(
            self.lm, self.prompt, self.fact.subject, self.fact.answer, COMPONENTS[self.component],
            window=self.window, noise=self.noise, samples=SAMPLES,
        ).indirect_effect  # fmt: skip

    def top_tokens(self, k: int = 5) -> dict[str, list[tuple[str, float]]]:
        """The likeliest next tokens {"clean": …, "corrupted": …, "restored": …}; of the first draw of noise."""
        lm, component = self.lm, COMPONENTS[self.component]
        clean, span = record(lm, self.prompt, component), lm.find(self.prompt, self.fact.subject)
        corruption = add(Site("block_input", 0, span), draws(lm, len(span), self.noise, SAMPLES, seed=0)[:1])
        layers = window_of(self.layer, self.window, lm.n_layers)
        restoration = [replace(Site(component, layer, self.position), clean) for layer in layers]
        with intervene(lm, corruption):
            corrupted = lm.next_token_logits(self.prompt)
        with intervene(lm, corruption, *restoration):
            restored = lm.next_token_logits(self.prompt)
        runs = {"clean": clean.next_token_logits, "corrupted": corrupted, "restored": restored}
        return {name: lm.top_of(logits[0], k) for name, logits in runs.items()}
