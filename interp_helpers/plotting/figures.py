"""One house style for the course's figures: heatmaps of sweeps, curves with error bands, bars, points.

A figure's title is its finding, its axes are named, tokens stand on the axis, colours are safe for the colour-blind,
and every figure carries a text alternative. Each function returns a `Picture`, which a notebook shows when it is the
last line of a cell.
"""

from __future__ import annotations

import base64
import html
import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

# Okabe & Ito's colours, in an order that also differs in lightness; with a marker and a dash each, for print in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
DIVERGING = "RdBu_r"
STYLE = {
    "font.size": 11,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "text.parse_math": False,  # a token may be '$'
}
LEGEND = dict(loc="upper left", bbox_to_anchor=(1.0, 1.0))
_OUTLINE = withStroke(linewidth=3, foreground="white")  # a word over points can be read
_PIXELS_PER_INCH = 100  # as shown; twice as many are drawn, so that a projector stays sharp


class Picture:
    """A finished figure with its text alternative (`alt`), which notebooks, web pages and screen readers use.

    >>> picture = bars({"put in": 0.9, "averaged away": 0.1}, title="Sufficient, hardly needed", ylabel="share of the way")
    >>> picture
    Sufficient, hardly needed share of the way: put in 0.90, averaged away 0.10.
    >>> picture.save("figure.png")
    """

    def __init__(self, figure: Figure, alt: str):
        self.figure, self.alt = figure, alt

    def png(self) -> bytes:
        """The figure as a PNG file's bytes."""
        self.save(out := io.BytesIO())
        return out.getvalue()

    def save(self, path) -> None:
        """Write the figure to a file; the format follows the name's ending (png, svg, pdf)."""
        with rc_context(STYLE):
            self.figure.savefig(path, dpi=2 * _PIXELS_PER_INCH)

    def _repr_mimebundle_(self, include=None, exclude=None):
        width, height = (round(inches * _PIXELS_PER_INCH) for inches in self.figure.get_size_inches())
        about, png = {"alt": self.alt, "width": width, "height": height}, self.png()
        # JupyterLab takes no `alt` from an image's metadata, and prefers HTML, which can say it.
        said = " ".join(f'{name}="{html.escape(str(value))}"' for name, value in about.items())
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        page = f'<img {said} style="max-width:100%;height:auto" src="{source}">'
        return {"text/html": page, "image/png": png, "text/plain": self.alt}, {"image/png": about}

    def __repr__(self) -> str:
        return self.alt


def heatmap(sweep, *, title: str | None = None, alt: str | None = None) -> Picture:
    """A two-axis `Sweep` as a heatmap: layers from left to right, tokens (or heads) from top to bottom.

    >>> sweep = patch_sweep(lm, base, source, logit_diff(lm, " Paris", " Rome"), layers=[10, 25], normalize=True)
    >>> heatmap(sweep, title="From the landmark to the last token")
    From the landmark to the last token Sweep of block_output: 2 layers × 9 positions; ... layer 10, position 2 osse. ...

    Colours diverge from white at zero: red where the metric is positive, blue where it is negative; clearly negative cells
    carry a minus, for print in grey. Marks on the colour bar show the two unpatched runs.

    Args:
        sweep: with axes ("layer", …); average a batch of pairs first (`sweep.mean()`).
        title: the finding, in a sentence.
        alt: the text alternative; by default it names the axes, the range and the strongest cell.

    Raises:
        ValueError: the sweep has another number of axes.
    """
    picture = heatmaps({"": sweep}, title=title or f"Patching {sweep.component}")
    return Picture(picture.figure, alt or picture.alt)


