"""Measure the cost of this suite against reference implementations, as ratios within one run."""

import dataclasses
import importlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from lowbit.benchmark.cli import make_parser
from lowbit.benchmark.recipes.job_command import set_up_torch

EXAMPLES = """examples:
  # operators, memory, transition steps and whole networks, about five minutes
  lowbit-bench bench quant

  # pretraining steps over their ideal; augmented views per second; probes on cached features
  lowbit-bench bench pretrain
  lowbit-bench bench data
  lowbit-bench bench transfer

  # steps of transition-rate optimizers, and of training many bit-widths at once
  lowbit-bench bench qat

  # iterations of detectors, over full precision and over Detectron2's own (which it needs)
  lowbit-bench bench detection

  # AP with its intervals on a set of COCO val2017's size, over pycocotools
  lowbit-bench bench evaluation

  # exported graphs over full precision in the same runtime, and over what NNCF and onnxruntime make
  lowbit-bench bench deploy

  # overhead of a sweep with 2,000 empty jobs; and the board of 100,000 results
  lowbit-bench bench sweep

  # a rough measurement in one minute, with the rows as JSON
  lowbit-bench bench quant --quick --json quant.json

exit code: 0 measured, whether targets were met or not, 2 invalid command line."""


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run one benchmark, print its rows as they are measured, and optionally write them."""
    parser = make_parser(__doc__, EXAMPLES, prog)
    parser.add_argument(
        "what",
        choices=(
            "quant",
            "pretrain",
            "data",
            "transfer",
            "qat",
            "detection",
            "evaluation",
            "deploy",
            "sweep",
        ),
        help="what to measure",
    )
    parser.add_argument("--quick", action="store_true", help="few repetitions, small cases")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here")
    args = parser.parse_args(arguments)

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
    set_up_torch(threads=1)
    cases = importlib.import_module(f"lowbit.tools.benchmarks.{args.what}").cases
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
