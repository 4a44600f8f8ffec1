"""The learner's progress: a small JSON file that survives a restart.

It stands in the user's data folder, or where the environment variable INTERP_PROGRESS says. Every change reads the
file, changes one entry and puts a new file in the old one's place, so two open notebooks don't erase each other and
a crash leaves the old file or the new one. Where nothing can be written, progress lasts as long as the kernel.

>>> update("exercise", "patching.last-layer", done=True)
>>> get("exercise", "patching.last-layer")["done"]
True
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

from platformdirs import user_data_dir

KINDS = ("exercise", "quiz", "prediction")
_memory: dict[Path, dict] = {}  # what could not be written, for files in unwritable places


def location() -> Path:
    """Where progress is kept just now."""
    chosen = os.environ.get("INTERP_PROGRESS")
    return Path(chosen).expanduser() if chosen else Path(user_data_dir("interp_helpers")) / "progress.json"


def read() -> dict[str, dict[str, dict]]:
    """All of it: kind -> id -> what is known. A damaged file is set aside and a new one begun."""
    path = location()
    if path in _memory:
        return _memory[path]
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        kept = {kind: data.get(kind, {}) for kind in KINDS}
        if not all(isinstance(entry, dict) for entries in kept.values() for entry in entries.values()):
            raise ValueError("an entry is not an object")
        return kept
    except FileNotFoundError:
        pass
    except OSError as error:
        _keep_in_memory(path, {kind: {} for kind in KINDS}, error)
        return _memory[path]
    except (ValueError, AttributeError):
        _set_aside(path)
    return {kind: {} for kind in KINDS}


def get(kind: str, id: str) -> dict:
    """What is known about one exercise, quiz or prediction; {} if nothing is."""
    return read()[kind].get(id, {})


def update(kind: str, id: str, **fields) -> None:
    """Change some fields of one entry."""
    data = read()
    data[kind][id] = {**data[kind].get(id, {}), **fields}
    _write(data)


def forget(belongs) -> int:
    """Remove the entries whose id satisfies `belongs`; says how many there were."""
    data = read()
    gone = [(kind, id) for kind in KINDS for id in data[kind] if belongs(id)]
    for kind, id in gone:
        del data[kind][id]
    if gone:
        _write(data)
    return len(gone)


def _write(data: dict) -> None:
    path = location()
    if path in _memory:
        return  # `data` is the dictionary in memory itself
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"version": 1, **data}, file, indent=1)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        _keep_in_memory(path, data, error)


def _keep_in_memory(path: Path, data: dict, error: OSError) -> None:
    _memory[path] = data
    print(
        f"Your progress can't be kept in {path} ({error.strerror or error}), so it lasts until the kernel restarts. "
        "The environment variable INTERP_PROGRESS can name another file."
    )


def _set_aside(path: Path) -> None:
    aside = path.with_name(f"{path.stem}.damaged-{time.strftime('%Y%m%d-%H%M%S')}{path.suffix}")
    try:
        os.replace(path, aside)
        print(f"The progress file was damaged. It is kept as {aside}, and a new one is started.")
    except OSError as error:
        _keep_in_memory(path, {kind: {} for kind in KINDS}, error)
