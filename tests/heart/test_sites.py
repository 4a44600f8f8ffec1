"""Where: components, positions in every form, heads; and where each row's tokens lie in a batch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from interp_helpers import Site
from interp_helpers.models.anatomy import COMPONENTS, PER_HEAD
from interp_helpers.models.tokens import Layout, as_ints, as_positions

RIGHT = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
LEFT = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])


def cells(layout: Layout, positions) -> list[list[int]]:
    """The columns that positions name, row by row."""
    spots = layout.spots(as_positions(positions))
    rows = [[] for _ in layout.lengths]
    for row, column in zip(spots.rows.tolist(), spots.columns.tolist(), strict=True):
        rows[row].append(column)
    assert spots.counts == tuple(map(len, rows))
    assert spots.each == (len(rows[0]) if len(set(spots.counts)) == 1 else None)
    return rows


# -- Site -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("same", [(3, 4), range(3, 5), np.array([3, 4]), torch.tensor([3, 4]), (i for i in (3, 4))])
def test_positions_may_come_in_any_sequence(same):
    site = Site("block_output", 8, positions=same)
    assert site == Site("block_output", 8, positions=[3, 4])
    assert hash(site) == hash(Site("block_output", 8, positions=[3, 4]))


@pytest.mark.parametrize("one", [3, np.int64(3), torch.tensor(3)])
def test_numbers_may_come_from_numpy_and_tensors(one):
    site = Site("query_output", one, positions=one, heads=one)
    assert site == Site("query_output", 3, positions=3, heads=3)
    assert (type(site.layer), type(site.positions), type(site.heads)) == (int, int, int)
    assert Site("query_output", 0, heads=[one]) == Site("query_output", 0, heads=[3])


@pytest.mark.parametrize(
    "one", [3, np.int64(3), torch.tensor(3), [np.int64(3)], np.array([3]), torch.tensor([3]), (3,)]
)
def test_one_number_or_several_become_ints(one):
    (number,) = as_ints(one)
    assert number == 3 and type(number) is int


def test_what_is_no_number_is_left_for_a_site_to_refuse(lm):
    assert as_ints([1.5, None, "x"]) == [1.5, None, "x"] and as_ints(None) == [None]


def test_sites_are_hashable_whatever_their_positions():
    forms = [None, -1, [1, 2], slice(1, None), [[1], [2, 3]], slice(1, 2)]
    assert len({Site("mlp_output", 0, positions=form) for form in forms}) == len(forms)


def test_sites_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Site("mlp_output", 0).layer = 1


def test_one_head_and_a_list_of_one_are_the_same_heads():
    assert Site("query_output", 0, heads=2).head_list == Site("query_output", 0, heads=[2]).head_list == [2]
    assert Site("query_output", 0).head_list is None


@pytest.mark.parametrize("component", COMPONENTS)
def test_only_per_head_components_take_heads(component):
    if component in (*PER_HEAD, "attention_weight"):
        assert Site(component, 0, heads=[0, 1]).heads == (0, 1)
    else:
        with pytest.raises(ValueError, match="not split by head, so heads=0 means nothing"):
            Site(component, 0, heads=0)


def test_a_head_is_named_once():
    with pytest.raises(ValueError, match=r"heads=\[1, 1\] names a head twice"):
        Site("query_output", 0, heads=[1, 1])


def test_a_misspelt_component_gets_the_nearest_name():
    with pytest.raises(ValueError, match="no component 'block_ouput': did you mean 'block_output'?"):
        Site("block_ouput", 0)


@pytest.mark.parametrize("name", ["residual", 8, None])
def test_an_unknown_component_gets_the_list(name):
    with pytest.raises(ValueError, match="the components are block_input, block_output, .*, mlp_output"):
        Site(name, 0)


@pytest.mark.parametrize(
    "wrong", ["last", True, 1.5, [1, "2"], [1, [2]], [[1], 2], [[[1]]], [None], [slice(1)], [True], {"a": 1}]
)
def test_positions_of_another_kind_are_refused(wrong):
    with pytest.raises(ValueError, match="was not understood: None, an int, a sequence of ints, a slice"):
        Site("block_output", 0, positions=wrong)


@pytest.mark.parametrize("layer", [3, -1, 1.0, "1", None])
def test_a_layer_that_the_model_lacks_is_refused(lm, layer):
    with pytest.raises(ValueError, match="tiny gpt2 has 3 blocks, layers 0 to 2, and layer .* was asked for"):
        Site("block_output", layer).place(lm)


@pytest.mark.parametrize("heads", [4, -1, [0, 4], "1", [1.0], torch.tensor([[1, 2]])])
def test_a_head_that_the_model_lacks_is_refused(lm, heads):
    with pytest.raises(ValueError, match="'query_output' of tiny gpt2 has 4 heads, 0 to 3, and head .* was asked for"):
        Site("query_output", 0, heads=heads).place(lm)


# -- Layout -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "positions, right, left",
    [
        (None, [[0, 1, 2, 3, 4], [0, 1, 2]], [[0, 1, 2, 3, 4], [2, 3, 4]]),
        (0, [[0], [0]], [[0], [2]]),
        (-1, [[4], [2]], [[4], [4]]),
        (-3, [[2], [0]], [[2], [2]]),
        ([2, 0], [[2, 0], [2, 0]], [[2, 0], [4, 2]]),
        ([0, -1], [[0, 4], [0, 2]], [[0, 4], [2, 4]]),
        (slice(1, None), [[1, 2, 3, 4], [1, 2]], [[1, 2, 3, 4], [3, 4]]),
        (slice(-2, None), [[3, 4], [1, 2]], [[3, 4], [3, 4]]),
        (slice(None, None, 2), [[0, 2, 4], [0, 2]], [[0, 2, 4], [2, 4]]),
        (slice(2, 99), [[2, 3, 4], [2]], [[2, 3, 4], [4]]),
        ([[4], [1]], [[4], [1]], [[4], [3]]),
        ([[0, -1], [1]], [[0, 4], [1]], [[0, 4], [3]]),
        ([[0, -1], []], [[0, 4], []], [[0, 4], []]),
        ([[], [1]], [[], [1]], [[], [3]]),
    ],
)
def test_positions_count_each_row_s_own_tokens(positions, right, left):
    assert cells(Layout(RIGHT), positions) == right
    assert cells(Layout(LEFT), positions) == left


@pytest.mark.parametrize(
    "positions, says",
    [
        (3, r"Position 3 is outside row 1, which has 3 tokens: 0 to 2, or -1 to -3 from the end"),
        (-4, r"Position -4 is outside row 1, which has 3 tokens"),
        ([0, 5], r"Position 5 is outside row 0, which has 5 tokens"),
        ([[4], [3]], r"Position 3 is outside row 1"),
        ([], r"positions=\(\) names no token of row 0, which has 5"),
        ([[], []], r"positions=\(\) names no token of row 0, which has 5"),
        (slice(3, None), r"positions=slice\(3, None, None\) names no token of row 1, which has 3"),
        ([0, 0], r"positions=\(0, 0\) names a token of row 0 \(5 tokens\) twice"),
        ([2, -1], r"positions=\(2, -1\) names a token of row 1 \(3 tokens\) twice"),
        ([[0]], r"given for 1 rows, one sequence a row, and the batch has 2"),
        ([[0], [1], [2]], r"given for 3 rows, one sequence a row, and the batch has 2"),
    ],
)
@pytest.mark.parametrize("mask", [RIGHT, LEFT], ids=["right", "left"])
def test_positions_that_do_not_exist_are_refused(mask, positions, says):
    with pytest.raises(ValueError, match=says):
        Layout(mask).spots(as_positions(positions))


def test_new_tokens_follow_the_prompt_and_are_no_part_of_it():
    mask = torch.cat([LEFT, torch.ones(2, 3, dtype=torch.long)], 1)
    uncached = Layout(mask, past=0, prompt_width=5)
    assert uncached.lengths == (5, 3)
    assert cells(uncached, -1) == [[4], [4]]
    assert cells(uncached, None) == [[0, 1, 2, 3, 4, 5, 6, 7], [2, 3, 4, 5, 6, 7]]
    cached = Layout(mask, past=7, prompt_width=5)
    assert cells(cached, None) == [[0], [0]]


def test_a_call_is_laid_out_from_its_arguments():
    ids = torch.zeros(2, 5, dtype=torch.long)
    for layout in (
        Layout.of_call({"input_ids": ids, "attention_mask": RIGHT}, None),
        Layout.of_call({"input_ids": ids, "attention_mask": RIGHT.bool()}, None),
        Layout.of_call({"inputs_embeds": torch.zeros(2, 5, 32), "attention_mask": RIGHT}, None),
    ):
        assert (layout.starts, layout.lengths, layout.past) == ((0, 0), (5, 3), 0)
    assert Layout.of_call({"input_ids": ids}, None).lengths == (5, 5)


def test_a_call_without_a_mask_knows_how_much_was_read_before(lm):
    with torch.no_grad():
        cache = lm.model(lm.tokens("one two three"), use_cache=True).past_key_values
    layout = Layout.of_call({"input_ids": torch.zeros(1, 2, dtype=torch.long), "past_key_values": cache}, None)
    assert (layout.past, layout.lengths) == (3, (3,))


@pytest.mark.parametrize("past, new", [(0, [False] * 5), (3, [True] * 2), (4, [True])])
def test_in_a_loop_of_one_s_own_what_follows_an_earlier_call_is_new(past, new):
    ids = torch.zeros(1, 5 - past, dtype=torch.long)
    mask = torch.tensor([[0, 1, 1, 1, 1]])
    spots = Layout.of_call({"input_ids": ids, "attention_mask": mask}, None).spots(None)
    assert spots.new.tolist() == new[-len(spots.new) :] and spots.positions.tolist()[-1] == 3


def test_rows_can_be_chosen_and_repeated():
    assert Layout(RIGHT).take([1, 1, 0]).lengths == (3, 3, 5)


def test_flattened_activations_are_seen_as_batches():
    flat = torch.arange(20.0).view(10, 2)
    assert torch.equal(Layout(RIGHT).batched(flat), flat.view(2, 5, 2))
