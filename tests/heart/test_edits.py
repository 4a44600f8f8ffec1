"""Each edit is its formula, recomputed here by a plain PyTorch hook; and what the edits refuse."""

from __future__ import annotations

import pytest
import torch
from plain import EDITABLE, assert_untouched, close, run, snapshot
from tiny import tiny

from interp_helpers import (
    RotatedSubspace,
    Site,
    add,
    apply,
    clamp,
    intervene,
    mean_ablate,
    noise,
    project_out,
    record,
    replace,
    swap_subspace,
    zero,
)
from interp_helpers.models.anatomy import PER_HEAD

BASE = "The Eiffel Tower is in the city of"
SOURCE = "The Colosseum stands in the town of"  # as long
SHORT = "One two three"
SITE = Site("block_output", 1)


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


V, U = rand(32), rand(32, seed=1)
Q = torch.linalg.qr(rand(32, 5, seed=2)).Q


def edited(lm, edit, prompts=BASE):
    with intervene(lm, edit):
        return lm(prompts)


def plainly(lm, formula, columns=slice(None), component="block_output", layer=1, prompt=BASE):
    """Logits after h ← formula(h) at some columns."""

    def change(h):
        h[:, columns] = formula(h[:, columns])

    return run(lm, prompt, (component, layer, change))


@pytest.fixture
def source(lm):
    return record(lm, SOURCE, *EDITABLE)


# -- the formulas -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", EDITABLE)
@pytest.mark.parametrize("positions", [None, -1, [2, 4]])
def test_replace_by_another_run(lm, source, component, positions):
    columns = slice(None) if positions is None else [positions] if isinstance(positions, int) else positions
    theirs = source[component, 1].flatten(2)[:, columns]
    ours = edited(lm, replace(Site(component, 1, positions=positions), source))
    close(ours, plainly(lm, lambda h: theirs, columns, component))


def test_replace_by_a_value(lm):
    close(edited(lm, replace(SITE, V)), plainly(lm, lambda h: V))


def test_replace_by_the_same_run_changes_nothing(lm):
    acts = record(lm, [BASE, SHORT], *EDITABLE)
    for component in EDITABLE:
        with intervene(lm, replace(Site(component, 1), acts)):
            logits = lm([BASE, SHORT])
        assert torch.equal(logits[0], acts.logits[0]) and torch.equal(logits[1, :3], acts.logits[1, :3])


@pytest.mark.parametrize("component", EDITABLE)
def test_add(lm, component):
    shape = lm.anatomy.place(component, 1).shape
    vector = rand(*shape)
    ours = edited(lm, add(Site(component, 1, positions=[1, -1]), vector, scale=-2.5))
    close(ours, plainly(lm, lambda h: h - 2.5 * vector.flatten(), [1, 9], component))


def test_add_another_run_s_activations(lm, source):
    ours = edited(lm, add(SITE, source, scale=0.5))
    close(ours, plainly(lm, lambda h: h + 0.5 * source["block_output", 1]))


def test_noise_is_gaussian_of_the_given_size_and_the_same_in_every_run(lm):
    kept = []
    for _ in range(2):
        with intervene(lm, noise(SITE, std=3.0, seed=4)):
            kept.append(record(lm, BASE, SITE)["block_output", 1])
    drawn = (kept[0] - record(lm, BASE, SITE)["block_output", 1]) / 3
    assert torch.equal(kept[0], kept[1])
    assert abs(drawn.mean()) < 0.2 and abs(drawn.std() - 1) < 0.2


def test_noise_differs_by_seed_and_place_and_leaves_the_global_random_state_alone(lm):
    state = torch.get_rng_state()
    with intervene(lm, noise(SITE, std=1.0)):
        one = record(lm, BASE, SITE)["block_output", 1]
    with intervene(lm, noise(SITE, std=1.0, seed=1)):
        other = record(lm, BASE, SITE)["block_output", 1]
    clean = record(lm, BASE, SITE)["block_output", 1]
    assert torch.equal(torch.get_rng_state(), state)
    draws = torch.cat([one - clean, other - clean]).flatten(0, 1)
    assert torch.pdist(draws).min() > 1


