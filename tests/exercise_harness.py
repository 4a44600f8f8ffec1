"""Tests of the exercises themselves: does each check accept its solution and refuse plausible wrong answers?

A notebook is run once, untouched, to its end; then each wrong answer is tried in a copy of the names that its exercise cell had:

    untouched cell -> 'not attempted'    solution -> passes    right answers in another style -> 'correct'
    wrong answers -> 'not yet', each for its own reason       the solution, and something left on the model -> 'not yet', and it is taken off

The wrong answers stand in `interp_helpers/lessons/<notebook>/wrong_answers.py`, where `WRONG` maps an exercise's id to pairs of code
(it replaces everything before the `check(` call) and a piece of the message that it must get:

    WRONG = {"patching.last-layer": [("answer = 24", "one too far"), ...]}

Two that rightly get the same message say so in a third item: ("answer = 25", "one too far", "the same slip"). `RIGHT` maps an exercise's
id to right answers in another style than the solution's, at least two:

    RIGHT = {"patching.last-layer": ["answer = lm.n_layers - 1", "answer = torch.tensor(29)"]}

>>> report = examine(Path("notebooks/01_activation_patching.ipynb"), WRONG, right=RIGHT)
>>> report.general, report.of("patching.last-layer")        # lists of problems, empty when all is well
([], [])
"""

from __future__ import annotations

import ast
import copy
import json
import os
import runpy
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
AT_LEAST = 3  # wrong answers an exercise
STYLES = 2  # right answers an exercise, besides the solution
PROBE = "glassbox_probe"
DUMP = """
import json as _json
from interp_helpers.course import registry as _registry
print(_json.dumps({
    "exercises": {
        id: {"number": e.number, "title": e.title, "heading": e.heading, "effort": e.effort}
        for id, e in _registry.everything("exercise").items()
    },
    "broken": {name: repr(error) for name, error in _registry._broken.items()},
}))
"""


@dataclass
class Task:
    """An exercise as it stands in the notebook: the cells' indices, the call of `check`, the text above it."""

    id: str
    cell: int
    call: ast.Call
    call_source: str
    markdown: str
    solution: int | None = None
    solved_at: int = 0  # the line of the solution's cell where `solution(` is called


@dataclass
class Report:
    """What is wrong: with single exercises, and with the notebook as a whole (under None)."""

    tasks: list[Task]
    problems: dict[str | None, list[str]] = field(default_factory=lambda: defaultdict(list))
    registered: dict[str, dict] = field(default_factory=dict)
    executed: object = None  # the notebook as it came out of the run

    @property
    def general(self) -> list[str]:
        return self.problems.get(None, [])

    def of(self, id: str) -> list[str]:
        return self.problems.get(id, [])

    def say(self, id: str | None, problem: str) -> None:
        self.problems[id].append(problem)


def wrong_answers(notebook: Path, folder: Path = ROOT / "interp_helpers" / "lessons") -> dict[str, list[tuple]]:
    """The `WRONG` of the notebook's lesson; {} if there is no such file."""
    path = folder / notebook.stem.lstrip("0123456789_") / "wrong_answers.py"
    return runpy.run_path(str(path))["WRONG"] if path.exists() else {}


def right_answers(notebook: Path, folder: Path = ROOT / "interp_helpers" / "lessons") -> dict[str, list[str]]:
    """The `RIGHT` of the notebook's lesson, which stands beside `WRONG`."""
    path = folder / notebook.stem.lstrip("0123456789_") / "wrong_answers.py"
    return runpy.run_path(str(path)).get("RIGHT", {}) if path.exists() else {}


def survey(nb) -> Report:
    """Find the exercises and their solutions by their tags, without running anything."""
    report = Report(tasks=[])
    markdown, task = "", None
    for i, cell in enumerate(nb.cells):
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            markdown = cell.source
        if cell.cell_type != "code":
            continue
        call = {name: final_call(cell.source, name) for name in ("check", "solution")}
        for name, tag in (("check", "exercise"), ("solution", "solution")):
            if tag in tags and call[name] is None:
                report.say(None, f'cell {i} is tagged {tag!r} and doesn\'t end with {name}("<id>", answer, ...)')
            if tag not in tags and call[name] is not None:
                report.say(None, f"cell {i} calls {name}({id_of(call[name])!r}) and isn't tagged {tag!r}")
        if "solution" in tags and call["solution"] is not None:
            _pair(report, task, i, cell, call["solution"])
        task = None
        if "exercise" in tags and call["check"] is not None:
            source = "\n".join(cell.source.splitlines()[call["check"].lineno - 1 :])
            task = Task(id_of(call["check"]), i, call["check"], source, markdown)
            if task.id in [t.id for t in report.tasks]:
                report.say(task.id, "stands in the notebook twice")
            report.tasks.append(task)
    for found in report.tasks:
        if found.solution is None:
            report.say(found.id, "has no solution cell right after it")
    return report


