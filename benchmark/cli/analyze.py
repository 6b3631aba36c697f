"""Draw the papers' figures other than accuracy, and write the numbers behind each."""

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lowbit.benchmark.cli import add_recipe, add_threads, log_to_stderr, make_parser
from lowbit.benchmark.cli.analyze_options import (
    EXAMPLES,
    add_quantizer,
    add_transitions,
    add_tsne,
)
from lowbit.benchmark.recipes.job_command import read_recipe, set_up_torch
from lowbit.common.text import printable, printable_lines


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run one analysis; return 0 on success and 1 if a recipe, a file or the training failed."""
    args = _parser(prog).parse_args(arguments)
    log_to_stderr()
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it logs about fonts
    set_up_torch(args.threads)
    from lowbit.common.preemption import Preempted

    try:
        args.verb(args)
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        print(printable_lines(f"error: {error}"), file=sys.stderr)
        return 1
    except Preempted:
        print(
            "error: training was stopped and the steps recorded so far are lost; nothing was "
            "drawn. Run the command again with another --output-dir.",
            file=sys.stderr,
        )
        return 1
    return 0


def correlation(args: argparse.Namespace) -> None:
    """Pretrain by an SSQL recipe and record how its quantization and contrastive errors correlate."""
    from lowbit.benchmark.cli.single_jobs.single_run import leave_result
    from lowbit.pretrain.analyses.correlation import correlate, draw, summary

    recipe = read_recipe("pretrain", args.config_file, args.opts)
    folder = args.output_dir or Path("output") / f"correlation_{recipe.name}"
    started = time.monotonic()
    frame, returned = correlate(recipe, folder)
    leave_result("pretrain", recipe, folder, returned, started=started)
    found = summary(frame)
    title = f"{recipe.method}, {recipe.architecture} on {recipe.dataset}"
    _save(folder, args.format, pictures={"correlation": draw(frame, title)})
    _write(folder, tables={"correlation": frame}, summaries={"correlation": found})
    print(
        f"mean rho {found['mean_rho']:.4f}, mean |rho| {found['mean_abs_rho']:.4f}, largest |rho| "
        f"{found['max_abs_rho']:.4f}; {100 * found['share_within_bound']:.1f} % of "
        f"{found['steps']} steps within ±{found['bound']:g} (the paper: all)"
    )


def weights(args: argparse.Namespace) -> None:
    """Draw the weight distributions of checkpoints of one network, layer by layer."""
    from lowbit.pretrain.analyses.weights import (
        draw_histograms,
        draw_layers,
        histograms,
        measure,
        weight_layers,
    )

    layers = weight_layers(_load(args))
    frame, counts = measure(layers), histograms(layers)
    folder = args.output_dir or Path("output") / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {"weights_histograms": draw_histograms(counts), "weights_layers": draw_layers(frame)}
    _save(folder, args.format, pictures=pictures)
    _write(folder, tables={"weights_histograms": counts, "weights_layers": frame}, summaries={})
    columns = ["range", "sd", "kurtosis", "outside_3", "outside_6"]
    columns += [name for name in frame if name.startswith("error_")]
    means = frame.groupby("checkpoint", sort=False)[columns].mean()
    print("mean over layers\n" + means.to_string(float_format="{:.4g}".format))


def tsne(args: argparse.Namespace) -> None:
    """Draw t-SNE of backbone features on test images by class, in full precision and others."""
    import pandas as pd

    from lowbit.data import load
    from lowbit.pretrain.analyses.tsne import (
        NEIGHBOURS,
        draw,
        embed,
        features,
        neighbour_accuracy,
        pick,
    )
    from lowbit.quant import FP, Precision
    from lowbit.training.seeding import resolve_device

    device = resolve_device(args.device)
    precisions = list(dict.fromkeys([FP, *map(Precision.parse, args.precision)]))
    train, test = (load(args.dataset, split, root=args.data_root) for split in ("train", "test"))
    images, labels = pick(test, images=args.images, seed=args.seed)
    frames, accuracy = [], {}
    for label, backbone in _load(args).items():
        found = features(
            backbone.to(device),
            images,
            train=train,
            precisions=precisions,
            policy=args.policy,
            size=args.image_size or images.shape[-1],
        )
        for precision, z in found.items():
            accuracy[label, str(precision)] = neighbour_accuracy(z, labels)
            logging.info("%s at %s: t-SNE of %d images", label, precision, len(images))
            x, y = embed(z, seed=args.seed).T
            place = {"checkpoint": label, "precision": str(precision)}
            frames.append(pd.DataFrame({**place, "label": labels, "x": x, "y": y}))
    points = pd.concat(frames, ignore_index=True)
    folder = args.output_dir or Path("output") / f"tsne_{args.dataset}"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"checkpoint": c, "precision": p, f"knn{NEIGHBOURS}_percent": value, "n": len(images)}
        for (c, p), value in accuracy.items()
    ]
    _save(folder, args.format, pictures={"tsne": draw(points, accuracy, test.classes)})
    _write(folder, tables={"tsne": points}, summaries={"tsne": rows})
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.2f}".format))


def transitions(args: argparse.Namespace) -> None:
    """Draw transition rates, learning rates, steps and latent weights of quantization-aware training."""
    from lowbit.transfer.analyses.runs import pick_layer, read
    from lowbit.transfer.analyses.transitions import draw_curves, draw_latent

    frames = read(args.jobs)
    shown = pick_layer(frames, args.layer)
    pictures = {"transitions": draw_curves(shown)}
    if args.epochs or len(frames["latent"]):
        pictures["latent"] = draw_latent(shown["latent"], args.epochs)
    folder = args.output_dir or Path("output") / "transitions"
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder, args.format, pictures=pictures)
    _write(folder, tables=frames, summaries={})
    last = frames["curves"].groupby(["job", "precision"], sort=False).tail(1)
    print("last epoch\n" + last.to_string(index=False, float_format="{:.4g}".format))


def quantizer(args: argparse.Namespace) -> None:
    """Draw what a weight quantizer does to a distribution of weights, with each of some scales."""
    from lowbit.quant import get_policy
    from lowbit.transfer.analyses.quantizer_steps import (
        draw_intervals,
        draw_steps,
        gaussian,
        quantize_steps,
        summary,
        table,
    )

    weights = gaussian(args.sd, seed=args.seed)
    if args.checkpoint is not None:
        weights = _layer(args.checkpoint, args.layer, args.architecture)
    spec = get_policy(args.policy).weight
    drawn = [quantize_steps(weights, spec, args.bits, scale) for scale in args.scale or [None]]
    folder = args.output_dir or Path("output") / "quantizer"
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {"quantizer_steps": draw_steps(drawn[0])}
    if len(drawn) > 1:
        pictures["quantizer_intervals"] = draw_intervals(drawn)
    _save(folder, args.format, pictures=pictures)
    found = summary(drawn)
    _write(folder, tables={"quantizer": table(drawn)}, summaries={"quantizer": found})
    for row in found:
        points = ", ".join(f"{point:.4g}" for point in row["transition_points"])
        print(
            f"s {row['scale']:.4g}: {100 * row['clipped']:.1f} % clipped, error "
            f"{100 * row['squared_error']:.2f} % of |w|^2, transition points {points}"
        )


def _layer(checkpoint: str, name: str | None, architecture: str | None) -> Any:
    """Return the weights of a checkpoint's layer, flat."""
    from lowbit.backbones import load_backbone
    from lowbit.common.suggest import did_you_mean

    backbone, report = load_backbone(checkpoint, architecture)
    logging.info("%s", report)
    layers = {n: m for n, m in backbone.named_modules() if getattr(m, "weight", None) is not None}
    layers = {n: m for n, m in layers.items() if m.weight.dim() > 1}
    if name not in layers:
        raise ValueError(
            f"the network has no layer {name!r} with a matrix or a kernel; nothing was drawn."
            f"{did_you_mean(str(name), layers)} Give --layer: one of {', '.join(layers)}."
        )
    return layers[name].weight.detach().flatten().float()