def test_a_prompt_s_noise_does_not_depend_on_its_batch(lm):
    with intervene(lm, noise(SITE, std=1.0)):
        alone, batch = lm.next_token_logits(BASE), lm.next_token_logits([SHORT, BASE, BASE])
    close(batch[1:], alone.expand(2, -1))


def test_noise_is_fresh_for_every_new_token_and_the_same_with_and_without_the_cache(lm):
    with intervene(lm, noise(Site("block_output", 1), std=5.0)):
        cached, uncached = (lm.generate([BASE, SHORT], 6, use_cache=use) for use in (True, False))
    assert cached == uncached


def test_noise_of_size_zero_is_none(lm):
    assert torch.equal(edited(lm, noise(SITE, std=0)), lm(BASE))


def test_zero(lm):
    close(edited(lm, zero(Site("mlp_output", 1, positions=3))), plainly(lm, torch.zeros_like, [3], "mlp_output"))


def test_mean_ablate_by_a_mean_that_you_have(lm):
    close(edited(lm, mean_ablate(SITE, V)), plainly(lm, lambda h: V.expand_as(h)))


def test_mean_ablate_by_the_mean_over_real_tokens_of_reference_prompts(lm):
    acts = record(lm, [SOURCE, SHORT], "block_output")
    h = acts["block_output", 1]
    mean = torch.cat([h[0], h[1, :3]]).mean(0)
    close(edited(lm, mean_ablate(SITE, acts)), plainly(lm, lambda h: mean.expand_as(h)))


def test_mean_ablate_at_a_place_takes_the_mean_over_that_place(lm):
    acts = record(lm, [SOURCE, SHORT], "block_output")
    h = acts["block_output", 1]
    mean = (h[0, 9] + h[1, 2]) / 2
    ours = edited(lm, mean_ablate(Site("block_output", 1, positions=-1), acts))
    close(ours, plainly(lm, lambda h: mean.expand_as(h), [9]))


def test_mean_ablate_heads(lm):
    acts = record(lm, SOURCE, "attention_value_output")
    mean = acts["attention_value_output", 1][0].mean(0)[[0, 2]]
    ours = edited(lm, mean_ablate(Site("attention_value_output", 1, heads=[0, 2]), acts))

    def formula(h):
        h = h.unflatten(-1, (4, 8)).clone()
        h[:, :, [0, 2]] = mean
        return h.flatten(2)

    close(ours, plainly(lm, formula, component="attention_value_output"))


def test_project_out(lm):
    u = U / U.norm()
    ours = edited(lm, project_out(Site("block_output", 1, positions=slice(2, None)), U))
    close(ours, plainly(lm, lambda h: h - torch.outer((h @ u)[0], u), slice(2, None)))
    close(edited(lm, project_out(SITE, -7 * U)), edited(lm, project_out(SITE, U)))


def test_nothing_is_left_along_a_direction_that_was_projected_out(lm):
    with intervene(lm, project_out(SITE, U)):
        assert (record(lm, BASE, SITE)["block_output", 1] @ U).abs().max() < 1e-4


@pytest.mark.parametrize("level", [-3.0, 0.0, 3.0])
def test_clamp_raises_what_is_below_and_leaves_what_is_above(lm, level):
    u = U / U.norm()
    before = record(lm, BASE, SITE)["block_output", 1] @ u
    with intervene(lm, clamp(SITE, U, at_least=level)):
        after = record(lm, BASE, SITE)["block_output", 1] @ u
    close(after, before.clamp(min=level))
    ours = edited(lm, clamp(SITE, U, at_least=level))
    close(ours, plainly(lm, lambda h: h + torch.outer((level - h @ u).clamp(min=0)[0], u)))


