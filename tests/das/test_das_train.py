"""DAS finds the subspace where a network was built to keep a variable, finds none where it keeps none, and refuses what would
only look like learning; its accuracies are plain counts over plain interchanges."""

from __future__ import annotations

from functools import cache
from statistics import mean

import pytest
import torch
from plain import assert_untouched, close, snapshot
from tiny import tiny
from torch import nn

from interp_helpers import (
    BoundlessSubspace,
    Counterfactual,
    RotatedSubspace,
    Site,
    class_means,
    compare_subspaces,
    counterfactual_pairs,
    interchange_accuracy,
    interchange_logits,
    intervene,
    pairs,
    principal_angles,
    principal_components,
    pronouns,
    record,
    replace,
    swap_subspace,
    train_das,
)
from interp_helpers.das import interchange, train
from interp_helpers.das.counterfactuals import require_held_out


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# -- a network whose variables are known --------------------------------------------------------------------------------

D = 8
TRUTH = torch.linalg.qr(rand(D, 3, seed=1)).Q  # the directions of the first, the second and an unused variable


class Truth(nn.Module):
    """Reads its input into a rotated space, and says in which of four quadrants it is along two directions of it. (What
    follows the site may be noisy in training.)"""

    def __init__(self, noise=0.0):
        super().__init__()
        self.read = nn.Linear(D, D, bias=False)
        self.read.weight.data = torch.linalg.qr(rand(D, D)).Q
        self.say = nn.Sequential(nn.Dropout(noise), nn.Linear(D, 4, bias=False))
        signs = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
        self.say[1].weight.data = 5 * signs @ TRUTH[:, :2].mT

    def forward(self, x):
        return self.say(self.read(x))


@pytest.fixture
def net():
    """The network, which each test must leave as it was."""
    model = Truth().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    yield model
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    assert not any(module.training or module._forward_hooks for module in model.modules())


def variable(net, x, which):
    return int((net.read(x) @ TRUTH[:, which]).item() > 0)


def quadrant(first, second):
    return 2 * first + second


def pairs_of(net, n, seed, which=0):
    """Pairs whose label is the base's quadrant, once one of its variables is the source's; of the unused one, too, which is
    a wrong model: there the second variable is said to be the unused one's."""
    found = []
    for base, source in zip(rand(n, D, seed=seed), rand(n, D, seed=seed + 1000), strict=True):
        first, second = variable(net, base, 0), variable(net, base, 1)
        theirs = variable(net, source, which)
        found.append(Counterfactual(base, source, quadrant(theirs, second) if which == 0 else quadrant(first, theirs)))
    return found


FAST = dict(steps=120, lr=0.05, batch_size=32)


def same_history(one, other, atol=1e-4):
    for name in ("loss", "accuracy"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=atol), name


# -- the ground truth is found ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_direction_of_a_variable_is_found(net, which, seed):
    subspace = RotatedSubspace(D, 1, seed=seed)
    assert interchange_accuracy(net, "read", subspace, pairs_of(net, 200, 7, which)) < 0.8
    history = train_das(net, "read", subspace, pairs_of(net, 128, 0, which), seed=seed, **FAST)
    assert principal_angles(subspace.basis, TRUTH[:, which : which + 1]).item() < 5
    assert interchange_accuracy(net, "read", subspace, pairs_of(net, 200, 7, which)) > 0.95
    assert mean(history.loss[-10:]) < 0.2 * mean(history.loss[:10])


def test_a_subspace_of_higher_rank_contains_the_direction(net):
    subspace = RotatedSubspace(D, 3)
    train_das(net, "read", subspace, pairs_of(net, 128, 0), **FAST)
    assert principal_angles(subspace.basis, TRUTH[:, :1]).item() < 5
    assert principal_angles(subspace.basis, TRUTH[:, 1:2]).item() > 80  # and not the other variable's, which is to stay


def test_a_wrong_model_of_the_network_is_not_made_right_by_training(net):
    subspace = RotatedSubspace(D, 1)
    history = train_das(net, "read", subspace, pairs_of(net, 128, 0, which=2), **FAST)
    assert interchange_accuracy(net, "read", subspace, pairs_of(net, 200, 7, which=2)) < 0.7
    assert mean(history.loss[-10:]) > 0.5


def test_without_a_boundary_the_size_is_found_too(net):
    subspace = BoundlessSubspace(D, temperature=(2.0, 0.1), penalty=2.0)
    history = train_das(net, "read", subspace, pairs_of(net, 128, 0), **(FAST | dict(steps=200, lr=0.03)))
    assert subspace.temperature.item() == pytest.approx(0.1)  # as cold as it is to become
    assert subspace.rank <= 3 and history.loss[-1] < history.loss[0]
    assert principal_angles(subspace.hard().basis, TRUTH[:, :1]).item() < 10
    for one in (subspace, subspace.hard()):
        assert interchange_accuracy(net, "read", one, pairs_of(net, 200, 7)) > 0.9


