"""`patch_sweep` equals the plain loop: one site, one pair, one forward with a PyTorch hook at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from plain import assert_untouched, close, snapshot
from tiny import tiny

from interp_helpers import (
    Site,
    add,
    attribution_sweep,
    intervene,
    kl_divergence,
    logit_diff,
    patch_sweep,
    probability,
    rank,
    record,
    wrong_source_control,
    zero,
)
from interp_helpers.engine import cells as engine_cells
from interp_helpers.engine import grid
from interp_helpers.sweeps import patching
from interp_helpers.sweeps.sweep import Sweep, by_place

BASE = "The Colosseum stands in the town of"
SOURCE = "The Eiffel Tower is in the city of"  # as long
BASES = [BASE, "The capital of France is", "One two three"]
SOURCES = [SOURCE, "The capital of Italy is", "Nine six eight"]
EACH_AS_LONG = [10, 5, 3]

# Where each family keeps what is patched here: the blocks, and the modules whose output or input it is.
MODULES = {
    "gpt2": ("transformer.h", {"block_output": "", "mlp_output": "mlp", "attention_value_output": "attn.c_proj"}),
    "llama": ("model.layers", {"block_output": "", "mlp_output": "mlp", "attention_value_output": "self_attn.o_proj"}),
    "gpt_neox": (
        "gpt_neox.layers",
        {"block_output": "", "mlp_output": "mlp", "attention_value_output": "attention.dense"},
    ),
    "gemma2": ("model.layers", {"block_output": "", "mlp_output": "mlp", "attention_value_output": "self_attn.o_proj"}),
}


def metric_of(lm):
    return logit_diff(lm, " Paris", " Rome")


def final_logits(lm, prompt):
    with torch.no_grad():
        return lm.model(torch.tensor([lm.tokenizer(prompt)["input_ids"]])).logits[:, -1]


def hook(lm, family, component, layer, function):
    """A plain hook, whose `function` gets (and may write to) the component's tensor (1, position, features)."""
    blocks, paths = MODULES[family]
    module = lm.model.get_submodule(blocks)[layer].get_submodule(paths[component])

    def before(module, args):
        tensor = args[0].clone()
        function(tensor)
        return (tensor, *args[1:])

    def after(module, args, output):
        tensor = (output[0] if isinstance(output, tuple) else output).clone()
        function(tensor)
        return (tensor, *output[1:]) if isinstance(output, tuple) else tensor

    if component == "attention_value_output":
        return module.register_forward_pre_hook(before)
    return module.register_forward_hook(after)


def plain_patch(lm, family, base, source, component, layers, columns, features=slice(None)):
    """Final logits of the base run, in which some layers' columns come from the source run."""
    handles, taken = [], {}
    for layer in layers:
        handles.append(hook(lm, family, component, layer, lambda h, layer=layer: taken.update({layer: h.clone()})))
    final_logits(lm, source)
    for handle in handles:
        handle.remove()

    def patch(layer):
        def function(h):
            for column in columns:
                h[:, column, features] = taken[layer][:, column, features]

        return function

    handles = [hook(lm, family, component, layer, patch(layer)) for layer in layers]
    try:
        return final_logits(lm, base)
    finally:
        for handle in handles:
            handle.remove()


