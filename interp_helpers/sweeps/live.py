"""Activation patching while somebody types: two prompts, a map that comes in steps, and what one patch of it does.

What is found is told as *events*, dicts of JSON, of which `laid_over` makes a view's state: the notebook's view and the live page
are drawn from the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice

from ..edits import replace
from ..hooks import intervene, record
from ..metrics import kl_divergence, logit_diff, probability
from ..sites import Site
from .patching import patch_sweep
from .sweep import Sweep


class LivePatches:
    """Every patch of a component's residual vectors from a source prompt into a base prompt, in steps.

    >>> live = LivePatches(lm, base, source)
    >>> live.words  # each prompt's own likeliest next token
    (' Rome', ' Paris')
    >>> for sweep in live.sweeps():
    ...     print(len(sweep.labels["layer"]), "layers of", lm.n_layers)
    5 layers of 30
    9 layers of 30
    30 layers of 30
    >>> [(token, round(p, 1)) for token, p in live.top_tokens(layer=10, position=2, k=1)["patched"]]
    [(' Paris', 0.7)]

    Args:
        lm: a `LanguageModel`.
        base, source: two prompts of as many tokens, 2 to `MOST`.
        component: one of `COMPONENTS`.
        metric: one of `METRICS`.
        words: the base's and the source's answer, each one token; an empty one is the prompt's own likeliest next token, and the space at
            the beginning may be left out.

    Attributes:
        COMPONENTS: names for people, and the components that they stand for.
        METRICS: names for people.
        MOST: how many tokens a prompt may have.
        tokens: those of the base and those of the source, as text.

    Raises:
        ValueError: no prompt, or no such component or metric. Prompts that can't be compared, and words that are not one token, are told
            of by `sweeps`.
    """

    COMPONENTS = {"residual stream": "block_output", "attention": "attention_output", "MLP": "mlp_output"}
    METRICS: Mapping[str, Callable] = {
        "logit difference": lambda live: logit_diff(live.lm, live.words[1], live.words[0]),
        "probability of the source's answer": lambda live: probability(live.lm, live.words[1]),
        "KL from the base run": lambda live: kl_divergence(live.ends[:1]),
    }
    MOST = 40

    def __init__(
        self,
        lm,
        base: str,
        source: str,
        component: str = "residual stream",
        metric: str = "logit difference",
        words: Sequence[str] = ("", ""),
    ):
        for kind, name, choices in (("component", component, self.COMPONENTS), ("metric", metric, self.METRICS)):
            if name not in choices:
                raise ValueError(f"There is no {kind} {name!r}: choose one of {', '.join(choices)}.")
        for name, prompt in (("base", base), ("source", source)):
            if not prompt.strip():
                raise ValueError(f"The {name} prompt is empty: write a sentence that breaks off before its answer.")
        self.lm, self.base, self.source = lm, base, source
        self.component, self.metric, self._words = component, metric, words
        self.tokens = lm.str_tokens(base), lm.str_tokens(source)

    @classmethod
    def require_length(cls, base: int, source: int) -> None:
        """
        Raises:
            ValueError: a prompt of so many tokens is too short or too long.
        """
        for name, n in (("base", base), ("source", source)):
            if not 2 <= n <= cls.MOST:
                do = "write more" if n < 2 else "shorten it"
                raise ValueError(
                    f"The {name} prompt has {n} token{'s' * (n > 1)}, and 2 to {cls.MOST} are taken: {do}."
                )

    @cached_property
    def ends(self):
        """The logits (2, vocab) after the base and after the source."""
        self.require_length(*map(len, self.tokens))
        return self.lm.next_token_logits([self.base, self.source])

    @cached_property
    def words(self) -> tuple[str, str]:
        """The base's and the source's answer."""
        own = (self.lm.top_of(logits, 1)[0][0] for logits in self.ends)
        return tuple(_word(given, likeliest) for given, likeliest in zip(self._words, own, strict=True))

    @cached_property
    def _metric(self):
        return self.METRICS[self.metric](self)

    def sweeps(self) -> Iterator[Sweep]:
        """The sweep of more and more layers, of shares of the way where the metric is a logit difference."""
        ours, theirs = map(len, self.tokens)
        self.require_length(ours, theirs)
        if ours != theirs:
            raise ValueError(
                f"The base prompt has {ours} tokens and the source prompt {theirs}, and patches go from a token to the one at the same "
                "place: write prompts of as many tokens."
            )
        if self.base == self.source:
            raise ValueError("Both prompts are the same, so every patch changes nothing: change a word in one of them.")
        shares = self.metric == "logit difference"
        if shares and self.words[0] == self.words[1]:
            raise ValueError(
                f"Both prompts go on with {self.words[0]!r}, so no difference can be measured: change a prompt, or name two words."
            )
        component = self.COMPONENTS[self.component]
        yield from patch_sweep(
            self.lm, self.base, self.source, self._metric, component, normalize=shares, progressive=True
        )

    def events(self) -> Iterator[dict]:
        """What a view is drawn from: the tokens, the words, and the map after each step."""
        yield {"tokens": self.tokens}
        yield {"words": self.words}
        for sweep in self.sweeps():
            yield self.map(sweep)

    def map(self, sweep: Sweep) -> dict:
        """The event of a sweep; `layers` are those of its rows, of `of` there are."""
        return {
            "layers": sweep.labels["layer"],
            "of": self.lm.n_layers,
            "values": [[round(value, 4) for value in row] for row in sweep.values.tolist()],
            "ends": [round(float(sweep.base), 4), round(float(sweep.source), 4)],
            "metric": sweep.metric,
            "said": self.finding(sweep),
        }

    def has(self, cell: Mapping) -> bool:
        """Whether both prompts have the tokens of a patch (the arguments of `patch`)."""
        to = cell["position"] if cell.get("to") is None else cell["to"]
        return max(cell["position"], to) < min(map(len, self.tokens))

    def patch(self, layer: int, position: int, to: int | None = None) -> dict:
        """The event of one patch: the likeliest next tokens before and after. See `top_tokens`."""
        top = self.top_tokens(layer, position, to)
        return {"cell": {"layer": layer, "position": position, "to": position if to is None else to}, "top": top}

    def top_tokens(
        self, layer: int, position: int, to: int | None = None, k: int = 5
    ) -> dict[str, list[tuple[str, float]]]:
        """The likeliest next tokens of the base run, of the source run, and of the base run with one patch: {"base": [(token,
        probability), …], "patched": …, "source": …}.

        Args:
            layer, position: where the source is read.
            to: the base's token at which it is put; by default the one at the same place.
            k: how many tokens.

        Raises:
            ValueError: no such layer or token.
        """
        read = Site(self.COMPONENTS[self.component], layer, position)
        there = Site(read.component, layer, position if to is None else to)
        with intervene(self.lm, replace(there, record(self.lm, self.source, read)[read])):
            patched = self.lm.next_token_logits(self.base)[0]
        runs = {"base": self.ends[0], "patched": patched, "source": self.ends[1]}
        return {name: self.lm.top_of(logits, k) for name, logits in runs.items()}

    def finding(self, sweep: Sweep) -> str:
        """What a map shows, in words."""
        layers, n = sweep.labels["layer"], self.lm.n_layers
        so_far = "" if len(layers) == n else f" So far {len(layers)} of {n} layers are measured."
        moved = (sweep.values - sweep.base).abs()
        if self.component == "residual stream":
            moved[-1, -1] = 0  # the last block's last token goes all of the way in every model
        row, column = divmod(int(moved.argmax()), moved.shape[1])
        value, place = (
            float(sweep.values[row, column]),
            f"layer {layers[row]}, token {column} {self.tokens[0][column].strip()}",
        )
        said = f"The patch that changes most is at {place}: "
        if self.metric != "logit difference":
            return f"{said}{sweep.metric} {value:.2f}, {float(sweep.base):.2f} without a patch.{so_far}"
        over = next((layer for layer, row in zip(layers, sweep.values, strict=True) if row[-1] > 0.5), None)
        last = "no patch at the last token goes half of the way" if over is None else (
            f"at the last token, layer {over} is the first that goes more than half of the way"
        )  # fmt: skip
        return f"{said}{value:.2f} of the way from {self.words[0]!r} to {self.words[1]!r}; {last}.{so_far}"


def _word(given: str, likeliest: str) -> str:
    """The answer that was given, with the space that the prompt's own begins with; or that one, where none was given."""
    if not given.strip():
        return likeliest
    return given if given[0].isspace() or not likeliest[:1].isspace() else f" {given}"


def live_events(lm, cell: Mapping | None = None, map: bool = True, **asked) -> Iterator[dict]:
    """What a request asks for: what one patch does (`cell`: the arguments of `LivePatches.patch`), and the map (`LivePatches.events`);
    or a problem, in a sentence. `asked` are the arguments of `LivePatches`."""
    live = None
    try:
        live = LivePatches(lm, **asked)
        events = live.events() if map else iter(())
        yield from islice(events, 2)  # the tokens and the words, before what is said of them
        if cell and (not map or live.has(cell)):
            yield live.patch(**cell)
        yield from events
    except ValueError as error:
        yield {"problem": str(error), "tokens": live and live.tokens}


def laid_over(state: Mapping, event: Mapping) -> dict:
    """A view's state with an event laid over it: new tokens, or a problem, take away all that was there, but the words."""
    kept = {name: state[name] for name in state if name != "waiting" and (name == "words" or "tokens" not in event)}
    return kept | event
