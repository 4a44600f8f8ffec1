"""What DAS does in every peer: the loss of the labels, the optimiser, and the basis that it turns.

pyvene's own basis is a product of reflections, on which Adam takes other steps than on ours; so that each step's loss can be
compared, all peers learn the Q of a QR decomposition, as we do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..jobs import Alignment


def learn(job: Alignment, interchanged: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Each step's loss, where `interchanged` makes logits (row, vocab) of some pairs' numbers and a basis (d, rank)."""
    weight, losses = torch.nn.Parameter(job.start.clone()), []
    optimiser = torch.optim.Adam([weight], job.lr)
    decay = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / len(job.rows))
    for rows in job.rows:
        q, r = torch.linalg.qr(weight)
        loss = cross_entropy(interchanged(rows, torch.where(r.diagonal() < 0, -q, q)), job.labels[rows])
        (weight.grad,) = torch.autograd.grad(loss, weight)
        optimiser.step()
        decay.step()
        losses.append(loss.item())
    return torch.tensor(losses)


def swapped(base: Tensor, source: Tensor, basis: Tensor) -> Tensor:
    """The base's activations (row, d) with the source's content within the subspace."""
    return base + (source - base) @ basis @ basis.T


def swap_at(position: int, source: Tensor, basis: Tensor) -> Callable[[Tensor], Tensor]:
    """A change of a stream (row, position, d): the source's content at one token."""

    def change(h: Tensor) -> Tensor:
        h = h.clone()
        h[:, position] = swapped(h[:, position], source, basis)
        return h

    return change
