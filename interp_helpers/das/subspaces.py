"""Subspaces of an activation space, and the interchange within one.

A variable that a network computes need not sit in single neurons; it may lie along a few *directions*. Distributed alignment
search (DAS, Geiger et al. 2023) looks for them: an orthonormal basis Q (d, rank) such that exchanging an activation's
content within span(Q), and leaving the rest alone, acts as exchanging the variable would:

    h ← h + (s − h) Q Qᵀ

Here are the subspaces themselves: one to be learnt (`RotatedSubspace`), one whose size is learnt as well (`BoundlessSubspace`,
Wu et al. 2023), and those that need no learning, which every learnt one must beat (`principal_components`, `class_means`).
How they are learnt and tested is in `train`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..edits import swapped
from ..models import as_list


class RotatedSubspace(nn.Module):
    """A subspace of `rank` dimensions, with an orthonormal basis by construction.

    >>> subspace = RotatedSubspace(lm.d_model, rank=2, seed=0)
    >>> subspace.basis.shape
    torch.Size([576, 2])
    >>> site = Site("block_output", 8, positions=-1)
    >>> with intervene(lm, swap_subspace(site, record(lm, source, site), subspace)):
    ...     lm.top(base, 1)[0][0]  # not trained yet: nothing changes
    ' Rome'

    What is learnt is a matrix of any (d, rank) numbers; the basis is the Q of its QR decomposition, so no step of training
    can leave the orthonormal ones, and no basis of the rest of the space has to be kept.

    Args:
        d: the width of the activations.
        rank: the subspace's dimensions, 1 to d.
        start: directions (d,) or (d, k), k ≤ rank, that it begins with; the others, and all by default, are random.
        seed: of the random ones.

    Attributes:
        basis: Q (d, rank), orthonormal columns.

    Raises:
        ValueError: a rank outside 1 to d, or a start of another width or that is not k independent directions.
    """

    def __init__(self, d: int, rank: int, *, start: Tensor | None = None, seed: int = 0):
        super().__init__()
        if not 1 <= rank <= d:
            raise ValueError(f"A subspace of {d} dimensions has a rank of 1 to {d}, and rank={rank} was given.")
        self.d, self.rank = d, rank
        columns = torch.randn(d, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
        if start is not None:
            given = torch.as_tensor(start).detach().float().cpu()
            shape, given = tuple(given.shape), given[:, None] if given.ndim == 1 else given
            if (
                given.ndim != 2
                or len(given) != d
                or not 1 <= given.shape[1] <= rank
                or not given.isfinite().all()
                or torch.linalg.matrix_rank(given) < given.shape[1]
            ):
                raise ValueError(
                    f"A start is 1 to {rank} independent directions (d, k) with d = {d}, and {shape} was given."
                )
            columns[:, : given.shape[1]] = given
        self.weight = nn.Parameter(_orthonormal(columns))

    @property
    def basis(self) -> Tensor:
        return _orthonormal(self.weight)

    def swap(self, base: Tensor, source: Tensor) -> Tensor:
        """The base's activations (…, d) with the source's content within the subspace."""
        return swapped(base, source, self.basis)

    def __repr__(self) -> str:
        return f"RotatedSubspace(d={self.d}, rank={self.rank})"


class BoundlessSubspace(nn.Module):
    """A subspace whose size is learnt, too: Boundless DAS (Wu et al. 2023, section 3).

    >>> subspace = BoundlessSubspace(16)
    >>> subspace.swap(torch.zeros(2, 16), torch.ones(2, 16)).shape
    torch.Size([2, 16])
    >>> subspace.mask.shape
    torch.Size([16])

    A rotation R of the whole space, and a boundary b: the i-th rotated dimension is exchanged to the degree
    sigmoid(i / T) · sigmoid((b·d − i) / T), as in pyvene. While the temperature T falls during training (`anneal`), that soft
    mask becomes "the first b·d dimensions, and no others" (but the very first is exchanged by half at most); a penalty on b
    asks for few.

    Args:
        d: the width of the activations.
        seed: of the random rotation that it begins with.
        temperature: T at the beginning and at the end of training.
        penalty: what a whole space's worth of dimensions costs, in units of the loss.

    Attributes:
        boundary: b, as a share of d: at first a half. It stays between one dimension and all.

    Raises:
        ValueError: d is less than one.
    """

    def __init__(self, d: int, *, seed: int = 0, temperature: tuple[float, float] = (50.0, 0.1), penalty: float = 1.0):
        super().__init__()
        if d < 1:
            raise ValueError(f"A space has one dimension at least, and d={d} was given.")
        self.d, self.temperatures, self.penalty_weight = d, temperature, penalty
        random = torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
        self.weight = nn.Parameter(_orthonormal(random))
        self.boundary = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("temperature", torch.tensor(float(temperature[0])))

    @property
    def rotation(self) -> Tensor:
        """R (d, d), whose columns are the rotated dimensions."""
        return _orthonormal(self.weight)

    @property
    def _share(self) -> Tensor:
        """b, within the space: one dimension at least, and all at most."""
        return self.boundary.clamp(1 / self.d, 1)

    @property
    def mask(self) -> Tensor:
        """How far each rotated dimension is exchanged, (d,), from 0 to 1."""
        i = torch.arange(self.d, device=self.weight.device)
        end = self._share * self.d
        return (i / self.temperature).sigmoid() * ((end - i) / self.temperature).sigmoid()

    @property
    def rank(self) -> int:
        """The dimensions within the boundary, one at least."""
        return math.ceil(self._share.item() * self.d * (1 - 1e-6))  # b, in float32, may be a hair above a whole one

    @property
    def basis(self) -> Tensor:
        """The dimensions within the boundary, (d, rank)."""
        return self.rotation[:, : self.rank]

    @property
    def penalty(self) -> Tensor:
        """What is added to the loss: `penalty` · b."""
        return self.penalty_weight * self._share

    def anneal(self, share: float) -> None:
        """Set the temperature for a share of the training, 0 to 1, from the first to the last in equal steps. A boundary that a
        step has taken beyond the space is brought back to its end, for out there it has no gradient."""
        first, last = self.temperatures
        self.temperature.fill_(first + share * (last - first))
        with torch.no_grad():
            self.boundary.clamp_(1 / self.d, 1)

    def swap(self, base: Tensor, source: Tensor) -> Tensor:
        """The base's activations (…, d) with the source's content, as far as the mask goes."""
        rotation = self.rotation
        change = (source - base).to(rotation) @ rotation * self.mask @ rotation.mT
        return base + change.to(base)

    def hard(self) -> RotatedSubspace:
        """The dimensions within the boundary, as a subspace of fixed size."""
        return RotatedSubspace(self.d, self.rank, start=self.basis)

    def __repr__(self) -> str:
        return f"BoundlessSubspace(d={self.d}, within its boundary: {self.rank})"


# -- subspaces that need no interventions -----------------------------------------------------------------------------


def principal_components(activations: Tensor, rank: int) -> RotatedSubspace:
    """The `rank` directions along which activations (n, d) vary most.

    >>> h = torch.tensor([[0.0, 1.0], [0.0, -1.0], [9.0, 1.0], [9.0, -1.0]])
    >>> principal_components(h, 1).basis.detach().abs().round()
    tensor([[1.],
            [0.]])

    Raises:
        ValueError: fewer than rank + 1 activations, or a rank above d.
    """
    x = _matrix(activations)
    if len(x) <= rank:
        raise ValueError(f"{rank} principal components need more than {rank} activations, and {len(x)} were given.")
    return RotatedSubspace(x.shape[1], rank, start=torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:rank].mT)


def class_means(activations: Tensor, labels: Sequence) -> RotatedSubspace:
    """The subspace that the classes' mean activations span around their centre: for two classes the *difference of means*,
    one direction; for k classes k − 1 at most, fewer where the means lie in fewer dimensions.

    >>> h = torch.tensor([[0.0, 1.0], [0.0, 3.0], [4.0, 1.0], [4.0, 3.0]])
    >>> class_means(h, ["a", "a", "b", "b"]).basis.detach().abs().round()
    tensor([[1.],
            [0.]])

    Args:
        activations: (n, d).
        labels: n labels (words, numbers or a tensor), of two classes at least.

    Raises:
        ValueError: labels of a single class, or classes whose means are equal.
    """
    x = _matrix(activations)
    labels = as_list(labels, "labels")
    classes = sorted(set(labels), key=repr)
    if len(classes) < 2 or len(labels) != len(x):
        raise ValueError(
            f"Class means need a label for each of {len(x)} activations and two classes at least, and got {len(labels)} labels of "
            f"{len(classes)}."
        )
    means = torch.stack([x[torch.tensor([label == one for label in labels])].mean(0) for one in classes])
    centred = means - means.mean(0)
    noise = 10 * torch.finfo(means.dtype).eps * means.norm().item()  # what rounding alone makes of equal means
    rank = int(torch.linalg.matrix_rank(centred, atol=noise))
    if not rank:
        raise ValueError(
            f"The means of the {len(classes)} classes are equal, so they span nothing: take another site or labels."
        )
    return RotatedSubspace(x.shape[1], rank, start=torch.linalg.svd(centred.mT, full_matrices=False).U[:, :rank])


# -- geometry ---------------------------------------------------------------------------------------------------------


def principal_angles(one: Tensor, other: Tensor) -> Tensor:
    """The angles between two subspaces, in degrees, smallest first (Björck & Golub 1973): how far one has to be turned to
    lie in the other. `one` and `other` are independent directions (d, k) and (d, l), orthonormal or not, or a single one (d,);
    there are min(k, l) angles.

    >>> x, y, z = torch.eye(3)[..., None]
    >>> principal_angles(x, torch.cat([y, z], 1)), principal_angles(x, x)
    (tensor([90.]), tensor([0.]))

    Raises:
        ValueError: directions that are not independent, zero for one.
    """
    one, other = _independent(one), _independent(other).to(one.device)
    cosines = torch.linalg.svdvals(one.mT @ other).clamp(0, 1)
    if one.shape[1] > other.shape[1]:
        one, other = other, one
    # Cosines near 1 tell small angles badly; the sines of what is left over tell them well.
    sines = torch.linalg.svdvals(one - other @ (other.mT @ one)).flip(0).clamp(0, 1)
    return torch.where(cosines > 0.7, sines.asin(), cosines.acos()).rad2deg().float()


def _orthonormal(columns: Tensor) -> Tensor:
    q, r = torch.linalg.qr(columns)
    return torch.where(r.diagonal() < 0, -q, q)  # the sign with which Q follows the columns smoothly


def _independent(directions: Tensor) -> Tensor:
    """An orthonormal basis (d, k), in double precision, of directions (d,) or (d, k)."""
    columns = torch.as_tensor(directions).detach().double()
    columns = columns[:, None] if columns.ndim == 1 else columns
    if columns.ndim != 2 or torch.linalg.matrix_rank(columns) < columns.shape[1]:
        raise ValueError(
            f"Angles are between independent directions, (d,) or (d, k), and what was given, {tuple(directions.shape)}, is not that."
        )
    return _orthonormal(columns)


def _matrix(activations: Tensor) -> Tensor:
    activations = torch.as_tensor(activations)
    if activations.ndim != 2:
        raise ValueError(f"Activations (n, d) were expected, and {tuple(activations.shape)} was given.")
    return activations.detach().float().cpu()
