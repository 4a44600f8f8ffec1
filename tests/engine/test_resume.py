"""Resumed runs equal whole ones: every family, component, mask, window, head and chunk size, to 1e-5 in the logits."""

from __future__ import annotations

import dataclasses
import functools
import warnings

import pytest
import torch
from plain import act_at_column, run
from tiny import FAMILIES, components_of, tiny

from interp_helpers import Site, add, intervene, logit_diff, patch_sweep, record, replace, zero
from interp_helpers.engine import cells as engine_cells
from interp_helpers.engine import resume
from interp_helpers.engine.cells import Cell
from interp_helpers.models.anatomy import COMPONENTS, PER_HEAD
from interp_helpers.models.tokens import take

EDITABLE = [component for component in COMPONENTS if component != "attention_weight"]
BASES = ["The Colosseum stands in the town of", "The capital of France is", "One two three"]
SOURCES = ["The Eiffel Tower is in the city of", "The capital of Italy is", "Nine six eight"]
TOLERANCE = 1e-5


def resumes(lm) -> bool:
    """Whether a sweep takes the fast way."""
    taken, plain = [], engine_cells._plain
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(engine_cells, "_plain", lambda *given: taken.append(given) or plain(*given))
        patch_sweep(lm, BASES[0], SOURCES[0], logit_diff(lm, " Paris", " Rome"), positions=[2, -1])
    return not taken


def compare(lm, bases, sources, component, cells, edits=lambda rows: [], resumed=True):
    """The largest difference between the resumed and the plain logits, relative to the logits' size."""
    tokens, others = lm.tokens(bases), lm.tokens(sources)
    layers = sorted({layer for cell in cells for layer in cell.layers})

    def source(rows):
        sites = [Site(component, layer) for layer in layers]
        return record(lm, take(others, rows), Site("block_input", 0), *sites)

    with pytest.MonkeyPatch.context() as patch:
        if resumed:
            patch.setattr(engine_cells, "_plain", lambda *given: pytest.fail("the plain way was taken"))
        fast = next(engine_cells.runs(lm, tokens, component, [cells], source, torch.clone, edits))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_cells, "can_resume", lambda lm: False)
        plain = next(engine_cells.runs(lm, tokens, component, [cells], source, torch.clone, edits))
    assert fast.shape == plain.shape == (1 + len(cells), len(bases), lm.anatomy.unembedding.weight.shape[0])
    assert (plain[1:] - plain[0]).abs().max() > 1e-2  # patches do something
    return ((fast - plain).abs().max() / plain.abs().max().clamp(min=1)).item()


def cells_of(n_layers, rows, places, heads=(None,)):
    return [Cell(range(L, L + 1), (tuple(p),) * rows, head) for L in range(n_layers) for p in places for head in heads]


# -- which way a family takes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_every_known_family_is_resumed(family):
    assert resumes(tiny(family))


@pytest.mark.parametrize("kernel, fast", [("eager", True), ("sdpa", True), ("flex_attention", False)])
def test_the_attention_kernels_that_can_be_resumed(kernel, fast):
    lm = tiny("llama")
    lm.model.config._attn_implementation = kernel
    assert resume.can_resume(lm) is fast


def test_an_argument_that_depends_on_the_rows_takes_the_plain_way():
    lm = tiny("llama")
    block = lm.anatomy.blocks[1]

    class Counting(type(block)):  # a family whose blocks count the tokens that came before them
        def forward(self, hidden_states, **kwargs):
            return super().forward(hidden_states, **kwargs) + torch.arange(hidden_states.shape[1])[None, :, None]

    block.__class__ = Counting
    with pytest.warns(UserWarning, match="On tiny llama a run that is resumed from a block isn't what a whole run is"):
        sweep = patch_sweep(lm, BASES[0], SOURCES[0], logit_diff(lm, " Paris", " Rome"))
    acts = record(lm, SOURCES[0], "block_output")
    with intervene(lm, replace(Site("block_output", 1, 3), acts)):
        expected = logit_diff(lm, " Paris", " Rome")(lm.next_token_logits(BASES[0]))
    torch.testing.assert_close(sweep.values[1, 3], expected[0])