def test_swap_subspace(lm, source):
    s = source["block_output", 1]
    ours = edited(lm, swap_subspace(SITE, source, Q))
    close(ours, plainly(lm, lambda h: h + (s - h) @ Q @ Q.T))


def test_swap_subspace_exchanges_the_part_inside_and_keeps_the_rest(lm, source):
    base = record(lm, BASE, SITE)["block_output", 1]
    with intervene(lm, swap_subspace(SITE, source, Q)):
        mixed = record(lm, BASE, SITE)["block_output", 1]
    close(mixed @ Q, source["block_output", 1] @ Q)
    close(mixed - mixed @ Q @ Q.T, base - base @ Q @ Q.T)


def test_swap_subspace_takes_an_object_with_a_method_swap(lm, source):
    class Half:
        def swap(self, base, source):
            assert base.shape == source.shape == (10, 32)
            return torch.cat([source[:, :16], base[:, 16:]], -1)

    def formula(h):
        return torch.cat([source["block_output", 1][..., :16], h[..., 16:]], -1)

    close(edited(lm, swap_subspace(SITE, source, Half())), plainly(lm, formula))


def test_swap_subspace_in_half_precision_is_that_of_a_learnt_subspace():
    lm, subspace = tiny("gpt2"), RotatedSubspace(32, 5)
    lm.model.bfloat16()
    acts = record(lm, SOURCE, SITE)
    assert torch.equal(
        edited(lm, swap_subspace(SITE, acts, subspace.basis.detach())), edited(lm, swap_subspace(SITE, acts, subspace))
    )


def test_swap_subspace_within_heads(lm, source):
    basis = torch.linalg.qr(rand(8, 3)).Q
    s = source["value_output", 1][:, :, [1]]
    ours = edited(lm, swap_subspace(Site("value_output", 1, heads=1), source, basis))

    def formula(h):
        h = h.unflatten(-1, (4, 8)).clone()
        h[:, :, [1]] += (s - h[:, :, [1]]) @ basis @ basis.T
        return h.flatten(2)

    close(ours, plainly(lm, formula, component="value_output"))


def test_apply(lm):
    close(edited(lm, apply(Site("mlp_activation", 1), torch.relu)), plainly(lm, torch.relu, component="mlp_activation"))


def test_apply_sees_the_named_places_row_by_row(lm):
    seen = {}

    def look(h):
        seen["stream"] = h.clone()
        return h

    def look_at_heads(h):
        seen["heads"] = h.clone()
        return h

    site, heads = Site("block_output", 1, positions=[[4, 2], [1, 0]]), Site("query_output", 1, heads=[3, 1])
    with intervene(lm, apply(site, look), apply(heads, look_at_heads)):
        lm([BASE, SHORT])
    acts = record(lm, [BASE, SHORT], "block_output", "query_output")
    close(seen["stream"], torch.cat([acts["block_output", 1][0, [4, 2]], acts["block_output", 1][1, [1, 0]]]))
    queries = acts["query_output", 1][:, :, [3, 1]]
    close(seen["heads"], torch.cat([queries[0], queries[1, :3]]))


# -- places and rows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", PER_HEAD)
@pytest.mark.parametrize("heads", [0, [2], [3, 1]])
def test_heads_are_replaced_and_the_others_left(lm, source, component, heads):
    wanted = [heads] if isinstance(heads, int) else heads

    def formula(h):
        h = h.unflatten(-1, (4, 8)).clone()
        h[:, :, wanted] = source[component, 1][:, :, wanted]
        return h.flatten(2)

    ours = edited(lm, replace(Site(component, 1, heads=heads), source))
    close(ours, plainly(lm, formula, component=component))


