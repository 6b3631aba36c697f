#!/usr/bin/env python
"""Run a suite: pretrain, score on classification and detection at every bit-width, make the board.

Killed at any instant, the same command goes on where it stopped. Finished jobs are not run again.
"""

import argparse
import contextlib
import gc
import logging
import math
import os
import runpy
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lowbit.benchmark.executors import EXECUTORS, StoppedError, get_executor, local
from lowbit.benchmark.monitoring import job_messages
from lowbit.benchmark.monitoring.board_refresh import BoardRefresher
from lowbit.benchmark.monitoring.progress_bar import progress
from lowbit.benchmark.planning.job import Job
from lowbit.benchmark.planning.plan import Plan, plan
from lowbit.benchmark.planning.plan_file import remember
from lowbit.benchmark.recipes.errors import RecipeError
from lowbit.benchmark.recipes.yaml_files import STAGES
from lowbit.benchmark.results.result_file import Result
from lowbit.benchmark.scheduling.dry_run import preview
from lowbit.benchmark.scheduling.dry_run_report import describe_choice, describe_plan
from lowbit.benchmark.scheduling.estimate import Estimator, estimator
from lowbit.benchmark.scheduling.schedule import Schedule
from lowbit.benchmark.scheduling.time_budget import choose
from lowbit.common.suggest import did_you_mean

ALL_DONE, USAGE, SOME_FAILED = 0, 1, 2
EXAMPLES = """\
examples:
  # will this checkpoint go through? everything once, in small, in under two minutes
  python tools/run_all.py check backbone.pth

  # what would run, without running it
  python tools/run_all.py configs/suites/demo.yaml --dry-run

  # the jobs that tell most for half an hour, and which are left out
  python tools/run_all.py configs/suites/demo.yaml --budget-hours 0.5 --dry-run

  # run it, two jobs at once
  python tools/run_all.py configs/suites/demo.yaml --workers 2

  # what is done, running, failed and waiting: from another terminal, while it runs
  python tools/run_all.py status runs --watch

  # put your own checkpoint on the board, beside the suite's
  python tools/run_all.py configs/suites/demo.yaml checkpoint=backbone.pth name=my-ssl

  # seven data sets, linear and fine-tuned, five bit-widths, three seeds; those not there are skipped
  python tools/run_all.py configs/suites/transfer.yaml checkpoint=backbone.pth name=my-ssl

  # on a Ray cluster that this machine is part of
  python tools/run_all.py configs/suites/demo.yaml --executor ray --address auto

  # other seeds and bit-widths; keys of the suite are dotted
  python tools/run_all.py configs/suites/demo.yaml seeds [0,1,2] precisions "[FP, 4w4a]"

exit code: 0 all done, 1 the command or a file is wrong, 2 some jobs failed (listed),
130 and 143 stopped by Ctrl-C and SIGTERM."""

