"""Words and tokens: how a tokenizer reads a text, where its tokens stand in it, and what is said where another word was meant."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from samples import some_or_many
from tiny import gpt2_tokenizer, tiny, tiny_model
from tokenizers import normalizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, ByT5Tokenizer

from interp_helpers import (
    Counterfactual,
    LanguageModel,
    Site,
    causal_trace,
    interchange_accuracy,
    known,
    load_model,
    logit_diff,
    patch_sweep,
    probability,
    rank,
    steering_scores,
)
from interp_helpers.models.words import spans
from interp_helpers.prompts import Fact

ROME = "The Colosseum is in the city of"


@pytest.fixture(scope="module")
def offline(offline_path):
    return load_model("offline")


@pytest.fixture
def silent():
    """Nothing is warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def warned(run) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    assert all(one.filename == __file__ for one in caught), "the warning points at the line that called"
    return [str(one.message) for one in caught]


# -- the word that was meant ------------------------------------------------------------------------------------------


def without_its_space(lm) -> dict:
    fact = Fact(ROME, "Colosseum", "Rome", "city")
    pair = Counterfactual("The Louvre is in the city of", ROME, "Rome")
    return {
        "probability": lambda: probability(lm, "Rome")(lm.next_token_logits(ROME)),
        "rank": lambda: rank(lm, "Rome")(lm.next_token_logits(ROME)),
        "logit_diff": lambda: logit_diff(lm, "Rome", " Paris")(lm.next_token_logits(ROME)),
        "one a row": lambda: probability(lm, [" Paris", "Rome"])(lm.next_token_logits([ROME, ROME])),
        "causal_trace": lambda: causal_trace(lm, ROME, "Colosseum", "Rome", layers=[3], samples=2),
        "patch_sweep": lambda: patch_sweep(lm, ROME, ROME, probability(lm, "Rome"), layers=[3], positions=[-1]),
        "known": lambda: known(lm, [fact, Fact("The Colosseum stands in", "Colosseum", "Rome", "city")]),
        "das": lambda: interchange_accuracy(lm, Site("block_output", 28, -1), None, [pair] * 3),
    }


DOORS = list(without_its_space(None))


@pytest.mark.parametrize("door", DOORS)
def test_a_word_without_its_space_is_told_once_with_both_ids_and_probabilities(offline, door):
    (said,) = warned(without_its_space(offline)[door])
    own, spaced = offline.token_id("Rome"), offline.token_id(" Rome")
    assert f"'Rome' is token {own} of" in said and "' Rome'" in said and f"is token {spaced}, of 0." in said
    if door == "probability":
        p = offline.next_token_logits(ROME)[0].softmax(-1)
        assert f"of probability {p[own]:.2g}," in said and f"of {p[spaced]:.2g}:" in said


def test_a_word_that_the_model_would_say_is_not_told(offline, silent):
    for prompt, word in (
        (ROME, " Rome"),
        (f"{ROME} ", "the"),
        ("Colosseum: ro", "me"),
        (ROME, offline.token_id("Rome")),
    ):
        probability(offline, word)(offline.next_token_logits(prompt))
    lm = tiny("gpt2")  # which knows nothing, so that no word is much likelier than another
    for word in ("he", "a", "x"):
        probability(lm, word)(lm.next_token_logits(ROME))


def test_a_number_is_told_to_be_taken_for_an_id_where_it_is_a_word_too(offline):
    (said,) = warned(lambda: probability(offline, 5))
    five = offline.token_id("5")
    assert (
        "5 was taken for a token's id" in said and f"the word '5', token {five}" in said and "torch.tensor(5)" in said
    )
    gpt2 = tiny("gpt2")
    (said,) = warned(lambda: logit_diff(gpt2, 1990, " a"))
    assert f"'1990', token {gpt2.token_id('1990')} and ' 1990', token {gpt2.token_id(' 1990')}" in said


