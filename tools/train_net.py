#!/usr/bin/env python
"""Train or evaluate a detector, from a recipe (either engine) or from a Detectron2 configuration.

A file whose keys are lower-case is a recipe of this suite; one with Detectron2's upper-case keys goes
through Detectron2's own configuration, with this suite's keys added (detection/with_detectron2/config.py lists them).
Use the latter for COCO or VOC, several GPUs, and everything else Detectron2 can be told.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A script's own folder comes first on its path, where files would hide packages of the same name.
sys.path.insert(0, str(ROOT))

EXAMPLES = """examples:
  # 1. a backbone to start from: an untrained one takes a second
  python tools/pretrain.py --config-file configs/pretrain/digits_untrained.yaml \\
      --output-dir output/untrained

  # 2. a detector in full precision: about a minute on one CPU core
  python tools/train_net.py --config-file configs/detection/digit_scenes_retinanet_fp.yaml \\
      --output-dir output/fp checkpoint output/untrained/checkpoint.pth

  # 3. its backbone at 4w4a, by LSQ and by transition-rate scheduling
  python tools/train_net.py --config-file configs/detection/digit_scenes_retinanet_lsq_w4a4.yaml \\
      --output-dir output/lsq detector output/fp/detector.pth
  python tools/train_net.py --config-file configs/detection/digit_scenes_retinanet_sgdt_w4a4.yaml \\
      --output-dir output/sgdt detector output/fp/detector.pth

  # what was trained, evaluated again
  python tools/train_net.py --config-file configs/detection/digit_scenes_retinanet_lsq_w4a4.yaml \\
      --output-dir output/lsq --eval-only

  # a Detectron2 configuration, on the CPU, for ten iterations
  python tools/train_net.py \\
      --config-file configs/detection/detectron2/digit_scenes_retinanet_fp_instant_test.yaml \\
      --output-dir output/instant MODEL.LOWBIT.CHECKPOINT output/untrained/checkpoint.pth
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one job; return 0 when it is done and 1 when recipe, files or training are at fault."""
    args = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    # Imported here so that --help does not wait for torch.
    import torch

    from lowbit.quant import keep_freed_memory

    torch.set_num_threads(args.threads)
    keep_freed_memory()
    try:
        train = run_config if is_detectron2_config(args.config_file) else run_recipe
        scores = train(args)
    except (ValueError, FileNotFoundError, FloatingPointError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(scores))
    return 0


def is_detectron2_config(path: Path) -> bool:
    """Tell a Detectron2 configuration, whose keys are upper-case, from a recipe."""
    from lowbit.benchmark.recipes.yaml_files import load_yaml

    keys = [key for key in load_yaml(path) if key != "VERSION"]
    return bool(keys) and all(key.isupper() for key in keys)


def run_recipe(args: argparse.Namespace) -> dict[str, float]:
    """Train and score by a recipe, or score what was trained."""
    from lowbit.benchmark.recipes.yaml_files import load_yaml, validate
    from lowbit.common.atomic_file import write_text
    from lowbit.detection import run

    gpus = args.num_gpus
    if gpus is not None and gpus > 1:
        raise ValueError(
            f"a recipe runs in one process, and --num-gpus is {gpus}; nothing was trained. "
            "Leave it out, or train on several GPUs by a Detectron2 configuration."
        )
    fields = load_yaml(args.config_file, args.opts)
    if gpus is not None:
        fields["device"] = "cuda" if gpus else "cpu"
    recipe = validate("detection", fields, source=args.config_file)
    folder = args.output_dir or Path("output") / recipe.name
    if args.eval_only:
        return _evaluate_recipe(recipe, folder)
    if not args.resume and (folder / "job.json").exists():
        raise ValueError(
            f"{folder} holds an earlier run; nothing was trained. Add --resume to go on with it, or "
            "name another --output-dir."
        )
    folder.mkdir(parents=True, exist_ok=True)
    result = run(recipe, folder)
    outcome = {"recipe": recipe.model_dump(mode="json"), **result}
    write_text(folder / "measurements.json", json.dumps(outcome, indent=2) + "\n")
    if "checkpoint" in result["artifacts"]:
        print(f"detector: {folder / result['artifacts']['checkpoint']}")
    several = len({m["precision"] for m in result["measurements"]}) > 1
    return {
        f"{m['metric']} {m['precision']}" if several else m["metric"]: m["value"]
        for m in result["measurements"]
    }


def _evaluate_recipe(recipe, folder: Path) -> dict[str, float]:
    from lowbit.backbones.runtime import resolve_device
    from lowbit.detection.engines import get_engine
    from lowbit.detection.evaluation.measurements import measure
    from lowbit.detection.stage import load_images, load_trained

    path = folder / "detector.pth"
    engine = get_engine(recipe.engine)
    detector, made = load_trained(path, engine=engine, device=str(resolve_device(recipe.device)))
    if made.precision != recipe.precision:
        raise ValueError(
            f"{path} holds a detector at {made.precision}, the recipe says {recipe.precision}; "
            "nothing was evaluated. Give the recipe it was trained by."
        )
    images = load_images(recipe, recipe.test_split)
    detections = engine.predict(detector, images, made)
    found = measure(images, detections, precision=made.precision, engine=engine.name)
    return {m["metric"]: m["value"] for m in found.measurements}


def run_config(args: argparse.Namespace) -> dict[str, float]:
    """Train or evaluate by a Detectron2 configuration, with one process a GPU."""
    from lowbit.detection.engines import import_detectron2

    import_detectron2()
    import torch
    from detectron2.engine import launch

    if args.num_gpus is None:
        args.num_gpus = int(torch.cuda.is_available())
    results: dict[str, float] = {}
    launch(_run_config_process, args.num_gpus, dist_url="auto", args=(args, results))
    return results


def _run_config_process(args: argparse.Namespace, results: dict[str, float]) -> None:
    from detectron2.engine import default_setup
    from detectron2.utils import comm

    from lowbit.detection.with_detectron2.build_detector import load_trained, save_trained
    from lowbit.detection.with_detectron2.catalog import register_named
    from lowbit.detection.with_detectron2.config import read_config
    from lowbit.detection.with_detectron2.hooks import plain_scores
    from lowbit.detection.with_detectron2.trainer import LowbitTrainer

    cfg = read_config(args.config_file, args.opts, processes=comm.get_world_size())
    register_named((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))
    if args.num_gpus == 0:
        cfg.MODEL.DEVICE = "cpu"
    if args.output_dir is not None:
        cfg.OUTPUT_DIR = str(args.output_dir)
    cfg.freeze()
    # Detectron2 wants the path as text: it copies the file into the log.
    default_setup(cfg, argparse.Namespace(**{**vars(args), "config_file": str(args.config_file)}))
    if args.eval_only:
        results.update(plain_scores(LowbitTrainer.test(cfg, load_trained(cfg))))
        return
    trainer = LowbitTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    trainer.train()
    if comm.is_main_process():
        print(f"detector: {save_trained(cfg, trainer.checkpointer.model)}")
        results.update(plain_scores(getattr(trainer, "_last_eval_results", None) or {}))


def table(scores: dict[str, float]) -> str:
    """Lay the scores out: a line of names, a line of values in percent."""
    if not scores:
        return "no scores: the evaluation ran in other processes; see the log in OUTPUT_DIR"
    names = [name.rjust(7) for name in scores]
    values = [
        f"{value:.2f}".rjust(len(name)) for name, value in zip(names, scores.values(), strict=True)
    ]
    return "  ".join(names) + "\n" + "  ".join(values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file", type=Path, required=True, help="recipe or Detectron2 configuration (YAML)"
    )
    parser.add_argument(
        "--num-gpus",
        type=int,
        help="GPUs, one process each; 0: the CPU; default 1, if there is one",
    )
    parser.add_argument(
        "--output-dir", type=Path, help="folder of the run; default output/<name>, or OUTPUT_DIR"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run the folder holds, if any"
    )
    parser.add_argument(
        "--eval-only", action="store_true", help="score the detector the folder holds"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch; default 1")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="override keys of the file"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
