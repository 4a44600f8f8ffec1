"""How far the learner is, notebook by notebook.

>>> progress()
Notebook                  Exercises  Quiz    Exercise minutes  Next
1 · Activation patching   2 of 5     3 of 4  9 of 24           Exercise 3 · Which tokens carry it?
"""

from __future__ import annotations

import difflib

from . import registry, store
from .render import Card, frame, html_table, plain_table


def progress() -> Card:
    """A table: exercises done, quiz questions right, minutes of exercises done, and what is next in each notebook.

    >>> progress()
    Notebook Exercises Quiz Exercise minutes Next
    demo 0 of 1 0 of 1 0 of 6 Exercise 1 · Where is it?
    (kept in ...)
    """
    exercises, quizzes = registry.everything("exercise"), registry.everything("quiz")
    titles = registry.loaded("notebook")
    kept = store.read()["exercise"]
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
    if len(rows) == 1:
        return Card(frame("info", "◷", "Nothing to do yet"), "Nothing to do yet.")
    where = f"kept in {store.location()}"
    return Card(frame("info", "◷", "Your progress", html_table(rows, where)), f"{plain_table(rows)}\n({where})")


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
    gone = store.forget(lambda id: notebook is None or _belongs(id, notebook))
    print(f"Forgotten: {gone} {'entry' if gone == 1 else 'entries'} of {notebook or 'all notebooks'}.")


def _belongs(id: str, prefix: str) -> bool:
    return id.split(".")[0] == prefix


def _prefixes() -> set[str]:
    kinds = ("exercise", "quiz")
    ids = [id for kind in kinds for id in registry.everything(kind)]
    return {id.split(".")[0] for id in ids} | {id.split(".")[0] for entries in store.read().values() for id in entries}
