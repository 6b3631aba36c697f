"""Add our keys to Detectron2's configuration, and read configurations. Needs Detectron2."""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, get_cfg
from detectron2.utils.logger import log_first_n

from lowbit.common.input_files.yaml_bases import load_file
from lowbit.common.suggest import did_you_mean
from lowbit.common.text import brief, printable
from lowbit.detection.solver import Solver
from lowbit.detection.with_detectron2.config_checks import (
    check_keys,
    check_numbers,
    check_opts,
    check_solver,
    check_texts,
    flat,
)
from lowbit.quant import Precision, QuantPolicy, Rule, get_policy
from lowbit.training.oscillation_control import Oscillation

# What yacs raises for a wrong key or type, and Python for a value that yacs evaluates as a literal.
_YACS_ERRORS = (
    AssertionError,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
    RecursionError,
    MemoryError,
)


def add_lowbit_config(cfg: CfgNode) -> None:
    """Add our keys to Detectron2's defaults, in place; the comments here document them."""
    # ---------------------------------------------------------------------------- #
    # Backbone: the name of any network of `backbones`
    # ---------------------------------------------------------------------------- #
    cfg.MODEL.LOWBIT = CfgNode()
    cfg.MODEL.LOWBIT.ARCHITECTURE = "resnet18"
    # Backbone file to start from; every tensor of the network must be in it. MODEL.WEIGHTS stays
    # empty: Detectron2 would load what matches and leave the rest random.
    cfg.MODEL.LOWBIT.CHECKPOINT = ""
    # Start from random weights, without a CHECKPOINT.
    cfg.MODEL.LOWBIT.RANDOM = False
    # detector.pth to start from instead: full-precision to be quantized, or (with
    # --eval-only) any.
    cfg.MODEL.LOWBIT.DETECTOR = ""
    # Stages passed to the pyramid; MODEL.FPN.IN_FEATURES must be among them.
    cfg.MODEL.LOWBIT.OUT_FEATURES = ["res3", "res4", "res5"]
    # Two more levels convolved from the last stage (build_retinanet_lowbit_fpn_backbone).
    cfg.MODEL.LOWBIT.EXTRA_LEVELS = True
    # "BN", "SyncBN" on several GPUs, or "FrozenBN" (statistics and affine of the file; not with the
    # Interval quantizer). MODEL.BACKBONE.FREEZE_AT counts as usual: 1 the stem, 2 also res2, ...;
    # the weights of a quantized layer must not be frozen.
    cfg.MODEL.LOWBIT.NORM = "BN"
    # A ReLU on the pyramid's outputs, so that the heads' inputs are non-negative.
    cfg.MODEL.LOWBIT.FPN_RELU = False

    # ---------------------------------------------------------------------------- #
    # YOLOv4: MODEL.META_ARCHITECTURE YOLOv4 and MODEL.BACKBONE.NAME build_lowbit_yolov4_backbone
    # ---------------------------------------------------------------------------- #
    # MODEL.LOWBIT.OUT_FEATURES has three stages; MODEL.FPN.OUT_CHANNELS is of the finest level (128 in
    # the published network), and MODEL.FPN.NORM the norm of neck and head.
    cfg.MODEL.YOLOV4 = CfgNode()
    cfg.MODEL.YOLOV4.NUM_CLASSES = 80
    # Nine [width, height] in pixels, three a level from fine to coarse; empty: the published ones.
    cfg.MODEL.YOLOV4.ANCHORS = []
    # Anchors are k-means of the training boxes.
    cfg.MODEL.YOLOV4.KMEANS = False
    # Share of training images that are mosaics of four, with a side of INPUT.MIN_SIZE_TRAIN.
    cfg.INPUT.MOSAIC = 0.0
    # Change hue, saturation and brightness of training images.
    cfg.INPUT.COLOR_JITTER = False

    # ---------------------------------------------------------------------------- #
    # Quantization
    # ---------------------------------------------------------------------------- #
    cfg.MODEL.QUANT = CfgNode()
    cfg.MODEL.QUANT.ENABLED = False
    # A policy's name ("lsq", "tr", ...), or a JSON object, see `lowbit.quant.get_policy`.
    cfg.MODEL.QUANT.POLICY = "lsq"
    # Names of layers, with wildcards, that stay in full precision whatever the policy; those of
    # the pyramid begin with "neck.", those of the heads with "head.".
    cfg.MODEL.QUANT.FP_LAYERS = []
    # Weight and activation bits, such as "4w4a".
    cfg.MODEL.QUANT.PRECISION = "4w4a"
    # "backbone" (a C4 detector's res5 belongs to its head), "backbone+neck" or "full" (also the heads,
    # except their predictors). `lowbit.detection.detector.quantize` has the names that rules match.
    cfg.MODEL.QUANT.SCOPE = "backbone"
    # Number of training images that set the ranges, before the first step.
    cfg.MODEL.QUANT.CALIBRATION_IMAGES = 64

    # ---------------------------------------------------------------------------- #
    # Data
    # ---------------------------------------------------------------------------- #
    # What the corners of voc:NAME sets count from: 1 (pixels, inclusive) or 0 (borders). None: 1, and
    # a corner of 0 is refused.
    cfg.DATASETS.VOC_BASE = None

    # ---------------------------------------------------------------------------- #
    # Solver
    # ---------------------------------------------------------------------------- #
    # "SGD", "ADAMW", or "SGDT", "ADAMT", "ADAMWT": the latent weights of quantized layers follow a
    # target transition rate.
    cfg.SOLVER.OPTIMIZER = "SGD"
    # Learning rate of quantizer scales over BASE_LR; they have no weight decay. None: the quantizer's,
    # 1 for LSQ and LSQ+, 0.1 for the others.
    cfg.SOLVER.SCALE_LR_FACTOR = None
    # SGDT, ADAMT, ADAMWT: λ of the initial target rate λ sqrt(weight bits).
    cfg.SOLVER.LAMBDA = 1e-3
    # How the target decays: "cosine" or "linear" to 0 over MAX_ITER, "step", or "constant".
    cfg.SOLVER.TARGET_SCHEDULE = "cosine"
    # "step": the iterations of its drops, and the factor of each drop.
    cfg.SOLVER.TARGET_STEPS = ()
    cfg.SOLVER.TARGET_GAMMA = 0.2
    # What is done about weights that oscillate between levels, with SGD and ADAMW: "dampening",
    # "freezing", or a JSON object, see `lowbit.training.oscillation_control.Oscillation`.
    cfg.SOLVER.OSCILLATION = ""
    # SOLVER.CLIP_GRADIENTS.CLIP_TYPE may also be "full_model": clip all gradients by their joint norm.

    # Iterations after which DATASETS.TEST is evaluated, in addition to TEST.EVAL_PERIOD and the end.
    cfg.TEST.EVAL_AT = ()

    # Iterations between lines in OUTPUT_DIR/metrics.jsonl (losses, learning and transition rates).
    cfg.LOWBIT_LOG_PERIOD = 20


