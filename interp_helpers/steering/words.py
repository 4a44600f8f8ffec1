"""Words in any script: where one stands in a text, and how much of a text is said again.

Most scripts put spaces between words. Chinese, Japanese, Thai, Lao, Khmer and Burmese don't, and Korean hangs particles on
them. What is compared is in Unicode's composed form (NFC), in which é is é however it was typed, and marks belong to their letter:
Hindi बिल is no part of बिल्ली.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from unicodedata import normalize

import regex

UNSPACED = r"\p{Han}\p{Hiragana}\p{Line_Break=SA}"  # SA are the scripts of South-East Asia that have no spaces
KATAKANA = r"\p{Katakana}ー"  # by itself a word of Japanese, as a rule a foreign one
HANGUL = r"\p{Hangul}"
SPACED = rf"\w--[{UNSPACED}{KATAKANA}{HANGUL}]"
PARTICLES = (
    "들 은 는 이 가 을 를 의 에 도 만 과 와 로 야 나 랑 께 에서 에게 께서 한테 하고 으로 이랑 이나 까지 부터 보다 처럼 조차 마저 마다 밖에 "
    "이야 이다 였다 이었다 입니다 이에요 예요"
).split()

# What has to be before and after a word that begins, or ends, with a character of a kind; at signs, nothing.
_EDGES = (
    (rf"[{UNSPACED}]", r"(?<!\p{Logical_Order_Exception})", r"(?!\p{M})"),
    (rf"[{KATAKANA}]", rf"(?<![{KATAKANA}])", rf"(?![{KATAKANA}])"),
    (rf"[{HANGUL}]", rf"(?<![{HANGUL}])", rf"(?:{'|'.join(PARTICLES)})*(?![{HANGUL}])"),
    (r"\w", rf"(?<![{SPACED}])", rf"(?![{SPACED}])"),
    (r".", "", ""),
)
_UNIT = regex.compile(rf"[{UNSPACED}]\p{{M}}*|[^\s{UNSPACED}]+")
_WORD = regex.compile(rf"[{UNSPACED}{HANGUL}]+|[[{SPACED}{KATAKANA}]--[\d_]]+(?:['’][[{SPACED}]--[\d_]]+)*", regex.V1)
_PAIRED = regex.compile(rf"[{UNSPACED}{HANGUL}]")


def finder(words: Sequence[str]) -> Callable[[str], bool]:
    """Whether a text has one of some words, in any case and as a whole word: not within another one, but with a particle in Korean,
    and anywhere in a script without spaces, where only a dictionary could tell more."""
    patterns = []
    for word in (normalize("NFC", word.strip()) for word in words):
        before, after = (
            next(edge for edge in _EDGES if regex.match(edge[0], end, regex.V1 | regex.S))
            for end in (word[0], word[-1])
        )
        patterns.append(before[1] + regex.escape(word, special_only=True) + after[2])
    found = regex.compile("|".join(patterns), regex.V1 | regex.IGNORECASE)
    return lambda text: bool(found.search(normalize("NFC", text)))


def repeated(text: str) -> float:
    """The share of a text's word triples that it had before; in scripts without spaces two characters stand for a word."""
    units, triples = _units(text.lower()), []
    for start in range(len(units)):
        size, end = 0, start
        while size < 6 and end < len(units):
            size, end = size + units[end][1], end + 1
        if size >= 6:
            triples.append(tuple(unit for unit, *_ in units[start:end]))
    return 1 - len(set(triples)) / len(triples) if triples else 0.0


def first_words(text: str, n: int) -> str:
    """A text's first n words, or all, with single spaces between them; in scripts without spaces two characters stand for a word."""
    text, size = " ".join(text.split()), 0
    for _, own, end in _units(text):
        size += own
        if size >= 2 * n:
            return text[:end]
    return text


def count_words(text: str) -> float:
    """How many words a text has; in scripts without spaces two characters stand for a word."""
    return sum(size for _, size, _ in _units(text)) / 2


def joiner(text: str) -> str:
    """What stands between a text and one that goes before it: a space, or nothing in scripts without spaces."""
    return "" if regex.match(rf"[{UNSPACED}]", text) else " "


def pieces(text: str, singles: bool = False) -> Iterator[tuple[str, int, int]]:
    """A text's words, as they are compared, and where each begins and ends. In Korean and in scripts without spaces they are all pairs
    of neighbouring characters, as search engines index them; with `singles`, and where there is only one, single characters, too."""
    for match in _WORD.finditer(text):
        start, end = match.span()
        if not _PAIRED.match(match.group()):
            yield _compared(match.group()), start, end
            continue
        characters = [one.span() for one in regex.finditer(r"\X", match.group())]
        for width in {2, 1} if singles else {min(2, len(characters))}:
            for first, last in zip(characters, characters[width - 1 :], strict=False):
                yield _compared(match.group()[first[0] : last[1]]), start + first[0], start + last[1]


def _compared(word: str) -> str:
    return normalize("NFC", word.lower())


def _units(text: str) -> list[tuple[str, int, int]]:
    """The words of a text, or its characters in scripts without spaces; how much each counts, in half words; and where it ends."""
    return [
        (match.group(), 1 if regex.match(rf"[{UNSPACED}]", match.group()) else 2, match.end())
        for match in _UNIT.finditer(text)
    ]
