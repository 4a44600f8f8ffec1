"""A widget for notebooks that can run it, with HTML and plain text for everything that can't, in one output.

A front end shows the richest form it understands: the live widget, else (GitHub, an exported page) the HTML, else
the text. One trap: a page made from a notebook with *saved widget state* shows the widget, dead, in place of the
HTML; execute for export with nbclient's `store_widget_state=False`.

>>> mimebundle(lambda: ipywidgets.Button(), "<b>html</b>", "text")
"""

from __future__ import annotations

import sys
from collections.abc import Callable

VIEW = "application/vnd.jupyter.widget-view+json"


def mimebundle(build: Callable, html: str, text: str) -> dict:
    """The three forms of one thing. `build` makes the widget; without ipywidgets the other two remain."""
    bundle = {"text/html": html, "text/plain": text}
    try:
        widget = build()
    except ImportError:
        return bundle
    if model_id := getattr(widget, "model_id", None):
        bundle[VIEW] = {"version_major": 2, "version_minor": 0, "model_id": model_id}
        if "google.colab" in sys.modules:  # which of the two Colab would show is nowhere promised
            del bundle["text/html"]
    return bundle
