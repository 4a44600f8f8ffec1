"""Exercises of notebook 05, collecting activations."""

from __future__ import annotations

import random
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from ...course import NotYet, exercise, require, require_attempted, require_number, require_returned, short
from ...edits import add, apply, project_out, zero
from ...hooks import Activations, intervene
from ...sites import Site
from ...sweeps import fit_probe


def _refuse(made: dict[str, object], table: str, **numbers) -> None:
    """Tell the first slip that was made, which a function may find out; `table` has a line for each: its name, a colon, the sentence."""
    sentences = dict(line.split(": ", 1) for line in table.strip().splitlines())
    for slip, happened in made.items():
        require(not (happened() if callable(happened) else happened), sentences[slip].format(**numbers))


ENTERING = """
out: that is what *leaves* the sixth block (layer 5); what enters it was asked for
early: that is what leaves the fourth block (layer 3) and enters the fifth; one further on
late: layer 6 is the seventh block, and you have what leaves it: blocks are counted from 0
padding: for the longest prompt it is right; in the shorter rows the last column is *padding*: let a Site count from the end of each row's own tokens
first: that is the *first* token of each prompt
before: that is the last token but one: -1 is the last
attention: that is what an attention layer *adds* to the stream, not the stream itself
mean: that is the mean over all columns; the last token of each prompt was asked for
"""


@exercise("collecting.read", number=1, title="The last token of every prompt", difficulty=1, minutes=4)
def _(answer, lm, acts: Activations):
    """
    - Only block outputs and attention outputs were recorded. What enters a block is what left the one before it.
    - The sixth block is layer 5, so what enters it left layer 4. And `batch[…][:, -1]` is the last *column*: is that the last token of the short prompts?
    - A `Site` with `positions=-1` counts from the end of each row's own tokens. It leaves an axis for its one token: look at the shape.
    """
    if isinstance(answer, list | tuple) and answer and all(isinstance(one, Tensor) for one in answer):
        alike = len({one.shape for one in answer}) == 1
        require(alike, "your list holds tensors of different shapes: one vector a prompt was asked for")
        answer = torch.stack([*answer])
    answer = torch.from_numpy(answer) if isinstance(answer, np.ndarray) else answer
    require(isinstance(answer, Tensor), f"a tensor (prompt, d) was expected, and {short(answer)} was given")
    rows, shape = len(acts.layout.lengths), tuple(answer.shape)
    got, says = answer.detach().float().cpu(), f"your tensor has shape {shape}"
    require(len(shape) != 3 or 1 not in shape[:2], f"{says}: an axis of length 1 is left, and (prompt, d) has none")
    whole = acts["block_output", 4].float().cpu()
    every = f"{says}: every token of each prompt, padding included, and only the last one was asked for"
    require(got.shape != whole.shape, every)
    require(shape == (rows, lm.d_model), f"{says}, and (prompt, d) = {(rows, lm.d_model)} was expected")

    def like(other: Tensor) -> bool:
        return torch.allclose(got, other, atol=1e-4, rtol=1e-4)

    def at(component: str = "block_output", layer: int = 4, position: int = -1) -> bool:
        return like(acts[Site(component, layer, position)][:, 0].float().cpu())

    if at():
        return "One vector a prompt, each from its own last token, whatever the lengths."
    slips = {"out": at(layer=5), "early": at(layer=3), "late": at(layer=6), "padding": like(whole[:, -1])}
    slips |= {"first": at(position=0), "before": at(position=-2), "mean": like(whole.mean(1))}
    slips["attention"] = at("attention_output") or at("attention_output", 5)
    _refuse(slips, ENTERING)
    raise NotYet("the shape is right, and the vectors are not those that enter the sixth block at each last token")


def _words_of(session: int) -> type:
    """Strings whose hash is another one, as it is in another session of Python."""
    return type("Word", (str,), {"__hash__": lambda word: hash((str(word), session))})


