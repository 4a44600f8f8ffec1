"""How everything the course shows is drawn: one card, as HTML and as plain text.

A `Card` carries both, so that a notebook shows the first and a terminal the second. The HTML takes its text colour
from the page and lays translucent colours over it (light and dark themes), and says in words what a colour says.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..plotting import html_table

# Okabe & Ito's colours, which colour-blind readers can tell apart; used for borders and washes, never for text.
COLOURS = {"ok": "0,158,115", "wait": "230,159,0", "idle": "128,128,128", "info": "0,114,178"}


@dataclass(frozen=True, repr=False)
class Card:
    """Something to display: `html` in notebooks, `text` everywhere else. `metadata` is for tests, not for readers."""

    html: str
    text: str
    metadata: dict = field(default_factory=dict)

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/html": self.html, "text/plain": self.text}, dict(self.metadata)

    def __repr__(self) -> str:
        return self.text


def prose(text: str) -> str:
    """Plain text to HTML: escaped, `code`, *emphasis* and line breaks kept, and nothing else understood."""
    pieces = re.split(r"(`[^`\n]+`)", text)
    for i, piece in enumerate(pieces):
        if i % 2:
            pieces[i] = f"<code>{html.escape(piece[1:-1])}</code>"
        else:
            pieces[i] = re.sub(r"(?<![\w*])\*([^\s*][^*\n]*)\*(?![\w*])", r"<em>\1</em>", html.escape(piece))
    return "".join(pieces).replace("\n", "<br>")


def frame(kind: str, icon: str, heading: str, body: str = "", aside: str = "") -> str:
    """A box with a coloured left border. `body` and `aside` are HTML already; `icon` and `heading` are plain text."""
    rgb = COLOURS[kind]
    aside = f'<span style="opacity:.75;margin-left:.8em;font-size:.92em">{aside}</span>' if aside else ""
    return (
        f'<div class="glassbox glassbox-{kind}" style="border-left:5px solid rgb({rgb});background:rgba({rgb},.10);'
        'color:inherit;padding:.5em .9em;margin:.4em 0;border-radius:0 4px 4px 0;max-width:56em;line-height:1.5">'
        f'<div><span aria-hidden="true">{icon}</span> <strong>{prose(heading)}</strong>{aside}</div>{body}</div>'
    )


def paragraph(text: str) -> str:
    """Plain text as a block of HTML; nothing, for no text."""
    return f'<div style="margin-top:.35em">{prose(text)}</div>' if text else ""


def folded(summary: str, inner: str, opened: bool = False) -> str:
    """A `<details>`: needs no kernel and no script, works from the keyboard, survives export. `inner` is HTML."""
    return (
        f'<details{" open" if opened else ""} style="margin-top:.35em">'
        f'<summary style="cursor:pointer">{prose(summary)}</summary>'
        f'<div style="margin:.2em 0 .2em 1.1em">{inner}</div></details>'
    )


def folded_hints(hints: Sequence[str], opened: int = 0) -> str:
    """The hints one inside the other: the second can be reached only from the end of the first."""
    inner = ""
    for i in reversed(range(len(hints))):
        inner = folded(f"Hint {i + 1} of {len(hints)}", prose(hints[i]) + inner, opened=i < opened)
    return inner


def short(value: object, limit: int = 80) -> str:
    """A repr for messages, never longer than `limit`: `short("x" * 500)` is cut in the middle with '…'.

    >>> short("x" * 500, 20)
    "'xxxxxxxx…xxxxxxxx'"
    """
    text = " ".join(repr(value).split())
    half = (limit - 1) // 2
    return text if len(text) <= limit else f"{text[:half]}…{text[-half:]}"


def table(rows: Sequence[Sequence[str]], caption: str = "") -> tuple[str, str]:
    """Rows of plain text, the first one the header, as HTML and with their columns lined up in plain text."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    head, *body = ([html.escape(cell) for cell in row] for row in rows)
    return html_table(head, body, html.escape(caption)), "\n".join(lines)
