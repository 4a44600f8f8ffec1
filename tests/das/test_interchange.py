"""A run that was paused at a site and finished with other values there is the run in which they were put in: for every family,
component and place, with its gradients, and whichever way it is computed."""

from __future__ import annotations

import warnings
from functools import cache, wraps

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain import act_at_column, assert_untouched, close, snapshot
from tiny import FAMILIES, components_of, tiny
from torch import nn

from interp_helpers import Counterfactual, Site, add, interchange_logits, intervene, record, replace
from interp_helpers.das.counterfactuals import as_counterfactuals
from interp_helpers.das.interchange import Interchanges
from interp_helpers.engine import resume
from interp_helpers.engine.frozen import frozen
from interp_helpers.models.anatomy import COMPONENTS, PER_HEAD

EDITABLE = [component for component in COMPONENTS if component != "attention_weight"]
BASES = ["The Colosseum stands in the town of", "The capital of France is", "One two three"]
SOURCES = ["The Eiffel Tower is in the city of", "Nine six eight", "The capital of Italy is"]  # 10, 3 and 5 tokens
PAIRS = [Counterfactual(*pair) for pair in zip(BASES, SOURCES, [" Paris", " Rome", 7], strict=True)]
LAST = Site("block_output", 1, positions=-1)
TOLERANCE = 1e-5

family = cache(tiny)


@pytest.fixture(scope="module", autouse=True)
def families_are_left_as_they_were():
    yield
    for name in FAMILIES:
        if family.cache_info().currsize:
            lm = family(name)
            assert_untouched(lm, snapshot(tiny(name)) | {"config's own": dict(vars(lm.model.config))})
            assert resume.can_resume(lm)


@pytest.fixture(params=["resumed", "plain"])
def way(request, monkeypatch):
    """Each of the two ways in which a run can be finished."""
    if request.param == "plain":
        monkeypatch.setattr("interp_helpers.das.interchange.can_resume", lambda lm: False)
    return request.param


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def interchanges(model, site, pairs):
    return Interchanges(model, site, as_counterfactuals(pairs))


def plainly(lm, site, prompts, positions, values, grad=False):
    """The next token's logits of one prompt after the other, each in a run of its own, with the values at the site."""
    found = []
    for prompt, at, value in zip(prompts, positions, values, strict=True):
        with intervene(lm, replace(Site(site.component, site.layer, at, site.heads), value[None])):
            found.append(lm.next_token_logits(prompt if isinstance(prompt, str) else prompt[None], grad=grad)[0])
    return torch.stack(found)


def same(ours, theirs):
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max().clamp(min=1)