def test_heads_at_a_place(lm, source):
    def formula(h):
        h = h.unflatten(-1, (4, 8)).clone()
        h[:, :, [2, 0]] = source["value_output", 1][:, [3, 9]][:, :, [2, 0]]
        return h.flatten(2)

    ours = edited(lm, replace(Site("value_output", 1, positions=[3, -1], heads=[2, 0]), source))
    close(ours, plainly(lm, formula, [3, 9], "value_output"))


def test_the_order_of_positions_is_the_order_of_a_value_s_places(lm):
    value = rand(1, 2, 32)
    forth = edited(lm, replace(Site("block_output", 1, positions=[2, 7]), value))
    back = edited(lm, replace(Site("block_output", 1, positions=[7, 2]), value.flip(1)))
    assert torch.equal(forth, back)
    close(forth, plainly(lm, lambda h: value, [2, 7]))


def test_the_order_of_heads_is_the_order_of_a_value_s_heads(lm):
    value = rand(2, 8)
    forth = edited(lm, replace(Site("query_output", 1, heads=[0, 3]), value))
    assert torch.equal(forth, edited(lm, replace(Site("query_output", 1, heads=[3, 0]), value.flip(0))))


@pytest.mark.parametrize("batch, places", [(2, 3), (1, 3), (2, 1), (1, 1)])
def test_a_value_may_be_the_same_for_all_rows_or_places(lm, batch, places):
    value = rand(batch, places, 32)
    ours = edited(lm, replace(Site("block_output", 1, positions=[0, 1, 2]), value), [BASE, SHORT])
    full = value.expand(2, 3, 32)
    close(ours[0], plainly(lm, lambda h: full[:1], [0, 1, 2])[0])
    close(ours[1, :3], plainly(lm, lambda h: full[1:], [0, 1, 2], prompt=SHORT)[0])


def test_a_source_s_last_token_goes_to_the_base_s_last_token_whatever_the_lengths(lm):
    acts = record(lm, SHORT, "block_output")
    ours = edited(lm, replace(Site("block_output", 1, positions=-1), acts))
    close(ours, plainly(lm, lambda h: acts["block_output", 1][:, 2:3], [9]))


def test_one_source_serves_every_row(lm):
    acts = record(lm, SOURCE, "block_output")
    ours = edited(lm, replace(Site("block_output", 1, positions=[[4], [1]]), acts.rows([0, 0])), [BASE, SHORT])
    close(ours[0], plainly(lm, lambda h: acts["block_output", 1][:, 4:5], [4])[0])
    ours = edited(lm, replace(Site("block_output", 1, positions=-1), acts), [BASE, SHORT])
    close(ours[0], plainly(lm, lambda h: acts["block_output", 1][:, 9:], [9])[0])
    close(ours[1, :3], plainly(lm, lambda h: acts["block_output", 1][:, 9:], [2], prompt=SHORT)[0])


def test_sources_pair_up_with_bases_row_by_row(lm):
    acts = record(lm, [SHORT, SOURCE], "block_output")
    ours = edited(lm, replace(Site("block_output", 1, positions=-1), acts), [BASE, SHORT])
    close(ours[0], plainly(lm, lambda h: acts["block_output", 1][:1, 2:3], [9])[0])
    close(ours[1, :3], plainly(lm, lambda h: acts["block_output", 1][1:, 9:], [2], prompt=SHORT)[0])


def test_values_follow_the_activations_dtype():
    lm = tiny("llama")
    lm.model.bfloat16()
    acts = record(lm, SOURCE, "block_output", "query_output")
    assert acts["block_output", 1].dtype == torch.bfloat16
    site = Site("block_output", 1)
    for edit in (
        replace(site, V),
        replace(site, V.double()),
        replace(site, acts),
        add(site, V),
        noise(site, 1.0),
        zero(site),
        mean_ablate(site, V),
        project_out(site, U),
        clamp(site, U, 1.0),
        swap_subspace(site, V, Q),
        apply(site, lambda h: h.float() * 2),
        replace(Site("query_output", 1, heads=2), acts),
    ):
        with intervene(lm, edit):
            seen = record(lm, BASE, "block_output")
        assert seen["block_output", 1].dtype == seen.logits.dtype == torch.bfloat16, edit
        assert not torch.equal(seen.logits, lm(BASE)), edit


