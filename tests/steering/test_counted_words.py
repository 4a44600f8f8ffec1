"""Words in any script: what is one, and how much of a text is said again."""

from __future__ import annotations

import re
from unicodedata import normalize

import pytest
from hypothesis import example
from hypothesis import strategies as st
from samples import some_or_many

from interp_helpers.steering.words import count_words, finder, first_words, joiner, pieces, repeated

HERE = [  # word, a text that has it
    ("lake", "My LAKE."),
    ("New York", "in New York."),
    ("straße", "STRASSE"),
    ("猫", "我喜欢猫和狗，猫很可爱"),
    ("猫", "私は猫が好きです"),
    ("トロント", "冬のトロントが好き。"),
    ("แมว", "ฉันชอบแมวมาก"),
    ("고양이", "고양이는 귀엽다"),
    ("고양이", "고양이들에게는 귀엽다"),
    ("개", "개가 짖는다"),
    ("café", "Le cafe\u0301 est bon"),
    ("cafe\u0301", "un CAFÉ"),
    ("बिल", "बिल दो"),
    ("AI", "我喜欢AI技术"),
    ("AI", "AI는 좋다"),
    ("❤", "I ❤️ you"),
    ("🐱", "cats🐱cats"),
]
ELSEWHERE = [  # word, a text that has it within another word
    ("lake", "The lakes, a snowflake"),
    ("बिल", "मुझे बिल्ली पसंद है"),
    ("cafe", "Le cafe\u0301 est bon"),
    ("x", "x\u0302 is no x with nothing on it"[:2]),
    ("トロ", "トロントが好き"),
    ("แม", "แม่ของฉัน"),
    ("มว", "แมว"),
    ("개", "개인의 생각, 개나리꽃"),
    ("می", "می\u200cخواهم"),
    ("AI", "MAID"),
]


@pytest.mark.parametrize("word, text", HERE)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_word_counts_where_its_script_has_it(word, text, form):
    assert finder(["nothing", word])(normalize(form, text)) and finder([normalize(form, word)])(text)


@pytest.mark.parametrize("word, text", ELSEWHERE)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_part_of_another_word_does_not_count(word, text, form):
    assert not finder([word])(normalize(form, text))


WORDS = st.text("abcäßзнकिम 猫ねこトแมว고양이1_'’-.。", max_size=30)


@some_or_many(WORDS)
@example("It's the 2nd well-known thing_x of O’Neill’s, naïve ' don't''s 3D x2 A'b'c")
def test_in_scripts_with_spaces_a_word_is_what_stands_between_spaces(text):
    latin = re.sub(r"[^a-z' ’äß1_.-]", "", text)
    words = latin.split()
    triples = list(zip(words, words[1:], words[2:], strict=False))
    assert repeated(latin) == (1 - len(set(triples)) / len(triples) if triples else 0)
    assert count_words(latin) == len(words) and first_words(latin, 3) == " ".join(words[:3])
    plain = re.finditer(r"[^\W\d_]+(?:['’][^\W\d_]+)*", latin)
    assert [tuple(found) for found in pieces(latin)] == [(one.group().lower(), *one.span()) for one in plain]


@some_or_many(WORDS, st.integers(1, 5))
def test_first_words_begin_the_text_and_pieces_stand_where_they_say(text, n):
    begun = first_words(text, n)
    assert " ".join(text.split()).startswith(begun) and count_words(begun) <= n + 0.5
    for piece, start, end in pieces(text, singles=True):
        assert normalize("NFC", text[start:end].lower()) == piece


@pytest.mark.parametrize(
    "loop", ["a b c ", "我喜欢猫。", "私は猫が好きです。", "ฉันชอบแมวมาก", "고양이는 정말 귀엽다. ", "मुझे बिल्ली पसंद है। "]
)
def test_a_loop_is_a_loop_in_any_script(loop):
    assert repeated(loop * 20) > 0.85 and repeated(loop) == 0


def test_repeated_triples():
    assert repeated("a b c d e") == repeated("too short") == repeated("") == 0
    assert repeated("a b c a b c a b c") == pytest.approx(4 / 7)
    assert repeated("私は猫が好きです。犬も好きですが、猫の方がずっと好きです。") < 0.1


def test_pairs_of_characters_stand_for_words_where_there_are_no_spaces():
    assert [piece for piece, *_ in pieces("I saw 黒い猫 and 고양이")] == [
        "i",
        "saw",
        "黒い",
        "い猫",
        "and",
        "고양",
        "양이",
    ]
    assert [piece for piece, *_ in pieces("猫")] == ["猫"]
    assert {piece for piece, *_ in pieces("黒猫", singles=True)} == {"黒", "猫", "黒猫"}
    assert first_words("我喜欢猫和狗", 2) == "我喜欢猫" and joiner("我") == "" and joiner("I") == " "