def test_the_penalty_is_part_of_the_loss(net):
    losses = []
    for penalty in (0.0, 100.0):
        subspace = BoundlessSubspace(D, penalty=penalty)
        losses.append(train_das(net, "read", subspace, pairs_of(net, 32, 0), steps=1).loss[0])
    assert losses[1] - losses[0] == pytest.approx(50, abs=1e-3)


@pytest.mark.parametrize("temperatures", [[9.0, 7.0, 5.0, 3.0, 1.0], [9.0]])
def test_it_anneals_from_the_first_temperature_to_the_last_as_the_steps_go(net, temperatures):
    found = []

    class Watched(BoundlessSubspace):
        def swap(self, base, source):
            found.append(self.temperature.item())
            return super().swap(base, source)

    subspace = Watched(D, temperature=(9.0, 1.0))
    train_das(net, "read", subspace, pairs_of(net, 32, 0), steps=len(temperatures))
    assert found == pytest.approx(temperatures) and subspace.temperature.item() == 1.0, (
        "it ends at the last in any case"
    )


# -- how it is trained --------------------------------------------------------------------------------------------------


def test_a_seed_decides_everything_and_the_global_random_state_is_left_alone(net):
    state = torch.get_rng_state()
    runs = []
    for seed in (0, 0, 1):
        subspace = RotatedSubspace(D, 2)
        runs.append((train_das(net, "read", subspace, pairs_of(net, 50, 0), steps=20, seed=seed), subspace.basis))
    assert torch.equal(torch.get_rng_state(), state)
    assert runs[0][0] == runs[1][0] and torch.equal(runs[0][1], runs[1][1])
    assert runs[0][0].loss != runs[2][0].loss and not torch.equal(runs[0][1], runs[2][1])


def test_every_pair_is_seen_once_an_epoch_in_a_new_order():
    batches = train.random_batches(10, 4, torch.Generator().manual_seed(0))
    seen = torch.cat([next(batches) for _ in range(5)]).tolist()
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10)) and seen[:10] != seen[10:]
    assert sorted(next(train.random_batches(3, 7, torch.Generator()))[:6].tolist()) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("steps", [1, 33])
def test_a_history_has_a_loss_and_an_accuracy_a_step(net, steps):
    history = train_das(net, "read", RotatedSubspace(D, 2), pairs_of(net, 40, 0), steps=steps)
    assert len(history.loss) == len(history.accuracy) == steps
    assert all(0 <= share <= 1 for share in history.accuracy)


def test_the_first_loss_is_the_cross_entropy_of_the_labels_and_the_first_step_has_the_full_rate(net):
    pairs, subspace = pairs_of(net, 40, 0), RotatedSubspace(D, 2)
    start = subspace.weight.detach().clone()
    logits = interchange_logits(net, "read", subspace, pairs)
    labels = torch.tensor([pair.label for pair in pairs])
    history = train_das(net, "read", subspace, pairs, steps=1, batch_size=40, lr=0.02)
    assert history.loss[0] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert history.accuracy[0] == (logits.argmax(-1) == labels).double().mean().item()
    close((subspace.weight - start).abs(), torch.full_like(start, 0.02), atol=1e-4)  # Adam's first step


def test_a_history_reads_itself(net):
    history = train_das(net, "read", RotatedSubspace(D, 1), pairs_of(net, 64, 0), **FAST)
    (first, *_, last), accuracy = history.loss, history.accuracy
    assert repr(history) == (
        f"History of {FAST['steps']} steps: loss {first:.2f} → {last:.2f}, batch IIA {accuracy[0]:.2f} → {accuracy[-1]:.2f}"
    )


def test_dropout_is_off_and_the_mode_restored(net):
    noisy, pairs = Truth(noise=0.5), pairs_of(net, 40, 0)
    noisy.read.requires_grad_(False)
    histories = []
    for model in (net, noisy):
        subspace = RotatedSubspace(D, 1)
        histories.append(train_das(model, "read", subspace, pairs, steps=20))
        assert interchange_accuracy(model, "read", subspace, pairs) == interchange_accuracy(
            net, "read", subspace, pairs
        )
    assert histories[0] == histories[1]
    comparisons = [compare_subspaces(m, "read", pairs, pairs_of(net, 20, 9), steps=3, seeds=(0,)) for m in (net, noisy)]
    assert comparisons[0].train == comparisons[1].train and comparisons[0].test == comparisons[1].test
    assert all(module.training for module in noisy.modules())
    assert [weight.requires_grad for weight in noisy.parameters()] == [False, True]
    with pytest.raises(ValueError, match="of 5 dimensions"):
        train_das(noisy, "read", RotatedSubspace(5, 1), pairs)
    assert all(module.training for module in noisy.modules())


