"""The attention pattern is edited: edges are cut, patterns replaced."""

from __future__ import annotations

import pytest
import torch
from plain import close
from tiny import tiny

from interp_helpers import Site, apply, intervene, knock_out, record, replace, zero

PROMPT, OTHER, SHORT = "The Eiffel Tower is in the city of", "The Colosseum stands in the town of", "One two three"
FAMILIES = ("gpt2", "llama", "gpt_neox", "gemma2", "olmo2")


@pytest.fixture(scope="module", params=FAMILIES)
def lm(request):
    return tiny(request.param)


def masked(lm, edges) -> torch.Tensor:
    """The logits of a run with a mask of one's own: the truth, where all heads of all blocks lose the same edges."""
    tokens = lm.tokens(PROMPT)
    n = tokens.shape[1]
    mask = torch.zeros(n, n).masked_fill(torch.ones(n, n).triu(1).bool(), -1e9)
    for query, key in edges:
        mask[query, key] = -1e9
    with torch.no_grad():
        return lm.model(tokens, attention_mask=mask[None, None], use_cache=False).logits


def test_edges_cut_in_every_block_are_a_mask(lm):
    edges = [(query, key) for query in (5, 8) for key in (1, 3)]
    cuts = [knock_out(Site("attention_weight", i, [5, 8]), keys=[1, 3]) for i in range(lm.n_layers)]
    with intervene(lm, *cuts):
        cut = lm(PROMPT)
    close(cut, masked(lm, edges), atol=2e-4)
    assert (cut - lm(PROMPT)).abs().max() > 1e-3
    close(cut[:, :5], lm(PROMPT)[:, :5], atol=2e-4)


def test_a_head_loses_its_edges_alone_and_its_rows_sum_to_one(lm):
    site = Site("attention_weight", 1, positions=-1, heads=2)
    plain = record(lm, PROMPT, "attention_weight")["attention_weight", 1]
    with intervene(lm, knock_out(site, keys=range(2, 4))):
        cut = record(lm, PROMPT, "attention_weight")["attention_weight", 1]
    close(cut[:, [0, 1, 3]], plain[:, [0, 1, 3]])
    close(cut[:, 2, :-1], plain[:, 2, :-1])
    row = plain[0, 2, -1].clone()
    row[2:4] = 0
    close(cut[0, 2, -1], row / row.sum())


def test_padded_prompts_lose_their_own_tokens(lm):
    site = Site("attention_weight", 1, positions=-1)
    with intervene(lm, knock_out(site, keys=-2)):
        together = lm.next_token_logits([PROMPT, SHORT])
    for row, prompt in zip(together, (PROMPT, SHORT), strict=True):
        with intervene(lm, knock_out(site, keys=-2)):
            close(row, lm.next_token_logits(prompt)[0], atol=2e-4)
        assert (row - lm.next_token_logits(prompt)[0]).abs().max() > 1e-4


def test_a_pattern_takes_another_s_place(lm):
    site, acts = Site("attention_weight", 1), record(lm, OTHER, "attention_weight", "block_output")
    n = len(lm.str_tokens(OTHER))
    prompt = PROMPT if len(lm.str_tokens(PROMPT)) == n else OTHER[::-1]
    if len(lm.str_tokens(prompt)) == n:
        with intervene(lm, replace(site, acts)):
            now = record(lm, prompt, "attention_weight")["attention_weight", 1]
        close(now, acts["attention_weight", 1])
    with intervene(lm, replace(site, acts)):  # its own changes nothing
        close(lm(OTHER), acts.logits, atol=2e-4)


def test_positions_and_heads_of_a_pattern_are_queries_and_heads(lm):
    acts = record(lm, PROMPT, "attention_weight")
    whole = acts["attention_weight", 2]
    close(
        acts[Site("attention_weight", 2, positions=[3, 5], heads=[0, 2])],
        whole[:, [0, 2]][:, :, [3, 5]].transpose(1, 2),
    )
    close(acts[Site("attention_weight", 2, heads=1)], whole[:, [1]])
    with intervene(lm, apply(Site("attention_weight", 2, -1, heads=0), lambda p: p.flip(-1))):
        close(record(lm, PROMPT, "attention_weight")["attention_weight", 2][0, 0, -1], whole[0, 0, -1].flip(-1))


def test_without_its_pattern_a_head_gives_nothing(lm):
    with intervene(lm, zero(Site("attention_weight", 1, heads=3))):
        acts = record(lm, PROMPT, Site("attention_value_output", 1))
    assert not acts["attention_value_output", 1][:, :, 3].any() and acts["attention_value_output", 1][:, :, 2].any()


def test_while_the_model_writes_the_cut_tokens_stay_unseen():
    lm = tiny("llama")
    with intervene(lm, *(knock_out(Site("attention_weight", i), keys=1) for i in range(3))):
        seen = []
        with intervene(lm, *(apply(Site("attention_weight", i), lambda p: seen.append(p) or p) for i in range(3))):
            lm.generate(PROMPT, 3)
    assert len(seen) == 9 and all(not p[..., 1][1 if len(p) > 1 else 0 :].any() for p in seen[3:])
    assert lm.model.config._attn_implementation == "sdpa"


def test_what_is_no_edge_is_refused():
    lm = tiny("llama")
    with pytest.raises(ValueError, match="knock_out cuts edges of attention_weight"):
        knock_out(Site("mlp_output", 1), keys=1)
    with pytest.raises(ValueError, match="Position 30 is outside row 0"):
        with intervene(lm, knock_out(Site("attention_weight", 1), keys=30)):
            lm(PROMPT)
    with pytest.raises(ValueError, match="has 4 heads, 0 to 3, and head 4"):
        with intervene(lm, knock_out(Site("attention_weight", 1, heads=4), keys=1)):
            lm(PROMPT)