def gradients(logits, *values):
    """Of some sum of the logits."""
    return torch.autograd.grad((logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum(), values)


def leaves(tensor):
    """The tensors that a graph hands its gradients to."""
    found, waiting, seen = [], [tensor.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        waiting += [before for before, _ in node.next_functions]
    return found


# -- equal to the plain way ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_and_component_in_a_padded_batch(name):
    lm, rows, everyone = family(name), torch.tensor([2, 0, 0, 1]), torch.arange(3)
    positions = [1, -1]
    clean = lm.next_token_logits([BASES[row] for row in rows])
    components = [c for c in EDITABLE if c in components_of(name)]
    acts = record(lm, BASES, *components), record(lm, SOURCES, *components)
    for i, component in enumerate(components):
        site = Site(component, i % 2, positions, heads=[1, 0] if component in PER_HEAD else None)
        logits, slopes = [], []
        for can_resume in (True, False):
            with pytest.MonkeyPatch.context() as patch, frozen(lm.model):
                patch.setattr("interp_helpers.das.interchange.can_resume", lambda lm, can=can_resume: can)
                runs = interchanges(lm, site, PAIRS)
                values = rand(4, *runs.shape, seed=i).requires_grad_()
                logits.append(runs.finish(rows, values))
                slopes += gradients(logits[-1], values)
            same(runs.base(everyone), acts[0][site])
            same(runs.source(everyone), acts[1][site])
        same(*logits)
        torch.testing.assert_close(*slopes, atol=1e-4 * slopes[1].abs().max().item(), rtol=1e-3)
        assert slopes[0].flatten(1).abs().amax(1).min() > 0, f"{component} matters in every row"
        assert (logits[0] - clean).abs().amax(1).min() > 1e-2, component


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_has_changed_where_a_run_is_finished_with_what_it_has_and_all_where_with_the_source_s(name, way):
    lm, rows = family(name), torch.arange(2)
    pairs = [("The capital of France is", "The capital of Italy is", 7), ("One two three four five", "A b c d e", 7)]
    for component, layer in (("block_input", 0), ("block_output", 1), ("block_output", 2)):
        runs = interchanges(lm, Site(component, layer), pairs)  # every token
        assert runs.shape == (5, 32)
        same(runs.finish(rows, runs.base(rows)), lm.next_token_logits([pair[0] for pair in pairs]))
        same(runs.finish(rows, runs.source(rows)), lm.next_token_logits([pair[1] for pair in pairs]))


PLACES = st.sampled_from([0, -1, 2, -3, [1], [0, 2], [2, 0], [-1, -3], slice(0, 2), slice(-3, -1)])
HEADS = st.none() | st.integers(0, 1) | st.lists(st.integers(0, 1), min_size=1, unique=True)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([(f, c) for f in ("gpt2", "llama", "gpt_neox") for c in EDITABLE if c in components_of(f)]),
    st.integers(0, 2),
    PLACES,
    HEADS,
    st.lists(st.integers(0, 2), min_size=1, max_size=6),
    st.lists(st.sampled_from(["words", "ids"]), min_size=3, max_size=3),
    st.booleans(),
)
def test_any_rows_places_heads_and_kinds_of_prompt(where, layer, positions, heads, rows, kinds, fast):
    name, component = where
    lm = family(name)
    site = Site(component, layer, positions, heads=heads if component in PER_HEAD else None)
    bases = [b if kind == "words" else lm.tokens(b)[0] for b, kind in zip(BASES, kinds, strict=True)]
    pairs = [[base, source, 7] for base, source in zip(bases, SOURCES, strict=True)]  # lists are pairs, too
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interp_helpers.das.interchange.can_resume", lambda lm: fast)
        runs = interchanges(lm, site, (pair for pair in pairs))
    values = rand(len(rows), *runs.shape, seed=layer)
    theirs = plainly(lm, site, [BASES[row] for row in rows], [site.positions] * len(rows), values)
    same(runs.finish(torch.tensor(rows), values), theirs)


def test_a_single_pair(lm, way):
    runs = interchanges(lm, LAST, PAIRS[:1])
    value = rand(1, 1, 32)
    same(runs.finish(torch.tensor([0]), value), plainly(lm, LAST, BASES[:1], [-1], value))


@pytest.mark.parametrize("component, positions", [("block_output", 3), ("value_output", [4, 2]), ("mlp_output", -1)])
def test_one_base_for_many_sources(lm, component, positions, way):
    site = Site(component, 1, positions=positions)
    sources = ["Nine six eight two five", "A b c d e", BASES[0]]
    runs, rows = interchanges(lm, site, [(BASES[0], source, 7) for source in sources]), torch.tensor([0, 2, 1, 2])
    acts = record(lm, [sources[row] for row in rows], component)
    with intervene(lm, replace(site, acts)):
        theirs = lm.next_token_logits([BASES[0]] * 4)
    same(runs.finish(rows, runs.source(rows)), theirs)


def test_sources_of_another_length_give_the_token_that_a_negative_position_names(lm, way):
    site, rows = Site("block_output", 2, positions=-1), torch.arange(3)
    runs = interchanges(lm, site, PAIRS)
    same(runs.finish(rows, runs.source(rows)), lm.next_token_logits(SOURCES))  # after the last block that is all


def test_inside_an_intervention_the_runs_are_of_the_edited_model(lm):
    edit, rows = add(Site("block_output", 0), rand(32)), torch.arange(3)
    values = rand(3, 1, 32, seed=1)
    with intervene(lm, edit):
        runs = interchanges(lm, LAST, PAIRS)
        ours = runs.finish(rows, values)
        same(runs.source(rows), torch.cat([record(lm, source, "block_output")[LAST] for source in SOURCES]))
        same(ours, plainly(lm, LAST, BASES, [-1] * 3, values))
    assert (ours - interchanges(lm, LAST, PAIRS).finish(rows, values)).abs().max() > 1e-2


def test_a_hook_of_the_users_acts(lm):
    def erase(module, args, output):
        return (output[0] * 0, *output[1:]) if isinstance(output, tuple) else output * 0

    handle = lm.anatomy.blocks[2].register_forward_hook(erase)
    try:
        logits = interchanges(lm, LAST, PAIRS).finish(torch.arange(3), rand(3, 1, 32))
        close(logits, lm.unembed(torch.zeros(3, 32)), atol=1e-4)
    finally:
        handle.remove()


def test_values_and_models_in_half_precision(way):
    lm = tiny("llama")
    lm.model.bfloat16()
    runs, rows = interchanges(lm, LAST, PAIRS), torch.arange(3)
    assert runs.base(rows).dtype == torch.bfloat16
    values = rand(3, 1, 32).requires_grad_()
    logits = runs.finish(rows, values)
    assert logits.dtype == torch.bfloat16
    theirs = plainly(lm, LAST, BASES, [-1] * 3, values.detach())
    assert (logits - theirs).abs().max() < 0.05 * theirs.abs().max()
    assert gradients(logits, values)[0].any()


# -- gradients ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", EDITABLE)
def test_gradients_are_slopes(component, way):
    lm = double_precision()
    site = Site(component, 1, positions=[1, -1])
    runs, rows = interchanges(lm, site, PAIRS), torch.tensor([1, 2, 0, 0])
    values = runs.base(rows).clone().requires_grad_()

    def metric(values):
        return (runs.finish(rows, values)[:, [7, 99, 1234]] * torch.tensor([1.0, -2.0, 3.0])).sum()

    (gradient,) = torch.autograd.grad(metric(values), values)
    direction = rand(*values.shape).double()
    with torch.no_grad():
        slope = (metric(values + 1e-5 * direction) - metric(values - 1e-5 * direction)) / 2e-5
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-7)


