"""What the commands of one job share: its recipe and folder, and errors without a traceback."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lowbit.common.text import printable_lines

MEASUREMENTS = "measurements.json"


def set_up_torch(threads: int) -> None:
    """Import torch, which takes a second, and set its number of CPU threads."""
    import torch

    from lowbit.quant import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()


def exit_code(work: Callable[[], object], *, process: int = 0) -> int:
    """Call `work` and turn a user error into a message and an exit code.

    Returns:
        0 on success; 1 if a recipe, a file or the training failed; 75 if a signal stopped it after
        saving its state.
    """
    from lowbit.common.preemption import Preempted

    who = f"process {process}: " if process else ""
    try:
        work()
    except (ValueError, FileNotFoundError, FloatingPointError, ImportError) as error:
        print(printable_lines(f"{who}error: {error}"), file=sys.stderr)
        return 1
    except Preempted as stop:
        print(f"{who}{stop}", file=sys.stderr)
        return stop.code
    return 0


def read_recipe(stage: str, config_file: str, overrides: Sequence[str]) -> Any:
    """Return the recipe of a file, or of one shipped with the package.

    Raises:
        ValueError: it is invalid.
        FileNotFoundError: there is no such file.
    """
    from lowbit.benchmark.recipes.yaml_files import load_yaml, validate
    from lowbit.common.shipped_configs import find_config

    path = find_config(config_file, stage)
    return validate(stage, load_yaml(path, overrides), source=path)


def read_job(stage: str, args: argparse.Namespace, *, leaves: Sequence[str]) -> tuple[Any, Path]:
    """Return the recipe that the arguments name and the folder it may run in.

    Args:
        stage: one of `stages.STAGES`.
        args: as `job_parser` reads them.
        leaves: files that indicate an earlier run.

    Raises:
        ValueError: the recipe is invalid, or the folder holds an earlier run without --resume.
        FileNotFoundError: there is no such recipe.
    """
    recipe = read_recipe(stage, args.config_file, args.opts)
    folder = args.output_dir or Path("output") / recipe.name
    if not args.resume and any((folder / name).exists() for name in leaves):
        raise ValueError(
            f"{folder} holds an earlier run; nothing was trained. Add --resume to continue it, or "
            "name another --output-dir."
        )
    return recipe, folder
