"""The command `lowbit-bench`: one module per subcommand, imported on use, and shared helpers.

Each has `main(arguments=None, *, prog=None)`, which returns the exit code. Nothing heavy is imported
before the arguments are parsed, so that --help is fast.
"""

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lowbit.common.input_files.environment import check_environment
from lowbit.common.suggest import did_you_mean
from lowbit.common.text import printable_lines

USAGE_ERROR = 2
OUTPUT_UNREAD = 141
COMMANDS = {
    "run": "run a suite: pretrain, score, build the leaderboard",
    "status": "show the progress of the suites in a runs folder",
    "check": "run every step on a checkpoint with few images",
    "pretrain": "pretrain a backbone by a recipe",
    "transfer": "score a backbone on classification",
    "detect": "train or evaluate a detector",
    "claims": "try the papers' claims on results",
    "leaderboard": "build, export or compare results; bundle yours, add others'",
    "checkpoint": "inspect or convert a checkpoint file",
    "export": "write a network as an ONNX model of integers",
    "datasets": "list, prepare or verify image sets",
    "analyze": "draw the papers' other figures",
    "bench": "measure the overhead of the suite itself",
}
SINGLE_JOBS = ("pretrain", "transfer", "detect")  # in a folder of their own
_HELP = """usage: lowbit-bench COMMAND ...

Any backbone checkpoint, every bit-width, every task, one board.

commands:
{commands}

`lowbit-bench COMMAND --help` shows the arguments of a command, with examples."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if name in COMMANDS:
        try:
            check_environment()
        except ValueError as error:
            print(f"lowbit-bench: {error}", file=sys.stderr)
            return USAGE_ERROR
        folder = "single_jobs." if name in SINGLE_JOBS else ""
        module = importlib.import_module(f"lowbit.benchmark.cli.{folder}{name}")
        return _until_unread(lambda: module.main(rest, prog=f"lowbit-bench {name}"))
    if name in ("-h", "--help"):
        print(_HELP.format(commands="\n".join(f"  {k:<13}{v}" for k, v in COMMANDS.items())))
        return 0
    said = f"there is no command {name!r}" if name else "no command was given"
    print(
        f"lowbit-bench: {said}; nothing was run.{did_you_mean(name, COMMANDS)} "
        f"Commands: {', '.join(COMMANDS)}. See `lowbit-bench --help`.",
        file=sys.stderr,
    )
    return USAGE_ERROR


def _until_unread(run: Callable[[], int]) -> int:
    """Return the exit code of a command; that of SIGPIPE once nobody reads its output, as of `| head`."""
    try:
        code = run()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Python flushes what is left at its end, and would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OUTPUT_UNREAD


def make_parser(
    description: str,
    examples: str,
    prog: str | None,
    kind: type[argparse.ArgumentParser] = argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    """Return a parser whose help ends with examples; without `prog`, the script's name is used."""
    return kind(
        prog=prog,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def job_parser(
    description: str, examples: str, prog: str | None, *, what: str = "recipe"
) -> argparse.ArgumentParser:
    """Return a parser for the arguments of every job: a recipe, a folder, overrides."""
    parser = make_parser(description, examples, prog)
    add_recipe(parser, what)
    parser.add_argument(
        "--output-dir", type=Path, help="folder of the run; default: output/<recipe name>"
    )
    parser.add_argument(
        "--resume", action="store_true", help="resume the run in the folder, if any"
    )
    add_threads(parser)
    return parser


def add_recipe(parser: argparse.ArgumentParser, what: str = "recipe") -> None:
    """Add --config-file, and the overrides of its keys at the end of the command line."""
    parser.add_argument(
        "--config-file",
        required=True,
        metavar="FILE",
        help=f"{what}: a YAML file, or the name of one that comes with lowbit-bench",
    )
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="override keys of the file"
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch; default: 1")


class _PrintableFormatter(logging.Formatter):
    """Formats records so that the names and messages that they quote cannot change a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


def log_to_stderr(
    level: int = logging.INFO, form: str = "%(asctime)s %(name)s: %(message)s"
) -> None:
    """Log to the standard error, as long as nothing else was set up."""
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter(form, datefmt="%H:%M:%S"))
    logging.basicConfig(level=level, handlers=[handler])
