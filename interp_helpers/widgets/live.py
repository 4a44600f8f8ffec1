"""Activation patching while one types: a map of two prompts of one's own, and what any patch of it does."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources

from ..engine import Stopped, stop_when
from ..models import ALONE
from ..plotting import Live, html_table
from ..prompts import Pair
from ..sweeps import LivePatches, laid_over, live_events
from .explorer import code, heat_cell, heat_table, site

OPENING = Pair(
    "The Colosseum is in the city of", "The Eiffel Tower is in the city of", "Colosseum", "Eiffel Tower", "", "", "opening"
)  # fmt: skip
PAUSE = 0.25  # seconds without a keystroke before a map is begun
LIVE_VIEW = resources.files(__package__).joinpath("live.js")


class live_patching(Live):
    """Type two prompts; see which patch from the source moves the base's answer, first coarsely, then in every layer. Choose a cell for
    the likeliest next tokens before and after that patch, and send its vector to another token.

    >>> live_patching(lm, pairs("capital")[:2]).choose(layer=25, position=4)
    The capital of Cuba is ← The capital of Austria is
    The patch that changes most is at layer ...
    layer 25, token 4 to token 4:
    base: ' Havana' ...
    patched: ' Vienna' ...
    source: ' Vienna' ...

    Args:
        lm: a `LanguageModel`.
        examples: pairs to begin with and to choose from; by default the Eiffel Tower and the Colosseum.

    Attributes:
        base, source, component, metric, words: what is compared, as in `sweeps.LivePatches`.
        layer, position, to: the patch: where it is read in the source, and at which token of the base it is put.
    """

    def __init__(self, lm, examples: Sequence[Pair] = ()):
        self.lm, self.examples = lm, list(examples) or [OPENING]
        first = self.examples[0]
        self.base, self.source, self.words = first.base, first.source, (first.base_answer, first.source_answer)
        self.component, self.metric = next(iter(LivePatches.COMPONENTS)), next(iter(LivePatches.METRICS))
        self.layer = self.position = self.to = None

    def choose(self, **changes) -> live_patching:
        """Change what is compared, or the patch. New prompts have words of their own; a new place is patched into the same one.

        Raises:
            ValueError: there is no such thing to choose.
        """
        names = ("base", "source", "component", "metric", "words", "layer", "position", "to")
        for name in changes:
            if name not in names:
                raise ValueError(f"There is no {name!r} to choose: {', '.join(names[:-1])} or {names[-1]}.")
        if {"base", "source"} & changes.keys():
            changes = {"words": ("", ""), "layer": None, "position": None, "to": None} | changes
        if "position" in changes:
            changes = {"to": changes["position"]} | changes
        for name, value in changes.items():
            setattr(self, name, value)
        self._widget = self._state = None
        return self

    _state: dict | None = None

    @property
    def asked(self) -> dict:
        """What is compared and patched, as a view asks for it."""
        asked = {name: getattr(self, name) for name in ("base", "source", "component", "metric")}
        cell = {"layer": self.layer, "position": self.position, "to": self.to}
        return asked | {"words": list(self.words), "cell": None if None in (self.layer, self.position) else cell}

    @property
    def state(self) -> dict:
        """What a view shows, whole; computed once."""
        if self._state is None:
            state: dict = {}
            for event in live_events(self.lm, **self.asked):
                state = laid_over(state, event)
            self._state = state | {"asked": self.asked}
        return self._state

    @property
    def html(self) -> str:
        state = self.state
        if "problem" in state:
            return f"<p>{html.escape(state['problem'])}</p>"
        limit = max(abs(x) for x in [*state["ends"], *sum(state["values"], [])]) or 1.0
        rows = [
            (
                code(f"{i} {token}"),
                [
                    heat_cell(layer, token, row[i], limit)
                    for layer, row in zip(state["layers"], state["values"], strict=True)
                ],
            )
            for i, token in enumerate(state["tokens"][0])
        ]
        chosen = (-1, -1) if self.asked["cell"] is None else (self.position, self.layer)
        ticks = [f"{layer}" if layer % 5 == 0 else "" for layer in range(state["of"])]
        caption = f"Patching the {self.component} from “{self.source}” into “{self.base}”: {state['metric']}."
        told = heat_table(rows, chosen, ticks, caption) + f"<p>{html.escape(state['said'])}</p>"
        if "top" in state:
            top = state["top"]
            table = [[f"{code(token)} {share:.1%}" for token, share in row] for row in zip(*top.values(), strict=True)]
            where = f"Layer {self.layer}: the source's token {self.position} is sent to the base's token {self.to}."
            told += site(self.layer, self.position, where) + html_table([f"{name} run" for name in top], table)
        return f'<div style="line-height:1.5">{told}</div>'

    def __repr__(self) -> str:
        state = self.state
        lines = [f"{self.base} ← {self.source}", state.get("problem") or state["said"]]
        if "top" in state:
            lines.append(f"layer {self.layer}, token {self.position} to token {self.to}:")
            lines += [
                f"{name}: " + ", ".join(f"{token!r} {share:.1%}" for token, share in top)
                for name, top in state["top"].items()
            ]
        return "\n".join(lines)

    def _form(self):
        examples = [
            {"base": pair.base, "source": pair.source, "words": [pair.base_answer, pair.source_answer]}
            for pair in self.examples
        ]
        choices = {
            "components": list(LivePatches.COMPONENTS),
            "metrics": list(LivePatches.METRICS),
            "examples": examples,
        }
        view = _view()(choices=choices, state=self.state)

        def put(asked: Mapping, event: Mapping) -> None:
            shown = view.state = laid_over(view.state, event) | {"number": asked["number"], "asked": asked}
            if self._widget is not view:  # something else was chosen by code since
                return
            for name in ("base", "source", "component", "metric", "words"):
                setattr(self, name, asked[name])
            place = asked["cell"] or dict.fromkeys(("layer", "position", "to"))
            self.layer, self.position, self.to = (place[name] for name in ("layer", "position", "to"))
            whole = "problem" in shown or len(shown.get("layers", ())) == shown.get("of", -1)
            self._state = shown if whole else None  # what is told as text is told whole

        worker = Worker(lambda asked: live_events(self.lm, **{k: v for k, v in asked.items() if k != "number"}), put)
        view.observe(lambda change: worker.ask(change["new"]), names="asked")
        return view


class Worker:
    """A thread that works on what was asked for last, and drops what was asked for before.

    Args:
        work: from what is asked for to events.
        put: called with what was asked for and each event, in the thread.
    """

    def __init__(self, work: Callable[[Mapping], Iterator[dict]], put: Callable[[Mapping, dict], None]):
        self._work, self._put, self._asked = work, put, {}
        self._new, self._thread = threading.Event(), None

    def ask(self, asked: Mapping) -> None:
        self._asked = asked
        self._new.set()
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="live patching", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            self._new.wait()
            self._new.clear()
            asked = self._asked
            if not ALONE.acquire(timeout=2):
                busy = "Another cell runs the model, or an `intervene` was left open: this goes on as soon as the model is free."
                self._put(asked, {"waiting": busy})
                ALONE.acquire()
            ALONE.release()
            try:
                with stop_when(self._new.is_set):
                    for event in self._work(asked):
                        if self._new.is_set():
                            break
                        self._put(asked, event)
                        if "words" in event and self._new.wait(PAUSE):
                            break
            except Stopped:
                pass
            except Exception as error:  # a dead thread would be a dead form
                said = f"Something failed inside ({type(error).__name__}: {error}). Change a prompt to try again."
                self._put(asked, {"tokens": None, "problem": said})


@cache
def _view() -> type:
    """The form's class; made when it is needed, for anywidget is imported late, as ipywidgets is."""
    import anywidget
    import traitlets

    class LiveView(anywidget.AnyWidget):
        _esm = LIVE_VIEW.read_text("utf-8")
        choices = traitlets.Dict().tag(sync=True)
        state = traitlets.Dict().tag(sync=True)
        asked = traitlets.Dict().tag(sync=True)

    return LiveView