def test_controls_are_measured_without_dropout(net):
    class Noisy(Truth):
        def forward(self, x):
            return self.say(self.read(nn.functional.dropout(x, 0.5, self.training)))

    pairs, test, noisy = pairs_of(net, 40, 0), pairs_of(net, 20, 9), Noisy()
    state = torch.get_rng_state()
    ours = compare_subspaces(noisy, "read", pairs, test, steps=2, seeds=(0,)).subspaces
    theirs = compare_subspaces(net, "read", pairs, test, steps=2, seeds=(0,)).subspaces
    for name in ("PCA, rank 1", "class means"):
        close(ours[name][0].basis, theirs[name][0].basis)
    assert torch.equal(torch.get_rng_state(), state)


class Custom(nn.Module):
    """Anything that has a swap and something to learn."""

    def __init__(self):
        super().__init__()
        self.direction = nn.Parameter(rand(D))

    def swap(self, base, source):
        u = self.direction / self.direction.norm()
        return base + ((source - base) @ u)[..., None] * u


def test_a_module_of_ones_own_is_trained_too(net):
    subspace = Custom()
    history = train_das(net, "read", subspace, pairs_of(net, 128, 0), **FAST)
    assert interchange_accuracy(net, "read", subspace, pairs_of(net, 100, 7)) > 0.9
    assert len(history.loss) == FAST["steps"]


def test_what_does_not_ask_for_gradients_is_not_trained(net):
    subspace = BoundlessSubspace(D)
    subspace.boundary.requires_grad_(False)
    before = subspace.weight.detach().clone()
    train_das(net, "read", subspace, pairs_of(net, 128, 0), steps=3)
    assert subspace.boundary.item() == 0.5 and not subspace.boundary.requires_grad
    assert not torch.equal(subspace.weight, before)
    with pytest.raises(ValueError, match="There is nothing to train in"):
        train_das(net, "read", RotatedSubspace(D, 1).requires_grad_(False), pairs_of(net, 32, 0))


def test_it_learns_where_gradients_are_off(net):
    subspaces = RotatedSubspace(D, 2), RotatedSubspace(D, 2)
    with torch.no_grad():
        history = train_das(net, "read", subspaces[0], pairs_of(net, 32, 0), steps=3)
        assert not torch.is_grad_enabled()
    assert history == train_das(net, "read", subspaces[1], pairs_of(net, 32, 0), steps=3)


def test_where_there_are_no_gradients_it_says_so(net):
    pairs = pairs_of(net, 32, 0)
    with (
        torch.inference_mode(),
        pytest.raises(ValueError, match=r"Nothing can be learnt inside torch.inference_mode\(\)"),
    ):
        train_das(net, "read", RotatedSubspace(D, 1), pairs, steps=1)


def test_a_single_pair_and_a_batch_larger_than_the_pairs(net):
    pairs = [pair for pair in pairs_of(net, 40, 0) if pair.label != net(pair.base[None]).argmax().item()][:1]
    subspace = RotatedSubspace(D, 1)
    history = train_das(net, "read", subspace, iter(pairs), steps=60, lr=0.05)
    assert history.accuracy[-1] == 1.0 and interchange_accuracy(net, "read", subspace, pairs) == 1.0


# -- accuracies ---------------------------------------------------------------------------------------------------------


def test_none_is_the_whole_component_and_full_rank_the_same(net):
    pairs = pairs_of(net, 150, 0)  # more than are run at once
    sources = torch.stack([pair.source for pair in pairs])
    whole = interchange_logits(net, "read", None, pairs)
    close(whole, net(sources).detach())
    for subspace in (RotatedSubspace(D, D), torch.linalg.qr(rand(D, D)).Q):
        close(interchange_logits(net, "read", subspace, pairs), whole, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 7, 64, 1000])
def test_an_accuracy_is_a_count_over_plain_interchanges_however_many_run_at_once(net, rows, monkeypatch):
    monkeypatch.setattr(interchange, "ROWS", rows)
    pairs, basis = pairs_of(net, 20, 0), torch.linalg.qr(rand(D, 3, seed=9)).Q
    with torch.no_grad():
        right = 0
        for base, source, label in pairs:
            h = net.read(base)
            h = h + (net.read(source) - h) @ basis @ basis.mT
            right += int(net.say(h).argmax()) == label
    subspace = RotatedSubspace(D, 3, start=basis)
    assert 0 < right < 20
    for kind in (iter(pairs), [list(pair) for pair in pairs]):
        assert interchange_accuracy(net, "read", subspace, kind) == right / 20
    assert interchange_accuracy(net, "read", basis, pairs) == right / 20
    assert not interchange_logits(net, "read", subspace, pairs).requires_grad


def test_answers_are_ranked_among_themselves(net):
    pairs = [(pair.base, pair.source, 3) for pair in pairs_of(net, 60, 0)]
    logits = interchange_logits(net, "read", None, pairs)
    expected = (logits[:, 3] > logits[:, 1]).double().mean().item()
    assert expected > interchange_accuracy(net, "read", None, pairs)
    for answers in ([3, 1], (1, 3), {1, 3}, iter([1, 3]), torch.tensor([1, 3])):
        assert interchange_accuracy(net, "read", None, pairs, answers=answers) == expected
    assert interchange_accuracy(net, "read", None, pairs, answers=[3]) == 1.0


