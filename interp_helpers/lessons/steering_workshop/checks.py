"""Exercises of the steering workshop."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

import regex

from ...course import NotYet, exercise, require, require_attempted, short
from ...steering import SteeringVector, count_words, finder, first_words, results

FEWEST = 8  # sentences a list
SETS = {"having": "sentences that have it", "lacking": "sentences that lack it"}


@exercise("workshop.contrast", number=1, title="A contrast of your own", difficulty=2, minutes=8)
def _(answer, lm):
    """
    - Take something that people write about in many ways: the sea, cooking, football, being in a hurry. Write ten sentences about it, each of another kind: what somebody did, saw, said, owns, remembers.
    - Then write each of them once more about something else, and change as little as you can: “We walked along the *beach*”, “We walked along the *road*”. So what the two lists differ in is the matter, and not the length or the form.
    - The words that count are those that a text about it would have, yours and others; none of them may stand in the second list.
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
    return (
        "Nothing that this check looks for (number, length, first words, last signs, your words in the wrong list) spoils the two lists. It can't see "
        "tense, language or mood: read them once more. How good the vector is you can only find out by trying it."
    )


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
    - A line is a layer, and a point on it is a strength; `print(sweep)` names both, and the table above the figure has the numbers.
    - Leave out every setting that costs more than the budget. Of the others, take the one with the most hits.
    - Of settings with equally many hits, the one with the lowest perplexity.
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
    if (i, j) == (a, b):
        return f"And so does the rule, by itself: layer {layer} at {strength:g}. Chosen on these prompts, it has to be judged on others."
    within = any(
        sweep.cost(k, m) <= sweep.budget for k in range(len(sweep.layers)) for m in range(len(sweep.strengths))
    )
    cost, hits = sweep.cost(i, j), sweep.scores[i][j].rate(sweep.words)
    if not within:
        raise NotYet("no setting is within the budget here: then the rule takes the one with the lowest perplexity")
    require(
        cost <= sweep.budget,
        f"layer {layer} at {strength:g} costs {cost:.1f} times the unsteered perplexity, and {sweep.budget:g} is allowed",
    )
    best = sweep.scores[a][b].rate(sweep.words)
    require(
        hits == best,
        f"layer {layer} at {strength:g} has {hits:.0%} hits, and another setting within the budget has more",
    )
    raise NotYet(
        f"layer {layer} at {strength:g} has as many hits as another setting, which is cheaper: of equals, the lowest perplexity"
    )


@exercise("workshop.saved", number=3, title="Take it home", difficulty=1, minutes=3)
def _(answer, vector):
    """
    - `vector.save(path)` writes the file, and `path` is its name.
    - For instance `path = "my_vector.safetensors"`, and below it `vector.save(path)`.
    - The vector to keep is `vector`, the chosen one, with its strength and mode.
    """
    require(isinstance(answer, str | Path), f"the name of a file was expected, and you gave {short(answer)}")
    path = Path(answer)
    require(path.suffix == ".safetensors", f"the file's name is to end in .safetensors, and it is {path.name!r}")
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
    (_, low, high), (_, other_low, other_high) = conditions[one][measure], conditions[other][measure]
    return "yes" if low > other_high else "no" if high < other_low else "open"


@exercise("workshop.claims", number=4, title="What does the table show?", difficulty=2, minutes=4)
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
        "Against the weaker request the vector's lead is shown, against the stronger one it is open; and by the judge the stronger one leads. So a "
        "result names its baseline, its measure and its interval."
    )
