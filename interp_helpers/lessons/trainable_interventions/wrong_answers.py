"""Wrong answers that learners give to the exercises of notebook 03, and what each is told."""


def swap(result: str, difference: str = "(source - base) @ basis") -> str:
    return f"def swap(base, source, basis):\n    difference = {difference}\n    return {result}"


def gradient(result: str) -> str:
    return f"def gradient(base, source, q, g):\n    difference = source - base\n    return {result}"


RIGHT = {
    "perhaps exchanging any eight dimensions would do that": "random subspace",
    "perhaps it learnt the training names by heart": "held-out names",
    "perhaps the variable isn't at this site at all, and the result is an artefact": "whole component",
    "perhaps two averages would have found it, without any training": "class means",
    "perhaps it turns every answer round, whatever the source says": "same-pronoun pairs",
}
ANY, BY_HEART, ELSEWHERE, AVERAGES, ROUND = RIGHT


def controls(changed: dict[str, str]) -> str:
    """The right dictionary, with other controls for some doubts."""
    return f"answers = {RIGHT | changed!r}"


def overfit(dimensions: str = "half - 1", reading: str = '"B"') -> str:
    return f"dimensions = {dimensions}\nreading = {reading}"


WRONG = {
    "das.swap": [
        (swap("base"), "the base came back as it was"),
        (swap("source"), "that is the source"),
        (swap("base + source @ basis @ basis.T"), "it is exchanged, not added"),
        (swap("base - base @ basis @ basis.T"), "put nothing in its place"),
        (swap("source - difference @ basis.T"), "base and source are the wrong way round"),
        (swap("base - difference @ basis.T"), "the sign is turned round"),
        (swap("source @ basis @ basis.T"), "the base's rest, across it, is missing"),
        (swap("difference @ basis.T"), "the base, to which it is added, is missing"),
        (swap("difference"), "a tensor of shape (5, 3) came back, and (5, 12) was expected"),
        (swap("base + difference.mean() * basis.sum(1)"), "is it b + (s − b) Q Qᵀ?"),
        (swap("base + difference[:, :1] @ basis[:, :1].T"), "along the first column of the basis only"),
        (swap("base.add_(difference @ basis.T)"), "your function changed the tensors that it was given"),
        (swap("base + difference @ basis"), "your code raised RuntimeError"),
        (swap("print(base + difference @ basis.T)"), "is there a `return`?"),
        (swap("base.tolist()"), "a tensor was expected"),
        ("swap = 3", "the answer is your function `swap`"),
    ],
    "das.controls": [
        (controls({ANY: "class means", AVERAGES: "random subspace"}), "exchange the same number of dimensions, chosen by nobody"),
        (controls({ELSEWHERE: "random subspace", ANY: "whole component"}), "chosen by nobody"),
        (controls({BY_HEART: "same-pronoun pairs", ROUND: "held-out names"}), "what was learnt by heart fails on what was never seen"),
        (controls({ELSEWHERE: "class means", AVERAGES: "whole component"}), "what the whole component cannot do"),
        (controls({ROUND: "held-out names"}), "it must *stay*. ('held-out names' stands there twice; each is used once.)"),
        (controls({AVERAGES: "PCA"}), "is none of the names in `CONTROLS`"),
        (f"answers = {dict(list(RIGHT.items())[:4])!r}", "1 of the five doubts are missing"),
        ('answers = {"perhaps it is luck": "held-out names"}', "is none of the doubts"),
        ("answers = CONTROLS", "a dictionary was expected"),
    ],
    "das.gradient": [
        (gradient("(difference @ q) * g"), "you took the number (s − b)·q as fixed"),
        (gradient("(g @ q) * difference"), "you took the vector q as fixed"),
        (gradient("2 * (difference @ q) * g"), "you doubled one term"),
        (gradient("2 * (g @ q) * difference"), "you doubled one term", "whichever of the two it is"),
        (gradient("-((difference @ q) * g + (g @ q) * difference)"), "the sign is turned round"),
        (gradient("(source @ q) * g + (g @ q) * source"), "what is exchanged is the *difference*"),
        (
            gradient("(difference @ q) * (g - (g @ q) * q) + (g @ q) * (difference - (difference @ q) * q)"),
            "leave the constraint out",
        ),
        (gradient("(difference @ q) * q"), "is every q in h = b + ((s − b)·q) q accounted for?"),
        (gradient("0 * q"), "autograd finds another gradient"),
        (gradient("difference @ q"), "a tensor of shape () came back"),
        ("gradient = 0", "the answer is your function `gradient`"),
    ],
    "das.overfit": [
        (overfit("half"), "and one fewer is as well"),
        (overfit("16"), "points around their centre span one dimension fewer"),
        (overfit("1"), "one direction is enough for the means of two"),
        (overfit("lm.d_model"), "far fewer are, too"),
        (overfit("len(train_countries)"), "the number of training *pairs*"),
        (overfit('"nine"'), "`dimensions` is a number"),
        (overfit(reading='"A"'), "exchanging them would work for the countries held out as well"),
        (overfit(reading='"C"'), "look at the first row"),
        (overfit(reading='"d"'), "on the training pairs nothing is left to improve"),
        (overfit(reading='"E"'), "one of the letters A, B, C, D"),
    ],
}  # fmt: skip