# -- on a language model ------------------------------------------------------------------------------------------------

NAMES = [" Mary", " John", " Anna", " Paul", " Lisa", " Mark", " Rome", " Paris", " Henry", " Jack", " Kate", " Sam"]
WORDS = """he she it they we you one man woman boy girl dog cat house car tree sun day night time year way life hand eye word
water fire red blue green black white good bad big small old new king queen city town book door room street home""".split()
PLACE = Site("block_output", 1, positions=1)


def prompts_of(start):
    return [f"{start}{name} got{tail}" for name in NAMES for tail in (" home", " home again")]


def changes(lm, site, start):
    """Base and source prompts, and the logits of `WORDS` before and after the whole component is interchanged."""
    prompts, ids = prompts_of(start), [lm.token_id(f" {word}") for word in WORDS]
    draws = torch.randint(len(prompts), (160, 2), generator=torch.Generator().manual_seed(0)).tolist()
    both = [(prompts[i], prompts[j], 7) for i, j in draws]
    before = lm.next_token_logits(prompts)[[i for i, _ in draws]]
    return both, before[:, ids], interchange_logits(lm, site, None, both)[:, ids]


@cache
def answers_at(lm, site):
    """Two words that this random model, which knows nothing of names, tells apart by them: between which the interchange
    decides in as many pairs as can be."""
    turned = []
    for start in ("When", "As"):
        _, before, after = changes(lm, site, start)
        better = [logits[:, :, None] > logits[:, None] for logits in (before, after)]
        turned.append((better[0] != better[1]).float().mean(0))
    shares = torch.minimum(*turned)
    one, other = divmod(int(shares.argmax()), len(WORDS))
    assert shares.max() > 0.05
    return f" {WORDS[one]}", f" {WORDS[other]}"


