"""Build, print or rescore the leaderboard of a runs folder, compare checkpoints, share results."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowbit.benchmark.cli import log_to_stderr, make_parser
from lowbit.common.text import printable, printable_lines

if TYPE_CHECKING:
    from lowbit.benchmark.results.rescore import Rescored

EXAMPLES = """examples:
  # some results: the demo suite (minutes), which also builds its board
  lowbit-bench run configs/suites/demo.yaml --runs-dir runs/demo

  # rebuild the page, results.csv, results.md and results.tex from the result files
  lowbit-bench leaderboard build runs/demo

  # with other published numbers than the suite's
  lowbit-bench leaderboard build runs/demo --reported "paper=SSQL,table=Table 11,dataset=CIFAR-10"

  # tables for a paper
  lowbit-bench leaderboard export runs/demo --format tex > results.tex

  # is one method better than another, over their pretrainings? or, of single files, one checkpoint?
  # it says which was compared; one line per precision, every difference, and a plot
  lowbit-bench leaderboard compare SSQL SimSiam --runs-dir runs/demo --plot compare.svg

  # is one way to train a detector better than another?
  lowbit-bench leaderboard compare sgdt lsq --by training --runs-dir runs/demo

  # do the numbers follow from the saved predictions and detections? for all jobs, or one by its folder
  lowbit-bench leaderboard rescore runs/demo
  lowbit-bench leaderboard rescore output/digits_linear

  # bundle your results for another board; the entry says who you are (docs/submit.md)
  lowbit-bench leaderboard bundle runs/demo mine.zip --entry entry.yaml

  # others' results beside yours: only check, check and add, remove
  lowbit-bench leaderboard add theirs.zip --runs-dir runs/demo --dry-run
  lowbit-bench leaderboard add theirs.zip --runs-dir runs/demo
  lowbit-bench leaderboard remove their-name --runs-dir runs/demo

exit code: 0 success, 1 a wrong folder, name, selection or number, 2 invalid command line."""


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run one subcommand; return 0, or 1 if a folder, name, selection or number is wrong."""
    args = _parser(prog).parse_args(arguments)
    log_to_stderr(logging.WARNING, "%(name)s: %(message)s")
    try:
        return args.command(args) or 0
    except (ValueError, FileNotFoundError, ImportError) as error:
        print(printable_lines(f"error: {error}"), file=sys.stderr)
        return 1


def _build(args: argparse.Namespace) -> None:
    from lowbit.benchmark.leaderboard.build import build

    print(build(args.runs_dir, reported=_reported(args)))


def _export(args: argparse.Namespace) -> None:
    from lowbit.benchmark.leaderboard.build import export

    sys.stdout.write(export(args.runs_dir, args.format, reported=_reported(args)))


def _compare(args: argparse.Namespace) -> None:
    from lowbit.benchmark.leaderboard.build import board_frame
    from lowbit.benchmark.statistics.comparison import compare
    from lowbit.benchmark.statistics.comparison_text import to_json, to_text

    lines = compare(board_frame(args.runs_dir), args.a, args.b, by=args.by, runs_dir=args.runs_dir)
    if args.plot is not None:
        from lowbit.benchmark.statistics.comparison_plot import plot

        plot(lines, args.a, args.b, args.plot)
    if args.json:
        print(json.dumps(to_json(lines, args.a, args.b, by=args.by), indent=2))
    else:
        print(to_text(lines, printable(args.a), printable(args.b)))


def _rescore(args: argparse.Namespace) -> int:
    from lowbit.benchmark.results.rescore import NOT_SCORED, PREDICTIONS, find_jobs, rescore

    wrong = 0
    for folder, result in find_jobs(args.run):
        found = rescore(result, folder, data_root=args.data_root)
        differing = [line for line in found if line.problem]
        wrong += sum(line.problem not in NOT_SCORED for line in differing)
        kept = "predictions" if PREDICTIONS in result.artifacts else "detections"
        count = f"{len(found) - len(differing)} of {len(found)} numbers follow from the {kept}"
        print(f"{printable(result.job_id)}  {printable(result.checkpoint.name)}: {count}")
        for line in differing:
            print(f"    {_measurement(line)}")
    return 1 if wrong else 0


def _bundle(args: argparse.Namespace) -> None:
    from lowbit.benchmark.submissions import describe, read_entry, write_bundle

    submission = write_bundle(
        args.runs_dir,
        args.out,
        read_entry(args.entry),
        checkpoints=args.checkpoint,
        data_root=args.data_root,
    )
    print("As a receiver with the image sets of this machine will see it:")
    print(*describe(submission), sep="\n")
    print(f"{args.out}: {args.out.stat().st_size / 2**20:.1f} MiB, ready to send")


