"""A form for a steering vector of one's own: two lists of sentences, the vector between them, and what it does."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import replace

from ..plotting import Live
from ..steering import SAMPLING, SteeringVector
from .steering import side_by_side

FIELDS = {
    "name": "what the vector is for, in a word or two",
    "having": "sentences that have it, one a line",
    "lacking": "the same sentences without it, one a line",
    "words": "words that show it, with commas between",
}


STRENGTH, MODE, LENGTH = 0.35, "clamp", 30  # what the texts are written with, and how many tokens of each
_LAST: dict = dict.fromkeys(FIELDS, ...)  # what this session's last form holds
_BETWEEN = {"name": "\n", "having": "\n", "lacking": "\n", "words": ", "}


class contrast_builder(Live):
    """A form for two lists of sentences; it builds the vector between them and shows texts without and with it. A new form begins
    with the sentences of this session's last one, so that running its cell again loses none; `clear()` empties it.

    >>> builder = contrast_builder(lm, 24)
    >>> builder.fill(name="glad", having=["I am glad today."], lacking=["I am tired today."])  # where widgets don't run
    Nothing built yet.

    Args:
        lm: the model.
        layer: where the vector is read and applied.
        prompts: what is continued.

    Attributes:
        contrast: {"name": text, "having": sentences, "lacking": sentences, "words": words}; `...` stands for what is empty.
        vector: built from it, with the strength and mode to apply it with; None before `build`.
    """

    def __init__(self, lm, layer: int, prompts: Sequence[str] = ("Yesterday we", "The first thing I do is")):
        self.lm, self.layer, self.prompts = lm, layer, list(prompts)
        self.contrast: dict = dict(_LAST)
        self.vector: SteeringVector | None = None
        self._texts: list[tuple[str, str, str]] = []

    def clear(self) -> contrast_builder:
        """Empty the form."""
        return self.fill(**dict.fromkeys(FIELDS, ...))

    def fill(self, **fields) -> contrast_builder:
        """Fill in fields of `contrast`; what was built before is forgotten.

        Raises:
            ValueError: there is no such field.
        """
        for name in fields:
            if name not in FIELDS:
                raise ValueError(f"There is no field {name!r}: {', '.join(FIELDS)}.")
        self.contrast |= fields
        _LAST.update(self.contrast)
        self.vector, self._texts, self._widget = None, [], None
        return self

    def build(self) -> SteeringVector:
        """The vector between the two lists (`SteeringVector.from_contrast`), and each prompt continued without and with it.

        Raises:
            ValueError: a list is empty, or as `from_contrast`.
        """
        having, lacking = self.contrast["having"], self.contrast["lacking"]
        if having is ... or lacking is ...:
            raise ValueError("Both lists are needed: sentences that have it, and sentences that lack it.")
        name = "" if self.contrast["name"] is ... else self.contrast["name"]
        made = SteeringVector.from_contrast(self.lm, having, lacking, self.layer, name=name)
        self.vector = replace(made, strength=STRENGTH, mode=MODE)
        options = dict(seed=0, **SAMPLING)
        base = self.lm.generate(self.prompts, LENGTH, **options)
        with self.vector.apply(self.lm):
            steered = self.lm.generate(self.prompts, LENGTH, **options)
        self._texts = list(zip(self.prompts, base, steered, strict=True))
        self._widget = None
        return self.vector

    @property
    def heading(self) -> str:
        """What was built, in a line."""
        if self.vector is None:
            return "Nothing built yet."
        v, of = self.vector, self.vector.provenance["texts"]
        return f"{v.name or 'Your vector'}: the difference between {of[0]} and {of[1]} sentences, at layer {v.layer}, strength {v.strength:.2f}."

    @property
    def code(self) -> str:
        """A cell that makes this form again, as it is filled in, and calls it `builder`."""
        filled = [f"    {name}={value!r}," for name, value in self.contrast.items() if value is not ...]
        return "\n".join(
            [f"builder = contrast_builder(lm, {self.layer}, {self.prompts}).fill(", *filled, ")", "builder"]
        )

    @property
    def html(self) -> str:
        written = "".join(
            side_by_side(prompt, {"unsteered": base, "steered": steered}) for prompt, base, steered in self._texts
        )
        keep = (
            "<details><summary>To keep these sentences: the same form as code</summary>"
            f'<pre style="white-space:pre-wrap">{html.escape(self.code)}</pre></details>'
        )
        built = self.vector is not None
        return f'<div class="glassbox-contrast" style="line-height:1.5"><strong>{html.escape(self.heading)}</strong>{written}{keep * built}</div>'

    def __repr__(self) -> str:
        lines = [self.heading]
        for prompt, base, steered in self._texts:
            lines += [f"unsteered: {prompt}{base}", f"steered:   {prompt}{steered}"]
        return "\n".join(lines)

    def _form(self):
        import ipywidgets as w

        def area(name: str, lines: int):
            value = self.contrast[name]
            shown = "" if value is ... else value if isinstance(value, str) else _BETWEEN[name].join(value)
            kind, extra = (w.Textarea, {"rows": lines}) if lines > 1 else (w.Text, {})
            layout = w.Layout(width="98%")
            return kind(value=shown, placeholder=FIELDS[name], layout=layout, **extra)

        areas = {name: area(name, lines) for name, lines in zip(FIELDS, (1, 10, 10, 3), strict=True)}
        labelled = {
            name: w.VBox([w.HTML(f"<strong>{FIELDS[name]}</strong>"), field], layout=w.Layout(flex="1 1 18em"))
            for name, field in areas.items()
        }
        button, said = w.Button(description="build and write", button_style="primary"), w.HTML(self.html)

        def read(_=None) -> None:
            before = dict(self.contrast)
            for name, field in areas.items():
                text = field.value.strip()
                pieces = [piece.strip() for piece in text.split(_BETWEEN[name].strip(" ")) if piece.strip()]
                self.contrast[name] = (text if name == "name" else pieces) if text else ...
            _LAST.update(self.contrast)
            if self.contrast != before:  # what was built is of other sentences
                self.vector, self._texts = None, []

        def pressed(_) -> None:
            read()
            said.value, button.disabled = "<em>Reading your sentences, and writing…</em>", True
            try:
                self.build()
                said.value = self.html
            except ValueError as error:
                said.value = f"<em>{html.escape(str(error))}</em>"
            finally:
                button.disabled, self._widget = False, form

        for field in areas.values():
            field.observe(read, names="value")
        button.on_click(pressed)
        side = w.Layout(display="flex", flex_flow="row wrap")
        rows = [w.Box([labelled[a], labelled[b]], layout=side) for a, b in (("name", "words"), ("having", "lacking"))]
        form = w.VBox([*rows, button, said])
        return form
