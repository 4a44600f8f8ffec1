"""Laws that hold for any prompt, site and vector, tried on examples that Hypothesis thinks up."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from plain import assert_untouched, snapshot
from tiny import tiny

from interp_helpers import Site, add, apply, clamp, intervene, project_out, record, replace, swap_subspace, zero
from interp_helpers.models.anatomy import COMPONENTS, PER_HEAD

MODELS = {family: tiny(family) for family in ("gpt2", "llama", "gpt_neox")}
EDITABLE = [c for c in COMPONENTS if c != "attention_weight"]

examples = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
seeds = st.integers(0, 10_000)
models = st.sampled_from(list(MODELS.values()))


@st.composite
def batches(draw, min_rows=1, min_length=1):
    """Prompts of unequal length: how long each is, and the seed of its tokens."""
    lengths = draw(st.lists(st.integers(min_length, 7), min_size=min_rows, max_size=3))
    return lengths, draw(seeds)


def tokens_of(batch):
    lengths, seed = batch
    ids = torch.randint(0, 50000, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(seed))
    ids.attention_mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return ids


@st.composite
def places(draw, lengths):
    """Positions as a user may write them."""
    shortest = min(lengths)
    kind = draw(st.sampled_from(["all", "one", "some", "slice", "each"]))
    if kind == "all":
        return None
    if kind == "one":
        return draw(st.integers(-shortest, shortest - 1))
    if kind == "some":
        return draw(st.lists(st.integers(0, shortest - 1), min_size=1, unique=True))
    if kind == "slice":
        return slice(draw(st.integers(0, shortest - 1)), None)
    return [draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=1)) for n in lengths]


@st.composite
def sites(draw, lm, lengths, components=EDITABLE):
    component = draw(st.sampled_from([c for c in components if lm.anatomy.offers(c, 0)]))
    heads = None
    if component in PER_HEAD:
        n = lm.anatomy.place(component, 0).shape[0]
        heads = draw(st.none() | st.lists(st.integers(0, n - 1), min_size=1, unique=True))
    return Site(component, draw(st.integers(0, 2)), positions=draw(places(lengths)), heads=heads)


def rand(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def shape_of(lm, site):
    shape = lm.anatomy.place(site.component, site.layer).shape
    return shape if site.heads is None else (len(site.head_list), shape[1])


def run(lm, tokens, *edits):
    """Logits at the real tokens."""
    if not edits:
        return lm(tokens)[tokens.attention_mask.bool()]
    with intervene(lm, *edits):
        return lm(tokens)[tokens.attention_mask.bool()]


def same(a, b, atol=5e-5):
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-5)


@examples
@given(models, batches(), st.data())
def test_replacing_activations_by_themselves_changes_nothing(lm, batch, data):
    tokens, site = tokens_of(batch), data.draw(sites(lm, batch[0]))
    acts = record(lm, tokens, site.component)
    assert torch.equal(run(lm, tokens, replace(site, acts)), run(lm, tokens))


@examples
@given(models, batches(min_length=2), st.sampled_from(EDITABLE), st.integers(0, 2), seeds)
def test_what_happens_at_a_token_is_not_seen_before_it(lm, batch, component, layer, seed):
    assume(lm.anatomy.offers(component, layer))
    tokens = tokens_of(batch)
    site = Site(component, layer, positions=-1)
    edit = add(site, 3 * rand(seed, *shape_of(lm, site)))
    with intervene(lm, edit):
        edited = lm(tokens)
    clean = lm(tokens)
    for row, n in enumerate(batch[0]):
        same(edited[row, : n - 1], clean[row, : n - 1])


@examples
@given(models, batches(), batches(), st.integers(0, 2))
def test_the_whole_stream_of_the_source_gives_the_source_s_logits(lm, base, source, layer):
    lengths = base[0]
    base, source = tokens_of(base), tokens_of((lengths, source[1]))
    acts = record(lm, source, "block_output", "block_input")
    for component in ("block_output", "block_input"):
        same(run(lm, base, replace(Site(component, layer), acts)), run(lm, source))


@examples
@given(models, batches(), batches())
def test_the_last_block_s_output_at_the_last_token_gives_the_source_s_next_token(lm, base, source):
    lengths = source[0][:1] * len(base[0])
    source = tokens_of((lengths, source[1]))  # whatever the lengths
    base = tokens_of(base)
    with intervene(lm, replace(Site("block_output", 2, positions=-1), record(lm, source, "block_output"))):
        same(lm.next_token_logits(base), lm.next_token_logits(source))


@examples
@given(models, batches(), seeds, st.data())
def test_a_swap_in_a_subspace_of_full_rank_is_replace(lm, batch, seed, data):
    tokens, site = tokens_of(batch), data.draw(sites(lm, batch[0]))
    shape = shape_of(lm, site)
    basis = torch.linalg.qr(rand(seed, shape[-1], shape[-1])).Q
    acts = record(lm, tokens_of((batch[0], seed + 1)), site.component)
    same(run(lm, tokens, swap_subspace(site, acts, basis)), run(lm, tokens, replace(site, acts)))


@examples
@given(models, batches(), seeds, st.integers(1, 8), st.data())
def test_a_swap_with_the_run_itself_changes_nothing(lm, batch, seed, rank, data):
    tokens, site = tokens_of(batch), data.draw(sites(lm, batch[0]))
    basis = torch.linalg.qr(rand(seed, shape_of(lm, site)[-1], rank)).Q
    same(run(lm, tokens, swap_subspace(site, record(lm, tokens, site.component), basis)), run(lm, tokens))


@examples
@given(models, batches(), seeds, st.integers(1, 7), st.data())
def test_swapping_a_subspace_and_its_complement_is_replace(lm, batch, seed, rank, data):
    tokens, site = tokens_of(batch), data.draw(sites(lm, batch[0]))
    d = shape_of(lm, site)[-1]
    basis = torch.linalg.qr(rand(seed, d, d)).Q
    acts = record(lm, tokens_of((batch[0], seed + 1)), site.component)
    parts = swap_subspace(site, acts, basis[:, :rank]), swap_subspace(site, acts, basis[:, rank:])
    same(run(lm, tokens, *parts), run(lm, tokens, replace(site, acts)))


@examples
@given(models, batches(), seeds, st.floats(-3, 3), st.floats(-3, 3), st.data())
def test_additions_add_up_and_zero_is_nothing(lm, batch, seed, a, b, data):
    tokens, site = tokens_of(batch), data.draw(sites(lm, batch[0]))
    vector = rand(seed, *shape_of(lm, site))
    two = run(lm, tokens, add(site, vector, scale=a), add(site, vector, scale=b))
    same(two, run(lm, tokens, add(site, vector, scale=a + b)), atol=5e-4)
    assert torch.equal(run(lm, tokens, add(site, vector, scale=0.0)), run(lm, tokens))


@examples
@given(models, batches(), st.data())
def test_zero_is_replacing_by_zeros(lm, batch, data):
    tokens, site = tokens_of(batch), data.draw(sites(lm, batch[0]))
    assert torch.equal(run(lm, tokens, zero(site)), run(lm, tokens, replace(site, torch.zeros(shape_of(lm, site)))))


@examples
@given(models, batches(), seeds, st.data())
def test_projecting_out_twice_is_once_and_clamping_low_is_nothing(lm, batch, seed, data):
    tokens, site = tokens_of(batch), data.draw(sites(lm, batch[0]))
    direction = rand(seed, *shape_of(lm, site))
    edit = project_out(site, direction)
    same(run(lm, tokens, edit, edit), run(lm, tokens, edit))
    assert torch.equal(run(lm, tokens, clamp(site, direction, at_least=-1e4)), run(lm, tokens))


@examples
@given(models, batches(), st.data())
def test_later_edits_of_a_site_win(lm, batch, data):
    tokens, site = tokens_of(batch), data.draw(sites(lm, batch[0]))
    acts = record(lm, tokens_of((batch[0], batch[1] + 1)), site.component)
    assert torch.equal(run(lm, tokens, zero(site), replace(site, acts)), run(lm, tokens, replace(site, acts)))


@examples
@given(models, batches(min_rows=3), seeds, st.data())
def test_rows_do_not_see_each_other(lm, batch, seed, data):
    lengths, _ = batch
    tokens = tokens_of(batch)
    site = data.draw(sites(lm, lengths))
    if isinstance(site.positions, tuple) and isinstance(site.positions[0], tuple):
        alone = [Site(site.component, site.layer, site.positions[row], site.heads) for row in range(3)]
    else:
        alone = [site] * 3
    vector = rand(seed, *shape_of(lm, site))
    with intervene(lm, add(site, vector)):
        together = lm(tokens)
    for row, n in enumerate(lengths):
        with intervene(lm, add(alone[row], vector)):
            same(together[row, :n], lm(tokens[row, :n])[0])


@examples
@given(models, batches(), st.data(), st.sampled_from(["return", "error outside", "error inside", "refused", "idle"]))
def test_every_way_out_restores_the_model_bit_for_bit(lm, batch, data, way):
    tokens, site = tokens_of(batch), data.draw(sites(lm, batch[0]))
    before, logits = snapshot(lm), lm(tokens)

    def fail(h):
        raise ZeroDivisionError

    edits = {
        "error inside": [zero(site), apply(site, fail)],
        "refused": [zero(site), add(site, torch.zeros(5))],
    }.get(way, [zero(site)])
    try:
        with intervene(lm, *edits):
            if way != "idle":
                lm(tokens)
            if way == "error outside":
                raise ZeroDivisionError
    except (ZeroDivisionError, ValueError, RuntimeError):
        assert way != "return"
    else:
        assert way == "return"
    assert_untouched(lm, before)
    assert torch.equal(lm(tokens), logits)


@examples
@given(st.sampled_from(["gpt2", "llama"]), seeds, st.sampled_from([None, 0, -1, [0, 1]]), st.integers(0, 1))
def test_cached_and_uncached_decoding_agree(family, seed, positions, layer):
    lm = MODELS[family]
    site = Site("block_output", layer, positions=positions)
    prompts = ["The Eiffel Tower is in", "One two"]
    with intervene(lm, add(site, rand(seed, 32), scale=8.0)):
        assert lm.generate(prompts, 5) == lm.generate(prompts, 5, use_cache=False)


@pytest.mark.parametrize("lm", MODELS.values(), ids=list(MODELS))
def test_the_laws_above_are_tried_on_models_that_their_edits_change(lm):
    tokens = tokens_of(([5, 3], 0))
    for component in filter(lambda component: lm.anatomy.offers(component, 0), EDITABLE):
        assert (run(lm, tokens, zero(Site(component, 0))) - run(lm, tokens)).abs().max() > 0.05, component
