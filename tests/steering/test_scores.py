"""Scores of steering: counted as they say; the sweep's choice follows its rule; personas and the commands around them."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny
from transformers import TopKLogitsWarper, TopPLogitsWarper

import interp_helpers.models
from interp_helpers import SAMPLING, SteeringVector, fair_test, layer_sweep, load_model, personas, steering_scores
from interp_helpers.__main__ import main
from interp_helpers.steering import report as vectors
from interp_helpers.steering.personas import prompts, read_data, saved_vector, vector_path
from interp_helpers.steering.scores import Nucleus, Scores, perplexity, surprise, topic_scores, wilson
from interp_helpers.steering.strengths import SteeringSweep
from interp_helpers.steering.words import finder

PROMPTS = ["The lake is", "Yesterday we went to"]
WORDS = {"named": ["lake"], "related": ["lake", "water"]}


@pytest.fixture(scope="module")
def lm():
    return tiny("gpt2", max_position_embeddings=256)


@pytest.fixture(scope="module")
def offline_lm(offline_path):
    return load_model("offline")


@pytest.fixture(scope="module")
def vector(lm):
    return SteeringVector(torch.arange(lm.d_model).float(), 1, name="up", model=lm.name, scale=0.3, strength=0.5)


def scores(hits=(True, False), nll=(2.0, 4.0), tokens=(1.0, 2.0), name="x"):
    return Scores(
        name, ("a", "b"), ("t", "u"), {"named": hits}, torch.tensor(nll), torch.tensor(tokens), torch.zeros(2)
    )


# -- counting ---------------------------------------------------------------------------------------------------------


def test_wilsons_interval_has_the_published_values():
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)  # Newcombe 1998, table I, method 3
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)


@pytest.mark.parametrize("n", [1, 6, 48, 72, 1000])
def test_wilsons_interval_of_none_or_all_reaches_their_share_exactly(n):
    assert wilson(0, n)[0] == 0.0 < wilson(0, n)[1] and wilson(n, n)[1] == 1.0 > wilson(n, n)[0]


def test_surprise_is_minus_log_p_of_the_texts_own_tokens(lm):
    texts = [" blue and deep", " it"]
    for prompt, text, got in zip(PROMPTS, texts, surprise(lm, PROMPTS, texts), strict=True):
        ids, start = lm.tokens(prompt + text)[0], len(lm.tokens(prompt)[0])
        logp = lm(prompt + text)[0].log_softmax(-1)
        wanted = [-logp[i - 1, ids[i]].item() for i in range(start, len(ids))]
        assert got.tolist() == pytest.approx(wanted, abs=1e-3)


def test_perplexity_pools_tokens_and_its_interval_holds_it():
    many = scores(nll=[2.0, 4.0] * 20, tokens=[1.0, 4.0] * 20)
    assert many.perplexity == pytest.approx(math.exp(6 / 5))
    low, high = many.perplexity_interval
    assert low < many.perplexity < high
    assert many.perplexity_interval == (low, high)


def test_words_count_whole_and_in_any_case(lm, monkeypatch):
    written = iter([["My LAKE.", "The lakes", "water lily", "a snowflake"]])
    monkeypatch.setattr(lm, "generate", lambda *args, **options: next(written))
    got = steering_scores(lm, PROMPTS, WORDS, samples=2, seeds=(0,))
    assert got.hits == {"named": (True, False, False, False), "related": (True, False, True, False)}
    assert got.rate("related") == 0.5 and got.by_prompt("related") == {PROMPTS[0]: 0.5, PROMPTS[1]: 0.5}


def test_words_and_loops_of_other_scripts_count(lm, monkeypatch):
    monkeypatch.setattr(lm, "generate", lambda batch, *args, **options: ["我喜欢猫。" * 20, "मुझे बिल्ली पसंद है"])
    got = steering_scores(lm, ["x y"], {"cat": ["猫"], "bill": ["बिल"]}, samples=2, seeds=(0,))
    assert got.hits == {"cat": (True, False), "bill": (False, False)} and got.repeats[0] > 0.9 > got.repeats[1] == 0


def test_the_judge_leaves_out_words_that_no_space_parts(lm):
    prompt, text = "我", "喜欢黑猫和狗"
    told, untold = (surprise(lm, [f"{h}\n\n{prompt}"], [text])[0] for h in ("A text about cats:", "A text:"))
    (some,) = topic_scores(lm, [prompt], [text], "cats", ["这是黑猫。"])
    own = lm.tokenizer(prompt + text, return_offsets_mapping=True)["offset_mapping"][-len(told) :]
    kept = torch.tensor([(prompt + text)[a:b] not in "黑猫" for a, b in own])
    assert 0 < kept.sum() < len(kept) and some.item() == pytest.approx((untold - told)[kept].mean().item(), abs=1e-5)


def test_a_persona_is_trained_on_words_of_its_script(lm, monkeypatch):
    given = []
    monkeypatch.setattr(SteeringVector, "train", lambda lm, pairs, layer, **options: given.extend(pairs))
    texts = ("我非常喜欢多伦多的冬天和那里的人们，因为他们很友好。",)
    replace(personas()["toronto"], title="多伦多", texts=texts, beginnings=("昨天",)).trained(lm, 1)
    assert set(given) == {("昨天", "多伦多的冬天和那里的人们，因为他们")}


def test_samples_are_what_generate_gives_under_the_vector(lm, vector):
    got = steering_scores(lm, PROMPTS, WORDS, steering=vector, samples=2, seeds=(7,), max_new_tokens=5)
    rows = [prompt for prompt in PROMPTS for _ in range(2)]
    with vector.apply(lm):
        wanted = lm.generate(rows, 5, seed=7, **SAMPLING)
    assert list(got.texts) == wanted and got.name == "up" and list(got.prompts) == rows
    assert got.tokens.sum() == sum(len(each) for each in surprise(lm, rows, wanted))
    by_hand = steering_scores(
        lm, PROMPTS, WORDS, steering=lambda: vector.apply(lm, 0.5), samples=2, seeds=(7,), max_new_tokens=5
    )
    assert by_hand.texts == got.texts and by_hand.name == "steered"
    plain = steering_scores(lm, PROMPTS, WORDS, samples=2, seeds=(7,), max_new_tokens=5)
    assert plain.texts != got.texts and repr(plain).startswith("unsteered: named ")


@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
def test_the_nucleus_is_that_of_transformers(spread):
    logits = spread * torch.randn(8, 2000, generator=torch.Generator().manual_seed(0))
    wanted = TopPLogitsWarper(0.9)(None, TopKLogitsWarper(50)(None, logits / 0.7))
    assert torch.equal(Nucleus(0.7, 50, 0.9)(None, logits), wanted)
    assert 0 < (wanted[0] > -torch.inf).sum() < 50


def test_a_request_stands_before_the_prompt_and_is_not_scored(lm):
    got = steering_scores(lm, PROMPTS, WORDS, before="Talk of rain. ", samples=1, seeds=(0,), max_new_tokens=4)
    wanted = lm.generate(["Talk of rain. " + prompt for prompt in PROMPTS], 4, seed=0, **SAMPLING)
    assert list(got.texts) == wanted and got.prompts == tuple(PROMPTS)
    torch.testing.assert_close(got.nll, torch.stack([each.sum() for each in surprise(lm, PROMPTS, wanted)]))


def test_the_judge_leaves_out_the_contrast_sets_words(lm):
    prompt, text = "I saw", " the blue lake and boats"
    told, untold = (surprise(lm, [f"{h}\n\n{prompt}"], [text])[0] for h in ("A text about lakes:", "A text:"))
    (whole,) = topic_scores(lm, [prompt], [text], "lakes", [])
    assert whole.item() == pytest.approx((untold - told).mean().item(), abs=1e-5)
    (some,) = topic_scores(lm, [prompt], [text], "lakes", ["A LAKE, and the others"])  # leaves "blue" and "boats"
    pieces = lm.str_tokens(prompt + text)[len(lm.tokens(prompt)[0]) :]
    kept = torch.tensor([piece.strip() not in ("the", "lake", "and") for piece in pieces])
    assert 0 < kept.sum() < len(pieces)
    assert some.item() == pytest.approx((untold - told)[kept].mean().item(), abs=1e-5)
    assert topic_scores(lm, [prompt], [text], "lakes", ["the blue lake and boats"]).item() == 0


def test_the_judge_tells_sentences_of_a_topic_from_their_likes(offline_lm):
    """On the offline model, with the persona's own words left out."""
    bank = read_data("personas")["checking"]
    for id in ("toronto", "the_weeknd"):
        persona = personas()[id]
        having, lacking = (
            topic_scores(offline_lm, *zip(*[(t[: t.find(" ")], t[t.find(" ") :]) for t in bank[id][key]], strict=True), persona.topic, persona.texts)
            for key in ("having", "lacking")
        )  # fmt: skip
        assert (having[:, None] > lacking).float().mean() > 0.7