@cache
def double_precision():
    lm = tiny("gpt2")
    lm.model.double()
    return lm


def test_without_gradients_there_is_no_graph(lm, way):
    runs = interchanges(lm, LAST, PAIRS)
    with torch.no_grad():
        assert not runs.finish(torch.arange(3), rand(3, 1, 32).requires_grad_()).requires_grad
    assert not runs.base(torch.arange(3)).requires_grad and not runs.source(torch.arange(3)).requires_grad


@pytest.mark.parametrize("component, layer", [("block_output", 1), ("block_input", 2), ("value_output", 2)])
def test_only_the_values_get_gradients_and_nothing_below_the_site_is_in_the_graph(lm, component, layer, way):
    site = Site(component, layer, positions=[0, -1])
    values = rand(3, *interchanges(lm, site, PAIRS).shape).requires_grad_()
    with frozen(lm.model):
        logits = interchanges(lm, site, PAIRS).finish(torch.arange(3), values)
    assert [id(leaf) for leaf in leaves(logits)] == [id(values)]
    if way == "resumed":  # without `frozen`, too
        found = {id(leaf) for leaf in leaves(interchanges(lm, site, PAIRS).finish(torch.arange(3), values))}
        assert id(values) in found
        for block in lm.anatomy.blocks[:2]:
            assert not found & {id(weight) for weight in block.parameters()}
    logits.sum().backward()
    assert values.grad.any() and all(weight.grad is None for weight in lm.model.parameters())


