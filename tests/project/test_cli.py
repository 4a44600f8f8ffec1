"""The command line: `fetch-model` and `doctor`, their exit codes, and errors without a traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import hub_server
import pytest
from huggingface_hub import constants

from interp_helpers.__main__ import main
from interp_helpers.models import doctor, offline

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """The Hub is not there, so that the tests mean the same everywhere."""
    monkeypatch.delenv("INTERP_MODEL", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


# -- fetch-model ------------------------------------------------------------------------------------------------------


def test_fetch_model_is_idempotent(offline_path, capsys):
    assert main(["fetch-model"]) == 0
    assert capsys.readouterr().out == f"SmolLM2-135M-Instruct was already in {offline_path}.\n"


def test_fetch_model_to_a_folder_to_hand_round(offline_path, tmp_path, capsys):
    stick = tmp_path / "stick" / "model"
    assert main(["fetch-model", "--to", str(stick)]) == 0
    out = capsys.readouterr().out
    assert f"SmolLM2-135M-Instruct is now in {stick}." in out and f"fetch-model --from {stick}\n" in out
    assert offline.is_prepared(stick)
    assert main(["fetch-model", "--to", str(stick)]) == 0
    assert f"SmolLM2-135M-Instruct was already in {stick}." in capsys.readouterr().out


def test_a_copy_is_taken_from_the_folder_that_was_handed_round(offline_path, empty_cache, tmp_path, capsys):
    stick = Path(shutil.copytree(offline_path, tmp_path / "stick"))
    assert main(["fetch-model", "--from", str(stick)]) == 0
    assert f"is now in {offline.model_folder()}." in capsys.readouterr().out
    assert offline.model_folder().is_relative_to(empty_cache) and offline.is_prepared()
    shutil.rmtree(stick)
    assert main(["fetch-model", "--from", str(stick)]) == 1
    assert f"Error: {stick} doesn't hold the whole offline model" in capsys.readouterr().err
    assert offline.is_prepared(), "what was there stays"


def test_nothing_is_fetched_where_another_model_is_chosen(empty_cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("INTERP_MODEL", str(tmp_path))
    assert main(["fetch-model"]) == 0
    assert capsys.readouterr().out == f"INTERP_MODEL names a folder, {tmp_path}: nothing is fetched.\n"
    assert not offline.is_prepared()


@pytest.mark.parametrize("chosen", [None, "offline"])
def test_a_folder_of_the_model_s_name_is_not_taken_for_the_model(chosen, offline_path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / (chosen or offline.NAME)).mkdir()
    monkeypatch.delenv("INTERP_MODEL", raising=False)
    if chosen:
        monkeypatch.setenv("INTERP_MODEL", chosen)
    assert main(["fetch-model"]) == 0
    assert "nothing is fetched" not in capsys.readouterr().out


def test_a_layer_is_for_building(capsys):
    assert main(["vectors", "test", "--layer", "3"]) == 1
    assert "--layer is for `vectors build`" in capsys.readouterr().err


def test_an_error_is_one_sentence(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main(["fetch-model", "--to", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"Error: {tmp_path} holds other files (thesis.tex") and err.count("\n") == 1


@pytest.mark.parametrize(
    "error, code, said",
    [
        (OSError("No room; make some."), 1, "Error: No room; make some.\n"),
        (KeyError("a bug"), 1, "Error: KeyError('a bug')\n"),
        (RuntimeError(), 1, "Error: RuntimeError()\n"),
        (KeyboardInterrupt(), 130, "Stopped.\n"),
    ],
)
def test_whatever_goes_wrong_there_is_no_traceback(monkeypatch, capsys, error, code, said):
    def fails(to):
        raise error

    monkeypatch.setattr(offline, "offline_folder", fails)
    assert main(["fetch-model"]) == code
    assert capsys.readouterr().err == said


def test_no_command_and_an_unknown_command_show_the_usage(capsys):
    for arguments in ([], ["dance"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2 and "usage: python -m interp_helpers" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    out = capsys.readouterr().out
    assert stopped.value.code == 0 and "fetch-model" in out and "doctor" in out and "demo" in out


# -- demo -------------------------------------------------------------------------------------------------------------


def test_demo_serves_the_page(monkeypatch):
    monkeypatch.setattr("interp_helpers.demo.run", lambda: 7)
    assert main(["demo"]) == 7


def test_demo_says_in_a_sentence_what_is_wrong_with_its_settings(monkeypatch, capsys):
    monkeypatch.setenv("PORT", "eighty")
    assert main(["demo"]) == 1
    out, err = capsys.readouterr()
    assert (
        out == "" and err.startswith("Error: PORT is 'eighty', and a number from 0 to 65535") and err.count("\n") == 1
    )


# -- doctor -----------------------------------------------------------------------------------------------------------


def test_doctor_for_real(offline_path):
    env = {**os.environ, "HF_ENDPOINT": hub_server.nobody(), "INTERP_MODEL": "offline"}
    command = [sys.executable, "-m", "interp_helpers", "doctor"]
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, encoding="utf-8", timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    lines = {line[:16].strip(): line[16:] for line in run.stdout.splitlines()}
    assert lines["Python"].startswith(sys.version.split()[0])
    for package in ("torch", "transformers", "ipywidgets", "matplotlib", "jupyterlab"):
        assert lines[package] == (doctor.version(package) or "not installed")
    assert "CPU cores" in lines["device"] and "GB" in lines["free disk"]
    assert lines["offline model"].startswith("ready (")
    assert "no connection to the Hugging Face Hub" in lines["Hub"] or "HF_HUB_OFFLINE" in lines["Hub"]
    assert lines["model"].startswith("SmolLM2-135M-Instruct (offline): 30 blocks, loaded in ")
    assert " ms; " in lines["forward pass"] and "' Paris'" in lines["forward pass"]
    assert run.stdout.endswith("\nReady: open the notebooks.\n") and run.stderr == ""


def test_doctor_takes_the_offline_model_where_gpt2_would_have_to_be_downloaded(
    offline_path, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert doctor.run() == 0
    out = capsys.readouterr().out
    assert "(gpt2 is not on this machine; `load_model()` downloads it if the Hub answers)" in out


def test_doctor_without_any_model(empty_cache, capsys):
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "Hub cache       no models" in out and "not prepared" in out
    assert out.rstrip().split("\n")[-1] == (
        "Not ready: No model is on this machine: neither gpt2 nor the offline model; run `python -m interp_helpers "
        "fetch-model` (93 MB) while there is a network."
    )
    assert not empty_cache.exists()  # it only looks


def test_doctor_with_a_folder_that_is_not_there(empty_cache, monkeypatch, capsys):
    monkeypatch.setenv("INTERP_MODEL", "./nowhere")
    assert main(["doctor"]) == 1
    assert "Not ready: The model folder INTERP_MODEL=./nowhere does not exist" in capsys.readouterr().out


def test_doctor_lists_what_is_cached(empty_cache, tmp_path, capsys):
    snapshot = tmp_path / "hub" / "models--tiny--gpt" / "snapshots" / hub_server.COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(hub_server.COMMIT)
    main(["doctor"])
    out = capsys.readouterr().out
    assert "Hub cache       tiny/gpt (" in out and ", incomplete)" in out


def test_doctor_names_what_to_install(empty_cache, monkeypatch, capsys):
    wanted = ["numpy>=99", "no-such-package>=1,<2", "torch", 'pytest>=99; extra == "test"']
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    assert main(["doctor"]) == 1
    verdict = capsys.readouterr().out.split("Not ready: ")[1]
    assert (
        f'numpy {metadata.version("numpy")} is installed, but >=99 is needed; run `pip install "numpy>=99"`.' in verdict
    )
    assert (
        'no-such-package is not installed, but <2,>=1 is needed; run `pip install "no-such-package<2,>=1"`.' in verdict
    )
    assert "torch" not in verdict and "pytest" not in verdict
