"""Exercises of notebook 06, generation with interventions."""

from __future__ import annotations

import torch
from torch import Tensor

from ...course import NotYet, exercise, require, require_attempted, require_returned, short

PROMPT = "The lake in the morning is"
N = 5


@exercise("generation.loop", number=1, title="The loop with a cache", difficulty=2, minutes=7)
def _(answer, lm):
    """
    - In the first round the model reads `ids`. From then on it reads only the token that you have just chosen, and the cache.
    - `out = lm.model(reads, past_key_values=past, use_cache=True)`, then `past = out.past_key_values`, and `reads` becomes the new token, of shape (1, 1).
    - `reads = out.logits[:, -1:].argmax(-1)` is of shape (1, 1) already; `new.append(reads.item())`.
    """
    require(callable(answer), f"the answer is your function `greedy`, and you gave {short(answer)}")
    ids = lm.tokens(PROMPT)
    wanted, so_far = [], ids
    with torch.no_grad():
        for _ in range(N):
            wanted.append(lm.model(so_far, use_cache=False).logits[0, -1].argmax().item())
            so_far = torch.cat([so_far, so_far.new_tensor([wanted[-1:]])], 1)
    read: list[int] = []
    cached = []  # for each round, whether it was given the cache

    def count(module, args, kwargs) -> None:
        tokens = args[0] if args else kwargs.get("input_ids")
        require(
            tokens.ndim == 2,
            f"the model reads ids of shape (batch, position), and your function gave it {tuple(tokens.shape)}",
        )
        read.append(tokens.shape[1])
        cached.append(kwargs.get("past_key_values") is not None)

    def ready_made(*args, **kwargs):
        raise NotYet(
            "`generate` has the loop inside: here the loop is yours, with one call of `lm.model(…)` a new token"
        )

    handle = lm.model.register_forward_pre_hook(count, with_kwargs=True)
    lm.model.generate = ready_made
    try:
        with torch.no_grad():
            got = require_attempted(answer(ids.clone(), N))
    finally:
        handle.remove()
        del lm.model.generate
    require_returned(got)
    if hasattr(got, "tolist"):  # a tensor or an array
        got = got.flatten().tolist()
    require(isinstance(got, list | tuple), f"a list of {N} token ids was expected, and {short(got)} came back")
    got = [int(token) for token in got]
    prompt = ids[0].tolist()
    require(got[: len(prompt)] != prompt, "your list begins with the prompt: return the new tokens alone")
    require(len(got) == N, f"{N} new tokens were asked for, and {len(got)} came back")
    require(read, "the model was never called: call `lm.model(…)`")
    require(
        got[0] == wanted[0],
        "the first new token is another one: it is decided where the prompt's *last* token is read",
    )
    rounds = ", ".join(map(str, read))
    astray = f"the first {_agree(got, wanted)} new tokens are right, then it goes astray"
    require(
        got == wanted or not any(cached) or max(read[1:], default=1) == 1,
        f"{astray}: the model has the cache *and* reads {rounds} tokens; what is in the cache isn't read again",
    )
    require(got == wanted, f"{astray}: does each round read the token just chosen, *and* the cache of all before it?")
    require(any(cached[1:]), f"the tokens are right, but no round was given the cache: it read {rounds} tokens")
    require(
        len(read) != N + 1 or sum(read) != len(prompt) + N,
        f"the tokens are right, but the model ran {N + 1} times for {N} new tokens: the last new token is written and needs no reading",
    )
    require(
        sum(read) == len(prompt) + N - 1,
        f"the tokens are right, but the model read {sum(read)} tokens for them ({rounds}): with the cache each token is read "
        f"once, {len(prompt) + N - 1} in all",
    )
    return f"The model read {rounds} tokens. The first round differs from the others, and that is what this notebook is about."


def _agree(one: list, other: list) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))


# Of each setting: is the first new token under its influence, and is the third, when it is read; and why.
WHERE = {
    "prompt": (
        (True, "the first new token is decided where the prompt's last token is read, and that token is steered"),
        (
            False,
            "the third new token's own activations are left alone; the steered prompt reaches it through the cache only",
        ),
    ),
    "new": (
        (
            False,
            "the first new token is decided before any new token has been read: at the prompt's last token, which isn't steered",
        ),
        (True, "the third new token is a new token: when it is read, it is steered"),
    ),
    "everywhere": ((True, "*everywhere* includes the prompt"), (True, "*everywhere* includes the new tokens")),
}


