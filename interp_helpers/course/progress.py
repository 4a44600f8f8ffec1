"""How far the learner is: a small JSON file that survives a restart, and the table that it fills.

The file stands in the user's data folder, or where the environment variable INTERP_PROGRESS says. Every change reads the
file, changes one entry and puts a new file in the old one's place, so two open notebooks don't erase each other and
a crash leaves the old file or the new one. Where nothing can be written, progress lasts as long as the kernel.
"""

from __future__ import annotations

import difflib
import json
import os
import tempfile
import time
from pathlib import Path

from platformdirs import user_data_dir

from . import registry
from .render import Card, frame, table

KINDS = ("exercise", "quiz", "prediction")
_memory: dict[Path, dict] = {}  # what could not be written, for files in unwritable places


def progress() -> Card:
    """A table: exercises done, quiz questions right, minutes of exercises done, and what is next in each notebook.

    >>> progress()
    Notebook Exercises Quiz Exercise minutes Next
    1 · Activation patching 0 of 5 0 of 5 0 of 42 Exercise 1 · Name the site
    ...
    (kept in ...)
    """
    exercises, quizzes, titles = registry.everything("exercise"), registry.everything("quiz"), registry.titles()
    kept = entries()["exercise"]
    rows = [["Notebook", "Exercises", "Quiz", "Exercise minutes", "Next"]]
    for prefix in sorted(_prefixes(), key=lambda p: titles.get(p, p)):
        here = sorted((e for id, e in exercises.items() if _belongs(id, prefix)), key=lambda e: e.number)
        done = [e for e in here if kept.get(e.id, {}).get("done")]
        todo = [e for e in here if e not in done]
        asked = [q for id, q in quizzes.items() if _belongs(id, prefix)]
        left = [e.heading for e in todo] + ["the quiz" for q in asked if q.score() < len(q.questions)]
        rows.append(
            [
                titles.get(prefix, prefix),
                f"{len(done)} of {len(here)}",
                f"{sum(q.score() for q in asked)} of {sum(len(q.questions) for q in asked)}" if asked else "",
                f"{sum(e.minutes for e in done):g} of {sum(e.minutes for e in here):g}",
                left[0] if left else "done",
            ]
        )
    where = f"kept in {location()}"
    html, text = table(rows, where)
    return Card(frame("info", "◷", "Your progress", html), f"{text}\n({where})")


def reset_progress(notebook: str | None = None) -> None:
    """Forget what was done: of one notebook ('patching'), or, without an argument, of all.

    >>> verdict = check("demo.last", 29, lm=lm)
    >>> reset_progress("demo")
    Forgotten: 1 entry of demo.
    """
    if notebook is not None and notebook not in _prefixes():
        close = difflib.get_close_matches(str(notebook), _prefixes(), n=3, cutoff=0.4)
        maybe = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        print(f"There is no notebook {notebook!r}.{maybe}")
        return
    data = entries()
    gone = [(kind, id) for kind in KINDS for id in data[kind] if notebook is None or _belongs(id, notebook)]
    for kind, id in gone:
        del data[kind][id]
    if gone:
        _write(data)
    print(f"Forgotten: {len(gone)} {'entry' if len(gone) == 1 else 'entries'} of {notebook or 'all notebooks'}.")


def _belongs(id: str, prefix: str) -> bool:
    return id.split(".")[0] == prefix


def _prefixes() -> set[str]:
    return {*registry.titles(), *(id.split(".")[0] for kept in entries().values() for id in kept)}


# -- the file ----------------------------------------------------------------------------------------------------------


def location() -> Path:
    """Where progress is kept just now."""
    chosen = os.environ.get("INTERP_PROGRESS")
    return Path(chosen).expanduser() if chosen else Path(user_data_dir("interp_helpers")) / "progress.json"


def entries() -> dict[str, dict[str, dict]]:
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


def entry(kind: str, id: str) -> dict:
    """What is known about one exercise, quiz or prediction; {} if nothing is."""
    return entries()[kind].get(id, {})


def update(kind: str, id: str, **fields) -> None:
    """Change some fields of one entry."""
    data = entries()
    data[kind][id] = {**data[kind].get(id, {}), **fields}
    _write(data)


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
