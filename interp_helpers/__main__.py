"""The command line: `python -m interp_helpers COMMAND`.

A command is a function from the parsed arguments to an exit code, and an entry in `parser`. It imports what it needs
when it runs, and whatever goes wrong reaches the user as one sentence.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path


def fetch_model(args: argparse.Namespace) -> int:
    """Prepare the offline model, fetched or from the copy in `--from`, and put a copy of it into `--to`; the exit code."""
    from .models import OFFLINE, offline

    chosen = os.environ.get("INTERP_MODEL", "")
    if chosen != OFFLINE and os.path.isdir(chosen) and not (args.to or args.copy):
        print(f"INTERP_MODEL names a folder, {chosen}: nothing is fetched.")
        return 0
    there_already = offline.is_prepared(args.to)
    if args.copy:
        offline.take_copy(args.copy)
    folder = offline.offline_folder(args.to)
    print(f"{offline.NAME} {'was already' if there_already else 'is now'} in {folder}.")
    if args.to:
        print(f"Hand this folder round. On another machine: python -m interp_helpers fetch-model --from {folder}")
    return 0


def doctor(args: argparse.Namespace) -> int:
    """Report on this machine; exit code 0 if it is ready, else 1."""
    from .models import doctor

    return doctor.run()


def vectors(args: argparse.Namespace) -> int:
    """Build the personas' steering vectors, try them, or measure them; exit code 1 where a try failed."""
    from .models import load_model
    from .steering import personas, report, vector_path

    if args.layer is not None and args.action != "build":
        raise ValueError(f"--layer is for `vectors build`; `vectors {args.action}` takes each vector as it was built.")
    ids = args.persona or list(personas())
    lm = load_model(args.model)
    if args.action == "build":
        report.build(lm, ids, args.layer, args.to)
    elif args.action == "test":
        return 0 if report.smoke(lm, ids, args.to) else 1
    else:
        for persona in ids:
            vector_path(lm, persona)  # an unknown one is refused before the work
        found = json.dumps(report.report(lm, ids), indent=1, ensure_ascii=False) + "\n"
        if args.to:
            Path(args.to).write_text(found, encoding="utf-8")
    return 0


def demo(args: argparse.Namespace) -> int:
    """Serve the live page until it is stopped."""
    from . import demo

    return demo.run()


def parser() -> argparse.ArgumentParser:
    """The commands: a function for each, and an entry here."""
    top = argparse.ArgumentParser(prog="python -m interp_helpers", description="Glass Box's command line.")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    command = commands.add_parser("fetch-model", help="prepare the offline model ahead of time")
    command.add_argument("--from", dest="copy", metavar="DIR", help="take it from this copy, instead of the network")
    command.add_argument("--to", metavar="DIR", help="also put a copy into this folder, to hand round on a USB stick")
    command.set_defaults(run=fetch_model)

    command = commands.add_parser("doctor", help="is this machine ready, and if not, what is to be done?")
    command.set_defaults(run=doctor)
    command = commands.add_parser("vectors", help="build, try or measure the personas' steering vectors")
    command.add_argument(
        "action",
        choices=["build", "test", "report"],
        help="build and save them; test that they steer (a quick smoke test); report: measure them beside their controls",
    )
    command.add_argument("--model", help="a name or folder (default: INTERP_MODEL, else gpt2)")
    command.add_argument("--persona", action="append", metavar="ID", help="only this one (may be given several times)")
    layer = "build: at this block (default: as measured on this model, else as a sweep finds)"
    command.add_argument("--layer", type=int, metavar="N", help=layer)
    command.add_argument(
        "--to", metavar="PATH", help="build, test: the folder of vectors; report: a JSON file to write"
    )
    command.set_defaults(run=vectors)

    command = commands.add_parser(
        "demo",
        help="the live page, on this machine",
        description="Serve the live page. The environment variables HOST (127.0.0.1), PORT (5050) and STRENGTH "
        "(each persona's own) have their defaults in brackets; INTERP_MODEL chooses the model.",
    )
    command.set_defaults(run=demo)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; an error is one sentence and exit code 1."""
    args = parser().parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except Exception as error:
        # The package's own errors are sentences; of any other, the kind says more than the text.
        known = isinstance(error, OSError | ValueError | RuntimeError) and str(error)
        print(f"Error: {error if known else repr(error)}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