def test_a_hook_of_the_users_takes_the_plain_way_and_acts(lm):
    metric = logit_diff(lm, " Paris", " Rome")
    before = patch_sweep(lm, BASES[0], SOURCES[0], metric)
    seen = []
    handle = lm.anatomy.blocks[0].register_forward_hook(lambda module, args, output: seen.append(args[0].shape[1]))
    try:
        assert not resume.can_resume(lm)
        again = patch_sweep(lm, BASES[0], SOURCES[0], metric)
    finally:
        handle.remove()
    assert resume.can_resume(lm)
    assert set(seen) == {len(lm.str_tokens(BASES[0]))}  # whole runs
    torch.testing.assert_close(before.values, again.values, atol=1e-5, rtol=1e-5)


def test_inside_an_intervention_the_sweep_is_of_the_edited_model(lm):
    metric = logit_diff(lm, " Paris", " Rome")
    with intervene(lm, add(Site("block_output", 1), torch.linspace(-1, 1, lm.d_model))):
        assert not resume.can_resume(lm)
        edited = patch_sweep(lm, BASES[0], SOURCES[0], metric)
    assert (edited.values - patch_sweep(lm, BASES[0], SOURCES[0], metric).values).abs().max() > 1e-2


def test_tokens_that_see_what_follows_take_the_plain_way():
    assert not resumes(tiny("gemma3_text", use_bidirectional_attention=True))


def test_a_block_whose_forward_was_replaced_takes_the_plain_way():
    lm = tiny("llama")
    assert resume.can_resume(lm)
    block = lm.anatomy.blocks[1]
    whole = block.forward
    block.forward = lambda hidden_states, **kwargs: whole(hidden_states, **kwargs) * 1.5
    assert not resume.can_resume(lm)


def test_a_hook_on_every_module_takes_the_plain_way(lm):
    handle = torch.nn.modules.module.register_module_forward_hook(lambda module, args, output: None)
    try:
        assert not resume.can_resume(lm)
    finally:
        handle.remove()
    assert resume.can_resume(lm)


def test_edits_beyond_the_first_block_are_made_in_every_run(lm):
    def edits(rows):
        return [zero(Site("mlp_output", 2))]

    assert compare(lm, BASES, SOURCES, "block_output", cells_of(3, 3, [(-1,), (1,)]), edits, False) < TOLERANCE


def test_inside_an_intervention_with_a_source_for_each_row(lm):
    metric, acts = logit_diff(lm, " Paris", " Rome"), record(lm, SOURCES, "mlp_output")
    with intervene(lm, replace(Site("mlp_output", 1, -1), acts)):
        together = patch_sweep(lm, BASES, SOURCES, metric, positions={"second": 1}).values
    for i in range(3):
        with intervene(lm, replace(Site("mlp_output", 1, -1), acts.rows([i]))):
            alone = patch_sweep(lm, BASES[i], SOURCES[i], metric, positions={"second": 1}).values
        torch.testing.assert_close(together[i], alone, atol=1e-5, rtol=1e-5)


# -- equal to the plain way -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family, component", [(f, c) for f in FAMILIES for c in EDITABLE if c in components_of(f)])
def test_every_family_and_component_in_a_padded_batch(family, component):
    lm = tiny(family)
    heads = (0, 1) if component in PER_HEAD else (None,)
    cells = cells_of(3, 3, [(-1,), (1,), (0, 2), (-3, -1)], heads)
    assert compare(lm, BASES, SOURCES, component, cells) < TOLERANCE


