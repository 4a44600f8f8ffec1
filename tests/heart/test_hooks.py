"""Look and edit: `record`, `Activations`, `intervene`, generation, gradients, and the model left as it was."""

from __future__ import annotations

import copy
import gc
import pickle

import pytest
import torch
import transformers
from plain import EDITABLE, GPT2_PLACES, assert_untouched, close, greedy, hooked, run, seen, snapshot
from tiny import tiny, tiny_model

from interp_helpers import Site, SteeringVector, add, apply, intervene, record, replace, zero
from interp_helpers.edits import noise
from interp_helpers.models.anatomy import COMPONENTS, PER_HEAD

PROMPT = "The Eiffel Tower is in the city of"
OTHER = "The Colosseum stands in the town of"
SHORT = "One two three"
VECTOR = torch.randn(32, generator=torch.Generator().manual_seed(1))


def stream(layer=1, positions=None):
    return Site("block_output", layer, positions=positions)


# -- record -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", EDITABLE)
@pytest.mark.parametrize("layer", [0, 2])
def test_record_sees_what_a_plain_hook_sees(lm, component, layer):
    acts = record(lm, PROMPT, component)
    theirs = seen(lm, PROMPT, component, layer)
    ours = acts[component, layer]
    assert ours.shape[:2] == theirs.shape[:2]
    assert torch.equal(ours.flatten(2), theirs)
    assert torch.equal(acts.logits, run(lm, PROMPT))


def test_record_takes_components_for_all_layers_and_sites_for_one(lm):
    acts = record(lm, PROMPT, "mlp_output", Site("block_output", 1), Site("block_output", 1, positions=-1))
    assert acts.stack("mlp_output").shape == (3, 1, 10, 32)
    assert acts.stack("block_output").shape == (1, 1, 10, 32)
    assert torch.equal(acts.stack("mlp_output")[2], acts["mlp_output", 2])


@pytest.mark.parametrize("layer", [1, 2])
def test_a_record_of_a_site_with_positions_keeps_it(lm, layer):
    site = stream(layer, positions=-1)
    acts = record(lm, PROMPT, site, Site("query_output", 1, heads=0))
    assert torch.equal(acts[site], record(lm, PROMPT, "block_output")[site])
    assert "block_output at layers" in repr(acts) and acts[Site("query_output", 1, heads=0)].shape == (1, 10, 1, 8)


@pytest.mark.parametrize(
    "rows, says", [(1, "row 1 was asked for"), ([5], "has 1 rows, 0 to 0, and row 5 was asked for")]
)
def test_a_row_that_was_not_recorded_is_refused(lm, rows, says):
    acts = record(lm, PROMPT, "block_output")
    assert torch.equal(acts.rows(0)["block_output", 1], acts["block_output", 1])
    with pytest.raises(ValueError, match=says):
        acts.rows(rows)


def test_a_record_s_head_that_the_model_lacks_is_refused(lm):
    with pytest.raises(ValueError, match="has 4 heads, 0 to 3, and head 4 was asked for"):
        record(lm, PROMPT, Site("query_output", 1, heads=4))


def test_a_record_under_an_edit_that_makes_nan_has_logits_of_nan(lm):
    with intervene(lm, apply(stream(1), lambda h: h * float("nan"))):
        assert record(lm, PROMPT, "block_output").logits.isnan().all()


def test_record_changes_nothing(lm):
    before = lm(PROMPT)
    assert torch.equal(record(lm, PROMPT, *(c for c in COMPONENTS if c != "attention_weight")).logits, before)


def test_recorded_activations_are_copies_cut_from_the_graph(lm):
    acts = record(lm, PROMPT, *COMPONENTS)
    for component in COMPONENTS:
        assert not acts[component, 0].requires_grad
        acts[component, 0].zero_()
    close(lm(PROMPT), acts.logits)
    again = record(lm, PROMPT, "block_output", "block_input", "query_output", "key_output")
    again["block_output", 0].zero_()
    again["query_output", 0].zero_()
    assert again["block_input", 1].any() and again["key_output", 0].any()


def test_the_prompts_of_a_batch_are_seen_as_each_alone(lm):
    acts = record(lm, [PROMPT, SHORT], *COMPONENTS)
    alone = record(lm, SHORT, *COMPONENTS)
    assert acts.layout.lengths == (10, 3)
    for component in COMPONENTS:
        ours, n = acts[component, 2][1], 3
        close(ours[:, :n, :n] if component == "attention_weight" else ours[:n], alone[component, 2][0])


