#!/usr/bin/env python
"""Pretrain a backbone by a recipe; what it leaves is a file any other tool here can score."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# A script's own folder comes first on its path, where this file would hide the package `pretrain`.
sys.path.insert(0, str(ROOT))

EXAMPLES = """examples:
  # SSQL on scikit-learn's digits: a minute on one CPU core, nothing downloaded
  python tools/pretrain.py --config-file configs/pretrain/digits_ssql.yaml

  # the same recipe with another pairing, in its own folder, and for less long
  python tools/pretrain.py --config-file configs/pretrain/digits_ssql.yaml \\
      --output-dir output/cq_a pairing cq-a epochs 5

  # a run that was stopped (exit code 75) or killed goes on where it was
  python tools/pretrain.py --config-file configs/pretrain/digits_ssql.yaml --resume

  # the paper's recipe (CIFAR-10, ResNet-18; wants a GPU)
  python tools/pretrain.py --config-file configs/pretrain/cifar10_ssql.yaml data_root datasets

  # on four GPUs, with batch norms over all of them; batch_size stays the recipe's, shared by the four
  python tools/pretrain.py --config-file configs/pretrain/cifar10_ssql.yaml --num-gpus 4 \\
      data_root datasets sync_bn true

  # the same by torchrun, which also joins several machines
  torchrun --nproc-per-node 4 tools/pretrain.py \\
      --config-file configs/pretrain/cifar10_ssql.yaml data_root datasets sync_bn true

  # two processes on a CPU, to try that out
  python tools/pretrain.py --config-file configs/pretrain/digits_ssql.yaml --num-gpus 2 \\
      --output-dir output/two device cpu
"""
LEAVES = ("last.pth", "checkpoint.pth")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one job.

    Returns:
        0 done; 1 when the recipe, a file or training is at fault; 75 when a signal stopped it, with
        its state saved.
    """
    args = _parser().parse_args(argv)
    # Imported here so that --help does not wait for them.
    from lowbit.benchmark.executors.launch_processes import launch
    from lowbit.benchmark.recipes.job_command import read_job
    from lowbit.training import distributed

    if distributed.launched():
        return train(args)
    try:
        recipe, _ = read_job("pretrain", args, leaves=LEAVES)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    processes = args.num_gpus or recipe.num_gpus
    return train(args) if processes == 1 else launch(train, args, processes=processes)


def train(args: argparse.Namespace) -> int:
    """Train in this process, which may be one of several."""
    from lowbit.benchmark.recipes.job_command import run_job
    from lowbit.training import distributed

    with distributed.process_group():
        rank = distributed.rank()
        return run_job("pretrain", args, leaves=LEAVES, report=_report, rank=rank)


def _report(result: dict[str, Any], folder: Path) -> None:
    for measurement in result["measurements"]:
        print(f"{measurement['metric']:<12} {measurement['value']:.4f}")
    print(
        f"{result['checkpoint']['method']} backbone: {folder / result['artifacts']['checkpoint']}"
    )


def _parser() -> argparse.ArgumentParser:
    from lowbit.benchmark.recipes.job_command import job_parser

    parser = job_parser(__doc__, EXAMPLES)
    parser.add_argument(
        "--num-gpus",
        type=int,
        metavar="N",
        help="processes that share each batch, one a GPU; with device cpu, on the CPU; default: the "
        "recipe's num_gpus",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
