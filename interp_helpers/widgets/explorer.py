"""What explorers share: choosers, sliders, a table of coloured cells, and a text form where widgets don't run."""

from __future__ import annotations

import functools
import html
from collections.abc import Mapping, Sequence

from torch import Tensor

from ..plotting import Live, html_table
from ..sweeps import Sweep

LOOK = dict(style={"description_width": "6em"}, layout={"width": "44em", "max_width": "100%"})  # of every control


class Explorer(Live):
    """Something to choose (`choices`: {attribute: {label: value}}), whole numbers to slide (`sliders`: {attribute:
    label}, from 0 below `sizes()`), and what they show as `html` and as text. A subclass that slides has `sizes`."""

    sliders: Mapping[str, str] = {}
    waiting: str

    def sizes(self) -> tuple[int, ...]:
        """How many values each slider has, for what is chosen."""
        return ()

    def __init__(self, choices: Mapping[str, Mapping]):
        self.choices = choices

    def choose(self, **changes) -> Explorer:
        """Change what is chosen; a number past a slider's end moves to its end.

        Raises:
            ValueError: there is no such thing to choose, or no such choice; nothing is changed.
        """
        names = [*self.choices, *self.sliders]
        for name, value in changes.items():
            if name not in names:
                raise ValueError(f"There is no {name!r} to choose: {', '.join(names[:-1])} or {names[-1]}.")
            if name in self.choices and value not in self.choices[name].values():
                raise ValueError(f"{name}={value!r} is not among the choices: {', '.join(self.choices[name])}.")
        for name, value in changes.items():
            setattr(self, name, value)
        for name, size in zip(self.sliders, self.sizes(), strict=True):
            setattr(self, name, max(0, min(getattr(self, name), size - 1)))
        self._widget = None
        return self

    def _controls(self) -> dict:
        """The form's controls, {attribute: widget}."""
        import ipywidgets as w

        choosers = {
            name: w.Dropdown(options=list(options.items()), value=getattr(self, name), description=name, **LOOK)
            for name, options in self.choices.items()
        }
        sliders = {
            name: w.IntSlider(value=getattr(self, name), min=0, max=size - 1, description=label, **LOOK)
            for (name, label), size in zip(self.sliders.items(), self.sizes(), strict=True)
        }
        return choosers | sliders

    def _form(self):
        import ipywidgets as w

        controls, picture = self._controls(), w.HTML(self.html)

        def changed(change, name: str) -> None:
            if name not in self.sliders:
                picture.value = f"<em>{self.waiting}</em>"
            try:
                self.choose(**{name: change["new"]})
                for slider, size in zip(self.sliders, self.sizes(), strict=True):
                    controls[slider].max = size - 1
                picture.value = self.html
            except ValueError as error:  # a fact whose answer is several tokens for this model, say
                picture.value = f"<em>{html.escape(str(error))}</em>"
            self._widget = form  # its controls show what is chosen

        for name, control in controls.items():
            control.observe(functools.partial(changed, name=name), names="value")
        form = w.VBox([*controls.values(), picture])
        return form


class SweepExplorer(Explorer):
    """An explorer of a model: a sweep of what is chosen as a map (`_heatmap`), and more about one site of it (`_table`).

    A subclass computes the sweep in `compute`.
    """

    waiting = "Patching every site of the new choice…"

    def __init__(self, lm, choices: Mapping[str, Mapping]):
        super().__init__(choices)
        self.lm = lm
        self._sweeps: dict[tuple, Sweep] = {}

    @property
    def sweep(self) -> Sweep:
        """The sweep of what is chosen; computed once."""
        key = tuple(getattr(self, name) for name in self.choices)
        if key not in self._sweeps:
            self._sweeps[key] = self.compute()
        return self._sweeps[key]

    @property
    def html(self) -> str:
        # Widgets set their lines as far apart as their controls.
        return f'<div style="line-height:1.5">{self._heatmap()}{self._table()}</div>'


