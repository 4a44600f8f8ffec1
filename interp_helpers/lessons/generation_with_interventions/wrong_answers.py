"""Wrong answers that learners give to the exercises of notebook 06, and what each is told."""


def greedy(start="past, new, reads = None, [], ids", call="reads, past_key_values=past, use_cache=True",
           pick="out.logits[:, -1:].argmax(-1)", past="past = out.past_key_values", result="new") -> str:  # fmt: skip
    return (
        f"def greedy(ids, n):\n    {start}\n    for _ in range(n):\n        out = lm.model({call})\n        {past}\n"
        f"        reads = {pick}\n        new.append(reads.item())\n    return {result}"
    )


WHERE = {"prompt": (True, False), "new": (False, True), "everywhere": (True, True)}


def where(**changed) -> str:
    return f"answers = {WHERE | changed!r}"


def choose(body: str) -> str:
    return f"def choose(rows, budget):\n    {body}"


def ablate(result: str) -> str:
    return f"def ablate(h, v):\n    u = v / v.norm()\n    return {result}"


WRONG = {
    "generation.loop": [
        (greedy(pick="out.logits[:, :1].argmax(-1)"), "the first new token is another one"),
        (greedy(past="pass"), "does each round read the token just chosen, *and* the cache"),
        (
            "def greedy(ids, n):\n    start = ids.shape[1]\n    for _ in range(n):\n        ids = torch.cat([ids, lm.model(ids).logits[:, -1:].argmax(-1)], 1)\n"
            "    return ids[0, start:].tolist()",
            "no round was given the cache",
        ),
        (greedy(pick="torch.cat([reads, out.logits[:, -1:].argmax(-1)], 1)", call="reads, past_key_values=past, use_cache=True", result="reads[0, ids.shape[1]:].tolist()").replace("new.append(reads.item())", "pass"),
         "what is in the cache isn't read again"),
        (
            "def greedy(ids, n):\n    new = []\n    for _ in range(n):\n        past = lm.model(ids[:, :-1], use_cache=True).past_key_values\n"
            "        out = lm.model(ids[:, -1:], past_key_values=past)\n        ids = torch.cat([ids, out.logits[:, -1:].argmax(-1)], 1)\n"
            "        new.append(ids[0, -1].item())\n    return new",
            "the tokens are right, but the model read",
        ),
        ("def greedy(ids, n):\n    return lm.tokens(lm.generate('The lake in the morning is', n))[0].tolist()", "`generate` has the loop inside"),
        ("def greedy(ids, n):\n    return lm.model.generate(ids, max_new_tokens=n, do_sample=False)[0, ids.shape[1]:].tolist()",
         "here the loop is yours"),
        (greedy().replace("range(n)", "range(n + 1)").replace("return new", "return new[:n]"), "the last new token is written and needs no reading"),
        (greedy(result="ids[0].tolist() + new"), "begins with the prompt"),
        (greedy(result="new[1:]"), "and 4 came back"),
        (greedy(result="None"), "is there a `return`?"),
        (greedy(result="lm.tokenizer.decode(new)"), "a list of 5 token ids was expected"),
        ("def greedy(ids, n):\n    return [0] * n", "the model was never called"),
        ("greedy = 5", "the answer is your function `greedy`"),
    ],
    "generation.where": [
        (where(new=(True, True)), "the first new token is decided before any new token has been read"),
        (where(prompt=(False, False)), "and that token is steered"),
        (where(prompt=(True, True)), "through the cache only"),
        (where(new=(False, False)), "when it is read, it is steered"),
        (where(everywhere=(False, True)), "*everywhere* includes the prompt"),
        (where(everywhere=(True, False)), "*everywhere* includes the new tokens"),
        (where(new="no"), "is two answers"),
        ("answers = [True, False]", "a dictionary was expected"),
        ('answers = {"prompt": (True, False)}', "'new' is missing"),
    ],
    "generation.choose": [
        (choose("return max(rows, key=lambda row: row['hits'])['strength']"), "and 2.5 is allowed"),
        (choose("return min(rows, key=lambda row: row['perplexity'])['strength']"), "strength 0.0 has 10% hits"),
        (
            choose("return max([r for r in rows if r['perplexity'] <= budget * rows[0]['perplexity']], key=lambda r: r['strength'])['strength']"),
            "strength 0.4 has 50% hits",
        ),
        (
            choose("return max([r for r in rows if r['perplexity'] <= budget] or rows[:1], key=lambda r: r['hits'])['strength']"),
            "at most 2.5 times that of strength 0",
        ),
        (
            choose("return max([r for r in rows if r['perplexity'] <= budget * rows[0]['perplexity']], key=lambda r: r['hits'])['strength']"),
            "in a tie, take the one with the lowest perplexity",
        ),
        (
            choose("return max([r for r in rows if r['perplexity'] <= budget * rows[0]['perplexity']], key=lambda r: (r['hits'], -r['perplexity']))"),
            "return its strength",
        ),
        (
            choose("return max([r for r in rows if r['perplexity'] < budget * rows[0]['perplexity']], key=lambda r: (r['hits'], -r['perplexity']))['strength']"),
            "at most 2.0 times that of strength 0",
        ),
        (
            choose("return max([r for r in rows[1:] if r['perplexity'] <= budget * rows[0]['perplexity']], key=lambda r: (r['hits'], -r['perplexity']))['strength']"),
            "the unsteered row, of strength 0, may be chosen as well",
        ),
        (
            choose("return max([r for r in rows if r['perplexity'] <= 2.5 * rows[0]['perplexity']], key=lambda r: (r['hits'], -r['perplexity']))['strength']"),
            "and 2.0 is allowed",
        ),
        (
            choose("least = min(r['perplexity'] for r in rows)\n    return max([r for r in rows if r['perplexity'] <= budget * least], key=lambda r: (r['hits'], -r['perplexity']))['strength']"),
            "here a steered row has the lowest one",
        ),
        (
            choose("best = rows[0]\n    for r in rows:\n        if r['perplexity'] > budget * rows[0]['perplexity']:\n            break\n"
                   "        best = max(best, r, key=lambda r: (r['hits'], -r['perplexity']))\n    return best['strength']"),
            "look at every row",
        ),
        (
            choose("return max([r for r in rows if r['perplexity'] <= budget * rows[0]['perplexity']], key=lambda r: (round(r['hits'], 1), -r['perplexity']))['strength']"),
            "compare the hits as they are",
        ),
        (
            choose("rows.sort(key=lambda r: -r['hits'])\n    return next(r for r in rows if r['perplexity'] <= budget * 4)['strength']"),
            "your function changed the table",
        ),
        (choose("return 0.25"), "is none of the strengths"),
        (choose("budget"), "is there a `return`?"),
        ("choose = 0.3", "the answer is your function `choose`"),
    ],
    "generation.ablate": [
        (ablate("h"), "h came back as it was"),
        (ablate("h - v"), "you subtracted the same vector everywhere"),
        (ablate("(h @ u)[..., None] * u"), "what is asked for is the rest"),
        (ablate("h + (h @ u)[..., None] * u"), "the sign is wrong"),
        (ablate("h - (h @ v)[..., None] * v"), "too much by its square"),
        (ablate("h - (h @ u).clamp(min=0)[..., None] * u"), "what points against it is to go as well"),
        (ablate("h - (h @ u)[..., None] * v"), "you took it out along v"),
        (ablate("h - 2 * (h @ u)[..., None] * u"), "it is taken out twice"),
        (ablate("h - (h @ u).mean() * u"), "every row lost the same amount"),
        ("def ablate(h, v):\n    u = v / v.norm()\n    rest = h - (h @ u)[..., None] * u\n"
         "    return rest * h.norm(dim=-1, keepdim=True) / rest.norm(dim=-1, keepdim=True)", "stretched to the old length"),
        (ablate("h - 0.9 * (h @ u)[..., None] * u"), "something along v is left"),
        (ablate("h * 0"), "something at right angles to it changed"),
        (ablate("h @ u"), "a tensor of shape (6,) came back"),
        (ablate("h.sub_((h @ u)[..., None] * u)"), "changed the tensors that it was given"),
        (ablate("h.tolist()"), "a tensor was expected"),
        ("def ablate(h, v):\n    h - v", "is there a `return`?"),
        ("ablate = None", "the answer is your function `ablate`"),
    ],
}  # fmt: skip


