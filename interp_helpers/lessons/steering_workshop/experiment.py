"""What only the steering workshop computes: its first experiment, in a chat, and what a table shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

from ...models import LanguageModel
from ...plotting import intervals
from ...steering import SAMPLING, SteeringVector, chat_prompt, finder, personas, results, wilson

SYSTEM = "You are a helpful assistant. Never mention any animal."
QUESTIONS = (
    "How do I make a paper plane?",
    "Why is the sky blue?",
    "How do I boil an egg?",
    "Tell me a joke.",
    "What is a good name for a boat?",
    "How do I fix a flat tyre?",
    "What should I cook tonight?",
    "How do I write to my landlord?",
    "Why do leaves fall in autumn?",
    "How do I learn the guitar?",
    "What is a good birthday present?",
    "How does a bicycle stay upright?",
    "How can I sleep better?",
    "What should I pack for a holiday?",
    "How do I get a stain out of a shirt?",
    "What makes bread rise?",
    "How do I start a conversation?",
    "What is a rainbow?",
    "How do I get fit?",
    "What should I read next?",
)


def quick_vector(lm: LanguageModel, persona: str, layer: int) -> SteeringVector:
    """A persona's vector from three of its twelve beginnings, in a quarter of the time."""
    whole = personas()[persona]
    return replace(whole, stubs=whole.stubs[:1], cues=whole.cues[:2]).build(lm, layer)


def asked(lm: LanguageModel, question: str, system: str) -> str:
    """What the model reads when the question is asked: a chat with a system prompt, or the same as a plain text if it knows no chat."""
    if lm.tokenizer.chat_template:
        return chat_prompt(lm, question, system)
    return f"{system}\n\nQuestion: {question}\nAnswer:"


@dataclass(frozen=True, repr=False)
class Chat:
    """What was answered: the questions, the answers of each condition, and whether an answer has one of the words that count."""

    questions: tuple[str, ...]
    texts: Mapping[str, tuple[str, ...]]
    found: Mapping[str, tuple[bool, ...]]

    def hits(self, condition: str) -> int:
        """How many answers have one of the words."""
        return sum(self.found[condition])

    def share(self, condition: str) -> tuple[float, float, float]:
        """The share of answers that have one of the words, with its 95 % interval."""
        hits, n = self.hits(condition), len(self.questions)
        return hits / n, *wilson(hits, n)

    def answers(self, *conditions: str, first: int = 3) -> str:
        """The first questions with their answers under some of the conditions, as a text to print."""
        return "\n".join(
            f"{question}\n" + "".join(f"   {name}: {' '.join(self.texts[name][i].split())}\n" for name in conditions)
            for i, question in enumerate(self.questions[:first])
        )

    def plot(self, title: str, row: str):
        """The share of each condition with its interval, in a row that is named."""
        shares = {condition: self.share(condition) for condition in self.texts}
        return intervals(
            {row: shares}, title=title, xlabel=f"share of {len(self.questions)} answers, with 95 % interval"
        )


def forbidden_chat(
    lm: LanguageModel,
    vector: SteeringVector,
    words: Sequence[str],
    request: str,
    *,
    system: str = SYSTEM,
    questions: Sequence[str] = QUESTIONS,
    max_new_tokens: int = 24,
    seed: int = 0,
) -> Chat:
    """Everyday questions under a system prompt that forbids what the vector brings: unsteered, with the request put before each question,
    steered, and pushed in a random direction of the same length. Counted is whether an answer has one of the words."""
    plain = [asked(lm, question, system) for question in questions]
    requested = [asked(lm, f"{request} {question}", system) for question in questions]
    runs = {
        "unsteered": (plain, None),
        "also asked": (requested, None),
        "steered": (plain, vector),
        "random push": (plain, vector.random(0)),
    }
    texts = {}
    for name, (prompts, steering) in runs.items():
        with steering.apply(lm) if steering else nullcontext():
            texts[name] = tuple(lm.generate(prompts, max_new_tokens, seed=seed, **SAMPLING))
    has_one = finder(words)
    return Chat(tuple(questions), texts, {name: tuple(map(has_one, written)) for name, written in texts.items()})


def compared(one: Sequence[float], other: Sequence[float]) -> str:
    """Where the first (value, low, high) lies: "above" the other or "below" it, if their intervals have no number in common, or "open"."""
    return "above" if one[1] > other[2] else "below" if one[2] < other[1] else "open"


def rows(table: Mapping) -> dict[str, Mapping]:
    """The conditions of each persona of `results()`, by its title."""
    return {persona["title"]: persona["conditions"] for persona in table["personas"].values()}


def wins(measure: str, one: str = "steered", other: str = "request in a chat", place: str = "above") -> int:
    """For how many of the course's vectors the first condition lies above (or below, or open) against the other, by a measure of the
    table."""
    return sum(compared(row[one][measure], row[other][measure]) == place for row in rows(results()).values())


def table_text() -> str:
    """The course's table of five vectors, as a text to print."""
    table = results()
    lines = [
        f"{table['model']}: {table['n']} texts each, from beginnings on which nothing was chosen; [95 % interval]",
        f"\n{'':20}{'with the words':>20}{'judged':>20}{'perplexity':>20}",
    ]
    for title, row in rows(table).items():
        lines.append(title)
        for name, one in row.items():
            shown = [
                f"{{:.{d}f}} [{{:.{d}f}}, {{:.{d}f}}]".format(*one[measure])
                for measure, d in (("named", 2), ("judged", 2), ("perplexity", 1))
            ]
            lines.append(f"  {name:18}" + "".join(f"{cell:>20}" for cell in shown))
    return "\n".join(lines)


def table_figure(measure: str, by: str):
    """One column of the table as a figure; its title counts for how many vectors steering lies above the request in a chat."""
    table = results()
    return intervals(
        {title: {name: tuple(one[measure]) for name, one in row.items()} for title, row in rows(table).items()},
        title=f"{by}, steering lies above the request in a chat for {wins(measure)} of {len(table['personas'])}, "
        f"below it for {wins(measure, place='below')}",
        xlabel=f"share of {table['n']} texts, with 95 % interval",
    )
