"""Exercises of notebook 04 about heads: choose and confirm them, and take apart what they write.

The checks compute what is right on whatever model the notebook hands over, or on a small table made for the purpose.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...course import NotYet, exercise, require, require_attempted, short
from ...edits import zero
from ...hooks import intervene, record
from ...sites import Site


@exercise(
    "positions.confirm",
    number=4,
    title="Chosen here, confirmed there",
    difficulty=2,
    minutes=8,
    hints=(
        "Two halves: `values[::2]` to choose with, `values[1::2]` to measure with.",
        "`values[::2].mean(0).flatten().topk(k).indices` are the best heads' numbers in a flat table; `divmod(i, n_heads)` is (layer, head).",
        "`{divmod(i, values.shape[2]): values[1::2].mean(0)[divmod(i, values.shape[2])].item() for i in best.tolist()}`",
    ),
)
def _(answer):
    require(callable(answer), f"the answer is your function `confirm`, and you gave {short(answer)}")
    # 8 prompts, 5 layers, 3 heads: two real effects, one that only even prompts show, one that only odd ones do, one
    # that lowers the metric, and one that is large in three even prompts and far below zero in the fourth
    table = torch.zeros(8, 5, 3)
    table[:, 1, 2] = torch.tensor([0.6, 0.4] * 4)
    table[:, 3, 1] = torch.tensor([0.5, 0.45] * 4)
    table[::2, 0, 1] = 0.55
    table[1::2, 0, 1] = torch.tensor([-0.5, 0.1, 0.1, 0.1])
    table[1::2, 4, 1] = 2.0
    table[:, 2, 1] = -3.0
    table[::2, 4, 0] = torch.tensor([0.9, 0.9, 0.9, -1.9])
    wanted = {(1, 2): 0.4, (0, 1): -0.05, (3, 1): 0.45}
    got = require_attempted(answer(table.clone(), 3))
    require(got is not None, "your function returned None: is there a `return`?")
    require(isinstance(got, dict), f"a dict {{(layer, head): mean}} was expected, and {short(got)} came back")
    require(
        all(isinstance(key, tuple) and len(key) == 2 for key in got),
        f"the keys are (layer, head), and one of yours is {short(next(iter(got), None))}: `divmod(i, n_heads)` takes a number in "
        "the flat table apart",
    )
    found = {}
    for (layer, head), value in got.items():
        shape = tuple(getattr(value, "shape", ()))
        require(all(n == 1 for n in shape), f"each value is one mean, and one of yours has shape {shape}")
        found[int(layer), int(head)] = float(value)
    require(len(found) == 3, f"k=3 heads were asked for, and {len(found)} came back")
    chosen = set(found)
    require(chosen != {(head, layer) for layer, head in wanted}, "layer and head are exchanged in your keys")
    for size in (5, 8, 4):  # layers, prompts, prompts in a half
        require(
            chosen != {divmod(3 * layer + head, size) for layer, head in wanted},
            f"your table has 3 heads: number i in the flat table is head i % 3 of layer i // 3, and you divided by {size}",
        )
    require((2, 1) not in chosen, "you chose by size, and head 2.1 *lowers* the metric: the largest mean was asked for")
    require(
        (4, 1) not in chosen,
        "head 4.1 does something only on the odd prompts, which are for the test, and it was chosen with their help: choose on "
        "`values[::2]` alone",
    )
    require(
        (4, 0) not in chosen,
        "head 4.0 is large on three of the even prompts and far below zero on the fourth: its *mean* is small, and its median isn't",
    )
    if chosen != set(wanted):
        raise NotYet(
            f"on the even prompts the heads {sorted(wanted)} have the largest means, and you chose {sorted(chosen)}"
        )
    require(
        abs(found[0, 1] - 0.55) > 1e-6,
        "you report the means of the very prompts with which you chose: the luckiest head looks best there (0.55 for head 0.1, "
        "which does next to nothing on the others)",
    )
    require(
        abs(found[0, 1] - 0.1) > 1e-6,
        "0.1 is the *median* of head 0.1 on the odd prompts; the mean was asked for, and it is −0.05",
    )
    require(
        abs(found[0, 1] - 0.05) > 1e-6 and abs(found[0, 1] - 0.2) > 1e-6,
        "head 0.1's mean on the odd prompts is −0.05, and you report a size: what it does there may go the other way, and the sign "
        "says so",
    )
    require(abs(found[0, 1] - 0.25) > 1e-6, "you report the means over *all* prompts; half of them helped to choose")
    require(
        all(abs(found[head] - wanted[head]) < 1e-6 for head in wanted),
        f"on the odd prompts the chosen heads have the means {wanted}, and you found {found}",
    )
    return "Head 0.1 of the check's table was chosen by luck, and the other half of the prompts shows it."


@exercise(
    "positions.direct",
    number=5,
    title="What does a head write?",
    difficulty=3,
    minutes=12,
    hints=(
        "A head's part of what the attention returns is the output projection, applied to that head's vector with all the others zero.",
        '`z = record(lm, prompt, "attention_value_output")["attention_value_output", layer][0, -1]` has shape (head, d_head), and '
        '`lm.anatomy.place("attention_output", layer).module` is the projection, which takes all heads in one row.',
        "`alone = torch.eye(lm.n_heads)[:, :, None] * z` is a batch in which row i keeps head i; `project(alone.flatten(1))` "
        "are the writes. Subtract `project(torch.zeros_like(z).flatten())`, the bias, and take `@ direction`.",
    ),
)
def _(answer, lm, prompt, direction, metric):
    require(callable(answer), f"the answer is your function `direct_effects`, and you gave {short(answer)}")
    acts = record(lm, prompt, "attention_value_output", "attention_output")

    @torch.no_grad()
    def truth(layer: int, position: int | slice = -1, keep_others: bool = False, bias: bool = False) -> Tensor:
        project = lm.anatomy.place("attention_output", layer).module
        z = acts["attention_value_output", layer][0, position]
        z = z.sum(0) if z.ndim == 3 else z
        mask = torch.eye(lm.n_heads).to(z)
        alone = ((1 - mask if keep_others else mask)[:, :, None] * z).flatten(1)
        write = project(alone) - (0 if bias else project(torch.zeros_like(alone)))
        return (write @ direction.to(write)).cpu()

    def lost(layer: int, position: int | None) -> Tensor:
        """What the metric loses with each head's output set to zero, at one position or at all of them."""
        without = []
        for head in range(lm.n_heads):
            with intervene(lm, zero(Site("attention_value_output", layer, positions=position, heads=head))):
                without.append(metric(lm.next_token_logits(prompt)))
        return (metric(lm.next_token_logits(prompt)) - torch.cat(without)).float().cpu()

    def ask(layer: int) -> Tensor:
        got = require_attempted(answer(layer))
        require(got is not None, "your function returned None: is there a `return`?")
        got = torch.as_tensor(got) if not isinstance(got, Tensor) else got.detach().float().cpu()
        require(
            tuple(got.shape) != (lm.n_heads, lm.d_model),
            "these are the heads' writes, one vector each; take the dot product with `direction`",
        )
        require(
            got.numel() != 1,
            "one number came back, which is the whole layer's effect: one for each head was asked for",
        )
        require(
            tuple(got.shape) == (lm.n_heads,),
            f"one number a head, shape ({lm.n_heads},), was expected, and {tuple(got.shape)} came back",
        )
        return got

    layers = range(lm.n_layers)
    layer = max(layers, key=lambda layer: float(truth(layer).abs().max()))
    got, wanted = ask(layer), truth(layer)
    size = float(wanted.abs().max())

    def like(other: Tensor) -> bool:
        return torch.allclose(got, other, atol=1e-3 * size, rtol=1e-2)

    if not like(wanted):
        whole = wanted.sum() / lm.n_heads
        require(
            not like(whole.expand(lm.n_heads)) and not like(wanted.sum().expand(lm.n_heads)),
            f"every head got the same number, from the whole attention output of layer {layer}: keep one head at a time",
        )
        require(not like(-wanted), "the sign is turned round: a write *along* the direction counts as positive")
        require(
            not like(truth(layer, keep_others=True)),
            "that is what all the *other* heads write: keep one head and set the rest to zero",
        )
        require(
            not like(truth(layer, bias=True)),
            "the projection's bias is in every one of your numbers, and belongs to no head: subtract what the projection makes of "
            "zeros",
        )
        require(not like(truth(layer, 0)), "that is what the heads write at position *0*; the last token was asked for")
        require(
            not like(truth(layer, slice(None))),
            "you summed over the tokens: only what is written at the *last* one can reach the logits directly",
        )
        require(
            not any(like(truth(other)) for other in layers if other != layer),
            f"asked for layer {layer} you gave another layer's numbers: is `layer` used?",
        )
        require(
            not any(like(sign * lost(layer, position)) for position in (-1, None) for sign in (1, -1)),
            "that is what is lost without each head, through all paths; its write times `direction` was asked for",
        )
        ratio = float((got * wanted).sum() / (wanted**2).sum())
        require(
            not like(ratio * wanted),
            f"your numbers are {ratio:.3g} times what they should be: the dot product with `direction` is all, without a norm of it",
        )
        raise NotYet(
            f"the largest effect in layer {layer} is {size:.3f} (head {int(wanted.abs().argmax())}), and yours is "
            f"{float(got.abs().max()):.3f} (head {int(got.abs().argmax())}): each head's write at the last token, times "
            "`direction`, was asked for"
        )
    for other in (layers[0], layers[-1]):
        got, wanted = ask(other), truth(other)
        size = max(float(wanted.abs().max()), 1e-3)
        require(like(wanted), f"right in layer {layer} and not in layer {other}: is `layer` used everywhere?")
    return "The numbers of all heads, biases, MLPs and the embeddings add up to the logit difference, exactly."
