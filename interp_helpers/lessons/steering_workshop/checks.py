"""Exercises of the steering workshop."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

import regex

from ...course import NotYet, exercise, require, require_attempted, short
from ...steering import SteeringVector, count_words, finder, first_words, personas, results
from .experiment import compared

FEWEST = 6  # sentences a list
PAST = set(
    "was were had did went came saw said made took got gave found told left felt kept heard ran ate drank sat stood swam drove rode flew sang "
    "wrote read spoke won bought brought thought knew began grew fell lay slept woke met put let cut built sent spent".split()
)
SETS = {"having": "sentences that have it", "lacking": "sentences that lack it"}


@exercise("workshop.contrast", number=1, title="A contrast of your own", difficulty=2, minutes=11)
def _(answer, lm):
    """
    - Take something that people write about in many ways: the sea, cooking, football, being in a hurry. Write six sentences about it or more, each of another kind: what somebody did, saw, said, owns, remembers.
    - Then write each of them once more about something else, and change as little as you can: “We walked along the *beach*”, “We walked along the *road*”. So the two lists differ in the topic, and not in length or form.
    - The words that count are those that a text about your topic would have, yours and others. None of them may stand in the second list.
    """
    require(
        isinstance(answer, Mapping),
        f"a dictionary was expected, with name, having, lacking and words, and you gave {short(answer)}",
    )
    for field in ("name", "having", "lacking", "words"):
        require(field in answer, f"{field!r} is missing from your dictionary")
        require_attempted(answer[field], f"the field {field!r}")
    name, words = answer["name"], answer["words"]
    require(isinstance(name, str) and name.strip(), f"the name is a word or two, and it is {short(name)}")
    having, lacking = (_sentences(answer[field], what) for field, what in SETS.items())
    require(
        len(having) == len(lacking),
        f"{len(having)} sentences have it and {len(lacking)} lack it: write as many of each, so that each has its counterpart",
    )
    both = [text for text in having if _bare(text) in map(_bare, lacking)]
    require(not both, f"{short(both[:1])[1:-1]} stands in both lists, where it cancels itself out")
    require(
        isinstance(words, Sequence)
        and not isinstance(words, str)
        and words
        and all(isinstance(w, str) and w.strip() for w in words),
        f"the words that count are a list of words, none of them empty, and you gave {short(words)}",
    )
    has_one = finder(words)
    there = next(filter(has_one, lacking), None)
    require(
        there is None,
        f"{short(there)} is to lack it, and has one of your words in it: write it about something else, or take the word out",
    )
    counted = sum(map(has_one, having))
    require(
        counted >= len(having) / 2,
        f"only {counted} of your {len(having)} sentences that have it hold one of your words: what is counted later would be another thing than "
        "what you wrote about",
    )
    lengths = [sum(len(lm.tokens(text)[0]) for text in texts) / len(texts) for texts in (having, lacking)]
    require(
        max(lengths) <= 1.4 * min(lengths),
        f"the lists differ in length, {lengths[0]:.0f} words (or pieces of words) a sentence and {lengths[1]:.0f}: the vector would hold that, too",
    )
    for what, sign in (("begin with", _beginning), ("end in", lambda text: repr(text.rstrip()[-1]))):
        for one, other, said in ((having, lacking, "have it"), (lacking, having, "lack it")):
            most, count = Counter(map(sign, one)).most_common(1)[0]
            also = sum(sign(text) == most for text in other)
            require(
                count / len(one) <= 0.5 + also / len(other),
                f"{count} of your {len(one)} sentences that {said} {what} {most}, and {also} of the others: the vector would hold that, too",
            )
    for listed, said in ((having, "have it"), (lacking, "lack it")):
        near = [(text, other) for i, text in enumerate(listed) for other in listed[:i] if _near_copies(text, other)]
        require(
            len({text for text, _ in near}) <= len(listed) / 4,
            f"too many of your sentences that {said} are near-copies, such as {short(near and near[0][1])} and "
            f"{short(near and near[0][0])}: the vector would hold this one sentence, and not what it is about",
        )
    for what, sign in (("in the past", _past), *_moods(words)):
        one, other = (sum(map(sign, listed)) for listed in (having, lacking))
        require(
            abs(one - other) <= len(having) / 2,
            f"{one} of your sentences that have it are {what}, and {other} of those that lack it: the vector would hold that, too",
        )
    return (
        "This check finds nothing that would spoil the vector. It looked at number, length, first words, last signs, near-copies, and your words in the "
        "wrong list. It knows only a few English words for tense and mood, so read your lists once more. Only trying shows how good the vector is."
    )


def _near_copies(text: str, other: str) -> bool:
    """Whether at most one word in four is another one."""
    one, two = set(_bare(text).split()), set(_bare(other).split())
    return min(len(one), len(two)) >= 4 and len(one & two) / max(len(one), len(two)) >= 0.75


def _past(text: str) -> bool:
    """Whether an English sentence speaks of the past, as far as its form shows it."""
    found = set(_bare(text).split())
    if found & {"is", "are", "am", "has", "have", "does", "do", "will", "can"}:
        return False
    return bool(found & PAST) or any(re.fullmatch(r"[a-z]{2,}ed", word) for word in found)


def _moods(words: Sequence[str]) -> list[tuple]:
    """Glad and sad words of English, but for those that the participant counts: then the mood is what is meant."""
    meant = {_bare(word) for word in words}
    return [
        (f"{mood} in mood", finder(sorted(set(personas()[id].words["related"]) - meant)))
        for mood, id in (("glad", "happy"), ("gloomy", "sad"))
    ]


def _bare(text: str) -> str:
    """The words alone, to find the same sentence under another full stop."""
    return " ".join(regex.findall(r"\w+", normalize("NFC", text.lower())))


def _beginning(text: str) -> str:
    """The first word; all numbers and bullets of a list are one."""
    return "a number or bullet" if re.match(r"\W*\d|[-*•–]", text.strip()) else repr(first_words(text, 1))


def _sentences(texts, what: str) -> list[str]:
    require(
        isinstance(texts, Sequence) and not isinstance(texts, str) and all(isinstance(text, str) for text in texts),
        f"the {what} are a list of texts, and you gave {short(texts)}",
    )
    require(len(texts) >= FEWEST, f"{len(texts)} {what} are few: write {FEWEST} or more, ten if you can")
    twice = next((text for text in texts if sum(_bare(text) == _bare(other) for other in texts) > 1), None)
    require(twice is None, f"among your {what}, {short(twice)} stands twice")
    bare = next((text for text in texts if count_words(text) < 4), None)
    require(bare is None, f"{short(bare)} is too short to be a sentence: four words or more")
    return list(texts)


@exercise("workshop.choose", number=2, title="Read the figure", difficulty=1, minutes=4)
def _(answer, sweep):
    """
    - Each line is a layer. Each point on it is a strength, and the number stands beside it.
    - Leave out every point right of the dotted line: it is marked *too dear*. Of the others, take the highest.
    - If two points lie equally high, either is right.
    """
    require(
        isinstance(answer, tuple | list) and len(answer) == 2,
        f"two numbers were expected, (layer, strength), and you gave {short(answer)}",
    )
    require(
        all(isinstance(x, int | float) for x in answer),
        f"two numbers were expected, without quotation marks, and you gave {short(answer)}",
    )
    layer, strength = answer
    require(
        layer in sweep.layers or strength not in sweep.layers,
        f"the layer comes first, then the strength, and you gave {short(answer)}",
    )
    require(layer in sweep.layers, f"layer {layer} was not tried: {', '.join(map(str, sweep.layers))} were")
    close = [j for j, s in enumerate(sweep.strengths) if abs(s - strength) < 1e-6]
    require(close, f"strength {strength} was not tried: {', '.join(f'{s:g}' for s in sweep.strengths)} were")
    i, j = sweep.layers.index(layer), close[0]
    a, b = sweep.chosen
    chosen = f"layer {sweep.layers[a]} at {sweep.strengths[b]:g}"
    if (i, j) == (a, b):
        return (
            f"The rule chooses the same: {chosen}. It was chosen on these beginnings, so it has to be judged on others."
        )
    cells = [(k, m) for k in range(len(sweep.layers)) for m in range(len(sweep.strengths))]
    if not any(sweep.cost(*cell) <= sweep.budget for cell in cells):
        raise NotYet("no point lies left of the dotted line here: then the rule takes the cheapest, the leftmost point")
    cost, hits = sweep.cost(i, j), sweep.scores[i][j].rate(sweep.words)
    require(
        cost <= sweep.budget,
        f"layer {layer} at {strength:g} costs {cost:.2f} times the unsteered perplexity, and {sweep.budget:g} is allowed",
    )
    best = sweep.scores[a][b].rate(sweep.words)
    require(
        hits == best,
        f"layer {layer} at {strength:g} has {hits:.0%} hits, and another point left of the dotted line has more",
    )
    return f"It has as many hits as {chosen}, which is a little cheaper. So the rule takes {chosen}."


COLUMNS = {"named": "with the words", "judged": "judged", "perplexity": "perplexity"}  # as the table calls them
YES_NO_OPEN = ("yes", "no", "open")
# (persona, measure, condition, the other condition): is the first one larger?
CLAIMS = {
    "a": ("tabby_cats", "named", "steered", "plain request"),
    "b": ("tabby_cats", "named", "steered", "request in a chat"),
    "c": ("toronto", "named", "random direction", "steered"),
    "d": ("happy", "judged", "request in a chat", "steered"),
    "e": ("sad", "perplexity", "unsteered", "steered"),
}


def shown_by_the_table(persona: str, measure: str, one: str, other: str) -> str:
    """ "yes" where the interval of the first condition lies above that of the other, "no" where it lies below, else "open"."""
    conditions = results()["personas"][persona]["conditions"]
    return {"above": "yes", "below": "no", "open": "open"}[
        compared(conditions[one][measure], conditions[other][measure])
    ]


@exercise("workshop.claims", number=3, title="What does the table show?", difficulty=2, minutes=4)
def _(answer):
    """
    - For each claim find the two rows and the one column that it speaks of.
    - Compare the two intervals. If they have a number in common, the table leaves the claim open, whichever value is larger.
    - Claim e speaks of the column *perplexity*. One of the five claims is open.
    """
    require(isinstance(answer, Mapping), f"a dictionary was expected, claim → answer, and you gave {short(answer)}")
    for claim, asked in CLAIMS.items():
        require(claim in answer, f"the claim {claim!r} is missing from your dictionary")
        given = require_attempted(answer[claim], f"the claim {claim!r}")
        given = given.strip().lower() if isinstance(given, str) else given
        require(given in YES_NO_OPEN, f'the answer to {claim!r} is "yes", "no" or "open", and you gave {short(given)}')
        right = shown_by_the_table(*asked)
        if given != right:
            persona, measure, one, other = asked
            conditions = results()["personas"][persona]["conditions"]
            read = " and ".join(
                f"[{conditions[name][measure][1]:.2f}, {conditions[name][measure][2]:.2f}] ({name})"
                for name in (one, other)
            )
            why = "they overlap, so this table can't tell" if right == "open" else "they lie apart, so it can tell"
            raise NotYet(f"claim {claim!r}: the intervals of “{COLUMNS[measure]}” are {read}; {why}")
    return (
        "By the words, the cats' vector lies above the plain request, and against the request in a chat it is open. By the judge, the request in a chat "
        "lies above the vector for being happy. So a result must name its baseline, its measure and its interval."
    )


@exercise("workshop.saved", number=4, title="Take it home", difficulty=1, minutes=3)
def _(answer, vector, words):
    """
    - `vector.save(name)` writes the file and gives its path back.
    - Choose a name that says nothing of the topic, such as the table that you sit at.
    - The vector to keep is `vector`, the chosen one, with its strength and mode.
    """
    require(isinstance(answer, str | Path), f"the name of a file was expected, and you gave {short(answer)}")
    path = Path(answer)
    require(path.suffix == ".safetensors", f"the file's name is to end in .safetensors, and it is {path.name!r}")
    pieces = set(re.findall(r"[^\W\d_]+", path.stem.lower()))
    telling = next(
        (
            word
            for word in _telling(vector.name, words)
            if word in pieces or len(word) > 4 and word in path.stem.lower()
        ),
        None,
    )
    require(telling is None, f"the file's name is to keep the topic secret, and {path.name!r} has {telling!r} in it")
    require(path.is_file(), f"there is no file {str(path)!r}: `vector.save(path)` writes it")
    try:
        kept = SteeringVector.load(path)
    except ValueError as error:
        raise NotYet(f"{str(path)!r} holds something else: {error}") from None
    require(
        kept.model == vector.model,
        f"the vector in {str(path)!r} is for the model {kept.model}, and yours is for {vector.model}",
    )
    require(
        kept.provenance.get("hash") == vector.provenance.get("hash"),
        f"the vector in {str(path)!r} was made from other sentences than yours"
        if "hash" in kept.provenance
        else f"the vector in {str(path)!r} is a random direction, not yours",
    )
    require(
        kept.strength is not None,
        "the vector in the file doesn't say how strongly to apply it: keep `vector`, which was chosen, with its strength",
    )
    require(
        bool((kept.direction == vector.direction).all()) or kept.layer != vector.layer,
        "the vector in the file points another way than yours: save `vector` as it is",
    )
    require(
        kept.mode == vector.mode,
        f"the vector in the file is applied by {kept.mode!r}, and yours was chosen by {vector.mode!r}",
    )
    require(
        (kept.layer, kept.strength) == (vector.layer, vector.strength),
        f"the vector in the file is for layer {kept.layer} at strength {kept.strength:g}, and you chose layer {vector.layer} at "
        f"{vector.strength:g}",
    )
    return f"{path.stat().st_size / 1000:.0f} kB, and everything is in it: the direction, its layer and strength, and which model it is for."


def _telling(name: str, words: Sequence[str]) -> list[str]:
    """Words that give a vector's topic away: those of its name, and those that count."""
    little = {"a", "an", "the", "of", "in", "on", "at", "to", "and", "or", "my", "being", "vector"}
    return [word for text in (name, *words) for word in re.findall(r"[^\W\d_]+", text.lower()) if word not in little]
