"""Wrong answers that learners give to the exercises of notebook 04, and what each is told."""


def site(positions: str, component: str = "block_output", layer: int = 8) -> str:
    return f'site = Site("{component}", layer={layer}, positions={positions})'


def ends(each: str) -> str:
    """Positions from a list comprehension over the three prompts."""
    return site(f"[{each} for p, s in zip(three, subjects)]")


def first_place(body: str) -> str:
    return f"def first_place(base, source):\n    {body}"


IDS = "a, b = lm.tokens(base)[0], lm.tokens(source)[0]\n    "


def overwrite(write: str, start: str = "stream.clone()", result: str = "patched") -> str:
    """The solution of exercise 3, with something changed."""
    return f"""def overwrite(stream, source, columns):
    rows = torch.arange(len(stream))
    patched = {start}
    {write}
    return {result}
"""


def confirm(
    result: str = "{divmod(i, n_heads): values[1::2].mean(0)[divmod(i, n_heads)].item() for i in best.tolist()}",
    *,
    choose: str = "values[::2].mean(0)",
    k: str = "k",
) -> str:
    """The solution of exercise 4, with something changed."""
    return f"""def confirm(values, k):
    n_heads = values.shape[2]
    best = {choose}.flatten().topk({k}).indices
    return {result}
"""


def direct_effects(
    result: str = "((project(alone.flatten(1)) - project(torch.zeros_like(z).flatten())) @ direction).detach()",
    *,
    z: str = "[0, -1]",
    mask: str = "torch.eye(lm.n_heads)",
    layer: str = "layer",
) -> str:
    """The solution of exercise 5, with something changed."""
    return f"""def direct_effects(layer):
    z = record(lm, prompt, "attention_value_output")["attention_value_output", {layer}]{z}
    project = lm.anatomy.place("attention_output", {layer}).module
    alone = ({mask})[:, :, None] * z
    return {result}
"""


