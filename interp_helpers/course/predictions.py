"""Predict first: the learner commits to a guess before the cell that measures, and sees the two side by side.

The guess is kept in the progress file. Nothing ever waits for it: *Run All* goes past, and `reveal` then says that
there was none.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..plotting import Live
from .progress import entry, update
from .render import Card, frame, paragraph, prose, table


class Prediction(Live):
    """What `predict` displays: the question and a way to answer it. `widget` is the live form of it."""

    def __init__(self, id: str, question: str, choices: tuple, low, high, unit: str):
        self.id, self.question, self.choices, self.low, self.high, self.unit = id, question, choices, low, high, unit
        self.trouble = ""

    @property
    def kept(self):
        """The prediction on record, if it still is an answer to this question; else None."""
        answer = entry("prediction", self.id).get("answer")
        return answer if answer is not None and self.understood(answer) == answer else None

    def understood(self, answer):
        """The answer as it is kept: a choice (given whole or by letter), a number within reach, a text; else None."""
        if self.choices:
            letters = {letter(i): choice for i, choice in enumerate(self.choices)}
            return answer if answer in self.choices else letters.get(str(answer).strip().lower())
        if self.low is None:
            return answer if isinstance(answer, (int, float)) else str(answer).strip() or None
        number = as_number(answer)
        return number if number is not None and self.low <= number <= self.high else None

    def lock(self, answer) -> bool:
        """Record an answer; False, with `trouble` set, if it isn't an answer to the question."""
        value = None if answer is None else self.understood(answer)
        if value is None:
            self.trouble = f"Please answer with {self.wanted}."
            return False
        self.trouble = ""
        update("prediction", self.id, answer=value, unit=self.unit, question=self.question)
        return True

    @property
    def wanted(self) -> str:
        if self.choices:
            return "one of " + ", ".join(f"{letter(i)}) {choice}" for i, choice in enumerate(self.choices))
        if self.low is None:
            return "a word or two"
        return f"a number from {self.low:g} to {self.high:g}" + (f" ({self.unit})" if self.unit else "")

    @property
    def status(self) -> str:
        if self.trouble:
            return self.trouble
        if self.kept is None:
            return ""
        return f"You predict: {shown(self.kept, self.unit)}. It is kept; the result comes below."

    @property
    def html(self) -> str:
        options = "".join(f"<li>{prose(str(choice))}</li>" for choice in self.choices)
        how = f'predict("{self.id}", …, answer=…)'
        body = paragraph(self.question)
        body += f'<ol style="list-style-type:lower-alpha;margin:.2em 0">{options}</ol>' if options else ""
        body += paragraph(self.status or f"Think of {self.wanted} before you read on. In a running notebook: `{how}`")
        return frame("info", "?", "Predict first", body)

    def __repr__(self) -> str:
        lines = [f"? Predict first: {self.question}"]
        lines += [f"   {letter(i)}) {choice}" for i, choice in enumerate(self.choices)]
        answer_with = "" if self.choices else f"{self.wanted}: "
        return "\n".join([*lines, self.status or f'{answer_with}predict("{self.id}", …, answer=…)'])

    def _form(self):
        """The question, a control, a button that locks the answer in (and opens it again), and what was said."""
        import ipywidgets as w

        kept = self.kept
        wide = w.Layout(width="max-content", max_width="100%")
        if self.choices:
            control = w.RadioButtons(options=list(self.choices), value=kept, layout=wide)
        elif self.low is None:
            control = w.Text(value="" if kept is None else str(kept), placeholder="your prediction")
        else:
            whole = isinstance(self.low, int) and isinstance(self.high, int)
            low, high = self.low, self.high
            middle = (low + high) // 2 if whole else (low + high) / 2
            start = middle if kept is None else int(kept) if whole else kept
            kind, extra = (w.IntSlider, {}) if whole else (w.FloatSlider, {"step": (high - low) / 100})
            control = kind(value=start, min=low, max=high, description=self.unit, **extra)
        button = w.Button(layout=wide)
        said = w.HTML()

        def refresh() -> None:
            control.disabled = self.kept is not None and not button.reopened
            button.description = "change my prediction" if control.disabled else "lock in my prediction"
            said.value = f'<div role="status" class="glassbox-predicted">{prose(self.status)}</div>'

        def pressed(_) -> None:
            if control.disabled:
                button.reopened = True
            else:
                button.reopened = not self.lock(control.value)
            refresh()

        button.reopened = False
        button.on_click(pressed)
        refresh()
        return w.VBox([w.HTML(f"<strong>Predict first.</strong> {prose(self.question)}"), control, button, said])


