"""Exercises of notebook 02, causal tracing."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from ...course import NotYet, exercise, require, require_number, require_returned, short
from ...edits import add, replace
from ...hooks import intervene, record
from ...sites import Site


@exercise("tracing.indirect", number=1, title="The indirect effect", difficulty=2, minutes=7)
def _(answer, lm, prompt, span, metric, draws):
    """
    - Three things: the clean activations (`record`), the corrupted run (`add` at the subject), and the run with both edits.
    - With rows for draws: `rows = lm.tokens([prompt] * len(draws))`, and `add(Site("block_input", 0, positions=span), draws)` gives each row its draw.
    - The restored run is `intervene(lm, corruption, replace(Site("block_output", layer, position), clean))`; the effect is the mean of restored − corrupted.
    """
    require(callable(answer), f"the answer is your function `indirect_effect`, and you gave {short(answer)}")
    clean = record(lm, prompt, "block_output")
    p_clean = metric(clean.next_token_logits)[0]
    rows = lm.tokens([prompt] * len(draws))

    def p(*edits) -> Tensor:
        with intervene(lm, *edits):
            return metric(lm.next_token_logits(rows))

    def noise(these: Tensor, places=span):
        return add(Site("block_input", 0, positions=places), these)

    corrupted = p(noise(draws))

    def restored_at(layer: int, position: int) -> Tensor:
        return p(noise(draws), replace(Site("block_output", layer, position), clean))

    def effect(site: tuple[int, int]) -> float:
        return float((restored_at(*site) - corrupted).mean())

    sites = [*((lm.n_layers // 4, place) for place in span), (lm.n_layers - 1, -1)]
    for layer, position in sorted(sites, key=lambda site: -abs(effect(site))):  # where slips differ most, first
        restored = restored_at(layer, position)
        truth = (restored - corrupted).mean()
        got = require_number(answer(layer, position))
        scale = float((p_clean - corrupted.mean()).abs().clamp(min=1e-9))

        def like(other, got=got, scale=scale) -> bool:
            return abs(got - float(other)) < 2e-3 * scale

        if like(truth):
            continue
        where = f"at layer {layer}, position {position}"
        if like(0) and all(abs(require_number(answer(*site))) < 2e-3 * scale for site in sites):
            raise NotYet(
                "nothing comes back anywhere: are both edits made in the same `intervene`, and was the clean activation recorded "
                "*outside* of it?"
            )
        for other, because in (
            (restored.mean(), "that is the probability after restoring; the corrupted run's has to be subtracted"),
            (-truth, "the sign is turned: restored minus corrupted, so that what comes back is positive"),
            (p_clean - restored.mean(), "that is what is still *missing*, clean minus restored"),
            (
                p_clean - corrupted.mean(),
                "that is the *total* effect, clean minus corrupted; the site plays no part in it. Does your `Site` use `position`, and "
                "is the restored run corrupted, too?",
            ),
            ((restored - corrupted).sum(), "the effects are summed over the draws, and their mean is asked for"),
            ((restored - corrupted)[0], "that is the effect for the first draw only: average over all of `draws`"),
            ((restored - corrupted)[-1], "that is the effect for the last draw only: average over all of `draws`"),
            (
                truth / scale,
                "that is a share of the total effect; the indirect effect is a difference of probabilities",
            ),
            (
                0.0,
                "nothing came back: is the clean activation put back *inside* the corrupted run, at `layer` and `position`?",
            ),
        ):
            require(not like(other), f"{where} you found {got:.3f}: {because}")
        entering = record(lm, prompt, "block_input")
        before = p(noise(draws), replace(Site("block_input", layer, position), entering))
        require(
            not like((before - corrupted).mean()),
            f"{where} you found {got:.3f}: that restores what *enters* the block; asked for is `block_output`",
        )
        require(
            False,
            f"{where} you found {got:.3f}, and it is {float(truth):.3f}. Noise on the subject's tokens only (`span`), the same draws "
            "in both runs, the *clean* run's activation put back, and the mean over the draws",
        )
    return "The same draws in both runs, so that only the restoration differs."


@exercise("tracing.draws", number=2, title="How many draws?", difficulty=2, minutes=5)
def _(answer, pilot):
    """
    - Solve std / √n ≤ tolerance for n.
    - n ≥ (std / tolerance)², and n is a whole number: round *up*.
    - `max(1, math.ceil((pilot.std().item() / tolerance) ** 2))`
    """
    require(callable(answer), f"the answer is your function `draws_needed`, and you gave {short(answer)}")
    tests = [(torch.tensor([0.1, 0.3, 0.5, 0.2, 0.6]), 0.05), (torch.tensor([0.0, 0.4, 0.1, 0.3]), 0.03), (pilot, 0.04)]
    for values, tolerance in tests:
        got = require_number(answer(values.clone(), tolerance))
        std = float(values.std())
        truth = max(1, math.ceil((std / tolerance) ** 2))
        said = f"for a pilot with standard deviation {std:.3f} and tolerance {tolerance} you found {got:g}"
        if got == truth:
            continue
        require(got == int(got), f"{said}: a number of draws is whole, so round up")
        population, n = float(values.std(correction=0)), len(values)
        for slip, because in (
            (math.floor((std / tolerance) ** 2), "rounded down, the error is above the tolerance"),
            (math.ceil(std / tolerance), "the error falls with the *square root* of n, so square it"),
            (math.ceil((std / tolerance) ** 2 / n), "the pilot's own size plays no part, only its standard deviation"),
            (math.ceil(float(values.var()) / tolerance), "square the tolerance as well"),
            (
                math.ceil((population / tolerance) ** 2),
                "that standard deviation divides by n, and a sample's by n − 1: `pilot.std()`",
            ),
        ):
            require(got not in (slip, max(1, slip)), f"{said}: {because}")
        require(got < truth, f"{said}, which is more than needed: {truth} draws suffice")
        require(False, f"{said}, and then the standard error is {std / max(got, 1) ** 0.5:.3f}")
    same = require_number(answer(torch.tensor([0.2, 0.2, 0.2]), 0.1))
    require(same >= 1, f"for a pilot without any spread you found {same:g} draws, and at least one has to be made")
    return "Four times the draws for half the error: that is why maps of a single fact are noisy."


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
    return "So the windows of ten centred at layers 0 to 5 all restore layer 0."


@exercise("tracing.rank-one", number=4, title="An edit of rank one", difficulty=3, minutes=8)
def _(answer):
    """
    - Each token x gets a multiple of δ: how much does x look like the key? One number a token.
    - The number is kᵀx / kᵀk: 1 where x is the key itself, 0 where x is at a right angle to it.
    - `likeness = x @ key / (key @ key)`, and then `output + likeness[..., None] * delta`.
    """
    require(callable(answer), f"the answer is your function `rank_one`, and you gave {short(answer)}")
    draw = torch.Generator().manual_seed(0)
    key, delta = torch.randn(7, generator=draw), torch.randn(5, generator=draw)
    x = torch.cat([torch.randn(3, 7, generator=draw), key[None]])
    weight, bias = torch.randn(5, 7, generator=draw), torch.randn(5, generator=draw)
    output = x @ weight.T + bias
    truth = x @ (weight + torch.outer(delta, key) / (key @ key)).T + bias

    def ask(x: Tensor, output: Tensor) -> Tensor:
        kept = x.clone(), output.clone()
        got = require_returned(answer(x, output, key, delta))
        require(isinstance(got, Tensor), f"a tensor was expected, and {short(got)} came back")
        require(
            got.shape == output.shape,
            f"for x {tuple(x.shape)} and output {tuple(output.shape)} you gave {tuple(got.shape)}; it has the output's shape",
        )
        require(
            torch.equal(x, kept[0]) and torch.equal(output, kept[1]),
            "your function changes `x` or `output` in place: make a new tensor, since others may hold on to the old one",
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
            (output - share / (key @ key) * delta, "the sign is turned: W′ = W + δkᵀ/kᵀk"),
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
    return "One outer product: the whole edit is d_in + d_out numbers."
