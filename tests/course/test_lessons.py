"""The lessons as the machinery finds them: the table fits the notebooks, and what learners have saved keeps its meaning."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest

from interp_helpers import lessons
from interp_helpers.course import NotYet, progress, registry, reveal
from interp_helpers.lessons.steering_workshop.checks import _sentences

ROOT = Path(__file__).resolve().parents[2]
IDS = json.loads((Path(__file__).parent / "ids.json").read_text(encoding="utf-8"))


def predictions() -> set[str]:
    """The ids of the predictions that the notebooks ask for."""
    code = [
        cell.source
        for path in (ROOT / "notebooks").glob("*.ipynb")
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "code"
    ]
    return set(re.findall(r"""\bpredict\(\s*["']([^"']+)""", "\n".join(code)))


@pytest.mark.parametrize("kind", ["exercise", "quiz", "prediction"])
def test_ids_stay_so_that_progress_survives(kind):
    now = predictions() if kind == "prediction" else set(registry.everything(kind))
    kept = set(IDS[kind])
    assert not kept - now, f"learners have progress under these ids: {sorted(kept - now)}"
    assert not now - kept, f"these ids are new, write them into tests/course/ids.json: {sorted(now - kept)}"


def test_the_table_has_every_notebook_and_its_prefix():
    assert set(lessons.LESSONS) == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    for stem, lesson in lessons.LESSONS.items():
        assert stem.lstrip("0123456789_") == lesson.folder
        text = (Path(lessons.__path__[0]) / lesson.folder / "checks.py").read_text(encoding="utf-8")
        found = re.findall(r'@exercise\(\s*"([^"]+)"', text)
        assert found and len(set(found)) == len(found)
        assert {id.split(".")[0] for id in found} == {lesson.prefix}, "two lessons never share an id"


@pytest.mark.parametrize("kind", ["exercise", "quiz"])
def test_the_order_is_the_lessons_whichever_was_read_first(kind):
    """(This file has imported the last one's checks.)"""
    prefixes = [id.split(".")[0] for id in registry.everything(kind)]
    assert list(dict.fromkeys(prefixes)) == [lesson.prefix for lesson in lessons.LESSONS.values()]


def test_a_progress_file_of_version_0_1_is_read(tmp_path, monkeypatch):
    shutil.copy(Path(__file__).parent / "saved_progress.json", tmp_path / "progress.json")
    monkeypatch.setenv("INTERP_PROGRESS", str(tmp_path / "progress.json"))
    rows = {line.split("  ")[0]: re.split("  +", line)[1:] for line in str(progress()).splitlines()}
    assert rows["1 · Activation patching"][:2] == ["1 of 5", "1 of 5"]
    assert rows["Steering workshop"] == ["4 of 4", "5 of 5", "22 of 22", "done"]
    assert "Your prediction was 3 too low" in str(reveal("patching.layer", 23))


def test_sentences_of_any_script_are_read_as_sentences():
    chinese = [f"我们{verb}了一整天的海边，很高兴。" for verb in "看走坐听说想吃喝"]
    assert _sentences(chinese, "sentences") == chinese
    hindi = ["उस की किताब मेज़ पर है", "उस का किताब मेज़ पर है"]  # but for a vowel, which is a mark, the same
    _sentences(hindi + chinese, "sentences")
    with pytest.raises(NotYet, match="is too short to be a sentence"):
        _sentences([*chinese, "海很大。"], "sentences")
    with pytest.raises(NotYet, match="stands twice"):
        _sentences([*chinese, chinese[0].replace("。", "！")], "sentences")
