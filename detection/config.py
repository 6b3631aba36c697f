"""Our keys in Detectron2's configuration, and a whole configuration from a recipe. Needs Detectron2."""

import json
from pathlib import Path

from detectron2.config import CfgNode, get_cfg

from detection.levels import anchor_sizes, level_strides
from detection.preparation import Start
from detection.recipe import Recipe
from detection.solver import Solver
from quant import Precision, QuantPolicy, get_policy


def add_lowbit_config(cfg: CfgNode) -> None:
    """Add our keys to Detectron2's defaults, in place; this function is their manual."""
    # ---------------------------------------------------------------------------- #
    # The backbone: any network of `backbones` by its name
    # ---------------------------------------------------------------------------- #
    cfg.MODEL.LOWBIT = CfgNode()
    cfg.MODEL.LOWBIT.ARCHITECTURE = "resnet18"
    # Backbone file to start from; every tensor of the network must be in it. MODEL.WEIGHTS stays
    # empty: Detectron2 loads what matches there and goes on with the rest random.
    cfg.MODEL.LOWBIT.CHECKPOINT = ""
    # detector.pth to start from instead: a full-precision one to be quantized, or (with
    # --eval-only) any.
    cfg.MODEL.LOWBIT.DETECTOR = ""
    # Stages handed to the pyramid; MODEL.FPN.IN_FEATURES must be among them.
    cfg.MODEL.LOWBIT.OUT_FEATURES = ["res3", "res4", "res5"]
    # Two more levels convolved from the last stage (build_retinanet_lowbit_fpn_backbone).
    cfg.MODEL.LOWBIT.EXTRA_LEVELS = True
    # "BN", or "SyncBN" on several GPUs. Trainable either way; MODEL.BACKBONE.FREEZE_AT must be 0.
    cfg.MODEL.LOWBIT.NORM = "BN"

    # ---------------------------------------------------------------------------- #
    # Quantization of the backbone (its stem, the pyramid and the heads stay in full precision)
    # ---------------------------------------------------------------------------- #
    cfg.MODEL.QUANT = CfgNode()
    cfg.MODEL.QUANT.ENABLED = False
    # A policy's name ("lsq", "tr", ...), or a JSON object as `quant.get_policy` takes.
    cfg.MODEL.QUANT.POLICY = "lsq"
    # Weight and activation bits, as "4w4a".
    cfg.MODEL.QUANT.PRECISION = "4w4a"
    # Training images that set the ranges, through the training pipeline, before the first step.
    cfg.MODEL.QUANT.CALIBRATION_IMAGES = 64

    # ---------------------------------------------------------------------------- #
    # Solver
    # ---------------------------------------------------------------------------- #
    # "SGD", or "SGDT": SGD whose quantized layers follow a target transition rate.
    cfg.SOLVER.OPTIMIZER = "SGD"
    # Learning rate of quantizer scales over BASE_LR; they have no weight decay.
    cfg.SOLVER.SCALE_LR_FACTOR = 0.1
    # SGDT: λ of the initial target rate λ sqrt(weight bits), which falls to 0 over MAX_ITER.
    cfg.SOLVER.LAMBDA = 1e-3

    # Iterations between lines of OUTPUT_DIR/metrics.jsonl (losses, learning and transition rates).
    cfg.LOWBIT_LOG_PERIOD = 20


def quantization(cfg: CfgNode) -> tuple[QuantPolicy, Precision] | None:
    """Return what a configuration asks for, or None in full precision."""
    if not cfg.MODEL.QUANT.ENABLED:
        return None
    policy = cfg.MODEL.QUANT.POLICY
    if policy.lstrip().startswith("{"):
        policy = json.loads(policy)
    return get_policy(policy), Precision.parse(cfg.MODEL.QUANT.PRECISION)


def solver(cfg: CfgNode) -> Solver:
    """Return the numbers of a configuration's training.

    Raises:
        ValueError: an unknown optimizer, SGDT without quantization, or a key that would do nothing.
    """
    kind = cfg.SOLVER.OPTIMIZER.lower()
    if kind not in ("sgd", "sgdt"):
        raise ValueError(
            f"SOLVER.OPTIMIZER is {cfg.SOLVER.OPTIMIZER!r}; nothing was trained. Use SGD or SGDT."
        )
    if kind == "sgdt" and not cfg.MODEL.QUANT.ENABLED:
        raise ValueError(
            "SOLVER.OPTIMIZER is SGDT, but no layer is quantized; nothing was trained. "
            "Set MODEL.QUANT.ENABLED True, or SOLVER.OPTIMIZER SGD."
        )
    ignored = {
        "SOLVER.NESTEROV": cfg.SOLVER.NESTEROV,
        "SOLVER.BIAS_LR_FACTOR": cfg.SOLVER.BIAS_LR_FACTOR != 1,
        "SOLVER.WEIGHT_DECAY_BIAS": cfg.SOLVER.WEIGHT_DECAY_BIAS is not None,
    }
    for key, is_set in ignored.items():
        if is_set:
            raise ValueError(
                f"{key} is set, which the optimizers here do not read; nothing was trained. "
                "Leave it at Detectron2's default."
            )
    asked = quantization(cfg)
    return Solver(
        optimizer=kind,
        lr=cfg.SOLVER.BASE_LR,
        iterations=cfg.SOLVER.MAX_ITER,
        momentum=cfg.SOLVER.MOMENTUM,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
        scale_lr_factor=cfg.SOLVER.SCALE_LR_FACTOR,
        warmup_iterations=cfg.SOLVER.WARMUP_ITERS,
        warmup_factor=cfg.SOLVER.WARMUP_FACTOR,
        lambda_=cfg.SOLVER.LAMBDA,
        weight_bits=asked[1].weight_bits if asked else 32,
    )


