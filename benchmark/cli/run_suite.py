"""Run a suite from its plan to its board, as requested by the command line of `run`."""

import argparse
import contextlib
import gc
import logging
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lowbit.benchmark.executors import StoppedError, get_executor, local
from lowbit.benchmark.monitoring import job_messages
from lowbit.benchmark.monitoring.board_refresh import BoardRefresher
from lowbit.benchmark.monitoring.progress_bar import progress
from lowbit.benchmark.planning.job import Job
from lowbit.benchmark.planning.plan import Plan, plan
from lowbit.benchmark.planning.plan_file import remember
from lowbit.benchmark.recipes.errors import RecipeError
from lowbit.benchmark.recipes.stages import STAGES
from lowbit.benchmark.results.job_lock import warn_of_skew
from lowbit.benchmark.results.result_file import Result
from lowbit.benchmark.scheduling.dry_run import preview
from lowbit.benchmark.scheduling.dry_run_report import describe_choice, describe_plan
from lowbit.benchmark.scheduling.estimate import Estimator, estimator
from lowbit.benchmark.scheduling.schedule import Schedule
from lowbit.benchmark.scheduling.time_budget import choose
from lowbit.common.shipped_configs import find_config
from lowbit.common.text import printable, printable_lines

ALL_DONE, USAGE, SOME_FAILED = 0, 1, 2

_logger = logging.getLogger(__name__)


def run_suite(args: argparse.Namespace) -> int:
    """Plan a suite, run its jobs and build the board, for the arguments of `run.parse_arguments`.

    Returns:
        The exit code.
    """
    try:
        with _no_collection():
            whole = plan(find_config(args.suite, "suites"), args.overrides)
    except (ValueError, FileNotFoundError) as error:
        print(printable_lines(str(error)), file=sys.stderr)
        return USAGE
    try:
        part = whole.select(only=args.only or STAGES, shard=args.shard)
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
        warn_of_skew(args.runs_dir)
        return _run(schedule, learned, args, workers)
    except RecipeError as error:
        print(printable_lines(str(error)), file=sys.stderr)
        return USAGE


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Disable garbage collection while planning: imports make a million permanent objects, and
    scanning them repeatedly takes a second."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _run(schedule: Schedule, learned: Estimator, args: argparse.Namespace, workers: int) -> int:
    jobs = schedule.plan.jobs
    stages = Counter(job.stage for job in jobs.values())
    _logger.info(
        "%s: %d jobs (%s), results in %s",
        printable(schedule.plan.name),
        len(jobs),
        job_messages.listed(stages),
        args.runs_dir,
    )
    try:
        _run_jobs(schedule, learned, args, workers)
    except StoppedError as stop:
        _logger.warning(
            "Stopped by %s with %d of %d jobs finished. Run the same command to continue.",
            signal.Signals(stop.signum).name,
            len(schedule.done),
            len(jobs),
        )
        return 128 + stop.signum
    if schedule.kept:
        _logger.info("%d jobs already had results.", len(schedule.kept))
    if schedule.others:
        _logger.info("%d jobs were run by other runners.", len(schedule.others))
    if failures := job_messages.describe_failures(schedule):
        print(failures)
    print(f"Leaderboard: {_build_board(args.runs_dir)}")
    return SOME_FAILED if failures else ALL_DONE


def _run_jobs(
    schedule: Schedule, learned: Estimator, args: argparse.Namespace, workers: int
) -> None:
    """Run the jobs with the requested executor, updating a progress bar and the board."""

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


def _within_budget(
    part: Plan, learned: Estimator, args: argparse.Namespace, workers: int
) -> tuple[Plan, str]:
    """Return the part of the plan that fits the budget, and a report of the rest."""

    rows = preview(
        Schedule(part, args.runs_dir, overwrite=args.overwrite), learned, overwrite=args.overwrite
    )
    new = {row.job.id: row.estimate for row in rows if row.state == "new"}
    free = part.jobs.keys() - new.keys()
    seconds = 3600 * args.budget_hours
    choice = choose(part, new, seconds=seconds, workers=workers, finished=free)
    return choice.plan, describe_choice(choice, part, hours=args.budget_hours, workers=workers)


def _build_board(runs_dir: Path) -> Path:
    # here: pandas and jinja2 are only needed at the end of a run
    from lowbit.benchmark.leaderboard.build import build

    return build(runs_dir)