def test_a_bfloat16_run_is_a_source_for_a_float32_one(lm):
    value = rand(32).bfloat16()
    assert torch.equal(edited(lm, replace(SITE, value)), edited(lm, replace(SITE, value.float())))


# -- gradients --------------------------------------------------------------------------------------------------------


def of_value(kind):
    heads = Site("query_output", 1, heads=[1, 3])
    return {
        "replace": (V, lambda v: replace(Site("block_output", 1, positions=[2, 5]), v)),
        "replace in heads": (rand(2, 8), lambda v: replace(heads, v)),
        "replace row by row": (rand(1, 2, 32), lambda v: replace(Site("block_output", 1, positions=[2, 5]), v)),
        "add": (V, lambda v: add(SITE, v, scale=2.0)),
        "add to keys": (rand(4, 8), lambda v: add(Site("key_output", 1), v)),
        "mean_ablate": (V, lambda v: mean_ablate(Site("mlp_output", 1), v)),
        "project_out": (U, lambda v: project_out(SITE, v)),
        "clamp": (U, lambda v: clamp(SITE, v, at_least=5.0)),
        "swap_subspace, source": (V, lambda v: swap_subspace(SITE, v, Q)),
        "apply": (V, lambda v: apply(SITE, lambda h: h * v)),
    }[kind]


KINDS = [
    "replace",
    "replace in heads",
    "replace row by row",
    "add",
    "add to keys",
    "mean_ablate",
    "project_out",
    "clamp",
    "swap_subspace, source",
    "apply",
]


def slope(metric, value, direction, step=1e-2):
    return (metric(value + step * direction) - metric(value - step * direction)) / (2 * step)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_the_logits_with_respect_to_an_edit_s_value(lm, kind):
    value, make = of_value(kind)

    def metric(value, grad=False):
        with intervene(lm, make(value)):
            return lm(BASE, grad=grad)[0, -1, [7, 99, 1234]].double().sum()

    value, direction = value.clone().requires_grad_(), rand(*value.shape, seed=9)
    (gradient,) = torch.autograd.grad(metric(value, grad=True), value)
    expected = slope(lambda v: metric(v), value.detach(), direction)
    torch.testing.assert_close((gradient * direction).sum().double(), expected, rtol=2e-2, atol=1e-3)


def test_gradients_of_the_logits_with_respect_to_a_subspace(lm, source):
    class Rotated:
        def __init__(self, basis):
            self.basis = basis

        def swap(self, base, source):
            return base + (source - base) @ self.basis @ self.basis.T

    def metric(basis, grad=False):
        with intervene(lm, swap_subspace(SITE, source, Rotated(basis))):
            return lm.next_token_logits(BASE, grad=grad)[0, [7, 99]].double().sum()

    basis, direction = Q.clone().requires_grad_(), rand(32, 5, seed=9)
    (gradient,) = torch.autograd.grad(metric(basis, grad=True), basis)
    expected = slope(lambda b: metric(b), basis.detach(), direction)
    torch.testing.assert_close((gradient * direction).sum().double(), expected, rtol=2e-2, atol=1e-3)


def test_gradients_flow_from_one_run_into_another(lm):
    with intervene(lm, add(Site("block_output", 0), vector := V.clone().requires_grad_())):
        acts = record(lm, SOURCE, "block_output", grad=True)
    with intervene(lm, replace(Site("block_output", 1, positions=-1), acts)):
        lm(BASE, grad=True)[0, -1, 7].backward(inputs=[vector])
    assert vector.grad.any()


