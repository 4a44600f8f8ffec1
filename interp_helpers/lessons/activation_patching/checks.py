"""Exercises of notebook 01, activation patching."""

from __future__ import annotations

import torch
from torch import Tensor

from ...activations import Activations
from ...course import NotYet, exercise, require, require_attempted, require_number, short
from ...edits import mean_ablate, replace, zero
from ...hooks import intervene, record
from ...models import Layout
from ...sites import Site


@exercise("patching.site", number=1, title="Name the site", difficulty=1, minutes=4)
def _(answer, lm, base, subject):
    """
    - A site has a component, a layer and positions. Which of the three did the sentence in the task give you in words?
    - Blocks and tokens are both counted from 0, so the first block is layer 0 and the ninth is …
    - `lm.find(base, subject)` is a range, and `[-1]` takes the last element of a range.
    """
    require(isinstance(answer, Site), f"the answer is a `Site(…)`, and you gave {short(answer)}")
    require(answer.layer != 9, "layer 9 is the tenth block: blocks are counted from 0")
    require(answer.layer == 8, f"the ninth block was asked for, and layer {answer.layer} is number {answer.layer + 1}")
    require(
        answer.component != "block_input",
        "`block_input` is the residual stream *before* the block has written to it; what leaves the block was asked for",
    )
    require(
        answer.component == "block_output",
        f"`{answer.component}` is one part of the block; the whole residual stream leaving it was asked for",
    )
    require(answer.heads is None, "the residual stream has no heads")
    span, last = lm.find(base, subject), len(lm.str_tokens(base)) - 1
    require(answer.positions is not None, "`positions=None` names every token, and one was asked for")
    found = Layout(lm.tokens(base).attention_mask).spots(answer.positions).columns.tolist()
    require(found != [last], f"position {last} is the last token of the *prompt*; the subject ends earlier")
    require(len(found) == 1, f"{len(found)} tokens are named, and only the last one of {subject!r} was asked for")
    require(found != [span[-1] + 1], f"position {found[0]} is the token after {subject!r}: tokens are counted from 0")
    require(
        found == [span[-1]], f"position {found[0]} is {lm.str_tokens(base)[found[0]]!r}, not the end of {subject!r}"
    )
    return "The ninth block, layer 8, at the last token of the subject."


def _handover(values: Tensor, subject: range) -> int | None:
    later = values[:, -1] > values[:, list(subject)].max(1).values
    return int(later.nonzero()[0]) if later.any() else None


