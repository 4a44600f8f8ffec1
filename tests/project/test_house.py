"""The house: where things are, which room may use which, and how much there is to read."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "interp_helpers"
HEART = ("hooks", "sites", "edits", "activations", "metrics")
EVENING = (
    *(f"{name}.py" for name in HEART),
    *(f"models/{name}.py" for name in ("anatomy", "language_model", "tokens")),
)

# Which rooms a room may use. "" is the heart.
BELOW = {
    "models": set(),
    "prompts": {"models"},
    "plotting": {"models"},
    "": {"models"},
    "engine": {"", "models"},
    "sweeps": {"", "models", "engine", "plotting", "prompts"},
    "das": {"", "models", "engine", "plotting", "prompts"},
    "steering": {"", "models", "engine", "plotting", "prompts"},
    "widgets": {"", "models", "engine", "plotting", "prompts", "sweeps", "das", "steering"},
    "course": {"plotting"},
    "lessons": {"", "models", "engine", "plotting", "prompts", "sweeps", "das", "steering", "widgets", "course"},
    "demo": {"", "models", "engine", "plotting", "prompts", "sweeps", "das", "steering", "widgets"},
}


def modules() -> list[Path]:
    """The package's files that git tracks, or would."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "interp_helpers"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return sorted(ROOT / name for name in names if name.endswith(".py") and (ROOT / name).is_file())


def lines(*paths: Path) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def imports_of(path: Path) -> list[tuple[str, ...]]:
    """What a file imports of the package, each as its dotted path from the package on: ("models", "tokens")."""
    folder, found = path.relative_to(PACKAGE).parts[:-1], []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = folder[: len(folder) + 1 - node.level]
            named = tuple(node.module.split(".")) if node.module else ()
            found += [(*base, *named)] if named else [(*base, alias.name) for alias in node.names]
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_uses_the_rooms_below_through_their_doors(path):
    own = room_of(path)
    for target in imports_of(path):
        room = target[0] if target[0] in BELOW else ""
        if room == own:
            continue
        if path.name not in ("__init__.py", "__main__.py") or own:
            assert room in BELOW[own], f"{own or 'the heart'} imports {'.'.join(target)}"
        assert len(target) == 1, f"past a door: {'.'.join(target)}"


def test_no_two_modules_import_each_other_while_they_load():
    at_load: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for path in modules():
        own = path.relative_to(PACKAGE).with_suffix("").parts
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.level and node.module:
                base = own[:-1][: len(own) - node.level]
                at_load.setdefault(own, set()).add((*base, *node.module.split(".")))
    for one, targets in at_load.items():
        for other in targets:
            assert one not in at_load.get(other, ()), f"{'.'.join(one)} and {'.'.join(other)} import each other"


def test_the_readme_says_how_much_an_evening_reads():
    told = re.search(r"([\d,]+) lines, an evening's reading", (ROOT / "README.md").read_text(encoding="utf-8"))[1]
    evening = lines(*(PACKAGE / name for name in EVENING))
    assert int(told.replace(",", "")) == pytest.approx(evening, rel=0.02), f"write {evening:,} into the README"


def test_the_house_is_small_enough_to_read(capsys):
    rooms = {
        room: lines(*(p for p in modules() if room_of(p) == room and p.name != "wrong_answers.py")) for room in BELOW
    }
    lessons = {
        folder.name: lines(*(p for p in folder.glob("*.py") if p.name != "wrong_answers.py"))
        for folder in sorted((PACKAGE / "lessons").iterdir())
        if (folder / "checks.py").exists()
    }
    heart = lines(*(PACKAGE / f"{name}.py" for name in HEART))
    evening = lines(*(PACKAGE / name for name in EVENING))
    with capsys.disabled():
        print(
            f"\nThe evening's reading: {evening} lines; the heart: {heart}; the package: {sum(rooms.values())}; rooms: {rooms}"
        )
    assert len(list(PACKAGE.glob("*.py"))) <= 7
    assert heart <= 930
    assert evening <= 1920
    assert sum(rooms.values()) <= 17_300
    assert {
        room: n for room, n in rooms.items() if room != "lessons" and n > (2700 if room == "models" else 2000)
    } == {}
    assert {name: n for name, n in lessons.items() if n > 620} == {}


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DOORS = {"interp_helpers", *(f"interp_helpers.{name}" for name in (*HEART, *BELOW) if name)}
DOORS |= {
    f"interp_helpers.lessons.{folder.parent.name}" for folder in PACKAGE.glob("lessons/*/experiment.py")
}  # its own arithmetic


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_imports_what_rooms_export_and_nothing_past_a_door(path):
    code = "".join(
        "".join(cell["source"]) + "\n"
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    )
    imported = re.findall(r"^ *(?:from|import) +(interp_helpers[\w.]*)(?: +import +(.+))?", code, re.MULTILINE)
    assert imported
    for module, names in imported:
        assert module in DOORS, f"past a door: {module}"
        exported = getattr(importlib.import_module(module), "__all__", None)
        missing = [name for name in re.split(r"[ ,]+", names.split(" as ")[0]) if exported and name not in exported]
        assert not missing, f"{module} doesn't export {', '.join(missing)}"