def to_cfg(
    recipe: Recipe, start: Start, *, classes: int, folder: Path | str = "", dataset: str = ""
) -> CfgNode:
    """Return the configuration that makes Detectron2 do what a recipe says.

    Args:
        recipe: whose engine is detectron2.
        start: what the training starts from.
        classes: number of classes.
        folder: OUTPUT_DIR.
        dataset: registered name of the training images.

    Detectron2's model zoo is not read: its RetinaNet base needs unsafe YAML and an old setuptools.
    """
    cfg = get_cfg()
    add_lowbit_config(cfg)
    strides = level_strides(start.network, recipe.features, extra=recipe.extra_levels)
    mean, std = start.normalization
    numbers = recipe.solver
    policy = recipe.quant_policy
    cfg.OUTPUT_DIR = str(folder)
    cfg.SEED = recipe.seed
    cfg.VERSION = 2

    cfg.MODEL.DEVICE = recipe.device
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.PIXEL_MEAN = [255 * value for value in mean]
    cfg.MODEL.PIXEL_STD = [255 * value for value in std]
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_lowbit_fpn_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.LOWBIT.ARCHITECTURE = start.architecture
    cfg.MODEL.LOWBIT.CHECKPOINT = recipe.checkpoint or ""
    cfg.MODEL.LOWBIT.DETECTOR = recipe.detector or ""
    cfg.MODEL.LOWBIT.OUT_FEATURES = list(recipe.features)
    cfg.MODEL.LOWBIT.EXTRA_LEVELS = recipe.extra_levels
    norm = "" if recipe.norm == "none" else recipe.norm
    cfg.MODEL.FPN.IN_FEATURES = list(recipe.features)
    cfg.MODEL.FPN.OUT_CHANNELS = recipe.fpn_channels
    cfg.MODEL.FPN.NORM = norm
    cfg.MODEL.RETINANET.NORM = norm
    cfg.MODEL.RETINANET.IN_FEATURES = [f"p{stride.bit_length() - 1}" for stride in strides]
    cfg.MODEL.RETINANET.NUM_CLASSES = classes
    cfg.MODEL.RETINANET.NUM_CONVS = recipe.head_convs
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = anchor_sizes(strides, recipe.anchor_scales)
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [list(recipe.aspect_ratios)]
    if policy is not None:
        cfg.MODEL.QUANT.ENABLED = True
        cfg.MODEL.QUANT.POLICY = json.dumps(policy.to_dict())
        cfg.MODEL.QUANT.PRECISION = recipe.precision
        cfg.MODEL.QUANT.CALIBRATION_IMAGES = recipe.calibration_images

    cfg.INPUT.FORMAT = "RGB"
    cfg.DATASETS.TRAIN = (dataset,)
    cfg.DATASETS.TEST = ()  # the stage evaluates
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False

    cfg.SOLVER.OPTIMIZER = numbers.optimizer.upper()
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupCosineLR"
    cfg.SOLVER.BASE_LR = numbers.lr
    cfg.SOLVER.MAX_ITER = numbers.iterations
    cfg.SOLVER.MOMENTUM = numbers.momentum
    cfg.SOLVER.WEIGHT_DECAY = numbers.weight_decay
    cfg.SOLVER.WEIGHT_DECAY_NORM = numbers.weight_decay_norm
    cfg.SOLVER.SCALE_LR_FACTOR = numbers.scale_lr_factor
    cfg.SOLVER.WARMUP_ITERS = numbers.warmup_iterations
    cfg.SOLVER.WARMUP_FACTOR = numbers.warmup_factor
    cfg.SOLVER.LAMBDA = numbers.lambda_
    cfg.SOLVER.IMS_PER_BATCH = recipe.batch_size
    cfg.SOLVER.CHECKPOINT_PERIOD = recipe.checkpoint_every
    cfg.LOWBIT_LOG_PERIOD = recipe.log_every
    return cfg