def _pair(report: Report, task: Task | None, i: int, cell, call: ast.Call) -> None:
    """Join a solution cell to the exercise right before it."""
    if task is None or task.id != id_of(call):
        report.say(id_of(call), f"has its solution in cell {i}, which doesn't follow the exercise")
        return
    task.solution, task.solved_at = i, call.lineno
    if not cell.metadata.get("jupyter", {}).get("source_hidden"):
        report.say(task.id, "has a solution that isn't folded (metadata jupyter.source_hidden)")
    given, handed = ([ast.unparse(a) for a in c.args[1:] + c.keywords] for c in (call, task.call))
    if given[1:] != handed[1:]:  # the answer itself may have another name, so that the learner's stays
        report.say(task.id, f"hands over {', '.join(handed)} and its solution {', '.join(given)}")


def final_call(source: str, name: str) -> ast.Call | None:
    """The call `name("<id>", ...)` that ends a cell, if one does."""
    try:
        last = ast.parse(source).body[-1:]
    except SyntaxError:  # a magic command, say: then it is no exercise
        return None
    for statement in last:
        call = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == name and id_of(call):
            return call
    return None


def id_of(call: ast.Call) -> str | None:
    first = call.args[0] if call.args else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None


def derive(nb, tasks: list[Task], wrong: dict[str, list[tuple]], right: dict[str, list[str]]):
    """The notebook with a cell after each exercise that keeps its names; at the end a probe cell for every wrong and right answer, one for
    each exercise that attacks the model, one that compares the models, and one that lists the registry (`exercise_probe` is what they call)."""
    derived = copy.deepcopy(nb)
    for index, cell in enumerate(derived.cells):
        cell.metadata["glassbox_cell"] = index

    def probe(name: str, call: str):
        return nbformat.v4.new_code_cell(f'__import__("exercise_probe").{call}', metadata={PROBE: name})

    for task in sorted(tasks, key=lambda t: -t.cell):
        derived.cells.insert(task.cell + 1, probe(f"{task.id}#keep", f"keep({task.id!r})"))
    for task in tasks:
        for n, (code, *_) in enumerate(wrong.get(task.id, [])):
            whole = f"{code}\n\n{task.call_source}"
            derived.cells.append(probe(f"{task.id}#{n}", f"attempt({task.id!r}, {whole!r})"))
        for n, code in enumerate(right.get(task.id, [])):
            whole = f"{code}\n\n{task.call_source}"
            derived.cells.append(probe(f"{task.id}#right{n}", f"attempt({task.id!r}, {whole!r})"))
        if task.solution is not None:
            lines = nb.cells[task.solution].source.splitlines()
            body, call = "\n".join(lines[: task.solved_at - 1]), "\n".join(lines[task.solved_at - 1 :])
            call = call.replace("solution(", "check(", 1)
            derived.cells.append(probe(f"{task.id}#attack", f"attack({task.id!r}, {body!r}, {call!r})"))
        derived.cells.append(probe(f"{task.id}#models", "untouched()"))
    derived.cells.append(nbformat.v4.new_code_cell(DUMP, metadata={PROBE: "registry"}))
    return derived


