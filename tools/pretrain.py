#!/usr/bin/env python
"""Pretrain a backbone by a recipe; what it leaves is a file any other tool here can score."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A script's own folder comes first on its path, where this file would hide the package `pretrain`.
sys.path.insert(0, str(ROOT))

EXAMPLES = """examples:
  # SSQL on scikit-learn's digits: a minute on one CPU core, nothing downloaded
  python tools/pretrain.py --config-file configs/pretrain/digits_ssql.yaml

  # the same recipe with another pairing, in its own folder, and for less long
  python tools/pretrain.py --config-file configs/pretrain/digits_ssql.yaml \\
      --output-dir output/cq_a pairing cq-a epochs 5

  # a run that was interrupted goes on where it stopped
  python tools/pretrain.py --config-file configs/pretrain/digits_ssql.yaml --resume

  # the paper's recipe (CIFAR-10, ResNet-18; wants a GPU)
  python tools/pretrain.py --config-file configs/pretrain/cifar10_ssql.yaml data_root datasets
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one job; return 0 when it is done and 1 when the recipe, a file or training is at fault."""
    args = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    # Imported here so that --help does not wait for torch.
    import torch

    from benchmark.files import write_text
    from benchmark.recipe import load_yaml, validate
    from pretrain import run
    from quant import keep_freed_memory

    torch.set_num_threads(args.threads)
    keep_freed_memory()
    try:
        fields = load_yaml(args.config_file, args.opts)
        recipe = validate("pretrain", fields, source=args.config_file)
        folder = args.output_dir or Path("output") / recipe.name
        _check_folder(folder, resume=args.resume)
        folder.mkdir(parents=True, exist_ok=True)
        result = run(recipe, folder)
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    outcome = {"recipe": recipe.model_dump(mode="json"), **result}
    write_text(folder / "measurements.json", json.dumps(outcome, indent=2) + "\n")
    for measurement in result["measurements"]:
        print(f"{measurement['metric']:<12} {measurement['value']:.4f}")
    print(
        f"{result['checkpoint']['method']} backbone: {folder / result['artifacts']['checkpoint']}"
    )
    return 0


def _check_folder(folder: Path, *, resume: bool) -> None:
    """Refuse to go on with an earlier run unless told to."""
    if not resume and any((folder / name).exists() for name in ("last.pth", "checkpoint.pth")):
        raise ValueError(
            f"{folder} holds an earlier run; nothing was trained. Add --resume to go on with it, or "
            "name another --output-dir."
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
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


if __name__ == "__main__":
    sys.exit(main())
