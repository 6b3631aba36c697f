#!/usr/bin/env python
"""Show how far the sweeps of a runs folder are: done, running, failed, waiting, time left."""

import argparse
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lowbit.benchmark.monitoring.job_messages import describe_result
from lowbit.benchmark.monitoring.status import STATES, Reader, SuiteStatus, as_json
from lowbit.benchmark.planning.plan_file import PlannedSuite, planned_suites
from lowbit.benchmark.recipes.errors import RecipeError
from lowbit.benchmark.recipes.yaml_files import load_yaml
from lowbit.common.suggest import did_you_mean
from lowbit.common.text import counted, duration

DONE, USAGE = 0, 1
_PAUSE = 5.0  # s between looks of --watch
_LAST = 5  # results shown
_SHOWN = 8  # jobs shown of a state
EXAMPLES = """\
examples:
  # the sweeps of a folder, from another terminal or another machine
  python tools/run_all.py status runs

  # one suite among several in the folder, again and again
  python tools/run_all.py status configs/suites/demo.yaml --runs-dir runs/demo --watch

  # for a script
  python tools/run_all.py status runs --json
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="run_all.py status",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", metavar="DIR|SUITE.yaml", type=Path, help="runs folder, or a suite")
    parser.add_argument(
        "--runs-dir", type=Path, metavar="DIR", help="where the suite's runs are (default: runs)"
    )
    parser.add_argument("--json", action="store_true", help="print every job as JSON")
    parser.add_argument(
        "--watch", action="store_true", help=f"again every {_PAUSE:.0f} s, until Ctrl-C"
    )
    args = parser.parse_args(arguments)
    try:
        runs_dir, suites = _suites(args.what, args.runs_dir)
    except RecipeError as error:
        print(error, file=sys.stderr)
        return USAGE
    reader = Reader(runs_dir)
    try:
        while True:
            text = _text([reader.read(suite) for suite in suites], as_data=args.json)
            if args.watch and sys.stdout.isatty():
                print("\x1b[H\x1b[2J", end="")  # the top of a screen wiped clean
            print(text, flush=True)
            if not args.watch:
                return DONE
            time.sleep(_PAUSE)
    except KeyboardInterrupt:
        return DONE


def _suites(what: Path, runs_dir: Path | None) -> tuple[Path, list[PlannedSuite]]:
    """Return the folder, and the suites planned in it that are asked for."""
    if what.is_dir():
        suites = [suite for suite in planned_suites(what) if suite.jobs]
        if not suites:
            raise RecipeError(
                f"No sweep was started in {what}: it has no suite-*.json. Name the folder that "
                "run_all.py was given as --runs-dir."
            )
        return what, suites
    name = load_yaml(what).get("name")
    runs_dir = runs_dir or Path("runs")
    found = {suite.name: suite for suite in planned_suites(runs_dir)} if runs_dir.is_dir() else {}
    if name not in found:
        raise RecipeError(
            f"The suite {name} was not started in {runs_dir}.{did_you_mean(name, found)} Started there: "
            f"{', '.join(found) or 'none'}. Name its folder: --runs-dir DIR."
        )
    return runs_dir, [found[name]]


def _text(statuses: list[SuiteStatus], *, as_data: bool) -> str:
    if as_data:
        return json.dumps([as_json(status) for status in statuses], indent=1)
    return "\n\n".join(_describe(status) for status in statuses)


def _describe(status: SuiteStatus) -> str:
    total = len(status.jobs)
    counts = ", ".join(f"{len(status.of(s)):,} {s}" for s in STATES if status.of(s))
    lines = [f"{status.name}: {counted(total, 'job')}: {counts}"]
    if (left := status.seconds_left) is not None:
        lines.append(f"About {duration(left)} left at the pace so far.")
    if running := status.of("running"):
        lines.append("Running:")
        for job in running[:_SHOWN]:
            since = "" if job.minutes is None else f", for {duration(60 * job.minutes)}"
            lines.append(f"  {job.job.id}  {job.job.title} on {job.host}{since}")
        lines += _more(len(running))
    by_reason = defaultdict(list)
    for state in ("failed", "skipped"):
        for job in status.of(state):
            by_reason[state, (job.result.reason or "").partition("\n")[0]].append(job)
    for (state, reason), alike in by_reason.items():
        lines.append(f"{state.capitalize()}: {reason}")
        lines += [f"  {job.job.id}  {job.job.title}" for job in alike[:_SHOWN]]
        lines += _more(len(alike))
    if last := [job for job in status.last if job.state == "completed"][:_LAST]:
        lines.append("Last results:")
        lines += [f"  {job.job.id}  {describe_result(job.job.title, job.result)}" for job in last]
    return "\n".join(lines)


def _more(count: int) -> list[str]:
    return [f"  ... and {count - _SHOWN} more"] if count > _SHOWN else []


if __name__ == "__main__":
    sys.exit(main())
