"""What a notebook shows besides figures: things with a live form, and tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence

VIEW = "application/vnd.jupyter.widget-view+json"


class Live:
    """Something that a notebook shows: a live form where widgets run, `html` or text where they don't, all in one output.

    A front end shows the richest form it understands: the widget, else (GitHub, an exported page) the HTML, else the text.
    One trap: a page made from a notebook with *saved widget state* shows the widget, dead, in place of the HTML; execute
    for export with nbclient's `store_widget_state=False`. A subclass makes the widget in `_form` and says its text by `repr`.
    """

    html: str
    _widget = None

    @property
    def widget(self):
        """The live form; made once, until something is changed by code."""
        self._widget = self._widget or self._form()
        return self._widget

    def _repr_mimebundle_(self, include=None, exclude=None):
        bundle = {"text/html": self.html, "text/plain": repr(self)}
        try:
            model_id = getattr(self.widget, "model_id", None)
        except ImportError:  # no ipywidgets
            return bundle
        if model_id:
            bundle[VIEW] = {"version_major": 2, "version_minor": 0, "model_id": model_id}
            if "google.colab" in sys.modules:  # which of the two Colab would show is nowhere promised
                del bundle["text/html"]
        return bundle


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """A table in HTML that takes its colours from the page; heads, cells and caption are HTML already.

    >>> html_table(["layer", "share"], [["23", "87 %"]], "of one pair")
    '<table style="color:inherit"><caption ...>of one pair</caption>...<td ...>87 %</td></tr></table>'
    """
    look = 'style="text-align:left;padding:.15em 1.3em .15em 0;color:inherit;background:transparent"'
    said = f'<caption style="caption-side:top;text-align:left;color:inherit">{caption}</caption>' if caption else ""
    lines = [[f'<th scope="col" {look}>{cell}</th>' for cell in head]]
    lines += [[f"<td {look}>{cell}</td>" for cell in row] for row in rows]
    body = "".join(f'<tr style="background:transparent">{"".join(line)}</tr>' for line in lines)
    return f'<table style="color:inherit">{said}{body}</table>'