def test_ids_of_tensors_tokenizers_and_token_id_are_convenient(offline, silent):
    five = offline.token_id("5")
    for same in (five, torch.tensor(int(five)), np.int64(five), int(five), "5"):
        assert offline.token_id(same) == five == probability(offline, same).asked[0].ids.item()
    gpt2 = tiny("gpt2")
    the = gpt2.token_id(" the")  # token 262, and "262" is a word
    rank(gpt2, the), rank(gpt2, torch.tensor([262]))


def test_that_a_word_was_asked_for_makes_no_id_of_its_number():
    lm = tiny("gpt2")
    probability(lm, " the")
    (said,) = warned(lambda: probability(lm, 262))
    assert "that of ' the'" in said and "the word '262'" in said


@pytest.mark.parametrize("word", [True, False, np.bool_(True), 5.0, None, {"a": 1}])
def test_what_is_neither_a_word_nor_an_id_is_refused(lm, word):
    with pytest.raises(ValueError, match="A word"):
        probability(lm, word)
    if isinstance(word, bool | float):
        with pytest.raises(ValueError, match=f"write the word as text, '{word}' or ' {word}'"):
            lm.token_id(word)


# -- one beginning of text --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adds_bos():
    """A tiny model whose tokenizer begins each text with a token of its own, and has a chat template that writes it, too."""
    tokenizer = copy.deepcopy(gpt2_tokenizer())
    tokenizer.bos_token = bos = "<|endoftext|>"
    template = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([processors.ByteLevel(), template])
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
    )
    return LanguageModel(tiny_model("gpt2", max_position_embeddings=128), tokenizer, "adds BOS")


def test_chat_text_has_one_beginning(adds_bos, monkeypatch):
    lm, chat = adds_bos, [{"role": "user", "content": "Write about cats."}]
    wanted = lm.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    asked = lm.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert lm.tokens(asked)[0].tolist() == lm.tokens([asked])[0].tolist() == wanted
    assert lm.str_tokens(asked)[:2] == ["<|endoftext|>", "user"] and lm.str_tokens("user")[0] == "<|endoftext|>"
    assert lm.str_tokens(asked)[lm.find(asked, "cats")[0]] == " cats"
    seen = []
    generate = lm.model.generate
    monkeypatch.setattr(lm.model, "generate", lambda ids, **how: seen.append(ids[0].tolist()) or generate(ids, **how))
    steering_scores(lm, ["We"], {"cat": ["cat"]}, before=asked, samples=1, seeds=(0,), max_new_tokens=2)
    assert seen == [lm.tokenizer(asked + "We", add_special_tokens=False)["input_ids"]] and seen[0].count(wanted[0]) == 1


def test_two_beginnings_that_are_written_out_stay_two(adds_bos, lm):
    twice = "<|endoftext|>" * 2 + "a"
    for one in (adds_bos, lm):
        assert len(one.tokens(twice)[0]) == 3


# -- where tokens stand -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bytes_lm():
    """A model of bytes, whose tokenizer doesn't say where its tokens stand."""
    options = dict(num_hidden_layers=2, num_attention_heads=4, hidden_size=32, intermediate_size=48, vocab_size=400)
    return LanguageModel(
        AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **options)), ByT5Tokenizer(), "bytes"
    )


def test_a_line_break_and_other_blanks_are_found(lm, bytes_lm):
    assert lm.find("Q: hi\nA:", "\n") == range(3, 4) and lm.find("a\n b \n", "\n", occurrence=1) == range(4, 5)
    assert bytes_lm.find("Q: hi\nA:", "\n") == range(5, 6)
    with pytest.raises(ValueError, match="does not occur"):
        lm.find("Q: hi", "")
    with pytest.raises(
        ValueError, match="does not occur in 'Q: hi' by itself, for tokens carry spaces with what follows"
    ):
        lm.find("Q: hi", " ")
    with pytest.raises(ValueError, match="occurs 2 times .* say which with occurrence=0 to 1"):
        lm.find("a\nb\nc", "\n")