def test_sites_read_positions_and_heads_of_a_record(lm):
    acts = record(lm, [PROMPT, SHORT], "block_output", "query_output")
    whole, queries = acts["block_output", 1], acts["query_output", 1]
    assert torch.equal(acts[stream()], whole)
    assert torch.equal(acts[stream(positions=-1)], torch.stack([whole[0, 9:], whole[1, 2:3]]))
    assert torch.equal(acts[stream(positions=[2, 0])], whole[:, [2, 0]])
    assert torch.equal(acts[stream(positions=[[4], [1]])], torch.stack([whole[0, 4:5], whole[1, 1:2]]))
    assert torch.equal(acts[Site("query_output", 1, heads=[3, 0])], queries[:, :, [3, 0]])
    assert torch.equal(acts[Site("query_output", 1, heads=2)], queries[:, :, [2]])
    assert torch.equal(acts[Site("query_output", 1, positions=0, heads=2)], queries[:, :1, [2]])
    assert torch.equal(acts["query_output", 1, [0, 1], [3]], queries[:, :2, [3]])


def test_rows_of_a_record_can_be_chosen_and_repeated(lm):
    acts = record(lm, [PROMPT, SHORT], "block_output", "attention_weight")
    chosen = acts.rows([1, 1, 0])
    assert chosen.layout.lengths == (3, 3, 10)
    assert torch.equal(chosen["block_output", 2], acts["block_output", 2][[1, 1, 0]])
    assert torch.equal(chosen.logits, acts.logits[[1, 1, 0]])
    assert torch.equal(chosen[stream(positions=-1)][0], acts["block_output", 1][1, 2:3])
    again = chosen.rows([2, 0])
    assert again.layout.lengths == (10, 3)
    assert torch.equal(again.logits, acts.logits[[0, 1]])
    assert torch.equal(again["attention_weight", 1], acts["attention_weight", 1])
    assert torch.equal(again[stream(positions=-1)], acts[stream(positions=-1)])


def test_recording_the_pattern_needs_eager_attention_for_that_call_alone():
    lm = tiny("llama", attn_implementation="sdpa")
    before = snapshot(lm)
    weights = record(lm, PROMPT, "attention_weight").stack("attention_weight")
    assert weights.shape == (3, 1, 4, 10, 10)
    assert_untouched(lm, before)
    assert lm.model.config._attn_implementation == "sdpa"


def test_the_attention_implementation_is_put_back_after_an_error(lm):
    with pytest.raises(ValueError, match="layer 7 was asked for"):
        record(lm, PROMPT, Site("attention_weight", 0), Site("attention_weight", 7))
    lm_eager = tiny("gpt2", attn_implementation="eager")
    record(lm_eager, PROMPT, "attention_weight")
    assert lm_eager.model.config._attn_implementation == "eager"


def test_a_record_describes_itself(lm):
    acts = record(lm, [PROMPT, SHORT], "block_output", Site("mlp_output", 1), stream(0), Site("query_output", 2))
    assert repr(acts) == (
        "Activations of 2 prompt(s) of [10, 3] tokens: block_output at layers 0 to 2; mlp_output at layers [1]; "
        "query_output at layers [2]"
    )


@pytest.mark.parametrize(
    "what, says",
    [
        ((), 'record needs to be told what: a component such as "block_output", or sites'),
        (("resid",), "There is no component 'resid'"),
        ((Site("block_output", 3),), "tiny gpt2 has 3 blocks, layers 0 to 2, and layer 3 was asked for"),
        ((Site("key_output", 0, heads=4),), "'key_output' of tiny gpt2 has 4 heads, 0 to 3, and head 4"),
    ],
)
def test_record_refuses_what_is_not_there(lm, what, says):
    with pytest.raises(ValueError, match=says):
        record(lm, PROMPT, *what)


@pytest.mark.parametrize(
    "read, says",
    [
        (
            lambda acts: acts["mlp_output", 1],
            "^'mlp_output' of layer 1 was not recorded. Here is Activations of 2 prompt",
        ),
        (lambda acts: acts["block_output", 1], "^'block_output' of layer 1 was not recorded"),
        (lambda acts: acts[Site("attention_weight", 0)], "^'attention_weight' of layer 0 was not recorded"),
        (lambda acts: acts["block_output"], r"^Of which layer\? acts\['block_output', 8\] is one, acts.stack"),
        (lambda acts: acts.stack("mlp_output"), "^'mlp_output' was not recorded. Here is Activations"),
    ],
)
def test_reading_what_was_not_recorded_says_what_was(lm, read, says):
    with pytest.raises(KeyError, match=says):
        read(record(lm, [PROMPT, SHORT], stream(0)))


def test_rows_with_different_numbers_of_tokens_fill_no_tensor(lm):
    acts = record(lm, [PROMPT, SHORT], "block_output")
    with pytest.raises(
        ValueError, match=r"names a different number of tokens in each row \(\(9, 2\)\).*acts.rows\(\[0\]\)"
    ):
        acts[stream(positions=slice(1, None))]
    assert acts.rows([1])[stream(positions=slice(1, None))].shape == (1, 2, 32)


