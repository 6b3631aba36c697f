"""Train or evaluate a detector, by a recipe (either engine) or by a Detectron2 configuration.

A file with lower-case keys is a recipe of this suite; one with Detectron2's upper-case keys is a
Detectron2 configuration, with this suite's keys added (lowbit.detection.with_detectron2.config lists them).
Use the latter for COCO or VOC, several GPUs, and all other settings of Detectron2.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lowbit.benchmark.cli import job_parser, log_to_stderr
from lowbit.benchmark.recipes.job_command import (
    exit_code,
    read_recipe,
    set_up_torch,
)

EXAMPLES = """examples:
  # 1. a backbone to start from; an untrained one takes a second
  lowbit-bench pretrain --config-file configs/pretrain/digits_untrained.yaml \\
      --output-dir output/untrained

  # 2. a detector in full precision: about a minute on one CPU core
  lowbit-bench detect --config-file configs/detection/digit_scenes_retinanet_fp.yaml \\
      --output-dir output/fp checkpoint output/untrained/checkpoint.pth

  # 3. its backbone at 4w4a, by LSQ and by transition-rate scheduling
  lowbit-bench detect --config-file configs/detection/digit_scenes_retinanet_lsq_w4a4.yaml \\
      --output-dir output/lsq detector output/fp/detector.pth
  lowbit-bench detect --config-file configs/detection/digit_scenes_retinanet_sgdt_w4a4.yaml \\
      --output-dir output/sgdt detector output/fp/detector.pth

  # evaluate the trained detector again
  lowbit-bench detect --config-file configs/detection/digit_scenes_retinanet_lsq_w4a4.yaml \\
      --output-dir output/lsq --eval-only

  # a Detectron2 configuration, on the CPU, for ten iterations
  lowbit-bench detect \\
      --config-file configs/detection/detectron2/digit_scenes_retinanet_fp_instant_test.yaml \\
      --output-dir output/instant MODEL.LOWBIT.CHECKPOINT output/untrained/checkpoint.pth

exit code: 0 success, 1 the recipe, a file or the training failed, 2 invalid command line,
75 stopped by a signal after saving its state: continue with --resume."""


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run one job.

    Returns:
        0 on success; 1 if the recipe, a file or the training failed; 75 if a signal stopped it after
        saving its state.
    """
    args = _parser(prog).parse_args(arguments)
    log_to_stderr()
    set_up_torch(args.threads)
    return exit_code(lambda: _train(args))


def _train(args: argparse.Namespace) -> None:
    from lowbit.common.shipped_configs import find_config
    from lowbit.detection.with_detectron2.install import import_detectron2

    path = find_config(args.config_file, "detection")
    args.config_file = str(path)
    if not is_detectron2_config(path):
        _train_recipe(args)
        return
    import_detectron2()
    from lowbit.detection.with_detectron2.train_config import train_config

    print(table(train_config(args)))


def is_detectron2_config(path: Path) -> bool:
    """Whether a file is a Detectron2 configuration, with upper-case keys, and not a recipe."""
    from lowbit.benchmark.recipes.yaml_files import load_yaml

    keys = [key for key in load_yaml(path) if key != "VERSION"]
    return bool(keys) and all(key.isupper() for key in keys)


def _train_recipe(args: argparse.Namespace) -> None:
    """Train and score by a recipe, or only score."""
    if args.num_gpus is not None:
        if args.num_gpus > 1:
            raise ValueError(
                f"a recipe runs in one process, but --num-gpus is {args.num_gpus}; nothing was "
                "trained. Leave it out, or train on several GPUs by a Detectron2 configuration."
            )
        args.opts = ["device", "cuda" if args.num_gpus else "cpu", *args.opts]
    if args.eval_only:
        recipe = read_recipe("detection", args.config_file, args.opts)
        folder = args.output_dir or Path("output") / recipe.name
        print(table(_evaluate_recipe(recipe, folder)))
    else:
        from lowbit.benchmark.cli.single_jobs.single_run import run_job

        run_job("detection", args, leaves=("job.json",), report=_report)


def _report(result: dict[str, Any], folder: Path) -> None:
    if "checkpoint" in result["artifacts"]:
        print(f"detector: {folder / result['artifacts']['checkpoint']}")
    several = len({m["precision"] for m in result["measurements"]}) > 1
    named = {
        f"{m['metric']} {m['precision']}" if several else m["metric"]: m["value"]
        for m in result["measurements"]
    }
    print(table(named))


def _evaluate_recipe(recipe: Any, folder: Path) -> dict[str, float]:
    from lowbit.detection.datasets.check_annotations import check
    from lowbit.detection.engines import get_engine
    from lowbit.detection.evaluation.measurements import measure
    from lowbit.detection.stage import load_images
    from lowbit.detection.trained_detector import load_trained
    from lowbit.training.seeding import resolve_device

    images = load_images(recipe, recipe.test_split)
    check(images, undone="evaluated")
    path = folder / "detector.pth"
    engine = get_engine(recipe.engine)
    detector, made = load_trained(path, engine=engine, device=str(resolve_device(recipe.device)))
    if made.precision != recipe.precision:
        raise ValueError(
            f"{path} holds a detector at {made.precision}, but the recipe has {recipe.precision}; "
            "nothing was evaluated. Give the recipe it was trained with."
        )
    detections = engine.predict(detector, images, made)
    found = measure(images, detections, precision=made.precision, engine=engine.name)
    return {m["metric"]: m["value"] for m in found.measurements}


def table(scores: dict[str, float]) -> str:
    """Format the scores: a line of names, a line of values in percent."""
    if not scores:
        return "no scores: the evaluation ran in other processes; see the log in OUTPUT_DIR"
    names = [name.rjust(7) for name in scores]
    values = [
        f"{value:.2f}".rjust(len(name)) for name, value in zip(names, scores.values(), strict=True)
    ]
    return "  ".join(names) + "\n" + "  ".join(values)


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = job_parser(__doc__, EXAMPLES, prog, what="recipe or Detectron2 configuration")
    parser.add_argument(
        "--num-gpus",
        type=int,
        help="GPUs, one process each; 0: the CPU; default: 1 if available, else 0",
    )
    parser.add_argument("--eval-only", action="store_true", help="score the detector in the folder")
    return parser
