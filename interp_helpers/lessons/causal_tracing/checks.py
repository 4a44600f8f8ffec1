"""Exercises of notebook 02, causal tracing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from types import CodeType

import torch
from torch import Tensor

from ...course import exercise, require, require_number, require_returned, short
from ...edits import add, replace
from ...hooks import intervene, record
from ...metrics import probability
from ...sites import Site


@exercise("tracing.indirect", number=1, title="The indirect effect", difficulty=2, minutes=10)
def _(answer, lm, fact, draws):
    """
    - You need three things: the clean activations (`record`), the corrupted run (`add` at the subject), and a run with both edits.
    - For draws as rows: `rows = lm.tokens([prompt] * len(draws))`, and `add(Site("block_input", 0, positions=span), draws)` gives each row its draw.
    - The restored run is `intervene(lm, corruption, replace(Site("block_output", layer, position), clean))`; the effect is the mean of restored − corrupted.
    """
    require(callable(answer), f"the answer is your function `indirect_effect`, and you gave {short(answer)}")
    require(not _mentions(answer, "causal_trace"), "`causal_trace` does all of it for you: make the runs yourself")
    prompt, span, metric = fact.prompt, lm.find(fact.prompt, fact.subject), probability(lm, fact.answer)
    clean = record(lm, prompt, "block_output", "block_input")
    p_clean = metric(clean.next_token_logits)[0]
    rows = lm.tokens([prompt] * len(draws))
    embeddings = Site("block_input", 0, positions=span)
    sites = [*((lm.n_layers // 4, place) for place in span), (lm.n_layers - 1, -1)]

    def p(*edits) -> Tensor:
        with intervene(lm, *edits):
            return metric(lm.next_token_logits(rows))

    def effects(corruption, component="block_output") -> Tensor:  # (site, draw)
        corrupted = p(corruption)
        return torch.stack([p(corruption, replace(Site(component, *site), clean)) - corrupted for site in sites])

    corrupted, right = p(add(embeddings, draws)), effects(add(embeddings, draws))
    scale = float((p_clean - corrupted.mean()).abs().clamp(min=1e-9))
    got = torch.tensor([require_number(answer(*site)) for site in sites])

    def like(other: Tensor) -> bool:
        return bool(((got - other.cpu()).abs() < 2e-3 * scale).all())

    if like(right.mean(1)):
        return "The same draws in both runs, so that only the restoration differs."
    worst = int((got - right.mean(1).cpu()).abs().argmax())
    said = f"at layer {sites[worst][0]}, position {sites[worst][1]} you found {got[worst]:.3f}"
    require(
        not like(torch.zeros(len(sites))),
        "nothing comes back anywhere: are both edits made in the same `intervene`, and was the clean activation recorded "
        "*outside* of it?",
    )
    again = require_number(answer(*sites[worst]))
    require(
        abs(again - got[worst]) < 2e-3 * scale, f"{said}, and {again:.3f} the second time: use the draws in `draws`"
    )
    restored, total = right + corrupted, p_clean - corrupted.mean()
    slips = {
        "that is the probability after restoring; the corrupted run's has to be subtracted": restored.mean(1),
        "the sign is turned: what comes back counts as positive": -right.mean(1),
        "that is what is still *missing* after restoring": p_clean - restored.mean(1),
        "that is the *total* effect, in which the site plays no part. Does your `Site` use `position`, and is the restored run corrupted, "
        "too?": total.expand(len(sites)),
        "the effects are summed over the draws, and their mean is asked for": right.sum(1),
        "that is the effect for the first draw only: average over all of `draws`": right[:, 0],
        "that is the effect for the last draw only: average over all of `draws`": right[:, -1],
        "that is the draw with the largest effect: average over all of `draws`": right.max(1).values,
        "effects below 0 are cut off. A restored run may be worse than the corrupted one, and that counts, too": right.clamp(
            min=0
        ).mean(1),
        "that is a share of the total effect; the indirect effect is a difference of probabilities": right.mean(1)
        / total,
    }
    for because, other in slips.items():
        require(not like(other), f"{said}: {because}")
    mean = draws.mean(0, keepdim=True).expand_as(draws)
    for because, corruption, component in (
        ("that restores what *enters* the block; asked for is `block_output`", add(embeddings, draws), "block_input"),
        (
            "the draws are averaged before they are added. Run each draw, and average the effects",
            add(embeddings, mean),
            "block_output",
        ),
        (
            "the noise takes the embeddings' place. It has to be added to them",
            replace(embeddings, draws),
            "block_output",
        ),
    ):
        require(not like(effects(corruption, component).mean(1)), f"{said}: {because}")
    require(
        False,
        f"{said}, and it is {float(right.mean(1)[worst]):.3f}. Is the noise on the subject's tokens only, as large as in `draws`, and the same in both "
        "runs? Is the *clean* run's activation put back at that layer and position, and is the mean taken over the draws?",
    )


def _mentions(function, name: str) -> bool:
    """Whether a function's own code uses a name."""

    def inside(code) -> bool:
        return name in code.co_names or any(inside(c) for c in code.co_consts if isinstance(c, CodeType))

    return inside(function.__code__) if hasattr(function, "__code__") else False


