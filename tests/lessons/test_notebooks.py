"""Every notebook as a file; `test_exercises.py` and `test_nbmake.py` run them."""

from __future__ import annotations

import ast
import functools
import re
import runpy
from pathlib import Path

import nbformat
import pytest

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
    assert "from interp_helpers import" in imports.source and imports.source.endswith("\nwritten_for(lm)")
    assert "load_model(" in imports.source and "SmolLM2-135M-Instruct (30 blocks)" in text.source


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
