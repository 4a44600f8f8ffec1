"""Wrong answers that learners give to the exercises of notebook 05, and what each is told."""


def entering(where: str) -> str:
    return f"entering = {where}"


def labels(body: str) -> str:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"def control_labels(countries, seed):\n{lines}"


def settles(body: str, top: str = "lm.unembed(streams).argmax(-1).tolist()") -> str:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"def settles(streams, answer):\n    top = {top}\n{lines}"


FROM_THE_END = """settled = None
for layer in reversed(range(len(top))):
    if top[layer] != answer:
        break
    settled = layer
return settled"""


def means(
    result: str = "(predicted == y[test]).float().mean().item()",
    *,
    fit: str = "[train]",
    score: str = "[test]",
    middle: str = "(mean_true + mean_false) / 2",
    layer: str = "layer",
) -> str:
    """The solution of exercise 4, with something changed."""
    return f"""def means_accuracy(layer):
    x, y = streams[{layer}], torch.tensor(true)
    mean_true, mean_false = x{fit}[y{fit}].mean(0), x{fit}[~y{fit}].mean(0)
    predicted = (x{score} - {middle}) @ (mean_true - mean_false) > 0
    return {result}
"""


MEDIANS = """def means_accuracy(layer):
    x, y = streams[layer], torch.tensor(true)
    high, low = x[train][y[train]].median(0).values, x[train][~y[train]].median(0).values
    return (((x[test] - (high + low) / 2) @ (high - low) > 0) == y[test]).float().mean().item()
"""


def gap_left(
    result: str = "without / gap()",
    *,
    edit: str = 'project_out(Site("block_output", layer, few_places), direction)',
    gap: str = "values[few_true].mean() - values[~few_true].mean()",
    inside: str = "without = gap()",
    outside: str = "",
) -> str:
    """The solution of exercise 5, with something changed."""
    return f"""def gap_left(layer, direction):
    def gap():
        values = true_over_false(lm.next_token_logits(few)).cpu()
        return ({gap}).item()

    with intervene(lm, {edit}):
        {inside}
    {outside}
    return {result}
"""


BY_HAND = 'apply(Site("block_output", layer, few_places), lambda h: h - (h @ direction)[..., None] * direction)'
RATIOS = """def gap_left(layer, direction):
    def gap():
        values = true_over_false(lm.next_token_logits(few)).cpu()
        return values[few_true] - values[~few_true]

    with intervene(lm, project_out(Site("block_output", layer, few_places), direction)):
        without = gap()
    return (without / gap()).mean().item()
"""