@exercise("collecting.control", number=2, title="A control task", difficulty=2, minutes=7)
def _(answer, countries):
    """
    - Toss the coin once for each *different* country, not once for each sentence. Then look up the toss for every sentence.
    - `random.Random(seed)` is a generator of its own: the same seed gives the same tosses. `sorted(set(countries))` has each country once, in an order that doesn't change from run to run.
    - A dictionary from country to toss, filled country by country in that order; then a list that looks up every sentence's country in it.
    """
    require(callable(answer), f"the answer is your function `control_labels`, and you gave {short(answer)}")
    invented = [f"country {i % 40}" for i in range(120)]

    def ask(names: list[str], seed: int) -> list[int]:
        given = require_returned(answer(list(names), seed))
        each = "one label for each sentence was asked for"
        require(not isinstance(given, dict), f"you returned the dictionary of tosses; {each}")
        labels = np.asarray(given).ravel().tolist()
        n, kinds = len(names), sorted(set(labels))
        require(len(labels) == n, f"for {n} sentences you returned {len(labels)} labels; {each}")
        require(set(labels) <= {0, 1}, f"a label is 0 or 1, and {kinds[:4]} came back")
        return [int(label) for label in labels]

    for names in (list(countries), invented):
        labels = ask(names, 0)
        of: dict[str, set[int]] = {}
        for name, label in zip(names, labels, strict=True):
            of.setdefault(name, set()).add(label)
        torn = next((name for name, seen in of.items() if len(seen) > 1), None)
        different = f"two sentences about {torn} got different labels. That is the control with *shuffled* labels; here a country keeps its label"
        require(torn is None, different)
        require(len(set(labels)) == 2, f"every sentence got the label {labels[0]}: nothing is left to tell apart")
        own = "asked twice with the same seed, your function gave different labels: use a generator of its own, `random.Random(seed)`"
        require(ask(names, 0) == labels, own)
    for seed in range(4):
        sessions = {tuple(ask([*map(_words_of(session), invented)], seed)) for session in range(3)}
        same = "in another session of Python the same seed would give other labels: the `hash` of a word changes there, and so does the order of a `set`"
        require(len(sessions) == 1, same)
    drawn = [ask(invented, seed) for seed in range(40)]
    apart = {tuple(label ^ row[0] for label in row) for row in drawn[:8]}  # which countries differ from the first
    rule = "a probe might have reason to know it"
    by_word = f"every seed gives the same labels: a rule that depends on the word alone is no coin toss, and {rule}"
    require(len({*map(tuple, drawn)}) > 1, by_word)
    turned = f"another seed turns all labels round, or none: which countries are told apart follows a rule, and {rule}"
    require(len(apart) > 3, turned)
    ones = np.mean(drawn)
    require(0.4 < ones < 0.6, f"over many seeds {ones:.0%} of the labels are 1: a fair coin was asked for")
    agree = np.mean([[row[0] == label for label in row[1:40]] for row in drawn])
    require(agree < 0.7, "countries tend to get the same label: toss anew for each of them")
    return "These labels mean nothing, so a probe can predict them only for countries that were in its training."


def _settles(lm, streams: Tensor, answer: int) -> int | None:
    tops = lm.unembed(streams).argmax(-1).tolist()
    if tops[-1] != answer:
        return None
    return max((layer + 1 for layer, top in enumerate(tops) if top != answer), default=0)


def _second(lm, yes: Tensor, no: Tensor, wanted: int) -> Tensor | None:
    """A mixture of two streams for which the lens has a token in the second place."""
    low, high = 0.0, 1.0
    for _ in range(40):
        mixed = (low + high) / 2 * yes + (1 - (low + high) / 2) * no
        logits = lm.unembed(mixed[None])[0]
        place = int((logits > logits[wanted]).sum())
        if place == 1:
            return mixed
        low, high = ((low + high) / 2, high) if place else (low, (low + high) / 2)
    return None


SETTLES = """
first: {said} layer 1, where the answer is on top for the first time; it is lost again at layer 2
last: {said} layer 4; layer 3 has the answer already
miss: {said} layer 2, the last miss; the next one settles
other: {said} {got}, and the lens settles at layer 3
"""