_logger = logging.getLogger("run_all")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        self.print_usage(sys.stderr)
        self.exit(
            USAGE,
            f"{self.prog}: {message}; nothing was run. See `python tools/run_all.py --help`.\n",
        )


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; overrides may stand before, between and after options."""
    parser = _Parser(
        prog="run_all.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suite", metavar="SUITE.yaml", type=Path, help="what to run")
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
        default=STAGES,
        metavar=",".join(STAGES),
        help="stages to run; the others' results are used where they are finished",
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
        help="which jobs that have a result run again (default: failed, and those they stopped)",
    )
    what.add_argument(
        "--budget-hours",
        type=_hours,
        metavar="H",
        help="run what fits in H hours with --workers at once, the cheapest information first",
    )
    what.add_argument(
        "--dry-run",
        action="store_true",
        help="say what would run, for how long and on how much disk, and write nothing",
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
        help="of the Ray cluster; auto: the one this machine is part of; default: a Ray of its own",
    )
    how.add_argument(
        "--workers",
        type=_count,
        metavar="N",
        help="jobs at once (default: one a GPU, or one a core without GPUs)",
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
        parser.error("--address is of a Ray cluster: add --executor ray")
    return args


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] in (["check"], ["status"]):
        verb = Path(__file__).with_name(f"{words[0]}.py")
        return runpy.run_path(str(verb))["main"](words[1:])
    args = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        with _no_collection():
            whole = plan(args.suite, args.overrides)
        part = whole.select(only=args.only, shard=args.shard)
        learned = estimator(args.runs_dir, whole.jobs)
        workers = args.workers or local.usual_workers()
        if args.budget_hours is not None:
            part, said = _within_budget(part, learned, args, workers)
            print(said)
        schedule = Schedule(part, args.runs_dir, overwrite=args.overwrite)
        if args.dry_run:
            rows = preview(schedule, learned, overwrite=args.overwrite)
            facts = {"workers": workers, "runs_dir": args.runs_dir, "device": learned.device}
            print(describe_plan(whole.name, rows, verbose=args.verbose, **facts))
            return ALL_DONE
        remember(args.runs_dir, whole)
        _run(schedule, learned, args, workers)
        if failures := job_messages.describe_failures(schedule):
            print(failures)
        print(f"Leaderboard: {_build_board(args.runs_dir)}")
    except RecipeError as error:
        print(error, file=sys.stderr)
        return USAGE
    except StoppedError as stop:
        _logger.warning(
            "Stopped by %s with %d of %d jobs finished. Run the same command to go on.",
            *(signal.Signals(stop.signum).name, len(schedule.done), len(schedule.plan.jobs)),
        )
        return 128 + stop.signum
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # as under `| head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        print(
            f"{error}; the run was stopped. Results that were written are kept: make room or give "
            "access, and run the same command to go on.",
            file=sys.stderr,
        )
        return SOME_FAILED
    return SOME_FAILED if failures else ALL_DONE


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Leave garbage alone while a plan is made: imports make a million objects that stay, and the
    collector would look at them all again and again, for a second."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _run(schedule: Schedule, learned: Estimator, args: argparse.Namespace, workers: int) -> None:
    jobs = schedule.plan.jobs
    stages = Counter(job.stage for job in jobs.values())
    _logger.info(
        "%s: %d jobs (%s), results in %s",
        *(schedule.plan.name, len(jobs), job_messages.listed(stages), args.runs_dir),
    )
    refresh = BoardRefresher(args.runs_dir)
    with progress(schedule, learned, workers=workers) as shown:

        def report(job: Job, result: Result) -> None:
            shown.report(job, result)
            refresh()

        where = {"address": args.address} if args.executor == "ray" else {}
        try:
            get_executor(args.executor).run(schedule, workers=args.workers, report=report, **where)
        finally:
            refresh.end()
    if schedule.kept:
        _logger.info("%d jobs had their results already.", len(schedule.kept))


def _within_budget(
    part: Plan, learned: Estimator, args: argparse.Namespace, workers: int
) -> tuple[Plan, str]:
    """Return the part of the plan that fits the budget, and what there is to say of the rest."""
    rows = preview(
        Schedule(part, args.runs_dir, overwrite=args.overwrite), learned, overwrite=args.overwrite
    )
    new = {row.job.id: row.estimate for row in rows if row.state == "new"}
    free = part.jobs.keys() - new.keys()
    seconds = 3600 * args.budget_hours
    choice = choose(part, new, seconds=seconds, workers=workers, finished=free)
    return choice.plan, describe_choice(choice, part, hours=args.budget_hours, workers=workers)


def _build_board(runs_dir: Path) -> Path:
    # here: only a run that ends needs pandas and jinja2
    from lowbit.benchmark.leaderboard.build import build

    return build(runs_dir)


def _stages(text: str) -> tuple[str, ...]:
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
        raise argparse.ArgumentTypeError(f"{text!r} is no shard; write I/N with I in 0..N-1: 0/4")
    return int(index), int(count)


def _folder(text: str) -> Path:
    path = Path(text).expanduser()
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a file; name a folder, new or not")
    return path


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of hours; write 0.5 or 12")
    return hours


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of jobs; write 1 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
