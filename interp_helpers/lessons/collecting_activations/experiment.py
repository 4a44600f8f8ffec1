"""What an outcome of notebook 05 is called, decided by what the run found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ...plotting import curves
from ...sweeps import Erasure, Sweep

# Countries of the statements; Russia by its capital.
EUROPE = "Austria Belgium Czech Denmark England Finland France Germany Hungary Ireland Italy Norway Poland Portugal Russia Scotland Spain Switzerland".split()
USED = ["at all of them almost nothing", "at all of them almost everything", "it depends on the layer"]


def words(top: Sequence[tuple[str, float]]) -> str:
    """`lm.top`'s tokens as a line: "' Paris' 66%, ' the' 5%"."""
    return ", ".join(f"{token!r} {p:.0%}" for token, p in top)


@dataclass(frozen=True)
class Lens:
    """The answer's rank in the lens (layer, fact), beside what a patch of the same stream moves: the mean `Sweep` over layers."""

    ranks: Tensor
    moved: Sweep

    @property
    def arrived(self) -> int:
        """The first layer whose patch moves the answer at least half of the way; the last one if none does."""
        shares = self.moved.values[:, 0].tolist()
        return next((layer for layer, share in enumerate(shares) if share >= 0.5), len(shares) - 1)

    @property
    def seen(self) -> float:
        """In what share of the facts the lens has the answer in its top ten there."""
        return float((self.ranks[self.arrived] <= 10).double().mean())

    @property
    def known(self) -> float:
        """For what share of the facts the answer is on top at the last layer."""
        return float((self.ranks[-1] == 1).double().mean())

    @property
    def said(self) -> str:
        medians = "; ".join(f"{row.median():,.0f}" for row in self.ranks[self.arrived :])
        return f"The answer's median rank in the lens, from layer {self.arrived} to the last: {medians}."

    def figure(self):
        """Shares by layer: of the way that a patch moves, and of the facts whose answer the lens has."""
        name, error, share = "patched in: share of the way", self.moved.error, self.moved.values[:, 0]
        ten, top = ((self.ranks <= k).double().mean(1) for k in (10, 1))
        return curves(
            range(len(share)),
            {name: share, "lens: answer in the top 10": ten, "lens: answer on top": top},
            errors=None if error is None else {name: error[:, 0]},
            title=f"At layer {self.arrived} the stream moves {share[self.arrived]:.0%} of the answer; the lens has it in its top ten "
            f"in {self.seen:.0%} of the facts",
            xlabel="layer whose output is read or patched (counted from 0), last token",
            ylabel=f"share (band: standard error, {self.ranks.shape[1]} facts)",
        )


def said_of_negation(plain: float, negated: float) -> str:
    """What it means that a probe is right about these shares of plain and of negated statements."""
    if plain < 0.75:
        return "On this model the probe hardly reads plain statements, so negated ones tell nothing about it."
    if negated > 0.65:
        return "On this model the probe reads the truth of negated statements as well."
    if negated > 0.35:
        return "That is near guessing: on this model the probe says nothing about negated statements."
    return "Guessing would be right about one half. The probe lies far below it: it answers as if “not” weren't there."


def came_of(erased: Erasure) -> str:
    """The choice of the prediction that came out."""
    shares = [erased.left[i][0] for i in erased.sure]
    little, much = any(share < 0.5 for share in shares), any(share > 0.75 for share in shares)
    found = USED[2 if little == much else 0 if little else 1]
    return found if shares else "neither: truth is not read, or there is no gap"