WRONG = {
    "positions.rows": [
        (ends("lm.find(p, s)[-1]"), "is one flat sequence, which names the same 3 positions"),
        (site("-1"), "the last tokens of the *prompts*"),
        (ends("[lm.find(p, s).stop]"), "one past its end"),
        (ends("lm.find(p, s)"), "the whole subject in each row"),
        (ends("lm.find(p, s)[:1]"), "the *first* tokens of the subjects"),
        (site("lm.find(three[0], subjects[0])[-1]"), "you named it in every row"),
        (site("[[4], [3]]"), "you named places for 2 rows, and there are 3 prompts"),
        (site("[[3], [4], [4]]"), "in row 1 you name"),
        (site("None"), "`positions=None` names every token"),
        (site("-1", layer=9), "the ninth block is layer 8"),
        (site("-1", component="mlp_output"), "`block_output` was asked for, and not `mlp_output`"),
        (
            ends("lm.find(p, s)[-1:]").replace("block_output", "block_input").replace("layer=8", "layer=9"),
            "`block_output` was asked for, and not `block_input`",
        ),
        (site("[[40], [4], [4]]"), "Position 40 is outside row 0"),
        ("site = [[4], [4], [5]]", "the answer is a `Site(…)`"),
    ],
    "positions.first": [
        (first_place("return 0"), "nothing before a difference can carry it"),
        (
            first_place(
                "a, b = base.split(), source.split()\n    return next((i for i in range(len(a)) if a[i] != b[i]), None)"
            ),
            "which counts *words*",
        ),
        (
            first_place("return next((i for i, (a, b) in enumerate(zip(base, source)) if a != b), None)"),
            "which counts letters",
        ),
        (
            first_place(IDS + "return next(i for i in range(len(a)) if a[i] != b[i]) - 1"),
            "the last token that is the *same*",
        ),
        (first_place(IDS + "return next(i for i in range(len(a)) if a[i] != b[i]) + 1"), "one too late"),
        (first_place("return 1"), "the answer for the notebook's own pair"),
        (first_place(IDS + "return int((a != b).nonzero()[-1])"), "a later difference: the first one"),
        (
            first_place(IDS + "return (a != b).nonzero().flatten().tolist()"),
            "one position was asked for, and [",
        ),
        (
            first_place(IDS + "found = (a != b).nonzero().flatten().tolist()\n    return (found + [0])[0] or None"),
            "counts as false in `if`",
        ),
        (first_place(IDS + "return int((a != b).int().argmax())"), "for two prompts that are the same you found 0"),
        (first_place(IDS + "return int((a != b).nonzero()[0])"), "your code raised IndexError"),
        (first_place("print(0)"), "is there a `return`?"),
        (first_place("return len(lm.str_tokens(base)) - 1"), "the *last* token, from which the answer is read"),
        (
            first_place(
                "others = lm.str_tokens(source)\n    return next("
                "(i for i, t in enumerate(lm.str_tokens(base)) if t not in others), None)"
            ),
            "both have the same tokens, in another order",
        ),
        ("first_place = 1", "the answer is your function `first_place`"),
    ],
    "positions.leak": [
        (overwrite("patched[:, columns] = source[:, columns]"), "every row was changed at all of the places"),
        (overwrite("patched[rows, columns] = source[0, columns]"), "every row received *row 0's* vectors"),
        (
            overwrite("patched[rows, columns] = source[0, columns[0]]"),
            "every row received *row 0's* vectors",
            "one vector for all rows is the same leak",
        ),
        (overwrite("patched[:, columns[0]] = source[:, columns[0]]"), "at the *first row's* place in every row"),
        (overwrite("patched[rows, columns] = source[rows, columns]", start="stream"), "wrote into `stream` itself"),
        (overwrite("", result="source[rows, columns]"), "only the vectors that were to be put in"),
        (overwrite("patched[rows, columns] = stream[rows, columns]", start="source.clone()"), "the other way round"),
        (overwrite("patched[:] = source"), "which is the source run itself"),
        (overwrite("patched[rows, columns] = source[rows, -1]"), "the source's *last* token"),
        (overwrite("patched[rows, [c - 1 for c in columns]] = 0"), "one place beside the one that was named"),
        (overwrite("patched[0, columns[0]] = source[0, columns[0]]"), "row 1 is unchanged at its place"),
        (overwrite("patched[rows, columns] = 0"), "the vectors are not the source's there"),
        (overwrite(""), "nothing has changed in what you returned"),
        (overwrite("patched[rows, columns] = source[rows, columns]", result="None"), "your function returned None"),
        ("overwrite = torch.zeros(3)", "the answer is your function `overwrite`"),
    ],
    "positions.confirm": [
        (confirm(choose="values.mean(0)"), "and it was chosen with their help"),
        (
            confirm(choose="values[1::2].mean(0)"),
            "and it was chosen with their help",
            "the halves exchanged choose with the test prompts as well",
        ),
        (confirm(choose="values[::2].mean(0).abs()"), "you chose by size"),
        (
            confirm("{divmod(i, n_heads): values[::2].mean(0)[divmod(i, n_heads)].item() for i in best.tolist()}"),
            "the very prompts with which you chose",
        ),
        (
            confirm("{divmod(i, n_heads): values.mean(0)[divmod(i, n_heads)].item() for i in best.tolist()}"),
            "you report the means over *all* prompts",
        ),
        (
            confirm("{divmod(i, n_heads)[::-1]: 0.0 for i in best.tolist()}"),
            "layer and head are exchanged",
        ),
        (confirm("{i: 0.0 for i in best.tolist()}"), "the keys are (layer, head)"),
        (confirm("[divmod(i, n_heads) for i in best.tolist()]"), "a dict {(layer, head): mean} was expected"),
        (confirm(k="1"), "k=3 heads were asked for, and 1 came back"),
        (
            confirm("{divmod(i, n_heads): values[1::2, i // n_heads, i % n_heads] for i in best.tolist()}"),
            "each value is one mean",
        ),
        (confirm("print(best)"), "your function returned None"),
        (confirm(k="3"), "asked for k=1 head you return 3"),
        (confirm(choose="values[::2].max(0).values"), "head 2.2 is large on a single even prompt"),
        (
            confirm("{divmod(i, n_heads): values[1::2].sum(0)[divmod(i, n_heads)].item() for i in best.tolist()}"),
            "is the *sum* of head 0.1",
        ),
        (
            confirm("{divmod(i, n_heads): values[1::2].amax(0)[divmod(i, n_heads)].item() for i in best.tolist()}"),
            "is the *largest value* of head 0.1",
        ),
        (
            confirm(choose="(-values[::2].mean(0))"),
            "head 2.1 *lowers* the metric",
            "the smallest mean is the wrong end",
        ),
        (confirm(choose="values[::2].median(0).values"), "its *mean* is small, and its median isn't"),
        (
            confirm(
                "{divmod(i, n_heads): values[1::2].median(0).values[divmod(i, n_heads)].item() for i in best.tolist()}"
            ),
            "the *median* of head 0.1",
        ),
        (
            confirm("{divmod(i, n_heads): values[1::2].mean(0)[divmod(i, n_heads)].abs() for i in best.tolist()}"),
            "and you report a size",
        ),
        (
            confirm("{divmod(i, n_heads): values[1::2].abs().mean(0)[divmod(i, n_heads)] for i in best.tolist()}"),
            "and you report a size",
            "the sizes' mean and the mean's size hide the same sign",
        ),
        (
            confirm("{divmod(i, values.shape[1]): values[1::2].mean(0).flatten()[i].item() for i in best.tolist()}"),
            "your table has 3 heads",
        ),
        (
            confirm(
                "{divmod(i, values.shape[1]): values[1::2].mean(0)[divmod(i, values.shape[1])] for i in best.tolist()}"
            ),
            "and you divided by 5",
            "the same divisor, which finds numbers at wrong places, too",
        ),
        ("confirm = {}", "the answer is your function `confirm`"),
    ],
    "positions.direct": [
        (direct_effects("-(project(alone.flatten(1)) @ direction).detach()"), "the sign is turned round"),
        (
            direct_effects("(project(alone.flatten(1)) @ direction).detach()"),
            "the projection's bias is in every one of your numbers",
        ),
        (
            direct_effects(
                "((project(alone.flatten(1)) - project(torch.zeros_like(z).flatten())) @ direction).detach().abs()"
            ),
            "you report sizes",
        ),
        (
            direct_effects("(project(z.flatten()) @ direction).detach().expand(lm.n_heads)"),
            "every head got the same number",
        ),
        (direct_effects("(project(z.flatten()) @ direction).item()"), "which is the whole layer's effect"),
        (direct_effects(mask="1 - torch.eye(lm.n_heads)"), "what all the *other* heads write"),
        (direct_effects(z="[0, 0]"), "what the heads write at position *0*"),
        (direct_effects(z="[0].sum(0)"), "you summed over the tokens"),
        (direct_effects(layer="lm.n_layers - 1"), "is `layer` used?"),
        (direct_effects("project(alone.flatten(1)).detach()"), "take the dot product with `direction`"),
        (
            direct_effects("(project(alone.flatten(1)) @ (direction / direction.norm())).detach()"),
            "times what they should be",
        ),
        (direct_effects("z.norm(dim=-1)"), "each head's write at the last token"),
        (
            direct_effects("(project(alone.flatten(1)) @ direction).detach()[None]"),
            "was expected, and (1, ",
        ),
        (direct_effects("project(alone) @ direction"), "your code raised RuntimeError"),
        (
            """def direct_effects(layer):
    lost = []
    for head in range(lm.n_heads):
        with intervene(lm, zero(Site("attention_value_output", layer, positions=-1, heads=head))):
            lost.append(value - metric(lm.next_token_logits(prompt)).item())
    return torch.tensor(lost)
""",
            "what is lost without each head",
        ),
        (
            """def direct_effects(layer):
    lost = []
    for head in range(lm.n_heads):
        with intervene(lm, zero(Site("attention_value_output", layer, heads=head))):
            lost.append(value - metric(lm.next_token_logits(prompt)).item())
    return torch.tensor(lost)
""",
            "what is lost without each head",
            "the head set to zero at every token",
        ),
        (direct_effects("print(z)"), "your function returned None"),
        ("direct_effects = torch.zeros(9)", "the answer is your function `direct_effects`"),
    ],
}


