"""The parts of a block, found in what was seen of one run and proved by it.

Attention is what lets a token's output depend on earlier tokens. What it and the MLP write is added to the stream: the block's output is its
input and both of these, each times a number or normed first; or else such a sum is given to a later module, as where the sums are
normed. Each of them begins with the outermost module that is given what its projections read.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

from torch import Tensor

from .watch import Watch, adds, same


class Part(NamedTuple):
    """What is remembered of a component: its module's name."""

    name: str
    side: str
    shape: tuple[int, ...]
    view: Callable[[Tensor], Tensor] = lambda tensor: tensor


def parts_of(run: Watch, block: str) -> dict:
    """A block's components, each a `Part` or why it isn't offered; under "attention" the module that mixes tokens; and under "heads"
    what its heads may be found in: the projection that it ends in, that one's width, and the (name, width) of those that it begins with;
    and under "middle" the module that is given the sum of the block's input and what attention writes, before the MLP.

    Args:
        run: of two rows in which the block was given streams that differ in the first token.
        block: its name.
    """
    bodies = [block]  # if somebody wrapped it, the block is within
    while inner := [n for n in run.outermost(bodies[-1]) if run.has_matrix(n) and same(run.into(n), run.into(block))]:
        if run.width(inner[0]) != run.width(block):
            break
        bodies.append(inner[0])
    found = [_parts_of(run, block, body) for body in bodies]
    return max(found, key=lambda parts: sum(isinstance(part, Part) for part in parts.values()))


def _parts_of(run: Watch, block: str, body: str) -> dict:
    x, y = run.into(body), run.out_of(body)
    d = x.shape[-1]
    parts: dict[str, Part | str] = dict.fromkeys(
        ("attention_input", "attention_output"), "no token's output in it depends on another token"
    )
    parts |= dict.fromkeys(("mlp_input", "mlp_activation", "mlp_output"), "it has no MLP")
    parts |= {"block_input": Part(block, "input", (d,)), "block_output": Part(block, "output", (d,))}
    top = run.outermost(body)
    attention = next((n for n in top if not run.mixed(run.into(n)) and run.mixed(run.out_of(n))), None)
    rest = [n for n in top if n != attention and run.has_matrix(n)]
    mlp = next((n for n in rest[::-1] if run.width(n) == d), None)

    def linear(name: str) -> list[str]:
        return [name] if run.linear(name) else run.outermost(name, run.linear)

    def reads(name: str) -> Part | str:
        """The outermost module whose input is what linear maps in it read, and none elsewhere reads."""
        maps = linear(name)
        for inside in (name, *run.outermost(name), *maps):
            readers = [n for n in maps if same(run.into(n), run.into(inside))]
            if readers and all(f"{n}.".startswith(f"{inside}.") for n in readers):
                return Part(inside, "input", (run.into(inside).shape[-1],))
        return f"no module within {name} is given what its projections read"

    def stages(name: str) -> list[Tensor]:
        """What a module returns, and what a norm makes of it."""
        found = [run.out_of(name)]
        for n in top:
            if not run.has_matrix(n) and same(run.into(n), found[-1]):
                found.append(run.out_of(n))
        return [t for t in found[::-1] if t is not None and t.shape == x.shape]

    def joins(name: str) -> bool:
        """Is it added to something seen before, and the sum seen?"""
        at = run.order.index((name, "output"))
        streams = [(i, t) for i, t in run.within(block) if t.shape == x.shape]
        before, after = [t for i, t in streams if i < at], [t for i, t in streams if i > at]
        return any(adds(u, p, w) for w in stages(name) for p, u in product(before, after))

    writers = {}
    if attention:
        ends = [n for n in linear(attention) if run.width(n) == d and run.mixed(run.into(n))]
        writers["attention_output"] = [*ends[:-3:-1], attention]
        parts["attention_input"] = reads(attention)
    if mlp:
        ends = [n for n in linear(mlp) if run.width(n) == d]
        writers["mlp_output"] = list(dict.fromkeys([*ends[-1:], mlp]))
        whole = run.into(mlp) is not None and run.into(mlp).shape[-1] == d and not run.linear(mlp)
        parts["mlp_input"] = reads(
            mlp if whole else next(n for n in rest if top.index(n) > (top.index(attention) if attention else -1))
        )
    for names in product(*writers.values()):
        if any(adds(y, x, *written) for written in product(*map(stages, names))):
            found = names
            break
    else:
        found = [next(filter(joins, names), None) for names in writers.values()]
    for component, name in zip(writers, found, strict=True):
        parts[component] = f"nothing that leaves {' or '.join(writers[component])} was found to be added to the stream"
        if name:
            parts[component] = Part(name, "output", (d,))
    if mlp:
        parts["mlp_activation"] = "its MLP doesn't end in one projection"
        if found[-1] and run.linear(found[-1]):
            parts["mlp_activation"] = Part(found[-1], "input", (run.into(found[-1]).shape[-1],))
    parts["attention"], parts["heads"], parts["middle"] = attention, None, None
    if attention and mlp and found[0]:
        begin, end = run.order.index((found[0], "output")), run.order.index((mlp, "output"))
        given = [n for n, side in run.order[begin:end] if side == "input" and n.startswith(block)]
        streams = ((n, run.into(n)) for n in given if run.into(n) is not None and run.into(n).shape == x.shape)
        parts["middle"] = next((n for n, u in streams if any(adds(u, x, w) for w in stages(found[0]))), None)
    out = parts["attention_output"]
    if isinstance(out, Part) and run.linear(out.name):
        begin = [(n, run.width(n)) for n in linear(attention) if run.width(n) and not run.mixed(run.into(n))]
        parts["heads"] = out.name, run.into(out.name).shape[-1], begin
    return parts