class SiteExplorer(SweepExplorer):
    """A map of layers and tokens with one site chosen, and the next tokens of the runs that it takes.

    A subclass says what can be chosen, and has `prompt`, `caption` and `top_tokens()`: the likeliest next tokens of each run,
    {name: [(token, probability), …]}.

    Attributes:
        layer, position: the chosen site; `choose` changes them, and everything in `choices`.
    """

    sliders = {"layer": "layer", "position": "token"}
    acted = "Patched"  # what happens at the chosen site
    prompt: str
    caption: str

    def __init__(self, lm, choices: Mapping[str, Mapping]):
        super().__init__(lm, choices)
        self.layer = lm.n_layers // 2
        self.position = self._first()

    def _first(self) -> int:
        """The token that is chosen at first: the one that does most in the middle layer."""
        return int((self.sweep.values - self.sweep.base)[self.layer].abs().argmax())

    def sizes(self) -> tuple[int, int]:
        return self.lm.n_layers, len(self.tokens)

    @property
    def tokens(self) -> list[str]:
        return self.lm.str_tokens(self.prompt)

    def _heatmap(self) -> str:
        sweep = self.sweep
        first, second = (name[0].upper() + name[1:] for name in sweep.ends)
        caption = (
            f"{self.caption}: {sweep.metric}. {first} {float(sweep.base):.2f}, {second.lower()} {float(sweep.source):.2f}. "
            "Red is positive, blue negative."
        )
        limit = max(float(sweep.values.abs().max()), abs(float(sweep.base)), abs(float(sweep.source)))
        names = [(code(f"{i} {token}"), token) for i, token in enumerate(self.tokens)]
        return layer_map(sweep.values, names, (self.layer, self.position), limit, caption)

    def _table(self) -> str:
        top = self.top_tokens()
        value = float(self.sweep.values[self.layer, self.position])
        rows = [[f"{code(token)} {share:.1%}" for token, share in row] for row in zip(*top.values(), strict=True)]
        where = html.escape(f"layer {self.layer}, token {self.position} ({self.tokens[self.position]!r})")
        said = f"<strong>{self.acted} at {where}</strong>: {html.escape(self.sweep.metric)} = {value:.2f}. The likeliest next tokens:"
        return site(self.layer, self.position, said) + html_table([f"{name} run" for name in top], rows)

    def __repr__(self) -> str:
        lines = [f"{name}: " + ", ".join(f"{t!r} {p:.1%}" for t, p in top) for name, top in self.top_tokens().items()]
        where = f"{self.acted.lower()} at layer {self.layer}, token {self.position}:"
        return "\n".join([f"{self.sweep!r}", where, *lines])


def layer_map(
    values: Tensor, rows: Sequence[tuple[str, str]], chosen: tuple[int, int], limit: float, caption: str
) -> str:
    """A `heat_table` of numbers, layers from left to right; red is positive, blue negative.

    Args:
        values: (layer, row).
        rows: of each row, the heading as HTML and the name in the cells' tooltips.
        chosen: the (layer, row) that is framed.
        limit: the value of the full colour.
        caption: what it shows.
    """
    body = [
        (heading, [heat_cell(layer, name, value, limit) for layer, value in enumerate(values[:, row].tolist())])
        for row, (heading, name) in enumerate(rows)
    ]
    ticks = [f"{layer}" if layer % 5 == 0 else "" for layer in range(len(values))]
    return heat_table(body, chosen[::-1], ticks, caption)


def heat_cell(layer: int, name: str, value: float, limit: float) -> tuple[str, str, float, str]:
    """A number's cell of a `heat_table`: red is positive, blue negative."""
    colour = "178,24,43" if value > 0 else "33,102,172"
    return f"layer {layer}, {name}: {value:.2f}", colour, abs(value) / max(limit, 1e-9), ""


def heat_table(
    rows: Sequence[tuple[str, Sequence[tuple[str, str, float, str]]]],
    chosen: tuple[int, int],
    foot: Sequence[str],
    caption: str,
) -> str:
    """A table of coloured cells, as HTML.

    Args:
        rows: of each row, the heading as HTML and its cells: a tooltip, a colour "red,green,blue", its strength from 0 to 1,
            and what stands in it, as HTML.
        chosen: the (row, column) that is framed.
        foot: what stands below each column, as HTML.
        caption: what the table shows.
    """
    heading_style = 'style="text-align:right;padding:0 .6em 0 0;font-weight:normal;white-space:pre"'
    body = ""
    for i, (heading, cells) in enumerate(rows):
        body += f'<tr style="background:transparent"><th scope="row" {heading_style}>{heading}</th>'
        for j, (said, colour, strength, inner) in enumerate(cells):
            frame = "3px solid #E69F00" if (i, j) == chosen else "1px solid rgba(128,128,128,.18)"
            body += (
                f'<td title="{html.escape(said)}" style="min-width:.75em;max-width:7em;height:1.5em;padding:0 .2em;overflow:hidden;'
                f"text-align:left;white-space:pre;background:rgba({colour},{min(strength, 1):.2f});outline:{frame};"
                f'outline-offset:-1px">{inner}</td>'
            )
        body += "</tr>"
    below = "".join(
        f'<td style="font-size:.85em;text-align:center;padding:.2em 0;white-space:pre">{x}</td>' for x in foot
    )
    picture = "" if any(inner for _, cells in rows for *_, inner in cells) else ' role="img"'
    said = html.escape(caption)
    return (
        f'<table{picture} aria-label="{said}" style="border-collapse:collapse;color:inherit;font-size:.9em">'
        f'<caption style="caption-side:top;text-align:left;color:inherit;padding-bottom:.4em">{said}</caption>'
        f'{body}<tr style="background:transparent"><th scope="row" {heading_style}>layer</th>{below}</tr></table>'
    )


def site(layer: int, position: int, said: str) -> str:
    """A line about the chosen site, under which tests and style sheets find it; `said` is HTML."""
    where = f'data-layer="{layer}" data-position="{position}"'
    return f'<div class="glassbox-site" {where} style="margin:.8em 0 .3em">{said}</div>'


def code(token: str) -> str:
    """A token as HTML, with its spaces."""
    return f'<code style="white-space:pre;background:transparent;color:inherit">{html.escape(token)}</code>'


def the_same(names: Sequence) -> dict:
    """Choices that are their own labels."""
    return {str(name): name for name in names}
