"""Score a backbone on classification at every precision of a recipe, and print the table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lowbit.benchmark.cli import job_parser, log_to_stderr
from lowbit.benchmark.recipes.job_command import (
    MEASUREMENTS,
    exit_code,
    run_job,
    set_up_torch,
)

EXAMPLES = """examples:
  # 1. something to score: a backbone pretrained on digits, in a minute
  lowbit-bench pretrain --config-file configs/pretrain/digits_ssql.yaml --output-dir output/ssql

  # 2. a linear classifier on its frozen, quantized features, at FP, 8w8a, 5w5a, 4w4a and 3w3a
  lowbit-bench transfer --config-file configs/transfer/digits_linear.yaml \\
      checkpoint output/ssql/checkpoint.pth

  # the same backbone fine-tuned, then quantized, at two precisions and with another seed
  lowbit-bench transfer --config-file configs/transfer/digits_finetune.yaml \\
      --output-dir output/finetune checkpoint output/ssql/checkpoint.pth \\
      precisions "[FP, 4w4a]" seed 1

  # the same, going on where it was interrupted
  lowbit-bench transfer --config-file configs/transfer/digits_finetune.yaml \\
      --output-dir output/finetune --resume checkpoint output/ssql/checkpoint.pth \\
      precisions "[FP, 4w4a]" seed 1

  # quantization-aware training by SGD with transition-rate scheduling, from a full-precision start
  lowbit-bench transfer --config-file configs/transfer/digits_qat_sgdt.yaml \\
      --output-dir output/qat checkpoint output/ssql/checkpoint.pth

exit code: 0 done, 1 the recipe, a file or training is at fault, 2 the command is wrong,
75 stopped by a signal with its state saved: --resume goes on from it."""


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run one job.

    Returns:
        0 done; 1 when the recipe, a file or training is at fault; 75 when a signal stopped it, with
        its state saved.
    """
    args = job_parser(__doc__, EXAMPLES, prog).parse_args(arguments)
    log_to_stderr()
    set_up_torch(args.threads)
    return exit_code(
        lambda: run_job("transfer", args, leaves=("last.pth", "parts"), report=_report)
    )


def _report(result: dict[str, Any], folder: Path) -> None:
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