WRONG = {
    "collecting.read": [
        (entering('batch["block_output", 4][:, -1]'), "in the shorter rows the last column is *padding*"),
        (entering('batch[Site("block_output", 5, -1)][:, 0]'), "that is what *leaves* the sixth block"),
        (entering('batch[Site("block_output", 6, -1)][:, 0]'), "layer 6 is the seventh block"),
        (entering('batch[Site("block_output", 3, -1)][:, 0]'), "leaves the fourth block"),
        (entering('batch[Site("attention_output", 4, -1)][:, 0]'), "what an attention layer *adds*"),
        (entering('batch[Site("block_output", 4, 0)][:, 0]'), "the *first* token of each prompt"),
        (entering('batch[Site("block_output", 4, -2)][:, 0]'), "the last token but one"),
        (entering('batch["block_output", 4].mean(1)'), "the mean over all columns"),
        (entering('batch["block_output", 4]'), "every token of each prompt, padding included"),
        (entering('batch[Site("block_output", 4, -1)][0, 0]'), "and (prompt, d) ="),
        (entering('batch[Site("block_output", 4, -1)]'), "an axis of length 1 is left"),
        (
            entering('[batch["block_output", 4][i, :n] for i, n in enumerate(batch.layout.lengths)]'),
            "tensors of different shapes",
        ),
        (entering('Site("block_output", 4, -1)'), "a tensor (prompt, d) was expected"),
    ],
    "collecting.control": [
        (
            labels("import random\nrng = random.Random(seed)\nreturn [rng.randint(0, 1) for country in countries]"),
            "That is the control with *shuffled* labels",
        ),
        (labels("return [len(country) % 2 for country in countries]"), "every seed gives the same labels"),
        (labels("return [(len(country) + seed) % 2 for country in countries]"), "turns all labels round, or none"),
        (labels("return [0 for country in countries]"), "nothing is left to tell apart"),
        (
            labels(
                "import random\ncoin = {country: random.randint(0, 1) for country in sorted(set(countries))}\n"
                "return [coin[country] for country in countries]"
            ),
            "asked twice with the same seed",
        ),
        (
            labels(
                "import random\nrng = random.Random(seed)\nreturn [rng.randint(0, 1) for country in set(countries)]"
            ),
            "sentences you returned 36 labels",
        ),
        (
            labels(
                "import random\nrng = random.Random(seed)\nreturn {country: rng.randint(0, 1) for country in countries}"
            ),
            "you returned the dictionary of tosses",
        ),
        (
            labels(
                "import random\nrng = random.Random(seed)\ncoin = {c: rng.random() < 0.2 for c in sorted(set(countries))}\n"
                "return [int(coin[country]) for country in countries]"
            ),
            "a fair coin was asked for",
        ),
        (
            labels(
                "import random\nrng = random.Random(seed)\ncoin = {c: rng.random() for c in sorted(set(countries))}\n"
                "return [coin[country] for country in countries]"
            ),
            "a label is 0 or 1",
        ),
        (labels("return [hash((country, seed)) % 2 for country in countries]"), "in another session of Python"),
        (
            labels(
                "import random\nrng = random.Random(seed)\ncoin = {c: rng.randint(0, 1) for c in set(countries)}\nreturn [coin[c] for c in countries]"
            ),
            "so does the order of a `set`",
        ),
        (
            labels(
                "import random\nreturn [random.Random(hash(country) + seed).randint(0, 1) for country in countries]"
            ),
            "the `hash` of a word changes there",
        ),
        (labels("print(countries)"), "your function returned None"),
        ("control_labels = in_europe", "the answer is your function `control_labels`"),
    ],
    "collecting.settles": [
        (
            settles("return next((layer for layer, token in enumerate(top) if token == answer), None)"),
            "where the answer is on top for the first time",
        ),
        (settles("return len(top) - 1 if top[-1] == answer else None"), "layer 3 has the answer already"),
        (
            settles("return max((layer for layer, token in enumerate(top) if token != answer), default=0)"),
            "the last miss; the next one settles",
        ),
        (
            settles("return max(layer + 1 for layer, token in enumerate(top) if token != answer)"),
            "your code raised ValueError",
        ),
        (
            settles("return max((layer + 1 for layer, token in enumerate(top) if token != answer), default=0)"),
            "`None` was asked for",
        ),
        (
            settles(FROM_THE_END, top="lm.anatomy.unembedding(streams).argmax(-1).tolist()"),
            "the final norm comes before the unembedding",
        ),
        (
            "def settles(streams, answer):\n    ten = lm.unembed(streams).topk(10).indices.tolist()\n"
            "    hit = [answer in row for row in ten]\n    return max((i + 1 for i, h in enumerate(hit) if not h), default=0) if hit[-1] else None",
            "among the first few tokens",
        ),
        (
            settles(FROM_THE_END, top="[lm.top_of(row, 1)[0][0] for row in lm.unembed(streams)]"),
            "you compare the top *word*",
        ),
        (settles("print(top)"), "is there a `return`?"),
        (settles("return [token == answer for token in top]"), "one layer was expected, and ["),
        ("settles = ranks", "the answer is your function `settles`"),
    ],
    "collecting.means": [
        (means(middle="0"), "you compare the dot product with 0"),
        (means(fit="[:]"), "your means are taken over all statements"),
        (means(fit="[test]"), "your means are taken over the *test* statements"),
        (means("(predicted == y[train]).float().mean().item()", score="[train]"), "the held-out ones were asked for"),
        (means("(predicted != y[test]).float().mean().item()"), "the share of *wrong* answers"),
        (MEDIANS, "you take medians"),
        (
            "def means_accuracy(layer):\n    return fit_probe(streams[layer][train], true[train]).score(streams[layer][test], true[test])",
            "a *trained* probe",
        ),
        (means(middle="mean_false"), "your line runs through one class's mean"),
        (means(layer="lm.n_layers // 2"), "at every layer: does it use `layer`?"),
        (
            "def means_accuracy(layer):\n"
            "    x, y = streams[layer], torch.tensor(true)\n"
            "    t, f = x[train][y[train]].mean(0), x[train][~y[train]].mean(0)\n"
            "    x -= (t + f) / 2\n"
            "    return ((x[test] @ (t - f) > 0) == y[test]).float().mean().item()\n",
            "your function writes into `streams`",
        ),
        (means("predicted"), "one a statement; the share of right answers was asked for"),
        (means("(predicted == y[test]).sum().item()"), "is a count or a percentage"),
        (means("print(predicted)"), "your function returned None"),
        ("means_accuracy = gaps", "gaps() takes 0 positional arguments"),
    ],
    "collecting.used": [
        (gap_left("without"), "the *share* of the untouched run's gap was asked for"),
        (gap_left("1 - without / gap()"), "is the share that is *gone*"),
        (gap_left("gap() - without"), "is the difference of the two gaps"),
        (gap_left("100 * without / gap()"), "is a percentage"),
        (gap_left(edit='project_out(Site("block_input", layer, few_places), direction)'), "what *enters* the block"),
        (gap_left("without / also", inside="without, also = gap(), gap()"), "for only one of the two gaps"),
        (gap_left("gap() / without"), "you divided the wrong way round"),
        (gap_left(inside="lm(few)", outside="without = gap()"), "nothing changed"),
        (gap_left(edit='project_out(Site("block_output", layer, -1), direction)'), "at the prompt's *last* token"),
        (gap_left(edit='project_out(Site("block_output", layer), direction)'), "you projected at every token"),
        (
            gap_left(edit='project_out(Site("block_output", layer, few_places[0]), direction)'),
            "the first prompt's place in all prompts",
        ),
        (gap_left(edit='project_out(Site("block_output", layer + 1, few_places), direction)'), "one layer further on"),
        (
            gap_left(edit='zero(Site("block_output", layer, few_places))').replace(
                "    def gap", "    from interp_helpers import zero\n\n    def gap", 1
            ),
            "you set the whole stream to zero",
        ),
        (
            gap_left(edit=BY_HAND).replace("    def gap", "    from interp_helpers import apply\n\n    def gap", 1),
            "only if v has length 1",
        ),
        (gap_left(gap="values[few_true].mean()"), "you compare one kind of statement only"),
        (RATIOS, "you average a ratio over the cities"),
        (
            gap_left().replace("few_places", "places").replace("(few)", "(asked)").replace("few_true", "true[test]"),
            "all prompts of section 5",
        ),
        (gap_left(edit='add(Site("block_output", layer, few_places), direction)'), "you added the direction"),
        (
            gap_left(edit='add(Site("block_output", layer, few_places), 60 * direction / direction.norm(), -1)'),
            "compare site, place, edit",
        ),
        (
            gap_left("without / -gap()"),
            "the sign is turned round",
        ),
        (
            gap_left(edit='project_out(Site("block_output", lm.n_layers // 2, few_places), direction)'),
            "does your site use `layer`?",
        ),
        (
            gap_left(edit='project_out(Site("block_output", layer, few_places), truth_probe.direction[layer])'),
            "does your edit use `direction`?",
        ),
        (
            gap_left(edit='project_out(Site("block_output", layer, few_places), truth_probe.direction[5])'),
            "two quite different directions give one and the same share",
        ),
        (gap_left("print(without)"), "your function returned None"),
        (gap_left(edit='project_out(Site("block_output", layer, places), direction)'), "your code raised ValueError"),
        ("gap_left = gap", "the answer is your function `gap_left`"),
    ],
}

