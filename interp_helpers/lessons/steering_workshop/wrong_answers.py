"""Wrong answers that participants give to the exercises of the steering workshop, and what each is told."""

HAVING = [
    "Snow fell all night, and in the morning the cars were white.",
    "We built a snowman in the garden and gave him a carrot for a nose.",
    "The lake was frozen, and we skated until our fingers were cold.",
    "She put on two sweaters, because the wind was icy.",
    "My boots were full of snow when I reached the cabin.",
    "In January the roads are closed by snow and ice.",
    "He cleared the snow from the roof with a shovel.",
    "There was frost on the windows of the old train.",
]
LACKING = [
    "Music played all night, and in the morning the guests were tired.",
    "We built a bookshelf in the garage and gave it a coat of paint.",
    "The shop was crowded, and we waited until our parents were bored.",
    "She put on two bracelets, because the party was special.",
    "My pockets were full of coins when I reached the station.",
    "On Mondays the museums are closed by law and custom.",
    "He cleared the dishes from the table with a smile.",
    "There was dust on the shelves of the old library.",
]
WORDS = ["snow", "snowman", "ice", "icy", "frozen", "frost", "cold"]


NEAR = [
    f"The sea was calm and blue on {day}."
    for day in ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
]
FAR = [
    "The shop was closed and dark that morning.",
    "The soup was thick and warm at noon.",
    "The road was long and straight to town.",
    "The lamp was small and green in the hall.",
    "Our train was late and slow again.",
    "His coat was old and torn at the sleeve.",
    "My aunt was kind and quiet all evening.",
]
# Six pairs that differ in one thing besides the topic: tense, or mood.
NOW = [
    "The goalkeeper is tired after the match.",
    "My sister has a football from her uncle.",
    "Every child in the yard is chasing the ball.",
    "The referee has a whistle around his neck.",
    "Both teams are waiting in the rain.",
    "A crowd is singing behind the goal.",
]
THEN = [
    "The gardener was tired after the walk.",
    "My sister had a necklace from her uncle.",
    "Every child in the yard was chasing the cat.",
    "The teacher had a scarf around his neck.",
    "Both families were waiting in the rain.",
    "A choir was singing behind the church.",
]
FOOTBALL = ["goalkeeper", "football", "ball", "referee", "teams", "goal"]
GLAD = [
    "What a lovely match the goalkeeper had today.",
    "My sister is grateful for the football from her uncle.",
    "Every great child in the yard is chasing the ball.",
    "The beautiful referee has a whistle around his neck.",
    "Both incredible teams are waiting in the sun.",
    "We love the crowd that sings behind the goal.",
]
SOBER = [
    "What a long walk the gardener had today.",
    "My sister is looking for the necklace from her uncle.",
    "Every other child in the yard is chasing the cat.",
    "The new teacher has a scarf around his neck.",
    "Both big families are waiting in the sun.",
    "We hear the choir that sings behind the church.",
]
OTHERS = [text.replace("was", "is").replace("had", "has").replace("were", "are") for text in THEN]


def contrast(name="snow", having=HAVING, lacking=LACKING, words=WORDS) -> str:
    return f"mine = {dict(name=name, having=having, lacking=lacking, words=words)!r}"


def claims(**changed) -> str:
    return f"answers = {dict(a='yes', b='open', c='no', d='yes', e='no') | changed!r}"


def saved(what: str) -> str:
    return f'path = "wrong.safetensors"\n{what}.save(path)'


