"""Exercises of notebook 04, position-specific intervention: places, and heads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ...course import NotYet, exercise, require, require_attempted, require_returned, short
from ...edits import zero
from ...hooks import intervene, record
from ...models import Layout
from ...sites import Site

BIAS = "the projection's bias is in every one of your numbers, and it belongs to no head (the check tries a projection that has one)"


@exercise("positions.rows", number=1, title="A different place in each row", difficulty=1, minutes=4)
def _(answer, lm, prompts, subjects):
    """
    - `positions` takes one sequence for each row: `[[…], […], […]]`.
    - `lm.find(prompt, subject)` is a range of positions; `[-1:]` is its last one, still as a sequence.
    - A list comprehension: `[lm.find(p, s)[-1:] for p, s in zip(three, subjects)]`.
    """
    require(isinstance(answer, Site), f"the answer is a `Site(…)`, and you gave {short(answer)}")
    require(answer.component == "block_output", f"`block_output` was asked for, and not `{answer.component}`")
    require(answer.layer == 8, f"the ninth block is layer 8, and you gave layer {answer.layer}")
    spans = [lm.find(prompt, subject) for prompt, subject in zip(prompts, subjects, strict=True)]
    lasts = [span[-1] for span in spans]
    where = answer.positions
    require(where is not None, "`positions=None` names every token, and one in each row was asked for")
    if isinstance(where, tuple):
        require(
            not where or not all(isinstance(position, int) for position in where),
            f"{list(where)} is one flat sequence, which names the same {len(where)} positions in *every* row: give each row a "
            "sequence of its own",
        )
        named = f"you named places for {len(where)} rows"
        require(len(where) == len(prompts), f"{named}, and there are {len(prompts)} prompts")
    layout = Layout(lm.tokens(prompts).attention_mask)
    spots = layout.spots(where)
    found: list[list[int]] = [[] for _ in prompts]
    for row, position in zip(spots.rows.tolist(), spots.positions.tolist(), strict=True):
        found[row].append(position)
    ends = [[length - 1] for length in layout.lengths]
    require(found != ends, "these are the last tokens of the *prompts*; the subjects end earlier")
    require(
        found != [[last + 1] for last in lasts],
        "these are the tokens just after the subjects: a range's `stop` is one past its end",
    )
    require(
        found != list(map(list, spans)), "that is the whole subject in each row, and only its last token was asked for"
    )
    require(
        found != [[span[0]] for span in spans],
        "these are the *first* tokens of the subjects; a subject may be several tokens long",
    )
    require(
        any(position != found[0] for position in found),
        f"position {found[0]} is the place in the first row, and you named it in every row",
    )
    wrong = next((row for row, last in enumerate(lasts) if found[row] != [last]), None)
    if wrong is not None:
        tokens = lm.str_tokens(prompts[wrong])
        named = ", ".join(repr(tokens[i]) for i in found[wrong])
        raise NotYet(f"in row {wrong} you name {named}, and {subjects[wrong]!r} ends with {tokens[lasts[wrong]]!r}")
    return f"One place a row: {[[last] for last in lasts]}. The rows differ in length, and each has its own count."


@exercise("positions.first", number=2, title="Where can a patch do anything?", difficulty=2, minutes=6)
def _(answer, lm, base, source):
    """
    - From which position on can the two runs have computed something different?
    - Compare token with token, not word with word: `lm.tokens(prompt)[0]` are a prompt's token ids.
    - Go through `zip(lm.tokens(base)[0], lm.tokens(source)[0])`, and return the first index at which the two differ.
    """
    require(callable(answer), f"the answer is your function `first_place`, and you gave {short(answer)}")

    def differing(one: str, other: str) -> list[int]:
        return (lm.tokens(one)[0] != lm.tokens(other)[0]).nonzero().flatten().tolist()

    def ask(one: str, other: str) -> int | None:
        found = require_attempted(answer(one, other))
        require(
            found is None or getattr(found, "ndim", 0) == 0 and not isinstance(found, str | list | tuple | range),
            f"one position was asked for, and {short(found)} came back",
        )
        return None if found is None else int(found)

    def text(one: str, other: str) -> str:
        return f"for {one!r} and {other!r}"

    late = ("The Colosseum stands in Rome right now", "The Colosseum stands in Paris right now")
    wanted = differing(*late)[0]
    got, words = ask(*late), late[0].split().index("Rome")
    letters = next(i for i, (a, b) in enumerate(zip(*late, strict=False)) if a != b)
    require(got is not None, f"{text(*late)} your function returned None: is there a `return`?")
    require(
        got != len(lm.tokens(late[0])[0]) - 1,
        f"{text(*late)} you found {got}, the *last* token, from which the answer is read: the prompts differ before it",
    )
    require(
        got != 0,
        f"{text(*late)} you found position 0, whose token is the same in both: nothing before a difference can carry it",
    )
    require(
        got != words or words == wanted,
        f"{text(*late)} you found {got}, which counts *words*; “Colosseum” is several tokens, and the first differing token stands "
        f"at {wanted}",
    )
    require(got != letters, f"{text(*late)} you found {got}, which counts letters; positions count tokens")
    require(
        got != wanted - 1,
        f"{text(*late)} you found {got}, the last token that is the *same* in both: a patch there changes nothing yet",
    )
    require(
        got != wanted + 1, f"{text(*late)} you found {got}, one too late: the tokens differ at {wanted}, counted from 0"
    )
    require(
        got not in differing(base, source)[:1] or got == wanted,
        f"{text(*late)} you found {got}, the answer for the notebook's own pair: compare the two prompts that the function gets",
    )
    require(got == wanted, f"{text(*late)} the first differing token stands at {wanted}, and you found {got}")
    twice = ("In Rome the capital is Rome", "In Paris the capital is Paris")
    got, wanted = ask(*twice), differing(*twice)[0]
    require(
        got not in differing(*twice)[1:],
        f"{text(*twice)} you found {got}, a later difference: the first one, at {wanted}, changes every token after it as well",
    )
    require(got == wanted, f"{text(*twice)} the first differing token stands at {wanted}, and you found {got}")
    crossed = ("In Rome and not in Paris", "In Paris and not in Rome")
    got, wanted = ask(*crossed), differing(*crossed)[0]
    require(
        got == wanted,
        f"{text(*crossed)} you found {got}: both have the same tokens, in another order. What counts is whether the tokens at one "
        f"*position* differ, which they do at {wanted}",
    )
    first = ("One is a number", "Two is a number")
    got = ask(*first)
    require(
        got == 0,
        f"{text(*first)} the very first token differs, so that the answer is 0, and you found {got}: 0 is a position like any "
        "other (and counts as false in `if`)",
    )
    same = (base, base)
    got = ask(*same)
    require(
        got is None,
        f"for two prompts that are the same you found {got}: no patch between them does anything, and `None` was to be returned",
    )
    wanted = differing(base, source)
    require(ask(base, source) == (wanted[0] if wanted else None), f"on the notebook's own pair the answer is {wanted}")
    return (
        "A patch at a position before it changes nothing in any layer, and says nothing about what those tokens carry. From there "
        "on, a patch can matter."
    )


@exercise("positions.leak", number=3, title="Each row its own source", difficulty=2, minutes=8)
def _(answer):
    """
    - `stream[:, columns]` means *every* row at each of those columns. One column for each row needs the row's number, too.
    - With `rows = torch.arange(len(stream))`, `stream[rows, columns]` is one vector a row. A loop over the rows works, too.
    - `patched = stream.clone()`, then `patched[rows, columns] = source[rows, columns]`, then `return patched`.
    """
    require(callable(answer), f"the answer is your function `overwrite`, and you gave {short(answer)}")
    generator = torch.Generator().manual_seed(0)
    stream, source = torch.randn(2, 3, 6, 4, generator=generator)
    columns, rows = [4, 2, 3], torch.arange(3)
    wanted = stream.clone()
    wanted[rows, columns] = source[rows, columns]
    given, taken = stream.clone(), source.clone()
    got = require_attempted(answer(given, taken, list(columns)))
    require(got is not None, "your function returned None: return the patched copy")
    got = torch.as_tensor(got) if hasattr(got, "__array__") else got
    require(isinstance(got, Tensor), f"a tensor was expected, and {short(got)} came back")
    require(
        got.shape != (3, 4),
        "you returned only the vectors that were to be put in; the whole stream, with them in place, was asked for",
    )
    require(
        got.shape == stream.shape,
        f"the stream has shape {tuple(stream.shape)} and what came back has {tuple(got.shape)}",
    )
    require(torch.equal(taken, source), "you changed `source`, the record of another run, which others may still use")
    changed = (got != stream).any(-1)
    everywhere = torch.zeros(3, 6, dtype=torch.bool)
    everywhere[:, columns] = True
    require(changed.any(), "nothing has changed in what you returned: was anything put in?")
    require(
        not (changed[:, columns[0]].all() and changed.sum() == 3),
        "you wrote at the *first row's* place in every row; `columns` has one place for each",
    )
    require(
        not torch.equal(changed, everywhere),
        f"every row was changed at all of the places {columns}: `[:, columns]` takes all rows for each column",
    )
    swapped = source.clone()
    swapped[rows, columns] = stream[rows, columns]
    require(not torch.equal(got, swapped), "you put the stream into the source; it is the other way round")
    require(
        not changed.all(),
        "every token of every row was exchanged, which is the source run itself, and not a patch at one place",
    )
    at = torch.zeros(3, 6, dtype=torch.bool)
    at[rows, columns] = True
    later = at.roll(1, dims=1)
    require(
        not torch.equal(changed, later) and not torch.equal(changed, at.roll(-1, dims=1)),
        "you wrote one place beside the one that was named in each row",
    )
    missed = next((row for row in range(3) if not changed[row, columns[row]]), None)
    require(missed is None, f"row {missed} is unchanged at its place: each row gets its own source's vector")
    require(torch.equal(changed, at), "more was changed than the one place in each row")
    put = got[rows, columns]
    require(
        not torch.equal(put, source[0, columns]) and not torch.equal(put, source[0, columns[0]].expand(3, -1)),
        "every row received *row 0's* vectors: a source that serves all rows is the leak that the exercise is about",
    )
    require(
        not torch.equal(put, source[rows, -1]), "you put in the source's *last* token; the same place was asked for"
    )
    require(torch.equal(put, wanted[rows, columns]), "the places are right, and the vectors are not the source's there")
    require(
        torch.equal(given, stream),
        "what came back is right, but you wrote into `stream` itself, which others may still use: work on a copy of it",
    )
    return "Row r, column columns[r], and nothing else; `replace` with one source row a base row does just this."


@exercise("positions.confirm", number=4, title="Chosen here, confirmed there", difficulty=2, minutes=8)
def _(answer):
    """
    - Two halves: `values[::2]` to choose with, `values[1::2]` to measure with.
    - `values[::2].mean(0).flatten().topk(k).indices` are the best heads' numbers in a flat table; `divmod(i, n_heads)` is (layer, head).
    - `{divmod(i, values.shape[2]): values[1::2].mean(0)[divmod(i, values.shape[2])].item() for i in best.tolist()}`
    """
    require(callable(answer), f"the answer is your function `confirm`, and you gave {short(answer)}")
    # 8 prompts, 5 layers, 3 heads: two real effects, one that only even prompts show, one that only odd ones do, one
    # that lowers the metric, one that is large in three even prompts and far below zero in the fourth, and one that is large
    # in a single even prompt
    table = torch.zeros(8, 5, 3)
    table[:, 1, 2] = torch.tensor([0.6, 0.4] * 4)
    table[:, 3, 1] = torch.tensor([0.5, 0.45] * 4)
    table[::2, 0, 1] = 0.55
    table[1::2, 0, 1] = torch.tensor([-0.68, 0.1, 0.12, 0.26])
    table[1::2, 4, 1] = 2.0
    table[:, 2, 1] = -3.0
    table[::2, 4, 0] = torch.tensor([0.9, 0.9, 0.9, -1.9])
    table[::2, 2, 2] = torch.tensor([1.5, -0.5, -0.5, -0.5])
    wanted = {(1, 2): 0.4, (0, 1): -0.05, (3, 1): 0.45}
    got = require_returned(answer(table.clone(), 3))
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
        (2, 2) not in chosen,
        "head 2.2 is large on a single even prompt and below zero on the others: its *largest* value stands out, and its mean doesn't",
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
    other = {0.1: "median", 0.11: "median", 0.26: "largest value", -0.2: "sum"}
    named = next((what for value, what in other.items() if abs(found[0, 1] - value) < 1e-6), None)
    require(
        named is None,
        f"{found[0, 1]:.2g} is the *{named}* of head 0.1 on the odd prompts; the mean was asked for, and it is −0.05",
    )
    require(
        abs(found[0, 1] - 0.05) > 1e-6 and abs(found[0, 1] - 0.29) > 1e-6,
        "head 0.1's mean on the odd prompts is −0.05, and you report a size: what it does there may go the other way, and the sign "
        "says so",
    )
    require(abs(found[0, 1] - 0.25) > 1e-6, "you report the means over *all* prompts; half of them helped to choose")
    require(
        all(abs(found[head] - wanted[head]) < 1e-6 for head in wanted),
        f"on the odd prompts the chosen heads have the means {wanted}, and you found {found}",
    )
    fewer = require_returned(answer(table.clone(), 1))
    require(len(fewer) == 1, f"asked for k=1 head you return {len(fewer)}: is `k` used?")
    return "Head 0.1 of the check's table was chosen by luck, and the other half of the prompts shows it."


@contextmanager
def _biased(projection: torch.nn.Module) -> Iterator[None]:
    """The projection with a bias, if it has none."""
    had = projection.bias
    if had is None:
        like = projection.weight
        noise = torch.randn(len(like), generator=torch.Generator().manual_seed(0)).to(like)
        projection.bias = torch.nn.Parameter(noise, requires_grad=False)
    try:
        yield
    finally:
        projection.bias = had


@exercise("positions.direct", number=5, title="What does a head write?", difficulty=3, minutes=12)
def _(answer, lm, prompt, direction, metric):
    """
    - A head's part of what the attention returns is the output projection, applied to that head's vector with all the others zero.
    - `z = record(lm, prompt, "attention_value_output")["attention_value_output", layer][0, -1]` has shape (head, d_head), and `lm.anatomy.place("attention_output", layer).module` is the projection, which takes all heads in one row.
    - `alone = torch.eye(lm.n_heads)[:, :, None] * z` is a batch in which row i keeps head i; `project(alone.flatten(1))` are the writes. Subtract `project(torch.zeros_like(z).flatten())`, the bias, and take `@ direction`.
    """
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
        got = require_returned(answer(layer))
        got = torch.as_tensor(got).detach().float().cpu()
        require(
            tuple(got.shape) != (lm.n_heads, lm.d_model),
            "these are the heads' writes, one vector each; take the dot product with `direction`",
        )
        require(
            got.numel() != 1, "one number came back, which is the whole layer's effect: one for each head was asked for"
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
            not like(wanted.abs()), "you report sizes: a head that writes *against* the direction counts as negative"
        )
        require(
            not like(truth(layer, keep_others=True)),
            "that is what all the *other* heads write: keep one head and set the rest to zero",
        )
        require(
            not like(truth(layer, bias=True)),
            BIAS,
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
    with _biased(lm.anatomy.place("attention_output", layer).module):
        got, wanted = ask(layer), truth(layer)
        size = float(wanted.abs().max())
        require(like(wanted), BIAS)
    return "The numbers of all heads, biases, MLPs and the embeddings add up to the logit difference, exactly."