# -- intervene: order, nesting, composition ---------------------------------------------------------------------------


def double(site):
    return apply(site, lambda h: 2 * h)


def test_edits_of_one_site_apply_in_the_order_given(lm):
    site = stream(1, positions=-1)

    def expected(change):
        return run(lm, PROMPT, ("block_output", 1, lambda h: h[:, -1].copy_(change(h[:, -1]))))

    with intervene(lm, add(site, VECTOR), double(site)):
        added_first = lm(PROMPT)
    with intervene(lm, double(site), add(site, VECTOR)):
        doubled_first = lm(PROMPT)
    close(added_first, expected(lambda h: 2 * (h + VECTOR)))
    close(doubled_first, expected(lambda h: 2 * h + VECTOR))


def test_an_inner_block_s_edits_come_after_the_outer_s(lm):
    site = stream(1)
    with intervene(lm, add(site, VECTOR), double(site)):
        both = lm(PROMPT)
    with intervene(lm, add(site, VECTOR)):
        only_outer = lm(PROMPT)
        with intervene(lm, double(site)):
            assert torch.equal(lm(PROMPT), both)
        assert torch.equal(lm(PROMPT), only_outer)


def test_edits_of_different_sites_compose(lm):
    with intervene(lm, zero(Site("mlp_output", 2)), add(stream(0), VECTOR), zero(Site("query_output", 1, heads=3))):
        ours = lm(PROMPT)
    theirs = run(
        lm,
        PROMPT,
        ("mlp_output", 2, lambda h: h.zero_()),
        ("block_output", 0, lambda h: h.add_(VECTOR)),
        ("query_output", 1, lambda h: h[..., 24:].zero_()),
    )
    close(ours, theirs)


def test_queries_keys_and_values_of_one_fused_projection_are_edited_together(lm):
    changes = [(component, 1, lambda h: h.mul_(2)) for component in PER_HEAD[1:]]
    with intervene(lm, *(double(Site(component, 1)) for component in PER_HEAD[1:])):
        ours = lm(PROMPT)
    close(ours, run(lm, PROMPT, *changes))


def test_a_record_inside_sees_the_edits(lm):
    acts = record(lm, PROMPT, "block_output", "block_input", "query_output")
    with intervene(lm, add(stream(0), VECTOR), zero(Site("query_output", 1, heads=0))):
        edited = record(lm, PROMPT, "block_output", "block_input", "query_output")
    close(edited["block_output", 0], acts["block_output", 0] + VECTOR)
    close(edited["block_input", 1], acts["block_output", 0] + VECTOR)
    assert not edited["query_output", 1][:, :, 0].any() and edited["query_output", 1][:, :, 1].any()
    assert torch.equal(edited["query_output", 0], acts["query_output", 0])


def test_an_edit_applies_to_every_run_in_the_block(lm):
    expected = [run(lm, prompt, ("block_output", 1, lambda h: h[:, -1].add_(VECTOR))) for prompt in (PROMPT, SHORT)]
    with intervene(lm, add(stream(1, positions=-1), VECTOR)):
        for prompt, logits in zip((PROMPT, SHORT, PROMPT), (*expected, expected[0]), strict=True):
            close(lm(prompt), logits)


def test_edits_can_be_used_again(lm):
    edit = noise(stream(1), std=1.0)
    with intervene(lm, edit):
        first = lm(PROMPT)
    with intervene(lm, edit):
        assert torch.equal(lm(PROMPT), first)


def test_next_token_logits_and_the_model_s_own_call_are_edited_too(lm):
    with intervene(lm, add(stream(1), VECTOR)):
        logits = lm(PROMPT)
        close(lm.next_token_logits(PROMPT), logits[:, -1])
        with torch.no_grad():
            close(lm.model(input_ids=lm.tokens(PROMPT)).logits, logits)


def test_padding_is_not_edited(lm):
    shapes = []
    with intervene(lm, apply(stream(1), lambda h: (shapes.append(tuple(h.shape)), h)[1])):
        lm([PROMPT, SHORT])
    assert shapes == [(13, 32)]


@pytest.mark.parametrize("positions", [-1, 1, [0, 2], slice(1, None), [[4, -1], [0]], None])
def test_rows_of_unequal_length_are_edited_as_each_alone(lm, positions):
    def alone(row, prompt):
        n = len(lm.str_tokens(prompt))
        where = positions[row] if isinstance(positions, list) and isinstance(positions[0], list) else positions
        columns = torch.arange(n)[slice(None) if where is None else [where] if isinstance(where, int) else where]

        def change(h):
            h[:, columns] += VECTOR

        return run(lm, prompt, ("block_output", 1, change))

    with intervene(lm, add(stream(1, positions), VECTOR)):
        logits = lm([PROMPT, SHORT])
    close(logits[0], alone(0, PROMPT)[0])
    close(logits[1, :3], alone(1, SHORT)[0])


