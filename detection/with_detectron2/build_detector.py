"""Build detectors from a Detectron2 configuration: load initial weights, save trained ones.

Needs Detectron2. The configuration is that of `lowbit.detection.with_detectron2.config`.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from detectron2.data import get_detection_dataset_dicts
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch import fcos, retinanet
from fvcore.nn import sigmoid_focal_loss
from torch import nn

import lowbit.detection.with_detectron2.backbone
import lowbit.detection.yolov4.meta_architecture  # noqa: F401  (both register detectors' parts)
from lowbit.detection.detector.detector_file import (
    check_relu,
    read_detector,
    restore_detector,
    save_detector,
)
from lowbit.detection.detector.initial_weights import (
    CALIBRATION_BATCH,
    Start,
    start_from_backbone,
    start_from_detector,
    start_from_random,
)
from lowbit.detection.detector.quantize import quantize_layers
from lowbit.detection.with_detectron2.catalog import Mapper
from lowbit.detection.with_detectron2.config import quantization
from lowbit.training.seeding import seed_of

# TorchScript runs the first calls of a process unoptimized and rounds the later ones otherwise, so that
# a resumed training would differ from one that was not interrupted.
for _detector in (fcos, retinanet):
    _detector.sigmoid_focal_loss_jit = sigmoid_focal_loss


def start_from(cfg) -> Start:
    """Load the initial weights of a configuration.

    Raises:
        ValueError: none are named, or the images would not be normalized as in their training.
    """
    checkpoint, detector = cfg.MODEL.LOWBIT.CHECKPOINT, cfg.MODEL.LOWBIT.DETECTOR
    if detector:
        relu = cfg.MODEL.LOWBIT.FPN_RELU
        start = start_from_detector(detector, engine="detectron2", fpn_relu=relu)
    elif cfg.MODEL.LOWBIT.RANDOM and not cfg.MODEL.QUANT.ENABLED:
        start = start_from_random(cfg.MODEL.LOWBIT.ARCHITECTURE)
    elif checkpoint and not cfg.MODEL.QUANT.ENABLED:
        start = start_from_backbone(checkpoint, cfg.MODEL.LOWBIT.ARCHITECTURE)
    else:
        raise ValueError(
            "MODEL.LOWBIT names no file to start from; nothing was trained. Give a backbone under "
            "CHECKPOINT to train in full precision (or set RANDOM True, for random weights), or a "
            "trained detector under DETECTOR, which quantization starts from."
        )
    check_input(cfg, start)
    return start


def check_input(cfg, start: Start) -> None:
    """Refuse a channel order or normalization that the weights were not trained with."""
    mean, std = ([255 * value for value in values] for values in start.normalization)
    found = torch.tensor([*cfg.MODEL.PIXEL_MEAN, *cfg.MODEL.PIXEL_STD])
    same = torch.allclose(found, torch.tensor([*mean, *std]), atol=1e-2)
    if cfg.INPUT.FORMAT != "RGB" or not same:
        raise ValueError(
            "the weights were trained on RGB images with another normalization; nothing was "
            "trained, since the features would be wrong. Set INPUT.FORMAT "
            f"RGB, MODEL.PIXEL_MEAN {[round(v, 3) for v in mean]} and MODEL.PIXEL_STD "
            f"{[round(v, 3) for v in std]}."
        )


def load_trained(cfg) -> nn.Module:
    """Build the detector of MODEL.LOWBIT.DETECTOR, quantized or not, for evaluation.

    Raises:
        ValueError: the file's precision, policy or FPN_RELU differs from the configuration.
    """
    path = cfg.MODEL.LOWBIT.DETECTOR
    state, meta = read_detector(path, engine="detectron2")
    asked = quantization(cfg)
    named = (str(asked[1]), asked[0].fingerprint) if asked else ("FP", None)
    if named != (meta["precision"], meta["policy_fingerprint"]):
        raise ValueError(
            f"{path} holds a detector at {meta['precision']} (policy {meta['policy_fingerprint']}), "
            f"but the configuration says {named[0]} (policy {named[1]}); nothing was evaluated. "
            "Evaluate it with the MODEL.QUANT keys it was trained with."
        )
    check_relu(path, meta, cfg.MODEL.LOWBIT.FPN_RELU)
    model = build_detector(cfg)
    if asked is not None:
        quantize_layers(model, *asked, scope=cfg.MODEL.QUANT.SCOPE)
    restore_detector(model, state, source=path)
    return model


def save_trained(cfg, model: nn.Module) -> Path:
    """Write a trained model as OUTPUT_DIR/detector.pth; return its path."""
    asked = quantization(cfg)
    constants = (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)
    meta = {
        "engine": "detectron2",
        "architecture": cfg.MODEL.LOWBIT.ARCHITECTURE,
        "method": cfg.SOLVER.OPTIMIZER.lower() if asked else "fp",
        "precision": str(asked[1]) if asked else "FP",
        "policy": asked[0].to_dict() if asked else None,
        "policy_fingerprint": asked[0].fingerprint if asked else None,
        "backbone": start_from(cfg).backbone,
        "normalization": [[value / 255 for value in values] for values in constants],
        "config": cfg.dump(),
    }
    path = Path(cfg.OUTPUT_DIR) / "detector.pth"
    save_detector(path, model, meta)
    return path


def build_detector(cfg) -> nn.Module:
    """Build a detector with random weights that depend only on SEED."""
    with torch.random.fork_rng(devices=[]):  # built on the CPU, then moved
        if cfg.SEED >= 0:
            torch.manual_seed(seed_of(cfg.SEED, 0))
        return build_model(cfg)


def calibration_batches(cfg) -> Iterator[list[dict]]:
    """Yield batches of the first training images, at test-time size."""
    dicts = get_detection_dataset_dicts(
        cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    )
    mapper = Mapper(cfg, is_train=False)
    records = dicts[: cfg.MODEL.QUANT.CALIBRATION_IMAGES]
    for first in range(0, len(records), CALIBRATION_BATCH):
        yield [mapper(record) for record in records[first : first + CALIBRATION_BATCH]]
