"""The course machinery, as learners and authors meet it."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from interp_helpers import course, lessons
from interp_helpers.course import (
    check,
    exercise,
    expect,
    hint,
    passes,
    predict,
    progress,
    quiz,
    registry,
    require,
    require_attempted,
    reset_progress,
    reveal,
    short,
    solution,
)
from interp_helpers.course.attempts import blank_in
from interp_helpers.course.progress import entries, entry, location, update
from interp_helpers.course.quizzes import read_quiz
from interp_helpers.plotting.display import VIEW

LM = SimpleNamespace(name="HuggingFaceTB/SmolLM2-135M-Instruct", n_layers=30)
OTHER = SimpleNamespace(name="gpt2", n_layers=12)


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """Each test has its own progress file and leaves the registry as it found it."""
    monkeypatch.setenv("INTERP_PROGRESS", str(tmp_path / "progress.json"))
    registry.load_all()  # or what a test reads first is registered in its own registry, and lost with it
    monkeypatch.setattr(registry, "ITEMS", {kind: {} for kind in registry.ITEMS})
    monkeypatch.setattr(lessons, "LESSONS", {"demo": lessons.Lesson("demo", "demo", "1 · Demonstration")})
    monkeypatch.setattr(registry, "_loaded", {"demo"})
    return tmp_path


@pytest.fixture
def layer():
    @exercise("demo.layer", number=2, title="Where does the hand-over happen?", difficulty=2, minutes=6)
    def _(answer, lm):
        """
        - look at the last
          token
        - count from `0`
        - between 20 and 25
        """
        require(isinstance(answer, int), f"the answer is a block number (an int), and you gave {answer!r}")
        require(answer < lm.n_layers, f"this model has {lm.n_layers} blocks")
        require(answer != 24, "24 is one too far: blocks are counted from 0")
        require(answer == 23, "nothing changes hands there")
        return "Yes: attention at block 23."

    return "demo.layer"


@pytest.fixture
def double():
    @exercise("demo.double", number=3, title="Double it", difficulty=1, minutes=1)
    def _(answer):
        value = require_attempted(answer(2))
        require(value == 4, f"twice 2 is 4, and yours gives {value!r}")

    return "demo.double"


QUIZ = """# Quick check

## What is *2*?

- [x] A number — it counts.
- [ ] A <word> — words don't `count`.

## And 3?