# -- generation -------------------------------------------------------------------------------------------------------

FORCE = 20  # of edits under generation: enough that the text differs


def pushed(columns):
    def change(h):
        h[:, columns] += FORCE * VECTOR

    return change


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize(
    "positions, columns",
    [(None, slice(None)), (0, [0]), (-1, None), ([1, 2], [1, 2]), (slice(0, 2), [0, 1]), ([[2], [1]], None)],
    ids=str,
)
def test_positions_under_generation_name_the_prompt_and_none_means_new_tokens_too(lm, positions, columns, use_cache):
    prompts = [PROMPT, SHORT]
    expected = []
    for row, prompt in enumerate(prompts):
        here = columns
        if positions == -1:
            here = [len(lm.str_tokens(prompt)) - 1]  # the prompt's last token, also when new ones follow
        elif columns is None:
            here = positions[row]
        expected.append(greedy(lm, prompt, 8, ("block_output", 0, pushed(here))))
    with intervene(lm, add(stream(0, positions), VECTOR, scale=FORCE)):
        assert lm.generate(prompts, 8, use_cache=use_cache) == expected
    for text, prompt in zip(expected, prompts, strict=True):
        assert text != lm.generate(prompt, 8)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gemma2"])
@pytest.mark.parametrize("component", ["block_input", "mlp_activation", "attention_value_output", "value_output"])
@pytest.mark.parametrize("positions", [None, -1])
def test_cached_and_uncached_decoding_agree_under_edits(family, component, positions):
    lm = tiny(family)
    heads = dict(heads=[1]) if component in PER_HEAD else {}
    with intervene(lm, apply(Site(component, 0, positions=positions, **heads), lambda h: 9 * h + 9)):
        batched = lm.generate([PROMPT, SHORT], 8)
        assert batched == lm.generate([PROMPT, SHORT], 8, use_cache=False)
        assert batched == [lm.generate(PROMPT, 8), lm.generate(SHORT, 8)]
    assert batched != lm.generate([PROMPT, SHORT], 8)


def test_another_run_s_activations_are_swapped_in_while_the_prompt_is_read(lm):
    acts = record(lm, [OTHER, "Nine ten eleven"], "block_output")
    with intervene(lm, replace(stream(1, positions=-1), acts)):
        texts = lm.generate([PROMPT, SHORT], 6)
    for row, prompt in enumerate([PROMPT, SHORT]):
        n = len(lm.str_tokens(prompt))
        source = acts["block_output", 1][row, n - 1]

        def swap(h, n=n, source=source):
            h[:, n - 1] = source

        assert texts[row] == greedy(lm, prompt, 6, ("block_output", 1, swap))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("beams", [1, 2, 3])
@pytest.mark.parametrize(
    "edits",
    [
        lambda lm, rows: [replace(stream(1, -1), record(lm, [OTHER, "Nine ten eleven"], stream(1)).rows(rows))],
        lambda lm, rows: [add(stream(0, tuple([(1, 2), (1,)][i] for i in rows)), VECTOR, scale=9)],
        lambda lm, rows: [add(Site("value_output", 1, tuple([(1, 2), (2, 1)][i] for i in rows), heads=[0, 1]), VECTOR[:8].expand(2, 8), 9)],
        lambda lm, rows: [noise(stream(0), 3.0), apply(stream(1), torch.relu)],
    ],
)  # fmt: skip
def test_each_beam_gets_its_prompt_s_edit(family, beams, edits):
    lm = tiny(family)
    prompts, options = [PROMPT, SHORT], dict(num_beams=beams, min_new_tokens=6)
    with intervene(lm, *edits(lm, [0, 1])):
        batched = lm.generate(prompts, 6, **options)
    alone = []
    for i in (0, 1):
        with intervene(lm, *edits(lm, [i])):
            alone.append(lm.generate(prompts[i], 6, **options))
    assert batched == alone
    assert batched != lm.generate(prompts, 6, **options) and lm.running.prompt_rows is None


@pytest.mark.parametrize("where", ["everywhere", "prompt", "new"])
def test_the_model_s_own_generate_and_one_s_own_loop_tell_new_tokens_from_the_prompt(lm, where):
    edit = SteeringVector(VECTOR, 1, model=lm.name).edit(lm, FORCE, where=where)
    ids = lm.tokens(PROMPT)
    with intervene(lm, edit), torch.no_grad():
        expected = lm.generate(PROMPT, 8, min_new_tokens=8)
        whole = lm.model.generate(
            ids, attention_mask=ids.attention_mask, max_new_tokens=8, min_new_tokens=8, do_sample=False, pad_token_id=0
        )
        text, cache = ids, None
        for _ in range(8):
            out = lm.model(text[:, -1:] if cache else text, past_key_values=cache, use_cache=True)
            cache, logits = out.past_key_values, out.logits[:, -1].clone()
            logits[:, 50256] = -torch.inf  # at least so many new tokens
            text = torch.cat([text, logits.argmax(-1, keepdim=True)], 1)
    n = ids.shape[1]
    assert lm.tokenizer.decode(whole[0, n:]) == lm.tokenizer.decode(text[0, n:]) == expected
    assert expected != lm.generate(PROMPT, 8, min_new_tokens=8)


