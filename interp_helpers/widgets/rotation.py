"""The explorer of a swap: turn a line or a plane in a space of three units; see what the base gets from the source."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import proj3d
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from torch import Tensor

from ..das import RotatedSubspace
from ..plotting import COLOURS, STYLE, Picture, html_table
from .explorer import Explorer

BASE, SOURCE = (1.8, -0.4, 0.4), (-0.6, 1.0, 1.8)
NAMES = {1: "line", 2: "plane"}
HUES = dict(zip(("base", "source", "result"), COLOURS, strict=False))


class rotation_explorer(Explorer):
    """Turn a line or a plane in a space of three units; see what the base gets when its content there is exchanged for the
    source's, base + (source − base) Q Qᵀ (Geiger et al. 2023).

    >>> rotation_explorer()
    Within the line the result equals the source, across it the base. The line is turned to azimuth 60°, elevation 60°. ...

    Attributes:
        rank: 1 (a line) or 2 (a plane).
        source: the vector that the base gets something from, three numbers: `SOURCE`, or the base.
        azimuth, elevation: of the line, in degrees; the line points to (cos e cos a, cos e sin a, sin e). The plane
            holds that line and the horizontal one at right angles to it.
        view: where one looks from, an azimuth in degrees.
    """

    sliders = {"azimuth": "azimuth °", "elevation": "elevation °", "view": "view from °"}
    waiting = "Drawing…"

    def __init__(self):
        sources = {_said(SOURCE): SOURCE, "equal to the base": BASE}
        super().__init__({"rank": {f"{rank}, a {name}": rank for rank, name in NAMES.items()}, "source": sources})
        self.source = SOURCE
        self.rank, self.azimuth, self.elevation, self.view = 1, 60, 60, 45

    def sizes(self) -> tuple[int, int, int]:
        return 361, 91, 361

    @property
    def subspace(self) -> RotatedSubspace:
        """What is exchanged, d = 3; the first column of its basis is the line's direction."""
        a, e = torch.tensor([float(self.azimuth), float(self.elevation)], dtype=torch.float64).deg2rad()
        line = torch.stack([e.cos() * a.cos(), e.cos() * a.sin(), e.sin()])
        across = torch.stack([-a.sin(), a.cos(), torch.zeros_like(a)])
        return RotatedSubspace(3, self.rank, start=torch.stack([line, across][: self.rank], dim=1))

    def vectors(self) -> dict[str, Tensor]:
        """The arrows of the drawing, {"base": (3,), "source": (3,), "result": (3,)}."""
        base, source = torch.tensor([BASE, self.source])
        with torch.no_grad():
            return {"base": base, "source": source, "result": self.subspace.swap(base, source)}

    def parts(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Of each vector, the parts (3,) within the subspace and across it, which add up to the vector."""
        none = torch.zeros(3)
        with torch.no_grad():
            swap = self.subspace.swap
            return {name: (swap(none, vector), swap(vector, none)) for name, vector in self.vectors().items()}

    @property
    def title(self) -> str:
        """What is true of the chosen swap, in a sentence."""
        (moved, left, apart), name = self._distances(), NAMES[self.rank]
        if not apart:
            return "The source equals the base: the swap changes nothing"
        if moved < 0.05 * apart:
            return f"Base and source differ across the {name}: the result is nearly the base"
        if left < 0.05 * apart:
            return f"Base and source differ along the {name}: the result is nearly the source"
        return f"Within the {name} the result equals the source, across it the base"

    @property
    def caption(self) -> str:
        """How far the swap goes, in a sentence."""
        moved, left, apart = self._distances()
        where = f"The {NAMES[self.rank]} is turned to azimuth {self.azimuth}°, elevation {self.elevation}°."
        return f"{where} The result is {moved:.2f} from the base and {left:.2f} from the source; these are {apart:.2f} apart."

    def _distances(self) -> tuple[float, float, float]:
        """From base to result, from result to source, from base to source."""
        v = self.vectors()
        ends = ("base", "result"), ("result", "source"), ("base", "source")
        return tuple(float((v[one] - v[other]).norm()) for one, other in ends)

    def _rows(self) -> list[tuple[str, str, str, str]]:
        """The numbers: each vector's name, its part within the subspace, its part across it, and the vector."""
        vectors = self.vectors()
        return [(name, *map(_said, parts), _said(vectors[name])) for name, parts in self.parts().items()]

    @property
    def picture(self) -> Picture:
        """The drawing; its text alternative says the title, the caption and the numbers."""
        rows = "; ".join(
            f"{name} {whole}, {within} within and {across} across" for name, within, across, whole in self._rows()
        )
        return Picture(self._draw(), f"{self.title}. {self.caption} Parts: {rows}.")

    @property
    def html(self) -> str:
        head = ["", f"within the {NAMES[self.rank]} (dot)", "across it (dashed)", "together (arrow)"]
        image = self.picture._repr_mimebundle_()[0]["text/html"]
        return f'<div class="glassbox-rotation" style="line-height:1.5">{image}{html_table(head, self._rows(), self.caption)}</div>'

    def __repr__(self) -> str:
        return self.picture.alt

    def _draw(self) -> Figure:
        v, parts, basis = self.vectors(), self.parts(), self.subspace.basis.detach()
        # A part is no longer than its vector; the result lies on the sphere that has base and source at its ends (Thales).
        middle, radius = (v["base"] + v["source"]) / 2, (v["base"] - v["source"]).norm() / 2
        reach = float(torch.stack([v["base"].norm(), v["source"].norm(), middle.abs().max() + radius]).max()) or 1.0
        with rc_context({**STYLE, "grid.color": "0.88", "xtick.labelsize": "small", "ytick.labelsize": "small"}):
            figure = Figure(figsize=(8.4, 6))
            figure.suptitle(self.title, x=0.01, ha="left", fontsize="large", fontweight="bold")
            axes = figure.add_axes((0.02, 0.05, 0.96, 0.88), projection="3d", computed_zorder=False)
            axes.set_box_aspect((1, 1, 1), zoom=1.1)
            axes.view_init(elev=18, azim=self.view)
            limits = (-reach, reach)
            axes.set(xlim=limits, ylim=limits, zlim=limits, xlabel="unit 1", ylabel="unit 2", zlabel="unit 3")
            for axis in "xyz":
                axes.locator_params(axis, nbins=4)
            turn = torch.linspace(0, 2 * torch.pi, 73)
            edge = reach * torch.stack([turn.cos(), turn.sin()], 1)[:, : self.rank] @ basis.mT  # or the line itself
            if self.rank == 1:
                axes.plot(*edge.mT.numpy(), color=COLOURS[3], linewidth=5, alpha=0.6)
            else:
                axes.add_collection3d(Poly3DCollection([edge.numpy()], color=COLOURS[3], alpha=0.25))
            drawn = [edge, _segment(axes, v["base"], v["result"], color="0.4", linestyle=":")]
            for name, size in (("base", 40), ("source", 90), ("result", 25)):
                foot = parts[name][0]
                drawn.append(_segment(axes, foot, v[name], color=HUES[name], linestyle="--"))
                drawn.append(_arrow(axes, v[name], HUES[name]))
                axes.scatter(*foot, color=HUES[name], s=size, zorder=3, depthshade=False)
            tips = {f"{name} {letter}": v[name] for name, letter in zip(HUES, "bsh", strict=True)}
            _label(axes, {**tips, NAMES[self.rank]: edge[36]}, torch.cat(drawn))
        return figure


def _segment(axes, start: Tensor, end: Tensor, **style) -> Tensor:
    """Draw a line; return points on it, (n, 3)."""
    points = torch.lerp(start, end, torch.linspace(0, 1, 40)[:, None])
    axes.plot(*points.mT.numpy(), linewidth=1.6, **style)
    return points


def _arrow(axes, tip: Tensor, colour: str) -> Tensor:
    """Draw an arrow from the origin; return points on it, (n, 3). Its head lies in the paper, to be seen from every side."""
    points = torch.linspace(0, 1, 40)[:, None] * tip
    start, *_, end = _on_paper(axes, points)
    head = dict(arrowstyle="-|>", color=colour, linewidth=2.5, mutation_scale=16, shrinkA=0, shrinkB=0)
    axes.annotate("", end, start, arrowprops=head)
    return points


def _label(axes, labels: dict[str, Tensor], drawn: Tensor) -> None:
    """Write {label: tip (3,)} beside the tips, where no label and the least of the `drawn` points (n, 3) is in the way."""
    axes.apply_aspect()  # from here on, the paper's place is known
    points, taken = axes.transData.transform(_on_paper(axes, drawn)), []
    for (label, tip), colour in zip(labels.items(), (*HUES.values(), "0.25"), strict=True):
        tried = []
        for right, up in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 2), (0, -2)):
            text = axes.annotate(
                label, _on_paper(axes, tip[None])[0], xytext=(9 * right, 13 * up), textcoords="offset points",
                ha=("center", "left", "right")[right], va="center", color=colour, fontweight="bold",
            )  # fmt: skip
            box = text.get_window_extent()
            in_the_way = sum(map(box.overlaps, taken)), ((points > box.min) & (points < box.max)).all(1).sum()
            tried.append((in_the_way, len(tried), text, box))
        _, best, _, box = min(tried, key=lambda one: one[:2])
        taken.append(box)
        for _, i, text, _ in tried:
            if i != best:
                text.remove()


def _on_paper(axes, points: Tensor) -> np.ndarray:
    """Where points (n, 3) are drawn, (n, 2), in the coordinates of `axes.annotate`."""
    return np.stack(proj3d.proj_transform(*points.mT.numpy(), axes.get_proj())[:2], axis=1)


def _said(vector: Sequence[float] | Tensor) -> str:
    """A vector's numbers with two decimals, without a minus zero."""
    return "(" + ", ".join(f"{round(float(x), 2) + 0.0:.2f}" for x in vector) + ")"
