"""The edits that `intervene` applies: each is a formula for the activations h at a site.

    replace        h ← s                    another run's activation (interchange intervention, activation patching)
    add            h ← h + scale · v        steering
    noise          h ← h + ε                corruption (Meng et al. 2022)
    zero           h ← 0                    ablation
    mean_ablate    h ← mean of a reference  ablation that stays in distribution (Wang et al. 2022)
    project_out    h ← h − (h·u) u          ablation of one direction
    clamp          h ← h + max(0, c − h·u) u   a direction held up at a level
    knock_out      p ← p without some keys  attention knock-out (Geva et al. 2023)
    swap_subspace  h ← h + (s − h) Q Qᵀ     an interchange in a subspace (DAS, Geiger et al. 2023)
    apply          h ← f(h)                 anything else

A value is a tensor of shape `(d,)`, the same everywhere, or `(batch, places, d)`, where the places are those that the
site names in each row (for per-head components: (heads, d_head) in place of d); or the `Activations` of another run,
from which the same site is read. A value follows the activation's device and dtype.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .activations import Activations
from .hooks import Edit
from .models import Spots, as_positions
from .sites import Site


def replace(site: Site, value: Tensor | Activations) -> Edit:
    """Put `value` in place of the activations: h ← s. With another run's `Activations`, the interchange intervention: the
    same site is read there. To read another place, pass what it holds: replace(site, acts[other_site]).

    >>> site = Site("block_output", 8, positions=lm.find(base, "Colosseum"))
    >>> with intervene(lm, replace(site, record(lm, source, "block_output"))):
    ...     lm.top(base, 1)[0][0]
    ' Paris'
    """
    return _edit("replace", site, lambda h, s: s, value)


def add(site: Site, vector: Tensor | Activations, scale: float = 1.0) -> Edit:
    """Add a vector: h ← h + scale · v.

    >>> site = Site("block_output", 23, positions=-1)
    >>> difference = record(lm, source, site)[site] - record(lm, base, site)[site]
    >>> with intervene(lm, add(site, difference, scale=2)):
    ...     lm.top(base, 1)[0][0]
    ' Paris'
    """
    return _edit("add", site, lambda h, v: h + scale * v, vector)


def noise(site: Site, std: float, seed: int = 0) -> Edit:
    """Add Gaussian noise of standard deviation `std`, in the activations' own units: h ← h + ε.

    >>> with intervene(lm, noise(Site("block_input", 0, positions=lm.find(base, "Colosseum")), 3 * embedding_std(lm))):
    ...     lm.top(base, 1)[0][0] == " Rome"
    False

    The draw depends on the seed and on the token's position in its row, and on nothing else: it is the same in every run,
    in every batch and on every device, and each new token of a generation has its own.
    """
    if std < 0:
        raise ValueError(f"A standard deviation is not negative, and std={std} was given.")

    def prepare(shape: tuple[int, ...], spots: Spots) -> Callable[[Tensor], Tensor]:
        draws = [
            torch.randn(
                shape, generator=torch.Generator().manual_seed(seed * 1_000_003 + position), dtype=torch.float32
            )
            for position in spots.positions.tolist()
        ]
        return lambda h: h + std * torch.stack(draws).to(h)

    return Edit("noise", vector_site(site), prepare)


def zero(site: Site) -> Edit:
    """Zero ablation: h ← 0.

    >>> rome = probability(lm, " Rome")
    >>> with intervene(lm, zero(Site("mlp_output", 0))):
    ...     round(rome(lm.next_token_logits(base)).item(), 1)  # unedited: 0.8
    0.0
    """
    return _edit("zero", site, torch.zeros_like)


def knock_out(site: Site, keys) -> Edit:
    """Attention knock-out (Geva et al. 2023): the site's queries don't see some tokens. Those get no attention, and what the others
    get is divided by what is left, as if the scores of these had been −∞ before the softmax.

    >>> site = Site("attention_weight", 20, positions=-1)
    >>> with intervene(lm, knock_out(site, keys=lm.find(base, "Colosseum"))):
    ...     pattern = record(lm, base, site)[site]
    >>> pattern.shape, pattern[..., 1].max().item(), round(pattern[0, 0, 0].sum().item(), 3)
    (torch.Size([1, 1, 9, 9]), 0.0, 1.0)

    Args:
        site: of `attention_weight`; its positions are the queries.
        keys: positions of the tokens that they don't see, in any form that a site's positions have.

    Raises:
        ValueError: a site of another component, or no keys.
    """
    if site.component != "attention_weight" or keys is None:
        raise ValueError(
            f"knock_out cuts edges of attention_weight to the tokens at `keys`, and got {site} with keys={keys!r}."
        )
    keys = as_positions(keys)

    def prepare(shape: tuple[int, ...], spots: Spots) -> Callable[[Tensor], Tensor]:
        unseen = spots.layout.spots(keys)
        cut = torch.zeros(len(spots.counts), shape[-1], dtype=torch.bool)
        cut[unseen.rows, unseen.columns] = True
        cut = cut[spots.rows][:, None]  # (n, 1, key)

        def without(pattern: Tensor) -> Tensor:
            gone = cut.to(pattern.device)
            left = 1 - (pattern * gone).sum(-1, keepdim=True)
            return pattern.masked_fill(gone, 0) / left.clamp(min=torch.finfo(pattern.dtype).tiny)

        return without

    return Edit("knock_out", site, prepare)


def mean_ablate(site: Site, reference: Tensor | Activations) -> Edit:
    """Mean ablation: h ← the mean of a reference.

    >>> site = Site("attention_output", 23, positions=-1)
    >>> reference = record(lm, [base, source], site)
    >>> with intervene(lm, mean_ablate(site, reference)):
    ...     ablated = record(lm, base, site)[site]
    >>> torch.allclose(ablated[0], reference[site].mean(0), atol=1e-4)
    True

    Args:
        site: where.
        reference: a mean that you have, or the `Activations` of reference prompts: their mean over all rows and over
            the tokens that the site's positions name in them (all real tokens, for None).
    """
    if isinstance(reference, Activations):
        reference = reference.at(site, reference.layout.spots(site.positions)).mean(0)
    return _edit("mean_ablate", site, lambda h, mean: mean.expand_as(h), reference)


def project_out(site: Site, direction: Tensor) -> Edit:
    """Remove what lies along a direction: h ← h − (h·u) u, u = direction / ‖direction‖.

    >>> u, site = torch.randn(lm.d_model), Site("block_output", 10, positions=-1)
    >>> with intervene(lm, project_out(site, u)):
    ...     along = record(lm, base, site)[site] @ u
    >>> along.abs().item() < 1e-2
    True
    """
    return _edit("project_out", site, lambda h, u: h - (h * u).sum(-1, keepdim=True) * u, _unit(direction))


def clamp(site: Site, direction: Tensor, at_least: float) -> Edit:
    """Hold a direction up at a level: h ← h + max(0, at_least − h·u) u, u = direction / ‖direction‖.

    >>> u, site = torch.randn(lm.d_model), Site("block_output", 10, positions=-1)
    >>> with intervene(lm, clamp(site, u, at_least=50.0)):
    ...     along = record(lm, base, site)[site] @ u / u.norm()
    >>> round(along.item())
    50
    """

    def raise_to(h: Tensor, u: Tensor) -> Tensor:
        return h + (at_least - (h * u).sum(-1, keepdim=True)).clamp(min=0) * u

    return _edit("clamp", site, raise_to, _unit(direction))


def swap_subspace(site: Site, source: Tensor | Activations, subspace) -> Edit:
    """Interchange within a subspace: h ← h + (s − h) Q Qᵀ (DAS, Geiger et al. 2023, section 3).

    >>> site = Site("block_output", 8, positions=lm.find(base, "Colosseum"))
    >>> everything = torch.eye(lm.d_model)  # in the whole space it is `replace`
    >>> with intervene(lm, swap_subspace(site, record(lm, source, site), everything)):
    ...     lm.top(base, 1)[0][0]
    ' Paris'

    Args:
        site: where.
        source: the run that the subspace's content is taken from.
        subspace: Q, a tensor (d, rank) with orthonormal columns, or an object with a method `swap(base, source)`, such as a
            `RotatedSubspace`.

    Raises:
        ValueError: Q's columns are not orthonormal.
    """
    if hasattr(subspace, "swap"):
        return _edit("swap_subspace", site, subspace.swap, source, width=getattr(subspace, "d", None))
    basis = require_basis(subspace)
    return _edit("swap_subspace", site, lambda h, s: swapped(h, s, basis), source, width=len(basis))


def apply(site: Site, function: Callable[[Tensor], Tensor]) -> Edit:
    """Anything else: h ← function(h), with h of shape (n, d) or (n, heads, d_head), n the places named, row by row.

    >>> site = Site("mlp_output", 3, positions=-1)
    >>> with intervene(lm, apply(site, torch.relu)):
    ...     record(lm, base, site)[site].min().item()
    0.0

    Raises:
        ValueError: when the model runs, where the function returns another shape.
    """

    def checked(h: Tensor) -> Tensor:
        new = function(h)
        if not isinstance(new, Tensor) or new.shape != h.shape:
            got = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
            raise ValueError(f"apply at {site} got a tensor {tuple(h.shape)} and returned {got}: keep the shape.")
        return new

    return _edit("apply", site, checked)


def swapped(base: Tensor, source: Tensor, basis: Tensor) -> Tensor:
    """base + (source − base) Q Qᵀ, in the base's precision."""
    return base + ((source - base).to(basis) @ basis @ basis.mT).to(base)