def test_a_place_outside_a_left_padded_prompt_is_refused_and_generation_leaves_no_trace(lm):
    with pytest.raises(ValueError, match="Position 5 is outside row 1, which has 3 tokens"):
        with intervene(lm, add(stream(1, positions=5), VECTOR)):
            lm.generate([PROMPT, SHORT], 4)
    assert lm.running.prompt_width is None


def test_a_run_after_generation_takes_the_whole_text_as_its_prompt(lm):
    with intervene(lm, add(stream(1, positions=-1), VECTOR)):
        before = lm(PROMPT)
        lm.generate(SHORT, 3)
        assert torch.equal(lm(PROMPT), before)


def test_generation_under_a_last_token_edit_starts_from_the_edited_run(lm):
    with intervene(lm, add(stream(1, positions=-1), VECTOR, scale=FORCE)):
        first = lm.next_token_logits(PROMPT).argmax(-1)
        assert lm.generate(PROMPT, 1) == lm.tokenizer.decode(first)


# -- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", EDITABLE)
@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_reach_recorded_activations(component, frozen):
    lm = tiny("gpt2")
    if frozen:
        lm.model.requires_grad_(False)
    acts = record(lm, PROMPT, component, grad=True)
    close(acts.logits.detach(), run(lm, PROMPT))
    (gradient,) = torch.autograd.grad(acts.logits[0, -1, 7], acts[component, 1])
    direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(2))
    assert gradient.shape == acts[component, 1].shape

    def moved(step):
        return run(lm, PROMPT, (component, 1, lambda h: h.add_(step * direction.flatten(2))))[0, -1, 7].double()

    slope = (moved(1e-2) - moved(-1e-2)) / 2e-2
    torch.testing.assert_close((gradient * direction).sum().double(), slope, rtol=2e-2, atol=1e-3)


def test_gradients_reach_all_recorded_components_at_once(lm):
    acts = record(lm, PROMPT, *EDITABLE, grad=True)
    alone = {c: record(lm, PROMPT, c, grad=True) for c in EDITABLE}
    for component in EDITABLE:
        for layer in range(3):
            (together,) = torch.autograd.grad(acts.logits[0, -1, 7], acts[component, layer], retain_graph=True)
            one = alone[component]
            close(together, *torch.autograd.grad(one.logits[0, -1, 7], one[component, layer], retain_graph=True))


def test_gradients_reach_the_attention_pattern(lm):
    acts = record(lm, PROMPT, "attention_weight", grad=True)
    (gradient,) = torch.autograd.grad(acts.logits[0, -1, 7], acts["attention_weight", 1])
    assert gradient.any()


def test_gradients_flow_through_edits_and_records_at_once(lm):
    vector = VECTOR.clone().requires_grad_()
    with intervene(lm, add(stream(0, positions=-1), vector)):
        acts = record(lm, PROMPT, "block_output", grad=True)
    upstream, kept = torch.autograd.grad(acts.logits[0, -1, 7], [vector, acts["block_output", 0]])
    close(upstream, kept[0, -1])


def test_without_grad_nothing_is_kept_for_gradients(lm):
    assert not lm(PROMPT).requires_grad
    assert not record(lm, PROMPT, "block_output").logits.requires_grad
    assert lm(PROMPT, grad=True).requires_grad and lm.next_token_logits(PROMPT, grad=True).requires_grad


# -- the model is left as it was --------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def interrupt(h):
    raise KeyboardInterrupt


def stop(h):
    raise Stop


def leave_by_return(lm, *edits):
    def inner():
        with intervene(lm, *edits):
            return lm(PROMPT)

    inner()


def leave_by_exception(lm, *edits):
    with pytest.raises(Stop), intervene(lm, *edits):
        lm(PROMPT)
        raise Stop


def leave_before_running(lm, *edits):
    with pytest.raises(Stop), intervene(lm, *edits):
        raise Stop


def leave_by_interrupt_inside_the_model(lm, *edits):
    with pytest.raises(KeyboardInterrupt), intervene(lm, *edits, apply(stream(1), interrupt)):
        lm(PROMPT)


