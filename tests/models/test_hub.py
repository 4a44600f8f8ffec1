"""The Hub from where we stand: absent, silent, refusing, breaking off, or there; and what `load_model` makes of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import hub_server
import pytest
import torch
from hub_server import COMMIT
from huggingface_hub import constants

from interp_helpers import load_model
from interp_helpers.models import hub, offline
from interp_helpers.models import load as loading

ROOT = Path(__file__).parents[2]
OFFLINE = "SmolLM2-135M-Instruct (offline)"


@pytest.fixture(autouse=True)
def no_name_from_outside(monkeypatch):
    monkeypatch.delenv("INTERP_MODEL", raising=False)


# -- no Hub -----------------------------------------------------------------------------------------------------------


def test_without_hub_the_offline_model_comes_with_one_notice(offline_path, hub_at, tmp_path, capsys):
    start = time.monotonic()
    lm = load_model(cache_dir=tmp_path, revision="main", output_attentions=True, dtype=torch.float64)
    assert time.monotonic() - start < 40  # a bound against hanging: transformers alone takes longer than that
    assert lm.name == OFFLINE and lm.model.dtype == torch.float64
    assert not lm.model.config.output_attentions  # what was meant for gpt2 is not put on another model
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith(
        "gpt2 is neither in the cache nor reachable (no connection to the Hugging Face Hub at http://"
    )
    assert "), so this is the offline model SmolLM2-135M-Instruct (30 blocks) on " in err


def test_a_hub_that_never_answers_costs_seconds(hub_at, tmp_path):
    with hub_server.never_answering() as address:
        hub_at(address)
        start = time.monotonic()
        with pytest.raises(ConnectionError, match=r"\(no answer from the Hugging Face Hub within 5 s\); connect this"):
            load_model("tiny/gpt", fallback=False, cache_dir=tmp_path)
        assert time.monotonic() - start < 40


def test_a_name_look_up_that_never_ends_costs_seconds(hub_at, monkeypatch):
    monkeypatch.setattr(hub, "HUB_SECONDS", 0.1)
    monkeypatch.setattr(hub.hub_utils, "get_session", lambda: time.sleep(5))
    assert hub.hub_problem("gpt2") == "no answer from the Hugging Face Hub within 0.1 s"


def test_without_fallback_the_error_says_how_to_get_it(hub_at, tmp_path):
    with pytest.raises(ConnectionError) as caught:
        load_model(fallback=False, cache_dir=tmp_path)
    sentence = str(caught.value)
    assert sentence.startswith("gpt2 is neither in the cache nor reachable (no connection to the Hugging Face Hub")
    assert (
        'connect this machine and call again, or name a folder that holds the model, or use load_model("offline")'
        in (sentence)
    )


def test_the_hub_is_not_asked_where_the_user_forbids_it(hub_at, monkeypatch, tmp_path):
    monkeypatch.setattr(hub.hub_utils, "get_session", lambda: pytest.fail("the Hub was asked"))
    with pytest.raises(ConnectionError, match="local_files_only=True was asked for"):
        load_model(fallback=False, cache_dir=tmp_path, local_files_only=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="the environment variable HF_HUB_OFFLINE is set"):
        load_model(fallback=False, cache_dir=tmp_path)


def test_neither_the_model_nor_the_offline_model(hub_at, monkeypatch, tmp_path):
    def no_room():
        raise OSError("No room for the offline model: make some.")

    monkeypatch.setattr(offline, "offline_folder", no_room)
    with pytest.raises(
        RuntimeError, match=r"gpt2 is neither .* \(no connection .* can't be had either. No room for the"
    ):
        load_model(cache_dir=tmp_path)


def test_a_download_that_breaks_off_falls_back(hub_at, offline_path, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(loading, "hub_problem", lambda name, **kwargs: None)  # it answered a moment ago
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # and now the library reaches nothing, without its retries
    assert load_model("tiny/gpt", cache_dir=tmp_path).name == OFFLINE
    assert "(the Hugging Face Hub answered, but the download broke off)" in capsys.readouterr().err


# -- a Hub that answers, but not with a model -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status, code, kind, sentence",
    [
        (
            404,
            "RepoNotFound",
            ValueError,
            'The Hugging Face Hub has no model "gtp2" .*check the spelling at http.*/gtp2',
        ),
        (
            403,
            "GatedRepo",
            PermissionError,
            "gtp2 is gated: accept its terms at http.*/gtp2, log in with `hf auth login`",
        ),
        (404, "EntryNotFound", ValueError, "gtp2 on the Hugging Face Hub has no config.json in that place"),
        (404, "RevisionNotFound", ValueError, "check the name and the revision"),
    ],
)
def test_a_name_that_the_hub_refuses_never_becomes_the_offline_model(hub_at, tmp_path, status, code, kind, sentence):
    with hub_server.answering(status, {"X-Error-Code": code, "X-Repo-Commit": COMMIT}) as address:
        hub_at(address)
        with pytest.raises(kind, match=sentence):
            load_model("gtp2", cache_dir=tmp_path)


def test_answers_that_are_no_answer(hub_at):
    with hub_server.answering(503) as address:
        hub_at(address)
        assert hub.hub_problem("gpt2") == "the Hugging Face Hub answered with HTTP status 503"
    with hub_server.answering(200) as address:
        hub_at(address)
        assert hub.hub_problem("gpt2") == f"what answers at {address} is not the Hugging Face Hub"
    with hub_server.answering(200, {"X-Repo-Commit": COMMIT}) as address:
        hub_at(address)
        assert hub.hub_problem("gpt2") is None


def test_lost_connections_are_told_from_refusals():
    try:
        try:
            raise ConnectionResetError
        except ConnectionResetError as error:
            raise OSError("transformers wraps it") from error
    except OSError as error:
        assert hub.is_connection_error(error)
    assert not hub.is_connection_error(OSError("no file named model.safetensors"))


# -- a Hub that delivers ------------------------------------------------------------------------------------------


def test_a_model_is_downloaded_from_a_hub_that_answers_and_then_cached(saved, tmp_path):
    code = "from interp_helpers import load_model; print(load_model('tiny/gpt', fallback=False)('Hello').shape)"
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    env.pop("HF_HUB_CACHE", None)

    def run(address):
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**env, "HF_ENDPOINT": address},
            capture_output=True,
            text=True,
            timeout=300,
        )

    with hub_server.serving_model("tiny/gpt", saved) as address:
        first = run(address)
    assert first.stdout.startswith("Model: tiny/gpt (3 blocks) on ") and first.returncode == 0, first.stderr
    second = run(address)  # the server is gone
    assert second.returncode == 0 and second.stdout == first.stdout, second.stderr
