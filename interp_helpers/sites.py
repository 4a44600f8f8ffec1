"""Where in the computation: a `Site` names a component of a block, positions and heads."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from .models import COMPONENTS, PER_HEAD, Place, as_int, as_positions


@dataclass(frozen=True, repr=False)
class Site:
    """A place in the computation: a component of one block, at some positions, in some heads.

    >>> Site("block_output", 8)  # the residual stream after the ninth block, at every token
    Site('block_output', 8)
    >>> Site("mlp_output", 8, positions=-1)  # the MLP's output at each prompt's last token
    Site('mlp_output', 8, positions=-1)
    >>> Site("block_output", 8, positions=[[3], [5]])  # another place in each of two prompts
    Site('block_output', 8, positions=((3,), (5,)))
    >>> Site("query_output", 8, heads=[0, 2])  # two heads' queries
    Site('query_output', 8, heads=(0, 2))

    Args:
        component: one of `COMPONENTS`; `anatomy` says where each is read.
        layer: the block, counted from 0: layer 8 is the ninth.
        positions: None (all), an int, a sequence, a slice, or one sequence a row; a row whose sequence is empty is left
            alone. Negative ones count from the end of each row's own tokens, padding left out.
        heads: None (all), an int or a sequence, for per-head components and `attention_weight`, whose positions are the queries.

    Raises:
        ValueError: an unknown component, heads on a component that has none, or a head that is named twice.
    """

    component: str
    layer: int
    positions: int | tuple | slice | None = None
    heads: int | tuple | None = None

    def __post_init__(self):
        if self.component not in COMPONENTS:
            close = difflib.get_close_matches(str(self.component), COMPONENTS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"the components are {', '.join(COMPONENTS)}."
            raise ValueError(f"There is no component {self.component!r}: {hint}")
        if self.heads is not None and self.component not in (*PER_HEAD, "attention_weight"):
            raise ValueError(
                f"{self.component!r} is not split by head, so heads={self.heads!r} means nothing there: leave it out, or "
                f"choose a per-head component ({', '.join(PER_HEAD)})."
            )
        object.__setattr__(self, "positions", as_positions(self.positions))
        object.__setattr__(self, "layer", as_int(self.layer))
        if self.heads is not None:
            heads = as_int(self.heads)
            object.__setattr__(self, "heads", heads if isinstance(heads, int) else tuple(map(as_int, heads)))
            if self.heads == ():
                raise ValueError("heads=[] names no head: leave it out for all of them.")
            if len(set(self.head_list)) < len(self.head_list):
                raise ValueError(f"heads={heads!r} names a head twice: each is edited once.")

    def __repr__(self) -> str:
        options = {"positions": self.positions, "heads": self.heads}
        named = [f"{name}={value!r}" for name, value in options.items() if value is not None]
        return f"Site({', '.join([repr(self.component), repr(self.layer), *named])})"

    def __hash__(self) -> int:  # a slice has no hash of its own before Python 3.12
        return hash((self.component, self.layer, repr(self.positions), self.heads))

    def place(self, lm) -> Place:
        """This site's module in `lm`.

        Raises:
            ValueError: the model has no such layer or head.
        """
        if not isinstance(self.layer, int) or not 0 <= self.layer < lm.n_layers:
            raise ValueError(
                f"{lm.name} has {lm.n_layers} blocks, layers 0 to {lm.n_layers - 1}, and layer {self.layer!r} was asked for."
            )
        place = lm.anatomy.place(self.component, self.layer)
        for head in self.head_list or ():
            if not isinstance(head, int) or not 0 <= head < place.shape[0]:
                raise ValueError(
                    f"{self.component!r} of {lm.name} has {place.shape[0]} heads, 0 to {place.shape[0] - 1}, and head {head!r} "
                    "was asked for."
                )
        return place

    @property
    def head_list(self) -> list[int] | None:
        return None if self.heads is None else [self.heads] if isinstance(self.heads, int) else list(self.heads)