def _add(args: argparse.Namespace) -> None:
    from lowbit.benchmark.submissions import add, compare, describe, examine, measured_here

    if args.dry_run:
        submission = examine(args.bundle, data_root=args.data_root)
    else:
        submission = add(args.bundle, args.runs_dir, data_root=args.data_root)
    print(*describe(submission), sep="\n")
    for theirs, own in measured_here(submission, args.runs_dir):
        print(compare(theirs, own))
    if args.dry_run:
        print("Nothing was added. Run the command without --dry-run to add it.")
    else:
        print(f"Added. Build the board: lowbit-bench leaderboard build {args.runs_dir}")


def _remove(args: argparse.Namespace) -> None:
    from lowbit.benchmark.submissions import remove

    remove(args.name, args.runs_dir)
    print(f"Removed. Build the board: lowbit-bench leaderboard build {args.runs_dir}")


def _measurement(line: "Rescored") -> str:
    said = line.measurement
    again = "nothing" if line.value is None else f"{line.value:.4f}"
    what = printable(f"{said.metric} at {said.precision} on {said.split}")
    return f"{what}: the result says {said.value:.4f}, scored again {again} ({line.problem})"


def _reported(args: argparse.Namespace) -> list[dict[str, Any]] | None:
    """Return the selections of the command line; None if there are none."""
    chosen: list[dict[str, Any]] = []
    for text in args.reported:
        pairs = [part.partition("=") for part in text.split(",")]
        if not all(column and separator for column, separator, _ in pairs):
            raise ValueError(
                f"--reported {text!r} is not a selection; nothing was written. Write columns with values: "
                '--reported "paper=SSQL,table=Table 11".'
            )
        chosen.append({column.strip(): value.strip() for column, _, value in pairs})
    return chosen or None


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = make_parser(__doc__, EXAMPLES, prog)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    build = verbs.add_parser("build", help="write RUNS_DIR/leaderboard/")
    build.set_defaults(command=_build)
    export = verbs.add_parser("export", help="print the board as CSV, Markdown or LaTeX")
    export.set_defaults(command=_export)
    export.add_argument("--format", choices=("csv", "md", "tex"), default="csv")
    for verb in (build, export):
        verb.add_argument(
            "runs_dir", metavar="RUNS_DIR", type=Path, help="folder of a suite's runs"
        )
        verb.add_argument(
            "--reported",
            action="append",
            default=[],
            metavar="COLUMN=VALUE,...",
            help="show these published numbers instead of the suites' own; repeatable",
        )
    rescore = verbs.add_parser(
        "rescore", help="recompute the numbers from saved predictions and detections"
    )
    rescore.set_defaults(command=_rescore)
    rescore.add_argument(
        "run", metavar="RUN", type=Path, help="a job's folder, or a folder of jobs"
    )
    rescore.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="folder of the image sets: also compare labels, or find annotations that were moved",
    )
    compare = verbs.add_parser("compare", help="paired differences of two methods or checkpoints")
    compare.set_defaults(command=_compare)
    compare.add_argument("a", metavar="A")
    compare.add_argument("b", metavar="B")
    compare.add_argument("--runs-dir", type=Path, required=True, metavar="DIR")
    compare.add_argument(
        "--by",
        choices=("checkpoint", "training"),
        default="checkpoint",
        help="what A and B are (default: checkpoint, or a method of several)",
    )
    compare.add_argument("--json", action="store_true", help="print JSON instead of a table")
    compare.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw the differences with their intervals: .svg, .png, .pdf or .html",
    )
    _add_bundle_verbs(verbs)
    return parser


def _add_bundle_verbs(verbs: argparse._SubParsersAction) -> None:
    """Add bundle, add and remove to the command line."""
    bundle = verbs.add_parser("bundle", help="write results to one file for others to check")
    bundle.set_defaults(command=_bundle)
    bundle.add_argument("runs_dir", metavar="RUNS_DIR", type=Path, help="folder of a suite's runs")
    bundle.add_argument("out", metavar="OUT.zip", type=Path)
    bundle.add_argument(
        "--entry", type=Path, required=True, metavar="FILE", help="YAML file that says who you are"
    )
    bundle.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        metavar="NAME",
        help="only the results of this checkpoint; repeatable",
    )
    add = verbs.add_parser("add", help="check a bundle and show its results on the board")
    add.set_defaults(command=_add)
    add.add_argument("bundle", metavar="BUNDLE", type=Path)
    add.add_argument("--dry-run", action="store_true", help="only check it")
    for verb in (bundle, add):
        verb.add_argument(
            "--data-root",
            type=Path,
            metavar="DIR",
            help="folder of the image sets with the labels (default: $LOWBIT_DATA, else ./datasets)",
        )
    remove = verbs.add_parser("remove", help="remove a submission")
    remove.set_defaults(command=_remove)
    remove.add_argument("name", metavar="NAME", help="of the submission")
    for verb in (add, remove):
        verb.add_argument(
            "--runs-dir", type=Path, required=True, metavar="DIR", help="folder of the board's runs"
        )