@cache
def pairs_for(lm, site, start, n=40):
    """Pairs whose label is what the model answers once the whole component is the source's, which can thus be learnt; in some of
    them it is not the base's answer."""
    answers = answers_at(lm, site)
    both, before, after = changes(lm, site, start)
    columns = [WORDS.index(answer[1:]) for answer in answers]
    before, after = before[:, columns].argmax(1).tolist(), after[:, columns].argmax(1).tolist()
    order = sorted(range(len(both)), key=lambda i: before[i] == after[i])
    some = order[: n // 2] + order[-(n - n // 2) :]
    assert sum(before[i] != after[i] for i in some) >= min(4, n // 2)
    return [(*both[i][:2], answers[after[i]]) for i in some]


def test_an_accuracy_on_a_language_model_is_that_of_the_edit(lm):
    pairs, subspace = pairs_for(lm, PLACE, "When", n=10), RotatedSubspace(32, 4)
    for edited in (None, subspace, subspace.basis.detach()):
        right, logits = 0, []
        for base, source, label in pairs:
            acts = record(lm, source, "block_output")
            edit = replace(PLACE, acts) if edited is None else swap_subspace(PLACE, acts, edited)
            with intervene(lm, edit):
                logits.append(lm.next_token_logits(base)[0])
            right += int(logits[-1].argmax()) == lm.token_id(label)
        close(interchange_logits(lm, PLACE, edited, pairs), torch.stack(logits), atol=1e-4)
        assert interchange_accuracy(lm, PLACE, edited, pairs) == right / 10


def test_das_learns_on_a_language_model(lm):
    train, answers = pairs_for(lm, PLACE, "When"), answers_at(lm, PLACE)
    subspace, start = RotatedSubspace(32, 8), RotatedSubspace(32, 8)
    history = train_das(lm, PLACE, subspace, train, answers=answers, steps=60, lr=0.03)
    assert mean(history.loss[-10:]) < 0.9 * mean(history.loss[:10])
    whole, learnt, before = (
        interchange_accuracy(lm, PLACE, one, train, answers=answers) for one in (None, subspace, start)
    )
    assert whole == 1.0 and learnt > before + 0.1


@pytest.mark.parametrize("component, heads", [("value_output", 1), ("value_output", [0, 3]), ("mlp_activation", None)])
def test_das_in_heads_and_in_other_components(lm, component, heads):
    site = Site(component, 1, positions=[1, -1], heads=heads)
    stream = Site("block_output", 1, positions=[1, -1])
    pairs, answers = pairs_for(lm, stream, "When", n=16), answers_at(lm, stream)
    width = site.place(lm).shape[-1]
    history = train_das(lm, site, RotatedSubspace(width, 4), pairs, answers=answers, steps=20, lr=0.05)
    assert history.loss[-1] < history.loss[0]


def test_runs_that_are_not_kept_give_the_same(lm, monkeypatch):
    train, runs = pairs_for(lm, PLACE, "When"), []
    for keep in (2**30, 0):
        monkeypatch.setattr(interchange, "KEEP", keep)
        subspace = RotatedSubspace(32, 4)
        options = dict(answers=answers_at(lm, PLACE), steps=12, lr=0.03)
        runs.append((train_das(lm, PLACE, subspace, train, **options), subspace.basis))
    same_history(runs[0][0], runs[1][0])
    close(runs[0][1], runs[1][1], atol=1e-4)


def test_runs_are_kept_up_to_so_many_bytes(lm, monkeypatch):
    pairs = [Counterfactual(base, "As Mary got home", 7) for base in prompts_of("When")[:4]] * 3
    bytes_of = 3 * (4 * max(len(lm.str_tokens(pair.base)) for pair in pairs)) * 3 * 32 * 4
    for keep, kept in ((bytes_of, True), (bytes_of - 1, False)):
        monkeypatch.setattr(interchange, "KEEP", keep)
        assert (interchange.Interchanges(lm, PLACE, pairs).finish.__name__ == "resumed") == kept


def test_inside_an_intervention_das_is_of_the_edited_model(lm):
    pairs = pairs_for(lm, PLACE, "When", n=16)
    clean = interchange_logits(lm, PLACE, None, pairs)
    with intervene(lm, replace(Site("mlp_output", 2, positions=-1), rand(32))):
        assert (interchange_logits(lm, PLACE, None, pairs) - clean).abs().max() > 1e-2
        history = train_das(lm, PLACE, RotatedSubspace(32, 4), pairs, answers=answers_at(lm, PLACE), steps=4)
    assert len(history.loss) == 4


def test_das_on_a_model_in_half_precision():
    lm = tiny("llama")
    pairs = pairs_for(lm, PLACE, "When", n=16)
    lm.model.bfloat16()
    subspace = RotatedSubspace(32, 4)
    history = train_das(lm, PLACE, subspace, pairs, answers=answers_at(lm, PLACE), steps=30, lr=0.05)
    assert subspace.basis.dtype == torch.float32
    assert mean(history.loss[-5:]) < mean(history.loss[:5])


def test_a_language_model_in_training_mode_is_trained_on_without_dropout_and_left_in_it():
    lm = tiny("gpt2")
    pairs = pairs_for(lm, PLACE, "When", n=16)
    histories = []
    for training in (False, True):
        lm.model.train(training)
        before = snapshot(lm)
        histories.append(train_das(lm, PLACE, RotatedSubspace(32, 2), pairs, answers=answers_at(lm, PLACE), steps=3))
        assert_untouched(lm, before)
    assert histories[0] == histories[1]


# -- what is refused ----------------------------------------------------------------------------------------------------


def everything_as_it_was(subspace, before):
    return all(torch.equal(now, before[name]) for name, now in subspace.state_dict().items())


NOTHING_LEARNT = {
    "no pairs": (lambda net: dict(pairs=[]), r"There are no pairs: each is \(base, source, label\)"),
    "no steps": (lambda net: dict(steps=0), "Training takes steps and batches of one or more: steps=0, batch_size=16"),
    "no batch": (lambda net: dict(batch_size=0), "steps and batches of one or more: steps=100, batch_size=0"),
    "source = base": (
        lambda net: dict(pairs=[(x, x.clone(), 0) for x in rand(3, D)]),
        "In every pair the source is the base itself, so the interchange changes nothing.*no gradient to learn from",
    ),
    "several subspaces": (lambda net: dict(subspace=[RotatedSubspace(D, 1)] * 2), r"There is nothing to train in \[RotatedSubspace"),
    "labels of the base": (
        lambda net: dict(pairs=[(p.base, p.source, int(net(p.base).argmax())) for p in pairs_of(net, 150, 0)]),
        "gives the label without any intervention in all of 150 pairs, so there is nothing to learn: a label is what the base's",
    ),
    "labels of neither": (
        lambda net: dict(pairs=[(p.base, p.source, (int(net(p.source).argmax()) + 1) % 4) for p in pairs_of(net, 150, 0)]),
        r"with the whole component interchanged the label comes out in none of 150 pairs \(in the first, . does instead of .\): is "
        "the variable kept at read, and are the labels right",
    ),
    "another width": (lambda net: dict(subspace=RotatedSubspace(5, 1)), "one of 5 dimensions, and activations at the site have 8"),
    "a tensor": (lambda net: dict(subspace=TRUTH), "There is nothing to train in tensor"),
    "nothing": (lambda net: dict(subspace=None), "There is nothing to train in None: give a RotatedSubspace or"),
    "a name": (lambda net: dict(subspace="read"), "There is nothing to train in 'read'"),
    "a label of no class": (lambda net: dict(pairs=[(rand(D), rand(D, seed=1), 4)]), r"Labels are classes, 0 to 3, and \[4\]"),
    "a label of no answer": (lambda net: dict(answers=iter([0, 1])), r"Every label is one of the answers, \[0, 1\], and some are"),
    "an answer": (lambda net: dict(answers=" he"), "answers is a list of words that compete, .* and ' he' alone was given"),
    "two of three": (lambda net: dict(pairs=[("a", "b")]), r"Each pair is \(base, source, label\), and \('a', 'b'\) was given"),
    "facts": (lambda net: dict(pairs=pairs("capital")), r"and Pair\(base=.* was given: of a pair of facts make Counterfactual"),
    "no answers": (lambda net: dict(answers=[]), r"Every label is one of the answers, \[\], and some are not"),
    "no site": (lambda net: dict(site="think"), "There is no submodule 'think'"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOTHING_LEARNT)
def test_where_nothing_can_be_learnt_it_is_refused_and_nothing_changes(net, case):
    change, says = NOTHING_LEARNT[case]
    arguments = dict(site="read", subspace=RotatedSubspace(D, 1), pairs=pairs_of(net, 40, 0)) | change(net)
    modules = nn.ModuleList(m for m in [arguments["subspace"]] if isinstance(m, nn.Module))
    before = {name: tensor.clone() for name, tensor in modules.state_dict().items()}
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=says):
        train_das(net, **arguments)
    assert everything_as_it_was(modules, before) and torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None and weight.requires_grad for weight in modules.parameters())


@pytest.mark.parametrize("order", [1, -1])
def test_a_few_pairs_to_learn_from_are_enough_wherever_they_stand(net, order):
    pairs = pairs_of(net, 400, 0)
    idle = [pair for pair in pairs if int(net(pair.base).argmax()) == pair.label][:70]
    busy = [pair for pair in pairs if int(net(pair.base).argmax()) != pair.label][:3]
    history = train_das(net, "read", RotatedSubspace(D, 1), (idle + busy)[::order], steps=2)
    assert len(history.loss) == 2
    never = [pair._replace(label=(int(net(pair.source).argmax()) + 1) % 4) for pair in pairs[:70]]
    assert len(train_das(net, "read", RotatedSubspace(D, 1), (never + busy)[::order], steps=2).loss) == 2


def test_the_word_that_came_out_instead_is_named(lm):
    pairs = [("When Mary got home", "When John got home", " he"), ("When John got home", "When Mary got home", " she")]
    said = [lm.top_of(row, 1)[0][0] for row in interchange_logits(lm, PLACE, None, pairs)]
    before, subspace = snapshot(lm), RotatedSubspace(32, 1)
    with pytest.raises(ValueError) as error:
        train_das(lm, PLACE, subspace, pairs)
    assert f"in none of 2 pairs (in the first, {said[0]!r} does instead of ' he')" in str(error.value)
    assert "is the variable kept at Site('block_output', 1, positions=1)" in str(error.value)
    assert_untouched(lm, before)
    assert torch.equal(subspace.weight, RotatedSubspace(32, 1).weight)
    answers = [" he", " cat", " dog"]
    ids = [lm.token_id(answer) for answer in answers]
    best = answers[interchange_logits(lm, PLACE, None, pairs)[0, ids].argmax()]
    wrong = next(answer for answer in answers if answer != best)
    with pytest.raises(ValueError) as error:
        train_das(lm, PLACE, subspace, [(*pairs[0][:2], wrong)], answers=answers)
    message = str(error.value)
    assert f"(in the first, {best!r} does instead of {wrong!r})" in message or "gives the label without any" in message


def test_prompts_on_both_sides_are_refused_whatever_their_role(lm):
    train = [("When Mary got home", "When John got home", " he"), ("When Anna got home", "When Paul got home", " he")]
    for base, source in (("When Mary got home", "As Paul did"), ("As Paul did", "When Paul got home")):
        with pytest.raises(
            ValueError, match="1 of the test pairs' prompts are trained on as well, 'When.*hold out whole items"
        ):
            compare_subspaces(lm, PLACE, train, [(base, source, " he")])
    ids = lm.tokens("When Mary got home")[0]
    with pytest.raises(ValueError, match="2 of the test pairs' prompts are trained on as well, tensor"):
        require_held_out([Counterfactual(ids, ids.flip(0), 7)], [Counterfactual(ids.flip(0), ids.clone(), 7)])
    require_held_out([Counterfactual("a", "b", 7)], [Counterfactual("c", "d", 7)])


@pytest.mark.parametrize(
    "subspace, says",
    [
        (RotatedSubspace(5, 2), "The subspace is one of 5 dimensions, and activations at the site have 8"),
        (torch.eye(5)[:, :2], "The subspace is one of 5 dimensions, and activations at the site have 8"),
        (TRUTH * 2, r"a tensor of shape \(8, 3\), is not \(d, rank\) with orthonormal columns: make it so with torch.linalg.qr"),
        (TRUTH[:, :0], r"a tensor of shape \(8, 0\), has no direction: give one at least"),
        (TRUTH[:, 0], r"a tensor of shape \(8,\), is not \(d, rank\)"),
        (TRUTH.numpy(), "A subspace is a tensor .* or an object with a method swap, and ndarray was given"),
        ("read", "A subspace is a tensor .* and str was given"),
        ([None, None], "A subspace is a tensor .* and list was given"),
    ],
)  # fmt: skip
def test_what_is_no_subspace_of_the_site_is_refused(net, subspace, says):
    for ask in (interchange_accuracy, interchange_logits):
        with pytest.raises(ValueError, match=says):
            ask(net, "read", subspace, pairs_of(net, 3, 0))


@pytest.mark.parametrize("at, says", [(3, "Position 3 is outside row"), ([], "names no token of row")])
@pytest.mark.parametrize("side", [0, 1])
def test_a_place_that_a_prompt_has_not_names_the_prompt(lm, side, at, says):
    pairs = [("When Mary got home", "When John got home", " he")] * 2  # counted once
    short = ("When Eve", "When John got home")[:: 1 - 2 * side]
    with pytest.raises(ValueError, match=rf"{says} (\d), .* Row \1 is the prompt 'When (Eve|Mary got home)'\."):
        interchange_accuracy(lm, Site("block_output", 1, at), None, [*pairs, (*short, " he")])


def test_places_of_pairs_are_refused(lm):
    pairs, site = pairs_for(lm, PLACE, "When", n=4), Site("block_output", 1, [[1]] * 4)
    for ask in (interchange_logits, interchange_accuracy, train_das):
        with pytest.raises(
            ValueError, match="names a sequence of positions for each row, and all pairs are interchanged at one"
        ):
            ask(lm, site, RotatedSubspace(32, 1), pairs)


def test_no_pairs_and_labels_that_do_not_exist_are_refused(net, lm):
    for ask in (interchange_accuracy, interchange_logits):
        with pytest.raises(ValueError, match="There are no pairs"):
            ask(net, "read", None, [])
    pairs = [(rand(D), rand(D, seed=1), 4)]
    with pytest.raises(ValueError, match=r"Labels are classes, 0 to 3, and \[4\] were given"):
        interchange_accuracy(net, "read", None, pairs)
    with pytest.raises(ValueError, match=r"Every label is one of the answers, \[0, 1\], and some are not"):
        interchange_accuracy(net, "read", None, pairs_of(net, 9, 0), answers=(0, 1))
    with pytest.raises(ValueError, match="one token was expected"):
        interchange_accuracy(lm, PLACE, None, [("When Mary", "When John", " he")], answers=[" he", " Colosseum"])


# -- beside its controls ------------------------------------------------------------------------------------------------


@pytest.fixture
def compared(net):
    train, test = pairs_of(net, 64, 0), pairs_of(net, 40, 5)
    return (
        train,
        test,
        compare_subspaces(net, "read", train, test, ranks=(1, 2), seeds=(0, 1), **(FAST | dict(steps=60))),
    )


NAMES_OF_CONTROLS = {
    "whole component": 1, "random, rank 1": 2, "random, rank 2": 2, "class means": 1, "PCA, rank 1": 1, "PCA, rank 2": 1,
    "DAS, rank 1": 2, "DAS, rank 2": 2,
}  # fmt: skip


def test_a_comparison_names_every_control_and_has_one_accuracy_a_seed(net, compared):
    train, test, comparison = compared
    assert list(comparison.test) == list(comparison.train) == list(comparison.subspaces) == list(NAMES_OF_CONTROLS)
    for name, seeds in NAMES_OF_CONTROLS.items():
        assert len(comparison.test[name]) == len(comparison.train[name]) == len(comparison.subspaces[name]) == seeds
        for i, subspace in enumerate(comparison.subspaces[name]):
            assert comparison.train[name][i] == interchange_accuracy(net, "read", subspace, train)
            assert comparison.test[name][i] == interchange_accuracy(net, "read", subspace, test)
    assert comparison.pairs == (64, 40)


def test_the_controls_are_what_their_names_say(net, compared):
    train, _, comparison = compared
    sources = torch.stack([net.read(pair.source) for pair in train]).detach()
    labels = [pair.label for pair in train]
    assert comparison.subspaces["whole component"] == [None]
    for name, control in {
        "class means": class_means(sources, labels),
        "PCA, rank 2": principal_components(sources, 2),
        "random, rank 1": RotatedSubspace(D, 1, seed=0),
    }.items():
        close(comparison.subspaces[name][0].basis, control.basis, atol=1e-4)
    learnt = RotatedSubspace(D, 2, seed=1001)
    train_das(net, "read", learnt, train, seed=1, **(FAST | dict(steps=60)))
    assert torch.equal(comparison.subspaces["DAS, rank 2"][1].basis, learnt.basis)
    assert mean(comparison.test["DAS, rank 1"]) > 0.9 > max(comparison.test["random, rank 1"])


def test_a_comparison_is_read_as_a_table_and_drawn_as_bars(compared):
    comparison = compared[2]
    lines = repr(comparison).splitlines()
    assert lines[0].split() == "IIA trained on held out lowest to highest seed".split()
    assert [line.rstrip().startswith(name) for line, name in zip(lines[1:], NAMES_OF_CONTROLS, strict=False)] == [
        True
    ] * 8
    found = comparison.test["DAS, rank 1"]
    assert lines[7].endswith(f"{mean(found):.2f}  {min(found):.2f} to {max(found):.2f} (2 seeds)")
    assert lines[-1] == "64 pairs were trained on, 40 held out."
    assert max(map(len, lines)) < 100
    picture = comparison.plot("One direction is enough")
    assert picture.alt.startswith("One direction is enough interchange-intervention accuracy on 40 held-out pairs")
    assert all(f"{name} {mean(comparison.test[name]):.2f}" in picture.alt for name in NAMES_OF_CONTROLS)
    assert picture.png().startswith(b"\x89PNG")
    assert comparison.mean("DAS, rank 1") == mean(found)
    means = f"class means: {comparison.mean('class means'):.0%}; random, rank 1: "
    assert comparison.plot().alt.startswith(f"DAS, rank 1: {mean(found):.0%} of held-out pairs; {means}")


def test_words_and_ids_of_one_answer_are_one_class(lm):
    train, test = pairs_for(lm, PLACE, "When", n=20), pairs_for(lm, PLACE, "As", n=8)
    mixed = [(base, source, lm.token_id(label) if i % 2 else label) for i, (base, source, label) in enumerate(train)]
    options = dict(answers=answers_at(lm, PLACE), seeds=(0,), steps=2)
    one, other = (compare_subspaces(lm, PLACE, pairs, test, **options) for pairs in (train, mixed))
    assert one.subspaces["class means"][0].rank == 1
    close(one.subspaces["class means"][0].basis, other.subspaces["class means"][0].basis)
    assert one.test == other.test


def test_controls_that_cannot_be_are_left_out(net):
    train = [pair for pair in pairs_of(net, 200, 0) if pair.label == 3][:4]
    comparison = compare_subspaces(net, "read", train, pairs_of(net, 8, 5), ranks=(2, 4), seeds=(0,), steps=2)
    assert "class means" not in comparison.test  # one class
    equal = [pair._replace(source=train[0].source, label=i % 2) for i, pair in enumerate(train)]
    options = dict(ranks=(), seeds=(0,), force=True)
    assert "class means" not in compare_subspaces(net, "read", equal, pairs_of(net, 8, 5), **options).test
    assert "PCA, rank 2" in comparison.test and "PCA, rank 4" not in comparison.test  # four activations
    assert len(repr(comparison).splitlines()) == 2 + 6


def test_a_comparison_refuses_overlaps_several_places_and_what_training_refuses(net, lm):
    train = pairs_of(net, 20, 0)
    with pytest.raises(ValueError, match="2 of the test pairs' prompts are trained on as well"):
        compare_subspaces(net, "read", train, train[3:4])
    with pytest.raises(ValueError, match=r"seeds=\(\) names no seed: give one at least"):
        compare_subspaces(net, "read", train, pairs_of(net, 3, 9), seeds=())
    with pytest.raises(ValueError, match="In every pair the source is the base itself"):
        compare_subspaces(net, "read", [(x, x, i % 2) for i, x in enumerate(rand(4, D))], pairs_of(net, 3, 9))
    with pytest.raises(
        ValueError, match=r"of one activation a pair, and Site\(.*\) has \(2,\) of them: name a single position"
    ):
        pairs = pairs_for(lm, PLACE, "When", n=4)
        compare_subspaces(lm, Site("block_output", 1, [1, 2]), pairs, pairs_for(lm, PLACE, "As", n=4), force=True)


def test_pairs_ranks_and_answers_may_be_read_once(lm):
    train, test = pairs_for(lm, PLACE, "When", n=8), pairs_for(lm, PLACE, "As", n=8)
    how = dict(ranks=[1, 2], seeds=[0, 1], steps=2, answers=answers_at(lm, PLACE))
    expected = compare_subspaces(lm, PLACE, train, test, **how)
    how = {name: iter(value) if isinstance(value, list) else value for name, value in how.items()}
    assert compare_subspaces(lm, PLACE, iter(train), iter(test), **how).test == expected.test


def test_counterfactual_pairs_of_items_that_are_read_once_and_never_fewer_than_none():
    items = pronouns()[:8]
    assert counterfactual_pairs(iter(items), 5) == counterfactual_pairs(items, 5)
    assert counterfactual_pairs(items, 0) == []
    with pytest.raises(ValueError, match="8 items make 32 pairs with different answers, and -1 were asked for"):
        counterfactual_pairs(items, -1)
