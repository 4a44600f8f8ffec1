"""What `hooks.record` saw: activations by site."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .models import Layout, Spots, as_ints
from .sites import Site


class Activations:
    """What `record` saw. `acts[site]` and `acts["block_output", 8]` are tensors (batch, position, d), or (batch,
    position, head, d_head) for per-head components; `acts.logits` are the run's logits (batch, position, vocab).

    >>> acts = record(lm, base, "block_output", Site("attention_weight", 4))
    >>> acts["block_output", 8].shape
    torch.Size([1, 9, 576])
    >>> acts[Site("block_output", 8, positions=-1)].shape
    torch.Size([1, 1, 576])
    >>> acts.logits.shape
    torch.Size([1, 9, 49152])
    """

    def __init__(
        self,
        values: dict[tuple[str, int], Tensor],
        logits: Callable[[], Tensor],
        next_token_logits: Tensor,
        layout: Layout,
        rows: Tensor | None = None,
    ):
        self._values, self._logits, self._next_token_logits, self.layout = values, logits, next_token_logits, layout
        self._rows = rows  # which rows of the run, in which order; None: as they are

    def __getstate__(self) -> dict:
        """A copy, and what is pickled, has everything but the logits at every position, which only the model can make."""
        return self.__dict__ | {"_logits": None}

    @property
    def logits(self) -> Tensor:
        if self._logits is None:
            raise ValueError(
                "This is a copy, or was read from a file, and has the logits of each row's last token alone, .next_token_logits: take "
                "the others from lm(prompts)."
            )
        return self._chosen(self._logits())

    @property
    def next_token_logits(self) -> Tensor:
        """The logits (batch, vocab) at each row's last real token."""
        return self._chosen(self._next_token_logits)

    def __getitem__(self, key: Site | tuple[str, int]) -> Tensor:
        if isinstance(key, str):
            raise KeyError(_Sentence(f"Of which layer? acts[{key!r}, 8] is one, acts.stack({key!r}) has them all."))
        site = key if isinstance(key, Site) else Site(*key)
        if site.positions is None:  # padding and all, so that the shape is the batch's
            whole = self._chosen(self._run(site))
            if site.component == "attention_weight":
                return whole if site.heads is None else whole[:, site.head_list]
            return whole if site.heads is None else whole[:, :, site.head_list]
        spots = self.layout.spots(site.positions)
        if spots.each is None:
            raise ValueError(
                f"{site} names a different number of tokens in each row ({spots.counts}), which no single tensor holds: "
                "take one row at a time, with acts.rows([0])."
            )
        return self.at(site, spots).unflatten(0, (-1, spots.each))

    def at(self, site: Site, spots: Spots) -> Tensor:
        """The activations (n, d) or (n, heads, d_head) of a site's component at n named spots."""
        rows = spots.rows if self._rows is None else self._rows[spots.rows]
        run = self._run(site)  # a pattern's rows are those of the queries: (batch, query, head, key)
        taken = (run.transpose(1, 2) if site.component == "attention_weight" else run)[rows, spots.columns]
        return taken if site.heads is None else taken[:, site.head_list]

    def stack(self, component: str) -> Tensor:
        """Every recorded layer of a component: (layer, batch, position, …), layers in order."""
        layers = sorted(layer for name, layer in self._values if name == component)
        if not layers:
            raise KeyError(_Sentence(f"{component!r} was not recorded. Here is {self!r}."))
        return torch.stack([self[component, layer] for layer in layers])

    def rows(self, rows: Sequence[int]) -> Activations:
        """The same record with other rows: chosen, reordered or repeated. Nothing is copied.

        Raises:
            ValueError: a row that the record doesn't have.
        """
        rows, n = as_ints(rows), len(self.layout.lengths)
        outside = [row for row in rows if not -n <= row < n]
        if outside:
            raise ValueError(f"The record has {n} rows, 0 to {n - 1}, and row {outside[0]} was asked for.")
        chosen = torch.tensor(rows) if self._rows is None else self._rows[rows]
        return Activations(self._values, self._logits, self._next_token_logits, self.layout.take(rows), chosen)

    def _chosen(self, tensor: Tensor) -> Tensor:
        # Where all rows are, it is the very tensor that the run went on with, so that gradients with respect to it exist.
        return tensor if self._rows is None else tensor[self._rows]

    def _run(self, site: Site) -> Tensor:
        if (site.component, site.layer) not in self._values:
            raise KeyError(_Sentence(f"{site.component!r} of layer {site.layer} was not recorded. Here is {self!r}."))
        return self._values[site.component, site.layer]

    def __repr__(self) -> str:
        layers: dict[str, list[int]] = {}
        for component, layer in self._values:
            layers.setdefault(component, []).append(layer)
        held = "; ".join(f"{name} at layers {_ranges(found)}" for name, found in layers.items())
        return f"Activations of {len(self.layout.lengths)} prompt(s) of {list(self.layout.lengths)} tokens: {held}"


def _ranges(layers: list[int]) -> str:
    layers = sorted(layers)
    in_a_row = layers[1:] and layers == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]} to {layers[-1]}" if in_a_row else str(layers)


class _Sentence(str):
    # KeyError shows the repr of its message; this one reads as a sentence.
    __repr__ = str.__str__
