"""The banks of prompts, with the tokenizers that the course uses; and which items a model knows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny import gpt2_tokenizer, tiny
from transformers import AutoTokenizer

from interp_helpers import Site, apply, facts, intervene, ioi, known, pairs, truths, wrong_sources
from interp_helpers.models.language_model import LanguageModel
from interp_helpers.prompts import banks as prompts_module
from interp_helpers.prompts import ioi_places
from interp_helpers.prompts.banks import Fact, IOIPrompt, Pair

FAMILIES = {"capital", "country_of_city", "landmark_city", "language", "sport"}


@pytest.fixture(params=["gpt2", "offline"])
def words(request):
    """A tokenizer as `LanguageModel` wraps it, without a model."""
    if request.param == "gpt2":
        tokenizer = gpt2_tokenizer()
    else:
        tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue("offline_path"))
    words = object.__new__(LanguageModel)
    words.tokenizer, words.name = tokenizer, request.param
    words.anatomy = SimpleNamespace(embedding=SimpleNamespace(weight=torch.zeros(1)))
    return words


def length(words, text):
    return len(words.tokenizer(text)["input_ids"])


def times(item):
    """How often the subject occurs: "Q: What sport does … play? A: … plays" has it twice."""
    return 2 if item.family == "sport" else 1


# -- facts and pairs --------------------------------------------------------------------------------------------------


def test_the_banks_hold_items_of_every_family():
    assert {fact.family for fact in facts()} == {pair.family for pair in pairs()} == FAMILIES
    assert len(facts()) >= 100 and len(pairs()) >= 100


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_one_family_of_a_bank(family):
    assert facts(family) == [fact for fact in facts() if fact.family == family] != []
    assert pairs(family) == [pair for pair in pairs() if pair.family == family] != []


@pytest.mark.parametrize("bank", [facts, pairs])
def test_an_unknown_family_is_refused_with_the_list(bank):
    with pytest.raises(ValueError, match="No family 'capitals' in this bank: it has capital, country_of_city, "):
        bank("capitals")


def test_no_fact_and_no_pair_occurs_twice():
    assert not [prompt for prompt, n in Counter(fact.prompt for fact in facts()).items() if n > 1]
    assert not [key for key, n in Counter(frozenset((p.base, p.source)) for p in pairs()).items() if n > 1]


def test_answers_begin_with_a_space_and_prompts_do_not_end_in_one():
    for fact in facts():
        assert fact.answer[0] == " " and fact.answer.strip() and fact.prompt == fact.prompt.strip(), fact
    for pair in pairs():
        assert pair.base_answer[0] == pair.source_answer[0] == " ", pair
        assert pair.base == pair.base.strip() and pair.source == pair.source.strip(), pair


def test_a_prompt_names_its_subject_once_and_in_a_question_with_its_answer_twice():
    for fact in facts():
        assert fact.prompt.count(fact.subject) == times(fact), fact
    for pair in pairs():
        assert pair.base.count(pair.base_subject) == pair.source.count(pair.source_subject) == times(pair), pair


def test_no_prompt_gives_its_answer_away():
    for fact in facts():
        assert fact.answer.strip() not in fact.prompt.replace(fact.subject, ""), fact


def test_pairs_are_one_template_with_two_subjects_and_two_answers():
    for pair in pairs():
        assert pair.base.replace(pair.base_subject, "…") == pair.source.replace(pair.source_subject, "…"), pair
        assert pair.base_answer != pair.source_answer, pair


def test_every_answer_is_one_token(words):
    for fact in facts():
        words.token_id(fact.answer)
    for pair in pairs():
        assert words.token_id(pair.base_answer) != words.token_id(pair.source_answer)


def test_pairs_are_equally_long_and_so_are_their_subjects(words):
    for pair in pairs():
        assert length(words, pair.base) == length(words, pair.source), pair
        for i in range(times(pair)):
            base = words.find(pair.base, pair.base_subject, occurrence=i)
            assert base == words.find(pair.source, pair.source_subject, occurrence=i), pair


def test_every_subject_can_be_found(words):
    for fact in facts():
        ids = words.tokenizer(fact.prompt)["input_ids"]
        for i in range(times(fact)):
            found = words.find(fact.prompt, fact.subject, occurrence=i)
            assert fact.subject in words.tokenizer.decode(ids[found.start : found.stop])


# -- indirect objects -------------------------------------------------------------------------------------------------


# -- statements ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_in_statements_neither_city_nor_country_gives_the_label_away(seed):
    statements = truths(seed=seed)
    assert len({s.text for s in statements}) == len(statements) == 2 * len(facts("country_of_city"))
    home = {fact.subject: fact.answer.strip() for fact in facts("country_of_city")}
    assert all((home[s.city] == s.country) == s.true for s in statements)
    for word in ("city", "country"):
        counts = Counter((getattr(s, word), s.true) for s in statements)
        assert all(counts[name, True] == counts[name, False] for name, _ in counts)


def test_folds_share_neither_cities_nor_countries_and_are_about_as_large():
    statements = truths()
    for word in ("city", "country"):
        assert len({(getattr(s, word), s.fold) for s in statements}) == len({getattr(s, word) for s in statements})
    sizes = Counter(s.fold for s in statements)
    assert set(sizes) == set(range(5)) and max(sizes.values()) - min(sizes.values()) <= 4


def test_true_and_false_statements_of_a_fold_are_about_the_same_cities_in_the_same_order():
    statements = truths()
    assert [s.city for s in statements if s.true] == [s.city for s in statements if not s.true]
    assert truths(seed=0) == statements != truths(seed=1)


def test_a_statement_ends_with_its_country_which_is_one_token(words):
    for statement in truths():
        assert statement.text == f"The city of {statement.city} is in {statement.country}"
        assert words.token_id(f" {statement.country}")


def test_too_few_countries_for_the_folds_are_refused():
    italy = [fact for fact in facts("country_of_city") if fact.answer == " Italy"]
    for bank in (italy, facts("country_of_city")[:6]):
        with pytest.raises(ValueError, match="too few for 5 folds"):
            truths(bank)


def test_ioi_prompts_repeat_with_a_seed():
    assert ioi(20, seed=3) == ioi(20, seed=3) != ioi(20, seed=4)
    assert len(ioi()) == 50 and ioi(0) == []


def test_ioi_prompts_name_the_indirect_object_once_and_the_subject_twice():
    for item in ioi(200):
        io, subject = item.indirect_object.strip(), item.subject.strip()
        said = item.prompt.replace(",", "").split()
        assert said.count(io) == 1 and said.count(subject) == 2, item
        assert item.indirect_object[0] == item.subject[0] == " " and item.prompt.endswith(" to")


def test_the_corrupted_prompt_differs_in_the_second_subject_alone():
    for item in ioi(200):
        prompt, corrupted = (text.replace(",", "").split() for text in (item.prompt, item.corrupted))
        different = [(a, b) for a, b in zip(prompt, corrupted, strict=True) if a != b]
        assert len(different) == 1 and different[0][0] == item.subject.strip(), item
        assert different[0][1] not in prompt, item
        assert prompt.index(item.subject.strip()) < [a != b for a, b in zip(prompt, corrupted, strict=True)].index(True)


def test_the_third_name_is_the_one_that_the_prompt_lacks():
    for item in ioi(200):
        assert item.third.strip() in item.corrupted and item.third.strip() not in item.prompt


def test_the_places_of_ioi_names():
    words, bank = tiny("gpt2"), ioi(20)
    places = ioi_places(words, bank)
    assert list(places) == ["IO", "S1", "S2", "last token"] and places["last token"] == -1
    for i, item in enumerate(bank):
        tokens = words.str_tokens(item.prompt)
        said = ["".join(tokens[n] for n in places[place][i]) for place in ("IO", "S1", "S2")]
        assert said == [item.indirect_object, item.subject, item.subject] and places["S1"][i] != places["S2"][i]


def test_half_of_the_prompts_name_the_indirect_object_first():
    first = [p.prompt.index(p.indirect_object.strip()) < p.prompt.index(p.subject.strip()) for p in ioi(100)]
    assert first == [True, False] * 50


def test_ioi_prompts_vary():
    items = ioi(400)
    assert {name for item in items for name in (item.indirect_object, item.subject)} == {
        f" {name}" for name in prompts_module.IOI_NAMES
    }
    for part in (prompts_module.IOI_PLACES, prompts_module.IOI_THINGS):
        assert all(any(f" {word}" in item.prompt for item in items) for word in part)


def test_ioi_names_are_one_token_and_both_prompts_equally_long(words):
    for item in ioi(200):
        assert words.token_id(item.indirect_object) != words.token_id(item.subject)
        assert length(words, item.prompt) == length(words, item.corrupted), item


@pytest.mark.parametrize("part", ["IOI_NAMES", "IOI_PLACES", "IOI_THINGS"])
def test_ioi_s_words_are_one_token_each(words, part):
    for word in getattr(prompts_module, part):
        words.token_id(f" {word}")


# -- which of them does a model know? ---------------------------------------------------------------------------------


@pytest.fixture
def fresh():
    return tiny("gpt2")


@pytest.fixture
def rows(fresh):
    """How many prompts the model has read, one number a forward."""
    read = []
    fresh.model.register_forward_pre_hook(lambda _, args, kwargs: read.append(len(args[0])), with_kwargs=True)
    return read


def fact_of(lm, prompt, wrong=False):
    """A fact that this model gets right, or wrong."""
    likeliest = lm.top(prompt, 2)[1 if wrong else 0][0]
    return Fact(prompt, "subject", likeliest, "made up")


@pytest.fixture
def sorted_out(fresh):
    """Facts that the random model knows, and facts that it doesn't."""
    prompts = ["One two", "The city of", "In the beginning there was", "Hello"]
    right = [fact_of(fresh, prompt) for prompt in prompts]
    assert all(len(fresh.tokenizer(f.answer, add_special_tokens=False)["input_ids"]) == 1 for f in right)
    return right, [fact_of(fresh, prompt + " my", wrong=True) for prompt in prompts]


