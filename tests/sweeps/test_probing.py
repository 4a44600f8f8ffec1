"""Probes are scikit-learn's, held-out items are never met, and a share's error holds both uncertainties."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch
from tiny import tiny

from interp_helpers import Site, intervene, load_model, record
from interp_helpers.sweeps import at_last_token, fit_probe, mean_difference, probe, probing, push_heads, share_left


def data(layers: int = 3, rows: int = 40, d: int = 12, seed: int = 0):
    x = torch.randn(layers, rows, d, generator=torch.Generator().manual_seed(seed)) * torch.arange(1.0, d + 1) + 5
    return x, x[1, :, 2] > 5


@pytest.mark.parametrize("rows, d", [(40, 12), (30, 200)])
@pytest.mark.parametrize("c", [0.01, 1.0])
def test_a_probe_is_scikit_learns(rows, d, c):
    linear_model, pipeline = pytest.importorskip("sklearn.linear_model"), pytest.importorskip("sklearn.pipeline")
    from sklearn.preprocessing import StandardScaler

    x, y = data(rows=rows, d=d)
    ours = fit_probe(x, y, c=c)
    for layer in range(len(x)):
        theirs = linear_model.LogisticRegression(C=c, solver="liblinear", tol=1e-10, max_iter=10_000)
        fitted = pipeline.make_pipeline(StandardScaler(), theirs).fit(x[layer].numpy(), y.numpy())
        direction = torch.tensor(fitted[-1].coef_[0] / fitted[0].scale_, dtype=torch.float32)
        torch.testing.assert_close(ours.direction[layer], direction, atol=1e-5, rtol=1e-4)
        assert (fitted.predict(x[layer].numpy()) == ours.predict(x)[layer].numpy()).all()


def test_a_unit_that_never_changes_is_no_trouble():
    x, y = data()
    x[..., 0] = 7
    found = fit_probe(x, y)
    assert found.direction.isfinite().all() and (found.direction[..., 0] == 0).all()


def test_items_held_out_are_never_met():
    """Labels by item, and activations that tell the item and nothing else."""
    items = [i % 8 for i in range(64)]
    x = torch.nn.functional.one_hot(torch.tensor(items), 8).float()[None]
    labels = [item % 2 for item in items]
    assert probe(x, labels).mean == 1
    assert probe(x, labels, hold_out=items).mean < 0.6


def test_drawn_labels_are_averaged_over_draws():
    x, y = data()
    draws = [np.random.RandomState(seed).permutation(y.numpy()) for seed in range(3)]
    each = torch.stack([probe(x, labels).mean for labels in draws])
    found = probe(x, draws)
    torch.testing.assert_close(found.mean, each.mean(0))
    torch.testing.assert_close(found.error, each.std(0) / 3**0.5)


@pytest.mark.parametrize("ones, wanted", [(30, 0.75), (10, 0.75), (20, 0.5)])
def test_the_majority_is_the_commoner_labels_share(ones, wanted):
    x, _ = data()
    order = np.random.RandomState(0).permutation(40)
    assert probe(x, order < ones).majority == wanted


@pytest.mark.parametrize("as_", [list, tuple, iter, np.array, torch.tensor])
def test_labels_of_any_kind(as_):
    x, y = data()
    direction = fit_probe(x, as_([int(label) for label in y])).direction
    assert torch.equal(direction, fit_probe(x, y).direction)
    assert torch.equal(mean_difference(x, as_(y.tolist())), x[:, y].mean(1) - x[:, ~y].mean(1))


def test_what_cannot_be_probed_is_told():
    x, y = data()
    with pytest.raises(ValueError, match="rows of both labels"):
        fit_probe(x, torch.ones(40))
    with pytest.raises(ValueError, match="40 rows need a label and an item each; 39 and 40"):
        probe(x, y[1:])
    with pytest.raises(ValueError, match="40 and 3 were given"):
        probe(x, y, hold_out=[1, 2, 3])


def test_the_last_token_is_each_prompts_own():
    lm, prompts = tiny(), ["One two three four", "One two"]
    acts = record(lm, prompts, "block_output")
    found = at_last_token(acts)
    assert found.shape == (lm.n_layers, 2, lm.d_model)
    torch.testing.assert_close(found[1, 1], acts["block_output", 1][1, len(lm.str_tokens(prompts[1])) - 1].cpu())
    assert torch.equal(at_last_token(acts, layers=[2, 0]), found[[2, 0]])


def test_the_error_of_a_share_has_both_uncertainties():
    g = torch.Generator().manual_seed(0)
    whole = 1 + torch.randn(4000, 30, generator=g) / 2
    left = 0.4 * whole + torch.randn(4000, 30, generator=g) / 2
    shares, errors = torch.tensor([share_left(a, b) for a, b in zip(left, whole, strict=True)]).T
    assert float(errors.mean()) == pytest.approx(float(shares.std()), rel=0.1)


def test_heads_are_pushed_as_far_as_was_said():
    lm = tiny()
    directions = torch.randn(lm.n_layers, lm.n_heads, lm.d_head, generator=torch.Generator().manual_seed(0))
    by = torch.full((lm.n_layers, lm.n_heads), 2.0)
    site = Site("attention_value_output", 1)
    before = record(lm, "One two three", site)[site]
    with intervene(lm, *push_heads([(1, 3)], directions, by, positions=-1)):
        change = record(lm, "One two three", site)[site] - before
    assert change[0, -1, 3].norm() == pytest.approx(2.0, rel=1e-4)
    torch.testing.assert_close(change[0, -1, 3] / 2, directions[1, 3] / directions[1, 3].norm(), atol=1e-5, rtol=1e-4)
    change[0, -1, 3] = 0
    assert change.abs().max() < 1e-6


def test_the_examples_run():
    base = "The Colosseum is in the city of"
    globs = vars(probing) | {"lm": load_model("offline"), "base": base, "intervene": intervene}
    failed, tried = doctest.testmod(probing, extraglobs=globs, optionflags=doctest.ELLIPSIS)
    assert tried > 8 and not failed