COIN = "import random\n\ndef control_labels(countries, seed):\n"
RIGHT = {
    "collecting.read": [
        "entering = [batch['block_output', 4][row, n - 1] for row, n in enumerate(batch.layout.lengths)]",
        "entering = torch.stack([batch.rows([i])[Site('block_output', 4, -1)][0, 0] for i in range(3)])",
        "entering = batch['block_output', 4][torch.arange(3), [len(lm.str_tokens(q)) - 1 for q in questions]].cpu().numpy()",
    ],
    "collecting.control": [
        COIN + "    return [random.Random(f'{country} {seed}').randint(0, 1) for country in countries]",
        "def control_labels(countries, seed):\n"
        "    names, which = np.unique(countries, return_inverse=True)\n"
        "    return np.random.RandomState(seed).randint(0, 2, len(names))[which]",
        COIN + "    rng, coin = random.Random(seed), {}\n"
        "    for country in countries:\n"
        "        if country not in coin:\n"
        "            coin[country] = rng.random() < 0.5\n"
        "    return [coin[country] for country in countries]",
    ],
    "collecting.settles": [
        settles(
            "hits = [token == answer for token in top]\n"
            "return next((i for i in range(len(hits)) if all(hits[i:])), None)"
        ),
        "def settles(streams, answer):\n"
        "    hit = lm.unembed(streams).argmax(-1) == answer\n"
        "    n = int(hit.flip(0).long().cumprod(0).sum())\n"
        "    return len(streams) - n if n else None",
    ],
    "collecting.means": [
        "def means_accuracy(layer):\n"
        "    x = streams[layer].numpy()\n"
        "    high, low = x[train][true[train]].mean(0), x[train][~true[train]].mean(0)\n"
        "    side = x[test] @ (high - low) > (high @ high - low @ low) / 2\n"
        "    return np.mean(side == true[test])",
        "def means_accuracy(layer):\n"
        "    x, y = streams[layer], torch.tensor(true)\n"
        "    high, low = (x[train][y[train] == kind].mean(0) for kind in (True, False))\n"
        "    nearer = (x[test] - high).norm(dim=1) < (x[test] - low).norm(dim=1)\n"
        "    return (nearer == y[test]).float().mean()",
    ],
    "collecting.used": [
        gap_left(gap="sum(values[few_true]) / 6 - sum(values[~few_true]) / 6"),
        gap_left(edit=BY_HAND.replace("direction)[", "direction / direction.norm() ** 2)[")).replace(
            "    def gap", "    from interp_helpers import apply\n\n    def gap", 1
        ),
    ],
}
