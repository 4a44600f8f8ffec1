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
        (entering('batch[Site("block_output", 4, -1)][0]'), "and (prompt, d) ="),
        (entering('Site("block_output", 4, -1)'), "a tensor (prompt, d) was expected"),
    ],
    "collecting.control": [
        (
            labels("rng = random.Random(seed)\nreturn [rng.randint(0, 1) for country in countries]"),
            "That is the control with *shuffled* labels",
        ),
        (labels("return [len(country) % 2 for country in countries]"), "every seed gives the same labels"),
        (labels("return [(len(country) + seed) % 2 for country in countries]"), "turns all labels round, or none"),
        (labels("return [0 for country in countries]"), "nothing is left to tell apart"),
        (
            labels(
                "coin = {country: random.randint(0, 1) for country in sorted(set(countries))}\n"
                "return [coin[country] for country in countries]"
            ),
            "asked twice with the same seed",
        ),
        (
            labels("rng = random.Random(seed)\nreturn [rng.randint(0, 1) for country in set(countries)]"),
            "sentences you returned 36 labels",
        ),
        (
            labels("rng = random.Random(seed)\nreturn {country: rng.randint(0, 1) for country in countries}"),
            "you returned the dictionary of tosses",
        ),
        (
            labels(
                "rng = random.Random(seed)\ncoin = {c: rng.random() < 0.2 for c in sorted(set(countries))}\n"
                "return [int(coin[country]) for country in countries]"
            ),
            "a fair coin was asked for",
        ),
        (
            labels(
                "rng = random.Random(seed)\ncoin = {c: rng.random() for c in sorted(set(countries))}\n"
                "return [coin[country] for country in countries]"
            ),
            "a label is 0 or 1",
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
        (means(middle="mean_false"), "your line runs through one class's mean"),
        (means(layer="15"), "at every layer: does it use `layer`?"),
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
        ("means_accuracy = accuracy", "your answer, <function accuracy"),
    ],
    "collecting.used": [
        (gap_left("without"), "divide it by the gap of the untouched run"),
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
            gap_left(edit='add(Site("block_output", layer, few_places), direction, -1)'),
            "nothing changed",
            "a direction of small length, subtracted, changes next to nothing",
        ),
        (
            gap_left(edit='add(Site("block_output", layer, few_places), 60 * direction / direction.norm(), -1)'),
            "and you found",
        ),
        (
            gap_left("without / -gap()"),
            "the sign is turned round",
        ),
        (gap_left(edit='project_out(Site("block_output", 15, few_places), direction)'), "does your site use `layer`?"),
        (
            gap_left(edit='project_out(Site("block_output", layer, few_places), directions[layer])'),
            "does your edit use `direction`?",
        ),
        (gap_left("print(without)"), "your function returned None"),
        (gap_left(edit='project_out(Site("block_output", layer, places), direction)'), "your code raised ValueError"),
        ("gap_left = share", "the answer is your function `gap_left`"),
    ],
}
