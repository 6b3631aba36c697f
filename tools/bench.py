#!/usr/bin/env python
"""Measure what this suite costs beside what it is compared with: ratios within one run."""

import argparse
import dataclasses
import importlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

EXAMPLES = """examples:
  # operators, memory, transition steps and whole networks, about five minutes
  python tools/bench.py quant

  # pretraining steps over their ideal; augmented views a second; probes on features computed once
  python tools/bench.py pretrain
  python tools/bench.py data
  python tools/bench.py transfer

  # steps of transition-rate optimizers, and of training many bit-widths at once
  python tools/bench.py qat

  # iterations of detectors, over full precision and over Detectron2's own (which it needs)
  python tools/bench.py detection

  # what a sweep costs beside its jobs, 2,000 that do nothing; and the board of 100,000 results
  python tools/bench.py sweep

  # a rough look in one minute, and the rows for a script
  python tools/bench.py quant --quick --json quant.json
"""


def main(argv: list[str] | None = None) -> int:
    """Run one benchmark, print its rows as they come, and write them if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what",
        choices=("quant", "pretrain", "data", "transfer", "qat", "detection", "sweep"),
        help="what to measure",
    )
    parser.add_argument("--quick", action="store_true", help="few repetitions, small cases")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here")
    args = parser.parse_args(argv)

    import torch

    from lowbit.quant import keep_freed_memory

    cases = importlib.import_module(f"lowbit.tools.benchmarks.{args.what}").cases
    keep_freed_memory()
    torch.set_num_threads(1)
    rows = []
    head = f"{'case':<88} {'moved':>9} {'ours':>10} {'against':>10} {'ratio':>7} {'target':>7}"
    print(head, flush=True)
    for row in cases(args.quick):
        rows.append(dataclasses.asdict(row))
        mark = "" if row.target is None else f"{row.target:7.2f}"
        moved = "" if row.moved_mib is None else f"{row.moved_mib:.0f} MiB"
        missed = row.target is not None and row.ratio > row.target
        print(
            f"{row.case:<88} {moved:>9} {_ms(row.ours_s):>10} {_ms(row.against_s):>10}"
            f" {row.ratio:7.2f} {mark:>7}"
            f"{'  missed' if missed else ''}",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.2f} ms"


if __name__ == "__main__":
    sys.exit(main())