def predict(
    id: str, question: str, *, choices: Sequence = (), low=None, high=None, unit: str = "", answer=None
) -> Prediction:
    """Ask for a prediction: one of `choices`, a number from `low` to `high`, or (neither given) a few words.

    >>> predict("demo.share", "What share of the way does it move?", low=0, high=100, unit="%", answer=40)
    ? Predict first: What share of the way does it move?
    You predict: 40 %. It is kept; the result comes below.

    End the cell with it. Where buttons can't run, `answer=` records the prediction.
    """
    if id.count(".") != 1 or not all(id.split(".")):
        raise ValueError(f"an id is '<notebook>.<slug>', such as 'patching.where'; got {id!r}")
    if (low is None) != (high is None) or (choices and low is not None) or (low is not None and low >= high):
        raise ValueError("give either choices, or low and high with low < high, or none of them")
    prediction = Prediction(id, question, tuple(choices), low, high, unit)
    if answer is not None and answer is not ...:
        prediction.lock(answer)
    return prediction


def reveal(id: str, measured, explanation: str = "") -> Card:
    """Show the result beside what was predicted.

    >>> asked = predict("demo.share", "What share of the way does it move?", low=0, high=100, unit="%", answer=40)
    >>> reveal("demo.share", 87, "The patched token carries the city.")
    → Prediction and result
    your prediction measured
    40 % 87 %
    Your prediction was 47 percentage points too low.
    The patched token carries the city.
    """
    kept = entry("prediction", id)
    unit = kept.get("unit", "")
    try:
        measured = measured.item()  # a tensor's or an array's only number
    except (AttributeError, ValueError, RuntimeError):
        pass
    if "answer" not in kept:
        note = "No prediction was recorded. To compare, lock one in above and run this cell again."
        rows = [["measured"], [shown(measured, unit)]]
    else:
        note = _compared(kept["answer"], measured, unit)
        rows = [["your prediction", "measured"], [shown(kept["answer"], unit), shown(measured, unit)]]
    html, plain = table(rows)
    body = html + paragraph(note) + paragraph(explanation)
    text = ["→ Prediction and result", plain, note, explanation]
    return Card(frame("info", "→", "Prediction and result", body), "\n".join(line for line in text if line))


def letter(i: int) -> str:
    """The letter of a choice: `letter(0)` is "a"."""
    return "abcdefghijklmnopqrstuvwxyz"[i]


def as_number(value) -> float | int | None:
    """The value as a number, or None if it isn't one (True isn't)."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def shown(value, unit: str = "") -> str:
    """A value as the reader sees it: `shown(0.12345)` is '0.1235', `shown(87, "%")` '87 %'."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"{text} {unit}".strip()


def _compared(predicted, measured, unit: str) -> str:
    if shown(predicted).strip().lower() == shown(measured).strip().lower():
        return "As you predicted."
    guess, result = as_number(predicted), as_number(measured)
    if guess is None or result is None:
        return "Not what you predicted: worth a moment's thought about why."
    side = "high" if guess > result else "low"
    by = "percentage points" if unit == "%" else unit  # 47 % too low would be another thing
    return f"Your prediction was {shown(abs(guess - result), by)} too {side}."
