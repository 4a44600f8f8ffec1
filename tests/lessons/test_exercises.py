"""Every exercise of every notebook, tried with its wrong answers and its solution; and the harness that does so.

Each notebook is run once, on the offline model; see `exercise_harness` for what is asked of an exercise. The same run is
held against the slides' figures.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from exercise_harness import ROOT, Report, examine, right_answers, survey, wrong_answers
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from interp_helpers.course import registry
from interp_helpers.course.predictions import letter

sys.path.insert(0, str(ROOT / "tools"))

import slides  # noqa: E402

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CASES = [(path, task.id) for path in NOTEBOOKS for task in survey(nbformat.read(path, as_version=4)).tasks]


def on(notebook: str, *values):
    """A test's parameters; those of one notebook are one group, so that its run happens in one process. `make lesson` finds them."""
    id = "-".join([notebook, *(value for value in values if isinstance(value, str) and value != notebook)])
    return pytest.param(*values, id=id, marks=pytest.mark.notebook)


@functools.lru_cache
def report_on(path: Path) -> Report:
    """The notebook's report; the run behind it happens once a session."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"INTERP_MODEL": "offline", "INTERP_PROGRESS": os.path.join(folder, "progress.json")}
        return examine(path, wrong_answers(path), environment, right_answers(path))


@pytest.mark.parametrize("path", [on(path.stem, path) for path in NOTEBOOKS])
def test_the_notebook_is_in_order(path):
    assert not report_on(path).general, "\n".join(report_on(path).general)


@pytest.mark.parametrize("path, id", [on(path.stem, path, id) for path, id in CASES])
def test_exercise(path, id):
    problems = report_on(path).of(id)
    assert not problems, f"{id}\n" + "\n".join(problems)


def test_everything_registered_is_in_a_notebook():
    assert set(registry.everything("exercise")) == {id for _, id in CASES}
    text = "\n".join(c.source for path in NOTEBOOKS for c in nbformat.read(path, as_version=4).cells)
    shown = set(re.findall(r"""^quiz\(\s*["']([^"']+)["']""", text, flags=re.MULTILINE))
    assert set(registry.everything("quiz")) == shown


@pytest.mark.parametrize("quiz", registry.everything("quiz").values(), ids=lambda quiz: quiz.id)
def test_no_letter_is_a_good_guess(quiz):
    letters = ["".join(letter(i) for i, c in enumerate(q.choices) if c.right) for q in quiz.questions]
    assert max(map(letters.count, letters)) <= 3 and len(set(letters)) > 2


# -- the slides' figures, from the same run ---------------------------------------------------------------------------


def value(number: str) -> float:
    """0.21 for “21%”, as for “0.21”."""
    return float(number.rstrip("%")) / (100 if number.endswith("%") else 1)


@pytest.mark.parametrize("name", [on(name.split("/")[0], name) for name in slides.shown()])
def test_a_figure_says_what_todays_run_measures(name):
    """The text alternative holds the figure's numbers: it has to be that of the notebook as it runs now, but for rounding, which
    may also decide where a curve is highest."""
    notebook, cell = name.split("/")
    figures = slides.figures_of(report_on(ROOT / "notebooks" / f"{notebook}.ipynb").executed)
    assert cell in figures, f"{notebook} shows no figure in {cell}"
    number = r"-?\d+(?:\.\d+)?%?"
    told = slides.index()[name]["alt"], figures[cell][1]
    kept, now = (re.sub(r"(highest -?[\d.]+) at [\d.]+", r"\1", alt) for alt in told)
    assert re.sub(number, "#", kept) == re.sub(number, "#", now), f"{kept}\n{now}"
    for old, new in zip(re.findall(number, kept), re.findall(number, now), strict=True):
        assert value(new) == pytest.approx(value(old), rel=0.1, abs=0.1), f"{kept}\n{now}"


# -- the harness, on a notebook made for it ------------------------------------------------------------------------

LESSON = """
from interp_helpers.course import exercise, require

def is_two(answer):
    "- count"
    require(answer != 1, "1 is one too few")
    require(answer != 3, "3 is one too many")
    require(isinstance(answer, int), f"a whole number, please, and not {answer!r}")
    require(answer == 2, f"{answer} is far off")
    return "Yes."

def lenient(answer):
    "- count"
    require(answer != 1, "1 is one too few")

def give(id, number, check=is_two):
    exercise(id, number=number, title=f"Number {number}", difficulty=2, minutes=6)(check)

names = ("good", "bare", "lenient", "vague", "few", "alike", "untitled", "filled", "failing", "unfolded", "other-context")
for number, name in enumerate(names, start=1):
    give(f"tiny.{name}", number, lenient if name == "lenient" else is_two)
for number, name in ((15, "kept"), (16, "uncopied"), (17, "hooked")):
    give(f"tiny.{name}", number)
give("tiny.nowhere", 99)
give("tiny.coded", 12, lambda answer: is_two(answer(1)))
"""

GOOD = [("answer = 1", "one too few"), ("answer = 3", "one too many"), ("x = 9\nanswer = x", "far off")]


def cells(name: str, number: int, *, untouched="answer = ...", solved="answer = 2", title=None, tags=True, fold=True):
    """An exercise as an author writes it: markdown, the learner's cell, the solution."""
    exercise = new_code_cell(f'{untouched}\n\ncheck("tiny.{name}", answer)')
    exercise.metadata["tags"] = ["exercise"] if tags else []
    solution = new_code_cell(f'{solved}\n\nsolution("tiny.{name}", answer)')
    solution.metadata.update({"tags": ["solution"], "jupyter": {"source_hidden": fold}})
    heading = f"### Exercise {number} · {title or f'Number {number}'}\n\n●●○ · 6 minutes · core path\n\nTwo, please."
    return [new_markdown_cell(heading), exercise, solution]


RIGHT = ["answer = 1 + 1", "answer = int(2.0)"]


def run(folder: Path, parts: list, wrong: dict, right: dict) -> Report:
    (folder / "tiny_lesson.py").write_text(LESSON)
    start = new_code_cell("import tiny_lesson\nfrom interp_helpers.course import check, solution")
    nbformat.write(new_notebook(cells=[start, *parts]), folder / "tiny.ipynb")
    return examine(folder / "tiny.ipynb", wrong, {"INTERP_PROGRESS": str(folder / "progress.json")}, right)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory) -> Report:
    """One notebook with an exercise for each thing that the harness has to catch."""
    alone = cells("bare", 2)[:2]
    elsewhere = cells("other-context", 11)
    elsewhere[2].source = elsewhere[2].source.replace("answer)", "answer, lm=1)")
    untagged = cells("nothing-tagged", 14, tags=False)
    coded = cells("coded", 12, untouched="def answer(x):\n    ...", solved="def answer(x):\n    return x + 1")
    parts = [
        *cells("good", 1),
        *alone,
        new_code_cell("1 + 1"),
        *cells("lenient", 3),
        *cells("vague", 4),
        *cells("few", 5),
        *cells("alike", 6),
        *cells("untitled", 7, title="Something else"),
        *cells("failing", 9, solved="answer = 3"),
        *cells("filled", 8, untouched="answer = 7"),
        *cells("unfolded", 10, fold=False),
        *elsewhere,
        *coded,
        *cells("unregistered", 13),
        new_code_cell("box = [1]\ndef first():\n    return box[0]"),
        *cells("kept", 15),
        new_code_cell("box[0] = 2\nimport threading\nlock = threading.Lock()"),
        *cells("uncopied", 16),
        new_code_cell("del lock\nfrom tiny import tiny\nlm = tiny()"),
        *cells("hooked", 17),
        untagged[1],
        new_code_cell("1 / 0"),
    ]
    wrong = {f"tiny.{name}": GOOD for name in ("good", "bare", "lenient", "untitled", "filled", "failing", "unfolded")}
    wrong["tiny.vague"] = [*GOOD[:2], ("answer = 9", "warm")]
    wrong["tiny.few"] = GOOD[:2]
    wrong["tiny.alike"] = [*GOOD[:2], ("answer = 1.0", "one too few"), ("answer = ...", "?"), ("oops", "?")]
    wrong["tiny.other-context"] = [*GOOD, ("answer = 1.0", "one too few", "1.0 is the same slip as 1")]
    wrong["tiny.gone"] = GOOD
    wrong["tiny.coded"] = [
        ("def answer(x):\n    return x", "one too few"),
        (
            "def answer(x):\n    y = 0\n    return x / y",
            "ZeroDivisionError: division by zero\nin line 3 of `answer`: `return x / y`",
        ),
        ("answer = 2", "the check can't work with your answer, 2 (an int)"),
    ]
    wrong["tiny.kept"] = [
        ("box.append(1)\nanswer = first()", "one too few"),
        ("answer = len(box) + 2", "one too many"),
        ("box[0] = 9\nanswer = first()", "far off"),
    ]
    wrong["tiny.uncopied"] = GOOD
    wrong["tiny.hooked"] = [*GOOD[:2], ("lm.model.config.bos_token_id = 7\nanswer = 9", "far off")]
    names = {task.id for task in survey(new_notebook(cells=parts)).tasks}
    right = {id: RIGHT for id in names} | {"tiny.few": RIGHT[:1], "tiny.lenient": [*RIGHT, "answer = 1"]}
    right["tiny.coded"] = ["answer = lambda x: x + 1", "answer = int.__add__.__get__(1)"]
    return run(tmp_path_factory.mktemp("faulty"), parts, wrong, right)


