"""Which features of a projection are which head: hypotheses, and the experiment that decides between them.

Turning a head's features is changing their sign, which no norm minds. In a run of three tokens:

- a query that is turned at the first two tokens moves what its own head gives at the second. At the first, which sees
  nothing but itself, it can't; and what it is to the third it can't, for it is no query of the third;
- a key that is turned at the first token moves what its heads give at the second and third, and nothing at the first;
- values that are turned everywhere turn what their heads give.

Another head's output may not move. To try all heads in a few rows, a row turns those whose number has a 1 at one binary place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .watch import noise

TOKENS = 3
# The tokens at which queries, keys and values are turned, and those at which what their heads give then moves.
TURNED = {"query_output": slice(0, 2), "key_output": slice(0, 1), "value_output": slice(0, 3)}
MOVED = {"query_output": [False, True, False], "key_output": [False, True, True], "value_output": [True] * 3}


class Heads(NamedTuple):
    """Which features are n heads of width d: head i is the d from `start + i · stride` on."""

    start: int
    n: int
    stride: int
    d: int

    def __call__(self, tensor: Tensor) -> Tensor:
        """(…, features) as (…, head, d), without copying."""
        return tensor[..., self.start :].unfold(-1, self.d, self.stride)[..., : self.n, :]

    @classmethod
    def of(cls, features: int, n: int) -> Heads:
        """n heads that share all the features, one after the other."""
        return cls(0, n, features // n, features // n)


def hypotheses(component: str, n: int, d: int, projections: list[tuple[str, int]]) -> Iterator[tuple[str, Heads]]:
    """Where the queries, keys or values may be of n heads that give d features each: in which of the projections (name,
    features), and which features of it. The likeliest come first."""
    kind = [*TURNED].index(component)
    order = projections[kind:] + projections[:kind]
    for name, features in order:  # a projection of their own; a query may have another width
        if kind == 0 and features % n == 0:
            yield name, Heads.of(features, n)
        elif kind and features % d == 0 and n % (features // d) == 0:
            yield name, Heads.of(features, features // d)
    for name, features in order:
        few, rest = divmod(features - n * d, 2 * d)
        if few > 0 and rest == 0 and n % few == 0:  # one for all: queries, then keys, then values
            yield name, Heads((0, n, n + few)[kind] * d, (n, few, few)[kind], d, d)
            group = features // few  # or the first key's queries, it and its value, then those of the second
            places = [0, d, 2 * d] if few == n else [None, group - 2 * d, group - d]
            for start in (places[kind:] + places[:kind])[: 3 if few == n else 1]:
                if start is not None:
                    yield name, Heads(start, few, group, d)
        if kind == 0 and features == 2 * n * d:  # each query followed by its gate
            yield name, Heads(0, n, 2 * d, d)
        if kind == 2 and features % n == 0 and features > n * d:  # each value after its key, which has another width
            yield name, Heads(features // n - d, n, features // n, d)


class Turning:
    """The rows of one experiment: the first is left alone, and the last turns one half of each query.

    Args:
        components: what is turned, some of `TURNED`.
        most: how many heads a projection has at most.
    """

    def __init__(self, components: tuple[str, ...], most: int):
        self.components, self.bits = components, most.bit_length()
        self.rows = 2 + self.bits * len(components)

    def _chosen(self, component: str, heads: int) -> Iterator[tuple[int, Tensor]]:
        """Each row that turns a component, and which of the heads it turns."""
        for bit in range(self.bits):
            row = 1 + self.bits * self.components.index(component) + bit
            yield row, torch.arange(1, heads + 1) >> bit & 1 == 1

    def turn(self, features: Tensor, component: str, heads: Heads) -> None:
        """Turn them, in what a projection returns: (row, token, features)."""
        view = heads(features)[:, TURNED[component]]
        for row, chosen in self._chosen(component, heads.n):
            view[row][:, chosen] *= -1
        if component == "query_output":
            view[-1, ..., : heads.d // 2] *= -1

    def passed(self, given: Tensor, component: str, heads: Heads, n: int) -> bool:
        """Did they act as that component of their heads? `given` (row, token, features) is what all n heads give. A quarter of
        those that should have moved is enough: in a trained model, many a head is sure of what it looks at."""
        z = nn.functional.normalize(given.float().unflatten(-1, (n, -1)), dim=-1).cpu()  # a sink may scale it
        moved, unturned = ((z - sign * z[:1]).norm(dim=-1) > 4 * noise(given) for sign in (1, -1))
        hits = []
        for row, chosen in self._chosen(component, heads.n):
            should = torch.tensor(MOVED[component])[:, None] & chosen.repeat_interleave(n // heads.n)
            if (moved[row] & ~should).any() or (component == "value_output" and (unturned[row] & should).any()):
                return False
            hits.append(moved[row][should])
        enough = torch.cat(hits).float().mean() >= 0.25
        if (
            component == "query_output"
        ):  # all of a head moves, or it is several: the half whose features weren't turned, by itself
            half = nn.functional.normalize(z[:, 1, :, z.shape[-1] // 2 :], dim=-1)
            enough &= ((half[-1] - half[0]).norm(dim=-1) > 4 * noise(given)).float().mean() >= 0.25
        return bool(enough)
