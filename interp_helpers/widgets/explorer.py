"""What explorers share: choosers, sliders, a map of layers, and a text form where widgets don't run."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from torch import Tensor

from ..plotting import Live
from ..sweeps import Sweep


class Explorer(Live):
    """Something to choose (`choices`: {attribute: {label: value}}), whole numbers to slide (`sliders`: {attribute:
    label}, from 0 below `sizes()`), and what they show as `html` and as text."""

    sliders: Mapping[str, str]
    waiting: str
    wide = "34em"

    def __init__(self, choices: Mapping[str, Mapping]):
        self.choices = choices

    def sizes(self) -> tuple[int, ...]:
        """How many values each slider has, for what is chosen."""
        raise NotImplementedError

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
            setattr(self, name, clamped(getattr(self, name), size))
        self._widget = None
        return self

    def _form(self):
        import ipywidgets as w

        wide = dict(style={"description_width": "6em"}, layout=w.Layout(width=self.wide))
        choosers = {
            name: w.Dropdown(options=list(options.items()), value=getattr(self, name), description=name, **wide)
            for name, options in self.choices.items()
        }
        sliders = {
            name: w.IntSlider(value=getattr(self, name), min=0, max=size - 1, description=label, **wide)
            for (name, label), size in zip(self.sliders.items(), self.sizes(), strict=True)
        }
        picture = w.HTML(self.html)

        def changed(_) -> None:
            new = {name: chooser.value for name, chooser in choosers.items()}
            if any(getattr(self, name) != value for name, value in new.items()):
                picture.value = f"<em>{self.waiting}</em>"
            self.choose(**new, **{name: slider.value for name, slider in sliders.items()})
            for slider, size in zip(sliders.values(), self.sizes(), strict=True):
                if slider.max != size - 1:
                    slider.max = size - 1
            try:
                picture.value = self.html
            except ValueError as error:  # a fact whose answer is several tokens for this model, say
                picture.value = f"<em>{html.escape(str(error))}</em>"
            self._widget = form  # its controls show what is chosen

        controls = [*choosers.values(), *sliders.values()]
        for control in controls:
            control.observe(changed, names="value")
        form = w.VBox([*controls, picture])
        return form


class SweepExplorer(Explorer):
    """An explorer of a model; a sweep of what is chosen, `compute`d once, is kept as `sweep`."""

    waiting = "Patching every site of the new choice…"

    def __init__(self, lm, choices: Mapping[str, Mapping]):
        super().__init__(choices)
        self.lm = lm
        self._sweeps: dict[tuple, Sweep] = {}

    def compute(self) -> Sweep:
        """The sweep of what is chosen."""
        raise NotImplementedError

    @property
    def sweep(self) -> Sweep:
        """The sweep of what is chosen; computed once."""
        key = tuple(getattr(self, name) for name in self.choices)
        if key not in self._sweeps:
            self._sweeps[key] = self.compute()
        return self._sweeps[key]


class SiteExplorer(SweepExplorer):
    """A map of layers and tokens with one site chosen, and the next tokens of the runs that it takes.

    A subclass says what can be chosen, and computes `prompt`, `sweep`, `caption` and `top_tokens` from what is chosen.

    Attributes:
        layer, position: the chosen site; `choose` changes them, and everything in `choices`.
    """

    sliders = {"layer": "layer", "position": "token"}
    acted = "Patched"  # what happens at the chosen site
    prompt: str
    caption: str

    def __init__(self, lm, choices: Mapping[str, Mapping], layer: int | None, position: int | None):
        super().__init__(lm, choices)
        self.layer = clamped(lm.n_layers // 2 if layer is None else layer, lm.n_layers)
        if position is None:
            position = int((self.sweep.values - self.sweep.base)[self.layer].abs().argmax())
        width = len(self.tokens)
        self.position = clamped(position + width if position < 0 else position, width)

    def sizes(self) -> tuple[int, int]:
        return self.lm.n_layers, len(self.tokens)

    def top_tokens(self, k: int = 5) -> dict[str, list[tuple[str, float]]]:
        """The likeliest next tokens of each run, {name: [(token, probability), …]}."""
        raise NotImplementedError

    @property
    def tokens(self) -> list[str]:
        return self.lm.str_tokens(self.prompt)

    # -- how it looks -------------------------------------------------------------------------------------------------

    @property
    def html(self) -> str:
        # Widgets set their lines as far apart as their controls.
        return f'<div style="line-height:1.5">{self._heatmap()}{self._table()}</div>'

    def _heatmap(self) -> str:
        sweep = self.sweep
        first, second = (name[0].upper() + name[1:] for name in sweep.ends)
        caption = (
            f"{self.caption}: {sweep.metric}. {first} {float(sweep.base):.2f}, {second.lower()} {float(sweep.source):.2f}. "
            "Red is positive, blue negative."
        )
        limit = max(float(sweep.values.abs().max()), abs(float(sweep.base)), abs(float(sweep.source)))
        names = [(f"<code>{i} {html.escape(token)}</code>", token) for i, token in enumerate(self.tokens)]
        return layer_map(sweep.values, names, (self.layer, self.position), limit, caption)

    def _table(self) -> str:
        top = self.top_tokens()
        value = float(self.sweep.values[self.layer, self.position])
        head = "".join(f'<th scope="col" style="text-align:left;padding-right:2.5em">{name} run</th>' for name in top)
        body = ""
        for row in zip(*top.values(), strict=True):
            cells = "".join(
                f'<td style="text-align:left;padding-right:2.5em;white-space:pre"><code>{html.escape(t)}</code> {p:.1%}</td>'
                for t, p in row
            )
            body += f'<tr style="background:transparent">{cells}</tr>'
        where = f"layer {self.layer}, token {self.position} ({self.tokens[self.position]!r})"
        return (
            f'<div class="glassbox-site" data-layer="{self.layer}" data-position="{self.position}" style="margin:.8em 0 .3em">'
            f"<strong>{self.acted} at {html.escape(where)}</strong>: {html.escape(self.sweep.metric)} = {value:.2f}. The likeliest next "
            f'tokens:</div><table style="color:inherit"><tr style="background:transparent">{head}</tr>{body}</table>'
        )

    def __repr__(self) -> str:
        lines = [f"{name}: " + ", ".join(f"{t!r} {p:.1%}" for t, p in top) for name, top in self.top_tokens().items()]
        where = f"{self.acted.lower()} at layer {self.layer}, token {self.position}:"
        return "\n".join([f"{self.sweep!r}", where, *lines])


def layer_map(
    values: Tensor, rows: Sequence[tuple[str, str]], chosen: tuple[int, int], limit: float, caption: str
) -> str:
    """A table of coloured cells, layers from left to right.

    Args:
        values: (layer, row).
        rows: of each row, the heading as HTML and the name in the cells' tooltips.
        chosen: the (layer, row) that is framed.
        limit: the value of the full colour.
        caption: what it shows.
    """
    body = ""
    for row, (heading, name) in enumerate(rows):
        cells = ""
        for layer, value in enumerate(values[:, row].tolist()):
            colour, strength = "178,24,43" if value > 0 else "33,102,172", min(abs(value) / max(limit, 1e-9), 1)
            frame = "3px solid #E69F00" if (layer, row) == chosen else "1px solid rgba(128,128,128,.18)"
            cells += (
                f'<td title="layer {layer}, {html.escape(name)}: {value:.2f}" style="width:1.15em;height:1.5em;padding:0;'
                f'background:rgba({colour},{strength:.2f});outline:{frame};outline-offset:-1px"></td>'
            )
        body += (
            f'<tr style="background:transparent"><th scope="row" style="text-align:right;padding-right:.6em;'
            f'font-weight:normal;white-space:pre">{heading}</th>{cells}</tr>'
        )
    ticks = "".join(
        f'<td style="font-size:.75em;text-align:center;padding:0">{layer if layer % 5 == 0 else ""}</td>'
        for layer in range(len(values))
    )
    said = html.escape(caption)
    return (
        f'<table role="img" aria-label="{said}" style="border-collapse:collapse;color:inherit">'
        f'<caption style="caption-side:top;text-align:left;color:inherit;padding-bottom:.4em">{said}</caption>'
        f'{body}<tr style="background:transparent"><td style="text-align:right;padding-right:.6em">layer</td>{ticks}</tr></table>'
    )


def clamped(value: int, size: int) -> int:
    """The value, or the end of a slider from 0 below `size` that it lies past."""
    return max(0, min(value, size - 1))


def the_same(names: Sequence) -> dict:
    """Choices that are their own labels."""
    return {str(name): name for name in names}
