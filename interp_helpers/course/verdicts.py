"""What a check answers: one of three verdicts, with its reason and the hints that are due.

A `Verdict` is the value of `check(...)`, so it shows itself when the call ends a cell, and tests can read it. Where something
else stands below it in the cell, `shown_anyway` sees to it that the verdict isn't lost.

>>> check("patching.last-layer", ...).status
'not attempted'
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from .render import Card, folded_hints, frame, paragraph, prose

LOOKS = {  # status: (kind of card, icon, word)
    "not attempted": ("idle", "○", "Not attempted yet"),
    "not yet": ("wait", "△", "Not yet, because"),
    "correct": ("ok", "✓", "Correct"),
}


@dataclass(frozen=True, repr=False)
class Verdict(Card):
    """`status` is 'not attempted', 'not yet' or 'correct'; `message` says why; `hints` are those shown so far."""

    status: str = ""
    message: str = ""
    hints: tuple[str, ...] = ()


def shown_anyway(verdict: Verdict) -> Verdict:
    """In IPython, show the verdict when its cell has run, unless it is what the cell ends in, which IPython shows by itself."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    if shell:

        def cell_has_run(result) -> None:
            shell.events.unregister("post_run_cell", cell_has_run)
            if result.result is not verdict:
                ipython.display.display(verdict)

        shell.events.register("post_run_cell", cell_has_run)
    return verdict


def verdict_card(exercise, status: str, message: str, shown: int, standing: str = "") -> Verdict:
    """Draw the verdict on `exercise`. `shown` hints are open, the others folded inside one another."""
    kind, icon, word = LOOKS[status]
    hints = exercise.hints[:shown] if status == "not yet" else ()
    says = message
    if status == "not attempted":
        says = f"{message[:1].upper()}{message[1:]}. Fill it in and run the cell again."
    if status == "not yet":
        text = [f"{icon} {word} {message}", exercise.heading]
    else:
        text = [f"{icon} {word} · {exercise.heading}", says, standing]
    body = paragraph(says) + paragraph(standing)
    if status != "correct":
        body += folded_hints(exercise.hints, opened=len(hints))
        text += [f"Hint {i} of {len(exercise.hints)}: {hint}" for i, hint in enumerate(hints, start=1)]
        if len(hints) < len(exercise.hints):
            text.append(f'For {"another" if hints else "a"} hint: hint("{exercise.id}")')
    aside = f"{prose(exercise.heading)} · {exercise.effort}"
    return Verdict(
        html=frame(kind, icon, word, body, aside),
        text="\n".join(line for line in text if line),
        metadata={"glassbox": {"exercise": exercise.id, "status": status, "message": message}},
        status=status,
        message=message,
        hints=hints,
    )
