"""Answers that learners give to the exercises of notebook 03: wrong ones and what each is told, and right ones in another style."""


def swap(result: str, difference: str = "(source - base) @ basis") -> str:
    return f"def swap(base, source, basis):\n    difference = {difference}\n    return {result}"


def gradient(result: str) -> str:
    return f"def gradient(base, source, q, g):\n    difference = source - base\n    return {result}"


SETTLED = {
    "perhaps exchanging any eight dimensions would do that": "random subspace",
    "perhaps it learnt the training names by heart": "held-out names",
    "perhaps the variable isn't at this site at all, and the result is an artefact": "whole component",
    "perhaps two averages would have found it, without any training": "class means",
    "perhaps it turns every answer round, whatever the source says": "same-pronoun pairs",
}
ANY, BY_HEART, ELSEWHERE, AVERAGES, ROUND = SETTLED


def controls(changed: dict[str, str]) -> str:
    """The right dictionary, with other controls for some doubts."""
    return f"answers = {SETTLED | changed!r}"


def overfit(dimensions: str = "9", reading: str = '"B"') -> str:
    return f"dimensions = {dimensions}\nreading = {reading}"


WRONG = {
    "das.swap": [
        (swap("base"), "the base came back as it was"),
        (swap("source"), "that is the source"),
        (swap("base + source @ basis @ basis.T"), "it is exchanged, not added"),
        (swap("base - base @ basis @ basis.T"), "put nothing in its place"),
        (swap("source - difference @ basis.T"), "base and source are the wrong way round"),
        (swap("base - difference @ basis.T"), "the sign is turned round"),
        (swap("source @ basis @ basis.T"), "the base's rest, at right angles to it, is missing"),
        (swap("difference @ basis.T"), "the base, to which it is added, is missing"),
        (swap("difference"), "a tensor of shape (5, 3) came back, and (5, 12) was expected"),
        (swap("base + difference.mean() * basis.sum(1)"), "Which part of yours is the base's, and which the source's?"),
        (swap("torch.cat([source[:, : basis.shape[1]], base[:, basis.shape[1] :]], 1)"), "you exchanged the first 3 of the 12 units"),
        (swap("base + difference.mean(0) @ basis.T"), "you gave every row the mean difference"),
        (swap("base + ((source[:1] - base) @ basis) @ basis.T"), "you gave every row the content of row 0's source"),
        (
            "def swap(base, source, basis):\n    with torch.no_grad():\n        return base + (source - base) @ basis @ basis.T",
            "is there a `no_grad`, a `detach` or numpy in it?",
        ),
        (
            swap("torch.tensor(b + (s - b) @ q @ q.T)", "0; b, s, q = base.numpy(), source.numpy(), basis.numpy()"),
            "with a basis that is being learnt your function raises",
        ),
        (
            swap("torch.tensor(b + (s - b) @ q @ q.T)", "0; b, s, q = (t.detach().numpy() for t in (base, source, basis))"),
            "is there a `no_grad`, a `detach` or numpy in it?",
            "the same cut",
        ),
        (
            swap("base + difference @ basis.detach().T", "(source - base) @ basis.detach()"),
            "is there a `no_grad`, a `detach` or numpy in it?",
            "the same cut",
        ),
        (swap("base + difference @ basis.detach().T"), "only a part of the gradient gets back to `basis`"),
        (
            swap("base + difference @ basis.T", "(source - base) @ basis.detach()"),
            "only a part of the gradient gets back to `basis`",
            "the other half",
        ),
        (swap("base + difference[:, :1] @ basis[:, :1].T"), "along the first column of the basis only"),
        (swap("base.add_(difference @ basis.T)"), "your function changed the tensors that it was given"),
        (swap("base + difference @ basis"), "your code raised RuntimeError"),
        (swap("print(base + difference @ basis.T)"), "is there a `return`?"),
        (swap("base.tolist()"), "a tensor was expected"),
        ("swap = 3", "the answer is your function `swap`"),
    ],
    "das.controls": [
        (controls({ANY: "class means", AVERAGES: "random subspace"}), "exchange as many random dimensions"),
        (controls({BY_HEART: "same-pronoun pairs", ROUND: "held-out names"}), "what was learnt by heart fails on what was never seen"),
        (controls({ELSEWHERE: "class means", AVERAGES: "whole component"}), "a part that does something is suspect"),
        (controls({ROUND: "held-out names"}), "answer must *stay*"),
        (controls({AVERAGES: "random subspace"}), "one row of the table needs no training"),
        (controls({ELSEWHERE: "a larger rank"}), "more dimensions make a high IIA easier to reach"),
        (controls({BY_HEART: "more training steps"}), "longer training changes the result"),
        (controls({AVERAGES: "PCA"}), "is none of the names in the list"),
        (f"answers = {dict(list(SETTLED.items())[:4])!r}", "1 of the five doubts are missing"),
        ('answers = {"perhaps it is luck": "held-out names"}', "is none of the doubts"),
        ("answers = ['held-out names']", "a dictionary was expected"),
    ],
    "das.gradient": [
        (gradient("(difference @ q) * g"), "you took the number (s − b)·q as fixed"),
        (gradient("(g @ q) * difference"), "you took the vector q as fixed"),
        (gradient("2 * (difference @ q) * g"), "you doubled one term;"),
        (gradient("2 * (g @ q) * difference"), "you doubled one term:"),
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
        (overfit("10"), "are more than needed"),
        (overfit("16"), "16 is how many dimensions DAS was given"),
        (overfit("1"), "one dimension is enough for two points"),
        (overfit("80"), "the number of training *pairs*"),
        (overfit("lm.d_model"), "go on from 2 points and 3 points to 10"),
        (overfit('"nine"'), "`dimensions` is a number"),
        (overfit(reading='"A"'), "exchanging them would work for the held-out countries as well"),
        (overfit(reading='"C"'), "look at the first row"),
        (overfit(reading='"d"'), "on the training pairs nothing is left to improve"),
        (overfit(reading='"Capitals are stored in 16 dimensions of this layer."'), "A: if they were stored"),
        (overfit(reading='"E"'), "one of the letters A, B, C, D"),
    ],
}  # fmt: skip

RIGHT = {
    "das.swap": [
        """def swap(base, source, basis):
    projection = basis @ basis.T
    return base - base @ projection + source @ projection""",
        """def swap(base, source, basis):
    coordinates = torch.einsum("nd,dr->nr", source - base, basis)
    return base + torch.einsum("nr,dr->nd", coordinates, basis)""",
        """def swap(base, source, basis):
    result = base.clone()
    for q in basis.T:
        result = result + ((source - base) * q).sum(-1, keepdim=True) * q
    return result""",
    ],
    "das.controls": [
        f"answers = dict(reversed({SETTLED!r}.items()))",
        f"answers = {{doubt: control.upper() for doubt, control in {SETTLED!r}.items()}}",
    ],
    "das.gradient": [
        """def gradient(base, source, q, g):
    q = q.detach().clone().requires_grad_()
    (base + ((source - base) @ q) * q).backward(g)
    return q.grad""",
        """def gradient(base, source, q, g):
    delta = source - base
    return torch.outer(delta, q) @ g + g * (delta * q).sum()""",
    ],
    "das.overfit": [
        "dimensions, reading = 9.0, 'b)'",
        'dimensions = 10 - 1\nreading = "A subspace that tells the training countries apart passes the training pairs, and need not carry anything else."',
        'dimensions, reading = torch.tensor(9), "**B**"',
    ],
}