@pytest.mark.parametrize(
    "family, kernel",
    [(f, k) for f in ("gpt2", "llama", "gpt_neox", "mistral", "gemma3_text") for k in ("eager", "sdpa")]
    + [("gemma2", "eager")],
)
def test_every_token_of_one_pair(family, kernel):
    lm = tiny(family)
    lm.model.set_attn_implementation(kernel)
    cells = cells_of(3, 1, [(i,) for i in range(len(lm.str_tokens(BASES[0])))])
    for component in ("block_input", "block_output", "attention_output", "mlp_output"):
        assert compare(lm, BASES[:1], SOURCES[:1], component, cells) < TOLERANCE


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3_text"])
def test_a_sliding_window_shorter_than_the_prompt(family):
    lm = tiny(family, sliding_window=4)
    cells = cells_of(3, 3, [(-1,), (1,), (0, 2)])
    assert compare(lm, BASES, SOURCES, "block_output", cells) < TOLERANCE


@pytest.mark.parametrize("component", ["block_input", "block_output", "attention_output", "mlp_activation"])
def test_windows_of_layers(lm, component):
    cells = [Cell(range(a, b), ((place,),) * 3) for a in range(3) for b in range(a + 1, 4) for place in (1, -1)]
    assert compare(lm, BASES, SOURCES, component, cells) < TOLERANCE


def test_another_place_in_each_row(lm):
    cells = [Cell(range(L, L + 1), ((1, 3), (2,), (-1,))) for L in range(3)]
    assert compare(lm, BASES, SOURCES, "block_output", cells) < TOLERANCE


def test_sources_of_another_length(lm):
    cells = cells_of(3, 2, [(-1,), (-2,), (1,)])
    assert compare(lm, BASES[:2], SOURCES[1::-1], "block_output", cells) < TOLERANCE