def require_basis(subspace) -> Tensor:
    """A tensor (d, rank), as it is, if its columns are orthonormal.

    Raises:
        ValueError: they are not, or it is something else.
    """
    if not isinstance(subspace, Tensor):
        raise ValueError(
            f"A subspace is a tensor (d, rank) or an object with a method swap, and {type(subspace).__name__} was given."
        )
    shape = tuple(subspace.shape)
    if subspace.ndim == 2 and not subspace.numel():
        raise ValueError(f"The subspace, a tensor of shape {shape}, has no direction: give one at least.")
    precise, tolerance = subspace.detach().float(), 2e-2 if subspace.dtype in (torch.float16, torch.bfloat16) else 1e-4
    if subspace.ndim != 2 or (precise.mT @ precise - torch.eye(shape[1]).to(precise)).abs().max() > tolerance:
        raise ValueError(
            f"The subspace, a tensor of shape {shape}, is not (d, rank) with orthonormal columns: "
            "make it so with torch.linalg.qr(subspace).Q."
        )
    return subspace


# ---------------------------------------------------------------------------------------------------------------------


def _edit(name: str, site: Site, formula: Callable, *values: Tensor | Activations, width: int | None = None) -> Edit:
    """An edit from its formula: of h alone, or of h and a value that has been made to fit. `width` is the d that the
    formula needs, where it needs one."""
    for value in values:
        if not isinstance(value, Tensor | Activations):
            raise ValueError(f"{name} takes a tensor or the Activations of another run, not {type(value).__name__}.")

    def prepare(shape: tuple[int, ...], spots: Spots) -> Callable[[Tensor], Tensor]:
        if width not in (None, shape[-1]):
            raise ValueError(
                f"{name} at {site}: the subspace is one of {width} dimensions, and activations have {shape[-1]}."
            )
        fitted = [_fit(value, name, site, shape, spots) for value in values]
        return lambda h: formula(h, *(value.to(h) for value in fitted))

    return Edit(name, site if name in ("replace", "zero", "apply") else vector_site(site), prepare)