def test_a_tokenizer_that_does_not_say_where_its_tokens_stand(bytes_lm):
    assert bytes_lm.find("Hello world", "world") == range(6, 11) == bytes_lm.find("Hello world", " world")
    assert bytes_lm.find("日本語 é", "本") == range(3, 6) and bytes_lm.find("日本語 é", "é") == range(10, 12)


@some_or_many(st.text("aé日\n <|>s/🐱\u0301", min_size=1, max_size=12), st.data())
def test_a_byte_stands_where_its_character_does(text, data):
    at = data.draw(st.integers(0, len(text) - 1))
    start, tokenizer = len(text[:at].encode()), ByT5Tokenizer()
    try:
        found = [i for i, (a, b) in enumerate(spans(tokenizer, text)) if a <= at < b]
    except ValueError as error:
        assert "say where its tokens stand" in str(error) and any(one in text for one in tokenizer.all_special_tokens)
        return
    if "<" not in text:  # no special token
        assert found == list(range(start, start + len(text[at].encode())))


def test_what_a_tokenizer_changes_is_told(lm):
    def with_normalizer(normalizer):
        tokenizer = copy.deepcopy(gpt2_tokenizer())
        tokenizer.backend_tokenizer.normalizer = normalizer
        return LanguageModel(lm.model, tokenizer, "normal")

    nfc = with_normalizer(normalizers.NFC())
    assert nfc.token_id("e\u0301") == nfc.token_id("é") == lm.token_id("é")
    with pytest.raises(ValueError, match="normal has no token 'THE': its tokenizer reads it as 'the'; write that"):
        with_normalizer(normalizers.Lowercase()).token_id("THE")
    with pytest.raises(ValueError, match="is in the prompt, and no token of normal stands for it"):
        with_normalizer(normalizers.Replace("\u200b", "")).find("the \u200b city", "\u200b")


# -- what is no prompt ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompts, sentence",
    [
        ({"prompt": "The cat", "label": 0}, r"a table, or a row of one, was given, with \['prompt', 'label'\]: choose .* row\['prompt'\]"),
        ([{"prompt": "The cat"}], "A prompt is a string or a sequence of token ids, and dict was given"),
        (["The cat", "", "A dog"], "A prompt is empty .number 1 of the list."),
        ("", "A prompt is empty"),
        ("Hello \ud83d world", r"has half a character in it, '\\ud83d', which no tokenizer reads: take it out"),
    ],
)  # fmt: skip
def test_what_is_no_prompt_is_refused(lm, prompts, sentence):
    with pytest.raises(ValueError, match=sentence):
        lm(prompts)


@pytest.mark.parametrize("kind", ["AutoModel", "AutoModelForSequenceClassification", "AutoModelForTokenClassification"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_model_without_a_language_models_head_is_refused(kind, family):
    import transformers

    config = AutoConfig.for_model(
        family, num_hidden_layers=1, num_attention_heads=2, hidden_size=8, intermediate_size=8, vocab_size=50257
    )
    headless = getattr(transformers, kind).from_config(config)
    with pytest.raises(ValueError, match=f"{type(headless).__name__} gives no logits .* AutoModelForCausalLM"):
        LanguageModel(headless, gpt2_tokenizer())


def test_a_subject_that_occurs_twice_is_told_apart_as_the_sentence_says(lm):
    prompt = "Paris Hilton was born in Paris, not in"
    with pytest.raises(ValueError, match=r"lm.find\(prompt, 'Paris', occurrence=0\)"):
        causal_trace(lm, prompt, "Paris", " Rome", layers=[1], samples=1)
    for which, place in ((0, 0), (1, lm.str_tokens(prompt).index(" Paris"))):
        subject = lm.find(prompt, "Paris", occurrence=which)
        trace = causal_trace(lm, prompt, subject, " Rome", layers=[1], samples=1)
        assert trace.subject[-1] >= place and list(trace.subject) == list(subject)