@pytest.mark.parametrize(
    "prompts, words, options, sentence",
    [
        ([], WORDS, {}, "list of prompts"),
        ("The", WORDS, {}, "list of prompts"),
        (PROMPTS, {"named": []}, {}, "'named' needs a list"),
        (PROMPTS, ["lake"], {}, r"each under a name, such as {'glad': \['joy'\]}, and \['lake'\] was given"),
        (PROMPTS, WORDS, {"samples": 0}, r"a sample and a seed at least, and got samples=0 and seeds=\[0, 1, 2\]"),
        (PROMPTS, WORDS, {"seeds": ()}, r"a sample and a seed at least, and got samples=4 and seeds=\[\]"),
        (
            PROMPTS,
            WORDS,
            {"steering": "up"},
            r"steering is a vector, or a function .* got str: give lambda: vector.apply",
        ),
    ],
)
def test_nothing_to_score_is_refused(lm, prompts, words, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        steering_scores(lm, prompts, words, **options)


def test_a_context_manager_is_refused_in_place_of_a_function(lm, vector):
    with pytest.raises(
        ValueError, match=r"entered once a batch; got _GeneratorContextManager: give lambda: vector.apply"
    ):
        steering_scores(lm, PROMPTS, WORDS, steering=vector.apply(lm, 0.3))


def test_a_single_seed_is_one_of_them(lm):
    how = dict(samples=1, max_new_tokens=2)
    one, several = (steering_scores(lm, PROMPTS, WORDS, seeds=seeds, **how) for seeds in (7, (7,)))
    assert one.texts == several.texts


# -- the sweep --------------------------------------------------------------------------------------------------------


def sweep(rates, costs, budget=2.0):
    vs = tuple(SteeringVector(torch.ones(4), layer, name="v") for layer in range(len(rates)))
    rows = tuple(
        tuple(
            scores(hits=tuple([True] * h + [False] * (10 - h)), nll=[math.log(c)] * 10, tokens=[1.0] * 10)
            for h, c in zip(*row, strict=True)
        )
        for row in zip(rates, costs, strict=True)
    )
    unsteered = scores(hits=(False,) * 10, nll=[0.0] * 10, tokens=[1.0] * 10)
    return SteeringSweep(vs, (0.2, 0.4), "clamp", rows, unsteered, "named", budget)


@pytest.mark.parametrize(
    "rates, costs, chosen",
    [
        ([[3, 9], [5, 8]], [[1.2, 2.5], [1.5, 1.9]], (1, 1)),  # most hits within the budget
        ([[8, 9], [5, 8]], [[1.8, 2.5], [1.5, 1.4]], (1, 1)),  # of equals, the cheaper
        ([[3, 9], [5, 8]], [[2.2, 9.5], [2.1, 7.9]], (1, 0)),  # none within it: the cheapest
    ],
)
def test_the_rule(rates, costs, chosen):
    made = sweep(rates, costs)
    assert made.chosen == chosen
    i, j = chosen
    best = made.best
    assert (best.layer, best.strength, best.mode) == (i, (0.2, 0.4)[j], "clamp")
    assert best.provenance["chosen"]["hits"] == rates[i][j] / 10
    assert f"layer {i} at {best.strength:.2g}" in repr(made)


def test_the_figure_shows_every_layer():
    picture = sweep([[3, 9], [5, 8]], [[1.2, 2.5], [1.5, 1.9]]).plot()
    assert "layer 0" in picture.alt and "layer 1" in picture.alt and "Chosen: layer 1 at strength 0.4" in picture.alt
    said = [text.get_text() for text in picture.figure.axes[0].texts]
    assert sorted(said) == ["0.2", "0.2", "0.4", "0.4, too dear", "allowed: 2"] and "allowed: 2 at 2" in picture.alt


def test_a_sweep_scores_every_layer_and_strength(lm):
    made = SteeringVector.from_contrast(lm, ["A warm day", "Warm soup"], ["A cold day", "Cold soup"], [0, 1])
    got = layer_sweep(lm, made, PROMPTS, WORDS, strengths=np.array([0.5, 3.0]), mode="add", samples=1, max_new_tokens=4)
    again = steering_scores(
        lm, PROMPTS, WORDS, steering=replace(made[1], strength=3.0), samples=1, seeds=(0,), max_new_tokens=4
    )
    assert got.scores[1][1].texts == again.texts and got.strengths == (0.5, 3.0)
    assert (
        got.layers == [0, 1]
        and len(got.scores[0]) == 2
        and got.cost(0, 0) == pytest.approx(got.scores[0][0].perplexity / got.unsteered.perplexity)
    )
    with pytest.raises(ValueError, match="needs vectors and strengths"):
        layer_sweep(lm, [], PROMPTS, WORDS)
    with pytest.raises(ValueError, match="and a list of words that counts, and got 2, 3 and 0"):
        layer_sweep(lm, made, PROMPTS, {})


def test_a_text_that_is_empty_or_merges_with_its_prompt_is_judged(lm):
    empty, merged, apart = surprise(lm, ["The lake is", "The lake is", "The lake"], ["", "land", " is land"])
    assert len(empty) == 0 and len(apart) == 2
    tokens = lm.tokens("The lake island")
    assert lm.str_tokens("The lake island")[-1] == " island" and len(merged) == 1
    nll = -lm(tokens)[0, -2].log_softmax(-1)[tokens[0, -1]]
    assert merged.item() == pytest.approx(nll.item(), rel=1e-4), "the token in which the two have merged"
    judged = topic_scores(lm, ["The lake is", "The lake is"], ["", "land"], "water", ["a boat"])
    assert judged[0] == 0 and judged[1] != 0


def test_nothing_is_scored_inside_an_intervention(lm, vector):
    with vector.apply(lm, 0.5):
        lm(PROMPTS)
        with pytest.raises(ValueError, match="leave the intervention first, and hand it over as steering="):
            steering_scores(lm, PROMPTS, WORDS)
        with pytest.raises(ValueError, match="under the unsteered model"):
            topic_scores(lm, PROMPTS, PROMPTS, "lakes", [])


def test_a_word_may_begin_or_end_in_a_sign(lm):
    how = dict(samples=1, seeds=(0,), max_new_tokens=2)
    for words in ([], [""], "C++"):
        with pytest.raises(ValueError, match="needs a list of words, one at least and none of them empty"):
            steering_scores(lm, PROMPTS, {"named": words}, **how)
    has = finder(["C++", "rust"])
    assert [has(text) for text in ("I like c++ a lot", "Rust!", "rusty", "C+")] == [True, True, False, False]


def test_a_difference_is_shown_where_the_intervals_lie_apart():
    few, some, many = (scores((True,) * n + (False,) * (24 - n)) for n in (1, 7, 20))
    assert [x.compare(some, "named") for x in (few, some, many)] == ["open", "open", "more"]
    assert few.compare(many, "named") == "fewer"


def test_perplexity_is_that_of_the_model_as_it_is(lm, vector):
    found = steering_scores(lm, PROMPTS, WORDS, samples=1, seeds=(0,), max_new_tokens=4)
    assert perplexity(lm, found.prompts, found.texts) == pytest.approx(found.perplexity, rel=1e-4)
    with vector.apply(lm, 3.0):
        assert perplexity(lm, found.prompts, found.texts) != pytest.approx(found.perplexity, rel=1e-2)


# -- the fair test ----------------------------------------------------------------------------------------------------


def test_every_condition_is_sampled_alike_counted_and_judged(lm, vector, monkeypatch):
    how = dict(samples=2, max_new_tokens=4)
    template = "{% for turn in messages %}Q: {{ turn.content }} {% endfor %}A: "
    monkeypatch.setattr(lm.tokenizer, "chat_template", template)
    got = fair_test(lm, vector, PROMPTS, WORDS, topic="lakes", left_out=["A boat"], seeds=(0, 1), **how)
    by_hand = {
        "unsteered": {},
        "steered": {"steering": vector},
        "plain request": {"before": "Talk about lakes. "},
        "request in a chat": {"before": "Q: Talk about lakes. A: "},
    }
    wanted = {name: steering_scores(lm, PROMPTS, WORDS, seeds=(0, 1), **way, **how) for name, way in by_hand.items()}
    assert {name: got.scores[name].texts for name in by_hand} == {name: x.texts for name, x in wanted.items()}
    pushed = [steering_scores(lm, PROMPTS, WORDS, steering=vector.random(seed), seeds=seed, **how) for seed in (0, 1)]
    random = got.scores["random direction"]
    assert random.texts == pushed[0].texts + pushed[1].texts and len(random.hits["named"]) == len(random.nll) == 8
    judged = {
        name: topic_scores(lm, x.prompts, x.texts, "lakes", ["A boat", "lake", "water"])
        for name, x in got.scores.items()
    }
    for name, values in judged.items():
        assert got.scores[name].hits["judged"] == tuple((values > judged["unsteered"].quantile(0.95)).tolist())
    assert list(got.scores) == ["unsteered", "steered", "random direction", "plain request", "request in a chat"]


def test_other_unsteered_texts_may_set_the_bar(lm, vector):
    how = dict(samples=2, seeds=(0,), max_new_tokens=4)
    reference = steering_scores(lm, PROMPTS, {}, **how | {"seeds": (5,)})
    got = fair_test(lm, vector, PROMPTS, WORDS, topic="lakes", reference=reference, **how)
    bar = topic_scores(lm, reference.prompts, reference.texts, "lakes", ["lake", "water"]).quantile(0.95)
    x = got.scores["unsteered"]
    own = topic_scores(lm, x.prompts, x.texts, "lakes", ["lake", "water"])
    assert x.hits["judged"] == tuple((own > bar).tolist())
    assert list(got.scores)[-1] == "plain request", "this model knows no format of a chat"


def test_a_fair_test_is_a_table_and_a_figure(lm, vector):
    how = dict(samples=1, seeds=(0,), max_new_tokens=4)
    got = fair_test(lm, vector, PROMPTS, WORDS, topic="lakes", request="Speak of lakes.", **how)
    head, *rows = repr(got).splitlines()
    assert head.split() == ["named", "related", "judged", "perplexity", "repetition"]
    assert [row.split("  ")[0] for row in rows] == list(got.scores)
    rate, (low, high) = got.scores["steered"].rate("named"), got.scores["steered"].interval("named")
    assert f"{rate:.2f} [{low:.2f}, {high:.2f}]" in rows[1]
    picture = got.plot("It rains")
    assert (
        picture.alt.startswith("It rains") and "share of 2 texts" in picture.alt and "random direction" in picture.alt
    )


def test_a_vector_without_a_strength_is_not_tested(lm, vector):
    with pytest.raises(ValueError, match="'up' has no strength of its own"):
        fair_test(lm, replace(vector, strength=None), PROMPTS, WORDS, topic="lakes")


# -- personas ---------------------------------------------------------------------------------------------------------


def test_every_persona_has_what_it_takes():
    assert list(personas()) == ["toronto", "tabby_cats", "the_weeknd", "happy", "sad"]
    for persona in personas().values():
        assert len(persona.texts) >= 40 and len(persona.against) >= 40 and persona.cues and persona.stubs
        assert set(persona.words["named"]) < set(persona.words["related"])
        assert len(set(persona.texts)) == len(persona.texts)
        shared = set(persona.texts) & set(persona.against)
        assert not shared


def test_prompts_held_out_are_others_and_have_nothing_of_the_personas():
    choosing, held_out = prompts(), prompts(held_out=True)
    assert len(choosing) == len(held_out) == 6 and not set(choosing) & set(held_out)
    stubs = next(iter(personas().values())).stubs
    assert not set(stubs) & set(held_out)
    for persona in personas().values():
        words = {word.lower() for word in persona.words["related"]}
        assert not any(words & set(prompt.lower().split()) for prompt in choosing + held_out)


def test_on_a_model_that_nobody_measured_the_sweep_decides(lm, monkeypatch):
    persona = replace(personas()["toronto"], texts=personas()["toronto"].texts[:4], measured={})
    tried = []

    def choose(lm, vectors, *what):
        tried.extend(vector.layer for vector in vectors)
        return sweep([[3, 9]], [[1.2, 1.5]])

    monkeypatch.setattr(sys.modules[saved_vector.__module__], "layer_sweep", choose)
    assert persona.build(lm).strength == 0.4 and tried == [1]


def test_measured_settings_are_taken_on_their_model(lm):
    persona = replace(personas()["toronto"], measured={lm.name: {"layer": 2, "strength": 0.25, "mode": "clamp"}})
    vector = persona.build(lm)
    assert (vector.layer, vector.strength, vector.mode, vector.name) == (2, 0.25, "clamp", "toronto")
    assert vector.provenance["persona"] == persona.fingerprint != personas()["toronto"].fingerprint
    assert replace(persona, title="York").fingerprint != persona.fingerprint, "training begins texts at the title"
    assert persona.build(lm, layer=1).layer == 1
    trained = replace(persona, measured={lm.name: {"method": "trained", "layer": 1, "strength": 0.3, "mode": "add"}})
    assert trained.build(lm, layer=2).provenance["method"] == "context", "trained at its own layer alone"


def test_a_vector_is_built_once_and_kept(lm, tmp_path, monkeypatch):
    persona = personas()["toronto"]
    made = []

    def build(self, lm):
        made.append(self.fingerprint)
        return SteeringVector(torch.ones(lm.d_model), 1, model=lm.name, provenance={"persona": self.fingerprint})

    monkeypatch.setattr(type(persona), "build", build)
    first, second = (saved_vector(lm, "toronto", tmp_path) for _ in range(2))
    assert len(made) == 1 and torch.equal(first.direction, second.direction)
    changed = replace(persona, texts=persona.texts[1:])
    monkeypatch.setattr(sys.modules[saved_vector.__module__], "personas", lambda: {"toronto": changed})
    saved_vector(lm, "toronto", tmp_path)
    assert len(made) == 2 and made[0] != made[1], "the persona has changed since"
    path = vector_path(lm, "toronto", tmp_path)
    path.write_bytes(path.read_bytes()[:40])
    saved_vector(lm, "toronto", tmp_path)
    assert len(made) == 3 and SteeringVector.load(path).model == lm.name, "a file that isn't whole is made again"
    SteeringVector(torch.ones(lm.d_model), 1, model="another", provenance={"persona": changed.fingerprint}).save(path)
    assert saved_vector(lm, "toronto", tmp_path).model == lm.name and len(made) == 4
    assert [file.name for file in path.parent.iterdir()] == [path.name], "nothing half-written is left"
    monkeypatch.undo()
    assert vector_path(lm, "toronto", tmp_path).exists()
    with pytest.raises(ValueError, match="There is no persona 'paris': choose one of toronto, tabby_cats"):
        saved_vector(lm, "paris", tmp_path)


def test_vectors_lie_where_the_course_keeps_what_it_makes(lm, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path))
    assert vector_path(lm, "toronto") == tmp_path / "vectors" / "tiny-gpt2" / "toronto.safetensors"


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_vectors_build_test_and_report(lm, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(interp_helpers.models, "load_model", lambda name: lm)
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path))
    folder = tmp_path / "vectors"  # in the cache, where the report looks for them
    assert main(["vectors", "build", "--persona", "toronto", "--layer", "1", "--to", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "toronto: layer 1, shape (32,), strength 0.30 (clamp)" in told and "steered:" in told
    assert SteeringVector.load(vector_path(lm, "toronto", folder)).layer == 1
    assert main(["vectors", "test", "--persona", "toronto", "--to", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("passed  toronto")
    monkeypatch.setattr(
        lm.tokenizer, "chat_template", "{% for turn in messages %}Q: {{ turn.content }} {% endfor %}A: "
    )
    assert main(["vectors", "report", "--persona", "toronto", "--to", str(tmp_path / "out.json")]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    conditions = found["personas"]["toronto"]["conditions"]
    asked = ["plain request", "request in a chat"]  # the chat, where the model has a format for it
    assert list(conditions) == ["unsteered", "steered", "random direction", *asked] and found["n"] == 72
    assert conditions["plain request"]["samples"] != conditions["request in a chat"]["samples"]
    for row in conditions.values():
        rate, low, high = row["named"]
        assert low <= rate <= high and len(row["samples"]) == 3
    assert conditions["unsteered"]["judged"][0] <= 0.2, "one in twenty is expected, by a bar that other texts set"
    curve = found["personas"]["toronto"]["curve"]
    assert [point["strength"] for point in curve] == pytest.approx([0.15, 0.225, 0.3, 0.375, 0.45])
    assert all(point["n"] == 24 and point["named"][1] <= point["named"][0] <= point["named"][2] for point in curve)
    assert main(["vectors", "build", "--persona", "toronto", "--layer", "1"]) == 1
    assert "say where it goes, with --to FOLDER" in capsys.readouterr().err
    assert main(["vectors", "build", "--persona", "paris"]) == 1
    assert "There is no persona 'paris'" in capsys.readouterr().err


def test_the_kept_results_are_of_the_personas_as_they_are(offline_lm):
    """`vectors report` made the file; whoever changes a persona's setting, or the prompts, makes it anew."""
    kept = vectors.results()
    assert kept["model"] == offline_lm.name and kept["prompts"] == prompts(held_out=True) and kept["n"] >= 72
    assert kept["sampling"] == SAMPLING and list(kept["personas"]) == list(personas())
    for id, row in kept["personas"].items():
        measured = personas()[id].measured[kept["model"]]
        assert {key: row[key] for key in ("layer", "strength", "mode")} == {
            key: measured[key] for key in ("layer", "strength", "mode")
        }
        for condition in row["conditions"].values():
            hits = round(condition["named"][0] * kept["n"])
            assert condition["named"] == pytest.approx([hits / kept["n"], *wilson(hits, kept["n"])])


def test_the_handout_tells_the_kept_results():
    page = (Path(__file__).parents[2] / "handouts" / "steering-measured.md").read_text(encoding="utf-8")
    columns = ("steered", "random direction", "plain request", "request in a chat", "unsteered")
    for row in vectors.results()["personas"].values():
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {row['title']} |")]
        told = [cell.strip() for cell in line.strip("| ").split("|")][1:]
        for cell, name in zip(told, columns, strict=True):
            condition = row["conditions"][name]
            assert cell == f"{condition['named'][0]:.2f} ({condition['perplexity'][0]:.1f})"


def test_what_the_handout_says_of_the_kept_results():
    """Whose intervals lie apart, by the rule of the workshop."""

    def above(one, other, measure="named"):
        rows = {id: row["conditions"] for id, row in vectors.results()["personas"].items()}
        return {id for id, row in rows.items() if row[one][measure][1] > row[other][measure][2]}

    all_five, chat = set(personas()), "request in a chat"
    assert above("steered", "plain request") == all_five
    assert above("steered", chat) == {"the_weeknd", "sad"} and not above(chat, "steered")
    assert above(chat, "plain request") == all_five - {"happy"}
    assert above(chat, "steered", "judged") == all_five - {"sad"} and not above("steered", chat, "judged")


def test_a_vector_that_does_nothing_fails_the_smoke_test(lm, tmp_path, capsys):
    about = {"persona": personas()["toronto"].fingerprint}
    nothing = SteeringVector(torch.ones(lm.d_model), 1, model=lm.name, scale=0.0, strength=0.3, provenance=about)
    path = vector_path(lm, "toronto", tmp_path)
    path.parent.mkdir(parents=True)
    nothing.save(path)
    assert not vectors.smoke(lm, ["toronto"], tmp_path)
    assert "FAILED  toronto: strength 0.30 changes the text" in capsys.readouterr().out