@exercise("generation.where", number=2, title="Three experiments", difficulty=1, minutes=5)
def _(answer):
    """
    - Which token's activations decide the first new token? Which tokens does each setting steer?
    - The first new token is read off the prompt's last token. The third new token is *read* when the fourth is decided.
    - Only “new” leaves the first new token alone; only “prompt” leaves the third's activations alone.
    """
    require(isinstance(answer, dict), f"a dictionary was expected, setting → (…, …), and you gave {short(answer)}")
    for name, wanted in WHERE.items():
        require(name in answer, f"the setting {name!r} is missing from your dictionary")
        given = require_attempted(answer[name], f"the entry of {name!r}")
        require(
            isinstance(given, tuple | list)
            and len(given) == 2
            and all(one in (True, False) for one in given),  # 1 and 0 as well
            f"the entry of {name!r} is two answers, (True or False, True or False), and you gave {short(given)}",
        )
        whats = ("the first new token", "the third's own activations")
        for what, one, (right, why) in zip(whats, given, wanted, strict=True):
            require(one == right, f"{name!r} and {what}: {why}")
    return "So a vector on new tokens only starts one token late. A vector on the prompt only acts on later tokens through the cache."


@exercise("generation.choose", number=3, title="Choose the strength", difficulty=2, minutes=6)
def _(answer):
    """
    - First leave out every row whose perplexity is more than `budget` times that of the row with strength 0.
    - Of what is left, take the row with the most hits; `max(rows, key=…)` takes a tuple, too.
    - `max(within, key=lambda row: (row['hits'], -row['perplexity']))['strength']`: in a tie, the one with the lowest perplexity.
    """
    require(callable(answer), f"the answer is your function `choose`, and you gave {short(answer)}")

    def table(*rows):
        return [dict(zip(("strength", "hits", "perplexity"), row, strict=True)) for row in rows]

    cases = [
        (table((0.0, 0.1, 4.0), (0.2, 0.6, 6.0), (0.3, 0.8, 9.0), (0.5, 0.9, 30.0)), 2.5, 0.3),
        (table((0.0, 0.0, 5.0), (0.2, 0.7, 7.0), (0.4, 0.5, 9.0), (0.6, 0.9, 40.0)), 2.0, 0.2),
        (table((0.0, 0.0, 5.0), (0.2, 0.7, 9.0), (0.3, 0.7, 6.0), (0.4, 0.7, 8.0)), 2.0, 0.3),
        (table((0.0, 0.0, 10.0), (0.2, 0.4, 14.0), (0.3, 0.6, 19.0)), 2.0, 0.3),
        (table((0.0, 0.0, 5.0), (0.2, 0.7, 10.0), (0.4, 0.9, 11.0)), 2.0, 0.2),  # “at most”
        (table((0.0, 0.5, 5.0), (0.2, 0.4, 6.0), (0.4, 0.9, 40.0)), 2.0, 0.0),  # the unsteered row counts, too
        (table((0.0, 0.1, 6.0), (0.2, 0.3, 3.0), (0.4, 0.7, 11.0)), 2.0, 0.4),  # the unsteered row isn't the cheapest
        (
            table((0.0, 0.0, 5.0), (0.2, 0.3, 12.0), (0.4, 0.6, 9.0)),
            2.0,
            0.4,
        ),  # after a row beyond the budget comes one within
        (table((0.0, 0.0, 5.0), (0.2, 0.62, 6.0), (0.4, 0.64, 9.0)), 2.0, 0.4),  # alike only when rounded
    ]
    for rows, budget, wanted in cases:
        given = [dict(row) for row in rows]
        got = require_returned(answer(given, budget))
        require(given == rows, "your function changed the table that it was given")
        if got == wanted:
            continue
        whole = isinstance(got, dict) and got.get("strength") == wanted
        require(not whole, "that is the whole row; return its strength")
        require(
            got in [row["strength"] for row in rows],
            f"{short(got)} is none of the strengths in the table; return one row's strength",
        )
        chosen, base = next(row for row in rows if row["strength"] == got), rows[0]["perplexity"]
        require(
            chosen["perplexity"] <= budget * base,
            f"at strength {got} the perplexity is {chosen['perplexity'] / base:.1f} times the unsteered one, and {budget} is allowed",
        )
        within = [row for row in rows if row["perplexity"] <= budget * base]
        best = max(row["hits"] for row in within)
        better = f"within the budget strength {got} has {chosen['hits']:.0%} hits, and another strength has {best:.0%}"
        require(wanted != 0, f"{better}: the unsteered row, of strength 0, may be chosen as well")
        require(
            min(row["perplexity"] for row in rows) == base,
            f"{better}: the budget is a multiple of the *unsteered* perplexity, and here a steered row has the lowest one",
        )
        beyond = [i for i, row in enumerate(rows) if row["perplexity"] > budget * base]
        require(
            not beyond or beyond[-1] == len(rows) - 1,
            f"{better}: it stands below a row that is beyond the budget; look at every row",
        )
        require(
            best - chosen["hits"] > 0.05 or best == chosen["hits"],
            f"{better}: compare the hits as they are, without rounding",
        )
        require(
            chosen["hits"] == best,
            f"{better}; a perplexity is within it if it is at most {budget} times that of strength 0",
        )
        raise NotYet(f"several strengths have {best:.0%} hits: in a tie, take the one with the lowest perplexity")
    return "The rule was fixed before the numbers were seen. The budget is yours to choose, and to report."