# -- what is refused when the edit is made ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: replace(SITE, None), "replace takes a tensor or the Activations of another run, not NoneType"),
        (lambda: replace(SITE, [1.0]), "replace takes a tensor or the Activations .* not list"),
        (lambda: add(SITE, 3.0), "add takes a tensor or the Activations .* not float"),
        (lambda: add(SITE, None), "add takes a tensor or the Activations .* not NoneType"),
        (lambda: mean_ablate(SITE, None), "mean_ablate takes a tensor or the Activations .* not NoneType"),
        (lambda: swap_subspace(SITE, None, Q), "swap_subspace takes a tensor or the Activations .* not NoneType"),
        (lambda: swap_subspace(SITE, "x", Q), "swap_subspace takes a tensor .* not str"),
        (lambda: swap_subspace(SITE, V, [[1]]), r"A subspace is a tensor \(d, rank\) or an object with a method swap"),
        (lambda: swap_subspace(SITE, V, None), "NoneType was given"),
        (
            lambda: swap_subspace(SITE, V, rand(32, 4)),
            r"of shape \(32, 4\), is not \(d, rank\) with orthonormal columns",
        ),
        (lambda: swap_subspace(SITE, V, rand(4, 32)), r"make it so with torch.linalg.qr\(subspace\).Q"),
        (lambda: swap_subspace(SITE, V, V), r"of shape \(32,\), is not \(d, rank\)"),
        (lambda: noise(SITE, -0.5), "A standard deviation is not negative, and std=-0.5 was given"),
        (lambda: project_out(SITE, torch.zeros(32)), "A direction is a tensor whose last axis is d, not zero"),
        (lambda: project_out(SITE, None), "A direction is a tensor"),
        (lambda: clamp(SITE, torch.tensor(1.0), 0.0), "A direction is a tensor"),
        (lambda: clamp(SITE, [1.0, 2.0], 0.0), "A direction is a tensor"),
    ],
)
def test_what_makes_no_edit_is_refused_when_it_is_made(make, says):
    with pytest.raises(ValueError, match=says):
        make()


PATTERN = Site("attention_weight", 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: add(PATTERN, V),
        lambda: noise(PATTERN, 1.0),
        lambda: mean_ablate(PATTERN, V),
        lambda: project_out(PATTERN, V),
        lambda: clamp(PATTERN, V, 1.0),
        lambda: swap_subspace(PATTERN, V, Q),
    ],
)
def test_the_attention_pattern_holds_no_vectors(make):
    with pytest.raises(
        ValueError, match="attention_weight has shares of attention, and no vectors: edit it by knock_out"
    ):
        make()


def test_a_mean_of_places_that_the_reference_lacks_is_refused_when_it_is_made(lm):
    with pytest.raises(ValueError, match="Position 5 is outside row 0, which has 3 tokens"):
        mean_ablate(Site("block_output", 1, positions=5), record(lm, SHORT, "block_output"))
    with pytest.raises(KeyError, match="'mlp_output' of layer 1 was not recorded"):
        mean_ablate(Site("mlp_output", 1), record(lm, SHORT, "block_output"))


# -- what is refused before the model runs ----------------------------------------------------------------------------