def leave_by_interrupt_inside_generate(lm, *edits):
    calls = []

    def interrupt_the_third(h):
        calls.append(h)
        return h if len(calls) < 3 else interrupt(h)

    with pytest.raises(KeyboardInterrupt), intervene(lm, *edits, apply(stream(1), interrupt_the_third)):
        lm.generate(PROMPT, 5)


def leave_by_interrupt_inside_record(lm, *edits):
    with pytest.raises(KeyboardInterrupt), intervene(lm, *edits, apply(stream(1), interrupt)):
        record(lm, PROMPT, "attention_weight", "block_output")


def leave_a_generator_open(lm, *edits):
    def steps():
        with intervene(lm, *edits):
            yield lm(PROMPT)

    running = steps()
    next(running)
    assert len(lm.model._forward_pre_hooks) == 1
    del running
    gc.collect()


def leave_nested(lm, *edits):
    with pytest.raises(Stop), intervene(lm, *edits), intervene(lm, *edits):
        lm.generate(PROMPT, 2)
        raise Stop


def leave_without_running(lm, *edits):
    with pytest.raises(RuntimeError), intervene(lm, *edits):
        pass


WAYS_OUT = [way for name, way in list(globals().items()) if name.startswith("leave_")]


@pytest.mark.parametrize("way_out", WAYS_OUT, ids=lambda way: way.__name__)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_model_is_bit_for_bit_what_it_was_after(way_out, family):
    lm = tiny(family)
    before, logits = snapshot(lm), lm(PROMPT)
    edits = [add(stream(1), VECTOR), zero(Site("query_output", 0, heads=1)), zero(Site("mlp_output", 2, positions=-1))]
    way_out(lm, *edits)
    assert_untouched(lm, before)
    assert torch.equal(lm(PROMPT), logits)


def test_hooks_of_your_own_stay_and_see_the_edits_made_before_theirs(lm):
    calls = []
    block = lm.model.transformer.h[1]
    handles = [
        block.register_forward_hook(lambda *_: calls.append("mine")),
        lm.model.register_forward_pre_hook(lambda *_: calls.append("before")),
    ]
    try:
        with intervene(lm, zero(stream(1))):
            lm(PROMPT)
        record(lm, PROMPT, "block_output")
        assert calls == ["before", "mine"] * 2
        lm(PROMPT)
        assert calls == ["before", "mine"] * 3
    finally:
        for handle in handles:
            handle.remove()


def test_an_edit_writes_to_a_tensor_of_its_own(lm):
    held = []
    handle = lm.model.transformer.h[1].register_forward_hook(lambda module, args, output: held.append(output))
    try:
        before = record(lm, PROMPT, "block_output")["block_output", 1]
        with intervene(lm, zero(stream(1)), zero(Site("block_input", 2))):
            lm(PROMPT)
    finally:
        handle.remove()
    output = held[-1][0] if isinstance(held[-1], tuple) else held[-1]
    assert torch.equal(output, before)


def test_an_edit_of_attention_s_input_leaves_the_mlp_s_which_may_be_the_same_tensor():
    lm = tiny("phi")
    acts = record(lm, PROMPT, "attention_input", "mlp_input")
    assert torch.equal(acts["attention_input", 1], acts["mlp_input", 1])
    with intervene(lm, zero(Site("attention_input", 1))):
        edited = record(lm, PROMPT, "attention_input", "mlp_input")
    assert not edited["attention_input", 1].any() and torch.equal(edited["mlp_input", 1], acts["mlp_input", 1])


def test_a_hook_may_be_removed_while_an_intervention_lasts(lm):
    clean = snapshot(lm)
    handle = lm.model.transformer.h[1].register_forward_hook(lambda *_: None)
    with intervene(lm, zero(stream(1))):
        edited = lm(PROMPT)
        handle.remove()
        assert torch.equal(lm(PROMPT), edited)
    assert_untouched(lm, clean)


# -- what intervene refuses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edits", [(), ("zero",), (stream(),), (zero(stream()), None), ([zero(stream())],)], ids=str)
def test_intervene_takes_edits_and_nothing_else(lm, edits):
    with pytest.raises(ValueError, match=r"intervene takes one or more edits, such as replace\(site, acts\), and got"):
        with intervene(lm, *edits):
            raise AssertionError("the block must not run")


@pytest.mark.parametrize(
    "site, says",
    [
        (Site("block_output", 3), "layers 0 to 2, and layer 3 was asked for"),
        (Site("value_output", 0, heads=[0, 9]), "has 4 heads, 0 to 3, and head 9 was asked for"),
    ],
)
def test_a_site_that_the_model_lacks_is_refused_before_the_block_runs(lm, site, says):
    with pytest.raises(ValueError, match=says):
        with intervene(lm, zero(stream()), zero(site)):
            raise AssertionError("the block must not run")