@exercise("collecting.settles", number=3, title="When is the lens sure?", difficulty=2, minutes=8)
def _(answer, lm, streams: Tensor):
    """
    - `lm.unembed(streams)` has a row of logits for each layer; `.argmax(-1)` is each layer's top token.
    - The answer may appear, be lost and come back: what counts is the last layer where it is *not* on top.
    - Go through the layers from the end: as long as the top token is the answer, keep the layer; at the first that differs, stop.
    """
    require(callable(answer), f"the answer is your function `settles`, and you gave {short(answer)}")
    tops = lm.unembed(streams).argmax(-1)
    raw = lm.anatomy.unembedding(streams).argmax(-1)
    # A stack of layers made to order from real streams: a hit, a miss, then hits.
    yes, wanted = streams[-1][0], int(tops[-1, 0])
    others = streams.reshape(-1, streams.shape[-1])[(tops != wanted).flatten()]
    require(len(others) > 0, "the lens reads one and the same token everywhere on this model, so nothing can be tested")
    no = others[0]

    def ask(stack: Tensor, token: int | str = wanted) -> int | None:
        found = require_attempted(answer(stack, token))
        many = isinstance(found, list | tuple | bool) or getattr(found, "ndim", 0) > 0
        require(not many, f"one layer was expected, and {short(found)} came back")
        return None if found is None else int(require_number(found))

    for layer, column in (raw != tops).nonzero()[:1].tolist():  # where leaving out the norm shows
        one = streams[layer, column][None]
        word = lm.top_of(lm.unembed(one)[0], 1)[0][0]
        norm = f"at layer {layer} the lens has {word!r} on top and you see another token: the final norm comes before the unembedding, and `lm.unembed` does both"
        require(ask(one, int(tops[layer, column])) is not None or ask(one, int(raw[layer, column])) is None, norm)
    got = ask(torch.stack([no, yes, no, yes, yes]))
    said = "on a small stack of hits and misses (miss, hit, miss, hit, hit) you found"
    if got is None:
        try:
            by_word = ask(torch.stack([no, yes]), lm.tokenizer.decode([wanted])) == 1
        except Exception:
            by_word = False
        require(not by_word, "you compare the top *word* with `answer`, and `answer` is a token id")
        raise NotYet(f"{said} None: is there a `return`?")
    _refuse({"first": got == 1, "last": got == 4, "miss": got == 2, "other": got != 3}, SETTLES, said=said, got=got)
    second = _second(lm, yes, no, wanted)
    few = "you settle where the answer is among the first few tokens; *on top* was asked for, where no other token is likelier"
    require(second is None or ask(torch.stack([second, yes])) != 0, few)
    got = ask(torch.stack([yes, yes]))
    require(got == 0, f"where the answer is on top at every layer the lens settles at layer 0, and you found {got}")
    got = ask(torch.stack([no, yes, no]))
    require(got is None, f"where the last layer has another token on top, `None` was asked for, and you found {got}")
    found = [ask(streams[:, i], int(tops[-1, i])) for i in range(streams.shape[1])]
    truth = [_settles(lm, streams[:, i], int(tops[-1, i])) for i in range(streams.shape[1])]
    require(found == truth, f"on the notebook's own prompts the layers are {truth}, and you found {found}")
    return f"On these prompts the lens settles at layer {min(truth)} at the earliest; the last layer is {len(streams) - 1}."


MEANS = """
count: {got:g} is a count or a percentage; a share between 0 and 1 was asked for
zero: you compare the dot product with 0; the line belongs half-way between the two means
all: your means are taken over all statements, the test's among them: only the training ones may be used
test: your means are taken over the *test* statements
train: that is the accuracy on the statements that the means were taken from; the held-out ones were asked for
median: you take medians; the *means* of the two classes were asked for
wrong: that is the share of *wrong* answers, or the direction points from true to false
one: your line runs through one class's mean; it belongs half-way between the two
trained: that is what a *trained* probe gets; here nothing is trained, and the two means are all that is used
layer: your function finds {got:.3f} at every layer: does it use `layer`?
other: at layer {layer} the accuracy is {wanted:.3f}, and you found {got:.3f}
"""