def plain_sweep(lm, family, base, source, metric, component="block_output", *, layers=range(3), cells, window=1):
    """(layer, cell): a cell is a list of columns."""
    rows = []
    for layer in layers:
        span = range(max(0, layer - window // 2), min(3, layer - window // 2 + window))
        rows.append([metric(plain_patch(lm, family, base, source, component, span, cell)) for cell in cells])
    return torch.tensor(rows)


EVERY_TOKEN = [[i] for i in range(10)]


# -- equal to the plain loop ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", ["block_output", "mlp_output", "attention_value_output"])
@pytest.mark.parametrize("family", MODULES)
def test_every_layer_and_token(family, component):
    lm = tiny(family)
    metric = metric_of(lm)
    sweep = patch_sweep(lm, BASE, SOURCE, metric, component)
    close(sweep.values, plain_sweep(lm, family, BASE, SOURCE, metric, component, cells=EVERY_TOKEN), atol=1e-4)
    close(sweep.base, metric(final_logits(lm, BASE))[0])
    close(sweep.source, metric(final_logits(lm, SOURCE))[0])
    assert sweep.axes == ("layer", "position")
    assert sweep.labels["layer"] == [0, 1, 2]
    assert sweep.labels["position"] == [f"{i} {token}" for i, token in enumerate(lm.str_tokens(BASE))]
    assert (sweep.metric, sweep.component) == ("logit(Paris) − logit(Rome)", component)
    assert sweep.values.std() > 0.1


@pytest.mark.parametrize("window", [1, 2, 3, 4, 5, 10])
@pytest.mark.parametrize("component", ["block_output", "mlp_output"])
def test_windows(lm, window, component):
    metric = metric_of(lm)
    sweep = patch_sweep(lm, BASE, SOURCE, metric, component, window=window)
    expected = plain_sweep(lm, "gpt2", BASE, SOURCE, metric, component, cells=EVERY_TOKEN, window=window)
    close(sweep.values, expected)
    assert sweep.component == (component if window == 1 else f"{component}, windows of {window} layers")


def rome_window(layer, window, num_layers):
    # The line of causal_trace.py of https://github.com/kmeng01/rome (trace_important_window).
    return range(max(0, layer - window // 2), min(num_layers, layer - (-window // 2)))


@pytest.mark.parametrize("n_layers", [1, 3, 12])
def test_windows_are_those_of_rome_s_code(n_layers):
    for width in range(1, 15):
        for layer in range(n_layers):
            ours = grid.window_of(layer, width, n_layers)
            assert ours == rome_window(layer, width, n_layers)
            assert layer in ours


def test_chosen_layers_and_tokens(lm):
    metric = metric_of(lm)
    sweep = patch_sweep(lm, BASE, SOURCE, metric, layers=[2, 0], positions=[-1, 3, [1, 2]])
    expected = plain_sweep(lm, "gpt2", BASE, SOURCE, metric, layers=[2, 0], cells=[[9], [3], [1, 2]])
    close(sweep.values, expected)
    assert dict(sweep.labels) == {"pair": [0], "layer": [2, 0], "position": ["-1", "3", "[1, 2]"]}


def test_named_places(lm):
    metric = metric_of(lm)
    places = {"subject": lm.find(BASE, "Colosseum"), "end": slice(-2, None), "all": None, "last token": -1}
    sweep = patch_sweep(lm, BASE, SOURCE, metric, positions=places)
    cells = [list(lm.find(BASE, "Colosseum")), [8, 9], list(range(10)), [9]]
    close(sweep.values, plain_sweep(lm, "gpt2", BASE, SOURCE, metric, cells=cells))
    assert sweep.labels["position"] == list(places)


def test_replacing_the_whole_stream_gives_the_source_s_value(lm):
    sweep = patch_sweep(lm, BASE, SOURCE, metric_of(lm), positions={"all": None})
    close(sweep.values, sweep.source.expand(3, 1))
    close(sweep.normalized.values, torch.ones(3, 1))


def test_a_source_of_another_length_pairs_up_by_named_places(lm):
    metric, source = metric_of(lm), "In Paris there are two"
    n = len(lm.str_tokens(source))
    assert n != 10
    sweep = patch_sweep(
        lm, BASE, source, metric, positions={"last": -1, "first": 0, "end": slice(-2, None), "start": slice(0, 2)}
    )

    def taken(layer):
        kept = []
        handle = hook(lm, "gpt2", "block_output", layer, lambda h: kept.append(h.clone()))
        final_logits(lm, source)
        handle.remove()
        return kept[0]

    for layer in range(3):
        for i, (to, origin) in enumerate([([9], [n - 1]), ([0], [0]), ([8, 9], [n - 2, n - 1]), ([0, 1], [0, 1])]):
            new = taken(layer)[:, origin]

            def patch(h, to=to, new=new):
                h[:, to] = new

            handle = hook(lm, "gpt2", "block_output", layer, patch)
            expected = metric(final_logits(lm, BASE))[0]
            handle.remove()
            close(sweep.values[layer, i], expected)


@pytest.mark.parametrize("positions, columns", [(None, range(10)), (-1, [9]), ([2, 4], [2, 4])])
def test_heads(lm, positions, columns):
    metric, component = metric_of(lm), "attention_value_output"
    sweep = patch_sweep(lm, BASE, SOURCE, metric, component, heads=[3, 0], positions=positions)

    def plainly(layer, head):
        features = slice(8 * head, 8 * head + 8)
        return metric(plain_patch(lm, "gpt2", BASE, SOURCE, component, [layer], columns, features))

    close(sweep.values, torch.tensor([[plainly(layer, head) for head in (3, 0)] for layer in range(3)]))
    assert sweep.axes == ("layer", "head") and sweep.labels["head"] == [3, 0]


def test_a_batch_of_pairs_equals_the_pairs_one_by_one(lm):
    answers, others = [" Paris", " Rome", " London"], [" Rome", " Paris", " two"]
    places = {"last token": -1, "second": 1, "first two": [0, 1], "from the second": slice(1, None)}
    sweep = patch_sweep(lm, BASES, SOURCES, logit_diff(lm, answers, others), positions=places)
    assert sweep.values.shape == (3, 3, 4) and sweep.axes == ("pair", "layer", "position")
    assert sweep.labels["pair"] == [0, 1, 2]
    for i, (base, source) in enumerate(zip(BASES, SOURCES, strict=True)):
        alone = patch_sweep(lm, base, source, logit_diff(lm, answers[i], others[i]), positions=places)
        close(sweep.values[i], alone.values)
        close(sweep.base[i], alone.base)
        close(sweep.source[i], alone.source)


def test_places_may_differ_from_pair_to_pair(lm):
    places = {"here": [[4], [3], [1]], "there": [[2, 5], [0], [2, 0]]}
    sweep = patch_sweep(lm, BASES, SOURCES, metric_of(lm), positions=places)
    for i, (base, source) in enumerate(zip(BASES, SOURCES, strict=True)):
        cells = [places["here"][i], places["there"][i]]
        close(sweep.values[i], plain_sweep(lm, "gpt2", base, source, metric_of(lm), cells=cells))


def test_pairs_of_one_length_are_swept_over_every_token(lm):
    bases, sources = [BASE, SOURCE], [SOURCE, BASE]
    sweep = patch_sweep(lm, bases, sources, metric_of(lm), "mlp_output")
    for i in range(2):
        expected = plain_sweep(lm, "gpt2", bases[i], sources[i], metric_of(lm), "mlp_output", cells=EVERY_TOKEN)
        close(sweep.values[i], expected)
    assert sweep.labels["position"] == [str(i) for i in range(10)]


def test_heads_of_a_batch_of_pairs(lm):
    sweep = patch_sweep(lm, BASES, SOURCES, metric_of(lm), "query_output", heads=[1, 2], positions=[[4], [3], [1]])
    for i, (base, source) in enumerate(zip(BASES, SOURCES, strict=True)):
        where = [[4], [3], [1]][i]
        alone = patch_sweep(lm, base, source, metric_of(lm), "query_output", heads=[1, 2], positions=where)
        close(sweep.values[i], alone.values)


def test_how_many_sites_share_a_forward_changes_nothing(lm, monkeypatch):
    places = {"last token": -1, "second": 1, "first two": [0, 1], "all": None}
    whole = patch_sweep(lm, BASES, SOURCES, metric_of(lm), positions=places).values
    monkeypatch.setattr(engine_cells, "can_resume", lambda lm: False)
    for rows in (1, 3, 7):
        monkeypatch.setattr(engine_cells, "ROWS", rows)
        close(patch_sweep(lm, BASES, SOURCES, metric_of(lm), positions=places).values, whole)


def test_a_sweep_inside_an_intervention_is_of_the_edited_model(lm):
    def without_the_last_mlp(h):
        h.zero_()

    with intervene(lm, zero(Site("mlp_output", 2))):
        sweep = patch_sweep(lm, BASE, SOURCE, metric_of(lm))
    handle = hook(lm, "gpt2", "mlp_output", 2, without_the_last_mlp)
    expected = plain_sweep(lm, "gpt2", BASE, SOURCE, metric_of(lm), cells=EVERY_TOKEN)
    handle.remove()
    close(sweep.values, expected)


def test_any_function_of_logits_is_a_metric(lm):
    def mean_logit(logits):
        return logits.mean(-1)

    sweep = patch_sweep(lm, BASE, SOURCE, mean_logit, layers=[1], positions=[2])
    assert sweep.metric == "mean_logit"
    close(sweep.values, plain_sweep(lm, "gpt2", BASE, SOURCE, mean_logit, layers=[1], cells=[[2]]))
    divergence = kl_divergence(lm.next_token_logits(BASE))
    sweep = patch_sweep(lm, BASE, SOURCE, divergence, positions=[0, -1])
    assert sweep.base.abs() < 1e-5
    close(sweep.values, plain_sweep(lm, "gpt2", BASE, SOURCE, divergence, cells=[[0], [9]]))


def test_a_sweep_leaves_the_model_as_it_was():
    lm = tiny("llama")
    before = snapshot(lm)
    patch_sweep(lm, BASE, SOURCE, metric_of(lm), layers=[0], positions=[1])
    assert_untouched(lm, before)


# -- what a Sweep can do ----------------------------------------------------------------------------------------------


@pytest.fixture
def sweep():
    return Sweep(
        values=torch.tensor([[1.0, 3.0, 5.0], [2.0, -4.0, 1.0]]),
        axes=("layer", "position"),
        labels={"layer": [0, 6], "position": ["0 The", "1 city", "2 of"]},
        base=torch.tensor(1.0),
        source=torch.tensor(5.0),
        metric="logit difference",
        component="block_output",
    )


@pytest.fixture
def batch():
    return Sweep(
        values=torch.tensor([[[1.0, 3.0]], [[2.0, -4.0]], [[6.0, 2.5]]]),
        axes=("pair", "layer", "position"),
        labels={"pair": [0, 1, 2], "layer": [0], "position": ["a", "b"]},
        base=torch.tensor([1.0, 2.0, 2.0]),
        source=torch.tensor([5.0, 0.0, 6.0]),
        metric="logit difference",
        component="block_output",
    )


def test_normalized_is_the_share_of_the_way_from_base_to_source(sweep, batch):
    close(sweep.normalized.values, torch.tensor([[0, 0.5, 1], [0.25, -1.25, 0]]))
    close(batch.normalized.values, torch.tensor([[[0, 0.5]], [[0, 3]], [[1, 0.125]]]))
    for now, was in ((sweep.normalized, sweep), (batch.normalized, batch)):
        assert not now.base.any() and (now.source == 1).all() and now.base.shape == was.base.shape
        assert now.metric == "share of the way from base to source" and now.labels == was.labels


def test_normalize_is_the_normalized_sweep(lm):
    for options in ({}, {"positions": [1, -1], "window": 2}):
        sweep = patch_sweep(lm, BASE, SOURCE, metric_of(lm), **options)
        normalized = patch_sweep(lm, BASE, SOURCE, metric_of(lm), normalize=True, **options)
        close(normalized.values, (sweep.values - sweep.base) / (sweep.source - sweep.base), atol=1e-4)
        close(normalized.values, sweep.normalized.values)


def test_there_is_no_way_to_share_where_base_and_source_agree(lm):
    with pytest.raises(ValueError, match="is the same in the base and the source run, so there is no way to share"):
        patch_sweep(lm, BASE, BASE, metric_of(lm), layers=[0], normalize=True)


def test_mean_averages_pairs_with_a_standard_error(batch):
    mean = batch.mean()
    close(mean.values, torch.tensor([[3.0, 0.5]]))
    close(mean.error, torch.tensor([[7.0**0.5, 15.25**0.5]]) / 3**0.5)
    assert (mean.base, mean.source) == (torch.tensor(5 / 3), torch.tensor(11 / 3))
    assert mean.axes == ("layer", "position")


def test_the_error_is_normalised_with_the_mean(batch):
    mean = batch.mean()
    close(mean.normalized.error, mean.error / 2)


def test_the_mean_of_one_pair_has_no_error_and_a_single_sweep_no_mean(lm, sweep):
    one = patch_sweep(lm, [BASE], [SOURCE], metric_of(lm), layers=[0])
    assert one.axes[0] == "pair" and one.mean().error is None
    close(one.mean().values, one.values[0])
    with pytest.raises(ValueError, match="of one pair, and there is nothing to average: give patch_sweep lists"):
        sweep.mean()


def test_a_sweep_over_ranks_has_no_pairs_to_average(sweep):
    ranks = replace(sweep, values=sweep.values[None], axes=("rank", *sweep.axes), labels={**sweep.labels, "rank": [1]})
    with pytest.raises(ValueError, match="nothing to average: sweep one rank at a time"):
        ranks.mean()
    with pytest.raises(ValueError, match=r"has \('rank', 'layer', 'position'\): sweep one rank at a time"):
        ranks.plot()


def test_top_lists_what_moved_the_metric_furthest_from_the_base(sweep, batch):
    assert sweep.top(2) == [
        ({"layer": 6, "position": "1 city"}, -4.0),
        ({"layer": 0, "position": "2 of"}, 5.0),
    ]
    assert len(sweep.top(100)) == 6
    assert batch.top(2) == [
        ({"pair": 1, "layer": 0, "position": "b"}, -4.0),
        ({"pair": 2, "layer": 0, "position": "a"}, 6.0),
    ]


def test_a_sweep_describes_itself(sweep, batch):
    assert repr(sweep) == (
        "Sweep of block_output: 2 layers × 3 positions; logit difference; base 1.00, source 5.00; "
        "furthest from base -4.00 at layer 6, position 1 city"
    )
    assert repr(batch).startswith(
        "Sweep of block_output: 3 pairs × 1 layers × 2 positions; logit difference; base 1.67"
    )


@pytest.mark.parametrize("number", [np.int64, torch.tensor])
def test_layers_and_heads_may_be_numbers_of_numpy_and_tensors(lm, number):
    expected = patch_sweep(lm, BASE, SOURCE, metric_of(lm), "query_output", layers=1, heads=[2])
    sweep = patch_sweep(lm, BASE, SOURCE, metric_of(lm), "query_output", layers=number(1), heads=number(2))
    assert sweep.labels == expected.labels == {"pair": [0], "layer": [1], "head": [2]}
    assert all(type(label) is int for label in sweep.labels["layer"] + sweep.labels["head"])
    assert torch.equal(sweep.values, expected.values)


# -- prompts in other forms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["tokens", "tokenizer", "generator"])
@pytest.mark.parametrize("sweep", [patch_sweep, attribution_sweep])
def test_prompts_may_be_tokens_which_keep_their_mask(lm, sweep, form):
    ways = {
        "tokens": lm.tokens,
        "tokenizer": lm.tokenizer,
        "generator": iter,
    }
    places = {"last token": -1, "second": 1}
    expected = sweep(lm, BASES, SOURCES, metric_of(lm), positions=places)
    found = sweep(lm, ways[form](BASES), ways[form](SOURCES), metric_of(lm), positions=places)
    close(found.values, expected.values)
    close(found.source, expected.source)


# -- what is refused --------------------------------------------------------------------------------------------------

REFUSED = [
    (([BASE], SOURCE), {}, "give two strings, or two lists of one length, not a list of 1 and one string"),
    ((BASE, [SOURCE]), {}, "not one string and a list of 1"),
    ((BASES, SOURCES[:2]), {}, "not a list of 3 and a list of 2"),
    ((torch.ones(3, 2, dtype=torch.long), SOURCE), {}, "not a list of 3 and one string"),
    (([], []), {}, "There is no prompt"),
    (
        (BASE, "One two three"),
        {},
        r"Base prompts have \[10\] tokens and source prompts \[3\]: to sweep over every token",
    ),
    (
        (BASES, SOURCES),
        {},
        r"Base prompts have \[10, 5, 3\] tokens and source prompts \[10, 5, 3\]: .*positions={'subject'",
    ),
    ((BASE, SOURCE), {"layers": [3]}, "tiny gpt2 has 3 blocks, layers 0 to 2, and layer 3 was asked for"),
    ((BASE, SOURCE), {"layers": [-1], "window": 3}, "layer -1 was asked for"),
    ((BASE, SOURCE), {"layers": []}, r"There is nothing to patch: layers=\[\]"),
    ((BASE, SOURCE), {"positions": [1, 1]}, r"one is named twice: .*positions=\['1', '1'\]"),
    ((BASE, SOURCE), {"layers": [1, 1]}, r"one is named twice: layers=\[1, 1\]"),
    ((BASE, SOURCE), {"positions": []}, r"There is nothing to patch: .* positions=\[\]"),
    ((BASE, SOURCE), {"component": "query_output", "heads": []}, r"There is nothing to patch: .* heads=\[\]"),
    ((BASE, SOURCE), {"component": "resid_post"}, "There is no component 'resid_post'"),
    ((BASE, SOURCE), {"component": "attention_weight"}, "attention_weight has shares of attention, and no vectors"),
    ((BASE, SOURCE), {"window": 0}, "A window is one layer or more, and 0 was given"),
    ((BASE, SOURCE), {"heads": [0]}, "'block_output' is not split by head"),
    ((BASE, SOURCE), {"component": "query_output", "heads": [4]}, "has 4 heads, 0 to 3, and head 4 was asked for"),
    ((BASE, SOURCE), {"positions": [10]}, "Position 10 is outside row 0, which has 10 tokens"),
    ((BASE, SOURCE), {"positions": -1}, "positions=-1 was not understood: give a sequence, or named places"),
    ((BASE, SOURCE), {"positions": ["last"]}, "positions='last' was not understood"),
    ((BASE, "One two three"), {"positions": {"fifth": 5}}, "Position 5 is outside row 0, which has 3 tokens"),
    (
        (BASE, "One two three"),
        {"positions": {"all": None}},
        r"positions=None names tokens of the base prompts, of \[10\]",
    ),
    ((BASE, "One two three"), {"positions": {"s": slice(1, -1)}}, "that don't pair up: choose prompts of equal length"),
    (
        (BASES, SOURCES),
        {"positions": {"a": [[0], [1]], "b": [[0]] * 4}},
        "given for 2 rows, one sequence a pair, and there are 3",
    ),
]


@pytest.mark.parametrize("prompts, options, says", REFUSED)
def test_what_cannot_be_swept_is_refused_and_leaves_no_trace(lm, prompts, options, says):
    with pytest.raises(ValueError, match=says):
        patch_sweep(lm, *prompts, probability(lm, " Paris"), **options)


def test_positions_may_be_a_tensor(lm):
    metric = probability(lm, " Paris")
    one, other = (
        patch_sweep(lm, [BASE] * 2, [SOURCE] * 2, metric, positions=p) for p in ([1, 2], torch.tensor([1, 2]))
    )
    assert torch.equal(one.values, other.values) and other.labels["position"] == ["1", "2"]


def test_gradients_are_refused_where_there_can_be_none(lm):
    with torch.inference_mode(), pytest.raises(ValueError, match=r"inside torch.inference_mode\(\)"):
        attribution_sweep(lm, BASE, SOURCE, probability(lm, " Paris"))


def test_a_metric_s_words_are_one_a_pair(lm):
    with pytest.raises(ValueError, match="A metric with 2 words, one a row, was given 3 rows"):
        patch_sweep(lm, BASES, SOURCES, probability(lm, [" Paris", " Rome"]), positions=[-1])


def nothing_but_numbers(logits):
    return logits[:, 0].tolist()


@pytest.mark.parametrize("sweep", [patch_sweep, attribution_sweep])
@pytest.mark.parametrize(
    "metric, says",
    [
        (lambda logits: logits[:, 7].mean(), r"to \(batch,\) = \(3,\), and got \(\) from <lambda>: leave out .mean"),
        (lambda logits: logits[:, :3], r"to \(batch,\) = \(3,\), and got \(3, 3\) from"),
        (nothing_but_numbers, "and got list from nothing_but_numbers"),
        ([], r"A metric such as logit_diff\(lm, …\), or a list of them, was expected, and \[\] was given"),
        ("logit", "or a list of them, was expected, and 'logit' was given"),
    ],
)
def test_a_metric_gives_one_number_a_row(lm, monkeypatch, sweep, metric, says):
    monkeypatch.setattr(patching, "record", lambda *a, **k: pytest.fail("the work had begun"))
    with pytest.raises(ValueError, match=says):
        sweep(lm, BASES, SOURCES, metric, positions=[-1])


def test_a_metric_without_a_gradient_has_no_attribution(lm):
    with pytest.raises(ValueError, match="rank of Paris has no gradient: take logit_diff or probability, or use patch"):
        attribution_sweep(lm, BASE, SOURCE, rank(lm, " Paris"))
    assert patch_sweep(lm, BASE, SOURCE, rank(lm, " Paris"), layers=[0]).values.shape == (1, 10)


def test_places_that_could_be_cells_or_pairs_are_refused(lm):
    with pytest.raises(ValueError, match="could be 2 cells, or one cell with a place for each of 2 pairs"):
        patch_sweep(lm, [BASE, BASE], [SOURCE, SOURCE], metric_of(lm), positions=[[3], [2]])


# -- attribution patching ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", ["block_output", "attention_output", "mlp_activation", "attention_value_output"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gemma2"])
def test_attribution_is_the_slope_towards_the_source(family, component):
    """Finite differences: a small step from the base's activation towards the source's, at each site."""
    lm = tiny(family)
    lm.model.double()
    metric, step = metric_of(lm), 3e-3
    heads = dict(heads=[2], positions=[1, 4]) if component == "attention_value_output" else dict(positions=[1, -1])
    sweep = attribution_sweep(lm, BASE, SOURCE, metric, component, **heads)
    ours, theirs = record(lm, BASE, component), record(lm, SOURCE, component)
    for layer in range(3):
        for column in range(sweep.values.shape[1]):
            places = [1, 4] if "heads" in heads else heads["positions"][column]
            site = Site(component, layer, places, heads=2 if "heads" in heads else None)
            ends = []
            for sign in (1, -1):
                with intervene(lm, add(site, sign * step * (theirs[site] - ours[site]))):
                    ends.append(metric(lm.next_token_logits(BASE))[0].double())
            slope = (ends[0] - ends[1]) / (2 * step)
            torch.testing.assert_close((sweep.values[layer, column] - sweep.base).double(), slope, atol=1e-3, rtol=5e-3)


def test_attribution_in_half_precision_multiplies_in_single():
    lm = tiny("gpt2")
    lm.model.bfloat16()
    site, metric = Site("block_output", 1, positions=-1), probability(lm, " Paris")
    sweep = attribution_sweep(lm, BASE, SOURCE, metric, layers=[1], positions=[-1])
    ours, theirs = record(lm, BASE, site, grad=True), record(lm, SOURCE, site)
    (slope,) = torch.autograd.grad(metric(ours.next_token_logits).sum(), ours["block_output", 1])
    change = ((theirs[site].float() - ours[site].float()) * slope[:, -1:].float()).sum().detach()
    torch.testing.assert_close(sweep.values[0, 0] - sweep.base, change, rtol=1e-4, atol=0)


def test_attribution_of_a_batch_is_each_pair_s_own(lm, monkeypatch):
    places = {"last token": -1, "second": 1, "first two": [0, 1]}
    for at_once in (16, 2):
        monkeypatch.setattr(patching, "PAIRS_PER_GRADIENT", at_once)
        sweep = attribution_sweep(lm, BASES, SOURCES, metric_of(lm), "mlp_output", positions=places, window=2)
        assert sweep.values.shape == (3, 3, 3)
        for i in range(3):
            alone = attribution_sweep(lm, BASES[i], SOURCES[i], metric_of(lm), "mlp_output", positions=places, window=2)
            close(sweep.values[i], alone.values)
            close(sweep.base[i], alone.base)
            close(sweep.source[i], alone.source)


def test_attribution_has_the_shape_and_the_ends_of_a_patch_sweep(lm):
    real = patch_sweep(lm, BASE, SOURCE, metric_of(lm), normalize=True)
    estimate = attribution_sweep(lm, BASE, SOURCE, metric_of(lm), normalize=True)
    assert (estimate.axes, estimate.labels) == (real.axes, real.labels)
    assert (estimate.base, estimate.source) == (real.base, real.source)
    assert estimate.component == "block_output, estimated from the gradient"
    assert (estimate.values - real.values).abs().max() > 1e-2  # an estimate, after all


# -- several metrics --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sweep", [patch_sweep, attribution_sweep])
def test_several_metrics_in_one_pass(lm, sweep):
    metrics = [metric_of(lm), probability(lm, " Paris"), kl_divergence(lm.next_token_logits(BASE))]
    together = sweep(lm, BASE, SOURCE, metrics)
    assert [found.metric for found in together] == [metric.name for metric in metrics]
    for metric, found in zip(metrics, together, strict=True):
        alone = sweep(lm, BASE, SOURCE, metric)
        close(found.values, alone.values)
        close(found.base, alone.base)
        close(found.source, alone.source)


def test_attribution_works_where_gradients_are_off(lm):
    expected = attribution_sweep(lm, BASE, SOURCE, metric_of(lm))
    with torch.no_grad():
        close(attribution_sweep(lm, BASE, SOURCE, metric_of(lm)).values, expected.values)


# -- the control, and how a sweep is read -----------------------------------------------------------------------------


def test_a_wrong_sources_patch_is_on_the_right_sources_scale():
    lm = tiny("gpt2")
    metric, wrong = metric_of(lm), ["The old lighthouse was in the bay of", "A red balloon is in the sky of"]
    wrong = [prompt for prompt in wrong if len(lm.str_tokens(prompt)) == len(lm.str_tokens(BASE))] or [BASE]
    how = dict(layers=[1], positions=[-1])
    start, end = (metric(lm.next_token_logits(prompt)) for prompt in (BASE, SOURCE))
    by_hand = [(patch_sweep(lm, BASE, prompt, metric, **how).values - start) / (end - start) for prompt in wrong]
    control = wrong_source_control(lm, BASE, SOURCE, wrong, metric, **how)
    close(control.values, torch.stack(by_hand).mean(0))
    assert control.axes == ("layer", "position") and (float(control.base), float(control.source)) == (0, 1)
    pairwise = wrong_source_control(lm, [BASE], [SOURCE], wrong[:1], metric, **how)
    assert pairwise.axes[0] == "pair"
    close(pairwise.values[0], by_hand[0])


def test_from_the_right_source_the_control_is_the_patch_itself():
    lm = tiny("llama")
    right = patch_sweep(lm, BASE, SOURCE, metric_of(lm), normalize=True)
    close(wrong_source_control(lm, BASE, SOURCE, [SOURCE], metric_of(lm)).values, right.values)


def column(values, base, source) -> Sweep:
    labels = {"layer": list(range(0, 2 * len(values), 2)), "position": ["0 a"]}
    values = torch.tensor(values)[:, None]
    return Sweep(
        values, ("layer", "position"), labels, torch.tensor(base), torch.tensor(source), "metric", "block_output"
    )


@pytest.mark.parametrize(
    "values, base, source, layer",
    [
        ([-2.0, 0.5, -0.1, 1.0], -3.0, 1.0, 2),
        ([2.0, 1.0, -0.1], 3.0, -1.0, 4),
        ([-2.0, -1.0], -3.0, 1.0, None),
        ([2.0, 3.0], 1.0, 4.0, None),
    ],
)
def test_the_first_flip_is_the_first_layer_on_the_sources_side(values, base, source, layer):
    sweep = column(values, base, source)
    assert sweep.first_flip() == sweep.first_flip("0 a") == sweep.first_flip(0) == layer


def test_shares_and_several_pairs_have_no_flip():
    sweep = column([-2.0, 0.5], -3.0, 1.0)
    with pytest.raises(ValueError, match="normalize=False"):
        sweep.normalized.first_flip()
    with pytest.raises(ValueError, match="one pair's layers"):
        replace(sweep, axes=("pair", "position")).first_flip()


def test_means_become_lines_by_place():
    one = column([0.1, 0.9], 0.0, 1.0)
    given = by_place({"right": one, "wrong": replace(one, error=torch.tensor([[0.1], [0.2]]))})
    assert list(given["lines"]) == list(given["errors"]) == ["0 a, right", "0 a, wrong"]
    assert given["errors"]["0 a, right"] is None
    close(given["lines"]["0 a, right"], torch.tensor([0.1, 0.9]))
    close(given["errors"]["0 a, wrong"], torch.tensor([0.1, 0.2]))
