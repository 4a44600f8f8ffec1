"""Banks of prompts whose answers are one token, and the question that comes before any experiment: which of them
does *this* model get right?

A patching experiment on a prompt that the model answers wrongly measures noise, so measure first (`known`). The
banks' answers and subjects were checked with the tokenizers of GPT-2 and of the offline model.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from torch import Tensor

from ..models import Asked, as_list


@dataclass(frozen=True)
class Fact:
    """A prompt that ends where its one-token answer begins: "The capital of Spain is" → " Madrid"."""

    prompt: str
    subject: str
    answer: str
    family: str


@dataclass(frozen=True)
class Pair:
    """Two facts of one template, with as many tokens in the prompt and in the subject, and different answers."""

    base: str
    source: str
    base_subject: str
    source_subject: str
    base_answer: str
    source_answer: str
    family: str


@dataclass(frozen=True)
class IOIPrompt:
    """Indirect object identification (Wang et al. 2022): "When Mary and John went to the store, John gave a drink to"
    → " Mary". In `corrupted` the second John is a third name, so nothing tells the two names apart."""

    prompt: str
    corrupted: str
    indirect_object: str
    subject: str

    @property
    def third(self) -> str:
        """The third name, " Anna", which stands in `corrupted` in place of the second John."""
        words, others = self.prompt.split(), self.corrupted.split()
        return " " + next(other for word, other in zip(words, others, strict=True) if word != other).strip(".,")


@dataclass(frozen=True)
class Statement:
    """A sentence that is true or false, without its full stop: "The city of Rome is in Italy". Statements of different
    folds share neither city nor country."""

    text: str
    city: str
    country: str
    true: bool
    fold: int


FOLDS = 5  # groups of countries of `truths`


@cache
def _bank(name: str) -> tuple[dict, ...]:
    return tuple(json.loads(resources.files(__package__).joinpath(f"{name}.json").read_text("utf-8")))


def facts(family: str | None = None) -> list[Fact]:
    """The bank of facts, or one family of it ("capital", "country_of_city", "landmark_city", "language", …).

    >>> facts("capital")[0].prompt, facts("capital")[0].answer
    ('The capital of Syria is', ' Damascus')
    """
    return _of_family([Fact(**entry) for entry in _bank("facts")], family)


def pairs(family: str | None = None) -> list[Pair]:
    """The bank of equal-length pairs of facts, or one family of it.

    >>> pair = pairs("capital")[0]
    >>> pair.base, pair.base_answer
    ('The capital of Cuba is', ' Havana')
    >>> pair.source, pair.source_answer
    ('The capital of Austria is', ' Vienna')
    """
    return _of_family([Pair(**entry) for entry in _bank("pairs")], family)


def truths(bank: Sequence[Fact] | None = None, *, seed: int = 0) -> list[Statement]:
    """Statements about cities, half of them true, from which a probe for truth can learn nothing else (after the
    `cities` data of Marks & Tegmark 2023).

    >>> statements = truths()
    >>> statements[0].text, statements[0].true, statements[0].fold
    ('The city of Florence is in Italy', True, 0)
    >>> sum(one.true for one in statements) / len(statements)
    0.5

    Every city stands once with its own country and once with another of its fold, and every country is named in as many
    false statements as in true ones: no word by itself gives the label away, only the two together. Folds share neither
    cities nor countries, so a probe can be tested on items that it has never met. Fold by fold, the true statements
    come first, then the false ones about the same cities in the same order.

    Args:
        bank: facts whose subject is a city and whose answer its country (default: `facts("country_of_city")`).
        seed: of the countries' order.

    Raises:
        ValueError: too few countries for five folds.
    """
    cities: dict[str, list[Fact]] = {}
    for fact in facts("country_of_city") if bank is None else bank:
        cities.setdefault(fact.answer, []).append(fact)
    countries = sorted(cities)
    random.Random(seed).shuffle(countries)
    groups: list[list[Fact]] = [[] for _ in range(FOLDS)]
    for country in sorted(countries, key=lambda country: -len(cities[country])):
        min(groups, key=len).extend(cities[country])
    made = []
    for fold, group in enumerate(groups):
        most = max((len(cities[fact.answer]) for fact in group), default=0)
        if len(group) < max(2, 2 * most):
            raise ValueError(
                f"{len(cities)} countries are too few for {FOLDS} folds: in one, some city would have no wrong country to go with."
            )
        wrong = [fact.answer for fact in group[most:] + group[:most]]  # past all cities of the same country
        for true, answers in ((True, [fact.answer for fact in group]), (False, wrong)):
            for fact, country in zip(group, answers, strict=True):
                text = f"The city of {fact.subject} is in{country}"
                made.append(Statement(text, fact.subject, country.strip(), true, fold))
    return made


_SHE = (
    "Mary Anna Sarah Kate Alice Jane Laura Emma Lucy Emily Susan Linda Karen Nancy Lisa Helen Julia Rachel Maria Jennifer Elizabeth "
    "Barbara Margaret Patricia Jessica Amanda Victoria Diana Sophie Charlotte Rebecca Michelle Hannah Grace Rose Ruth Claire Martha "
    "Catherine Caroline"
).split()
_HE = (
    "John Tom James Dan Mark Peter Paul David Bob Jack Adam Henry Simon Michael Robert William Richard Thomas Charles George Edward "
    "Frank Kevin Brian Steven Andrew Daniel Matthew Joseph Anthony Martin Philip Stephen Patrick Eric Alexander Benjamin Samuel "
    "Arthur Harry"
).split()


def pronouns(*, seed: int = 0) -> list[Fact]:
    """ "When Mary got home," → " she", for 80 names that are one token, her and his by turns, in an order that the seed
    decides. (Names by whom English texts mostly say *he* or *she*; what a person is called by is for the person to say.)

    >>> [(fact.prompt, fact.answer) for fact in pronouns()[:2]]
    [('When Jessica got home,', ' she'), ('When Patrick got home,', ' he')]
    """
    rng = random.Random(seed)
    she, he = rng.sample(_SHE, len(_SHE)), rng.sample(_HE, len(_HE))
    named = [
        (name, answer) for both in zip(she, he, strict=True) for name, answer in zip(both, (" she", " he"), strict=True)
    ]
    return [Fact(f"When {name} got home,", name, answer, "pronoun") for name, answer in named]


IOI_NAMES = (
    "Mary John Tom James Dan Mark Peter Paul Anna Sarah Kate David Alice Bob Jack Jane Laura Adam Emma Lucy Henry Simon"
).split()
IOI_TEMPLATES = (
    "When {a} and {b} went to the {place}, {s} gave a {thing} to",
    "Then, {a} and {b} had a long talk at the {place}. Afterwards {s} gave a {thing} to",
    "After {a} and {b} met at the {place}, {s} handed a {thing} to",
    "While {a} and {b} were working at the {place}, {s} passed a {thing} to",
)
IOI_PLACES = "store school office station hospital garden library restaurant".split()
IOI_THINGS = "drink book letter ring bag key ball computer".split()


def ioi(n: int = 50, *, seed: int = 0) -> list[IOIPrompt]:
    """n IOI prompts from templates, half with the indirect object named first, half with the subject.

    >>> prompt = ioi(1)[0]
    >>> prompt.prompt
    'While Alice and Bob were working at the hospital, Bob passed a computer to'
    >>> prompt.indirect_object, prompt.subject
    (' Alice', ' Bob')
    """
    rng = random.Random(seed)
    made = []
    for i in range(n):
        io, subject, third = rng.sample(IOI_NAMES, 3)
        a, b = (io, subject) if i % 2 == 0 else (subject, io)
        slots = dict(a=a, b=b, place=rng.choice(IOI_PLACES), thing=rng.choice(IOI_THINGS))
        template = rng.choice(IOI_TEMPLATES)
        made.append(
            IOIPrompt(template.format(s=subject, **slots), template.format(s=third, **slots), f" {io}", f" {subject}")
        )
    return made


def ioi_places(lm, bank: Sequence[IOIPrompt]) -> dict[str, object]:
    """Where the names of IOI prompts stand, prompt by prompt, as named positions for `patch_sweep`: the indirect object (IO), the
    subject's first and second occurrence (S1, S2), and the last token.

    >>> places = ioi_places(lm, ioi(1))
    >>> [lm.str_tokens(ioi(1)[0].prompt)[places[name][0][0]] for name in ("IO", "S1", "S2")], places["last token"]
    ([' Alice', ' Bob', ' Bob'], -1)
    """
    names = {"IO": ("indirect_object", 0), "S1": ("subject", 0), "S2": ("subject", 1)}
    found = {
        place: [lm.find(one.prompt, getattr(one, name).strip(), occurrence=which) for one in bank]
        for place, (name, which) in names.items()
    }
    return {**found, "last token": -1}


def known(lm, bank: Sequence[Fact | Pair | IOIPrompt]) -> list:
    """The items that this model gets right, measured on the model as it is now.

    >>> bank = facts("capital")[:4]
    >>> [fact.answer for fact in known(lm, bank)]
    [' Damascus', ' Kabul', ' Ottawa', ' Moscow']

    A fact is known if its answer is the model's first choice, a pair if both of its facts are, and an IOI prompt if the
    indirect object is likelier than the subject. An answer that is several tokens for this model counts as unknown.
    """
    bank = as_list(bank, "facts, pairs or IOI prompts")
    results: dict[tuple, bool] = {}
    questions = [_questions(item) for item in bank]
    todo = list(dict.fromkeys(q for asked in questions for q in asked))
    words = {q: _words(lm, *q[1:]) for q in todo}
    results.update({q: False for q in todo if not words[q]})
    told = False  # that a word without its space was asked for
    # Prompts of similar length run together: little is spent on padding.
    todo = sorted((q for q in todo if words[q]), key=lambda q: len(q[0]))
    for i in range(0, len(todo), 32):
        logits = lm.next_token_logits([prompt for prompt, *_ in todo[i : i + 32]])
        for question, row in zip(todo[i : i + 32], logits, strict=True):
            told = told or any(word.check(row[None]) for word in words[question])
            results[question] = _is_right(row, *(word.ids for word in words[question]))
    return [item for item, asked in zip(bank, questions, strict=True) if all(results[question] for question in asked)]


def _questions(item: Fact | Pair | IOIPrompt) -> list[tuple[str, str, str | None]]:
    """[(prompt, right answer, the answer that it must beat, or None for every other)]"""
    if isinstance(item, IOIPrompt):
        return [(item.prompt, item.indirect_object, item.subject)]
    if isinstance(item, Pair):
        return [(item.base, item.base_answer, None), (item.source, item.source_answer, None)]
    try:
        return [(item.prompt, item.answer, None)]
    except AttributeError:
        raise ValueError(
            f"Facts, pairs or IOI prompts were expected, and {item!r} was given: of a row with these keys make prompts.Fact(row['prompt'], "
            "row['subject'], row['answer'], 'family')."
        ) from None


def _words(lm, *words: str | None) -> list[Asked]:
    """The right answer, and the one that it must beat if there is one; nothing if a word is several tokens."""
    try:
        return [Asked(lm, word) for word in words if word is not None]
    except ValueError:
        return []


def _is_right(logits: Tensor, ours: Tensor, other: Tensor | None = None) -> bool:
    """Whether the answer, ours (1,), comes out on top of logits (vocab,), or above the other one; not where any is NaN."""
    return bool((logits <= logits[ours]).all()) if other is None else bool(logits[ours] > logits[other])


def _of_family(items: list, family: str | None) -> list:
    chosen = [item for item in items if family in (None, item.family)]
    if not chosen:
        raise ValueError(f"No family {family!r} in this bank: it has {', '.join(sorted({i.family for i in items}))}.")
    return chosen


def wrong_sources(lm, pair: Pair, n: int = 3) -> list[str]:
    """Up to n prompts to patch from as a control: of the pair's family, with as many tokens and the subject at the same places,
    each with another answer, which is neither the base's nor the source's. Those that this model knows are taken first.

    >>> pair = pairs("capital")[0]
    >>> pair.base_answer, pair.source_answer, wrong_sources(lm, pair, 2)
    (' Havana', ' Vienna', ['The capital of Syria is', 'The capital of Afghanistan is'])
    """
    bank = [Fact(fact.prompt, fact.subject, fact.answer, pair.family) for fact in facts() if fact.family == pair.family]
    for other in pairs(pair.family):
        bank.append(Fact(other.base, other.base_subject, other.base_answer, pair.family))
        bank.append(Fact(other.source, other.source_subject, other.source_answer, pair.family))
    length, span = len(lm.str_tokens(pair.base)), lm.find(pair.base, pair.base_subject)
    fitting = [
        fact
        for fact in dict.fromkeys(bank)
        if len(lm.str_tokens(fact.prompt)) == length and lm.find(fact.prompt, fact.subject) == span
    ]
    chosen = {pair.base_answer: "", pair.source_answer: ""}
    for is_good in (lambda fact: known(lm, [fact]), lambda fact: True):
        for fact in fitting:
            if len(chosen) < n + 2 and fact.answer not in chosen and is_good(fact):
                chosen[fact.answer] = fact.prompt
    return [prompt for prompt in chosen.values() if prompt]