- [ ] Even — it isn't divisible by 2.
- [x] Odd — one is left over.
"""


@pytest.fixture
def two_questions(tmp_path_factory):
    path = tmp_path_factory.mktemp("lesson") / "quiz.md"
    path.write_text(QUIZ, encoding="utf-8")
    return read_quiz("demo.quiz", path)


def bundle(shown) -> dict:
    data = shown._repr_mimebundle_()
    return data[0] if isinstance(data, tuple) else data


# -- verdicts ----------------------------------------------------------------------------------------------------


def test_an_untouched_answer_is_not_attempted(layer):
    verdict = check(layer, ..., lm=LM)
    assert verdict.status == "not attempted" and verdict.hints == ()
    assert str(verdict) == (
        "○ Not attempted yet · Exercise 2 · Where does the hand-over happen?\n"
        "Your answer is still `...`. Fill it in and run the cell again.\n"
        'For a hint: hint("demo.layer")'
    )
    assert entry("exercise", layer) == {}


def test_a_wrong_answer_is_told_why_and_gets_one_hint_more_each_time(layer):
    first, second = check(layer, 24, lm=LM), check(layer, 24, lm=LM)
    third, fourth = check(layer, 3, lm=LM), check(layer, "x", lm=LM)
    assert first.status == "not yet" and first.message == "24 is one too far: blocks are counted from 0"
    assert [len(v.hints) for v in (first, second, third, fourth)] == [1, 2, 3, 3]
    assert str(second) == (
        "△ Not yet, because 24 is one too far: blocks are counted from 0\n"
        "Exercise 2 · Where does the hand-over happen?\n"
        "Hint 1 of 3: look at the last token\n"
        "Hint 2 of 3: count from `0`\n"
        'For another hint: hint("demo.layer")'
    )
    assert "another hint" not in str(third)
    assert fourth.message.endswith("you gave 'x'")


def test_a_correct_answer_is_explained_recorded_and_sends_on(layer, double):
    verdict = check(layer, 23, lm=LM)
    assert verdict.status == "correct" and verdict.message == "Yes: attention at block 23."
    assert str(verdict).splitlines()[1:] == [
        "Yes: attention at block 23.",
        "Done, go on. That makes 1 of 2 exercises here.",
    ]
    assert entry("exercise", layer)["done"] is True
    assert "Done, and with it all the exercises here." in str(check(double, lambda x: 2 * x))


def test_going_back_to_the_blank_folds_the_hints_again(layer):
    check(layer, 24, lm=LM)
    verdict = check(layer, ..., lm=LM)
    assert verdict.hints == () and "<details open" not in verdict.html and verdict.html.count("<details") == 3


def test_done_stays_done_when_the_learner_plays_on(layer):
    check(layer, 23, lm=LM)
    assert check(layer, 24, lm=LM).status == "not yet"
    assert entry("exercise", layer)["done"] is True


def test_the_context_goes_by_name_and_a_missing_one_is_the_authors_error(layer):
    assert check(layer, 23, lm=LM, something_else=1).status == "correct"
    with pytest.raises(TypeError, match=r"needs lm from the notebook: check\('demo.layer', answer, lm=lm\)"):
        check(layer, 23)


# -- code as an answer -------------------------------------------------------------------------------------------


def broken(x):
    y = x + 1
    return y + "one"


def test_an_error_in_the_learners_function_names_the_line(double):
    verdict = check(double, broken)
    line = broken.__code__.co_firstlineno + 2
    assert verdict.status == "not yet"
    assert verdict.message == (
        "your code raised TypeError: unsupported operand type(s) for +: 'int' and 'str'\n"
        f'in line {line} of `broken`: `return y + "one"`'
    )


def test_an_answer_the_check_cannot_work_with(double):
    assert check(double, 3).message == (
        "the check can't work with your answer, 3 (an int): TypeError: 'int' object is not callable"
    )

    class Secretive:
        def __repr__(self):
            raise RuntimeError

    assert "your answer, a Secretive" in check(double, Secretive()).message


def test_a_function_that_returns_its_blank_is_not_attempted(double):
    blank = [...]
    verdict = check(double, lambda x: blank[0])
    assert verdict.status == "not attempted" and verdict.message == "what your function returns is still `...`"


def test_not_implemented_is_not_attempted(double):
    def twice(x):
        raise NotImplementedError("write me")

    assert (check(double, twice).status, check(double, twice).message) == ("not attempted", "write me")


# -- blanks ------------------------------------------------------------------------------------------------------


def empty(x): ...
def passing(x):
    pass  # noqa: E704


def documented(x):
    """Says what to do."""


def documented_blank(x):
    """Says what to do."""
    ...


def returning(x):
    return ...


def storing(x):
    y = ...
    return y


def calling(x):
    return print(...)


def outer(x):
    kept = x

    def inner(y):
        kept_too = ...
        return kept, kept_too

    return inner


def branching(x):
    if x:
        return ...
    return x


@functools.wraps(returning)
def wrapping(*args):
    return returning(*args)


class Empty: ...


class Documented:
    """Says what to do."""


class Stubbed:
    def run(self):
        """Says what to do."""
        ...


class HalfDone:
    def __init__(self):
        self.a = 1

    def run(self):
        return ...


class Attribute:
    size = ...


BLANK = [empty, passing, documented, documented_blank, returning, storing, calling, outer, branching, wrapping]
BLANK += [Empty, Documented, Stubbed, HalfDone, Attribute, Stubbed().run, functools.partial(returning, 1)]
BLANK += [..., (1, ...), [..., 1], {"a": ...}, [(1, {"b": [...]})], (1, returning), functools.partial(max, ...)]


def indexing(x):
    x[...] = 0
    return x[..., 0], x[0, ..., x], x[...]


def closing_over(x):
    return lambda: x


def comparing(x):
    return x is not ... and x != ...


class Finished:
    def reset(self):
        pass

    def run(self):
        return 1


class Data:
    size = 3


FILLED = [indexing, closing_over, comparing, Finished, Data, Finished().run, max, 0, None, "", [], "...", int]
FILLED += [lambda x: x, functools.partial(max, 1), (1, None), {"a": 1}]


def named(answer) -> str:
    """Without addresses, which differ from process to process."""
    told = getattr(answer, "__name__", short(answer, 30))
    return type(answer).__name__ if " at 0x" in repr(answer) and "__name__" not in dir(answer) else told


@pytest.mark.parametrize("answer", BLANK, ids=named)
def test_blanks_are_found(answer):
    assert blank_in(answer)


@pytest.mark.parametrize("answer", FILLED, ids=named)
def test_finished_answers_are_not_blanks(answer):
    assert blank_in(answer) is None


def test_blanks_are_named_in_words():
    line = storing.__code__.co_firstlineno + 1
    assert blank_in(storing) == f"line {line} of `storing` still has its `...`"
    assert blank_in(empty) == "the function `empty` is still empty"
    assert blank_in(Empty) == "the class `Empty` is still empty"
    assert blank_in(Stubbed) == "the methods of `Stubbed` are still empty"
    assert blank_in(Attribute) == "`Attribute.size` is still `...`"
    assert blank_in((1, ...)) == "item 2 of your answer is still `...`"
    assert blank_in({"a": ...}) == "`'a'` in your answer is still `...`"
    assert blank_in(lambda: ...).endswith("of your function still has its `...`")


def test_a_container_that_contains_itself_is_no_trap():
    knot = []
    knot.append(knot)
    assert blank_in(knot) is None


# -- solutions, hints -------------------------------------------------------------------------------------------


def test_a_solution_passes_the_same_check_and_is_not_progress(layer):
    assert str(solution(layer, 23, lm=LM)) == "✓ The solution passes the same check."
    assert "attention at block 23" in bundle(solution(layer, 23, lm=LM))["text/html"]  # folded
    assert entries()["exercise"] == {}


@pytest.mark.parametrize(
    "answer, reason",
    [(24, "not yet, because 24 is one too far"), (..., "not attempted, because your answer is still")],
)
def test_a_solution_that_fails_raises(layer, answer, reason):
    with pytest.raises(AssertionError, match=f"'demo.layer' doesn't pass its own check: {reason}"):
        solution(layer, answer, lm=LM)


def test_whether_an_answer_passes_can_be_asked_without_keeping_anything(layer):
    assert passes(layer, 23, lm=LM) is True
    assert passes(layer, 24, lm=LM) is False and passes(layer, ..., lm=LM) is False
    assert entries()["exercise"] == {}
    with pytest.raises(registry.UnknownId):
        passes("demo.nowhere", 1)


def test_hints_one_by_one_in_plain_text(layer, double, capsys):
    for _ in range(4):
        hint(layer)
    hint(double)
    assert capsys.readouterr().out.splitlines() == [
        "Hint 1 of 3: look at the last token",
        "Hint 2 of 3: count from `0`",
        "Hint 3 of 3: between 20 and 25",
        "You have seen all the hints. The last one: between 20 and 25",
        "The folded cell below holds a solution.",
        "This exercise has no hints. The folded cell below it holds a solution.",
    ]


def test_verdicts_say_in_words_what_their_colour_says_and_escape_the_learner(layer):
    page = bundle(check(layer, "<script>alert('x')</script>", lm=LM))["text/html"]
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "Not yet, because" in page and 'aria-hidden="true">△' in page
    assert page.count("<details open") == 1 and page.count("<details") == 3
    assert "●●○ · 6 minutes" in page
    assert "color:inherit" in page, "the text takes its colour from the theme"
    assert "Correct" in bundle(check(layer, 23, lm=LM))["text/html"]


def test_a_verdict_carries_what_tests_need_in_its_metadata(layer):
    _, metadata = check(layer, 24, lm=LM)._repr_mimebundle_()
    assert metadata["glassbox"] == {
        "exercise": "demo.layer",
        "status": "not yet",
        "message": "24 is one too far: blocks are counted from 0",
    }


def test_short_cuts_in_the_middle():
    assert short("ab") == "'ab'"
    assert len(short("x" * 500)) <= 80 and "…" in short("x" * 500)
    assert short("two\nlines") == "'two\\nlines'"


# -- authoring and the registry ----------------------------------------------------------------------------------


def test_an_unknown_id_names_the_close_ones(layer):
    with pytest.raises(LookupError, match="there isn't an exercise called 'demo.layers'; did you mean 'demo.layer'?"):
        check("demo.layers", 1)
    with pytest.raises(LookupError, match="there isn't a quiz called 'demo.layer'"):
        quiz("demo.layer")


@pytest.mark.parametrize("id", ["layer", "a.b.c", ".b", "a."])
def test_ids_have_two_parts(id):
    with pytest.raises(ValueError, match="<notebook>.<slug>"):
        exercise(id, number=1, title="", difficulty=1, minutes=1)(lambda answer: None)


def test_mistakes_in_authoring_are_refused():
    with pytest.raises(ValueError, match="difficulty is 1, 2 or 3"):
        exercise("demo.a", number=1, title="", difficulty=4, minutes=1)
    with pytest.raises(ValueError, match="the docstring of 'demo.a' is its hints, each behind a dash"):

        @exercise("demo.a", number=1, title="", difficulty=1, minutes=1)
        def _(answer):
            """What it checks."""


def test_a_lesson_is_found_by_the_table(tmp_path, monkeypatch):
    for name, body in {
        "zz_probing": "def _(answer): return 'found'",
        "zz_broken": "import nothing_of_that_name",
    }.items():
        (tmp_path / name).mkdir()
        decorator = f"@exercise('{name}.one', number=1, title='One', difficulty=1, minutes=1)" if "def" in body else ""
        code = f"from interp_helpers.course import exercise\n{decorator}\n{body}\n"
        (tmp_path / name / "checks.py").write_text(code, encoding="utf-8")
        (tmp_path / name / "quiz.md").write_text(QUIZ, encoding="utf-8")
        monkeypatch.setitem(lessons.LESSONS, name, lessons.Lesson(name, name, name))
    monkeypatch.setattr(lessons, "__path__", [*lessons.__path__, str(tmp_path)])
    assert check("zz_probing.one", 1).message == "found"
    assert len(quiz("zz_probing.quiz").quiz.questions) == 2
    with pytest.raises(LookupError, match="zz_broken.*ModuleNotFoundError.*No module named 'nothing_of_that_name'"):
        check("zz_broken.one", 1)


# -- expectations ------------------------------------------------------------------------------------------------


def test_expectations_are_hard_where_measured_and_reported_elsewhere(capsys):
    expect(True, "the hand-over is at block 23", lm=LM)
    expect(True, "it is late", lm=OTHER)
    expect(False, "the hand-over is at block 23", lm=OTHER)
    assert capsys.readouterr().out.splitlines() == [
        "✓ as measured: the hand-over is at block 23",
        "✓ on gpt2 too: it is late",
        "On gpt2 this does not hold: the hand-over is at block 23. "
        "The text describes another model; trust your own numbers.",
    ]
    with pytest.raises(AssertionError, match="measured on HuggingFaceTB/SmolLM2-135M-Instruct, and this run disagrees"):
        expect(False, "the hand-over is at block 23", lm=LM)


def test_an_expectation_inside_a_check_is_a_verdict():
    @exercise("demo.expect", number=1, title="Expect", difficulty=1, minutes=1)
    def _(answer, lm):
        expect(answer == 23, "it is block 23", lm=lm)

    assert check("demo.expect", 1, lm=LM).status == "not yet"
    assert check("demo.expect", 1, lm=OTHER).status == "correct"


# -- predictions -------------------------------------------------------------------------------------------------


def test_a_prediction_in_plain_text_is_kept_and_compared():
    asked = predict("demo.share", "How much comes back?", low=0, high=100, unit="%")
    assert str(asked) == (
        '? Predict first: How much comes back?\na number from 0 to 100 (%): predict("demo.share", …, answer=…)'
    )
    predict("demo.share", "How much comes back?", low=0, high=100, unit="%", answer="40")
    again = predict("demo.share", "How much comes back?", low=0, high=100, unit="%")
    assert "You predict: 40 %. It is kept" in str(again)
    assert str(reveal("demo.share", 87.0, "It was copied.")).splitlines() == [
        "→ Prediction and result",
        "your prediction  measured",
        "40 %             87 %",
        "Your prediction was 47 percentage points too low.",
        "It was copied.",
    ]
    assert "As you predicted." in str(reveal("demo.share", 40))


def test_run_all_goes_past_a_prediction():
    predict("demo.share", "How much?", low=0, high=1)
    card = reveal("demo.share", 0.123456, "So little.")
    assert "0.1235" in str(card) and "No prediction was recorded." in str(card) and "So little." in str(card)
    assert "your prediction" not in str(card)
    assert "0.1235" in bundle(card)["text/html"]


def test_a_choice_may_be_given_by_its_letter():
    choices = ["the first", "the last"]
    assert "   b) the last" in str(predict("demo.which", "Which token?", choices=choices))
    predict("demo.which", "Which token?", choices=choices, answer="b")
    assert "As you predicted." in str(reveal("demo.which", "the last"))
    assert "Not what you predicted" in str(reveal("demo.which", "the first"))


def test_words_as_a_prediction_are_escaped():
    asked = predict("demo.word", "What will it say?", answer=" <b>Rome</b> ")
    page = (
        bundle(asked)["text/html"] + bundle(reveal("demo.word", "Paris"))["text/html"] + asked.widget.children[-1].value
    )
    assert "<b>Rome" not in page and "&lt;b&gt;Rome" in page


@pytest.mark.parametrize("answer", [200, "many", -1])
def test_an_answer_out_of_reach_is_asked_again(answer):
    asked = predict("demo.share", "How much?", low=0, high=100, answer=answer)
    assert "Please answer with a number from 0 to 100." in str(asked)
    assert entry("prediction", "demo.share") == {}
    bad = predict("demo.which", "Which?", choices=["x", "y"], answer="c")
    assert "Please answer with one of a) x, b) y." in str(bad)


def test_a_kept_answer_to_another_version_of_the_question_is_dropped():
    predict("demo.which", "Which?", choices=["x", "y"], answer="x")
    changed = predict("demo.which", "Which?", choices=["p", "q"])
    assert changed.kept is None and changed.widget.children[1].value is None


def test_a_prediction_is_asked_in_one_way():
    for wrong_way in ({"low": 1}, {"low": 2, "high": 1}, {"choices": ["a"], "low": 0, "high": 1}):
        with pytest.raises(ValueError, match="either choices, or low and high"):
            predict("demo.p", "?", **wrong_way)
    with pytest.raises(ValueError, match="<notebook>.<slug>"):
        predict("p", "?")


@pytest.mark.parametrize(
    "asked, value",
    [({"low": 0, "high": 29}, 20), ({"low": 0.0, "high": 1.0}, 0.25), ({"choices": ["x", "y"]}, "y"), ({}, "Rome")],
    ids=["whole", "real", "choice", "words"],
)
def test_the_prediction_form_locks_and_opens(asked, value):
    form = predict("demo.p", "What <b>then</b>?", **asked).widget
    question, control, button, said = form.children
    assert "&lt;b&gt;" in question.value and button.description == "lock in my prediction"
    control.value = value
    button.click()
    assert entry("prediction", "demo.p")["answer"] == value
    assert control.disabled and button.description == "change my prediction" and f"You predict: {value}" in said.value
    _, kept, again, _ = predict("demo.p", "What then?", **asked).widget.children
    assert kept.value == value and kept.disabled
    again.click()
    assert not kept.disabled and again.description == "lock in my prediction"
    again.click()
    assert kept.disabled


def test_an_empty_form_is_not_locked():
    _, control, button, said = predict("demo.p", "Which?", choices=["x", "y"]).widget.children
    button.click()
    assert "Please answer with one of" in said.value and not control.disabled
    assert entry("prediction", "demo.p") == {}


def test_reveal_takes_a_one_number_array():
    numpy = pytest.importorskip("numpy")
    predict("demo.p", "?", low=0, high=9, answer=3)
    assert "As you predicted." in str(reveal("demo.p", numpy.array(3)))
    assert "[1 2]" in str(reveal("demo.p", numpy.array([1, 2])))


# -- quizzes -----------------------------------------------------------------------------------------------------


def test_a_quiz_in_plain_text(two_questions):
    assert str(quiz("demo.quiz")) == textwrap.dedent(
        """\
        ? Check yourself

        1. What is *2*?
           a) A number
           b) A <word>

        2. And 3?
           a) Even
           b) Odd

        To answer: quiz("demo.quiz", answers=["a", "a"])"""
    )
    answered = str(quiz("demo.quiz", answers=["b", "b"]))
    assert "   b) A <word>\n      ✗ Not this one: words don't `count`." in answered
    assert "   b) Odd\n      ✓ Right: one is left over." in answered
    assert answered.endswith("1 of 2 right so far.")
    assert str(quiz("demo.quiz", "ab")).endswith("2 of 2 right. Done, go on.")
    assert str(quiz("demo.quiz", "bb")).endswith("1 of 2 right this time; on record: 2 of 2 right. Done, go on.")


@pytest.mark.parametrize(
    "old, new, line, said",
    [
        (
            "- [ ] Even — it",
            "- [ ] Even, it",
            10,
            "a choice (`- [x] choice — reason`, `- [ ] …`) was expected, and “- [ ] Even, it",
        ),
        ("- [ ] Even", "- [y] Even", 10, "“- [y] Even"),
        ("- [ ] Even", "* [ ] Even", 10, "“* [ ] Even"),
        ("## What", "What", 3, "a question (`## …`), or below one a choice"),
        ("## What", "# What", 5, "“- [x] A number"),
        ("- [x] Odd", "- [ ] Odd", 8, "two choices or more, a right one (`- [x]`) among them: “And 3?”"),
        ("- [ ] Even — it isn't divisible by 2.\n", "", 8, "two choices or more"),
        (QUIZ[15:], "", 1, "a quiz has a question (`## …`) or more"),
    ],
)
def test_a_malformed_quiz_is_refused_with_its_file_and_line(tmp_path, old, new, line, said):
    assert old in QUIZ
    (tmp_path / "quiz.md").write_text(QUIZ.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        read_quiz("demo.quiz", tmp_path / "quiz.md")
    assert str(caught.value).startswith(f"{tmp_path / 'quiz.md'}, line {line}: ") and said in str(caught.value)


def test_wrong_numbers_and_letters_are_explained(two_questions):
    assert "There are 2 questions and 1 answers." in str(quiz("demo.quiz", ["a"]))
    assert "Question 2 has no choice 'e': its choices are a to b." in str(quiz("demo.quiz", ["a", "e"]))
    assert two_questions.kept == ["a", None]


def test_questions_may_be_left_for_later(two_questions):
    quiz("demo.quiz", [None, "b"])
    assert two_questions.kept == [None, "b"] and two_questions.score() == 1


def test_every_choice_unfolds_into_its_explanation_without_a_kernel(two_questions):
    page = bundle(quiz("demo.quiz"))["text/html"]
    assert page.count("<details") == 4 and "<details open" not in page
    assert "<em>2</em>" in page and "A &lt;word&gt;" in page and "<code>count</code>" in page
    assert page.count("✓ Right") == 2 and page.count("✗ Not this one") == 2
    quiz("demo.quiz", "bb")
    assert bundle(quiz("demo.quiz"))["text/html"].count("<details open") == 2


def buttons_and_feedback(form):
    rows = [child for child in form.children if child.__class__.__name__ == "HBox"]
    said = [form.children[form.children.index(row) + 1] for row in rows]
    return [row.children[0] for row in rows], said, form.children[-1]


def test_the_quiz_form_explains_every_choice_and_keeps_the_result(two_questions):
    buttons, said, result = buttons_and_feedback(quiz("demo.quiz").widget)
    assert [b.description for b in buttons] == ["a", "b", "a", "b"] and result.value.count("right") == 0
    assert buttons[1].tooltip == "A <word>"
    buttons[1].click()
    assert "✗ Not this one" in said[1].value and two_questions.score() == 0
    buttons[0].click()
    assert "✓ Right: it counts." in said[0].value and "1 of 2 right so far" in result.value
    buttons[1].click()
    assert two_questions.score() == 1, "looking at another explanation doesn't undo a right answer"
    buttons[3].click()
    assert "2 of 2 right. Done, go on." in result.value
    _, said, result = buttons_and_feedback(quiz("demo.quiz").widget)
    assert "✓ Right" in said[0].value and said[1].value == "" and "2 of 2 right" in result.value


def test_the_bundle_has_widget_html_and_text(two_questions):
    for shown in (quiz("demo.quiz"), predict("demo.p", "?")):
        data = bundle(shown)
        assert set(data) == {"text/html", "text/plain", VIEW}
        assert data[VIEW]["model_id"] == shown.widget.model_id


def test_without_ipywidgets_html_and_text_remain(two_questions, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    for shown in (quiz("demo.quiz"), predict("demo.p", "?")):
        assert set(bundle(shown)) == {"text/html", "text/plain"}


def test_on_colab_the_widget_has_no_rival(two_questions, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace())
    for shown in (quiz("demo.quiz"), predict("demo.p", "?")):
        assert set(bundle(shown)) == {"text/plain", VIEW}


def test_an_exported_page_shows_the_html(two_questions):
    nbconvert = pytest.importorskip("nbconvert")
    from nbformat import v4

    outputs = [
        v4.new_output("display_data", data=bundle(shown)) for shown in (quiz("demo.quiz"), predict("demo.p", "?"))
    ]
    page, _ = nbconvert.HTMLExporter().from_notebook_node(
        v4.new_notebook(cells=[v4.new_code_cell("", outputs=outputs)])
    )
    assert page.count("glassbox-info") == 2 and "Check yourself" in page and "Predict first" in page


def test_a_quiz_that_changed_its_length_starts_afresh(two_questions):
    update("quiz", "demo.quiz", answers=["a"])
    assert two_questions.kept == [None, None]
    update("quiz", "demo.quiz", answers="ab")
    assert two_questions.kept == [None, None]


# -- progress ----------------------------------------------------------------------------------------------------


def test_the_table_of_progress(layer, double, two_questions, fresh):
    check(layer, 23, lm=LM)
    quiz("demo.quiz", "aa")
    lines = str(progress()).splitlines()
    assert lines[0].split() == ["Notebook", "Exercises", "Quiz", "Exercise", "minutes", "Next"]
    assert lines[1] == "1 · Demonstration  1 of 2     1 of 2  6 of 7            Exercise 3 · Double it"
    assert lines[-1] == f"(kept in {fresh / 'progress.json'})"
    check(double, lambda x: 2 * x)
    assert str(progress()).splitlines()[1].endswith("the quiz") and "<table" in bundle(progress())["text/html"]
    for first in "abc":
        for second in "abc":
            quiz("demo.quiz", [first, second])
    assert str(progress()).splitlines()[1].endswith("done")


def test_reset_of_one_notebook_or_all(layer, two_questions, capsys):
    check(layer, 23, lm=LM)
    predict("demo.p", "?", answer="x")
    update("exercise", "other.one", done=True)
    reset_progress("demos")
    reset_progress("demo")
    assert entries() == {"exercise": {"other.one": {"done": True}}, "quiz": {}, "prediction": {}}
    reset_progress()
    assert entries() == {"exercise": {}, "quiz": {}, "prediction": {}}
    assert capsys.readouterr().out.splitlines() == [
        "There is no notebook 'demos'. Did you mean 'demo'?",
        "Forgotten: 2 entries of demo.",
        "Forgotten: 1 entry of all notebooks.",
    ]


def test_progress_survives_a_restart_and_two_notebooks(fresh):
    update("exercise", "a.one", done=True)
    elsewhere = "from interp_helpers.course.progress import update; update('exercise', 'b.two', attempts=3)"
    root = str(Path(course.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *sys.path])}
    subprocess.run([sys.executable, "-c", elsewhere], check=True, env=environment)
    update("exercise", "a.one", hints=1)
    saved = json.loads((fresh / "progress.json").read_text())
    assert saved["exercise"] == {"a.one": {"done": True, "hints": 1}, "b.two": {"attempts": 3}}
    assert [p.name for p in fresh.iterdir()] == ["progress.json"], "no temporary file is left"


@pytest.mark.parametrize("damage", ["{", "[]", '{"exercise": {"a.b": 3}}', '{"exercise": [1]}', "\x00"])
def test_a_damaged_file_is_set_aside_once(fresh, capsys, damage):
    (fresh / "progress.json").write_text(damage)
    assert entry("exercise", "a.b") == {}
    update("exercise", "a.b", done=True)
    assert entry("exercise", "a.b") == {"done": True}
    said = capsys.readouterr().out
    assert said.count("The progress file was damaged. It is kept as") == 1
    (kept,) = fresh.glob("progress.damaged-*.json")
    assert kept.read_text() == damage and str(kept) in said


def test_where_nothing_can_be_written_progress_lasts_in_memory(fresh, monkeypatch, capsys):
    (fresh / "file").write_text("in the way")
    monkeypatch.setenv("INTERP_PROGRESS", str(fresh / "file" / "progress.json"))
    update("exercise", "a.b", done=True)
    update("exercise", "a.c", done=True)
    assert entry("exercise", "a.b") == {"done": True} and entry("exercise", "a.c") == {"done": True}
    said = capsys.readouterr().out
    assert said.count("Your progress can't be kept in") == 1 and "INTERP_PROGRESS" in said
    reset_progress()
    assert entry("exercise", "a.b") == {} and "Forgotten: 2 entries" in capsys.readouterr().out


def test_a_failed_write_leaves_the_old_file(fresh, monkeypatch, capsys):
    update("exercise", "a.b", done=True)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    update("exercise", "a.c", done=True)
    assert entry("exercise", "a.c") == {"done": True}, "in memory"
    assert json.loads((fresh / "progress.json").read_text())["exercise"] == {"a.b": {"done": True}}
    assert [p.name for p in fresh.iterdir()] == ["progress.json"]
    assert "No space left on device" in capsys.readouterr().out


def test_the_default_place_is_the_users_data_folder(monkeypatch):
    monkeypatch.delenv("INTERP_PROGRESS")
    assert location().name == "progress.json" and "interp_helpers" in str(location())


# -- in a real IPython -------------------------------------------------------------------------------------------


def test_a_verdict_shows_whatever_its_cell_ends_in():
    nbclient = pytest.importorskip("nbclient")
    from nbformat import v4

    define = """
        from interp_helpers.course import check, exercise, require
        @exercise("demo.last", number=2, title="Where is it?", difficulty=2, minutes=6)
        def _(answer):
            require(answer != 30, "that is one too far")
    """
    endings = {
        "check('demo.last', 29)": ["✓ Correct"],
        "check('demo.last', 29)\n'below'": ["'below'", "✓ Correct"],
        "for answer in (30, 29):\n    check('demo.last', answer)": ["△ Not yet, because that is one", "✓ Correct"],
        "1 / 0\ncheck('demo.last', 29)": [""],
        "'afterwards'": ["'afterwards'"],
    }
    cells = [v4.new_code_cell(code) for code in (textwrap.dedent(define), *endings)]
    nb = nbclient.NotebookClient(v4.new_notebook(cells=cells), kernel_name="python3", allow_errors=True).execute()
    for cell, expected in zip(nb.cells[1:], endings.values(), strict=True):
        texts = [output.get("data", {}).get("text/plain", "") for output in cell.outputs]
        assert len(texts) == len(expected), cell
        assert all(text.startswith(start) for text, start in zip(texts, expected, strict=True)), texts


def test_ipython_shows_the_same_forms(layer, two_questions):
    pytest.importorskip("IPython")
    from IPython.core.formatters import DisplayFormatter

    data, metadata = DisplayFormatter().format(check(layer, 24, lm=LM))
    assert data["text/plain"].startswith("△ Not yet, because 24") and "<div" in data["text/html"]
    assert metadata["glassbox"]["status"] == "not yet"
    data, _ = DisplayFormatter().format(quiz("demo.quiz"))
    assert set(data) == {"text/html", "text/plain", VIEW} and data["text/plain"].startswith("? Check yourself")