def vector_site(site: Site) -> Site:
    """The site itself, unless what is there are no vectors."""
    if site.component == "attention_weight":
        raise ValueError(
            "attention_weight has shares of attention, and no vectors: edit it by knock_out, replace, zero or apply, or take "
            "query_output or key_output."
        )
    return site


def _fit(value: Tensor | Activations, name: str, site: Site, shape: tuple[int, ...], spots: Spots) -> Tensor:
    """The value at each of n spots: (n, *shape), or `shape` where it is the same everywhere."""
    if isinstance(value, Activations):
        return _from_run(value, name, site, shape, spots)
    if tuple(value.shape) == shape:
        return value
    if value.ndim == 2 + len(shape) and spots.each is not None:
        full = (len(spots.counts), spots.each, *shape)
        if all(got in (1, wanted) for got, wanted in zip(value.shape, full, strict=True)) and value.shape[2:] == shape:
            return value.expand(full).flatten(0, 1)
    each = spots.each if spots.each is not None else f"{min(spots.counts)} to {max(spots.counts)}"
    raise ValueError(
        f"{name} at {site} was given a tensor of shape {tuple(value.shape)}: expected was {shape}, the same everywhere, or "
        f"(batch, places, …) = {(len(spots.counts), each, *shape)}."
    )


def _from_run(acts: Activations, name: str, site: Site, shape: tuple[int, ...], spots: Spots) -> Tensor:
    """The same site, read from another run. A single source row serves every row of the base."""
    batch = len(spots.counts)
    if len(acts.layout.lengths) == 1 and batch > 1:
        acts = acts.rows([0] * batch)
    if len(acts.layout.lengths) != batch:
        raise ValueError(
            f"{name} at {site}: the source has {len(acts.layout.lengths)} rows and the base has {batch}; give one source "
            "row for each base row, or a single one."
        )
    theirs = acts.layout.spots(site.positions)
    if theirs.counts != spots.counts:
        raise ValueError(
            f"{name} at {site}: the source has {list(theirs.counts)} tokens there and the base {list(spots.counts)}, row by "
            "row, so they don't pair up: choose prompts of equal length, or name positions that exist in both."
        )
    taken = acts.at(site, theirs)
    if taken.shape[1:] != shape:
        raise ValueError(f"{name} at {site}: the source has {tuple(taken.shape[1:])} there, the model {shape}.")
    return taken


def _unit(direction: Tensor) -> Tensor:
    if not isinstance(direction, Tensor) or not direction.ndim or not direction.norm(dim=-1).all():
        raise ValueError("A direction is a tensor whose last axis is d, not zero.")
    return direction / direction.norm(dim=-1, keepdim=True)
