"""Measure what share of 95 % intervals holds the truth, and of ranks ties: the tables of docs/statistics.md.

Test sets are drawn from simulated populations whose numbers are known. Rows are printed in Markdown as
they are measured; the same command gives the same rows.
"""

import argparse
import sys
from collections.abc import Sequence

from lowbit.tools.coverage import accuracies, detection, ties
from lowbit.tools.coverage.detection import Cell

EXAMPLES = """examples:
  # a first impression, a minute or two
  python -m lowbit.tools.coverage.table detection

  # the tables of docs/statistics.md, about two hours on one core; or some of the kinds of test sets
  python -m lowbit.tools.coverage.table detection --full
  python -m lowbit.tools.coverage.table detection --full --cells 1 2 3
  python -m lowbit.tools.coverage.table accuracies --full
  python -m lowbit.tools.coverage.table ties --full"""

FULL = (
    Cell(5, 0, 2.5, 40, 300), Cell(5, 0, 2.5, 300, 300), Cell(5, 0, 2.5, 1000, 150),
    Cell(20, 1, 2.5, 40, 200), Cell(20, 1, 2.5, 300, 200), Cell(20, 1, 2.5, 1000, 150),
    Cell(80, 0, 7, 300, 150), Cell(80, 0, 7, 1000, 100), Cell(80, 0, 7, 5000, 40),
    Cell(80, 1, 7, 300, 100), Cell(80, 1, 7, 1000, 100), Cell(80, 1, 7, 5000, 40),
)  # fmt: skip
QUICK = (Cell(5, 0, 2.5, 40, 40), Cell(20, 1, 2.5, 300, 20))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one table."""
    parser = argparse.ArgumentParser(
        prog="python -m lowbit.tools.coverage.table",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", choices=("detection", "accuracies", "ties"))
    parser.add_argument("--full", action="store_true", help="all cells, hundreds of sets each")
    parser.add_argument(
        "--cells", type=int, nargs="+", metavar="N", help="only these kinds of test sets, from 1"
    )
    args = parser.parse_args(arguments)
    {"detection": _detection, "accuracies": _accuracies, "ties": _ties}[args.table](args)
    return 0


def _detection(args: argparse.Namespace) -> None:
    cells = FULL if args.full else QUICK
    cells = [cells[n - 1] for n in args.cells or range(1, len(cells) + 1)]
    head = ("classes", "images", "rarest class", "metric", "truth", "error", "bias")
    _print(*head, *detection.WAYS, "sets", rule=True)
    for row in detection.rows(cells, population=400_000 if args.full else 50_000):
        cell = row.cell
        _print(
            f"{cell.classes}, {'skewed' if cell.skew else 'even'}",
            f"{cell.images:,}",
            f"{row.rarest:.1f}",
            row.metric,
            f"{row.truth:.1f}",
            f"{row.error:.2f}",
            f"{row.bias:+.2f}",
            *(f"{row.covered[way]:.0f}" for way in detection.WAYS),
            str(cell.replications),
        )


def _accuracies(args: argparse.Namespace) -> None:
    sets = 2000 if args.full else 200
    _print("test set", "truth", *accuracies.WAYS, rule=True)
    for row in accuracies.rows(sets):
        covered = (f"{row.covered[way]:.0f}" for way in accuracies.WAYS)
        _print(row.kind, f"{row.truth:.1f}", *covered)


def _ties(args: argparse.Namespace) -> None:
    _print("images", "seeds", "unpaired", "paired", "a better row found", "columns", rule=True)
    for row in ties.rows(ties.FULL if args.full else ties.QUICK):
        shares = (f"{share:.1f} %" for share in (row.unpaired, row.paired, row.better))
        kind = row.column
        _print(f"{kind.images:,}", str(kind.seeds), *shares, str(kind.columns))


def _print(*columns: str, rule: bool = False) -> None:
    print("|", " | ".join(columns), "|", flush=True)
    if rule:
        print("|" + "---|" * len(columns), flush=True)


if __name__ == "__main__":
    sys.exit(main())