@exercise("patching.handover", number=2, title="Where does the hand-over happen?", difficulty=2, minutes=8)
def _(answer, sweep, subject):
    """
    - Go through the layers from the first on, and return the first one where the condition holds.
    - `values[layer, -1]` is the last token's share at a layer; the subject's are `values[layer, i] for i in subject`.
    - `if values[layer, -1] > max(values[layer, i] for i in subject): return layer`, and `return None` after the loop.
    """
    require(callable(answer), f"the answer is your function `handover`, and you gave {short(answer)}")

    def ask(values: Tensor, span: range = range(1, 3)) -> int | None:
        found = require_attempted(answer(values, span))
        return None if found is None else int(require_number(found))

    # columns: a token before the subject, its two tokens, a token after it, the last token
    late = torch.tensor(
        [[0.0, 0.9, 0.2, 0.0, 0.0], [0.0, 0.8, 0.05, 0.0, 0.1], [0.0, 0.1, 0.0, 0.0, 0.7], [0.0, 0.0, 0.0, 0.0, 1.0]]
    )
    got = ask(late)
    require(got is not None, "on a small test table your function returned None: is there a `return`?")
    require(
        0 <= got < len(late) or got != _handover(sweep.values, subject),
        f"you found layer {got} in a small test table of {len(late)} layers: read `values` and `subject`, not `sweep`",
    )
    require(
        got != 3,
        "in a small test table you found layer 3, which is one too late: its last token has the *largest* share there, and "
        "overtakes the subject at layer 2 (counted from 0); compare within each layer",
    )
    require(
        got != 1,
        "in a small test table you found layer 1, where the *first* token of the subject still has 0.8 and the last token "
        "of the prompt 0.1: it has to be larger than every token of the subject, at the layer that you return",
    )
    require(got == 2, f"in a small test table the last token overtakes the subject at layer 2, and you found {got}")
    got = ask(torch.tensor([[0.0, 0.1, 0.8, 0.0, 0.5], [0.0, 0.4, 0.4, 0.7, 0.6], [0.0, 0.0, 0.1, 0.0, 0.9]]))
    require(
        got != 0,
        "where the subject's *second* token carries the fact you found layer 0, not 1: take the best of all its tokens",
    )
    require(
        got == 1,
        f"where the last token has 0.6, the subject's two tokens 0.4 each, and a token after it 0.7, you found {got}, not layer 1: "
        "compare the last token, at the same layer, with each token of the subject by itself, and with nothing else",
    )
    got = ask(torch.tensor([[0.0, 0.8, 0.1, 0.0, 0.6], [0.0, 0.2, 0.1, 0.0, 0.3], [0.0, 0.0, 0.0, 0.0, 0.9]]))
    require(
        got == 1,
        f"where the last token has 0.6, 0.3 and 0.9 and the subject's best 0.8, 0.2 and 0, you found {got}, not layer 1: compare "
        "the two with each other, not with a fixed number",
    )
    back_and_forth = torch.tensor([[0.0, 0.9, 0.1, 0.0, 0.2], [0.0, 0.3, 0.1, 0.0, 0.4], [0.0, 0.5, 0.1, 0.0, 0.4]])
    got = ask(torch.cat([back_and_forth, torch.tensor([[0.0, 0.1, 0.0, 0.0, 0.9]])]))
    require(
        got == 1,
        f"where the last token leads at layer 1, falls behind at layer 2 and leads again at layer 3, you found {got}: the *first* layer "
        "was asked for",
    )
    never = torch.tensor([[0.0, 0.9, 0.2, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0, 0.5]])
    try:
        got = ask(never)
    except (IndexError, StopIteration, ValueError) as error:
        raise NotYet(
            f"where the last token never has a *larger* share your function raised {type(error).__name__} ({error}): return None there"
        ) from None
    require(
        got is None, f"where the last token never has a *larger* share you found {got}, and `None` was to be returned"
    )
    truth = _handover(sweep.values, subject)
    if truth is None:
        return "On this model the last token never overtakes the subject for this pair."
    require(ask(sweep.values, subject) == truth, f"on the notebook's own sweep the answer is layer {truth}")
    return f"From layer {truth} on, the end of the prompt carries more of the answer than any token of the subject."


@exercise("patching.everything", number=3, title="A finding that is none", difficulty=2, minutes=6)
def _(answer, lm, base, source, metric, subject):
    """
    - Three steps: `record` the source, `intervene` with `replace` while the base runs, and measure.
    - `paris_over_rome(lm.next_token_logits(base))` is the start of the scale (0), and the same for `source` is its end (1).
    - With patched, start and end, the share is `(patched - start) / (end - start)`; use `Site('block_output', layer, positions)`.
    """
    require(callable(answer), f"the answer is your function `recovered`, and you gave {short(answer)}")
    start, end = (float(metric(lm.next_token_logits(prompt))) for prompt in (base, source))
    acts = record(lm, source, "block_output")
    middle = lm.n_layers // 2

    def truth(layer: int, positions) -> float:
        with intervene(lm, replace(Site("block_output", layer, positions), acts)):
            return (float(metric(lm.next_token_logits(base))) - start) / (end - start)

    def near(a: float, b: float) -> bool:
        return abs(a - b) <= 1e-3 * max(1.0, abs(b))

    def ask(layer: int, positions) -> float:
        return require_number(answer(layer, positions))

    def telling(sites: list[tuple]) -> tuple:  # a share near 0 or 1 would hide what a slip changes
        shares = {site: truth(*site) for site in sites}
        return max(sites, key=lambda site: min(abs(shares[site]), abs(1 - shares[site])))

    one_token = telling([(middle, i) for i in subject])
    last_token = telling([(layer, -1) for layer in range(middle + 1, lm.n_layers, 3)])
    got = ask(middle, None)
    if not near(got, 1):
        require(
            not near(got, end),
            f"{got:.2f} is the metric after the patch; as a share, 0 is the base run and 1 the source run",
        )
        require(not near(got, end - start), f"{got:.2f} is how far the metric moved; divide it by the whole way")
        require(not near(got, 100), "100 is in per cent; return the share, from 0 to 1")
        require(
            not near(got, (end - start) / end) and not near(got, (end - start) / start),
            f"{got:.2f} is how far the metric moved, divided by one run's metric; the whole way leads from the base run's to "
            "the source run's",
        )
        require(
            not near(got, 0) or not near(ask(*one_token), 1 - truth(*one_token)),
            "with every token patched you return 0, which is what is *left* to recover; the share that is recovered is 1",
        )
        require(
            not near(got, 0),
            "patching every token changed nothing: is the source patched into the base, and is the metric read inside the `with`?",
        )
        require(
            not near(got, truth(middle, -1)),
            f"with every token of layer {middle} patched you found {got:.3f}, which is the last token's share: does your site "
            "use `positions`?",
        )
        raise NotYet(
            f"with every token of layer {middle} patched you found {got:.3f}; what the later blocks see is then all the source's"
        )
    for layer, position in (one_token, last_token):
        got, wanted = ask(layer, position), truth(layer, position)
        if not near(got, wanted):
            found = f"at layer {layer}, position {position}, the share is {wanted:.3f} and you found {got:.3f}"
            require(not near(got, 1), f"{found}, as with every token patched: does your site use `positions`?")
            require(
                not any(near(got, truth(i, position)) for i in range(lm.n_layers)),
                f"{found}, which is another layer's share: does your site use `layer`?",
            )
            raise NotYet(found)
    return (
        "Every layer 'recovers' 100 % this way, the first as well as the last, so the number says nothing about layer 6. "
        "A patch is evidence only if it leaves something of the base run in place."
    )