def examine(
    path: Path,
    wrong: dict[str, list[tuple]],
    environment: dict[str, str] | None = None,
    right: dict[str, list[str]] | None = None,
) -> Report:
    """Run the derived notebook once, in its own folder, and report everything that is wrong with its exercises."""
    nb = nbformat.read(path, as_version=4)
    report = survey(nb)
    right = right or {}
    derived = derive(nb, report.tasks, wrong, right)
    python_path = os.pathsep.join(p for p in (str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH")) if p)
    client = NotebookClient(
        derived,
        timeout=600,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute(env={**os.environ, "PYTHONPATH": python_path, **(environment or {})})
    report.executed = derived
    probes = {cell.metadata[PROBE]: cell for cell in derived.cells if PROBE in cell.metadata}
    cells = {cell.metadata.get("glassbox_cell"): cell for cell in derived.cells}
    _read_registry(report, probes["registry"])
    own = {i for task in report.tasks for i in (task.cell, task.solution)}
    for i, cell in cells.items():
        error = error_in(cell)
        if i is not None and i not in own and error and "raises-exception" not in cell.metadata.get("tags", []):
            report.say(None, f"cell {i} raises {error}")
    for task in report.tasks:
        _judge_card(report, task)
        _judge_untouched(report, task, cells[task.cell])
        if error := error_in(probes[f"{task.id}#keep"]):
            report.say(task.id, f"has names that can't be copied: {error}")
        else:
            _judge_wrong(report, task, wrong.get(task.id, []), probes)
            _judge_right(report, task, right.get(task.id, []), probes)
        if error := error_in(probes[f"{task.id}#models"]):
            report.say(task.id, f"has a wrong answer that leaves a model changed: {error}")
        if task.solution is not None:
            error, said = error_in(cells[task.solution]), verdict_in(cells[task.solution])
            if error or said.get("solution") != task.id:
                report.say(task.id, f"has a solution that doesn't pass: {error or 'its cell shows no result'}")
            elif error := error_in(probes[f"{task.id}#attack"]):
                report.say(task.id, f"is passed by an answer that leaves something on the model: {error}")
    for id in (wrong.keys() | right.keys()) - {t.id for t in report.tasks}:
        report.say(id, "has answers and isn't in the notebook")
    return report


def _read_registry(report: Report, cell) -> None:
    if error := error_in(cell):
        report.say(None, f"the registry can't be read: {error}")
        return
    dump = json.loads("".join(o.text for o in cell.outputs if o.get("name") == "stdout").splitlines()[-1])
    report.registered = dump["exercises"]
    for name, error in dump["broken"].items():
        report.say(None, f"{name} can't be imported: {error}")
    here = {task.id for task in report.tasks}
    prefixes = {id.split(".")[0] for id in here}
    for id in report.registered.keys() - here:
        if id.split(".")[0] in prefixes:
            report.say(id, "is registered and isn't in the notebook")
    numbers = [report.registered[t.id]["number"] for t in report.tasks if t.id in report.registered]
    if numbers != sorted(set(numbers)):
        report.say(None, f"the exercises' numbers don't ascend: {numbers}")


def _judge_card(report: Report, task: Task) -> None:
    """The text above the exercise must name the title, difficulty and minutes that the registry has."""
    if task.id not in report.registered:
        report.say(task.id, "is in the notebook and isn't registered")
        return
    lines = [line.strip() for line in task.markdown.splitlines()]
    entry = report.registered[task.id]
    if f"### {entry['heading']}" not in lines:
        report.say(task.id, f"needs the line '### {entry['heading']}' in the markdown cell before it")
    if not any(line == entry["effort"] or line.startswith(entry["effort"] + " ·") for line in lines):
        report.say(task.id, f"needs the line '{entry['effort']}' in the markdown cell before it")


def _judge_untouched(report: Report, task: Task, cell) -> None:
    error, said = error_in(cell), verdict_in(cell)
    if error:
        report.say(task.id, f"raises when untouched: {error}")
    elif said.get("status") != "not attempted":
        report.say(task.id, f"says {said.get('status')!r} when untouched, instead of 'not attempted'")


def _judge_wrong(report: Report, task: Task, wrong: list[tuple], probes: dict) -> None:
    if len(wrong) < AT_LEAST:
        report.say(task.id, f"has {len(wrong)} wrong answers, and needs {AT_LEAST}")
    seen: dict[str, str] = {}
    for n, (code, fragment, *same_because) in enumerate(wrong):
        cell = probes[f"{task.id}#{n}"]
        error, said = error_in(cell), verdict_in(cell)
        status, message = said.get("status"), said.get("message", "")
        if error:
            report.say(task.id, f"the wrong answer {code!r} raises {error}")
        elif status == "correct":
            report.say(task.id, f"accepts the wrong answer {code!r}")
        elif status != "not yet":
            report.say(task.id, f"says {status!r} to the wrong answer {code!r}, instead of 'not yet'")
        elif not fragment.strip() or fragment not in message:
            report.say(task.id, f"answers {code!r} with {message!r}, which doesn't contain {fragment!r}")
        elif fragment in seen and not same_because:
            report.say(task.id, f"tells {code!r} the same as {seen[fragment]!r}: {fragment!r}")
        seen.setdefault(fragment, code)


def _judge_right(report: Report, task: Task, right: list[str], probes: dict) -> None:
    if len(right) < STYLES:
        report.say(task.id, f"has {len(right)} right answers in another style, and needs {STYLES}")
    for n, code in enumerate(right):
        cell = probes[f"{task.id}#right{n}"]
        error, said = error_in(cell), verdict_in(cell)
        if error or said.get("status") != "correct":
            report.say(task.id, f"refuses the right answer {code!r}: {error or said.get('message')}")


def verdict_in(cell) -> dict:
    """What `check` or `solution` left in the metadata of the cell's output."""
    return next((o.metadata["glassbox"] for o in cell.outputs if "glassbox" in o.get("metadata", {})), {})


def error_in(cell) -> str | None:
    if cell.cell_type != "code":
        return None
    return next((f"{o.ename}: {o.evalue}" for o in cell.outputs if o.output_type == "error"), None)
