"""What the steering workshop computes besides the package."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny

from interp_helpers import SteeringVector
from interp_helpers.lessons.steering_workshop import checks, experiment
from interp_helpers.steering import results


def test_a_forbidden_chat_has_four_conditions_on_the_same_questions():
    lm = tiny("gpt2")
    vector = SteeringVector(torch.arange(lm.d_model).float(), 1, name="up", model=lm.name, scale=0.3, strength=0.5)
    how = dict(questions=["Why?", "How?"], max_new_tokens=4)
    read = []
    lm.generate, write = lambda prompts, *a, **k: read.append(prompts) or write(prompts, *a, **k), lm.generate
    try:
        chat = experiment.forbidden_chat(lm, vector, ["cat"], "Talk about cats.", **how)
    finally:
        del lm.generate
    assert list(chat.texts) == list(chat.found) == ["unsteered", "also asked", "steered", "random push"]
    assert read[0] == read[2] == read[3] and read[0][0] == f"{experiment.SYSTEM}\n\nQuestion: Why?\nAnswer:", (
        "no chat: plain text"
    )
    assert "Question: Talk about cats. Why?" in read[1][0]
    assert len({chat.texts[way] for way in ("unsteered", "steered", "random push")}) > 1
    again = experiment.Chat(chat.questions, chat.texts, {"steered": (True, False)})
    assert again.hits("steered") == 1 and again.share("steered")[0] == 0.5
    assert "also asked 0.00" in chat.plot("Cats", "a cat").alt
    shown = chat.answers("unsteered", "steered", first=1)
    assert shown.startswith("Why?\n   unsteered: ") and "How?" not in shown
    assert len(experiment.QUESTIONS) == len(set(experiment.QUESTIONS)) == 20


@pytest.mark.parametrize(
    "one, other, place",
    [((0.5, 0.4, 0.6), (0.2, 0.1, 0.3), "above"), ((0.2, 0.1, 0.3), (0.5, 0.4, 0.6), "below"),
     ((0.5, 0.3, 0.6), (0.2, 0.1, 0.3), "open")],
)  # fmt: skip
def test_where_two_intervals_lie(one, other, place):
    assert experiment.compared(one, other) == place


def test_the_table_is_counted_and_shown_whole():
    rows = experiment.rows(results())
    for measure in ("named", "judged"):
        assert sum(experiment.wins(measure, place=place) for place in ("above", "below", "open")) == len(rows) == 5
    text = experiment.table_text()
    assert all(title in text for title in rows) and text.count("request in a chat") == 5
    assert "for 0 of 5" in experiment.table_figure("judged", "By the judge").alt
    assert [checks.shown_by_the_table(*asked) for asked in checks.CLAIMS.values()] == ["yes", "open", "no", "yes", "no"]