@exercise("patching.necessary", number=4, title="Sufficient, or necessary?", difficulty=2, minutes=8)
def _(answer, lm, base, source, metric, reference: Activations):
    """
    - This time the prompt that runs is `source`, the one that you take something away from.
    - `mean_ablate(Site('attention_output', layer, positions=-1), reference)` is the edit.
    - What is lost, as a share of the way to the base run: `(clean - ablated) / (clean - other)`, with `other` the base run's metric.
    """
    require(callable(answer), f"the answer is your function `lost`, and you gave {short(answer)}")
    clean, other = (float(metric(lm.next_token_logits(prompt))) for prompt in (source, base))
    patched_in = record(lm, base, "attention_output")

    def truth(layer: int, edit=mean_ablate, acts=reference, prompt=source, positions=-1) -> float:
        with intervene(lm, edit(Site("attention_output", layer, positions), acts)):
            return (clean - float(metric(lm.next_token_logits(prompt)))) / (clean - other)

    def near(a: float, b: float) -> bool:
        return abs(a - b) <= 1e-4

    layers = range(2 * lm.n_layers // 3, lm.n_layers)
    layer = max(layers, key=lambda layer: abs(truth(layer)))
    got, wanted = require_number(answer(layer)), truth(layer)
    if not near(got, wanted):
        require(
            not near(got, 1 - wanted),
            f"{got:.3f} is what is *left* at layer {layer}; the share that is lost was asked for",
        )
        require(not near(got, -wanted), f"{got:.3f} has the sign turned round: losing counts as positive here")
        require(not near(got, 0), "nothing was lost: is the metric read inside the `with`?")
        require(
            not near(got, wanted * (clean - other)),
            f"{got:.3f} is how far the metric fell; divide it by the way from the source run's metric to the base run's",
        )
        require(
            not near(got, -wanted * (clean - other)),
            f"{got:.3f} is how the metric changed, undivided: a loss counts as positive, as a share of the way to the base run's",
        )
        require(not near(got, 100 * wanted), f"{got:.3f} is in per cent; return the share, {wanted:.3f}")
        require(
            not near(got, wanted * (clean - other) / clean),
            "you divided by the source run's own metric; the way ends at the base run's, not at 0",
        )
        from_base = truth(layer, prompt=base)
        require(
            not near(got, from_base) and not near(got, 1 - from_base) and not near(got, from_base - 1),
            "you ablated the base run; take away from the source run, which says the answer",
        )
        require(
            not near(got, truth(layer, edit=replace, acts=patched_in)),
            "you replaced the output by the *base run's*, which pushes the other answer; put in the mean of `reference`",
        )
        require(
            not near(got, truth(layer, edit=lambda site, _: zero(site))),
            "you put in *zero*, which no later block has ever met there; put in the mean of `reference`",
        )
        require(not near(got, truth(layer, positions=None)), "you ablated every token; only the last one was asked for")
        raise NotYet(f"at layer {layer} the share lost is {wanted:.3f}, and you found {got:.3f}")
    for layer in (layers[0], layers[-1], min(layers, key=truth)):
        got, wanted = require_number(answer(layer)), truth(layer)
        if not near(got, wanted):
            require(
                wanted > 0 or not near(got, -wanted),
                f"at layer {layer} the ablation *helps* the source's answer: the share lost is {wanted:.3f}, and you found "
                f"{got:.3f}",
            )
            require(
                wanted > 0 or not near(got, 0),
                f"at layer {layer} the ablation *helps* the source's answer: a gain counts as negative, {wanted:.3f}, and you cut it "
                "off at 0",
            )
            raise NotYet("it fits at one layer and not at others: does your site use `layer`?")
    return "Compare it with the share that the same attention output was sufficient to move: the two questions have different answers."


@exercise("patching.attribution", number=5, title="All sites in two passes", difficulty=3, minutes=12)
def _(answer, lm, base, source, metric):
    """
    - A first-order Taylor step: moving h by δ changes the metric by about δ·gradient. Here δ = source − base.
    - `run = record(lm, base, 'block_output', grad=True)` keeps the graph, and `run['block_output', layer]` is one activation; `torch.autograd.grad(paris_over_rome(run.logits[:, -1]).sum(), list_of_activations)` gives the gradients.
    - For one layer: `((source_h - base_h) * gradient).sum(-1)[0]` has one number a token. Stack the layers.
    """
    require(callable(answer), f"the answer is your function `attribution`, and you gave {short(answer)}")

    def truth(at: str, minus: str) -> Tensor:
        run, other = record(lm, at, "block_output", grad=True), record(lm, minus, "block_output")
        hs = [run["block_output", layer] for layer in range(lm.n_layers)]
        grads = torch.autograd.grad(metric(run.logits[:, -1]).sum(), hs)
        sign = 1 if at == base else -1
        return torch.stack(
            [
                (sign * (other["block_output", i] - h) * g).sum(-1)[0]
                for i, (h, g) in enumerate(zip(hs, grads, strict=True))
            ]
        ).detach()

    wanted = truth(base, source)
    got = require_attempted(answer())
    require(isinstance(got, Tensor), f"a tensor (layer, token) was expected, and {short(got)} came back")
    got = got.detach().float().cpu()
    shapes = f"the shape is {tuple(got.shape)}, and (layer, token) = {tuple(wanted.shape)} was expected"
    require(got.shape != wanted.T.shape or got.shape == wanted.shape, f"{shapes}: turn the table round")
    require(
        got.numel() != wanted.numel() or got.shape == wanted.shape, f"{shapes}: leave out the batch, an axis of one row"
    )
    require(got.shape == wanted.shape, f"{shapes}: sum over the last axis, d")

    def like(other: Tensor) -> bool:
        return torch.allclose(got, other.cpu(), atol=1e-3 * float(wanted.abs().max()), rtol=1e-2)

    if not like(wanted):
        require(not like(-wanted), "the sign is turned round: the step goes from the base to the source, source − base")
        require(
            not like(wanted.abs()),
            "you took absolute values: a negative attribution says that the patch would push the metric down",
        )
        require(
            not like(truth(source, base)),
            "your gradients were taken in the *source* run; the patch happens in the base run, so that is where the slope is "
            "needed",
        )
        require(not like(wanted / lm.d_model), "you took the mean over d; a dot product is the sum")
        start, end = (float(metric(lm.next_token_logits(prompt))) for prompt in (base, source))
        require(
            not like(wanted / (end - start)),
            "that is the share of the way; the estimate was asked for in the metric's own units (the next cell divides it)",
        )
        raise NotYet("these are not (source − base) · gradient, summed over d, with the gradient taken in the base run")
    return f"{wanted.numel()} sites estimated with two forwards and one backward."