@exercise("tracing.draws", number=2, title="How many draws?", difficulty=2, minutes=5)
def _(answer, pilot):
    """
    - Solve std / √n ≤ tolerance for n.
    - n ≥ (std / tolerance)², and n is a whole number: round *up*.
    - `max(1, math.ceil((pilot.std().item() / tolerance) ** 2))`
    """
    require(callable(answer), f"the answer is your function `draws_needed`, and you gave {short(answer)}")
    tests = [
        (torch.tensor([0.1, 0.3, 0.5, 0.2, 0.6]), 0.05),
        (torch.tensor([0.0, 0.4, 0.1, 0.3]), 0.03),
        (torch.tensor([0.0, 0.5, 1.0]), 0.25),  # a standard deviation of 0.5: 4 draws, without rounding
        (pilot, max(0.04, float(pilot.std()) / 30)),
        (torch.tensor([0.25, 0.25, 0.25]), 0.1),
    ]
    for values, tolerance in tests:
        got = require_number(answer(values.clone(), tolerance))
        std = float(values.std())
        exact = (std / tolerance) ** 2
        truth = max(1, math.ceil(exact))
        said = f"for a pilot with standard deviation {std:.3f} and tolerance {tolerance:.3g} you found {got:g}"
        if got == truth:
            continue
        require(got == int(got), f"{said}: a number of draws is whole, so round up")
        require(got >= 1 or std > 0, f"{said}, and at least one draw has to be made")
        require(std > 0, f"{said}. Without any spread one draw is enough")
        require(
            got != exact + 1,
            f"{said}. There the formula gives a whole number, which is enough; adding 1 to it makes one draw too many",
        )
        population, n = float(values.std(correction=0)), len(values)
        for slip, because in (
            (math.floor(exact), "rounded down, the error is above the tolerance"),
            (math.ceil(std / tolerance), "the error falls with the *square root* of n, so square it"),
            (math.ceil(exact / n), "the pilot's own size plays no part, only its standard deviation"),
            (math.ceil(float(values.var()) / tolerance), "square the tolerance as well"),
            (
                math.ceil((population / tolerance) ** 2),
                "that standard deviation divides by n, and a sample's by n − 1: `pilot.std()`",
            ),
        ):
            require(got not in (slip, max(1, slip)), f"{said}: {because}")
        require(got < truth, f"{said}, which is more than needed: {truth} draws suffice")
        require(False, f"{said}, and then the standard error is {std / max(got, 1) ** 0.5:.3f}")
    return "Half the error takes four times as many draws. That is why maps of a single fact are noisy."


@exercise("tracing.window", number=3, title="Which layers did you restore?", difficulty=1, minutes=4)
def _(answer):
    """
    - Go through all centres from 0 to n_layers − 1, and ask of each whether `target` lies in its window.
    - The window of a centre L is `range(max(0, L - width // 2), min(n_layers, L - width // 2 + width))`.
    - `[L for L in range(n_layers) if target in range(max(0, L - width // 2), min(n_layers, L - width // 2 + width))]`
    """
    require(callable(answer), f"the answer is your function `centres_with`, and you gave {short(answer)}")
    for target, width, n in ((0, 10, 30), (7, 4, 12), (11, 5, 12), (3, 1, 6), (2, 3, 3)):
        found = require_returned(answer(target, width, n))
        require(isinstance(found, Iterable), f"a list of centres was expected, and {short(found)} came back")
        got = [int(L) for L in found]
        first = lambda L, width=width: L - width // 2  # noqa: E731
        truth = [L for L in range(n) if max(0, first(L)) <= target < min(n, first(L) + width)]
        said = f"for layer {target}, windows of {width} and {n} layers you found centres {got}"
        if got == truth:
            continue
        require(all(0 <= L < n for L in got), f"{said}: a centre is one of the layers 0 to {n - 1}")
        require(len(set(got)) == len(got), f"{said}: a centre is listed twice")
        window = list(range(max(0, first(target)), min(n, first(target) + width)))
        require(
            got != window,
            f"{said}: those are the layers of the window centred *at* {target}; asked for are the centres of all windows that contain it",
        )
        inclusive = [L for L in range(n) if max(0, first(L)) <= target <= min(n, first(L) + width)]
        require(got != inclusive, f"{said}, one too many: the window ends at L − width//2 + width − 1")
        require(
            sorted(got) != truth or got == truth,
            f"{said}: the right ones, and in another order; give them from low to high",
        )
        missing, extra = sorted(set(truth) - set(got)), sorted(set(got) - set(truth))
        wrong = f"{missing[0]} is missing" if missing else f"{extra[0]} doesn't belong"
        L = (missing or extra)[0]
        require(
            False, f"{said}: {wrong}, since its window is layers {max(0, first(L))} to {min(n, first(L) + width) - 1}"
        )
    return "A layer lies in as many windows as a window has layers, or in fewer at the ends. A high window doesn't say which of its layers did it."