def test_blocks_below_the_site_and_tokens_before_it_are_not_run_again(lm, monkeypatch):
    called, call = [], resume.Run.call_block

    def counted(self, layer, h, rows, first):
        called.append((layer, h.shape[1]))
        return call(self, layer, h, rows, first)

    monkeypatch.setattr(resume.Run, "call_block", counted)
    for component, layer, blocks in (("block_input", 1, [1, 2]), ("mlp_output", 1, [1, 2]), ("block_output", 1, [2])):
        pairs = [(base, base, 7) for base in BASES]
        runs = interchanges(lm, Site(component, layer, positions=-1), pairs)
        called.clear()
        runs.finish(torch.tensor([0, 1]), rand(2, 1, 32))
        assert called == [
            (block, 10 - 4) for block in blocks
        ]  # of ten columns, those from the first one that is a row's last


# -- what it costs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def rows_run(lm, monkeypatch):
    """How many rows each run of the whole model had. (The last two are the proof's: one pair for each first column.)"""
    assert resume.can_resume(lm)
    found, forward = [], lm.model.forward

    @wraps(forward)
    def counted(tokens, *args, **kwargs):
        found.append(len(tokens))
        return forward(tokens, *args, **kwargs)

    monkeypatch.setattr(lm.model, "forward", counted)
    return found


def test_each_distinct_prompt_is_run_once(lm, rows_run):
    pairs = [(base, source, 7) for base in BASES[:2] for source in SOURCES] * 3
    runs = interchanges(lm, LAST, pairs)
    assert sorted(rows_run[:2]) == [2, 3] and rows_run[2:] == [2, 2] and len(runs) == 18
    rows_run.clear()
    rows = torch.arange(18)
    logits = runs.finish(rows, runs.source(rows))
    assert rows_run == []
    for start in (6, 12):
        close(logits[start : start + 6], logits[:6])


def test_equal_ids_are_one_prompt(lm, rows_run):
    ids = lm.tokens(BASES[0])[0]
    interchanges(lm, LAST, [(ids, SOURCES[0], 7), (ids.clone(), SOURCES[0], 7), (ids.flip(0), SOURCES[0], 7)])
    assert sorted(rows_run[:2]) == [1, 2] and rows_run[2:] == [1, 1]


def test_a_source_that_is_a_base_too_is_run_once(lm, rows_run):
    runs = interchanges(lm, LAST, [(BASES[0], BASES[1], 7), (BASES[1], SOURCES[0], 7), (BASES[2], BASES[0], 7)])
    assert rows_run[:2] == [3, 1]
    assert torch.equal(runs.source(torch.tensor([0, 2])), runs.base(torch.tensor([1, 0])))


def test_sources_are_run_as_far_as_the_site_s_token(lm, monkeypatch):
    found, forward = [], lm.model.forward
    count = wraps(forward)(lambda tokens, *a, **k: found.append(tokens.shape[1]) or forward(tokens, *a, **k))
    monkeypatch.setattr(lm.model, "forward", count)
    interchanges(lm, Site("block_output", 1, positions=2), PAIRS)
    assert found[:2] == [10, 3]