@exercise("generation.ablate", number=4, title="Take a direction out", difficulty=2, minutes=6)
def _(answer):
    """
    - How much of h lies along v? Bring v to length 1 first.
    - `u = v / v.norm()`; the coordinate of each activation along it is `h @ u`, of shape (…,).
    - `h - (h @ u)[..., None] * u`.
    """
    require(callable(answer), f"the answer is your function `ablate`, and you gave {short(answer)}")
    draw = torch.Generator().manual_seed(0)
    for shape in ((6, 8), (2, 3, 8)):
        h, v = torch.randn(shape, generator=draw), 3 * torch.randn(shape[-1], generator=draw)
        kept = h.clone(), v.clone()
        got = require_returned(answer(h, v))
        got = torch.as_tensor(got) if hasattr(got, "__array__") else got
        require(isinstance(got, Tensor), f"a tensor was expected, and {short(got)} came back")
        require(
            torch.equal(h, kept[0]) and torch.equal(v, kept[1]), "your function changed the tensors that it was given"
        )
        require(
            tuple(got.shape) == shape,
            f"a tensor of shape {tuple(got.shape)} came back, and {shape} was expected: h may have any number of axes before the last",
        )
        u = v / v.norm()
        along = (h @ u)[..., None] * u

        def near(x, got=got):
            return torch.allclose(got.float(), x, atol=1e-4)

        if near(h - along):
            continue
        require(not near(h), "h came back as it was")
        require(
            not near(h - u) and not near(h - v),
            "you subtracted the same vector everywhere: that is steering away, not ablation",
        )
        require(not near(along), "that is the part along v; what is asked for is the rest")
        require(not near(h + along), "the sign is wrong: what lies along v is now there twice")
        require(not near(h - 2 * along), "it is taken out twice: what pointed along v now points as far the other way")
        require(
            not near(h - (h @ u).mean() * u) and not near(h - (h @ u).mean(-1, keepdim=True)[..., None] * u),
            "every row lost the same amount, the mean one; each row has a part of its own along v",
        )
        rest = h - along
        require(
            not near(rest * h.norm(dim=-1, keepdim=True) / rest.norm(dim=-1, keepdim=True)),
            "what is left was stretched to the old length of h; what doesn't lie along v stays as it was",
        )
        require(
            not near(h - (h @ v)[..., None] * v),
            "v may have any length, and you took out too much by its square: bring v to length 1 first",
        )
        require(
            not near(h - (h @ u).clamp(min=0)[..., None] * u),
            "you removed only what points *along* v; what points against it is to go as well",
        )
        require(
            not near(h - (h @ u)[..., None] * v), "the coordinate is along u, of length 1, and you took it out along v"
        )
        require((got.float() @ u).abs().max() < 1e-3, "something along v is left in random activations")
        raise NotYet("nothing along v is left, but something at right angles to it changed as well")
    return "Nothing along v is left, and nothing at right angles to it was touched. Whether zero is neutral is the next question."
