"""The residual stream between attention and MLP, in blocks that have one after the other.

A module, a norm mostly, is given that stream, and the block adds the MLP's output to the same tensor later. So an edit is written into
the tensor itself, which both get. That this is so is proved by writing one row's stream over another's: then the block must return the
same for both.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .parts import Part
from .watch import Watch, close


def middles(run: Callable[..., Watch], blocks: dict[str, dict], streams: Tensor) -> dict[str, Part | str]:
    """Where each block's middle is, or why it isn't offered.

    Args:
        run: runs the model on two rows of the same tokens, as `Watch` does: of a function that may change what passes, and names.
        blocks: their parts, by their names.
        streams: (2, token, d_model), which all blocks are given.
    """
    names = {parts["middle"] for parts in blocks.values()} - {None}

    def change(name: str, side: str, tensor: Tensor) -> Tensor | None:
        if name in names and side == "input":
            first = tensor.reshape(streams.shape)[:1]
            tensor.copy_(torch.cat([first, first]).view(tensor.shape))
            return None
        return streams.to(tensor) if name in blocks and side == "input" else None

    seen = run(change, {*blocks, *names})
    why = "it has no attention and MLP one after the other, with the stream between them given to a module and added later"
    found: dict[str, Part | str] = dict.fromkeys(blocks, why)
    for name, parts in blocks.items():
        out = seen.out_of(name)
        if parts["middle"] and close(out[0], out[1]):
            found[name] = Part(parts["middle"], "stream", (out.shape[-1],))
    return found