@pytest.mark.parametrize("component", ["block_input", "block_output", "attention_output"])
def test_edits_that_every_run_has(lm, component):
    draw = torch.randn(3, 1, lm.d_model, generator=torch.Generator().manual_seed(0))

    def edits(rows):
        return [add(Site("block_input", 0, positions=1), draw[list(rows)])]

    cells = cells_of(3, 3, [(-1,), (1,), (0, 2)])
    assert compare(lm, BASES, BASES, component, cells, edits) < TOLERANCE
    tokens = lm.tokens(BASES)
    with intervene(lm, *edits(range(3))):
        expected = lm.next_token_logits(BASES)

    def source(rows):
        return record(lm, take(tokens, rows), Site("block_input", 0), component)

    base = next(engine_cells.runs(lm, tokens, component, [cells], source, torch.clone, edits))[0]
    torch.testing.assert_close(base, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("memory", [1, 2**14, 2**17])
@pytest.mark.parametrize("groups", [1, 3, 50])
def test_neither_the_memory_nor_the_groups_change_a_number(lm, memory, groups, monkeypatch):
    monkeypatch.setattr(engine_cells, "MEMORY", memory)
    monkeypatch.setattr(engine_cells, "GROUPS", groups)
    monkeypatch.setattr(engine_cells, "SMALLEST", 1)
    cells = cells_of(3, 3, [(-1,), (1,), (0, 2), (-3, -1)])
    assert compare(lm, BASES, SOURCES, "mlp_output", cells) < TOLERANCE


def test_neither_padding_nor_the_order_of_rows_changes_a_number(lm):
    metric = logit_diff(lm, " Paris", " Rome")
    places = {"last": -1, "second": 1}
    together = patch_sweep(lm, BASES, SOURCES, metric, positions=places).values
    for i in range(3):
        alone = patch_sweep(lm, BASES[i], SOURCES[i], metric, positions=places).values
        torch.testing.assert_close(together[i], alone, atol=1e-5, rtol=1e-5)
    order = [2, 0, 1]
    turned = patch_sweep(lm, [BASES[i] for i in order], [SOURCES[i] for i in order], metric, positions=places).values
    torch.testing.assert_close(turned, together[order], atol=1e-5, rtol=1e-5)


# -- what it costs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [1, -1])
def test_calls_stay_within_the_memory(lm, place, monkeypatch):
    monkeypatch.setattr(engine_cells, "MEMORY", 150_000)
    width, sizes = len(lm.str_tokens(BASES[0])), []
    call = resume.Run.call_block

    def counted(self, layer, h, rows, first):
        sizes.append(h.shape[:2])
        return call(self, layer, h, rows, first)

    monkeypatch.setattr(resume.Run, "call_block", counted)
    sources = [SOURCES[0]] * 8
    patch_sweep(lm, [BASES[0]] * 8, sources, logit_diff(lm, " Paris", " Rome"), positions={"here": place})
    rows, new = max(sizes)
    assert 1 < rows <= engine_cells.rows_per_call(lm, new, width) < 24
    # what the mask, the MLP, the keys and the values of such a call take, in fp32
    assert 4 * rows * (new * (3 * 128 + 8 * 32) + 2 * width * 32) < 150_000


def test_the_last_block_makes_only_what_is_read(lm, monkeypatch):
    mlp = lm.anatomy.place("mlp_input", lm.n_layers - 1).module
    forward, widths = mlp.forward, []

    def counted(stream):
        widths.append(stream.shape[1])
        return forward(stream)

    monkeypatch.setattr(mlp, "forward", counted)
    whole = len(lm.str_tokens(BASES[0]))
    patch_sweep(lm, BASES[0], SOURCES[0], logit_diff(lm, " Paris", " Rome"), layers=[0, 1], positions=[2, 3])
    assert set(widths) == {1, whole}


def test_logits_stay_within_the_memory(lm, monkeypatch):
    monkeypatch.setattr(engine_cells, "MEMORY", 5 * 4 * lm.model.config.vocab_size)
    unembed, rows = lm.unembed, []

    def counted(stream):
        rows.append(len(stream))
        return unembed(stream)

    monkeypatch.setattr(lm, "unembed", counted)
    patch_sweep(lm, BASES[0], SOURCES[0], logit_diff(lm, " Paris", " Rome"), positions=[1, -1])
    # the base's and one cell's are compared with whole runs first
    assert max(rows) == 5 and rows[:2] == [1, 1] and sum(rows[2:]) == 1 + 2 * lm.n_layers


def test_a_larger_model_and_a_longer_prompt_get_fewer_rows_a_call():
    small, large = tiny("llama"), tiny("llama", hidden_size=64, intermediate_size=480)
    assert engine_cells.rows_per_call(large, 10, 10) < engine_cells.rows_per_call(small, 10, 10)
    assert engine_cells.rows_per_call(small, 1, 1000) < engine_cells.rows_per_call(small, 1, 10)
    assert engine_cells.rows_per_call(small, 10**9, 10**9) == 1


def test_tokens_before_the_first_difference_cost_nothing(lm, monkeypatch):
    base, source = "The capital of France is", "The capital of Italy is"
    patched, together = [], engine_cells.run_together
    monkeypatch.setattr(engine_cells, "run_together", lambda *given: patched.extend(given[2]) or together(*given))
    sweep = patch_sweep(lm, base, source, logit_diff(lm, " Paris", " Rome"))
    assert {patch.columns[0][0] for patch in patched} == {3, 4}
    assert torch.equal(sweep.values[:, :3], sweep.base.expand(3, 3))


def test_the_model_is_left_as_it_was_when_a_sweep_fails(lm, monkeypatch):
    before = run(lm, BASES[0])

    def broken(tensor):
        raise RuntimeError("no")

    place = lm.anatomy.place
    monkeypatch.setattr(
        lm.anatomy, "place", lambda component, layer: replace_view(place(component, layer), broken, component)
    )
    with pytest.raises(RuntimeError, match="no"):
        patch_sweep(lm, BASES[0], SOURCES[0], logit_diff(lm, " Paris", " Rome"), "mlp_output")
    monkeypatch.undo()
    assert resume.can_resume(lm)
    torch.testing.assert_close(lm(BASES[0]), before)


def replace_view(place, view, component):
    return dataclasses.replace(place, view=view) if component == "mlp_output" else place


def test_a_metric_that_does_not_fit_is_told_before_the_work(lm, monkeypatch):
    monkeypatch.setattr(resume.Run, "resume", lambda *arguments: pytest.fail("the sweep has begun"))
    with pytest.raises(ValueError, match="2 words"):
        patch_sweep(lm, BASES, SOURCES, logit_diff(lm, [" Paris", " Rome"], " Madrid"), positions=[-1])


# -- what is noticed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", range(9))
@pytest.mark.parametrize("layer", range(3))
def test_what_acts_at_one_column_is_noticed_or_means_nothing(layer, column):
    lm = tiny("llama")
    act_at_column(lm.anatomy.place("mlp_input", layer).module, column)
    metric = logit_diff(lm, " Paris", " Rome")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sweep = patch_sweep(lm, BASES[0], SOURCES[0], metric, positions=[1, 4, -1])
    acts = record(lm, SOURCES[0], "block_output")
    for i in range(3):
        for j, position in enumerate([1, 4, -1]):
            with intervene(lm, replace(Site("block_output", i, position), acts)):
                expected = metric(lm.next_token_logits(BASES[0]))
            torch.testing.assert_close(sweep.values[i, j], expected[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("column", [1, 4, 5, 7, 9])
def test_what_acts_at_one_column_is_noticed_in_pairs_of_several_lengths(column):
    lm = tiny("llama")
    act_at_column(lm.anatomy.place("mlp_input", 1).module, column)
    metric, acts = logit_diff(lm, " Paris", " Rome"), record(lm, SOURCES, "block_output")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sweep = patch_sweep(lm, BASES, SOURCES, metric, positions={"first": 0, "second": 1})
    for layer in range(3):
        for j in range(2):
            with intervene(lm, replace(Site("block_output", layer, j), acts)):
                expected = metric(lm.next_token_logits(BASES))
            torch.testing.assert_close(sweep.values[:, layer, j], expected, atol=1e-4, rtol=1e-4)


def test_nothing_that_was_found_out_outlives_its_sweep():
    lm = tiny("llama")
    metric = logit_diff(lm, " Paris", " Rome")
    patch_sweep(lm, BASES[0], SOURCES[0], metric)
    whole = lm.anatomy.blocks[1].mlp.forward
    lm.anatomy.blocks[1].mlp.forward = lambda stream: whole(stream) * torch.arange(1, 1 + stream.shape[1])[:, None]
    with pytest.warns(UserWarning, match="isn't what a whole run is"):
        patch_sweep(lm, BASES[0], SOURCES[0], metric)
    lm.anatomy.blocks[1].mlp.forward = whole
    assert resumes(lm)


def test_a_model_that_ends_otherwise_is_noticed_though_no_patch_changes_anything(lm):
    forward = lm.model.forward

    @functools.wraps(forward)
    def doubled(*args, **kwargs):
        out = forward(*args, **kwargs)
        out.logits = 2 * out.logits
        return out

    metric = logit_diff(lm, " Paris", " Rome")
    before = metric(lm.next_token_logits(BASES[0]))
    lm.model.forward = doubled
    try:
        with pytest.warns(UserWarning, match="isn't what a whole run is"):
            sweep = patch_sweep(lm, BASES[0], BASES[0], metric, positions=[1, -1])
    finally:
        del lm.model.forward
    torch.testing.assert_close(sweep.values, (2 * before).expand(3, 2))


def test_a_run_may_join_at_a_late_block_and_token(lm):
    cells = [Cell(range(2, 3), ((-1,), (2,), (2,))), Cell(range(1, 2), ((-2,), (3,), (-1,)))]
    for component in ("block_input", "block_output", "mlp_output", "attention_output"):
        assert compare(lm, BASES, SOURCES, component, cells) < TOLERANCE