def heatmaps(sweeps: Mapping, *, title: str) -> Picture:
    """Several sweeps {name: sweep}, one below the other, on one colour scale; see `heatmap`.

    >>> how = dict(layers=[23, 25], positions=[-1], normalize=True)
    >>> metric = logit_diff(lm, " Paris", " Rome")
    >>> parts = {name: patch_sweep(lm, base, source, metric, f"{name}_output", **how) for name in ("attention", "mlp")}
    >>> heatmaps(parts, title="Who writes it")
    Who writes it attention: Sweep of attention_output: ... at layer 23, position -1. mlp: Sweep of mlp_output: ...

    Raises:
        ValueError: no sweeps, or one that has not two axes.
    """
    if not sweeps:
        raise ValueError("There is no sweep to draw: give {name: sweep}, one at least.")
    for sweep in sweeps.values():
        if len(sweep.axes) != 2:
            first = sweep.axes[0]
            hint = "average the pairs with sweep.mean()" if first == "pair" else f"sweep one {first} at a time"
            raise ValueError(f"A heatmap has two axes and this sweep has {sweep.axes}: {hint}.")
    ends = [tuple(zip(s.ends, (float(s.base), float(s.source)), strict=True)) for s in sweeps.values()]
    marked = dict(ends[0]) if len(set(ends)) == 1 else {}  # marked where they are the same for all
    values = [sweep.values.float().numpy() for sweep in sweeps.values()]
    limit = max(*(np.abs(v).max() for v in values), *(abs(v) for pair in ends for _, v in pair)) or 1.0
    least, row = (1.6, 0.32) if len(sweeps) == 1 else (1.3, 0.27)  # inches; two fit a slide in print that can be read
    heights = [least + row * max(0, len(s.labels[s.axes[1]]) - 5) for s in sweeps.values()]
    with rc_context(STYLE):
        figure = Figure(figsize=(8.4, 1.1 + sum(heights) + 0.4 * len(heights)), layout="constrained")
        panels = figure.subplots(len(sweeps), squeeze=False, height_ratios=heights)[:, 0]
        for axes, (name, sweep) in zip(panels, sweeps.items(), strict=True):
            image = _draw(axes, sweep, limit)
            small = {"fontsize": "medium", "fontweight": "normal"} if name else {"wrap": True}
            axes.set_title(name or title, **small)
        panels[-1].set_xlabel("layer (counted from 0)" if sweep.axes[0] == "layer" else sweep.axes[0])
        if len(sweeps) > 1:
            figure.suptitle(title, x=0.01, ha="left", fontsize="large", fontweight="bold", wrap=True)
        bar = figure.colorbar(image, ax=list(panels), pad=0.02, fraction=0.05, aspect=12 * len(sweeps))
        bar.set_label(textwrap.fill(sweep.metric, 26 * len(sweeps)))
        bar.outline.set_visible(False)
        for value in marked.values():
            bar.ax.axhline(value, color="black", linewidth=1.5)
        far = [t for t in bar.get_ticks() if abs(t) <= limit and all(abs(t - v) > limit / 10 for v in marked.values())]
        names = [f"{value:.2g} {name}" for name, value in marked.items()]
        bar.set_ticks([*far, *marked.values()], labels=[*(f"{t:.2g}".replace("-", "−") for t in far), *names])
    told = " ".join(f"{name + ': ' if name else ''}{sweep!r}." for name, sweep in sweeps.items())
    return Picture(figure, f"{title} {told} Layers run from left to right, {sweep.axes[1]}s down.")


