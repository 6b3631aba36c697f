"""What the command lines of single jobs share: their arguments, and one job from recipe to table."""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lowbit.benchmark.recipes.yaml_files import get_stage, load_yaml, validate
from lowbit.common.atomic_file import write_text

MEASUREMENTS = "measurements.json"

Report = Callable[[dict[str, Any], Path], None]


def job_parser(description: str, examples: str) -> argparse.ArgumentParser:
    """Return a parser of what every job takes: a recipe, a folder, overrides."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-file", type=Path, required=True, help="recipe (YAML)")
    parser.add_argument(
        "--output-dir", type=Path, help="folder of the run; default output/<the recipe's name>"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run the folder holds, if any"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch; default 1")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="override keys of the recipe"
    )
    return parser


def read_job(stage: str, args: argparse.Namespace, *, leaves: Sequence[str]) -> tuple:
    """Return the recipe that the arguments name and the folder it may run in.

    Args:
        stage: one of `recipe.STAGES`.
        args: as `job_parser` reads them.
        leaves: files by which an earlier run is known.

    Raises:
        ValueError: the recipe is wrong, or the folder holds a run that was not asked for.
    """
    recipe: BaseModel = validate(
        stage, load_yaml(args.config_file, args.opts), source=args.config_file
    )
    folder = args.output_dir or Path("output") / recipe.name
    if not args.resume and any((folder / name).exists() for name in leaves):
        raise ValueError(
            f"{folder} holds an earlier run; nothing was trained. Add --resume to go on with it, or "
            "name another --output-dir."
        )
    return recipe, folder


def run_job(
    stage: str, args: argparse.Namespace, *, leaves: Sequence[str], report: Report, rank: int = 0
) -> int:
    """Run one job and report it.

    Returns:
        0 done; 1 when the recipe, a file or training is at fault; 75 when a signal came and
        the same command with --resume goes on.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    # Imported here so that --help does not wait for torch.
    import torch

    from lowbit.common.preemption import Preempted
    from lowbit.quant import keep_freed_memory

    torch.set_num_threads(args.threads)
    keep_freed_memory()
    who = f"process {rank}: " if rank else ""
    try:
        recipe, folder = read_job(stage, args, leaves=leaves)
        folder.mkdir(parents=True, exist_ok=True)
        result = get_stage(stage).run(recipe, folder)
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        print(f"{who}error: {error}", file=sys.stderr)
        return 1
    except Preempted as stop:
        print(f"{who}{stop}", file=sys.stderr)
        return stop.code
    if rank == 0:
        outcome = {"recipe": recipe.model_dump(mode="json"), **result}
        write_text(folder / MEASUREMENTS, json.dumps(outcome, indent=2) + "\n")
        report(result, folder)
    return 0
