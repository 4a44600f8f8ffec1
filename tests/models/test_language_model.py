"""`LanguageModel`: prompts in, logits out; words and places; generation."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from plain import assert_untouched, close, greedy, run, snapshot
from tiny import FAMILIES, gpt2_shaped_folder, gpt2_tokenizer, tiny, tiny_model
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from interp_helpers import LanguageModel, Site, intervene, record, zero

PROMPT = "The Eiffel Tower is in the city of"
SHORT = "One two three"
UNICODE = "Zürich — 東京 is naïve, Zürich isn't"


# -- the wrapper ------------------------------------------------------------------------------------------------------


def test_a_model_is_wrapped_with_its_numbers_and_a_name():
    lm = tiny("llama")
    assert (lm.n_layers, lm.n_heads, lm.d_model, lm.d_head, lm.device.type) == (3, 4, 32, 8, "cpu")
    assert repr(lm) == "LanguageModel('tiny llama': 3 blocks, 4 heads, d_model 32)"


def test_the_name_is_what_the_model_was_loaded_under():
    model = tiny_model()
    assert LanguageModel(model, gpt2_tokenizer()).name == "gpt2"
    model.config._name_or_path = "someone/their-model"
    assert LanguageModel(model, gpt2_tokenizer()).name == "someone/their-model"


def test_a_model_is_switched_to_evaluation_so_that_runs_repeat():
    model = tiny_model().train()
    lm = LanguageModel(model, gpt2_tokenizer())
    assert not any(module.training for module in model.modules())
    assert torch.equal(lm(PROMPT), lm(PROMPT))


def test_a_model_shaped_like_gpt2_small_can_be_saved_for_rehearsals(tmp_path):
    from interp_helpers import load_model

    lm = load_model(gpt2_shaped_folder(tmp_path, layers=1))
    assert (lm.n_layers, lm.n_heads, lm.d_model) == (1, 12, 768)
    assert lm.str_tokens("Hello Paris") == ["Hello", " Paris"]


# -- running ----------------------------------------------------------------------------------------------------------


def test_logits_are_the_model_s_own(lm):
    assert torch.equal(lm(PROMPT), run(lm, PROMPT))
    assert lm(PROMPT).shape == (1, 10, 50257)


def test_prompts_are_a_string_a_list_or_token_ids(lm):
    ids = lm.tokenizer(PROMPT)["input_ids"]
    expected = lm(PROMPT)
    for same in ([PROMPT], (PROMPT,), torch.tensor(ids), torch.tensor([ids]), torch.tensor([ids], dtype=torch.int32)):
        assert torch.equal(lm(same), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_no_number(family):
    lm = tiny(family)
    logits = lm([SHORT, PROMPT])
    close(logits[0, :3], lm(SHORT)[0])
    close(logits[1], lm(PROMPT)[0])
    final = lm.next_token_logits([SHORT, PROMPT, SHORT])
    close(final, torch.stack([logits[0, 2], logits[1, -1], logits[0, 2]]))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_next_token_logits_belong_to_each_row_s_last_real_token(family):
    lm = tiny(family)
    close(lm.next_token_logits(PROMPT), lm(PROMPT)[:, -1])
    prompts = [PROMPT, SHORT, "One"]
    close(lm.next_token_logits(prompts), torch.cat([lm(prompt)[:, -1] for prompt in prompts]))


def test_next_token_logits_when_a_model_gives_every_position_whatever_is_asked(lm, monkeypatch):
    expected = lm.next_token_logits([PROMPT, SHORT])
    forward = lm.model.forward
    monkeypatch.setattr(lm.model, "forward", lambda *args, logits_to_keep=None, **kwargs: forward(*args, **kwargs))
    close(lm.next_token_logits([PROMPT, SHORT]), expected)
    monkeypatch.undo()
    lm.model.__dict__.pop("forward", None)


def test_tokens_pass_through_unchanged_with_their_mask(lm):
    tokens = lm.tokens([PROMPT, SHORT])
    again = lm.tokens(tokens)
    assert torch.equal(again, tokens) and torch.equal(again.attention_mask, tokens.attention_mask)
    assert tokens.attention_mask.sum(1).tolist() == [10, 3]
    assert torch.equal(lm(tokens), lm([PROMPT, SHORT]))


@pytest.mark.parametrize("form", [list, np.array, torch.tensor])
@pytest.mark.parametrize("side", ["left", "right"])
def test_token_ids_with_a_mask_come_in_lists_arrays_and_tensors(lm, form, side):
    padded = lm.tokenizer([PROMPT, SHORT], padding=True, padding_side=side)
    given = {name: form(rows) for name, rows in padded.items()}
    for prompts in (given, masked(padded)):
        real, logits = torch.tensor(padded["attention_mask"]).bool(), lm(prompts)
        for row, prompt in enumerate([PROMPT, SHORT]):  # each token's logits are where the caller has the token
            close(logits[row, real[row]], lm(prompt)[0])
        close(lm.next_token_logits(prompts), lm.next_token_logits([PROMPT, SHORT]))


def masked(padded) -> torch.Tensor:
    """What a tokenizer returns, as a tensor of ids that carries its mask."""
    ids = torch.tensor(padded["input_ids"])
    ids.attention_mask = torch.tensor(padded["attention_mask"])
    return ids


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_have_the_columns_that_were_given_though_all_rows_are_shorter(lm, side):
    padded = lm.tokenizer([SHORT], padding="max_length", max_length=8, padding_side=side)
    logits = lm(padded)
    close(logits[:, :3] if side == "right" else logits[:, 5:], lm(SHORT))


def test_what_is_recorded_of_left_padded_prompts_is_said_to_be_moved(lm):
    padded = lm.tokenizer([PROMPT, SHORT], padding=True, padding_side="left")
    with pytest.warns(UserWarning, match=r"by \[0, 7\] columns"):
        acts = record(lm, padded, "block_output")
    last = Site("block_output", 1, positions=-1)
    close(acts[last][1], record(lm, SHORT, "block_output")[last][0])


@pytest.mark.parametrize("form", [list, np.array, torch.tensor])
def test_token_ids_without_a_mask_are_real_and_may_be_ragged(lm, form):
    long, short = lm.tokenizer([PROMPT, SHORT])["input_ids"]
    assert torch.equal(lm([form(long), form(short)]), lm([PROMPT, SHORT]))
    assert torch.equal(lm({"input_ids": [form(long), form(short)]}), lm([PROMPT, SHORT]))
    for given in (form([long, long]), {"input_ids": form([long, long])}):
        assert torch.equal(lm(given), lm([PROMPT, PROMPT]))


@pytest.mark.parametrize("form", [list, np.array, torch.tensor])
def test_one_prompt_s_token_ids(lm, form):
    ids = form(lm.tokenizer(SHORT)["input_ids"])
    assert torch.equal(lm({"input_ids": ids}), lm(SHORT)) and torch.equal(lm([ids]), lm(SHORT))
    if form is not list:  # a list is one of prompts
        assert torch.equal(lm(ids), lm(SHORT))
    assert lm.generate([ids], 4) == [lm.generate(SHORT, 4)]
    assert torch.equal(lm(lm.tokenizer([PROMPT, SHORT])), lm([PROMPT, SHORT]))


def test_the_tokens_of_several_prompts_are_not_those_of_the_first(lm):
    with pytest.raises(ValueError, match="str_tokens takes one prompt, and 2 were given"):
        lm.str_tokens([PROMPT, SHORT])
    assert lm.str_tokens([SHORT]) == lm.str_tokens(SHORT)


def test_a_tensor_s_own_attributes_are_left_alone(lm):
    ids = torch.tensor([[1, 2, 3]])
    lm(ids)
    assert not hasattr(ids, "attention_mask")


def test_no_beginning_of_text_token_is_added_that_the_tokenizer_does_not_add(lm):
    assert lm.tokens("One two").tolist() == [lm.tokenizer("One two")["input_ids"]]
    assert lm.str_tokens("One two") == ["One", " two"]


@pytest.mark.parametrize(
    "prompts, says",
    [
        ("", "A prompt is empty, so there is nothing to run the model on"),
        (["One", ""], "A prompt is empty"),
        ([], "There is no prompt: a string, a list of strings or a tensor of token ids was expected"),
        ([1, 2], "A prompt is a string or a sequence of token ids, and int was given: 1"),
        (5, "A prompt is a string or a sequence of token ids, and int was given: 5"),
        ([["One"]], "A prompt is a string or a sequence of token ids, and list was given"),
        ([[1.5, 2.0]], "A prompt is a string or a sequence of token ids, and list was given"),
        (np.zeros((1, 2)), "A prompt is a string or a sequence of token ids, and ndarray was given"),
        ([[1], []], "A prompt is empty"),
        ({"input_ids": [[1, 2], [3, 4]], "attention_mask": [[1, 1], [0, 0]]}, "A prompt is empty"),
        ({"input_ids": []}, "A prompt is empty"),
        ({"input_ids": [[1, 2], [3]], "attention_mask": [[1, 1], [1, 1]]}, r"and \[2, 2\] for \[2, 1\] were given"),
        (np.array([[1, 2], [1, 50256]]), "Some rows of the token ids end in the padding token and nothing says"),
        ([[1, 50257]], "Token ids of tiny gpt2 are 0 to 50256, and 50257 was given"),
        (torch.tensor([[1, 50257]]), "Token ids of tiny gpt2 are 0 to 50256, and 50257 was given"),
        (torch.tensor([[1, -100]]), "Token ids of tiny gpt2 are 0 to 50256, and -100 was given"),
        ({"input_ids": [[1, -100]]}, "Token ids of tiny gpt2 are 0 to 50256, and -100 was given"),
        ("one" + " two" * 64, "tiny gpt2 has 64 positions, and 65 are needed: give it shorter prompts"),
        (torch.ones(1, 65, dtype=torch.long), "tiny gpt2 has 64 positions, and 65 are needed"),
        (torch.zeros(1, 0, dtype=torch.long), r"Token ids have shape \(batch, position\), and \(1, 0\)"),
        (torch.zeros(1, 2, 3, dtype=torch.long), r"and \(1, 2, 3\) of torch.int64 was given"),
        (torch.zeros(1, 2), r"and \(1, 2\) of torch.float32 was given"),
        (torch.tensor([[1, 2], [1, 50256]]), "Some rows of the token ids end in the padding token and nothing says"),
        (
            torch.tensor([[1, 2], [50256, 1]]),
            "Some rows of the token ids begin with the padding token and nothing says",
        ),
    ],
)
def test_prompts_of_another_kind_are_refused(lm, prompts, says):
    for ask in (lm, lm.tokens, lm.next_token_logits, lm.top):
        with pytest.raises(ValueError, match=says):
            ask(prompts)


def test_rows_that_all_begin_with_the_same_token_are_taken_as_they_are(lm):
    ids = torch.tensor([[50256, 1, 2], [50256, 3, 4]])
    assert lm.tokens(ids).attention_mask.all()


@pytest.mark.parametrize("form", ["tensor", "mapping"])
@pytest.mark.parametrize(
    "mask, says",
    [
        ([[1, 0, 1]], r"\[1, 0, 1\] hides a token between others"),
        ([[0, 0, 0]], "A prompt is empty"),
        ([[1, 1]], "An attention_mask has "),
    ],
)
def test_a_mask_that_says_something_else_is_refused_however_it_comes_in(lm, form, mask, says):
    ids = torch.tensor([[1, 2, 3]])
    given = {"input_ids": ids, "attention_mask": torch.tensor(mask)}
    if form == "tensor":
        ids.attention_mask, given = torch.tensor(mask), ids
    for ask in (lm, lm.tokens, lm.next_token_logits, lm.generate):
        with pytest.raises(ValueError, match=says):
            ask(given)


def test_a_mask_may_be_of_booleans(lm):
    ids = torch.tensor([[1, 2, 3], [1, 2, 3]])
    ids.attention_mask = torch.tensor([[True, True, False], [True, True, True]])
    close(lm.next_token_logits(ids)[0], lm(torch.tensor([1, 2]))[0, -1])


@pytest.mark.parametrize("pad, eos, expected", [(7, 50256, 7), (None, 50256, 50256), (None, None, 0)])
def test_shorter_rows_are_filled_with_whatever_token_there_is(lm, pad, eos, expected):
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.pad_token_id, tokenizer.eos_token_id = pad, eos
    other = LanguageModel(lm.model, tokenizer)
    assert other.tokens([PROMPT, SHORT])[1, 3:].tolist() == [expected] * 7
    close(other.next_token_logits([PROMPT, SHORT]), lm.next_token_logits([PROMPT, SHORT]))


def test_top_lists_the_likeliest_next_tokens_with_their_probabilities(lm):
    values, ids = lm(PROMPT)[0, -1].softmax(-1).topk(3)
    top = lm.top(PROMPT, k=3)
    assert [token for token, _ in top] == [lm.tokenizer.decode([i]) for i in ids.tolist()]
    close(torch.tensor([p for _, p in top]), values)
    assert [t for t, _ in lm.top([PROMPT, SHORT], 3)[0]] == [t for t, _ in top]
    assert [t for t, _ in lm.top([PROMPT, SHORT], 3)[1]] == [t for t, _ in lm.top(SHORT, 3)]


# -- words and places -------------------------------------------------------------------------------------------------


def test_str_tokens_spell_the_prompt(lm):
    assert lm.str_tokens("The Eiffel Tower") == ["The", " E", "iff", "el", " Tower"]
    assert lm.str_tokens(lm.tokens(PROMPT)) == lm.str_tokens(PROMPT)


@pytest.mark.parametrize("word", [6342, np.int64(6342), torch.tensor(6342), " Paris"])
def test_a_word_is_one_token_or_its_id(lm, word):
    assert lm.token_id(word) == 6342 and type(lm.token_id(word)) is int


@pytest.mark.parametrize(
    "word, says",
    [
        ("Paris Texas", r"'Paris Texas' is 2 tokens for tiny gpt2, \['Paris', ' Texas'\], and one token was expected"),
        ("Reykjavik", "Within a sentence the word usually starts with a space: ' Reykjavik'"),
        ("", r"'' is 0 tokens for tiny gpt2, \[\]"),
        (50257, "Token id 50257 is outside the vocabulary of tiny gpt2"),
        (-1, "Token id -1 is outside the vocabulary"),
    ],
)
def test_a_word_that_is_not_one_token_is_refused_with_its_pieces(lm, word, says):
    with pytest.raises(ValueError, match=says):
        lm.token_id(word)


def test_a_word_that_starts_with_a_space_is_not_told_to(lm):
    with pytest.raises(ValueError) as error:
        lm.token_id(" Reykjavik")
    assert "starts with a space" not in str(error.value)


@pytest.mark.parametrize(
    "prompt, text, spelt",
    [
        (PROMPT, "Eiffel Tower", [" E", "iff", "el", " Tower"]),
        (PROMPT, " Eiffel Tower", [" E", "iff", "el", " Tower"]),
        (PROMPT, "Eiffel ", [" E", "iff", "el"]),
        (PROMPT, " Tower ", [" Tower"]),
        (PROMPT, "The", ["The"]),
        (PROMPT, "of", [" of"]),
        (PROMPT, "iff", ["iff"]),
        (PROMPT, "ffe", ["iff", "el"]),
        (PROMPT, "owe", [" Tower"]),
        (PROMPT, "l T", ["el", " Tower"]),
        (PROMPT, PROMPT, ["The", " E", "iff", "el", " Tower", " is", " in", " the", " city", " of"]),
        ("Hello  world", "world", [" world"]),
        ("one\ntwo", "two", ["two"]),
        ("(Paris)", "Paris", ["Paris"]),
        ("Rome, Paris.", "Paris", [" Paris"]),
    ],
)
def test_find_gives_the_tokens_that_spell_a_text(lm, prompt, text, spelt):
    found = lm.find(prompt, text)
    assert isinstance(found, range)
    assert [lm.str_tokens(prompt)[i] for i in found] == spelt


@pytest.mark.parametrize("text", ["東京", "東", "京", "naïve", "—", "is naïve", "isn't", "ï"])
def test_find_counts_characters_not_bytes(lm, text):
    found = lm.find(UNICODE, text)
    ids = lm.tokens(UNICODE)[0].tolist()
    assert text in lm.tokenizer.decode(ids[found.start : found.stop])
    for shorter in (found[1:], found[:-1]):
        if shorter:
            assert text not in lm.tokenizer.decode(ids[shorter.start : shorter.stop])


def test_find_asks_which_where_a_text_occurs_more_than_once(lm):
    prompt = "When Mary and John went out, John gave Mary a book"
    tokens = lm.str_tokens(prompt)
    places = [i for i, token in enumerate(tokens) if token == " John"]
    assert [lm.find(prompt, "John", occurrence=i)[0] for i in (0, 1)] == places
    assert lm.find(PROMPT, "Tower", occurrence=0) == lm.find(PROMPT, "Tower")
    with pytest.raises(ValueError, match="'John' occurs 2 times in .*: say which with occurrence=0 to 1"):
        lm.find(prompt, "John")
    for occurrence in (2, -1):
        with pytest.raises(ValueError, match=f"'John' occurs 2 times in .* and occurrence={occurrence} was asked for"):
            lm.find(prompt, "John", occurrence=occurrence)


@pytest.mark.parametrize("text", ["Rome", "eiffel", "", " ", "Tower  is"])
def test_find_refuses_a_text_that_is_not_there(lm, text):
    with pytest.raises(ValueError, match="does not occur in .*: give a part of the prompt, letter for letter"):
        lm.find(PROMPT, text)


# -- generation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_a_batch_is_continued_as_each_prompt_alone(family):
    lm = tiny(family)
    prompts = [PROMPT, SHORT, "One"]
    assert lm.generate(prompts, 10) == [lm.generate(prompt, 10) for prompt in prompts]


def test_a_string_gives_a_string_and_a_list_a_list(lm):
    text = lm.generate(PROMPT, 7)
    assert isinstance(text, str) and lm.generate([PROMPT], 7) == [text]


def test_the_likeliest_tokens_are_generated_and_the_prompt_is_left_out(lm):
    assert lm.generate(PROMPT, 12) == greedy(lm, PROMPT, 12)
    assert lm.generate(PROMPT, 1) == lm.top(PROMPT, 1)[0][0]


def test_sampling_repeats_with_a_seed_and_leaves_the_global_random_state_alone(lm):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = lm.generate(PROMPT, 10, do_sample=True, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert lm.generate(PROMPT, 10, do_sample=True, seed=5) == first
    assert lm.generate(PROMPT, 10, do_sample=True, seed=6) != first


def test_sampling_without_a_seed_follows_the_global_random_state(lm):
    texts = []
    for _ in range(2):
        torch.manual_seed(3)
        texts += [lm.generate(PROMPT, 10, do_sample=True), lm.generate(PROMPT, 10, do_sample=True)]
    assert texts[:2] == texts[2:] and texts[0] != texts[1]


def test_options_reach_the_model_s_own_generate(lm):
    assert lm.generate(PROMPT, 10, num_beams=2, min_new_tokens=10)
    assert lm.generate(PROMPT, 10, eos_token_id=int(lm.next_token_logits(PROMPT).argmax())) == lm.generate(PROMPT, 1)


@pytest.mark.parametrize("option", [{"return_dict_in_generate": True}, {"num_return_sequences": 3}])
def test_options_that_change_what_comes_back_are_refused(lm, option):
    with pytest.raises(ValueError, match=f"generate returns one text a prompt, without {next(iter(option))}"):
        lm.generate(PROMPT, 2, do_sample=True, **option)
    assert lm.generate(PROMPT, 2, return_dict_in_generate=False, num_return_sequences=1) == lm.generate(PROMPT, 2)


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_a_model_with_learnt_positions_writes_up_to_the_last_of_them(family):
    lm = tiny(family)
    assert lm("one" + " two" * 63).shape[1] == 64
    assert lm.generate("one" + " two" * 59, 5, min_new_tokens=5)
    with pytest.raises(ValueError, match=f"tiny {family} has 64 positions, and 65 are needed: .* or let it write less"):
        lm.generate("one" + " two" * 59, 6)
    with pytest.raises(ValueError, match=f"tiny {family} has 64 positions, and 65 are needed"):
        lm.next_token_logits("one" + " two" * 64)


def test_a_model_with_rotary_positions_has_no_last_one():
    assert tiny("llama")("one" + " two" * 64).shape[1] == 65


def test_where_torch_seeds_an_apple_gpu_too_its_random_state_is_kept(lm, monkeypatch):
    kept, put_back = torch.tensor([7]), []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda device: kept)
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state, device: put_back.append(state))
    lm.generate(PROMPT, 1, do_sample=True, seed=5)
    assert put_back == [kept]


@pytest.mark.parametrize(
    "prompt, says", [("", "A prompt is empty"), ([], "There is no prompt"), ([1], "A prompt is a str")]
)
def test_generation_refuses_what_is_no_prompt(lm, prompt, says):
    with pytest.raises(ValueError, match=says):
        lm.generate(prompt)


def test_generation_leaves_the_model_as_it_was_also_when_it_fails():
    lm = tiny("gpt2")
    before = snapshot(lm)
    lm.generate(SHORT, 2)
    assert_untouched(lm, before)
    with pytest.raises(ValueError):
        lm.generate(SHORT, 2, no_such_option=True)
    assert_untouched(lm, before)


# -- a tokenizer in the manner of SentencePiece, as Llama 2, TinyLlama and Mistral have it ---------------------------


@pytest.fixture(scope="module")
def sentencepiece_lm():
    """A tiny Llama whose tokenizer begins every text with a space of its own."""
    words = ["▁The", "▁x", "▁Paris", "▁is", "▁in"]
    vocabulary = {"<unk>": 0, "</s>": 1}
    merges = []
    for letter in sorted({*"".join(words), *"abcdefghijklmnopqrstuvwxyz"}):
        vocabulary[letter] = len(vocabulary)
    for word in words:
        for end in range(1, len(word)):
            merges.append((word[:end], word[end]))
            vocabulary.setdefault(word[: end + 1], len(vocabulary))
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=list(dict.fromkeys(merges)), unk_token="<unk>"))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="<unk>")
    return LanguageModel(tiny_model("llama"), tokenizer), vocabulary


def test_a_sentencepiece_word_keeps_its_leading_space(sentencepiece_lm):
    lm, vocabulary = sentencepiece_lm
    assert lm.str_tokens("The Paris is in") == [" The", " Paris", " is", " in"]
    assert lm.token_id(" Paris") == vocabulary["▁Paris"]
    assert lm.find("The Paris is in", "Paris") == range(1, 2)


def test_a_sentencepiece_word_of_several_tokens_is_refused_with_its_own_pieces(sentencepiece_lm):
    lm, _ = sentencepiece_lm
    with pytest.raises(ValueError, match=r"' zzz' is 4 tokens .* \[' ', 'z', 'z', 'z'\]"):
        lm.token_id(" zzz")


# -- prompts as a tokenizer returns them, and what is refused ---------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
def test_what_a_tokenizer_returns_is_a_prompt_padded_on_either_side(lm, side):
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.padding_side = side
    tokenizer.pad_token = "<|endoftext|>"
    encoded = tokenizer([PROMPT, SHORT], padding=True, return_tensors="pt")
    close(lm.next_token_logits(encoded), lm.next_token_logits([PROMPT, SHORT]))
    assert lm.generate(encoded, 4) == lm.generate([PROMPT, SHORT], 4)


def test_a_row_that_has_lost_its_mask_is_refused(lm):
    tokens = lm.tokens([SHORT, PROMPT])
    with pytest.raises(ValueError, match="end in the padding token"):
        lm(tokens[:1])


def test_an_option_that_changes_what_generate_returns_is_refused(lm):
    with pytest.raises(ValueError, match="without num_return_sequences: repeat the prompt"):
        lm.generate(SHORT, 2, do_sample=True, num_return_sequences=3)


def test_the_record_has_each_row_s_next_token_logits(lm):
    close(record(lm, [PROMPT, SHORT], "block_output").next_token_logits, lm.next_token_logits([PROMPT, SHORT]))


def test_a_mask_that_does_not_say_which_tokens_are_real_is_refused(lm):
    tokens = lm.tokens(SHORT)
    with pytest.raises(ValueError, match=r"attention mask \(batch, column\)"):
        with intervene(lm, zero(Site("mlp_output", 0))):
            lm.model(tokens, attention_mask=torch.zeros(1, 1, tokens.shape[1], tokens.shape[1]))
    assert lm.running.interventions == []


def test_a_prompt_that_is_read_in_pieces_is_refused(lm):
    # transformers 4 reads the pieces past every hook of the model, which is told on leaving
    with pytest.raises(
        (ValueError, RuntimeError), match="read in pieces|Never applied|outside a run of the whole model"
    ):
        with intervene(lm, zero(Site("mlp_output", 0, positions=-1))):
            lm.generate(PROMPT, 2, prefill_chunk_size=4)


@pytest.mark.parametrize(
    "ids, says",
    [
        (torch.zeros(0, 5, dtype=torch.long), r"\(0, 5\) of torch.int64 was given"),
        (torch.ones(1, 3, dtype=torch.bool), r"\(1, 3\) of torch.bool was given"),
        (torch.tensor([[50256, 50256, 64, 65]]), "Some rows of the token ids begin with the padding token"),
    ],
)
def test_token_ids_that_mean_nothing_are_refused(lm, ids, says):
    with pytest.raises(ValueError, match=says):
        lm(ids)


def test_a_prompt_to_search_is_a_string(lm):
    with pytest.raises(ValueError, match="One prompt is searched, a string, and list was given"):
        lm.find([PROMPT], "Eiffel")


def test_tokens_keep_their_spaces_whatever_the_tokenizer_cleans_up(lm, monkeypatch):
    decode = lm.tokenizer.decode

    def cleaning(ids, clean_up_tokenization_spaces=True, **options):
        text = decode(ids, **options)
        return text.replace(" .", ".").replace(" ,", ",") if clean_up_tokenization_spaces else text

    monkeypatch.setattr(lm.tokenizer, "decode", cleaning)
    assert lm.str_tokens("Hello , you .") == ["Hello", " ,", " you", " ."] and lm.token_id(" .")


def test_shorter_prompts_are_filled_on_the_left_with_a_token_of_their_own(lm, monkeypatch):
    given = []

    def generate(ids, **options):
        given.append((ids, options["attention_mask"]))
        return ids

    monkeypatch.setattr(lm.model, "generate", generate)
    lm.generate([PROMPT, SHORT], 1)
    ((ids, mask),) = given
    assert set(ids[1].tolist()) == set(lm.tokens(SHORT)[0].tolist()) and mask.sum(1).tolist() == [10, 3]


def test_a_stream_in_another_precision_is_unembedded_in_the_model_s(lm):
    half = LanguageModel(tiny_model().bfloat16(), lm.tokenizer)
    stream = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(half.unembed(stream), half.unembed(stream.bfloat16()))
