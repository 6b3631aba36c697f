#!/usr/bin/env python
"""Score a backbone on classification at every precision of a recipe, and print the table."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# A script's own folder comes first on its path, where this file would hide the package `transfer`.
sys.path.insert(0, str(ROOT))

EXAMPLES = """examples:
  # 1. something to score: a backbone pretrained on digits, in a minute
  python tools/pretrain.py --config-file configs/pretrain/digits_ssql.yaml --output-dir output/ssql

  # 2. a linear classifier on its frozen, quantized features, at FP, 8w8a, 5w5a, 4w4a and 3w3a
  python tools/transfer.py --config-file configs/transfer/digits_linear.yaml \\
      checkpoint output/ssql/checkpoint.pth

  # the same backbone fine-tuned, then quantized, at two precisions and with another seed
  python tools/transfer.py --config-file configs/transfer/digits_finetune.yaml \\
      --output-dir output/finetune checkpoint output/ssql/checkpoint.pth \\
      precisions "[FP, 4w4a]" seed 1

  # the same, going on where it was interrupted
  python tools/transfer.py --config-file configs/transfer/digits_finetune.yaml \\
      --output-dir output/finetune --resume checkpoint output/ssql/checkpoint.pth \\
      precisions "[FP, 4w4a]" seed 1

  # quantization-aware training by SGD with transition-rate scheduling, from a full-precision start
  python tools/transfer.py --config-file configs/transfer/digits_qat_sgdt.yaml \\
      --output-dir output/qat checkpoint output/ssql/checkpoint.pth
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one job; return 0 when it is done and 1 when recipe, files or training are at fault."""
    from lowbit.benchmark.recipes.job_command import job_parser, run_job

    args = job_parser(__doc__, EXAMPLES).parse_args(argv)
    return run_job("transfer", args, leaves=("last.pth", "parts"), report=_report)


def _report(result: dict[str, Any], folder: Path) -> None:
    from lowbit.benchmark.recipes.job_command import MEASUREMENTS

    print(table(result["measurements"]))
    print(f"\nAll of it: {folder / MEASUREMENTS}")


def table(measurements: Sequence[dict[str, Any]]) -> str:
    """Lay measurements out: a line a precision, a column a split and metric."""
    columns = list(
        dict.fromkeys((m["split"], m["metric"], m["unit"], m["n"]) for m in measurements)
    )
    cells = {(m["precision"], m["split"], m["metric"]): m["value"] for m in measurements}
    heads = [f"{split} {metric} {unit} (n={n})" for split, metric, unit, n in columns]
    lines = ["precision  " + "  ".join(heads)]
    for precision in dict.fromkeys(m["precision"] for m in measurements):
        values = [
            f"{cells[precision, split, metric]:.2f}".rjust(len(head))
            for (split, metric, _, _), head in zip(columns, heads, strict=True)
        ]
        lines.append(f"{precision:<9}  " + "  ".join(values))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
