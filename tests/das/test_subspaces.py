"""A subspace's basis is orthonormal whatever is done to it, a swap exchanges what lies within and nothing else, and the
subspaces that need no learning are what textbooks say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain import assert_untouched, close, run, snapshot

from interp_helpers import (
    BoundlessSubspace,
    RotatedSubspace,
    Site,
    class_means,
    intervene,
    principal_angles,
    principal_components,
    record,
    replace,
    swap_subspace,
)

BASE = "The Eiffel Tower is in the city of"
SOURCE = "The Colosseum stands in the town of"  # as long
SHORT = "One two three"
SITE = Site("block_output", 1)

examples = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
seeds = st.integers(0, 10_000)


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@st.composite
def sizes(draw, most=24):
    """A width and a rank, 1 to the width."""
    d = draw(st.integers(1, most))
    return d, draw(st.integers(1, d))


def assert_orthonormal(basis, d, rank):
    assert basis.shape == (d, rank)
    assert (basis.mT @ basis - torch.eye(rank)).abs().max() < 1e-5


def assert_same_span(one, other, degrees=1e-2):
    assert one.shape == other.shape
    assert principal_angles(one, other).max() < degrees


# -- the basis ----------------------------------------------------------------------------------------------------------


@examples
@given(sizes(), seeds)
def test_a_basis_is_orthonormal_from_the_beginning(size, seed):
    assert_orthonormal(RotatedSubspace(*size, seed=seed).basis, *size)


@examples
@given(sizes(), seeds, st.sampled_from(["large", "small", "any", "zero", "all alike", "nearly alike"]))
def test_no_change_of_the_weight_leaves_the_orthonormal_bases(size, seed, change):
    subspace, (d, rank) = RotatedSubspace(*size), size
    noise = rand(d, rank, seed=seed)
    subspace.weight.data = {
        "large": 1e6 * noise,
        "small": 1e-6 * noise,
        "any": subspace.weight.data + noise,
        "zero": torch.zeros(d, rank),
        "all alike": noise[:, :1].repeat(1, rank),
        "nearly alike": noise[:, :1] + 1e-6 * noise,
    }[change]
    assert_orthonormal(subspace.basis, d, rank)


@pytest.mark.parametrize("rank", [1, 3, 7])  # of rank 8 every basis gives the same swap, and nothing is learnt
def test_a_basis_is_orthonormal_after_every_step_of_training(rank):
    subspace = RotatedSubspace(8, rank)
    optimiser = torch.optim.SGD(subspace.parameters(), lr=5.0)  # far too fast, on purpose
    start = subspace.basis.detach()
    for step in range(30):
        base, source, wanted = rand(3, 4, 8, seed=step)
        optimiser.zero_grad()
        (subspace.swap(base, source) - wanted).square().sum().backward()
        optimiser.step()
        assert_orthonormal(subspace.basis, 8, rank)
    assert (subspace.basis - start).abs().max() > 0.1


@examples
@given(sizes(), seeds)
def test_the_basis_follows_the_weight_without_a_jump(size, seed):
    subspace = RotatedSubspace(*size, seed=seed)
    before = subspace.basis.detach()
    subspace.weight.data += 1e-4 * rand(*size, seed=seed + 1)
    assert (subspace.basis - before).abs().max() < 1e-2  # a sign that flips would be a jump of up to 2


@examples
@given(sizes(), seeds, st.data())
def test_it_begins_with_the_directions_given(size, seed, data):
    d, rank = size
    k = data.draw(st.integers(1, rank))
    start = 10 * rand(d, k, seed=seed)
    subspace = RotatedSubspace(d, rank, start=start)
    inside = subspace.basis @ (subspace.basis.mT @ start)
    torch.testing.assert_close(inside, start, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(subspace.basis[:, 0], start[:, 0] / start[:, 0].norm(), atol=1e-5, rtol=1e-4)


def test_a_single_direction_is_a_start():
    direction = rand(8)
    one, column = (RotatedSubspace(8, 1, start=start) for start in (direction, direction[:, None]))
    assert torch.equal(one.basis, column.basis)
    close(one.basis[:, 0].detach(), direction / direction.norm())
    close(RotatedSubspace(8, 1, start=direction.numpy()).basis, one.basis)
    close(RotatedSubspace(8, 1, start=direction.half()).basis, one.basis, atol=1e-3)


def test_what_a_start_leaves_open_is_drawn_by_the_seed():
    start = rand(8)
    one, again, other = (RotatedSubspace(8, 3, start=start, seed=seed).basis for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.allclose(one, other)


def test_the_start_itself_is_neither_kept_nor_changed():
    start = rand(8, 2)
    before = start.clone()
    subspace = RotatedSubspace(8, 2, start=start)
    subspace.weight.data.zero_()
    assert torch.equal(start, before)


@examples
@given(sizes(), seeds)
def test_a_seed_decides_the_basis_and_the_global_random_state_is_left_alone(size, seed):
    state = torch.get_rng_state()
    one, again, other = (RotatedSubspace(*size, seed=s).basis for s in (seed, seed, seed + 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, again)
    assert size == (1, 1) or not torch.equal(one, other)


@pytest.mark.parametrize("rank", [0, -1, 9])
def test_a_rank_outside_one_to_d_is_refused(rank):
    with pytest.raises(ValueError, match=f"A subspace of 8 dimensions has a rank of 1 to 8, and rank={rank} was given"):
        RotatedSubspace(8, rank)


@pytest.mark.parametrize(
    "start",
    [
        rand(7),  # another width
        rand(2, 8),  # rows, not columns
        rand(8, 3),  # more than the rank
        torch.zeros(8),
        torch.stack([rand(8), -2 * rand(8)], 1),  # not independent
        torch.full((8,), math.nan),
        torch.full((8,), math.inf),
        torch.tensor(1.0),
        rand(8, 1, 1),
        rand(8, 0),
    ],
)
def test_a_start_that_is_no_independent_directions_of_the_width_is_refused(start):
    with pytest.raises(ValueError, match=r"A start is 1 to 2 independent directions \(d, k\) with d = 8, and \("):
        RotatedSubspace(8, 2, start=start)


def test_a_subspace_says_how_large_it_is():
    subspace = RotatedSubspace(8, 3)
    assert repr(subspace) == "RotatedSubspace(d=8, rank=3)"
    assert repr(BoundlessSubspace(8)) == "BoundlessSubspace(d=8, within its boundary: 4)"


# -- the swap -----------------------------------------------------------------------------------------------------------


@examples
@given(sizes(), seeds)
def test_a_swap_exchanges_what_is_within_and_leaves_the_rest(size, seed):
    subspace = RotatedSubspace(*size, seed=seed)
    base, source = rand(2, 3, 5, size[0], seed=seed)
    swapped = subspace.swap(base, source).detach()
    inside = subspace.basis.detach() @ subspace.basis.detach().mT
    outside = torch.eye(size[0]) - inside
    torch.testing.assert_close(swapped @ inside, source @ inside, atol=1e-5, rtol=0)
    torch.testing.assert_close(swapped @ outside, base @ outside, atol=1e-5, rtol=0)
    torch.testing.assert_close(subspace.swap(swapped, base), base, atol=1e-5, rtol=0)  # and back


@examples
@given(st.integers(1, 24), seeds)
def test_a_swap_of_full_rank_is_the_source(d, seed):
    base, source = rand(2, 5, d, seed=seed)
    torch.testing.assert_close(RotatedSubspace(d, d, seed=seed).swap(base, source), source, atol=1e-5, rtol=0)


@examples
@given(sizes(), seeds, st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_a_swap_with_itself_is_the_identity_bit_for_bit_and_has_a_gradient_of_zero(size, seed, dtype):
    subspace, base = RotatedSubspace(*size, seed=seed), rand(5, size[0], seed=seed).to(dtype)
    swapped = subspace.swap(base, base.clone())
    assert torch.equal(swapped, base)
    (swapped.float() * rand(5, size[0], seed=seed + 1)).sum().backward()
    assert not subspace.weight.grad.any()


@examples
@given(sizes(8), seeds)
def test_gradients_of_a_swap_are_its_slopes(size, seed):
    subspace = RotatedSubspace(*size, seed=seed).double()
    base, source = rand(2, 3, size[0], seed=seed).double()

    def swap(weight, base, source):
        return torch.func.functional_call(subspace, {"weight": weight}, (base, source))

    subspace.forward = subspace.swap
    inputs = [tensor.detach().requires_grad_() for tensor in (subspace.weight, base, source)]
    assert torch.autograd.gradcheck(swap, inputs)


@examples
@given(sizes(), seeds)
def test_turning_a_basis_within_its_span_changes_no_swap(size, seed):
    subspace, (d, rank) = RotatedSubspace(*size, seed=seed), size
    turned = RotatedSubspace(d, rank, start=subspace.basis @ torch.linalg.qr(rand(rank, rank, seed=seed)).Q)
    base, source = rand(2, 5, d, seed=seed)
    torch.testing.assert_close(turned.swap(base, source), subspace.swap(base, source), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "make", [lambda: RotatedSubspace(16, 4), lambda: BoundlessSubspace(16, temperature=(0.1, 0.1))]
)
def test_activations_in_half_precision_stay_so_and_are_swapped_as_exactly_as_it_allows(make, dtype):
    subspace = make()
    base, source = rand(2, 5, 16).to(dtype)
    swapped = subspace.swap(base, source)
    assert swapped.dtype == dtype
    exactly = subspace.swap(base.float(), source.float())
    assert (swapped - exactly).abs().max() < 4 * torch.finfo(dtype).eps * exactly.abs().max()


# -- without a boundary -------------------------------------------------------------------------------------------------


def at(boundary, temperature, d=8, **options):
    subspace = BoundlessSubspace(d, temperature=(temperature, temperature), **options)
    subspace.boundary.data.fill_(boundary)
    return subspace


@examples
@given(st.integers(2, 24), st.data())
def test_when_cold_the_mask_is_the_boundary(d, data):
    inside = data.draw(st.integers(2, d))
    subspace = at((inside - 0.5) / d, 0.01, d)
    expected = (torch.arange(d) < inside).float()
    expected[0] = 0.5  # as in pyvene: σ(0 / T) is a half, however cold
    torch.testing.assert_close(subspace.mask, expected, atol=1e-4, rtol=0)
    assert subspace.rank == inside and subspace.basis.shape == (d, inside)


def test_when_hot_every_dimension_is_exchanged_a_little():
    mask = at(0.5, 1e4).mask
    torch.testing.assert_close(mask, torch.full((8,), 0.25), atol=1e-3, rtol=0)


@pytest.mark.parametrize("temperature", [0.1, 2.0, 50.0])
def test_the_mask_is_the_product_of_two_sigmoids(temperature):
    mask = at(0.3, temperature, d=10).mask
    for i in range(10):
        expected = 1 / (1 + math.exp(-i / temperature)) / (1 + math.exp((i - 3) / temperature))
        assert mask[i].item() == pytest.approx(expected, rel=1e-4)


@examples
@given(st.integers(1, 16), st.floats(0.01, 1), st.floats(0.1, 50), seeds)
def test_a_boundless_swap_is_the_rotated_difference_times_the_mask(d, boundary, temperature, seed):
    subspace = at(boundary, temperature, d, seed=seed)
    base, source = rand(2, 5, d, seed=seed)
    change = torch.einsum("ni,ik,k,jk->nj", source - base, subspace.rotation, subspace.mask, subspace.rotation)
    torch.testing.assert_close(subspace.swap(base, source), base + change, atol=1e-5, rtol=0)
    assert torch.equal(subspace.swap(base, base.clone()), base)
    assert_orthonormal(subspace.rotation, d, d)


@pytest.mark.parametrize("inside", [2, 3, 8])
def test_hard_is_the_subspace_within_the_boundary(inside):
    subspace = at((inside - 0.5) / 8, 0.01)
    hard = subspace.hard()
    assert isinstance(hard, RotatedSubspace) and hard.rank == inside
    assert_same_span(hard.basis, subspace.basis)
    base, source = rand(2, 5, 8)
    first = subspace.rotation[:, :1]  # which the mask exchanges by half
    expected = subspace.swap(base, source) + (source - base) @ first @ first.mT / 2
    torch.testing.assert_close(hard.swap(base, source), expected, atol=1e-3, rtol=0)
    subspace.weight.data.zero_()  # a copy
    assert not torch.allclose(hard.basis, subspace.basis)


@pytest.mark.parametrize("boundary, rank", [(-3.0, 1), (0.0, 1), (0.05, 1), (0.3, 3), (0.5, 4), (1.0, 8), (7.0, 8)])
def test_the_rank_is_one_to_d_wherever_the_boundary_goes(boundary, rank):
    subspace = at(boundary, 1.0)
    assert subspace.rank == rank and subspace.basis.shape == (8, rank) and subspace.hard().rank == rank
    mask = at(boundary, 0.01).mask
    assert (mask > 0.49).sum().item() in (rank, rank + 1)  # at the boundary itself stands a half


@pytest.mark.parametrize("d, boundary, rank", [(576, 0.0, 1), (768, 0.0, 1), (10, 0.1, 1), (10, 0.3, 3), (10, 0.31, 4)])
def test_a_boundary_at_a_whole_dimension_ends_there(d, boundary, rank):
    assert at(boundary, 1.0, d).rank == rank  # though b · d is a hair above it, in float32


def test_a_space_has_a_dimension():
    with pytest.raises(ValueError, match="A space has one dimension at least, and d=0 was given"):
        BoundlessSubspace(0)


def test_annealing_goes_from_the_first_temperature_to_the_last():
    subspace = BoundlessSubspace(8, temperature=(50.0, 0.1))
    assert subspace.temperature.item() == 50.0
    found = []
    for share in (0, 0.5, 1):
        subspace.anneal(share)
        found.append(subspace.temperature.item())
    assert found == pytest.approx([50.0, 25.05, 0.1])
    assert torch.allclose(subspace.mask, torch.tensor([0.5, 1, 1, 1, 0.5, 0, 0, 0]), atol=1e-3)


def test_a_boundary_that_overshot_is_brought_back_to_where_it_has_a_gradient():
    for boundary, end in ((1.5, 1.0), (-0.5, 1 / 8)):
        subspace = at(boundary, 1.0)
        subspace.anneal(0.5)
        assert subspace.boundary.item() == pytest.approx(end)
        (subspace.mask.sum() + subspace.penalty).backward()
        assert subspace.boundary.grad.abs() > 0.1


def test_the_penalty_is_for_the_share_of_the_space():
    assert at(0.25, 1.0, penalty=3.0).penalty.item() == pytest.approx(0.75)
    assert at(2.0, 1.0).penalty.item() == 1.0
    subspace = at(0.5, 1.0, penalty=3.0)
    subspace.penalty.backward()
    assert subspace.boundary.grad.item() == 3.0 and subspace.weight.grad is None


@pytest.mark.parametrize("needed", [2, 6])
def test_the_boundary_learns_how_many_dimensions_are_needed(needed):
    subspace = BoundlessSubspace(8, temperature=(2.0, 0.1), penalty=0.1)
    span = torch.linalg.qr(rand(8, needed, seed=5)).Q
    optimiser = torch.optim.Adam(
        [{"params": [subspace.weight], "lr": 0.03}, {"params": [subspace.boundary], "lr": 0.01}]
    )
    steps = 250
    for step in range(steps):
        subspace.anneal(step / (steps - 1))
        base, source = rand(2, 32, 8, seed=step)
        wanted = base + (source - base) @ span @ span.mT
        loss = (subspace.swap(base, source) - wanted).square().mean() + subspace.penalty
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert subspace.rank in (needed, needed + 1)  # one more for the half of the first
    assert principal_angles(subspace.hard().basis, span).max() < 5


def test_a_boundless_subspace_is_decided_by_its_seed_and_leaves_the_global_random_state_alone():
    state = torch.get_rng_state()
    one, again, other = (BoundlessSubspace(8, seed=seed).rotation for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, again) and not torch.equal(one, other)


# -- without learning ---------------------------------------------------------------------------------------------------


@examples
@given(seeds, st.integers(2, 12), st.data())
def test_principal_components_are_those_of_scikit_learn(seed, d, data):
    rank = data.draw(st.integers(1, d))
    n = data.draw(st.integers(rank + 1, 30))
    x = rand(n, d, seed=seed) * torch.linspace(1, 4, d) + 5
    ours = principal_components(x, rank)
    theirs = pytest.importorskip("sklearn.decomposition").PCA(rank).fit(x.double().numpy())
    if rank < min(n - 1, d) and theirs.explained_variance_.min() < 1.2 * np.linalg.svd(x - x.mean(0))[1][rank] ** 2 / (
        n - 1
    ):
        return  # the last one and the next are too alike to be told apart
    assert ours.rank == rank
    assert_same_span(ours.basis, torch.tensor(theirs.components_.T).float(), degrees=0.1)


def test_the_first_component_comes_first():
    x = rand(200, 4) * torch.tensor([1.0, 9.0, 3.0, 0.1]) + 100
    close(principal_components(x, 3).basis.detach().abs(), torch.eye(4)[:, [1, 2, 0]], atol=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_activations_of_any_precision_have_components_and_means(dtype):
    x = (rand(50, 8) * torch.linspace(1, 4, 8)).to(dtype)
    labels = [i % 2 for i in range(50)]
    assert_same_span(principal_components(x, 2).basis, principal_components(x.float(), 2).basis)
    assert_same_span(class_means(x, labels).basis, class_means(x.float(), labels).basis)


def test_too_few_activations_or_too_high_a_rank_are_refused():
    with pytest.raises(ValueError, match="4 principal components need more than 4 activations, and 4 were given"):
        principal_components(rand(4, 8), 4)
    with pytest.raises(ValueError, match="A subspace of 8 dimensions has a rank of 1 to 8, and rank=9 was given"):
        principal_components(rand(20, 8), 9)
    for shape in ((6, 3, 8), (8,)):
        with pytest.raises(ValueError, match=rf"Activations \(n, d\) were expected, and \({shape[0]}"):
            principal_components(rand(*shape), 2)
        with pytest.raises(ValueError, match=r"Activations \(n, d\) were expected"):
            class_means(rand(*shape), [0, 1])


@examples
@given(seeds, st.integers(2, 12))
def test_the_means_of_two_classes_span_their_difference(seed, d):
    x, labels = rand(20, d, seed=seed), [" he", " she"] * 10
    difference = x[0::2].mean(0) - x[1::2].mean(0)
    subspace = class_means(x, labels)
    assert subspace.rank == 1
    assert_same_span(subspace.basis, (difference / difference.norm())[:, None])


@examples
@given(seeds, st.integers(2, 6))
def test_the_means_of_k_classes_span_all_their_differences(seed, k):
    x, labels = rand(5 * k, 8, seed=seed), list(range(k)) * 5
    subspace = class_means(x, labels)
    assert subspace.rank == k - 1
    means = torch.stack([x[label::k].mean(0) for label in range(k)])
    differences = means[1:] - means[0]
    close(differences @ subspace.basis.detach() @ subspace.basis.detach().mT, differences, atol=1e-4)


def test_labels_may_be_words_numbers_a_tensor_or_of_several_kinds():
    x = rand(12, 8)
    wanted = class_means(x, [0, 1, 2] * 4).basis
    for labels in (
        torch.tensor([0, 1, 2] * 4),
        np.array([0, 1, 2] * 4),
        ["a", "b", "c"] * 4,
        (" he", 7, None) * 4,
    ):
        assert_same_span(class_means(x, labels).basis, wanted)


@pytest.mark.parametrize("classes", [4, 5])
def test_many_classes_span_the_whole_space_and_no_more(classes):
    assert class_means(rand(2 * classes, 3), list(range(classes)) * 2).rank == 3


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_means_that_lie_in_fewer_dimensions_span_those_alone(scale):
    direction, noise = rand(8), rand(4, 8, seed=1)
    x = torch.cat([scale * (share * direction + torch.cat([noise, -noise])) for share in (0.1, 0.2, 0.3)])
    subspace = class_means(x, [0] * 8 + [1] * 8 + [2] * 8)
    assert subspace.rank == 1
    assert_same_span(subspace.basis, (direction / direction.norm())[:, None])
    with pytest.raises(ValueError, match="The means of the 2 classes are equal, so they span nothing"):
        class_means(torch.cat([x[:8], x[:8].flip(0)]), [0] * 8 + [1] * 8)


@pytest.mark.parametrize("labels, got", [([0] * 6, "6 labels of 1"), ([0, 1], "2 labels of 2"), ([], "0 labels of 0")])
def test_a_single_class_or_labels_for_others_are_refused(labels, got):
    with pytest.raises(ValueError, match=f"a label for each of 6 activations and two classes at least, and got {got}"):
        class_means(rand(6, 8), labels)


# -- angles -------------------------------------------------------------------------------------------------------------


@examples
@given(sizes(), seeds)
def test_a_subspace_is_at_no_angle_to_itself_however_its_basis_is_turned(size, seed):
    d, rank = size
    basis = RotatedSubspace(d, rank, seed=seed).basis
    turned = basis @ torch.linalg.qr(rand(rank, rank, seed=seed)).Q
    angles = principal_angles(basis, turned)
    assert angles.shape == (rank,) and angles.max() < 1e-3


@examples
@given(st.integers(2, 24), seeds, st.data())
def test_orthogonal_subspaces_are_at_right_angles(d, seed, data):
    k = data.draw(st.integers(1, d - 1))
    whole = RotatedSubspace(d, d, seed=seed).basis
    angles = principal_angles(whole[:, :k], whole[:, k:])
    assert angles.shape == (min(k, d - k),)
    torch.testing.assert_close(angles, torch.full_like(angles, 90.0), atol=1e-3, rtol=0)


@pytest.mark.parametrize("degrees", [1e-3, 0.1, 1.0, 30.0, 44.0, 46.0, 60.0, 89.0, 89.99, 90.0])
def test_a_known_rotation_is_found(degrees):
    angle = math.radians(degrees)
    whole = torch.linalg.qr(rand(6, 6).double()).Q
    turned = whole[:, :2].clone()
    turned[:, 1] = math.cos(angle) * whole[:, 1] + math.sin(angle) * whole[:, 2]
    angles = principal_angles(whole[:, :2], turned)
    assert angles[0].item() == pytest.approx(0, abs=1e-4)
    assert angles[1].item() == pytest.approx(degrees, rel=1e-3, abs=1e-5)
    single = principal_angles(
        whole[:, :1].float(), (math.cos(angle) * whole[:, :1] + math.sin(angle) * whole[:, 1:2]).float()
    )
    assert single.item() == pytest.approx(degrees, rel=1e-2)  # a basis in float32 has a noise of 1e-5 degrees


def test_several_known_rotations_come_smallest_first():
    whole = torch.linalg.qr(rand(12, 12).double()).Q
    degrees = torch.tensor([70.0, 0.5, 44.0, 5.0])
    angles = degrees.deg2rad().double()
    one, rest = whole[:, :4], whole[:, 4:8]
    found = principal_angles(one, one * angles.cos() + rest * angles.sin())
    torch.testing.assert_close(found, degrees.sort().values, atol=1e-4, rtol=1e-5)


@examples
@given(seeds, sizes(), st.data())
def test_angles_are_symmetric_and_agree_with_the_cosines(seed, size, data):
    d, rank = size
    one, other = (
        RotatedSubspace(d, rank, seed=seed).basis,
        RotatedSubspace(d, data.draw(st.integers(1, d)), seed=seed + 1).basis,
    )
    forth, back = principal_angles(one, other), principal_angles(other, one)
    assert forth.shape == (min(one.shape[1], other.shape[1]),)
    torch.testing.assert_close(forth, back, atol=1e-3, rtol=0)
    assert (forth.diff() >= -1e-3).all() and (forth >= 0).all() and (forth <= 90.001).all()
    cosines = torch.linalg.svdvals((one.mT @ other).detach().double())
    torch.testing.assert_close(forth.deg2rad().cos().double(), cosines, atol=1e-5, rtol=0)


def test_a_subspace_within_another_is_at_no_angle_to_it():
    whole = torch.linalg.qr(rand(8, 5)).Q
    assert principal_angles(whole, whole[:, 1:3]).max() < 1e-3
    assert principal_angles(whole[:, 1:3], whole).max() < 1e-3


@pytest.mark.parametrize(
    "one, other, degrees",
    [
        ([1.0, 0, 0], [1.0, 1, 0], [45.0]),
        ([0.1, 0, 0], [1.0, 0, 0], [0.0]),
        ([0.0, 3, 0], [[1.0, 1], [0, 1], [0, 0]], [0.0]),
        ([[2.0, 2], [0, 1], [0, 0]], [[0.0, 0], [5, 5], [0, 1]], [0.0, 90.0]),
    ],
)
def test_directions_of_any_length_and_at_any_angle_have_the_angles_of_their_spans(one, other, degrees):
    found = principal_angles(torch.tensor(one), torch.tensor(other))
    torch.testing.assert_close(found, torch.tensor(degrees), atol=1e-3, rtol=0)


@pytest.mark.parametrize("other", [torch.zeros(8), rand(8, 1).repeat(1, 2), rand(1, 8, 1)])
def test_what_spans_nothing_or_less_than_it_says_has_no_angle(other):
    with pytest.raises(
        ValueError, match=r"Angles are between independent directions, \(d,\) or \(d, k\), and what was given"
    ):
        principal_angles(rand(8), other)


# -- as an edit ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def source(lm):
    return record(lm, SOURCE, "block_output", "value_output")


@pytest.mark.parametrize("rank", [1, 5, 32])
def test_the_edit_is_that_of_the_basis_as_a_tensor(lm, source, rank):
    subspace = RotatedSubspace(32, rank, seed=3)
    basis = subspace.basis.detach()
    theirs = source["block_output", 1]
    with intervene(lm, swap_subspace(SITE, source, subspace)):
        ours = lm(BASE)
    with intervene(lm, swap_subspace(SITE, source, basis)):
        close(ours, lm(BASE))
    close(ours, run(lm, BASE, ("block_output", 1, lambda h: h.add_((theirs - h) @ basis @ basis.mT))))


def test_a_subspace_of_full_rank_replaces_and_its_basis_may_be_turned(lm, source):
    with intervene(lm, swap_subspace(SITE, source, RotatedSubspace(32, 32))):
        whole = lm(BASE)
    with intervene(lm, replace(SITE, source)):
        close(whole, lm(BASE), atol=1e-4)
    one = RotatedSubspace(32, 4)
    other = RotatedSubspace(32, 4, start=one.basis @ torch.linalg.qr(rand(4, 4)).Q)
    with intervene(lm, swap_subspace(SITE, source, one)):
        logits = lm(BASE)
    with intervene(lm, swap_subspace(SITE, source, other)):
        close(lm(BASE), logits, atol=1e-4)


def test_the_edit_at_another_place_in_each_row_and_in_heads(lm):
    acts = record(lm, [SOURCE, SHORT], "block_output", "value_output")
    subspace = RotatedSubspace(32, 3)
    with intervene(lm, swap_subspace(Site("block_output", 1, positions=[[4], [1]]), acts, subspace)):
        together = lm([BASE, "One six three"])
    for row, (prompt, position) in enumerate([(BASE, 4), ("One six three", 1)]):
        with intervene(lm, swap_subspace(Site("block_output", 1, positions=position), acts.rows([row]), subspace)):
            alone = lm(prompt)[0]
        close(together[row, : len(alone)], alone)
    site = Site("value_output", 1, positions=-1, heads=[2, 0])
    with intervene(lm, swap_subspace(site, acts.rows([0]), RotatedSubspace(8, 8))):
        heads = lm(BASE)
    with intervene(lm, replace(site, acts.rows([0]))):
        close(heads, lm(BASE))


def test_gradients_of_the_logits_reach_the_weight_and_not_the_model(lm, source):
    subspace = RotatedSubspace(32, 2)
    with intervene(lm, swap_subspace(SITE, source, subspace)):
        lm(BASE, grad=True)[0, -1, 7].backward(inputs=list(subspace.parameters()))
    assert subspace.weight.grad.any()


@pytest.mark.parametrize(
    "make",
    [lambda: RotatedSubspace(16, 2), lambda: BoundlessSubspace(16)],
)
def test_a_subspace_of_another_width_is_refused_before_the_model_runs(lm, source, make):
    before, ran = snapshot(lm), []
    handle = lm.anatomy.blocks[0].register_forward_hook(lambda *_: ran.append(1))
    try:
        with (
            pytest.raises(ValueError, match="the subspace is one of 16 dimensions, and activations have 32"),
            intervene(lm, swap_subspace(SITE, source, make())),
        ):
            lm(BASE)
    finally:
        handle.remove()
    assert not ran
    assert_untouched(lm, before)
