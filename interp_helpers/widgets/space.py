"""Activation space, seen: what the model computes for texts, as points in a plane, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..plotting import Picture, clouds
from ..sites import Site
from ..steering import SteeringVector, pooled
from .explorer import LOOK, Explorer


class space_explorer(Explorer):
    """See texts as the points that the model makes of them, in the plane in which they differ most at the chosen layer; each
    vector is an arrow at its own layer.

    >>> texts = {"cats": ["My cat sleeps.", "A cat purrs."], "cars": ["My car is red.", "A car stops."]}
    >>> space_explorer(lm, texts).choose(layer=20, sentence="The kitten plays.")
    Layer 20: 100% of the texts lie nearest to their own group's middle. ...

    A text is the mean of its residual stream over all its tokens but the first. The plane is found from the texts alone,
    without knowing their groups. An arrow is what a vector adds at its strength (.3 where it has none): as much of it as lies
    in the plane.

    Args:
        lm: the model.
        groups: {name: texts}.
        vectors: {name: vector}, drawn at their own layer, from the middle of the group `start`, by default the last one.

    Attributes:
        layer: whose output is shown; at first the first vector's, or the middle one.
        sentence: the reader's own text, shown as a star; "" for none. Both are changed by `choose`.

    Raises:
        ValueError: fewer than two groups, a group of fewer than two texts, or an unknown `start`.
    """

    sliders = {"layer": "layer"}
    waiting = "Drawing…"

    def __init__(
        self,
        lm,
        groups: Mapping[str, Sequence[str]],
        vectors: Mapping[str, SteeringVector] | None = None,
        *,
        start: str | None = None,
    ):
        if len(groups) < 2 or any(isinstance(texts, str) or len(texts) < 2 for texts in groups.values()):
            raise ValueError("The explorer needs two groups or more, {name: texts}, of two texts or more each.")
        start = next(reversed(groups)) if start is None else start
        if start not in groups:
            raise ValueError(f"Arrows start at a group, and start={start!r} is none: {', '.join(groups)}.")
        super().__init__({})
        self.lm, self.vectors, self.start = lm, dict(vectors or {}), start
        self.sites = [Site("block_output", i) for i in range(lm.n_layers)]
        self.acts = {name: torch.stack(pooled(lm, texts, self.sites, "mean")) for name, texts in groups.items()}
        self.layer = next((vector.layer for vector in self.vectors.values()), lm.n_layers // 2)
        self.sentence = ""

    def sizes(self) -> tuple[int]:
        return (self.lm.n_layers,)

    def choose(self, *, sentence: str | None = None, **changes) -> space_explorer:
        """Change what is shown; see `Explorer.choose`.

        Raises:
            ValueError: a sentence of a single token, too.
        """
        if sentence:
            self._own = torch.stack(pooled(self.lm, [sentence], self.sites, "mean"))[:, 0]
        super().choose(**changes)
        self.sentence = self.sentence if sentence is None else sentence
        return self

    def plane(self) -> tuple[Tensor, Tensor]:
        """The texts' mean (d,) at the chosen layer, and the two directions (2, d) in which the texts differ most (PCA), turned
        so that the first group lies to the right and up."""
        groups = [acts[self.layer] for acts in self.acts.values()]
        centre = torch.cat(groups).mean(0)
        axes = torch.linalg.svd(torch.cat(groups) - centre, full_matrices=False).Vh[:2]
        left_or_down = (groups[0].mean(0) - centre) @ axes.mT < 0
        return centre, torch.where(left_or_down[:, None], -axes, axes)

    def points(self) -> dict[str, Tensor]:
        """Where each group's texts lie in the plane, {name: (text, 2)}."""
        centre, axes = self.plane()
        return {name: (acts[self.layer] - centre) @ axes.mT for name, acts in self.acts.items()}

    def shares(self) -> dict[str, float]:
        """How much of each vector's length is seen in the plane, 0 to 1."""
        _, axes = self.plane()
        return {name: float((axes @ v.direction).norm() / v.direction.norm()) for name, v in self.vectors.items()}

    def drawn(self) -> float:
        """How much of all the differences between the texts (their variance) is seen in the plane, 0 to 1."""
        centre, axes = self.plane()
        apart = torch.cat([acts[self.layer] for acts in self.acts.values()]) - centre
        return float((apart @ axes.mT).square().sum() / apart.square().sum())

    def nearest(self) -> float:
        """The share of texts that lie nearer to their own group's middle, in the plane, than to any other's."""
        points = self.points()
        middles = torch.stack([group.mean(0) for group in points.values()])
        right = [torch.cdist(group, middles).argmin(1) == i for i, group in enumerate(points.values())]
        return torch.cat(right).float().mean().item()

    @property
    def picture(self) -> Picture:
        centre, axes = self.plane()
        points = self.points()
        origin = points[self.start].mean(0)
        arrows = {}
        for name, vector in self.vectors.items():
            if vector.layer == self.layer:
                step = (0.3 if vector.strength is None else vector.strength) * vector.scale * (axes @ vector.direction)
                arrows[name] = (tuple(origin.tolist()), tuple((origin + step).tolist()))
        marks = {}
        if self.sentence:
            marks["your sentence"] = tuple(((self._own[self.layer] - centre) @ axes.mT).tolist())
        return clouds(
            {name: [tuple(point) for point in group.tolist()] for name, group in points.items()},
            arrows=arrows,
            marks=marks,
            title=f"Layer {self.layer}: {self.nearest():.0%} of the texts lie nearest to their own group's middle",
            xlabel="along the direction in which the texts differ most",
            ylabel="along the second one",
        )

    @property
    def html(self) -> str:
        return f'<div class="glassbox-space">{self.picture._repr_mimebundle_()[0]["text/html"]}</div>'

    def _controls(self) -> dict:
        import ipywidgets as w

        asked = "a sentence of your own, then Enter"
        sentence = w.Text(
            value=self.sentence, placeholder=asked, description="sentence", continuous_update=False, **LOOK
        )
        return {**super()._controls(), "sentence": sentence}

    def __repr__(self) -> str:
        return self.picture.alt