@pytest.mark.parametrize("site", [LAST, Site("block_output", 0, positions=1), Site("mlp_output", 1, positions=[1, 2])])
@pytest.mark.parametrize("column", range(5))
def test_what_acts_at_one_column_is_noticed_or_means_nothing(site, column):
    lm = tiny("llama")
    act_at_column(lm.anatomy.place("mlp_input", 2).module, column)
    pairs = [(base, source, 7) for base, source in zip(BASES, SOURCES, strict=False)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = interchange_logits(lm, site, None, pairs)
    for logits, (base, source, _) in zip(found, pairs, strict=True):
        with intervene(lm, replace(site, record(lm, source, site))):
            close(logits, lm.next_token_logits(base)[0])


def test_a_model_that_cannot_be_resumed_rightly_says_so_and_is_run_whole():
    lm = tiny("llama")
    mlp = lm.anatomy.place("mlp_input", 2).module
    forward = mlp.forward
    mlp.forward = lambda stream: forward(stream) * torch.arange(1, 1 + stream.shape[1])[:, None]
    with pytest.warns(UserWarning, match="every run is a whole one"):
        runs = interchanges(lm, LAST, [(BASES[0], SOURCES[0], 7)])
    assert runs.finish.__name__ == "whole"


def test_edits_that_count_from_the_end_are_made_at_the_end_of_sources(lm):
    with intervene(lm, add(Site("block_output", 0, positions=-1), torch.ones(lm.d_model))):
        runs = interchanges(lm, Site("block_output", 1, positions=1), PAIRS)
    for i, source in enumerate(SOURCES):
        close(runs.source(torch.tensor([i]))[0, 0], record(lm, source, "block_output")["block_output", 1][0, 1])


def test_runs_end_at_the_site(lm, monkeypatch):
    ran = []
    for block in lm.anatomy.blocks:
        monkeypatch.setattr(
            block, "forward", wraps(block.forward)(lambda *a, f=block.forward, **k: ran.append(1) or f(*a, **k))
        )
    interchanges(lm, Site("block_output", 0, positions=-1), PAIRS)  # a replaced forward is not resumed
    assert len(ran) == 2


# -- labels -------------------------------------------------------------------------------------------------------------


def test_labels_are_words_or_ids(lm):
    labels = [" Paris", lm.token_id(" Paris"), torch.tensor(7)]
    runs = interchanges(lm, LAST, [(BASES[0], SOURCES[0], label) for label in labels])
    assert runs.labels.tolist() == [lm.token_id(" Paris"), lm.token_id(" Paris"), 7]


# -- what is refused, and what is left behind ---------------------------------------------------------------------------

ONE = [(BASES[0], SOURCES[0], 7)]


@pytest.mark.parametrize(
    "site, pairs, says",
    [
        (LAST, [], r"There are no pairs: each is \(base, source, label\)"),
        ("block_output", ONE, r"A language model's site is a Site, such as Site\('block_output', 8, -1\), and 'block_output'"),
        (Site("block_output", 3), ONE, "has 3 blocks, layers 0 to 2, and layer 3 was asked for"),
        (Site("query_output", 1, heads=4), ONE, "has 4 heads, 0 to 3, and head 4 was asked for"),
        (Site("attention_weight", 1), ONE, "attention_weight has shares of attention, and no vectors"),
        (Site("block_output", 1, positions=10), ONE, "Position 10 is outside row 0, which has 10 tokens"),
        (Site("block_output", 1, positions=4), PAIRS[1:2], "Position 4 is outside row 0, which has 3 tokens"),
        (Site("block_output", 1, positions=[1, 1]), ONE, "names a token of row 0 .* twice"),
        (Site("block_output", 1, positions=[]), ONE, "names no token of row 0"),
        (Site("block_output", 1, positions=[[1], [2]]), ONE, "all pairs are interchanged at one place: choose prompts"),
        (Site("block_output", 1), PAIRS, r"names a different number of tokens in different prompts \(\[3, 5, 10\]\): choose"),
        (Site("block_output", 1, positions=slice(1, None)), PAIRS, r"different prompts \(\[2, 4, 9\]\)"),
        (Site("block_output", 1), PAIRS[1:2], "names 5 tokens of the bases and 3 of the sources, which don't pair up"),
        (LAST, [(BASES[0], SOURCES[0], " Colosseum")], "' Colosseum' is 4 tokens for .*, and one token was expected"),
        (LAST, [(BASES[0], SOURCES[0], 60000)], "Token id 60000 is outside the vocabulary"),
        (LAST, [(BASES[0], "", 7)], "A prompt is empty"),
        (LAST, [(torch.tensor([[1, 2]]), SOURCES[0], 7)], "A prompt is a string or a sequence of token ids, and Tensor was given"),
        (LAST, [(BASES[0], 3, 7)], "A prompt is a string or a sequence of token ids, and int was given: 3"),
        (LAST, [([1, 2.5], SOURCES[0], 7)], r"A prompt is a string or a sequence of token ids, and list was given: \[1, 2.5\]"),
    ],
)  # fmt: skip
def test_pairs_that_do_not_fit_are_refused_and_leave_no_trace(lm, site, pairs, says):
    before = snapshot(lm)
    with pytest.raises(ValueError, match=says):
        interchanges(lm, site, pairs)
    assert_untouched(lm, before)
    assert resume.can_resume(lm)


@pytest.mark.parametrize("component", ["block_output", "mlp_output"])
def test_values_of_another_shape_leave_no_hooks(lm, component, way):
    runs, before = interchanges(lm, Site(component, 1, positions=-1), PAIRS), snapshot(lm)
    for values in (rand(3, 1, 31), rand(2, 1, 32), rand(3, 2, 32)):
        with pytest.raises((RuntimeError, ValueError)):
            runs.finish(torch.arange(3), values)
    assert_untouched(lm, before)


def test_a_block_that_fails_leaves_no_hooks(lm, monkeypatch):
    before = snapshot(lm)

    def broken(*args, **kwargs):
        raise ZeroDivisionError

    for way in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("interp_helpers.das.interchange.can_resume", lambda lm, way=way: way)
            runs = interchanges(lm, Site("mlp_output", 1, positions=-1), PAIRS)
            patch.setattr(lm.anatomy.blocks[2], "forward", broken)
            with pytest.raises(ZeroDivisionError):
                runs.finish(torch.arange(3), rand(3, 1, 32))
            patch.setattr(lm.anatomy.blocks[0], "forward", broken)
            with pytest.raises(ZeroDivisionError):
                interchanges(lm, Site("mlp_output", 1, positions=-1), PAIRS)
        assert_untouched(lm, before)


def test_while_frozen_no_weight_asks_for_gradients_and_dropout_is_off():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4)), nn.Linear(4, 4))
    model[2].weight.requires_grad_(False)
    model[1][1].eval()
    for error in (None, ZeroDivisionError):
        try:
            with frozen(model):
                assert not any(weight.requires_grad for weight in model.parameters())
                assert not any(module.training for module in model.modules())
                if error:
                    raise error
        except ZeroDivisionError:
            pass
        assert [weight.requires_grad for weight in model.parameters()] == [True, True, True, True, False, True]
        assert [m.training for m in model.modules()] == [True, True, True, True, False, True]