def test_a_fact_is_known_if_its_answer_is_the_first_choice(fresh, sorted_out):
    right, wrong = sorted_out
    assert known(fresh, [wrong[0], *right, *wrong[1:]]) == right
    assert known(fresh, iter([*wrong, *right])) == right


def test_a_pair_is_known_if_both_of_its_facts_are(fresh, sorted_out):
    right, wrong = sorted_out

    def pair(a, b):
        return Pair(a.prompt, b.prompt, a.subject, b.subject, a.answer, b.answer, "made up")

    good = pair(right[0], right[1])
    assert known(fresh, [pair(right[0], wrong[1]), good, pair(wrong[0], right[1]), pair(wrong[0], wrong[1])]) == [good]


def test_an_ioi_prompt_is_known_if_the_indirect_object_is_likelier_than_the_subject(fresh):
    bank = ioi(12)
    logits = fresh.next_token_logits([item.prompt for item in bank])
    likelier = [
        item
        for item, row in zip(bank, logits, strict=True)
        if row[fresh.token_id(item.indirect_object)] > row[fresh.token_id(item.subject)]
    ]
    assert known(fresh, bank) == likelier and 0 < len(likelier) < 12
    turned = [IOIPrompt(p.prompt, p.corrupted, p.subject, p.indirect_object) for p in bank]
    assert len(known(fresh, turned)) == 12 - len(likelier)