@exercise("collecting.means", number=4, title="A probe without training", difficulty=2, minutes=8)
def _(answer, streams: Tensor, labels, train, test):
    """
    - `streams[layer][train]` are the training vectors, `true[train]` tells which are true; a direction is a difference of two means.
    - A dot product with the direction gives one number a statement. Where between the two means' numbers would you draw the line?
    - Take the point in the middle between the two means away from each test statement. Then the sign of the dot product is the prediction.
    """
    require(callable(answer), f"the answer is your function `means_accuracy`, and you gave {short(answer)}")
    y = torch.as_tensor(np.asarray(labels)).bool()
    fit_on, test_on = torch.as_tensor(np.asarray(train)), torch.as_tensor(np.asarray(test))
    x = streams.detach().float().cpu().clone()
    writes = "your function writes into `streams`, which the cells below use as well: `x -= …` changes the tensor itself, and `x = x - …` makes a new one"

    def ask(layer: int):
        try:
            given = require_attempted(answer(layer))
            require(torch.equal(streams.detach().float().cpu(), x), writes)
            return given
        finally:
            streams.copy_(x)

    def truth(layer: int, fit=fit_on, score=test_on, line: str = "middle", centre=torch.mean) -> float:
        xs, ys = x[layer][fit], y[fit]
        high, low = (centre(rows, 0) for rows in (xs[ys], xs[~ys]))
        at = {"middle": (high + low) / 2, "zero": torch.zeros_like(high), "false": low, "true": high}[line]
        return float(((((x[layer][score] - at) @ (high - low)) > 0) == y[score]).float().mean())

    medians = (lambda rows, _: rows.quantile(0.5, 0), lambda rows, _: rows.median(0).values)
    found: list[float] = []
    for layer in range(len(x)):
        given = ask(layer)
        many = getattr(given, "shape", ()) == (len(test_on),)
        single = f"{len(test_on)} numbers came back, one a statement; the share of right answers was asked for"
        require(not many, single)
        found.append(require_number(given))

    def like(values, by: float = 1) -> bool:
        return bool(np.allclose(found, by * np.asarray(values), atol=1e-6))

    def slip(**options) -> bool:
        return like([truth(layer, **options) for layer in range(len(x))])

    wanted = [truth(layer) for layer in range(len(x))]
    if not like(wanted):
        trained = fit_probe(x[:, fit_on], y[fit_on]).score(x[:, test_on], y[test_on])
        slips = {"count": like(wanted, len(test_on)) or like(wanted, 100), "layer": np.ptp(found) < 1e-9}
        slips |= {"zero": slip(line="zero"), "all": slip(fit=torch.arange(len(y))), "test": slip(fit=test_on)}
        slips |= {"train": slip(score=fit_on), "wrong": like(1 - np.asarray(wanted)), "trained": like(trained)}
        slips |= {
            "median": any(slip(centre=centre) for centre in medians),
            "one": slip(line="false") or slip(line="true"),
        }
        layer = next(i for i in range(len(x)) if abs(found[i] - wanted[i]) > 1e-6)
        _refuse(slips | {"other": True}, MEANS, got=found[layer], layer=layer, wanted=wanted[layer])
    best = max(wanted)
    return f"Nothing was trained, and at the best layer it is right about {best:.0%} of the held-out statements."


USED = """
undivided: {got:.3f} is the gap that is left; the *share* of the untouched run's gap was asked for
whole: {got:.3f} is the gap of the untouched run
gone: {got:.3f} is the share that is *gone*; what is left was asked for
nothing: nothing changed: is the metric read inside the `with` (and for only one of the two gaps), and does the edit take away what the stream *has* along the direction?
percent: {got:.1f} is a percentage; a share was asked for
difference: {got:.3f} is the difference of the two gaps, and a share was asked for
inverse: you divided the wrong way round: what is left, by what there was
sign: the sign is turned round: the gap is the true statements' mean minus the false ones'
one: you compare one kind of statement only; a gap is the *difference* between the true ones' mean and the false ones'
ratios: you average a ratio over the cities; the share is the ratio of two gaps, and each gap a difference of means
last: you projected at the prompt's *last* token; the direction was found at the country's, in `few_places`
every: you projected at every token; the country's alone was asked for, in `few_places`
row: you use the first prompt's place in all prompts; each has its own, in `few_places`
input: you projected what *enters* the block; the stream that leaves it was asked for
next: you projected one layer further on
length: h − (h·v)v takes out a direction only if v has length 1; `project_out` sees to that
zero: you set the whole stream to zero there; only one direction of it was to go
add: you added the direction, or subtracted all of it; `project_out` removes what the stream *has* along it
section5: that is the share over all prompts of section 5; those in `few` were asked for
fixed: two quite different directions give one and the same share: does your edit use `direction`?
layer: layer {layer} and layer {other} give one and the same share: does your site use `layer`?
else: at layer {layer} the share is {wanted:.3f}, and you found {got:.3f}: compare site, place, edit and metric with what was asked
"""