# -- any module ---------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """Images (1, 4, 4) to three classes, with parts inside of parts."""

    def __init__(self, inplace=False):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.see = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 6))
            self.act = nn.ReLU(inplace)
            self.think = nn.ModuleDict({"deep": nn.Sequential(nn.Linear(6, 5), nn.Tanh())})
            self.say = nn.Linear(5, 3)

    def forward(self, x):
        return self.say(self.think["deep"](self.act(self.see(x))))


IMAGES = rand(5, 1, 4, 4)
IMAGE_PAIRS = [(IMAGES[i], IMAGES[(i + 1) % 5], i % 3) for i in range(5)]


def rest(net, name, h):
    """What follows a site, written out."""
    if name == "see.2":
        h = net.think["deep"](torch.relu(h))
    elif name == "think.deep.0":
        h = torch.tanh(h)
    return net.say(h)


@pytest.mark.parametrize("name, width", [("see.2", 6), ("think.deep.0", 5), ("think.deep", 5)])
@pytest.mark.parametrize("inplace", [False, True])
def test_a_plain_module_is_finished_from_a_submodule_by_name(name, width, inplace):
    net, rows = Net(inplace), torch.tensor([3, 0, 0])
    runs = interchanges(net, name, IMAGE_PAIRS)
    assert runs.shape == (1, width) and runs.labels.tolist() == [0, 1, 2, 0, 1]
    values = rand(3, 1, width).requires_grad_()
    before = values.detach().clone()
    logits, expected = runs.finish(rows, values), rest(net, name, values[:, 0])
    close(logits, expected)
    close(gradients(logits, values)[0], gradients(expected, values)[0])
    assert torch.equal(values, before)
    close(runs.finish(rows, runs.base(rows)), net(IMAGES[rows]))
    close(runs.finish(rows, runs.source(rows)), net(IMAGES[[4, 1, 1]]))
    assert not any(module._forward_hooks for module in net.modules())
    assert all(weight.grad is None and weight.requires_grad for weight in net.parameters())