LAST, HEADS = Site("block_output", 1, positions=-1), Site("query_output", 1, heads=[0, 1])
LEAVES_NO_TRACE = [
    (
        lambda lm: replace(LAST, rand(31)),
        ValueError,
        r"replace at Site\('block_output'.*\(31,\): expected was \(32,\)",
    ),
    (lambda lm: add(LAST, rand(2, 1, 31)), ValueError, r"\(batch, places, …\) = \(2, 1, 32\)"),
    (
        lambda lm: add(LAST, rand(3, 1, 32)),
        ValueError,
        r"\(3, 1, 32\): expected was \(32,\), the same everywhere, or \(batch",
    ),
    (lambda lm: add(LAST, rand(2, 2, 32)), ValueError, r"\(2, 2, 32\): expected was"),
    (lambda lm: add(LAST, rand(2, 1, 1)), ValueError, r"\(2, 1, 1\): expected was"),
    (lambda lm: add(LAST, rand(2, 32)), ValueError, r"\(2, 32\): expected was"),
    (lambda lm: replace(SITE, rand(2, 10, 32)), ValueError, r"\(batch, places, …\) = \(2, '3 to 10', 32\)"),
    (lambda lm: replace(HEADS, rand(4, 8)), ValueError, r"\(4, 8\): expected was \(2, 8\)"),
    (lambda lm: project_out(HEADS, rand(8)), ValueError, r"project_out at .*\(8,\): expected was \(2, 8\)"),
    (lambda lm: clamp(LAST, rand(8), 1.0), ValueError, r"clamp at .*\(8,\): expected was \(32,\)"),
    (lambda lm: mean_ablate(LAST, rand(8)), ValueError, r"mean_ablate at .*\(8,\): expected was \(32,\)"),
    (
        lambda lm: swap_subspace(HEADS, rand(2, 8), Q),
        ValueError,
        "swap_subspace at .*: the subspace is one of 32 dimensions, and activations have 8",
    ),
    (
        lambda lm: replace(LAST, record(lm, [SHORT] * 3, "block_output")),
        ValueError,
        "the source has 3 rows and the base has 2; give one source row for each base row, or a single one",
    ),
    (
        lambda lm: replace(SITE, record(lm, [BASE, BASE], "block_output")),
        ValueError,
        r"the source has \[10, 10\] tokens there and the base \[10, 3\], row by row, so they don't pair up",
    ),
    (lambda lm: replace(LAST, record(lm, BASE, "mlp_output")), KeyError, "'block_output' of layer 1 was not recorded"),
    (
        lambda lm: replace(LAST, record(tiny("gpt2", hidden_size=16), BASE, "block_output")),
        ValueError,
        r"the source has \(16,\) there, the model \(32,\)",
    ),
    (
        lambda lm: replace(Site("block_output", 1, positions=-4), record(lm, BASE, "block_output")),
        ValueError,
        "Position -4 is outside row 1, which has 3 tokens",
    ),
    (
        lambda lm: replace(Site("block_output", 1, positions=2), record(lm, "One two", "block_output")),
        ValueError,
        "Position 2 is outside row 0, which has 2 tokens",
    ),
]


@pytest.mark.parametrize("make, kind, says", LEAVES_NO_TRACE)
def test_an_edit_that_does_not_fit_is_refused_before_the_model_runs_and_leaves_no_trace(lm, make, kind, says):
    edit = make(lm)
    before, logits, ran = snapshot(lm), lm(BASE), []
    handle = lm.anatomy.blocks[0].register_forward_hook(lambda *_: ran.append(1))
    try:
        with pytest.raises(kind, match=says):
            with intervene(lm, zero(Site("mlp_output", 0)), edit):
                lm([BASE, SHORT])
    finally:
        handle.remove()
    assert not ran
    assert_untouched(lm, before)
    assert torch.equal(lm(BASE), logits)


@pytest.mark.parametrize(
    "function, says",
    [
        (lambda h: h[:1], r"got a tensor \(10, 32\) and returned \(1, 32\): keep the shape"),
        (lambda h: h.mean(), r"got a tensor \(10, 32\) and returned \(\)"),
        (lambda h: None, r"got a tensor \(10, 32\) and returned NoneType"),
    ],
)
def test_a_function_that_changes_the_shape_is_refused_and_leaves_no_trace(lm, function, says):
    before, logits = snapshot(lm), lm(BASE)
    with pytest.raises(ValueError, match=says), intervene(lm, apply(SITE, function)):
        lm(BASE)
    assert_untouched(lm, before)
    assert torch.equal(lm(BASE), logits)


def test_an_edit_says_what_and_where():
    assert repr(zero(Site("mlp_output", 3, positions=-1))) == ("zero(Site('mlp_output', 3, positions=-1))")
