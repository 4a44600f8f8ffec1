"""What notebook 06 says of its own run: true whichever way the run goes."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny

from interp_helpers import Site, SteeringVector, add, intervene, logit_diff
from interp_helpers.lessons.generation_with_interventions import experiment
from interp_helpers.steering import FairTest, Scores


@pytest.fixture(scope="module")
def lm():
    return tiny("gpt2")


def scores(glad=0, judged=0, n=24, perplexity=4.0):
    hits = {"glad words": (True,) * glad + (False,) * (n - glad), "judged": (True,) * judged + (False,) * (n - judged)}
    nll = torch.full((n,), perplexity).log()
    return Scores("x", ("a",) * n, ("t",) * n, hits, nll, torch.ones(n), torch.zeros(n))


def fair(steered, random=(0, 1), chat=(20, 20)):
    of = {"unsteered": (1, 2), "steered": steered, "random direction": random, "plain request": (3, 3)}
    return FairTest({name: scores(*hits) for name, hits in (of | {"request in a chat": chat}).items()})


def test_a_vector_passes_only_if_the_judge_sees_it_beside_both_controls():
    assert experiment.outcome(fair((20, 20))).startswith("Our vector passed this test: 83% of the steered")
    for steered, random in (((20, 3), (0, 1)), ((20, 14), (0, 12))):
        assert not experiment.passed(fair(steered, random))
        assert "The words came, but the rest of the text is not shown" in " ".join(
            experiment.outcome(fair(steered, random)).split()
        )
    assert "More glad words are not shown either" in " ".join(experiment.outcome(fair((3, 3))).split())


def test_whether_the_test_can_be_passed_is_said_of_the_best_request():
    assert experiment.best_request(fair((3, 3))) == "request in a chat"
    assert "The test can be passed" in experiment.outcome(fair((3, 3)))
    assert "show only large differences" in " ".join(experiment.outcome(fair((3, 3), chat=(4, 4))).split())


def test_the_course_of_the_hits_is_one_of_the_predictions_choices():
    assert experiment.course([0.0, 0.3, 0.5, 0.8]) == "rise all the way"
    assert experiment.course([0.0, 0.4, 0.5, 0.3]) == "rise, then stop or fall"
    assert experiment.course([0.1, 0.2, 0.1, 0.3]) == "stay about the same"
    assert [experiment.more_or_fewer(x, 0.5) for x in (0.7, 0.55, 0.2)] == ["more", "about as many", "fewer"]


def test_strengths_as_rows_shares_and_prices():
    unsteered, steered, pushed = scores(1), {0.3: scores(12, perplexity=8.0)}, {0.3: scores(2, perplexity=12.0)}
    assert experiment.table_rows(unsteered, steered)[1] == {
        "strength": 0.3,
        "hits": 0.5,
        "perplexity": pytest.approx(8),
    }
    shares = experiment.shares(unsteered, happy=steered, random_direction=pushed)
    assert list(shares) == ["unsteered", "strength 0.3"] and list(shares["strength 0.3"]) == [
        "happy",
        "random direction",
    ]
    strengths, times = experiment.prices(unsteered, {"happy": steered, "a random direction": pushed})
    assert strengths["happy"] == [0.0, 0.3]
    assert times == {"happy": [1, pytest.approx(2)], "a random direction": [1, pytest.approx(3)]}
    assert "2 with happy, 3 with a random direction" in experiment.price_title(times, 0.3)
    assert experiment.compared(steered, pushed, "at random") == "0.3: 50% against 8% at random: more"
    assert experiment.compared(steered, {}, "at random") == ""
    assert experiment.compared({"prompt": scores(2)}, unsteered, "unsteered").endswith("unsteered: open")


def test_the_distance_of_two_groups_is_that_of_their_means_along_the_vector(lm):
    glad, sad = ["I am glad.", "What a joy it is to see you!"], ["I am sad.", "What a grief!"]
    vector = SteeringVector.from_contrast(lm, glad, sad, 1)
    raw = SteeringVector.from_contrast(lm, glad, sad, 1, normalize=False)
    wanted = raw.direction.norm().item() / vector.scale
    assert experiment.distance(lm, vector, glad, sad) == pytest.approx(wanted, rel=1e-3)


def test_she_is_said_where_it_is_likelier_than_he(lm):
    groups = {"her names": ["When Mary got home,"], "his names": ["When John got home,", "When Tom got home,"]}
    she_over_he = logit_diff(lm, " she", " he")
    wanted = {name: (she_over_he(lm.next_token_logits(prompts)) > 0).float().mean() for name, prompts in groups.items()}
    assert experiment.says_she(lm, groups) == wanted
    pushed = add(Site("block_output", 1, 1), 50 * torch.randn(lm.d_model, generator=torch.Generator().manual_seed(0)))
    with intervene(lm, pushed):
        inside = experiment.says_she(lm, groups)
    assert experiment.says_she(lm, groups, pushed) == inside


def test_everybody_is_set_to_a_level(lm):
    prompts, u = ["When Mary got home,", "When John got home,"], torch.eye(lm.d_model)[0]
    level = experiment.coordinates(lm, prompts, u) + 1
    with intervene(lm, *experiment.set_to(level, u)):
        after = experiment.coordinates(lm, prompts[:1], u)
    torch.testing.assert_close(after[:, 1:], level[:, 1:])


def test_what_ablation_leaves_is_one_of_the_predictions_choices():
    def shares(hers, his):
        return {"her names": hers, "his names": his}

    said = [experiment.after_ablation(shares(*x)) for x in ((1, 0), (0.1, 0), (1, 0.9), (0.6, 0.4))]
    assert said == ["he and she as before", "“he” for both", "“she” for both", "a coin toss for both"]
    levels = {"zero": shares(0.1, 0.0), "her mean": shares(1.0, 1.0), "his mean": shares(0.0, 0.0)}
    assert "most like his mean" in experiment.like_zero(levels)
    assert experiment.she_table(levels).splitlines()[1].split() == ["zero", "0.10", "0.00"]
