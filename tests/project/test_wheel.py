"""What is installed: the wheel, built and read."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from interp_helpers.lessons import LESSONS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> set[str]:
    """The files in a wheel that is built from a copy of what git has or would have, so that nothing is left in the tree."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(lambda name: name.startswith("interp_helpers/") or name.count("/") == 0, listed):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "-q", "-w", str(out)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    (wheel,) = out.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_wrong_answers_are_not_installed(names):
    assert not [name for name in names if "wrong_answers" in name]
    assert len(list(ROOT.glob("interp_helpers/lessons/*/wrong_answers.py"))) == len(LESSONS), "and they are there"


def test_everything_else_is(names):
    found = {path.relative_to(ROOT).as_posix() for path in (ROOT / "interp_helpers").rglob("*") if path.is_file()}
    wanted = {name for name in found if Path(name).suffix in (".py", ".json", ".html", ".md") and "wrong" not in name}
    assert wanted <= names, sorted(wanted - names)
    assert {f"interp_helpers/lessons/{lesson.folder}/quiz.md" for lesson in LESSONS.values()} <= names
    assert {"interp_helpers/demo/page.html", "interp_helpers/prompts/facts.json"} <= names
