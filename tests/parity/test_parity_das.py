"""The same interchange within the same subspace, by pyvene, by nnsight, by TransformerLens and by us: the same logits, the same
loss, and the same gradient of what DAS learns.

Each peer gets a model of its own, made from the same seed (`test_parity_sweeps.peer`).
"""

from __future__ import annotations

import pytest
import torch
from test_parity_sweeps import lm, peer
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrize

from interp_helpers import BoundlessSubspace, RotatedSubspace, Site, interchange_logits, train_das
from interp_helpers.das.counterfactuals import as_counterfactuals
from interp_helpers.das.interchange import Interchanges

pytestmark = pytest.mark.slow

PAIRS, TOKENS, RANK, LAYER, PLACE = 5, 9, 6, 1, 4
FORWARD, GRADIENT = 1e-5, 1e-5  # tolerances, relative to the largest number

_generator = torch.Generator().manual_seed(0)
BASES, SOURCES = torch.randint(50000, (2, PAIRS, TOKENS), generator=_generator)
LABELS = torch.randint(50000, (PAIRS,), generator=_generator)
SITE = Site("block_output", LAYER, positions=PLACE)


def pairs():
    return list(zip(BASES, SOURCES, LABELS.tolist(), strict=True))


def rotated():
    return RotatedSubspace(lm("gpt2").d_model, RANK, seed=1)


def interchanged(subspace) -> tuple[Tensor, Tensor]:
    """Our logits (pair, vocab), and the loss; with gradients."""
    runs = Interchanges(lm("gpt2"), SITE, as_counterfactuals(pairs()))
    logits = runs.logits(subspace, torch.arange(PAIRS))
    return logits, cross_entropy(logits, runs.labels)


def agree(mine: Tensor, other: Tensor, tolerance: float):
    assert mine.shape == other.shape, (mine.shape, other.shape)
    difference = float((mine - other).detach().abs().max() / mine.detach().abs().max())
    assert difference < tolerance, difference


def agree_forward(mine: tuple[Tensor, Tensor], logits: Tensor) -> Tensor:
    """Equal logits and losses; and the interchange is one that changes every pair's logits, not as the whole component would."""
    loss = cross_entropy(logits, LABELS)
    agree(mine[0], logits, FORWARD)
    agree(mine[1], loss, FORWARD)
    for other in (interchange_logits(lm("gpt2"), SITE, None, pairs()), lm("gpt2").next_token_logits(BASES)):
        assert ((other - logits).abs().amax(1) > 100 * FORWARD * logits.abs().amax(1)).all()
    return loss


def along_turns(gradient: Tensor, basis: Tensor) -> Tensor:
    """Derivatives along random turns of a basis, A·basis with A antisymmetric and of unit size.

    These are what parametrisations of the orthonormal bases share: pyvene's weight is a product of reflections (or a matrix's
    exponential), ours the Q of a QR decomposition, so the gradients of the free numbers differ; and to a free basis' gradient
    a part may be added that leads away from the orthonormal ones. At an orthonormal weight, Q follows a turn of the weight.
    """
    a = torch.randn(50, len(basis), len(basis), generator=torch.Generator().manual_seed(2))
    a = a - a.mT
    turns = a / a.flatten(1).norm(dim=1)[:, None, None] @ basis.detach()
    return (turns * gradient).flatten(1).sum(1)


# -- pyvene -----------------------------------------------------------------------------------------------------------


def in_pyvene(kind: str, rotation: Tensor, prepare=lambda intervention: None, **more):
    """Its logits, with gradients; the weight of its rotation, which is `rotation`; and the intervention."""
    _, model = peer("pyvene", "gpt2")
    import pyvene as pv

    at = {"layer": LAYER, "component": SITE.component, "unit": "pos", "max_number_of_units": 1}
    config = pv.IntervenableConfig([at | more], intervention_types=getattr(pv, kind))
    intervenable = pv.IntervenableModel(config, model)
    (intervention,) = intervenable.interventions.values()
    intervention.rotate_layer.weight = rotation.detach()
    prepare(intervention)
    where = [[[PLACE]] * PAIRS]
    with parametrize.cached():
        weight = intervention.rotate_layer.weight
        _, out = intervenable({"input_ids": BASES}, [{"input_ids": SOURCES}], {"sources->base": (where, where)})
    agree(rotation, weight, FORWARD)
    return out.logits[:, -1], weight, intervention