def default_config() -> CfgNode:
    """Return Detectron2's defaults with our keys."""
    cfg = get_cfg()
    add_lowbit_config(cfg)
    return cfg


def read_config(path: Path | str, opts: Sequence[Any] = (), *, processes: int = 1) -> CfgNode:
    """Read a configuration file with its bases, apply overrides, and validate it.

    The file is read as recipes are: Detectron2's own reader runs the code that a file's tags name.

    Args:
        path: the YAML file.
        opts: KEY, VALUE, KEY, VALUE, ...
        processes: number of training processes; with one, SyncBN becomes BN.

    Raises:
        ValueError: the file cannot be read, or a key is unknown, has no effect, or contradicts another.
    """
    cfg = default_config()
    content = load_file(path)
    version = content.setdefault("VERSION", cfg.VERSION)
    if version != cfg.VERSION:
        raise ValueError(
            f"{path} has VERSION {brief(version)}, and {cfg.VERSION} is read; nothing was trained. Convert "
            "it with Detectron2."
        )
    check_texts([*flat(content), *check_opts(opts)])
    try:
        cfg.merge_from_other_cfg(CfgNode(content))
        cfg.merge_from_list(list(opts))
    except _YACS_ERRORS as error:
        said = printable(str(error))
        raise ValueError(
            f"{path} or an override does not fit Detectron2's configuration ({said}); nothing was "
            f"trained.{_nearest(said)} Keys are Detectron2's and those of detection/with_detectron2/config.py, "
            "and overrides come in pairs, KEY VALUE."
        ) from error
    check(cfg)
    if processes == 1:
        _without_sync(cfg)
    return cfg