# Right answers in another style.
RIGHT = {
    "generation.loop": [
        (
            "def greedy(ids, n):\n    out = lm.model(ids, use_cache=True)\n    tokens = [out.logits[0, -1].argmax()]\n"
            "    while len(tokens) < n:\n        out = lm.model(tokens[-1].view(1, 1), past_key_values=out.past_key_values, use_cache=True)\n"
            "        tokens.append(out.logits[0, -1].argmax())\n    return torch.stack(tokens)"
        ),
        (
            "def greedy(ids, n, past=None):\n    if n == 0:\n        return []\n"
            "    out = lm.model(input_ids=ids, past_key_values=past, use_cache=True)\n"
            "    token = int(out.logits[0, -1].float().cpu().numpy().argmax())\n"
            "    return [token] + greedy(torch.tensor([[token]], device=ids.device), n - 1, out.past_key_values)"
        ),
        greedy(result="tuple(new)"),
    ],
    "generation.where": [
        'answers = {"new": [False, True], "everywhere": [True, True], "prompt": [True, False]}',
        'answers = {"prompt": (1, 0), "new": (0, 1), "everywhere": (1, 1)}',
        'answers = {w: (w != "new", w != "prompt") for w in ("prompt", "new", "everywhere")}',
    ],
    "generation.choose": [
        choose(
            "best = rows[0]\n    for row in rows[1:]:\n        if row['perplexity'] > budget * rows[0]['perplexity']:\n            continue\n"
            "        if row['hits'] > best['hits'] or (row['hits'] == best['hits'] and row['perplexity'] < best['perplexity']):\n"
            "            best = row\n    return best['strength']"
        ),
        choose(
            "ordered = sorted(rows, key=lambda r: (-r['hits'], r['perplexity']))\n"
            "    return next(r['strength'] for r in ordered if r['perplexity'] / rows[0]['perplexity'] <= budget)"
        ),
    ],
    "generation.ablate": [
        "def ablate(h, v):\n    return h - (h * v).sum(-1, keepdim=True) * v / v.dot(v)",
        "def ablate(h, v):\n    return h @ (torch.eye(len(v)) - torch.outer(v, v) / (v @ v))",
        (
            "def ablate(h, v):\n    h, v = h.numpy(), v.numpy()\n    u = v / (v**2).sum() ** 0.5\n"
            "    return h - (h @ u)[..., None] * u"
        ),
    ],
}