@pytest.mark.parametrize(
    "site, says",
    [
        (stream(1, positions=10), "Position 10 is outside row 0, which has 10 tokens"),
        (stream(1, positions=[[0]] * 3), "given for 3 rows, one sequence a row, and the batch has 1"),
        (stream(1, positions=slice(20, None)), "names no token of row 0"),
    ],
)
def test_a_place_that_the_prompt_lacks_is_refused_before_the_model_runs(lm, site, says):
    ran = []
    handle = lm.anatomy.blocks[0].register_forward_hook(lambda *_: ran.append(1))
    try:
        with pytest.raises(ValueError, match=says):
            with intervene(lm, zero(stream(0)), zero(site)):
                lm(PROMPT)
    finally:
        handle.remove()
    assert not ran


def test_the_block_goes_on_after_a_refused_run(lm):
    with intervene(lm, add(stream(1, positions=5), VECTOR)):
        with pytest.raises(ValueError, match="Position 5 is outside"):
            lm(SHORT)
        ours = lm(PROMPT)
    close(ours, run(lm, PROMPT, ("block_output", 1, lambda h: h[:, 5].add_(VECTOR))))


def test_a_mask_counts_however_it_is_passed():
    llama = tiny("llama")  # whose forward takes it second
    tokens = llama.tokens([PROMPT, SHORT])
    with torch.no_grad(), intervene(llama, zero(stream(1, positions=-1))):
        named = llama.model(tokens, attention_mask=tokens.attention_mask).logits
        assert torch.equal(llama.model(tokens, tokens.attention_mask).logits, named)
    assert not torch.equal(named[1, 2], llama(SHORT)[0, 2])


def test_edits_that_never_applied_are_reported(lm):
    with pytest.raises(RuntimeError) as error:
        with intervene(lm, zero(stream(1)), add(Site("mlp_output", 0, positions=-1), VECTOR)):
            pass
    assert str(error.value) == (
        "Never applied: [zero(Site('block_output', 1)), "
        "add(Site('mlp_output', 0, positions=-1))]; tiny gpt2 wasn't run. "
        "Run it inside the `with` block: with intervene(lm, …): lm(prompt)."
    )


def test_only_the_edits_that_never_applied_are_named(lm):
    with pytest.raises(RuntimeError, match=r"Never applied: \[zero\(Site\('block_output', 2"):
        with intervene(lm, zero(stream(0)), zero(stream(2))), pytest.raises(Stop):
            with intervene(lm, apply(stream(1), stop)):
                lm(PROMPT)


def test_an_exception_is_not_covered_up_by_never_applied(lm):
    with pytest.raises(Stop), intervene(lm, zero(stream())):
        raise Stop


def test_running_another_model_inside_counts_as_never_applied(lm):
    with pytest.raises(RuntimeError, match="Never applied"), intervene(lm, zero(stream())):
        tiny_model()(torch.tensor([[1, 2]]))


# -- the reference itself ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", EDITABLE)
def test_the_plain_hooks_of_these_tests_reach_every_component(lm, component):
    path, side, _ = GPT2_PLACES[component]
    with hooked(lm, component, 1, lambda h: h.zero_()):
        edited = run(lm, PROMPT)
    assert (edited - run(lm, PROMPT)).abs().max() > 1e-2, (path, side)


# -- one run's places serve that run ----------------------------------------------------------------------------------


def test_a_run_after_another_is_edited_at_its_own_places(lm):
    site, ids = stream(1, -1), torch.tensor([lm.tokenizer(OTHER)["input_ids"]])
    expected = run(lm, OTHER, ("block_output", 1, lambda h: h[:, -1].add_(VECTOR)))
    with intervene(lm, add(site, VECTOR)), torch.no_grad():
        lm(SHORT)
        close(lm.model(ids).logits, expected)
        close(lm.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits, expected)


PARTS = {
    "the inner model": lambda model: model.transformer,
    "its forward": lambda model: model.forward,
    "a block": lambda model: lambda ids: model.transformer.h[1](model.transformer.wte(ids)),
}


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_the_model_is_refused_inside_an_intervention(lm, part, before):
    ids = torch.tensor([lm.tokenizer(OTHER)["input_ids"]])
    clean = snapshot(lm)
    with pytest.raises(RuntimeError, match=r"which tokens these are isn't known: inside `intervene` call lm\(prompt\)"):
        with intervene(lm, add(stream(1, -1), VECTOR)), torch.no_grad():
            if before:
                lm(SHORT)
            PARTS[part](lm.model)(ids)
    assert_untouched(lm, clean)


def test_a_run_that_failed_leaves_no_places_behind(lm):
    ids = torch.tensor([lm.tokenizer(OTHER)["input_ids"]])
    with pytest.raises(RuntimeError, match="which tokens these are isn't known"), torch.no_grad():
        with intervene(lm, add(stream(1, -1), VECTOR), apply(stream(2), stop)):
            with pytest.raises(Stop):
                lm(SHORT)
            lm.model.transformer(ids)


