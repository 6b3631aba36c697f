"""Export a network as an ONNX model of integers, with a card and the check it passed.

With --result the network is one that a transfer job scored: its backbone, ranges and classifier. Without
it the backbone is quantized and calibrated on an image set's training images, and gives features.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lowbit.benchmark.cli import add_threads, log_to_stderr, make_parser
from lowbit.common.text import printable_lines, size

if TYPE_CHECKING:
    from lowbit.deploy.export_model import ExportedFile
    from lowbit.deploy.subject import Subject

EXAMPLES = """examples:
  # the features of a backbone at 8w8a, calibrated on digits
  lowbit-bench export backbone.pth --precision 8w8a --data digits -o model.onnx

  # a network that a transfer job scored, with its classifier
  lowbit-bench export backbone.pth --precision 8w8a --result output/transfer -o model.onnx

  # weights of four bits in four, checked in ONNX Runtime
  lowbit-bench export backbone.pth --precision 4w4a --result output/transfer --pack \\
      --runtime onnxruntime -o small.onnx

  # everything on integers, also what lies between layers
  lowbit-bench export backbone.pth --precision 8w8a --data digits --policy ssql-int8 -o model.onnx

exit code: 0 the model was written, 1 it was not, 2 invalid command line."""
_DEFAULT_POLICY = "ssql"
_PHOTOGRAPH = 224  # pixels, where an image set has no size of its own


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Export a network; return 0 if the model was written, else 1."""
    args = _parser(prog).parse_args(arguments)
    log_to_stderr()
    from lowbit.benchmark.recipes.job_command import set_up_torch

    try:
        _check(args)
        set_up_torch(args.threads)
        _report(_export(args), args.runtime)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        print(printable_lines(f"error: {error}"), file=sys.stderr)
        return 1
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.result is None and args.data is None:
        raise ValueError(
            f"{args.checkpoint} holds weights alone: at {args.precision} a network also has ranges of its "
            "activations, and images as input; nothing was written. Give --data NAME, whose training images "
            "set the ranges, or --result FOLDER of a transfer job."
        )
    given = [
        f"--{name}" for name in ("data", "policy", "image_size") if getattr(args, name) is not None
    ]
    if args.result is not None and given:
        raise ValueError(
            f"{' and '.join(given).replace('_', '-')} cannot be chosen with --result, whose job has used its "
            "own; nothing was written. Leave it out, or leave out --result."
        )


def _export(args: argparse.Namespace) -> "ExportedFile":
    from lowbit.deploy.export_model import export_model, prepare

    prepare(args.output, args.runtime, overwrite=args.overwrite)
    return export_model(
        _subject(args),
        args.output,
        runtime=args.runtime,
        pack=args.pack,
        data_root=args.data_root,
    )


def _subject(args: argparse.Namespace) -> "Subject":
    from lowbit.data import image_set
    from lowbit.deploy.subject import of_checkpoint, of_job
    from lowbit.transfer.scoring.scored_network import ScoredNetworks

    if args.result is not None:
        return of_job(ScoredNetworks(_networks(args.result)), args.precision, args.checkpoint)
    return of_checkpoint(
        args.checkpoint,
        args.precision,
        dataset=args.data,
        policy=args.policy or _DEFAULT_POLICY,
        image_size=args.image_size or image_set(args.data).size or _PHOTOGRAPH,
        architecture=args.architecture,
        data_root=args.data_root,
    )


def _networks(folder: Path) -> Path:
    """Return the file in a job's folder that its networks are made of."""
    from lowbit.benchmark.results.result_file import read_result
    from lowbit.transfer.scoring.scored_network import ROLE

    result = read_result(folder)
    if result is None or result.status != "completed":
        raise ValueError(
            f"{folder} holds no finished job; nothing was written. Give the folder of a transfer job, which "
            "has a result.json."
        )
    if ROLE not in result.artifacts:
        raise ValueError(
            f"the job in {folder} left no network to export; nothing was written. Those of protocols linear, "
            "linear-exact, finetune, semi and qat do: run it again if an earlier version did."
        )
    return folder / result.artifacts[ROLE]


def _report(found: "ExportedFile", runtime: str) -> None:
    agreement = found.agreement
    print(f"model    {found.path} ({size(found.size)})\ncard     {found.card}")
    print(
        f"check    {agreement.measure} on {agreement.images} test images; noise floor {agreement.floor:.4f}"
    )
    for name, check in found.checks.items():
        layers = (
            f"{len(check.integers)} of {len(check.integers) + len(check.floats)} layers on integers"
        )
        chosen = ", the chosen runtime" if name == runtime else ""
        print(f"         {name} {check.version}: {agreement.graphs[name]:.4f}, {layers}{chosen}")
        if agreement.below_floor(name):
            print(
                f"         {name} decides otherwise than the simulation on more than rounding in float32 "
                "explains (see docs/deploy.md, Runtimes)"
            )


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = make_parser(__doc__, EXAMPLES, prog)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="backbone file")
    parser.add_argument("--precision", required=True, metavar="P", help="such as 8w8a, 4w4a or FP")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="FILE", help="model to write, *.onnx"
    )
    parser.add_argument(
        "--runtime",
        default="openvino",
        choices=("openvino", "onnxruntime"),
        help="what has to agree with the simulation, and the card shows (default: %(default)s)",
    )
    parser.add_argument(
        "--pack", action="store_true", help="store weights of at most 4 bits in 4 (INT4)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing model")
    parser.add_argument(
        "--data-root", metavar="DIR", help="folder of the sets; default: $LOWBIT_DATA"
    )
    add_threads(parser)
    job = parser.add_argument_group("a network that was scored")
    job.add_argument("--result", type=Path, metavar="FOLDER", help="of a finished transfer job")
    features = parser.add_argument_group("the features of a backbone")
    features.add_argument("--data", metavar="NAME", help="image set to calibrate on")
    features.add_argument(
        "--policy", help=f"what is quantized, and how (default: {_DEFAULT_POLICY})"
    )
    features.add_argument(
        "--image-size",
        type=int,
        metavar="N",
        help=f"side of the input, pixels (default: of the image set's images, else {_PHOTOGRAPH})",
    )
    features.add_argument("--architecture", help="network's name; default: as the file says")
    return parser