def test_a_module_without_weights():
    runs = interchanges(nn.Sequential(nn.Tanh(), nn.Softmax(-1)), "0", [(rand(4), rand(4, seed=1), 2)])
    close(runs.finish(torch.tensor([0]), runs.source(torch.tensor([0]))), rand(4, seed=1).tanh().softmax(-1)[None])


def test_below_a_frozen_module_s_site_nothing_is_in_the_graph():
    net, values = Net(), rand(5, 1, 5).requires_grad_()
    with frozen(net):
        logits = interchanges(net, "think.deep.0", IMAGE_PAIRS).finish(torch.arange(5), values)
    assert [id(leaf) for leaf in leaves(logits)] == [id(values)]


class Odd(nn.Module):
    """Submodules that are no site."""

    def __init__(self):
        super().__init__()
        self.lstm, self.act, self.wide, self.idle = nn.LSTM(4, 4), nn.ReLU(), nn.Unflatten(-1, (2, 2)), nn.Linear(4, 4)

    def forward(self, x):
        return self.wide(self.act(self.lstm(self.act(x))[0])).flatten(1)


VECTORS = [(rand(4), rand(4, seed=1), 0)]


@pytest.mark.parametrize(
    "site, pairs, says",
    [
        ("thinking", VECTORS, "There is no submodule 'thinking': it is one of 'lstm', 'act', 'wide', 'idle'"),
        (LAST, VECTORS, "A plain module's site is the name of a submodule, such as 'layers.0', and Site"),
        ("lstm", VECTORS, r"a submodule whose output is one tensor \(batch, d\)"),
        ("wide", VECTORS, r"a submodule whose output is one tensor \(batch, d\)"),
        ("act", VECTORS, "The submodule 'act' runs 2 times in one run, and a site is one place"),
        ("idle", VECTORS, "The submodule 'idle' runs 0 times in one run"),
        ("lstm", [(rand(4), rand(5), 0)], r"bases and sources are tensors of one shape, and \(4,\), \(5,\) were given"),
        ("lstm", [(rand(4), "x", 0)], r"tensors of one shape, and \(4,\), str were given"),
        ("lstm", [([0.0, 1.0], rand(2), 0)], r"tensors of one shape, and \(2,\), list were given"),
        ("lstm", [], "There are no pairs"),
    ],
)
def test_what_is_no_site_or_no_input_of_a_plain_module_is_refused_and_leaves_no_hooks(site, pairs, says):
    net = Odd()
    with pytest.raises(ValueError, match=says):
        interchanges(net, site, pairs)
    assert not any(module._forward_hooks for module in net.modules())


def test_a_plain_module_that_fails_is_left_without_hooks():
    net = Net()
    runs = interchanges(net, "see.2", IMAGE_PAIRS)
    with pytest.raises(RuntimeError):
        runs.finish(torch.arange(5), rand(5, 1, 7))
    assert not any(module._forward_hooks for module in net.modules())
