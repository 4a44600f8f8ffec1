"""Nothing that the tests start writes into the user's home; `conftest.py` fails the whole run where the course's files there change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import home
from conftest import group_of

WHERE = """
import os, sys
from pathlib import Path
import IPython, huggingface_hub.constants, jupyter_core.paths, matplotlib
from interp_helpers.course.progress import location
from interp_helpers.models import offline
print(Path.home(), offline.cache_folder(), location(), huggingface_hub.constants.HF_HUB_CACHE, matplotlib.get_cachedir(),
      IPython.paths.get_ipython_dir(), jupyter_core.paths.jupyter_data_dir(), jupyter_core.paths.jupyter_config_dir(), sep="\\n")
"""


def test_whatever_the_tests_start_writes_into_their_own_home(tmp_path):
    found = subprocess.run(
        [sys.executable, "-c", WHERE], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout
    assert {path for path in found.splitlines() if not Path(path).is_relative_to(os.environ[home.OURS])} == set()


def test_a_file_of_the_users_that_changes_is_named(tmp_path, monkeypatch):
    (tmp_path / "old").write_text("1")
    monkeypatch.setattr(home, "PLACES", [tmp_path])
    monkeypatch.setattr(home, "BEFORE", home.written([tmp_path]))
    assert home.changed() == []
    (tmp_path / "vectors").mkdir()
    (tmp_path / "vectors" / "new").write_text("2")
    assert home.changed() == [str(tmp_path / "vectors" / "new")]


def test_what_is_of_one_notebook_on_one_model_runs_in_one_process():
    lessons = "tests/lessons/test_exercises.py::"
    groups = [
        {
            group_of(f"{lessons}test_the_notebook_is_in_order[{name}]"),
            group_of(f"{lessons}test_exercise[{name}-some.id]"),
        }
        for name in ("04_position_specific", "steering_workshop")
    ]
    assert [len(group) for group in groups] == [1, 1] and groups[0] != groups[1]
    narrow, offline = (
        group_of(f"tests/lessons/test_nbmake.py::test_x[02_causal_tracing-{m}]") for m in ("narrow", "offline")
    )
    assert narrow != offline and not {narrow, offline} & groups[0]
    assert group_of("tests/heart/test_edits.py::test_x[a-b]") == group_of("tests/heart/test_edits.py::test_y")