def _draw(axes, sweep, limit: float):
    across, down = sweep.axes
    columns, rows = sweep.labels[across], sweep.labels[down]
    values = sweep.values.float().numpy().T
    image = axes.imshow(values, aspect="auto", cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest")
    for row, column in np.argwhere(values < -limit / 4):  # in grey, blue would be red
        dark = values[row, column] < -0.6 * limit
        axes.text(column, row, "−", ha="center", va="center", color="white" if dark else "black", fontsize="small")
    step = math.ceil(len(columns) / 16)
    axes.set_xticks(range(0, len(columns), step), _lines(columns[::step]))
    axes.set_yticks(range(len(rows)), _lines(rows))
    axes.set_ylabel("token" if down in ("position", "role") else down)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def curves(
    x: Sequence[float] | Mapping[str, Sequence[float]],
    lines: Mapping[str, Sequence[float]],
    *,
    errors: Mapping[str, Sequence[float]] | None = None,
    title: str,
    xlabel: str,
    ylabel: str,
    references: Mapping[str, float] | None = None,
    limits: Mapping[str, float] | None = None,
    beside: Mapping[str, Sequence[str]] | None = None,
    log: bool = False,
) -> Picture:
    """Named curves over x, each with an error band if it has one (say in `ylabel` what the band is).

    >>> curves([0, 10, 20], {"subject": [1.0, 0.9, 0.1], "last token": [0.0, 0.1, 0.9]},
    ...        title="It moves", xlabel="layer", ylabel="share of the way")
    It moves share of the way against layer: subject from 1.00 to 0.10, highest 1.00 at 0; last token from 0.00 to 0.90, highest 0.90 at 20.

    Args:
        x: the points along x, shared or {name: points}.
        lines: {name: values}.
        errors: {name: half the band's width}.
        title, xlabel, ylabel: the finding, and what the axes are.
        references: {name: value} for dotted horizontal lines.
        limits: {name: x} for dotted upright lines.
        beside: {curve's name: a word for each of its points}.
        log: y on a logarithmic scale.
    """
    xs = x if isinstance(x, Mapping) else dict.fromkeys(lines, x)
    with _canvas(title, 3.5 + 0.3 * len(_fill(title, 7.0, "axes.titlesize").split("\n"))) as axes:
        for i, (name, values) in enumerate(lines.items()):
            k = i % len(COLOURS)
            values = np.asarray(values, dtype=float)
            look = dict(color=COLOURS[k], marker=MARKERS[k], linestyle=DASHES[k], markersize=5, linewidth=2)
            axes.plot(xs[name], values, label=name, **look)
            if errors and errors.get(name) is not None:
                half = np.asarray(errors[name], dtype=float)
                axes.fill_between(xs[name], values - half, values + half, color=COLOURS[k], alpha=0.18, linewidth=0)
        for name, value in (references or {}).items():
            axes.axhline(value, color="0.35", linestyle=":", linewidth=1.2)
            where = dict(xycoords=("axes fraction", "data"), ha="right", va="bottom", color="0.3")
            _note(axes, name, (1, value), (0, 2), **where, path_effects=[_OUTLINE])
        for name, x_limit in (limits or {}).items():
            axes.axvline(x_limit, color="0.35", linestyle=":", linewidth=1.2)
            where = dict(xycoords=("data", "axes fraction"), ha="right", va="bottom", color="0.3")
            _note(axes, name, (x_limit, 0), (-3, 4), **where, rotation=90)
        for name, words in (beside or {}).items():
            i = list(lines).index(name)
            right, up = (1, -1, 1, -1)[i % 4], (-1, 1, 1, -1)[i % 4]  # curves that meet keep their words apart
            side = dict(ha="left" if right > 0 else "right", va="bottom" if up > 0 else "top")
            for word, *point in zip(words, xs[name], lines[name], strict=True):
                colour = COLOURS[i % len(COLOURS)]
                _note(axes, word, point, (6 * right, 6 * up), **side, color=colour, path_effects=[_OUTLINE])
        if beside:
            axes.margins(0.1)
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
        axes.set(xlabel=_fill(xlabel, 4.2), ylabel=_fill(ylabel, 2.9))
        axes.legend(**LEGEND)
    told = []
    for name, values in lines.items():
        best = xs[name][int(np.argmax(np.asarray(values, dtype=float)))]
        at = f"{best:.2f}" if isinstance(best, float) else best
        told.append(f"{name} from {values[0]:.2f} to {values[-1]:.2f}, highest {max(values):.2f} at {at}")
    told += [f"{name} at {x_limit:g}" for name, x_limit in (limits or {}).items()]
    return Picture(axes.figure, f"{title} {ylabel} against {xlabel}: {'; '.join(told)}.")


def bars(
    values: Mapping[str, float],
    *,
    errors: Mapping[str, float | tuple[float, float]] | None = None,
    title: str,
    ylabel: str,
) -> Picture:
    """Horizontal bars, one a name, each with its value written beside it.

    >>> bars({"put in": 0.9, "averaged away": 0.1}, title="Sufficient, hardly needed", ylabel="share of the way")
    Sufficient, hardly needed share of the way: put in 0.90, averaged away 0.10.

    Args:
        values: {name: value}.
        errors: {name: half the error bar, or (how far it reaches below, above)}.
        title, ylabel: the finding, and what the bars measure.
    """
    names = list(values)
    with _canvas(title, 1.3 + 0.45 * len(names)) as axes:
        heights = [float(values[name]) for name in names]
        written = [f"{round(height, 2) + 0.0:.2f}".replace("-", "−") for height in heights]  # + 0.0: no “-0.00”
        spread = np.array([np.broadcast_to((errors or {}).get(name, 0), 2) for name in names], dtype=float)
        look = dict(color=COLOURS[0], height=0.65, ecolor="0.25", capsize=3)
        axes.barh(names, heights, xerr=spread.T if errors else None, **look)
        axes.axvline(0, color="black", linewidth=0.8)
        least = 0.02 * max(map(abs, heights), default=0)  # left of a bar this short stands the axis
        for i, (value, (below, above)) in enumerate(zip(heights, spread, strict=True)):
            side, end = (1, value + above) if value > -least else (-1, value - below)
            _note(axes, written[i], (end, i), (4 * side, 0), va="center", ha="left" if side > 0 else "right")
        axes.margins(x=0.12)
        axes.invert_yaxis()
        axes.set_xlabel(_fill(ylabel, 4.8))
    told = ", ".join(f"{name} {value}" for name, value in zip(names, written, strict=True))
    return Picture(axes.figure, f"{title} {ylabel}: {told}.")


def scatter(points: Mapping[str, tuple[float, float]], *, title: str, xlabel: str, ylabel: str) -> Picture:
    """Points in a plane, with the line y = x; the six that are furthest from the origin carry their names.

    >>> scatter({"23.3": (0.5, 0.4), "20.0": (0.0, 0.4)}, title="One acts indirectly", xlabel="direct", ylabel="total")
    One acts indirectly total against direct, 2 points; furthest out: 23.3 (0.50, 0.40), 20.0 (0.00, 0.40).

    Args:
        points: {name: (x, y)}.
        title, xlabel, ylabel: the finding, and what the axes are.
    """
    far = sorted(points, key=lambda name: -math.hypot(*points[name]))[:6]
    with _canvas(title, 4.6) as axes:
        axes.axhline(0, color="0.8", linewidth=1)
        axes.axvline(0, color="0.8", linewidth=1)
        axes.axline((0, 0), slope=1, color="0.35", linestyle=":", linewidth=1.2)
        rest = np.array([points[name] for name in points if name not in far]).reshape(-1, 2)
        axes.scatter(*rest.T, color="0.6", s=18)
        for i, name in enumerate(far):
            axes.scatter(*points[name], color=COLOURS[i % len(COLOURS)], s=55, zorder=3)
            _note(axes, name, points[name], (7, 5))
        axes.margins(0.1)
        axes.set(xlabel=xlabel, ylabel=ylabel)
    told = ", ".join(f"{name} ({points[name][0]:.2f}, {points[name][1]:.2f})" for name in far)
    return Picture(axes.figure, f"{title} {ylabel} against {xlabel}, {len(points)} points; furthest out: {told}.")


def clouds(
    groups: Mapping[str, Sequence[tuple[float, float]]],
    *,
    arrows: Mapping[str, tuple[tuple[float, float], tuple[float, float]]] | None = None,
    marks: Mapping[str, tuple[float, float]] | None = None,
    title: str,
    xlabel: str,
    ylabel: str,
) -> Picture:
    """Groups of points in a plane, on equal scales, each group with a colour and a marker of its own.

    >>> clouds({"cats": [(0, 0), (8, 4)], "dogs": [(40, 40), (50, 60)]}, title="Apart", xlabel="first", ylabel="second")
    Apart. second against first: cats, 2 points about (4, 2), spread (4, 2); dogs, 2 points about (45, 50), spread (5, 10).

    Args:
        groups: {name: [(x, y), …]}.
        arrows: {name: (from, to)}.
        marks: {name: (x, y)} for single points that stand out.
        title, xlabel, ylabel: the finding, and what the axes are.
    """
    arrows, marks = arrows or {}, marks or {}
    with _canvas(title, 5.2) as axes:
        for i, (name, points) in enumerate(groups.items()):
            k = i % len(COLOURS)
            axes.scatter(*np.asarray(points).T, color=COLOURS[k], marker=MARKERS[k], s=34, alpha=0.75, label=name)
        for i, (name, (start, end)) in enumerate(arrows.items()):
            colour = ("black", "0.45")[i % 2]
            head = dict(arrowstyle="-|>", color=colour, linewidth=2.5, mutation_scale=18, shrinkA=0, shrinkB=0)
            axes.annotate("", end, start, arrowprops=head, zorder=4)
            axes.plot([], [], color=colour, linewidth=2.5, marker=">", label=f"arrow: {name}")  # its name
        for name, point in marks.items():
            axes.scatter(*point, marker="*", s=260, color="white", edgecolor="black", linewidth=1.5, zorder=6)
            bold = dict(fontsize=STYLE["font.size"], fontweight="bold", zorder=6, path_effects=[_OUTLINE])
            _note(axes, name, point, (10, -4), **bold)
        axes.margins(0.1)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.legend(**LEGEND)
    told = [
        f"{name}, {len(points)} points about ({x:.0f}, {y:.0f}), spread ({dx:.0f}, {dy:.0f})"
        for name, points in groups.items()
        for (x, y), (dx, dy) in [(np.mean(points, 0), np.std(points, 0))]
    ]
    told += [f"arrow {name} from ({a:.0f}, {b:.0f}) to ({c:.0f}, {d:.0f})" for name, ((a, b), (c, d)) in arrows.items()]
    told += [f"{name} at ({x:.0f}, {y:.0f})" for name, (x, y) in marks.items()]
    return Picture(axes.figure, f"{title}. {ylabel} against {xlabel}: {'; '.join(told)}.")


def intervals(values: Mapping[str, Mapping[str, tuple[float, float, float]]], *, title: str, xlabel: str) -> Picture:
    """Dots with intervals: a row a group, and in it a dot for each condition.

    >>> intervals({"Toronto": {"steered": (0.9, 0.8, 1.0), "unsteered": (0.0, 0.0, 0.1)}}, title="It shows", xlabel="share")
    It shows share. Toronto: steered 0.90 [0.80, 1.00], unsteered 0.00 [0.00, 0.10].

    Args:
        values: {group: {condition: (value, low, high)}}.
        title, xlabel: the finding, and what is measured (say what the interval is).
    """
    conditions = list(dict.fromkeys(condition for row in values.values() for condition in row))
    step = 0.8 / len(conditions)
    with _canvas(title, 1.2 + len(values) * (0.2 + 0.16 * len(conditions))) as axes:
        for i, condition in enumerate(conditions):
            k = i % len(COLOURS)
            found = [(row + (i - (len(conditions) - 1) / 2) * step, *one[condition])
                     for row, one in enumerate(values.values()) if condition in one]  # fmt: skip
            y, middle, low, high = np.array(found).T
            look = dict(color=COLOURS[k], marker=MARKERS[k], markersize=7, linestyle="none", elinewidth=2, capsize=3)
            axes.errorbar(middle, y, xerr=[middle - low, high - middle], label=condition, **look)
        for row in range(len(values) - 1):
            axes.axhline(row + 0.5, color="0.85", linewidth=0.8)
        axes.set_yticks(range(len(values)), _lines(list(values)))
        axes.set_ylim(len(values) - 0.5, -0.5)
        axes.set_xlabel(_fill(xlabel, 4.8))
        axes.legend(**LEGEND)
    told = "; ".join(
        f"{group}: " + ", ".join(f"{name} {v:.2f} [{low:.2f}, {high:.2f}]" for name, (v, low, high) in row.items())
        for group, row in values.items()
    )
    return Picture(axes.figure, f"{title} {xlabel}. {told}.")


def strips(values: Mapping[str, Sequence[float]], *, title: str, xlabel: str) -> Picture:
    """What stands behind a mean: a row a name, in it a dot for each single value, and their mean as a bar.

    >>> strips({"right source": [1.0, 0.9, 0.95], "wrong source": [0.1, 0.6, 0.8]}, title="Means hide", xlabel="share")
    Means hide share. right source: 3 from 0.90 to 1.00, mean 0.95; wrong source: 3 from 0.10 to 0.80, mean 0.50.

    Args:
        values: {name: one value for each pair or prompt}.
        title, xlabel: the finding, and what is measured.
    """
    rows = {name: np.asarray(row, dtype=float) for name, row in values.items()}
    with _canvas(title, 1.5 + 0.6 * len(rows)) as axes:
        for i, row in enumerate(rows.values()):
            apart = (np.arange(len(row)) % 5 - 2) * 0.09  # dots of one value are seen
            axes.scatter(row, i + apart, color=COLOURS[i % len(COLOURS)], s=38, alpha=0.7, linewidth=0)
            axes.plot([row.mean()] * 2, [i - 0.36, i + 0.36], color="black", linewidth=2.5)
        axes.plot([], [], color="black", linewidth=2.5, label="mean")
        axes.axvline(0, color="0.8", linewidth=1, zorder=0)
        axes.set_yticks(range(len(rows)), _lines(list(rows)))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(_fill(xlabel, 4.8))
        axes.legend(**LEGEND)
    told = "; ".join(
        f"{name}: {len(row)} from {row.min():.2f} to {row.max():.2f}, mean {row.mean():.2f}"
        for name, row in rows.items()
    )
    return Picture(axes.figure, f"{title} {xlabel}. {told}.")


@contextmanager
def _canvas(title: str, height: float):
    """One pair of axes under a title; what is drawn within comes out in the house style."""
    with rc_context(STYLE):
        axes = Figure(figsize=(8.4, height), layout="constrained").add_subplot()
        axes.set_title(title, wrap=True)
        yield axes


def _note(axes, text: str, point: Sequence[float], offset: tuple[float, float], **how) -> None:
    """Small print beside a point, `offset` in points."""
    axes.annotate(text, point, xytext=offset, textcoords="offset points", **{"fontsize": "small", **how})


def _fill(label: str, inches: float, size: str = "axes.labelsize") -> str:
    """A label broken into lines of about the same length, where one of its own is longer than this at the style's size of print."""
    width, text = int(inches * 72 / (0.58 * STYLE[size])), label.replace("\n", " ")
    if max(map(len, label.split("\n"))) <= width:
        return label
    count = len(textwrap.wrap(text, width))
    while width > 1 and len(textwrap.wrap(text, width - 1)) == count:
        width -= 1
    return textwrap.fill(text, width)


def _lines(labels: Sequence) -> list[str]:
    """Labels of one line each, a token's line break as in the text of a program."""
    return [str(label).replace("\n", "\\n") for label in labels]