def test_an_answer_of_several_tokens_is_unknown(fresh, sorted_out, rows):
    long = Fact("One two", "subject", " Reykjavik", "made up")
    assert known(fresh, [long]) == [] and not rows
    assert known(fresh, [long, sorted_out[0][0]]) == [sorted_out[0][0]]


def test_what_is_asked_twice_is_measured_once(fresh, sorted_out, rows):
    right, wrong = sorted_out
    rows.clear()
    assert known(fresh, right[:2] + right[:2]) == right[:2] + right[:2]
    assert rows == [2]
    assert known(fresh, wrong + right[::-1]) == right[::-1]


def test_a_pair_s_facts_are_measured_once_with_the_facts_themselves(fresh, sorted_out, rows):
    a, b = sorted_out[0][:2]
    rows.clear()
    pair = Pair(a.prompt, b.prompt, a.subject, b.subject, a.answer, b.answer, "made up")
    assert known(fresh, [a, b, pair]) == [a, b, pair]
    assert rows == [2]


def test_many_items_run_in_batches(fresh, rows):
    known(fresh, facts())
    assert sum(rows) == len(facts()) and len(rows) == -(-len(facts()) // 32)


def test_a_model_that_has_changed_is_measured_anew(sorted_out):
    right, _ = sorted_out
    lm = tiny("gpt2")
    assert known(lm, right) == right
    with torch.no_grad():
        for block in lm.anatomy.blocks:
            block.mlp.c_proj.weight.zero_()
    assert known(lm, right) != right


def test_an_empty_bank_is_known():
    assert known(tiny("gpt2"), []) == []


def test_what_is_known_under_an_intervention_is_the_edited_models():
    lm = tiny("gpt2", seed=3)
    bank = facts("capital")
    before = known(lm, bank)
    everywhere = apply(Site("block_output", lm.n_layers - 1), lambda h: -h)
    with intervene(lm, everywhere):
        top = lm.top(bank[0].prompt, 1)[0][0]
        edited = known(lm, [replace(bank[0], answer=top)])
    assert len(edited) == 1
    assert known(lm, bank) == before


# -- wrong sources ------------------------------------------------------------------------------------------------------


def test_wrong_sources_have_the_pairs_shape_and_third_answers(fresh):
    pair = pairs("capital")[0]
    answers = {fact.prompt: fact.answer for fact in facts("capital")}
    for other in pairs("capital"):
        answers |= {other.base: other.base_answer, other.source: other.source_answer}
    chosen = wrong_sources(fresh, pair, 4)
    assert len(chosen) == len({answers[prompt] for prompt in chosen}) == 4
    for prompt in chosen:
        assert answers[prompt] not in (pair.base_answer, pair.source_answer)
        assert len(fresh.str_tokens(prompt)) == len(fresh.str_tokens(pair.base))


def test_wrong_sources_that_the_model_knows_come_first(fresh, monkeypatch):
    pair = pairs("capital")[0]
    *_, late = wrong_sources(fresh, pair, 99)
    monkeypatch.setattr(prompts_module, "known", lambda lm, bank: [fact for fact in bank if fact.prompt == late])
    assert wrong_sources(fresh, pair, 2)[0] == late
