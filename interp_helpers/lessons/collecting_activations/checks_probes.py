"""Exercises of notebook 05, collecting activations: probes and their controls."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...course import NotYet, exercise, require, require_attempted, require_number, short


@exercise(
    "collecting.control",
    number=2,
    title="A control task",
    difficulty=2,
    minutes=7,
    hints=(
        "Toss the coin once for each *different* country, not once for each sentence; then look it up for every sentence.",
        "`random.Random(seed)` is a generator of its own: the same seed gives the same tosses. `sorted(set(countries))` has "
        "each country once, in an order that doesn't change from run to run.",
        "`rng = random.Random(seed)`, `coin = {country: rng.randint(0, 1) for country in sorted(set(countries))}`, and the labels "
        "are `[coin[country] for country in countries]`.",
    ),
)
def _(answer, countries):
    require(callable(answer), f"the answer is your function `control_labels`, and you gave {short(answer)}")
    invented = [f"country {i % 40}" for i in range(120)]

    def ask(names: list[str], seed: int) -> list[int]:
        given = require_attempted(answer(list(names), seed))
        require(given is not None, "your function returned None: is there a `return`?")
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


@exercise(
    "collecting.means",
    number=4,
    title="A probe without training",
    difficulty=2,
    minutes=8,
    hints=(
        "`streams[layer][train]` are the training vectors, `true[train]` tells which are true; a direction is a difference of "
        "two means.",
        "A dot product with the direction gives one number a statement. Where between the two means' numbers would you draw the line?",
        "`middle = (mean_true + mean_false) / 2`, and the prediction is `(x[test] - middle) @ (mean_true - mean_false) > 0`.",
    ),
)
def _(answer, streams: Tensor, labels, train, test):
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