def detection(args: argparse.Namespace) -> None:
    """Draw losses, AP and transition rates of detection jobs over their iterations."""
    from lowbit.detection.analyses.training_curves import draw, read

    frames = read(args.jobs)
    folder = args.output_dir or Path("output") / "detection_curves"
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder, args.format, pictures={"detection": draw(frames)})
    _write(folder, tables=frames, summaries={})
    print(frames["scores"].to_string(index=False, float_format="{:.2f}".format))


def _load(args: argparse.Namespace) -> dict[str, Any]:
    """Return the backbones of the checkpoints by method, or by file if that is ambiguous."""
    from lowbit.backbones import load_backbone

    if len(set(args.checkpoints)) < len(args.checkpoints):
        raise ValueError("a checkpoint is listed twice; nothing was drawn. List each once.")
    loaded = []
    for path in args.checkpoints:
        backbone, report = load_backbone(path, args.architecture)
        logging.info("%s", report)
        loaded.append((printable(str(report.meta.get("method") or "")), path, backbone))
    methods = [method for method, _, _ in loaded]
    return {
        method if method and methods.count(method) == 1 else path: backbone
        for method, path, backbone in loaded
    }


def _save(folder: Path, suffix: str, *, pictures: dict[str, Any]) -> None:
    for name, figure in pictures.items():
        path = folder / f"{name}.{suffix}"
        figure.savefig(path, dpi=150)
        print(f"picture: {path}")


def _write(folder: Path, *, tables: dict[str, Any], summaries: dict[str, Any]) -> None:
    from lowbit.benchmark.leaderboard.csv_text import to_csv
    from lowbit.common.atomic_file import write_text

    for name, frame in tables.items():
        write_text(folder / f"{name}.csv", to_csv(frame, float_format="%.8g"))
        print(f"numbers: {folder / name}.csv")
    for name, found in summaries.items():
        write_text(folder / f"{name}.json", json.dumps(found, indent=2) + "\n")


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = make_parser(__doc__, EXAMPLES, prog)
    names = "correlation|weights|tsne|transitions|quantizer|detection"
    verbs = parser.add_subparsers(required=True, metavar=names)
    made = {}
    for function in (correlation, weights, tsne, transitions, quantizer, detection):
        verb = verbs.add_parser(
            function.__name__,
            help=function.__doc__,
            description=function.__doc__,
            epilog=EXAMPLES,
            formatter_class=parser.formatter_class,
        )
        verb.set_defaults(verb=function)
        verb.add_argument("--output-dir", type=Path, help="folder for the plots and numbers")
        verb.add_argument(
            "--format", choices=("png", "svg", "pdf"), default="png", help="of pictures"
        )
        add_threads(verb)
        made[function.__name__] = verb
    add_recipe(made["correlation"], "pretraining recipe, pairing ssql")
    for name in ("weights", "tsne"):
        made[name].add_argument(
            "checkpoints",
            nargs="+",
            metavar="CHECKPOINT",
            help="checkpoint files of any known layout",
        )
        made[name].add_argument(
            "--architecture", help="network's name; default: as given in the files"
        )
    add_tsne(made["tsne"])
    add_transitions(made["transitions"])
    add_quantizer(made["quantizer"])
    made["detection"].add_argument(
        "jobs",
        nargs="+",
        type=Path,
        metavar="JOB_FOLDER",
        help="detection jobs, finished or not",
    )
    return parser