@exercise("collecting.used", number=5, title="Is it used?", difficulty=3, minutes=10)
def _(answer, lm, prompts, places, true, metric, directions, section5):
    """
    - Three steps: measure while nothing is changed, measure with the direction projected out, compare the two gaps.
    - Which component, which layer, which place? The place is the country's token of each prompt, and the metric is read inside the `with`.
    - A gap is the mean of `true_over_false` over the prompts with a true statement, minus its mean over the others.
    """
    require(callable(answer), f"the answer is your function `gap_left`, and you gave {short(answer)}")
    y = torch.as_tensor(np.asarray(true)).bool()
    layer, other = len(directions) // 3, 2 * len(directions) // 3
    direction = 3 * directions[layer] / directions[layer].norm()  # no unit vector, so that a forgotten division shows
    axis = torch.nn.functional.one_hot(torch.tensor(random.Random(0).randrange(lm.d_model)), lm.d_model).to(direction)

    def lean(*edits, asked=prompts) -> Tensor:
        with intervene(lm, *edits) if edits else nullcontext():
            return metric(lm.next_token_logits(asked)).float().cpu()

    def between(values: Tensor, y=y) -> float:
        return float(values[y].mean() - values[~y].mean())

    def gap(*edits, asked=prompts, y=y) -> float:
        return between(lean(*edits, asked=asked), y)

    def at(component: str = "block_output", layer: int = layer, positions=places) -> Site:
        return Site(component, layer, positions)

    def share(site: Site, direction: Tensor) -> float:
        return gap(project_out(site, direction)) / whole

    def near(a: float, b: float) -> bool:
        return abs(a - b) <= 2e-3 * max(1.0, abs(b))

    def without_length(h: Tensor) -> Tensor:
        return h - (h @ direction.to(h))[..., None] * direction.to(h)

    got, before, after = require_number(answer(layer, direction)), lean(), lean(project_out(at(), direction))
    whole, left = between(before), between(after)
    wanted = left / whole
    if not near(got, wanted):
        values = {"undivided": left, "whole": whole, "gone": 1 - wanted, "percent": 100 * wanted}
        values |= {
            "inverse": 1 / wanted,
            "sign": -wanted,
            "ratios": float(((after[y] - after[~y]) / (before[y] - before[~y])).mean()),
        }
        slips = {"nothing": abs(got - 1) < 2e-4} | {slip: near(got, value) for slip, value in values.items()}
        slips["difference"] = near(got, left - whole) or near(got, whole - left)
        slips["one"] = any(near(got, float(after[rows].mean() / before[rows].mean())) for rows in (y, ~y))
        edits = {
            "last": project_out(at(positions=-1), direction),
            "every": project_out(at(positions=None), direction),
            "row": project_out(at(positions=places[0]), direction),
            "input": project_out(at("block_input"), direction),
            "next": project_out(at(layer=layer + 1), direction),
            "zero": zero(at()),
            "length": apply(at(), without_length),
        }
        slips |= {slip: lambda edit=edit: near(got, gap(edit) / whole) for slip, edit in edits.items()}
        slips["add"] = lambda: any(near(got, gap(add(at(), direction, scale)) / whole) for scale in (1, -1))

        def of_section5() -> bool:
            asked, spots, truth = section5
            projected = project_out(at(positions=spots), direction)
            left, all_of_it = (gap(*edits, asked=asked, y=torch.as_tensor(truth)) for edits in ([projected], []))
            return near(got, left / all_of_it)

        slips |= {"section5": of_section5, "fixed": lambda: near(got, require_number(answer(layer, axis)))}
        slips |= {"layer": lambda: near(got, require_number(answer(other, direction))), "else": True}
        _refuse(slips, USED, got=got, wanted=wanted, layer=layer, other=other)
    got, wanted = require_number(answer(layer, axis)), share(at(), axis)
    require(near(got, wanted), "with another direction the share doesn't fit: does your edit use `direction`?")
    got, wanted = require_number(answer(other, direction)), share(at(layer=other), direction)
    require(near(got, wanted), f"it fits at layer {layer} and not at layer {other}: does your site use `layer`?")
    return "The same function answers the question for any direction, whether a probe found it or not."