RIGHT = {
    "positions.rows": [
        ends("list(lm.find(p, s))[-1:]"),
        """places = []
for number in range(3):
    tokens = lm.find(three[number], subjects[number])
    places.append((tokens.stop - 1,))
site = Site(component="block_output", layer=8, positions=tuple(places))""",
        ends("[lm.find(p, s)[-1] - len(lm.str_tokens(p))]"),
    ],
    "positions.first": [
        first_place(
            "pairs = zip(lm.tokens(base)[0].tolist(), lm.tokens(source)[0].tolist())\n"
            "    return next((i for i, (a, b) in enumerate(pairs) if a != b), None)"
        ),
        """def first_place(base, source):
    one, other = lm.str_tokens(base), lm.str_tokens(source)
    for position in range(len(one)):
        if one[position] != other[position]:
            return position""",
        """import numpy as np

def first_place(base, source):
    same = lm.tokens(base)[0].numpy() == lm.tokens(source)[0].numpy()
    return None if same.all() else np.argmin(same)""",
    ],
    "positions.leak": [
        """def overwrite(stream, source, columns):
    new = stream.clone()
    for row, column in enumerate(columns):
        new[row, column] = source[row, column]
    return new""",
        """def overwrite(stream, source, columns):
    at = torch.nn.functional.one_hot(torch.tensor(columns), stream.shape[1]).bool()
    return torch.where(at[..., None], source, stream)""",
        """def overwrite(stream, source, columns):
    new = stream.numpy().copy()
    for row, column in enumerate(columns):
        new[row, column] = source[row, column]
    return new""",
    ],
    "positions.confirm": [
        """def confirm(values, k):
    chosen = values[::2].mean(dim=0)
    order = sorted(((float(chosen[l, h]), l, h) for l in range(len(chosen)) for h in range(chosen.shape[1])), reverse=True)
    return {(l, h): float(values[1::2, l, h].mean()) for _, l, h in order[:k]}""",
        """import numpy as np

def confirm(values, k):
    even, odd = values.numpy()[0::2].mean(0), values.numpy()[1::2].mean(0)
    best = np.argsort(-even, axis=None)[:k]
    return {tuple(int(n) for n in np.unravel_index(i, even.shape)): odd.flat[i] for i in best}""",
    ],
    "positions.direct": [
        """def direct_effects(layer):
    z = record(lm, prompt, "attention_value_output").stack("attention_value_output")[layer, 0, -1]
    weight = lm.anatomy.place("attention_output", layer).module.weight.detach()
    blocks = weight.view(lm.d_model, lm.n_heads, lm.d_head)
    return torch.einsum("dhe,he,d->h", blocks, z, direction)""",
        """def direct_effects(layer):
    z = record(lm, prompt, "attention_value_output")["attention_value_output", layer][0, -1]
    project = lm.anatomy.place("attention_output", layer).module
    found = []
    with torch.no_grad():
        nothing = project(torch.zeros(lm.n_heads * lm.d_head))
        for head in range(lm.n_heads):
            alone = torch.zeros_like(z)
            alone[head] = z[head]
            found.append(float((project(alone.flatten()) - nothing) @ direction))
    return found""",
    ],
}
