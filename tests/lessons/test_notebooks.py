"""Every notebook as a file, and run on a model that nobody has measured.

The run on the offline model, whose numbers the lessons are held to, is `pytest --nbmake notebooks/` (see the Makefile).
"""

from __future__ import annotations

import ast
import functools
import os
import re
import runpy
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from tiny import gpt2_shaped_folder

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [ROOT / "README.md", *NOTEBOOKS]
CORE, ALL = 50, 100  # minutes, at most

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@functools.cache
def read(path: Path):
    return nbformat.read(path, as_version=4)


def code_cells(nb) -> list:
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def headings(nb) -> list[tuple[int, str, str]]:
    """(level, heading, the first line of text below it) of every heading, in order."""
    found = []
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            lines = re.sub(r"```.*?```", "", cell.source, flags=re.DOTALL).splitlines()
            for i, line in enumerate(lines):
                if match := re.match(r"(#+) +(.*)", line):
                    found.append((len(match[1]), match[2], next((below for below in lines[i + 1 :] if below), "")))
    return found


def repository() -> str:
    """The address in pyproject.toml."""
    return re.search(r'^Repository = "(.*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]


# -- the file -----------------------------------------------------------------------------------------------------------


def test_there_are_notebooks():
    assert NOTEBOOKS


@each_notebook
def test_the_file_is_valid_and_in_the_form_that_jupyter_writes(path):
    nb = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(nb)
    assert nb.nbformat == 4 and nb.nbformat_minor >= 5
    assert nbformat.writes(nb, indent=1).rstrip("\n") + "\n" == path.read_text(encoding="utf-8")


@each_notebook
def test_no_outputs_are_kept(path):
    for cell in code_cells(read(path)):
        assert not cell.outputs and cell.execution_count is None, cell.id
        assert "execution" not in cell.metadata, cell.id
    assert "widgets" not in read(path).metadata


@each_notebook
def test_every_cell_has_an_id_of_its_own_that_says_what_it_is(path):
    ids = [cell.id for cell in read(path).cells]
    assert len(set(ids)) == len(ids)
    random = [
        id for id in ids if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", id) or re.fullmatch(r"[0-9a-f]{8}", id)
    ]
    assert random == []


@each_notebook
def test_the_kernel_is_the_plain_python_one(path):
    assert read(path).metadata.kernelspec == {"name": "python3", "display_name": "Python 3", "language": "python"}
    assert "version" not in read(path).metadata.language_info, "a version would change with whoever saves the file"


@each_notebook
def test_no_line_of_code_is_longer_than_the_page(path):
    long = {cell.id: line for cell in code_cells(read(path)) for line in cell.source.splitlines() if len(line) > 120}
    assert long == {}


@each_notebook
def test_no_cell_is_empty(path):
    assert [cell.id for cell in read(path).cells if not cell.source.strip()] == []


# -- how it begins ------------------------------------------------------------------------------------------------------


@each_notebook
def test_the_first_cell_says_what_you_get_and_what_it_takes(path):
    first = read(path).cells[0]
    assert first.cell_type == "markdown"
    number = re.match(r"\d+", path.stem)
    title = rf"# {int(number[0])} · \S.*" if number else r"# \S.*"
    assert re.fullmatch(title, first.source.splitlines()[0])
    assert "**Afterwards you can**" in first.source and "\n- " in first.source
    assert re.search(r"^\*\*Time\*\* \d+ minutes .*core.*\d+ ", first.source, re.MULTILINE)
    assert re.search(r"^\*\*Needs\*\* \S", first.source, re.MULTILINE)


@each_notebook
def test_the_badge_opens_this_very_notebook(path):
    owner_and_name = repository().removeprefix("https://github.com/")
    target = f"https://colab.research.google.com/github/{owner_and_name}/blob/main/notebooks/{path.name}"
    assert re.findall(r"\[!\[Open in Colab\]\([^)]+\)\]\(([^)]+)\)", read(path).cells[0].source) == [target]


@each_notebook
def test_then_comes_the_setup(path):
    _, text, setup, imports = read(path).cells[:4]
    assert text.cell_type == "markdown" and re.match(r"#+ Set-up\n", text.source)
    assert setup.source == (
        "import importlib.util\n\n"
        'if importlib.util.find_spec("interp_helpers") is None:\n'
        f'    %pip install -q "interp-helpers @ git+{repository()}"'
    )
    assert "from interp_helpers import" in imports.source and "load_model()" in imports.source


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_repository_has_one_address(page):
    tool = runpy.run_path(str(ROOT / "tools" / "address.py"))
    text = page.read_text(encoding="utf-8")
    owner_and_name = tool["repository"]()
    assert repository() == f"https://github.com/{owner_and_name}"
    assert owner_and_name in text
    assert tool["PLACES"].sub(rf"\g<1>{owner_and_name}", text) == text, "run `make address`"
    name = owner_and_name.split("/")[1]
    elsewhere = [m[0] for m in re.finditer(rf"[\w./:@-]*/{name}\b", text) if owner_and_name not in m[0]]
    assert elsewhere == [], "another way to write the address, which `make address` doesn't know"
    assert f"{owner_and_name}.git" not in text


# -- headings and minutes -----------------------------------------------------------------------------------------------


@each_notebook
def test_headings_make_an_outline(path):
    outline = headings(read(path))
    levels, names = [level for level, *_ in outline], [heading for _, heading, _ in outline]
    assert levels[0] == 1 and levels.count(1) == 1, "one title"
    assert max(levels) <= 3
    steps = list(zip(levels[:-1], levels[1:], names[1:], strict=True))
    assert [name for before, level, name in steps if level > before + 1] == [], "a level is left out"
    assert len(set(names)) == len(names)


@each_notebook
def test_sections_are_numbered_and_end_with_recap_quiz_and_papers(path):
    sections = [heading for level, heading, _ in headings(read(path)) if level == 2]
    numbers = [int(match[1]) for s in sections if (match := re.match(r"(\d+) · ", s))]
    assert numbers == list(range(1, len(numbers) + 1)) and numbers
    wanted = ["Go deeper", "Recap", "Quiz", "Where this comes from", "Where next"]
    assert [s for s in sections if s in wanted] == wanted


@each_notebook
def test_the_minutes_add_up(path):
    core, everything = map(
        int, re.search(r"\*\*Time\*\* (\d+) minutes.*?(\d+) with", read(path).cells[0].source).groups()
    )
    sections, section = {}, None  # {section: [its minutes, those of its exercises and parts]}
    for level, heading, below in headings(read(path)):
        stated = re.match(r"(?:\*|[●○]{3} · )(\d+) minutes?\b", below)
        if level == 2:
            section = sections[heading] = [int(stated[1]) if stated else 0, 0]
        elif stated and section:
            section[1] += int(stated[1])
    deeper, quiz = sections.pop("Go deeper"), sections.pop("Quiz")[0]
    numbered = {heading: minutes for heading, minutes in sections.items() if re.match(r"\d+ · ", heading)}
    assert all(own for own, _ in numbered.values()), "every section says how long it takes"
    assert all(parts <= own for own, parts in numbered.values()), "an exercise is part of its section's minutes"
    assert core == sum(own for own, _ in numbered.values()) + quiz, "the sections, and the quiz with the recap"
    assert deeper[1] == deeper[0], f"its parts make {deeper[1]} minutes"
    assert core + deeper[0] == everything
    assert core <= CORE and everything <= ALL
    row = next(
        line
        for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        if f"({path.parent.name}/{path.name})" in line
    )
    assert f"| {core} / {everything} min |" in row


@each_notebook
def test_every_prediction_is_followed_by_its_result(path):
    source = "\n".join(cell.source for cell in code_cells(read(path)))
    asked, shown = (
        {match[1]: match.start() for match in re.finditer(rf'^ *{call}\(\s*"([^"]+)"', source, re.MULTILINE)}
        for call in ("predict", "reveal")
    )
    assert asked and set(asked) == set(shown)
    assert [id for id in asked if asked[id] > shown[id]] == []


@each_notebook
def test_what_is_to_be_seen_stands_last_in_its_cell(path):
    shows = {"predict", "reveal", "check", "quiz", "progress", "bars", "curves", "heatmap", "heatmaps", "scatter"}
    for cell in code_cells(read(path)):
        if "%pip" not in cell.source:
            *before, _ = ast.parse(cell.source).body
            called = {
                getattr(s.value.func, "id", "")
                for s in before
                if isinstance(s, ast.Expr) and isinstance(s.value, ast.Call)
            }
            assert not called & shows, cell.id


# -- run on a model that nobody has measured ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unmeasured(tmp_path_factory) -> Path:
    """A model of GPT-2's shape and tokenizer that knows nothing."""
    return gpt2_shaped_folder(tmp_path_factory.mktemp("models") / "gpt2")


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def executed(request, unmeasured, tmp_path_factory):
    """The notebook after a run from top to bottom, untouched."""
    nb = nbformat.read(request.param, as_version=4)
    folder = tmp_path_factory.mktemp("run")
    environment = {
        **os.environ,
        "INTERP_MODEL": str(unmeasured),
        "INTERP_PROGRESS": str(folder / "progress.json"),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }
    client = NotebookClient(nb, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute(env=environment)
    return nb


def outputs(nb):
    return [(cell, output) for cell in code_cells(nb) for output in cell.outputs]


def printed(nb, stream="stdout") -> str:
    return "".join(output.text for _, output in outputs(nb) if output.get("name") == stream)


def test_it_runs_to_its_end(executed):
    assert all(cell.execution_count for cell in code_cells(executed))
    assert [cell.id for cell, output in outputs(executed) if output.output_type == "error"] == []


def test_expectations_are_reported_and_fail_nothing(executed):
    calls = [
        node.value
        for cell in code_cells(executed)
        for node in ast.parse(re.sub(r"^( *)%.*", r"\1pass", cell.source, flags=re.MULTILINE)).body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "expect"
    ]
    of_the_model = [call for call in calls if any(keyword.arg == "lm" for keyword in call.keywords)]
    text = printed(executed)
    held, failed = text.count("✓ on "), text.count("this does not hold: ")
    assert held + failed == len(of_the_model) and failed > 0
    assert text.count("✓ as measured") == len(calls) - len(of_the_model)


def test_nothing_is_said_on_stderr_but_progress_bars(executed):
    said = printed(executed, "stderr")
    assert "Traceback" not in said and "Warning" not in said
    assert "Error" not in said


def test_every_figure_has_a_text_alternative(executed):
    figures = [(cell.id, output) for cell, output in outputs(executed) if "image/png" in output.get("data", {})]
    assert figures
    for id, output in figures:
        alt = output.metadata["image/png"]["alt"]
        assert len(alt) > 40 and output.data["text/plain"] == alt, id


def test_nothing_is_shown_as_a_bare_repr(executed):
    for cell, output in outputs(executed):
        text = output.get("data", {}).get("text/plain", "")
        assert not re.search(r"<[\w.]+ (object )?at 0x", text), cell.id


def test_untouched_exercises_say_so_and_solutions_pass(executed):
    found = [output.metadata["glassbox"] for _, output in outputs(executed) if "glassbox" in output.get("metadata", {})]
    assert {seen["status"] for seen in found if "exercise" in seen} == {"not attempted"}
    assert {seen["exercise"] for seen in found if "exercise" in seen} == {
        seen["solution"] for seen in found if "solution" in seen
    }
