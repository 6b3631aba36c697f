"""Score a backbone on classification at every precision of a recipe, and print the table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lowbit.benchmark.cli import job_parser, log_to_stderr
from lowbit.benchmark.recipes.job_command import (
    MEASUREMENTS,
    exit_code,
    set_up_torch,
)

EXAMPLES = """examples:
  # 1. pretrain a backbone on digits, in a minute
  lowbit-bench pretrain --config-file configs/pretrain/digits_ssql.yaml --output-dir output/ssql

  # 2. a linear classifier on its frozen, quantized features, at FP, 8w8a, 5w5a, 4w4a and 3w3a
  lowbit-bench transfer --config-file configs/transfer/digits_linear.yaml \\
      checkpoint output/ssql/checkpoint.pth

  # the same backbone fine-tuned, then quantized, at two precisions and with another seed
  lowbit-bench transfer --config-file configs/transfer/digits_finetune.yaml \\
      --output-dir output/finetune checkpoint output/ssql/checkpoint.pth \\
      precisions "[FP, 4w4a]" seed 1

  # the same, continuing an interrupted run
  lowbit-bench transfer --config-file configs/transfer/digits_finetune.yaml \\
      --output-dir output/finetune --resume checkpoint output/ssql/checkpoint.pth \\
      precisions "[FP, 4w4a]" seed 1

  # quantization-aware training by SGD with transition-rate scheduling, starting in full precision
  lowbit-bench transfer --config-file configs/transfer/digits_qat_sgdt.yaml \\
      --output-dir output/qat checkpoint output/ssql/checkpoint.pth

exit code: 0 success, 1 the recipe, a file or the training failed, 2 invalid command line,
75 stopped by a signal after saving its state: continue with --resume."""


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run one job.

    Returns:
        0 on success; 1 if the recipe, a file or the training failed; 75 if a signal stopped it after
        saving its state.
    """
    args = job_parser(__doc__, EXAMPLES, prog).parse_args(arguments)
    log_to_stderr()
    set_up_torch(args.threads)
    from lowbit.benchmark.cli.single_jobs.single_run import run_job  # here, so that --help is fast

    return exit_code(
        lambda: run_job("transfer", args, leaves=("last.pth", "parts"), report=_report)
    )


def _report(result: dict[str, Any], folder: Path) -> None:
    print(table(result["measurements"]))
    print(f"\nAll of it: {folder / MEASUREMENTS}")


def table(measurements: Sequence[dict[str, Any]]) -> str:
    """Format measurements: one line per precision, one column per split and metric."""
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