def check(cfg: CfgNode) -> None:
    """Refuse keys that have no effect or contradict each other."""
    defaults = default_config()
    check_numbers(cfg)
    check_keys(cfg, defaults)
    check_solver(cfg, defaults)


def _nearest(message: str) -> str:
    """Suggest a known key for the unknown one in a message."""
    found = re.search(r"[Nn]on-existent (?:config )?key: ([\w.]+)", message)
    if found is None:
        return ""
    known = [key for key, _ in flat(default_config())]
    sections = {key.rpartition(".")[0] for key in known}
    return did_you_mean(found[1], [*known, *sections])


def _without_sync(cfg: CfgNode) -> None:
    changed = list(_sync_norms(cfg))
    for node in changed:
        node.NORM = "BN"
    if changed:
        message = "one process: SyncBN is replaced by BN, which computes the same and runs anywhere"
        log_first_n(logging.INFO, message, name=__name__)


def _sync_norms(node: CfgNode) -> Iterator[CfgNode]:
    if node.get("NORM") == "SyncBN":
        yield node
    for child in node.values():
        if isinstance(child, CfgNode):
            yield from _sync_norms(child)


def quantization(cfg: CfgNode) -> tuple[QuantPolicy, Precision] | None:
    """Return a configuration's quantization, or None in full precision."""
    if not cfg.MODEL.QUANT.ENABLED:
        return None
    policy = cfg.MODEL.QUANT.POLICY
    if policy.lstrip().startswith("{"):
        policy = _from_json("MODEL.QUANT.POLICY", policy)
    policy = get_policy(policy)
    kept = tuple((pattern, Rule.parse("fp")) for pattern in cfg.MODEL.QUANT.FP_LAYERS)
    return replace(policy, rules=kept + policy.rules), Precision.parse(cfg.MODEL.QUANT.PRECISION)


def _from_json(key: str, text: str) -> dict[str, Any]:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{key} is {brief(text)}, which is not JSON ({error}); nothing was trained. Correct it, or "
            "give a name."
        ) from error


def oscillation(cfg: CfgNode) -> Oscillation | None:
    """Return what a configuration does about oscillating weights, or None."""
    text = cfg.SOLVER.OSCILLATION
    if not text:
        return None
    fields = {"method": text}
    if text.lstrip().startswith("{"):
        fields = _from_json("SOLVER.OSCILLATION", text)
    return Oscillation.model_validate(fields)


def solver(cfg: CfgNode) -> Solver:
    """Return a configuration's training settings.

    Raises:
        ValueError: refused by `lowbit.detection.with_detectron2.config_checks`.
    """
    check_solver(cfg, default_config())
    asked = quantization(cfg)
    clipping = cfg.SOLVER.CLIP_GRADIENTS
    return Solver(
        optimizer=cfg.SOLVER.OPTIMIZER.lower(),
        lr=cfg.SOLVER.BASE_LR,
        iterations=cfg.SOLVER.MAX_ITER,
        momentum=cfg.SOLVER.MOMENTUM,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
        scale_lr_factor=cfg.SOLVER.SCALE_LR_FACTOR,
        warmup_iterations=cfg.SOLVER.WARMUP_ITERS,
        warmup_factor=cfg.SOLVER.WARMUP_FACTOR,
        schedule="step" if cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupMultiStepLR" else "cosine",
        milestones=tuple(cfg.SOLVER.STEPS),
        lr_factor=cfg.SOLVER.GAMMA,
        lr_end=cfg.SOLVER.BASE_LR_END,
        lambda_=cfg.SOLVER.LAMBDA,
        weight_bits=asked[1].weight_bits if asked else 32,
        target_schedule=cfg.SOLVER.TARGET_SCHEDULE,
        target_milestones=tuple(cfg.SOLVER.TARGET_STEPS),
        target_factor=cfg.SOLVER.TARGET_GAMMA,
        oscillation=oscillation(cfg),
        clip_type=clipping.CLIP_TYPE if clipping.ENABLED else None,
        clip_value=clipping.CLIP_VALUE,
        clip_norm=clipping.NORM_TYPE,
    )
