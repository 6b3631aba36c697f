"""Pretrain a backbone by a recipe, and write a checkpoint that the other commands can score."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lowbit.benchmark.cli import job_parser, log_to_stderr
from lowbit.benchmark.recipes.job_command import (
    exit_code,
    read_job,
    set_up_torch,
)
from lowbit.common.text import printable_lines

EXAMPLES = """examples:
  # SSQL on scikit-learn's digits: a minute on one CPU core, nothing downloaded
  lowbit-bench pretrain --config-file configs/pretrain/digits_ssql.yaml

  # the same recipe with another pairing and fewer epochs, in a separate folder
  lowbit-bench pretrain --config-file configs/pretrain/digits_ssql.yaml \\
      --output-dir output/cq_a pairing cq-a epochs 5

  # continue a run that was stopped (exit code 75) or killed
  lowbit-bench pretrain --config-file configs/pretrain/digits_ssql.yaml --resume

  # the paper's recipe (CIFAR-10, ResNet-18; needs a GPU)
  lowbit-bench pretrain --config-file configs/pretrain/cifar10_ssql.yaml data_root datasets

  # on four GPUs, with synchronized batch norms; the recipe's batch_size is split among the four
  lowbit-bench pretrain --config-file configs/pretrain/cifar10_ssql.yaml --num-gpus 4 \\
      data_root datasets sync_bn true

  # the same with torchrun, which also supports several machines
  torchrun --nproc-per-node 4 -m lowbit pretrain \\
      --config-file configs/pretrain/cifar10_ssql.yaml data_root datasets sync_bn true

  # two processes on the CPU, to try it out
  lowbit-bench pretrain --config-file configs/pretrain/digits_ssql.yaml --num-gpus 2 \\
      --output-dir output/two device cpu

exit code: 0 success, 1 the recipe, a file or the training failed, 2 invalid command line,
75 stopped by a signal after saving its state: continue with --resume."""
LEAVES = ("last.pth", "checkpoint.pth")


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run one job.

    Returns:
        0 on success; 1 if the recipe, a file or the training failed; 75 if a signal stopped it after
        saving its state.
    """
    args = _parser(prog).parse_args(arguments)
    # Imported here so that --help is fast.
    from lowbit.benchmark.executors.launch_processes import launch
    from lowbit.training import distributed

    if distributed.launched():
        return train(args)
    try:
        recipe, _ = read_job("pretrain", args, leaves=LEAVES)
    except (ValueError, FileNotFoundError) as error:
        print(printable_lines(f"error: {error}"), file=sys.stderr)
        return 1
    processes = args.num_gpus or recipe.num_gpus
    return train(args) if processes == 1 else launch(train, args, processes=processes)


def train(args: argparse.Namespace) -> int:
    """Train in this process, possibly one of several, and return its exit code."""
    from lowbit.benchmark.cli.single_jobs.single_run import run_job
    from lowbit.training import distributed

    log_to_stderr()
    set_up_torch(args.threads)
    with distributed.process_group():
        rank = distributed.rank()
        return exit_code(
            lambda: run_job("pretrain", args, leaves=LEAVES, report=_report, process=rank),
            process=rank,
        )


def _report(result: dict[str, Any], folder: Path) -> None:
    for measurement in result["measurements"]:
        print(f"{measurement['metric']:<12} {measurement['value']:.4f}")
    print(
        f"{result['checkpoint']['method']} backbone: {folder / result['artifacts']['checkpoint']}"
    )


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = job_parser(__doc__, EXAMPLES, prog)
    parser.add_argument(
        "--num-gpus",
        type=int,
        metavar="N",
        help="processes that share each batch, one per GPU; with device cpu, on the CPU; default: the "
        "recipe's num_gpus",
    )
    return parser