@pytest.mark.parametrize("name", ["good", "coded", "kept"])
def test_a_good_exercise_has_no_problems(faulty, name):
    assert faulty.of(f"tiny.{name}") == []


@pytest.mark.parametrize(
    "name, problems",
    {
        "bare": ["has no solution cell right after it"],
        "lenient": [
            r"accepts the wrong answer 'answer = 3'",
            r"accepts the wrong answer 'x = 9\nanswer = x'",
            "refuses the right answer 'answer = 1': 1 is one too few",
        ],
        "vague": ["answers 'answer = 9' with '9 is far off', which doesn't contain 'warm'"],
        "few": ["has 2 wrong answers, and needs 3", "has 1 right answers in another style, and needs 2"],
        "alike": [
            "tells 'answer = 1.0' the same as 'answer = 1': 'one too few'",
            "says 'not attempted' to the wrong answer 'answer = ...', instead of 'not yet'",
            "the wrong answer 'oops' raises NameError: name 'oops' is not defined",
        ],
        "untitled": ["needs the line '### Exercise 7 · Number 7' in the markdown cell before it"],
        "filled": ["says 'not yet' when untouched, instead of 'not attempted'"],
        "failing": [
            "has a solution that doesn't pass: AssertionError: the solution of 'tiny.failing' doesn't pass its own "
            "check: not yet, because 3 is one too many"
        ],
        "unfolded": ["has a solution that isn't folded (metadata jupyter.source_hidden)"],
        "other-context": ["hands over answer and its solution answer, lm=1"],
        "uncopied": ["has names that can't be copied: TypeError: cannot pickle '_thread.lock' object"],
        "hooked": ["has a wrong answer that leaves a model changed: AssertionError: config"],
        "nowhere": ["is registered and isn't in the notebook"],
        "gone": ["has answers and isn't in the notebook"],
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_harness_catches(faulty, name, problems):
    assert faulty.of(f"tiny.{name}") == problems


def test_the_harness_catches_an_exercise_that_is_not_registered(faulty):
    found = faulty.of("tiny.unregistered")
    assert "is in the notebook and isn't registered" in found
    assert any(p.startswith("raises when untouched: UnknownId: there isn't an exercise") for p in found)


def test_the_harness_catches_what_is_wrong_with_the_notebook(faulty):
    untagged, order, unknown, failing = faulty.general
    assert order == "the exercises' numbers don't ascend: [1, 2, 3, 4, 5, 6, 7, 9, 8, 10, 11, 12, 15, 16, 17]"
    assert re.fullmatch(r"cell \d+ calls check\('tiny.nothing-tagged'\) and isn't tagged 'exercise'", untagged)
    assert re.match(r"cell \d+ raises UnknownId: there isn't an exercise called 'tiny.nothing-tagged'", unknown)
    assert re.fullmatch(r"cell \d+ raises ZeroDivisionError: division by zero", failing)


def test_the_survey_needs_no_run():
    tagged = new_code_cell("answer = ...", metadata={"tags": ["exercise"]})
    first, solved = cells("one", 1)[1:]
    again = new_code_cell(first.source, metadata={"tags": ["exercise"]})
    stray = new_code_cell(solved.source, metadata=solved.metadata)
    report = survey(new_notebook(cells=[tagged, new_code_cell("%matplotlib inline"), first, again, solved, stray]))
    assert [task.id for task in report.tasks] == ["tiny.one", "tiny.one"]
    assert report.general == ["cell 0 is tagged 'exercise' and doesn't end with check(\"<id>\", answer, ...)"]
    assert "stands in the notebook twice" in report.of("tiny.one")
    assert "has its solution in cell 5, which doesn't follow the exercise" in report.of("tiny.one")


def test_wrong_answers_are_found_by_the_notebooks_name(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "wrong_answers.py").write_text('WRONG = {"x.one": [("answer = 1", "too few")]}')
    assert wrong_answers(Path("notebooks/01_x.ipynb"), tmp_path) == {"x.one": [("answer = 1", "too few")]}
    assert wrong_answers(Path("notebooks/02_y.ipynb"), tmp_path) == {}
