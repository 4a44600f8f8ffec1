"""Shares of the average way, the strongest heads, and whether they hold up; patches at names."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny

from interp_helpers import Site, intervene, logit_diff, pairs, record, replace
from interp_helpers.sweeps import Head, Sweep, average_share, confirm_heads, patch_names, strongest_heads


def sweep_of(values: torch.Tensor, base: torch.Tensor, source: torch.Tensor, layers=(4, 5), heads=(0, 1)) -> Sweep:
    """A sweep (pair, layer, head) with these values."""
    labels = {"pair": list(range(len(values))), "layer": list(layers), "head": list(heads)}
    return Sweep(values, tuple(labels), labels, base, source, metric="m", component="c")


def test_the_average_share_is_a_ratio_of_means():
    base, source = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([3.0, 4.0, 0.1])
    values = base[:, None, None] + torch.tensor([0.5, 1.0, 0.2])[:, None, None].expand(3, 2, 2)
    share = average_share(sweep_of(values, base, source))
    assert share.axes == ("layer", "head") and share.values.shape == (2, 2)
    torch.testing.assert_close(share.values, torch.full((2, 2), (1.7 / 3) / (6.1 / 3)))
    assert (share.base, share.source) == (0, 1)


def test_it_has_no_error_where_every_pair_moves_the_same_share_of_its_own_way():
    base, source = torch.zeros(4), torch.tensor([1.0, 2.0, 3.0, 10.0])
    share = average_share(sweep_of(0.25 * source[:, None, None].expand(4, 2, 2), base, source))
    torch.testing.assert_close(share.values, torch.full((2, 2), 0.25))
    torch.testing.assert_close(share.error, torch.zeros(2, 2))


def test_some_of_the_pairs():
    base, source = torch.zeros(4), torch.ones(4)
    values = torch.arange(4.0)[:, None, None].expand(4, 2, 2)
    assert average_share(sweep_of(values, base, source), rows=[1, 3]).values[0, 0] == 2
    assert average_share(sweep_of(values, base, source), rows=[3]).error is None


def test_what_has_no_average_share_is_refused():
    base = torch.zeros(2)
    with pytest.raises(ValueError, match="the same in the base and the source runs"):
        average_share(sweep_of(torch.ones(2, 2, 2), base, torch.tensor([1.0, -1.0])))
    one = average_share(sweep_of(torch.ones(2, 2, 2), base, base + 1))
    with pytest.raises(ValueError, match="of one pair"):
        average_share(one)


def test_the_strongest_heads_go_by_size_and_keep_their_sign():
    base, source = torch.zeros(1), torch.ones(1)
    table = average_share(sweep_of(torch.tensor([[[0.1, -0.9], [0.3, 0.05]]]), base, source))
    found = strongest_heads(table)
    assert list(map(str, found)) == ["4.1", "5.0", "4.0", "5.1"]
    assert found[Head(4, 1)] == pytest.approx(-0.9) and found[4, 1] == found[Head(4, 1)]
    assert list(map(str, strongest_heads(table, 3, over=0.2))) == ["4.1", "5.0"]


def test_heads_are_chosen_on_one_half_and_measured_on_the_other():
    values = torch.zeros(4, 2, 2)
    values[:, 0, 0] = 0.5  # in both halves
    values[:2, 0, 1] = 0.6  # lucky in the first half
    values[2:, 0, 1] = 0.02
    values[:2, 1, 0], values[2:, 1, 0] = -0.4, 0.3  # turns round
    values[2:, 1, 1] = 0.9  # in the second half alone: not chosen
    test = confirm_heads(sweep_of(values, torch.zeros(4), torch.ones(4)), ([0, 1], [2, 3]), k=3)
    assert list(test.values) == ["4.1", "4.0", "5.0", "the other 1, mean size"]
    assert [round(value, 2) for value in test.values.values()] == [0.02, 0.5, 0.3, 0.9]
    assert test.held == [Head(4, 0)] and test.rest == pytest.approx(0.9)
    assert set(test.errors) == {"4.1", "4.0", "5.0"}


def test_a_patch_at_a_name_is_that_patch():
    lm, bank = tiny("gpt2"), [pair for pair in pairs("landmark_city")][:6]
    found = patch_names(lm, bank, "last token", "whole name", "token after", layer=1)
    shares = []
    for pair in bank:
        span, metric = lm.find(pair.base, pair.base_subject), logit_diff(lm, pair.source_answer, pair.base_answer)
        start, end = metric(lm.next_token_logits([pair.base, pair.source])).tolist()
        site = Site("block_output", 1, positions=span[-1:])
        with intervene(lm, replace(site, record(lm, pair.source, site))):
            shares.append((metric(lm.next_token_logits(pair.base)).item() - start) / (end - start))
    mean, low, high = found["last token"]["right source"]
    assert mean == pytest.approx(sum(shares) / len(shares), abs=1e-3)
    assert low < mean < high and list(found["whole name"]) == ["right source"]


def test_the_control_is_a_third_name_that_is_as_long():
    lm, bank = tiny("gpt2"), [pair for pair in pairs("landmark_city")][:12]
    found = patch_names(lm, bank, "whole name", layer=1, control="another")
    assert list(found["whole name"]) == ["right source", "another"]
    assert found["whole name"]["another"] != found["whole name"]["right source"]
    alone = patch_names(lm, bank[:1], "whole name", layer=1, control="another")
    assert list(alone["whole name"]) == ["right source"], "a bank of one pair has no third name"


def test_a_place_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="'the middle' was given"):
        patch_names(tiny("gpt2"), pairs("landmark_city")[:2], "the middle", layer=1)
