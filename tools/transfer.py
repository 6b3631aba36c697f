#!/usr/bin/env python
"""Score a backbone on classification at every precision of a recipe, and print the table."""

import argparse
import json
import logging
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
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one job; return 0 when it is done and 1 when recipe, files or training are at fault."""
    args = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    # Imported here so that --help does not wait for torch.
    import torch

    from benchmark.files import write_text
    from benchmark.recipe import load_yaml, validate
    from quant import keep_freed_memory
    from transfer import run

    torch.set_num_threads(args.threads)
    keep_freed_memory()
    try:
        fields = load_yaml(args.config_file, args.opts)
        recipe = validate("transfer", fields, source=args.config_file)
        folder = args.output_dir or Path("output") / recipe.name
        _check_folder(folder, resume=args.resume)
        folder.mkdir(parents=True, exist_ok=True)
        result = run(recipe, folder)
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    outcome = {"recipe": recipe.model_dump(mode="json"), **result}
    write_text(folder / "measurements.json", json.dumps(outcome, indent=2) + "\n")
    print(table(result["measurements"]))
    print(f"\nAll of it: {folder / 'measurements.json'}")
    return 0


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


def _check_folder(folder: Path, *, resume: bool) -> None:
    """Refuse to go on with an earlier training unless told to."""
    if not resume and (folder / "last.pth").exists():
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
        "--resume", action="store_true", help="go on with the training the folder holds, if any"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch; default 1")
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="override keys of the recipe, at least `checkpoint FILE`",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
