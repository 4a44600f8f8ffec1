"""Exercises of notebook 05, collecting activations."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor

from ...course import NotYet, exercise, require, require_attempted, require_number, require_returned, short
from ...edits import add, project_out
from ...hooks import Activations, intervene
from ...sites import Site


@exercise("collecting.read", number=1, title="The last token of every prompt", difficulty=1, minutes=4)
def _(answer, lm, acts: Activations):
    """
    - Only block outputs and attention outputs were recorded. What enters a block is what left the one before it.
    - The sixth block is layer 5, so what enters it left layer 4. And `batch[…][:, -1]` is the last *column*: is that the last token of the short prompts?
    - `batch[Site('block_output', 4, positions=-1)]` counts from the end of each row's own tokens.
    """
    require(isinstance(answer, Tensor), f"a tensor (prompt, d) was expected, and {short(answer)} was given")
    rows, shape = len(acts.layout.lengths), tuple(answer.shape)
    got = answer.detach().float().cpu()
    if got.ndim == 3 and 1 in got.shape[:2] and got.shape[:2] != (1, rows):
        got = got.squeeze(1)
    require(
        shape != (rows, max(acts.layout.lengths), lm.d_model),
        f"your tensor has shape {shape}: every token of each prompt, padding included, and only the last one was asked for",
    )
    require(
        got.shape == (rows, lm.d_model),
        f"your tensor has shape {shape}, and (prompt, d) = {(rows, lm.d_model)} was expected",
    )

    def like(component: str = "block_output", layer: int = 4, position: int = -1) -> bool:
        return torch.allclose(got, acts[Site(component, layer, position)][:, 0].float().cpu(), atol=1e-4, rtol=1e-4)

    if like():
        return "One vector a prompt, each from its own last token, whatever the lengths."
    whole = acts["block_output", 4].float().cpu()
    require(not like(layer=5), "that is what *leaves* the sixth block (layer 5); what enters it was asked for")
    require(not like(layer=3), "that is what leaves the fourth block (layer 3) and enters the fifth; one further on")
    require(not like(layer=6), "layer 6 is the seventh block, and you have what leaves it: blocks are counted from 0")
    require(
        not torch.allclose(got, whole[:, -1], atol=1e-4),
        "for the longest prompt it is right; in the shorter rows the last column is *padding*: let a Site count from the end of "
        "each row's own tokens",
    )
    require(not like(position=0), "that is the *first* token of each prompt")
    require(not like(position=-2), "that is the last token but one: -1 is the last")
    require(
        not like(component="attention_output") and not like(component="attention_output", layer=5),
        "that is what an attention layer *adds* to the stream, not the stream itself",
    )
    require(
        not torch.allclose(got, whole.mean(1), atol=1e-4),
        "that is the mean over all columns; the last token of each prompt was asked for",
    )
    raise NotYet("the shape is right, and the vectors are not those that enter the sixth block at each last token")


@exercise("collecting.control", number=2, title="A control task", difficulty=2, minutes=7)
def _(answer, countries):
    """
    - Toss the coin once for each *different* country, not once for each sentence; then look it up for every sentence.
    - `random.Random(seed)` is a generator of its own: the same seed gives the same tosses. `sorted(set(countries))` has each country once, in an order that doesn't change from run to run.
    - `rng = random.Random(seed)`, `coin = {country: rng.randint(0, 1) for country in sorted(set(countries))}`, and the labels are `[coin[country] for country in countries]`.
    """
    require(callable(answer), f"the answer is your function `control_labels`, and you gave {short(answer)}")
    invented = [f"country {i % 40}" for i in range(120)]

    def ask(names: list[str], seed: int) -> list[int]:
        given = require_returned(answer(list(names), seed))
        require(
            not isinstance(given, dict),
            "you returned the dictionary of tosses; one label for each sentence was asked for",
        )
        labels = np.asarray(given).ravel().tolist()
        require(
            len(labels) == len(names),
            f"for {len(names)} sentences you returned {len(labels)} labels; one for each sentence was asked for",
        )
        require(set(labels) <= {0, 1}, f"a label is 0 or 1, and {sorted(set(labels))[:4]} came back")
        return [int(label) for label in labels]

    for names in (list(countries), invented):
        labels = ask(names, 0)
        of: dict[str, set[int]] = {}
        for name, label in zip(names, labels, strict=True):
            of.setdefault(name, set()).add(label)
        torn = next((name for name, seen in of.items() if len(seen) > 1), None)
        require(
            torn is None,
            f"two sentences about {torn} got different labels. That is the control with *shuffled* labels, which nothing can "
            "learn; here a country keeps its label",
        )
        require(len(set(labels)) == 2, f"every sentence got the label {labels[0]}: nothing is left to tell apart")
        require(
            ask(names, 0) == labels,
            "asked twice with the same seed, your function gave different labels: use a generator of its own, "
            "`random.Random(seed)`",
        )
    drawn = {tuple(ask(invented, seed)) for seed in range(8)}
    apart = {tuple(label ^ row[0] for label in row) for row in drawn}  # which countries differ from the first
    require(
        len(drawn) > 1,
        "every seed gives the same labels: a rule that depends on the word alone is no coin toss, and a probe might have reason "
        "to know it",
    )
    require(
        len(apart) > 3,
        "another seed turns all labels round, or none: which countries are told apart follows a rule, and a probe might have reason to "
        "know it. Toss a coin for each country",
    )
    shares = [np.mean(ask(invented, seed)) for seed in range(40)]
    require(
        0.4 < np.mean(shares) < 0.6,
        f"over many seeds {np.mean(shares):.0%} of the labels are 1: a fair coin was asked for",
    )
    firsts = [ask(invented, seed) for seed in range(40)]
    agree = np.mean([[row[0] == label for label in row[1:40]] for row in firsts])
    require(agree < 0.7, "countries tend to get the same label: toss anew for each of them")
    return "Whoever predicts these labels can only have met the country before: they mean nothing."


def _settles(lm, streams: Tensor, answer: int) -> int | None:
    tops = lm.unembed(streams).argmax(-1).tolist()
    if tops[-1] != answer:
        return None
    return max((layer + 1 for layer, top in enumerate(tops) if top != answer), default=0)


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
    last = streams[-1]
    yes, wanted = last[0], int(tops[-1, 0])
    others = streams.reshape(-1, streams.shape[-1])[(tops != wanted).flatten()]
    require(len(others) > 0, "the lens reads one and the same token everywhere on this model, so nothing can be tested")
    no = others[0]

    def ask(stack: Tensor, token: int = wanted) -> int | None:
        found = require_attempted(answer(stack, token))
        require(not isinstance(found, list | tuple), f"one layer was expected, and {short(found)} came back")
        return None if found is None else int(require_number(found))

    for layer, column in (raw != tops).nonzero()[:1].tolist():  # where leaving out the norm shows
        one = streams[layer, column][None]
        require(
            ask(one, int(tops[layer, column])) is not None or ask(one, int(raw[layer, column])) is None,
            f"at layer {layer} the lens has {lm.top_of(lm.unembed(one)[0], 1)[0][0]!r} on top and you see another token: the final "
            "norm comes before the unembedding, and `lm.unembed` does both",
        )
    got = ask(torch.stack([no, yes, no, yes, yes]))
    said = "on a small stack of hits and misses (miss, hit, miss, hit, hit) you found"
    require(got is not None, f"{said} None: is there a `return`?")
    require(got != 1, f"{said} layer 1, where the answer is on top for the first time; it is lost again at layer 2")
    require(got != 4, f"{said} layer 4; layer 3 has the answer already")
    require(got != 2, f"{said} layer 2, the last miss; the next one settles")
    require(got == 3, f"{said} {got}, and the lens settles at layer 3")
    got = ask(torch.stack([yes, yes]))
    require(got == 0, f"where the answer is on top at every layer the lens settles at layer 0, and you found {got}")
    got = ask(torch.stack([no, yes, no]))
    require(got is None, f"where the last layer has another token on top, `None` was asked for, and you found {got}")
    found = [ask(streams[:, i], int(tops[-1, i])) for i in range(streams.shape[1])]
    truth = [_settles(lm, streams[:, i], int(tops[-1, i])) for i in range(streams.shape[1])]
    require(found == truth, f"on the notebook's own prompts the layers are {truth}, and you found {found}")
    return f"On these prompts the lens settles at layer {min(truth)} at the earliest, of {len(streams)}."


@exercise("collecting.means", number=4, title="A probe without training", difficulty=2, minutes=8)
def _(answer, streams: Tensor, labels, train, test):
    """
    - `streams[layer][train]` are the training vectors, `true[train]` tells which are true; a direction is a difference of two means.
    - A dot product with the direction gives one number a statement. Where between the two means' numbers would you draw the line?
    - `middle = (mean_true + mean_false) / 2`, and the prediction is `(x[test] - middle) @ (mean_true - mean_false) > 0`.
    """
    require(callable(answer), f"the answer is your function `means_accuracy`, and you gave {short(answer)}")
    y = torch.as_tensor(np.asarray(labels)).bool()
    fit_on, test_on = torch.as_tensor(np.asarray(train)), torch.as_tensor(np.asarray(test))
    x = streams.detach().float().cpu().clone()

    def ask(layer: int):
        try:
            given = require_attempted(answer(layer))
            require(
                torch.equal(streams.detach().float().cpu(), x),
                "your function writes into `streams`, which the cells below use as well: `x -= …` changes the tensor itself, and "
                "`x = x - …` makes a new one",
            )
            return given
        finally:
            streams.copy_(x)

    def truth(layer: int, fit=fit_on, score=test_on, threshold: str = "middle", flip: bool = False) -> float:
        xs, ys = x[layer][fit], y[fit]
        high, low = xs[ys].mean(0), xs[~ys].mean(0)
        middle = {"middle": (high + low) / 2, "zero": torch.zeros_like(high), "false": low, "true": high}[threshold]
        said = ((x[layer][score] - middle) @ (high - low)) > 0
        return float((said == y[score]).float().mean()) if not flip else float((said != y[score]).float().mean())

    def near(a: float, b: float) -> bool:
        return abs(a - b) < 1e-6

    everything = torch.arange(len(y))
    slips = [
        (dict(threshold="zero"), "you compare the dot product with 0; the line belongs half-way between the two means"),
        (
            dict(fit=everything),
            "your means are taken over all statements, the test's among them: only the training ones may be used",
        ),
        (dict(fit=test_on), "your means are taken over the *test* statements"),
        (
            dict(score=fit_on),
            "that is the accuracy on the statements that the means were taken from; the held-out ones were asked for",
        ),
        (dict(flip=True), "that is the share of *wrong* answers, or the direction points from true to false"),
        (dict(threshold="false"), "your line runs through one class's mean; it belongs half-way between the two"),
        (dict(threshold="true"), "your line runs through one class's mean; it belongs half-way between the two"),
    ]
    for layer in sorted(range(len(x)), key=lambda layer: abs(layer - len(x) // 2)):
        given = ask(layer)
        shape = tuple(getattr(given, "shape", ()))
        require(
            shape != (len(test_on),),
            f"{len(test_on)} numbers came back, one a statement; the share of right answers was asked for",
        )
        got, wanted = require_number(given), truth(layer)
        if near(got, wanted):
            continue
        require(
            not near(got, wanted * len(test_on)) and not near(got, 100 * wanted),
            f"{got:g} is a count or a percentage; a share between 0 and 1 was asked for",
        )
        for options, said in slips:
            require(not near(got, truth(layer, **options)), f"at layer {layer}, {said}")
        require(
            not all(near(got, require_number(ask(i))) for i in range(0, len(x), max(1, len(x) // 3))),
            f"your function finds {got:.3f} at every layer: does it use `layer`?",
        )
        raise NotYet(f"at layer {layer} the accuracy is {wanted:.3f}, and you found {got:.3f}")
    return "No training at all, and hardly worse than the regression: what was trained there is mostly the two means."


@exercise("collecting.used", number=5, title="Is it used?", difficulty=3, minutes=10)
def _(answer, lm, prompts, places, true, metric, directions):
    """
    - Three steps: measure while nothing is changed, measure with `project_out` of the direction, divide the gaps.
    - The site is `Site('block_output', layer, positions=few_places)`, at the country's token and not at the prompt's last one; the metric is read inside the `with`.
    - `gap = values[few_true].mean() - values[~few_true].mean()`, for `values = true_over_false(lm.next_token_logits(few))`; the share is the gap with the edit, divided by the gap without.
    """
    require(callable(answer), f"the answer is your function `gap_left`, and you gave {short(answer)}")
    y = torch.as_tensor(np.asarray(true)).bool()

    def gap(*edits) -> float:
        if not edits:
            values = metric(lm.next_token_logits(prompts))
        else:
            with intervene(lm, *edits):
                values = metric(lm.next_token_logits(prompts))
        values = values.float().cpu()
        return float(values[y].mean() - values[~y].mean())

    layers = sorted(directions)
    layer = layers[len(layers) // 2]
    direction, site = directions[layer], Site("block_output", layer, places)
    got = require_number(answer(layer, direction))
    whole, left = gap(), gap(project_out(site, direction))

    def near(a: float, b: float) -> bool:
        return abs(a - b) <= 2e-3 * max(1.0, abs(b))

    wanted = left / whole
    if not near(got, wanted):
        require(not near(got, left), f"{got:.3f} is the gap that is left; divide it by the gap of the untouched run")
        require(not near(got, whole), f"{got:.3f} is the gap of the untouched run")
        require(not near(got, 1 - wanted), f"{got:.3f} is the share that is *gone*; what is left was asked for")
        require(
            not near(got, 1),
            "nothing changed: is the metric read inside the `with` (and for only one of the two gaps), and does the edit take away what the "
            "stream *has* along the direction?",
        )
        require(not near(got, 100 * wanted), f"{got:.1f} is a percentage; a share was asked for")
        require(
            not near(got, left - whole) and not near(got, whole - left),
            f"{got:.3f} is the difference of the two gaps; the share that is left is their ratio",
        )
        require(not near(got * wanted, 1), "you divided the wrong way round: what is left, by what there was")
        require(
            not near(got, -wanted),
            "the sign is turned round: the gap is the true statements' mean minus the false ones'",
        )
        require(
            not near(got, gap(project_out(Site("block_output", layer, -1), direction)) / whole),
            "you projected at the prompt's *last* token; the direction was found at the country's, in `few_places`",
        )
        require(
            not near(got, gap(project_out(Site("block_output", layer), direction)) / whole),
            "you projected at every token; the direction was found at the country's, in `few_places`",
        )
        require(
            not near(got, gap(project_out(Site("block_input", layer, places), direction)) / whole),
            "you projected what *enters* the block; the stream that leaves it was asked for, `block_output`",
        )
        require(
            not near(got, gap(add(site, direction)) / whole) and not near(got, gap(add(site, direction, -1)) / whole),
            "you added the direction, or subtracted all of it; `project_out` removes what the stream *has* along it",
        )
        raise NotYet(f"at layer {layer} the share is {wanted:.3f}, and you found {got:.3f}")
    axis = torch.nn.functional.one_hot(torch.tensor(random.Random(0).randrange(lm.d_model)), lm.d_model)
    axis = axis.to(direction)
    got, wanted = require_number(answer(layer, axis)), gap(project_out(site, axis)) / whole
    require(near(got, wanted), "with another direction the share doesn't fit: does your edit use `direction`?")
    other = layers[0] if layer != layers[0] else layers[-1]
    got = require_number(answer(other, direction))
    wanted = gap(project_out(Site("block_output", other, places), direction)) / whole
    require(near(got, wanted), f"it fits at layer {layer} and not at layer {other}: does your site use `layer`?")
    return "The same two lines answer the question for any direction, found by a probe or not."
