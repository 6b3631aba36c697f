"""Run a suite: pretrain, score on classification and detection at every bit-width, build the board.

After a kill at any time, the same command continues. Finished jobs are not run again.
"""

import argparse
import math
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from lowbit.benchmark.cli import log_to_stderr, make_parser
from lowbit.benchmark.executors import EXECUTORS
from lowbit.common.input_files.file_names import expanded
from lowbit.common.suggest import did_you_mean

USAGE, SOME_FAILED = 1, 2
EXAMPLES = """\
examples:
  # will this checkpoint work? runs every step on few images, in under two minutes
  lowbit-bench check backbone.pth

  # show what would run
  lowbit-bench run configs/suites/demo.yaml --dry-run

  # show the most informative jobs for half an hour, and those left out
  lowbit-bench run configs/suites/demo.yaml --budget-hours 0.5 --dry-run

  # run it, two jobs at a time
  lowbit-bench run configs/suites/demo.yaml --workers 2

  # show its progress from another terminal
  lowbit-bench status runs --watch

  # add your own checkpoint to the board
  lowbit-bench run configs/suites/demo.yaml checkpoint=backbone.pth name=my-ssl

  # seven data sets, linear and fine-tuned, five bit-widths, three seeds; missing sets are skipped
  lowbit-bench run configs/suites/transfer.yaml checkpoint=backbone.pth name=my-ssl

  # on the Ray cluster of this machine
  lowbit-bench run configs/suites/demo.yaml --executor ray --address auto

  # override keys of the suite: other seeds and bit-widths
  lowbit-bench run configs/suites/demo.yaml seeds [0,1,2] precisions "[FP, 4w4a]"

exit code: 0 all jobs done, 1 invalid command line or file, 2 some jobs failed (listed),
130 stopped by Ctrl-C, 143 by SIGTERM."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}; nothing was run. See `{self.prog} --help`.\n")


def parse_arguments(
    arguments: Sequence[str] | None = None, prog: str | None = None
) -> argparse.Namespace:
    """Parse the command line; overrides may come before, between and after options."""
    parser = make_parser(__doc__, EXAMPLES, prog, _Parser)
    parser.add_argument(
        "suite", metavar="SUITE", type=Path, help="YAML file, or a suite's name such as demo"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY VALUE",
        help="keys of the suite, or checkpoint=FILE name=NAME to add a checkpoint",
    )
    what = parser.add_argument_group("what to run")
    what.add_argument(
        "--only",
        type=_stages,
        metavar="STAGE,...",
        help="of pretrain,transfer,detection,deploy, those to run; the others' results are used where they "
        "are finished",
    )
    what.add_argument(
        "--shard",
        type=_shard,
        default=(0, 1),
        metavar="I/N",
        help="run the I-th of N parts, I from 0; runners of all parts may share --runs-dir",
    )
    what.add_argument(
        "--overwrite",
        choices=("never", "failed", "always"),
        default="failed",
        help="which finished jobs to run again (default: failed ones, and jobs that need them)",
    )
    what.add_argument(
        "--budget-hours",
        type=_hours,
        metavar="H",
        help="run what fits in H hours with --workers jobs at a time, the cheapest information first",
    )
    what.add_argument(
        "--dry-run",
        action="store_true",
        help="show what would run, the time and the disk space; write nothing",
    )
    what.add_argument("--verbose", action="store_true", help="--dry-run: list every job")
    how = parser.add_argument_group("how to run it")
    how.add_argument(
        "--executor",
        choices=EXECUTORS,
        default="local",
        help="where jobs run: in processes of this machine, or on a Ray cluster",
    )
    how.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="address of the Ray cluster; auto: this machine's cluster; default: start a local Ray",
    )
    how.add_argument(
        "--workers",
        type=_count,
        metavar="N",
        help="jobs at a time (default: one per GPU, or one per core without GPUs)",
    )
    how.add_argument(
        "--runs-dir",
        type=_folder,
        default=Path("runs"),
        metavar="DIR",
        help="where results and the leaderboard go (default: %(default)s)",
    )
    args = parser.parse_intermixed_args(arguments)
    if args.address and args.executor != "ray":
        parser.error("--address needs a Ray cluster: add --executor ray")
    return args


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run the command line and return its exit code."""
    args = parse_arguments(arguments, prog)
    log_to_stderr(form="%(asctime)s %(message)s")
    from lowbit.benchmark.cli.run_suite import run_suite  # here, so that --help is fast

    try:
        return run_suite(args)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # for example `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        print(_describe(error, args.runs_dir), file=sys.stderr)
        return SOME_FAILED


def _describe(error: OSError, runs_dir: Path) -> str:
    from lowbit.benchmark.executors.disk_space import (
        NoSpaceError,
        describe_fullest,
        is_no_space,
    )

    if not is_no_space(error):
        return (
            f"{error}; the run was stopped. Written results are kept: put this right, and run the "
            "same command to continue."
        )
    disk = error.strerror if isinstance(error, NoSpaceError) else describe_fullest(runs_dir)
    return (
        f"{disk}; the run was stopped. Nothing is lost: free some space and run the same command, "
        "which continues with the jobs that have no result, from their last states."
    )


def _stages(text: str) -> tuple[str, ...]:
    from lowbit.benchmark.recipes.stages import STAGES

    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in STAGES:
            raise argparse.ArgumentTypeError(
                f"there is no stage {name!r}.{did_you_mean(name, STAGES)} "
                f"Stages: {', '.join(STAGES)}"
            )
    return tuple(names)


def _shard(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a shard; write I/N with I in 0..N-1: 0/4"
        )
    return int(index), int(count)


def _folder(text: str) -> Path:
    try:
        path = expanded(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a file; name a new or existing folder")
    return path


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of hours; write 0.5 or 12")
    return hours


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of jobs; write 1 or more")
    return int(text)