WRONG = {
    "workshop.contrast": [
        ("mine = 'the sea'", "a dictionary was expected"),
        ('mine = {"name": "snow", "having": ["a"]}', "'lacking' is missing"),
        (contrast(name=" "), "the name is a word or two"),
        (contrast(having="\n".join(HAVING)), "are a list of texts"),
        (contrast(having=HAVING[:5]), "5 sentences that have it are few"),
        (contrast(lacking=[*LACKING[:7], LACKING[0]]), "stands twice"),
        (contrast(having=[*HAVING[:7], "Snow and ice"]), "is too short to be a sentence"),
        (contrast(lacking=[*LACKING[:7], HAVING[7]]), "stands in both lists"),
        (contrast(words="snow, ice"), "the words that count are a list of words, none of them empty, and you gave 'snow"),
        (contrast(words=[*WORDS, "dust"]), "is to lack it, and has one of your words"),
        (contrast(words=["winter", "cold"]), "only 1 of your 8 sentences"),
        (
            contrast(having=[f"{text[:-1]}, which we all remember very well to this day, as it happens." for text in HAVING]),
            "the lists differ in length",
        ),
        (contrast(having=["Snow " + text[0].lower() + text[1:] for text in HAVING]), "begin with 'Snow'"),
        (contrast(having=[text[:-1] + "!" for text in HAVING]), "have it end in '!'"),
        (
            contrast(
                having=[text[:-1] + "!.!.!.!."[i] for i, text in enumerate(HAVING)],
                lacking=[text[:-1] + "?" for text in LACKING],
            ),
            "lack it end in '?'",
        ),
        (contrast(having=[f"{i}. {text}" for i, text in enumerate(HAVING)]), "begin with a number or bullet"),
        (contrast(lacking=[*LACKING[:7], f"{HAVING[6][:-1]}!"]), "stands in both lists", "the same sentence under another full stop"),
        (contrast(words=[*WORDS, ""]), "none of them empty"),
        (contrast(lacking=[*LACKING, "The train was late, and nobody in it said a word."]), "8 sentences have it and 9 lack it"),
        (contrast("the sea", NEAR, FAR, ["sea"]), "sentences that have it are near-copies"),
        (contrast("football", NOW, THEN, FOOTBALL), "are in the past, and 6 of those that lack it"),
        (contrast("football", GLAD, SOBER, FOOTBALL), "are glad in mood"),
    ],
    "workshop.choose": [
        ("setting = sweep.layers[0]", "two numbers were expected"),
        ("setting = (str(sweep.layers[0]), '0.3')", "without quotation marks"),
        ("setting = (sweep.strengths[0], sweep.layers[0])", "the layer comes first"),
        ("setting = (sweep.layers[0] + 1, sweep.strengths[0])", "was not tried: 18, 24 were"),
        ("setting = (sweep.layers[0], 0.25)", "strength 0.25 was not tried"),
        (
            "cells = [(i, j) for i in range(len(sweep.layers)) for j in range(3)]\ni, j = max(cells, key=lambda c: sweep.cost(*c))\n"
            "setting = (sweep.layers[i], sweep.strengths[j])",
            "times the unsteered perplexity, and 2.5 is allowed",
        ),
        (
            "cells = [(i, j) for i in range(len(sweep.layers)) for j in range(3)]\ni, j = min(cells, key=lambda c: sweep.cost(*c))\n"
            "setting = (sweep.layers[i], sweep.strengths[j])",
            "another point left of the dotted line has more",
        ),
    ],
    "workshop.saved": [
        ("path = 5", "the name of a file was expected"),
        ('path = "my_vector.txt"', "is to end in .safetensors"),
        ('path = "nowhere.safetensors"', "there is no file 'nowhere.safetensors'"),
        ('path = "wrong.safetensors"\nopen(path, "w").write("the sea")', "holds something else"),
        (saved("cats"), "was made from other sentences than yours"),
        (saved("vector.random(0)"), "is a random direction, not yours"),
        (saved("vectors[0]"), "doesn't say how strongly to apply it"),
        (saved("replace(vector, direction=-vector.direction)"), "points another way"),
        (saved('replace(vector, mode="add")'), "is applied by 'add'"),
        (saved("replace(vector, strength=0.9)"), "at strength 0.9, and you chose"),
        ('path = vector.save("the_sea.safetensors")', "has 'sea' in it"),
        ('path = vector.save("ocean.safetensors")', "has 'ocean' in it"),
        ('path = vector.save("OceanVector.safetensors")', "'OceanVector.safetensors' has 'ocean'"),
    ],
    "workshop.claims": [
        ("answers = ['yes'] * 5", "a dictionary was expected, claim"),
        ('answers = {"a": "yes"}', "the claim 'b' is missing"),
        (claims(a=True), 'the answer to \'a\' is "yes", "no" or "open"'),
        (claims(a="open"), "claim 'a': the intervals of “with the words”"),
        (claims(b="yes"), "they overlap, so this table can't tell"),
        (claims(c="yes"), "claim 'c': the intervals"),
        (claims(d="open"), "claim 'd': the intervals of “judged”"),
        (claims(e="yes"), "claim 'e': the intervals of “perplexity”"),
    ],
}  # fmt: skip

RIGHT = {
    "workshop.contrast": [
        contrast(),
        contrast("football", NOW, OTHERS, FOOTBALL),
        contrast("being happy", GLAD, SOBER, ["lovely", "grateful", "great", "beautiful", "incredible", "love"]),
    ],
    "workshop.choose": [
        "setting = [sweep.best.layer, sweep.best.strength]",
        "best = max(\n    (sweep.scores[i][j].rate(sweep.words), -sweep.cost(i, j), i, j)\n    for i in range(len(sweep.layers))\n"
        "    for j in range(len(sweep.strengths))\n    if sweep.cost(i, j) <= sweep.budget\n)\n"
        "setting = (sweep.layers[best[2]], sweep.strengths[best[3]])",
    ],
    "workshop.claims": [
        "answers = {'a': 'Yes', 'b': ' open ', 'c': 'NO', 'd': 'yes', 'e': 'no'}",
        "answers = dict(zip('abcde', ['yes', 'open', 'no', 'yes', 'no']))",
    ],
    "workshop.saved": [
        'path = vector.save("table_3.safetensors")',
        'from pathlib import Path\npath = Path("secret.safetensors")\nvector.save(path)',
    ],
}