@exercise("tracing.rank-one", number=4, title="An edit of rank one", difficulty=3, minutes=10)
def _(answer):
    """
    - Each token x gets a multiple of δ. The multiple is one number per token, and says how much x looks like the key.
    - The number is kᵀx / kᵀk: 1 where x is the key itself, 0 where x is at a right angle to it.
    - `likeness = x @ key / (key @ key)`, and then `output + likeness[..., None] * delta`.
    """
    require(callable(answer), f"the answer is your function `rank_one`, and you gave {short(answer)}")
    draw = torch.Generator().manual_seed(0)
    key, delta = torch.randn(7, generator=draw), torch.randn(5, generator=draw)
    x = torch.cat([torch.randn(3, 7, generator=draw), 2 * key[None], -3 * key[None], key[None]])
    weight, bias = torch.randn(5, 7, generator=draw), torch.randn(5, generator=draw)
    output = x @ weight.T + bias
    truth = x @ (weight + torch.outer(delta, key) / (key @ key)).T + bias

    def ask(x: Tensor, output: Tensor) -> Tensor:
        kept = x.clone()
        got = require_returned(answer(x, output.clone(), key, delta))  # which a hook may change in place
        require(isinstance(got, Tensor), f"a tensor was expected, and {short(got)} came back")
        require(
            got.shape == output.shape,
            f"for x {tuple(x.shape)} and output {tuple(output.shape)} you gave {tuple(got.shape)}; it has the output's shape",
        )
        require(
            torch.equal(x, kept), "your function changes `x` in place, which others may hold on to: make a new tensor"
        )
        return got

    got = ask(x, output)

    def like(other: Tensor) -> bool:
        return torch.allclose(got, other, atol=1e-4)

    if not like(truth):
        share = (x @ key)[:, None]
        for other, because in (
            (output + delta, "δ is added to every token alike; it comes in the measure in which x resembles the key"),
            (
                output + share * delta,
                "the dot product with the key has to be divided by kᵀk, so that the key itself gives 1",
            ),
            (output + share / key.norm() * delta, "divided by the key's norm once; kᵀk is its square"),
            (
                output + share / key.norm() / x.norm(dim=-1, keepdim=True) * delta,
                "that is the cosine of x and the key; the projection is linear in x, so a longer x gets more",
            ),
            (share / (key @ key) * delta, "what was returned before the edit is missing: add to `output`"),
            (output - share / (key @ key) * delta, "the sign is turned: the key itself has to give δ more, not less"),
            (
                output + (share / (key @ key)).clamp(-1, 1) * delta,
                "the measure is cut at 1. The projection is linear: where x is twice the key, δ comes in twice",
            ),
            (
                output + (share / (key @ key)).clamp(min=0) * delta,
                "the measure is cut at 0. The projection is linear: where x points away from the key, δ is taken off",
            ),
        ):
            require(not like(other), because)
        require(
            torch.allclose(got[-1], truth[-1], atol=1e-4),
            "for a token where x *is* the key, the output has to grow by exactly δ, and yours doesn't",
        )
        require(
            False, "at the key it is right, and at other tokens it isn't: x may resemble the key in part, or not at all"
        )
    try:
        batched = ask(x[None].expand(2, -1, -1), output[None].expand(2, -1, -1))
    except RuntimeError as error:
        require(
            False, f"for tokens alone it is right; for a batch (row, token, d_in) it fails ({error}): use `[..., None]`"
        )
    require(torch.allclose(batched, truth.expand(2, -1, -1), atol=1e-4), "for a batch (row, token, d_in) it goes wrong")
    return "The change of the weights is one outer product, so the whole edit is d_in + d_out numbers."