def test_pyvenes_low_rank_rotation():
    subspace = rotated()
    mine = interchanged(subspace)
    logits, weight, _ = in_pyvene("LowRankRotatedSpaceIntervention", subspace.basis, low_rank_dimension=RANK)
    loss = agree_forward(mine, logits)
    (theirs,) = torch.autograd.grad(loss, weight)
    (ours,) = torch.autograd.grad(mine[1], subspace.weight)
    agree(along_turns(ours, subspace.basis), along_turns(theirs, subspace.basis), GRADIENT)
    history = train_das(lm("gpt2"), SITE, subspace, pairs(), steps=1, batch_size=PAIRS, force=True)
    assert history.loss[0] == pytest.approx(loss.item(), rel=FORWARD)


@pytest.mark.parametrize("temperature, boundary", [(50.0, 0.5), (3.0, 0.3), (0.5, 0.81)])
def test_pyvenes_boundless_rotation(temperature, boundary):
    subspace = BoundlessSubspace(lm("gpt2").d_model, seed=1, temperature=(temperature, 0.1))
    subspace.boundary.data.fill_(boundary)
    mine = interchanged(subspace)

    def prepare(intervention):
        intervention.set_temperature(torch.tensor(temperature))
        intervention.set_intervention_boundaries(boundary)

    logits, weight, intervention = in_pyvene("BoundlessRotatedSpaceIntervention", subspace.rotation, prepare)
    loss = agree_forward(mine, logits)
    theirs, of_boundary = torch.autograd.grad(loss, [weight, intervention.intervention_boundaries])
    ours, of_our_boundary = torch.autograd.grad(mine[1], [subspace.weight, subspace.boundary])
    # As T grows the mask flattens, and with it what a turn changes, but not the rounding errors.
    tolerance = GRADIENT * max(1, temperature / 3)
    agree(along_turns(ours, subspace.rotation), along_turns(theirs, subspace.rotation), tolerance)
    assert abs(of_boundary) > 1e-6
    agree(of_our_boundary[None], of_boundary, GRADIENT)
    history = train_das(lm("gpt2"), SITE, subspace, pairs(), steps=1, batch_size=PAIRS, force=True)
    assert history.loss[0] == pytest.approx(loss.item() + subspace.penalty_weight * boundary, rel=FORWARD)


# -- A basis that is given, of which the others ask the gradient as we do ---------------------------------------------


def check_given_basis(interchange):
    """`interchange` gives a peer's logits at the last token, with gradients of the basis that it gets."""
    basis, other = (rotated().basis.detach().requires_grad_() for _ in range(2))
    mine = interchanged(basis)
    loss = agree_forward(mine, interchange(other))
    agree(torch.autograd.grad(mine[1], basis)[0], torch.autograd.grad(loss, other)[0], GRADIENT)


def test_nnsights_interchange():
    module, model = peer("nnsight", "gpt2")
    block = module.places(model, SITE.component)[LAYER]

    def interchange(basis):
        with model.trace(SOURCES):
            source = block.output[:, PLACE].save()
        with model.trace(BASES):
            block.output[:, PLACE] += (source - block.output[:, PLACE]) @ basis @ basis.T
            logits = model.output.logits[:, -1].save()
        return logits

    check_given_basis(interchange)


def test_transformer_lenss_interchange():
    module, model = peer("TransformerLens", "gpt2")
    name = module.names(model, SITE.component)[LAYER]

    def interchange(basis):
        _, cache = model.run_with_cache(SOURCES, names_filter=name)

        def swap(h, hook):
            h = h.clone()
            h[:, PLACE] += (cache[name][:, PLACE] - h[:, PLACE]) @ basis @ basis.T
            return h

        return model.run_with_hooks(BASES, fwd_hooks=[(name, swap)])[:, -1]

    check_given_basis(interchange)
