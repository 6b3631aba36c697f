"""Show the progress of the sweeps in a runs folder: done, running, failed, waiting, time left."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lowbit.benchmark.cli import make_parser
from lowbit.common.text import printable_lines

if TYPE_CHECKING:
    from lowbit.benchmark.planning.plan_file import PlannedSuite

DONE, USAGE = 0, 1
_PAUSE = 5.0  # s between updates of --watch
EXAMPLES = """\
examples:
  # the sweeps of a folder, from another terminal or another machine
  lowbit-bench status runs

  # one of several suites in the folder, updated continuously
  lowbit-bench status configs/suites/demo.yaml --runs-dir runs/demo --watch

  # for a script
  lowbit-bench status runs --json

exit code: 0 success, 1 no such sweep was started, 2 invalid command line."""


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = make_parser(__doc__, EXAMPLES, prog)
    parser.add_argument("what", metavar="DIR|SUITE", type=Path, help="runs folder, or a suite")
    parser.add_argument(
        "--runs-dir", type=Path, metavar="DIR", help="where the suite's runs are (default: runs)"
    )
    parser.add_argument("--json", action="store_true", help="print every job as JSON")
    parser.add_argument(
        "--watch", action="store_true", help=f"update every {_PAUSE:.0f} s, until Ctrl-C"
    )
    args = parser.parse_args(arguments)
    from lowbit.benchmark.monitoring.status import Reader, as_json
    from lowbit.benchmark.monitoring.status_text import describe_status

    try:
        runs_dir, suites = _suites(args.what, args.runs_dir)
    except (ValueError, FileNotFoundError) as error:
        print(printable_lines(str(error)), file=sys.stderr)
        return USAGE
    reader = Reader(runs_dir)
    try:
        while True:
            found = [reader.read(suite) for suite in suites]
            if args.watch and sys.stdout.isatty():
                print("\x1b[H\x1b[2J", end="")  # clear the screen
            if args.json:
                print(json.dumps([as_json(status) for status in found], indent=1), flush=True)
            else:
                print(*map(describe_status, found), sep="\n\n", flush=True)
            if not args.watch:
                return DONE
            time.sleep(_PAUSE)
    except KeyboardInterrupt:
        return DONE


def _suites(what: Path, runs_dir: Path | None) -> tuple[Path, list["PlannedSuite"]]:
    """Return the folder, and the requested suites planned in it."""
    from lowbit.benchmark.planning.plan_file import planned_suites
    from lowbit.benchmark.recipes.yaml_files import load_yaml
    from lowbit.common.shipped_configs import find_config
    from lowbit.common.suggest import did_you_mean

    if what.is_dir():
        suites = [suite for suite in planned_suites(what) if suite.jobs]
        if not suites:
            raise ValueError(
                f"No sweep was started in {what}: it has no suite-*.json. Name the folder that "
                "the run was given as --runs-dir."
            )
        return what, suites
    name = load_yaml(find_config(what, "suites")).get("name")
    runs_dir = runs_dir or Path("runs")
    found = {suite.name: suite for suite in planned_suites(runs_dir)} if runs_dir.is_dir() else {}
    if name not in found:
        raise ValueError(
            f"The suite {name} was not started in {runs_dir}.{did_you_mean(name, found)} Started there: "
            f"{', '.join(found) or 'none'}. Name its folder: --runs-dir DIR."
        )
    return runs_dir, [found[name]]