def test_a_run_within_a_run_has_places_of_its_own(lm):
    begun, inner = [], []

    def look(h):
        if not begun:
            begun.append(True)
            inner.append(lm.next_token_logits(SHORT))
        return h

    with intervene(lm, add(stream(1, -1), VECTOR)):
        expected = [lm.next_token_logits(SHORT), lm.next_token_logits(OTHER)]
        with intervene(lm, apply(stream(0, -1), look)):
            outer = lm.next_token_logits(OTHER)
    close(inner[0], expected[0])
    close(outer, expected[1])


def test_the_reason_for_never_applied_is_true(lm):
    ids = lm.tokens(PROMPT)
    with pytest.raises(RuntimeError, match="the cache held the prompt already"):
        past = lm.model(ids, use_cache=True).past_key_values
        with intervene(lm, zero(stream(1, -1))):
            lm.model(ids[:, -1:], past_key_values=past)
    site = Site("attention_output", 1)
    attention = site.place(lm) and lm.anatomy.blocks[1].attn
    attention.forward = lambda hidden_states, *args, **kwargs: (
        hidden_states,
        None,
    )  # its projection has no work any more
    try:
        with pytest.raises(RuntimeError, match="tiny gpt2 was run, and its run doesn't come by there"):
            with intervene(lm, zero(site)):
                lm(PROMPT)
    finally:
        del attention.forward


@pytest.mark.skipif(
    transformers.__version__ < "5", reason="transformers 4 records what a module returns before any hook"
)
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_hidden_states_are_the_edited_ones_whatever_was_asked_before(family, before):
    lm = tiny(family)
    ids = lm.tokens(PROMPT)
    with torch.no_grad():
        if before:
            lm.model(ids, output_hidden_states=True)
        with intervene(lm, add(stream(0), VECTOR), add(stream(1), VECTOR)):
            states = lm.model(ids, output_hidden_states=True).hidden_states
            again = lm.model(ids, output_hidden_states=True).hidden_states
        acts = record(lm, PROMPT, "block_output")
    close(states[1], acts["block_output", 0] + VECTOR)
    close(again[2], states[2])
    assert (states[2] - acts["block_output", 1]).abs().max() > 0.1


# -- rows that are left alone ------------------------------------------------------------------------------------------


def test_a_row_without_positions_is_left_alone(lm):
    site = stream(1, [[2], []])
    acts = record(lm, [OTHER, SHORT], "block_output")
    plain = lm.next_token_logits([PROMPT, PROMPT])
    for edit in (replace(site, acts), add(site, VECTOR), zero(site), noise(site, 1.0)):
        with intervene(lm, edit):
            edited = lm.next_token_logits([PROMPT, PROMPT])
        close(edited[1], plain[1])
        assert (edited[0] - plain[0]).abs().max() > 1e-3
    with intervene(lm, add(stream(1, 2), VECTOR)):
        alone = lm.next_token_logits(PROMPT)
    with intervene(lm, add(site, VECTOR)):
        close(lm.next_token_logits([PROMPT, PROMPT])[:1], alone)
    assert acts[stream(1, [[2], [1]])].shape == (2, 1, 32)


def test_noise_is_the_same_under_another_default_dtype(lm):
    found = []
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            with intervene(lm, noise(stream(0, [1, 2]), 0.5)):
                found.append(lm.next_token_logits(PROMPT))
        finally:
            torch.set_default_dtype(torch.float32)
    assert torch.equal(*found)


@pytest.mark.parametrize("how", ["pickle", "torch", "copy"])
def test_activations_can_be_kept_without_the_logits_that_only_the_model_can_make(lm, tmp_path, how):
    acts = record(lm, ["The cat", "A dog sat"], "block_output").rows([1, 0])
    if how == "pickle":
        kept = pickle.loads(pickle.dumps(acts))
    elif how == "copy":
        kept = copy.deepcopy(acts)
    else:
        torch.save(acts, tmp_path / "acts.pt")
        kept = torch.load(tmp_path / "acts.pt", weights_only=False)
    site = Site("block_output", 1, positions=-1)
    assert torch.equal(kept[site], acts[site]) and torch.equal(kept.next_token_logits, acts.next_token_logits)
    with intervene(lm, replace(site, kept)):
        edited = lm(["A dog sat", "The cat"])
    with intervene(lm, replace(site, acts)):
        assert torch.equal(edited, lm(["A dog sat", "The cat"]))
    with pytest.raises(
        ValueError, match="has the logits of each row's last token alone, .next_token_logits: take the others from lm"
    ):
        _ = kept.rows([0]).logits
