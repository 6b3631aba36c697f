"""Refuse Detectron2 configurations with keys that have no effect or contradict each other."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

from lowbit.common.text import brief
from lowbit.detection.solver import (
    OPTIMIZERS,
    TARGET_SCHEDULES,
    TRANSITION,
    check_milestones,
)
from lowbit.training.optimizers import CLIP_TYPES

BACKBONES = (
    "build_lowbit_backbone",
    "build_lowbit_fpn_backbone",
    "build_retinanet_lowbit_fpn_backbone",
    "build_lowbit_yolov4_backbone",
)
YOLOV4_KEYS = ("MODEL.YOLOV4.", "INPUT.MOSAIC", "INPUT.COLOR_JITTER")
"""Beginnings of keys that only YOLOv4 has."""
_LONGEST = 10_000  # characters of a value
_TARGET_KEYS = ("LAMBDA", "TARGET_SCHEDULE", "TARGET_STEPS", "TARGET_GAMMA")


def check_opts(opts) -> list[tuple[str, Any]]:
    """Return overrides as pairs of a key and a value.

    Raises:
        ValueError: they are none.
    """
    if len(opts) % 2:
        raise ValueError(
            f"the overrides {brief(list(opts))} are {len(opts)} words; nothing was trained. They come "
            "in pairs, KEY VALUE."
        )
    pairs = list(zip(opts[::2], opts[1::2], strict=True))
    for key, _ in pairs:
        if not isinstance(key, str):
            raise ValueError(
                f"{brief(key)} is overridden, which is no key; nothing was trained. Write KEY, VALUE, "
                "KEY, VALUE."
            )
    return pairs


def check_texts(pairs: Iterable[tuple[str, Any]]) -> None:
    """Refuse text that is too long for Detectron2, which evaluates it as one of Python's literals.

    Raises:
        ValueError: there is one.
    """
    for key, value in pairs:
        if isinstance(value, str) and len(value) > _LONGEST:
            raise ValueError(
                f"the value of {brief(key)} has {len(value):,} characters; nothing was trained. Write "
                f"{_LONGEST:,} at most."
            )


def check_numbers(cfg) -> None:
    """Refuse numbers that are not finite, which Python's literals can be, and flags as numbers.

    Raises:
        ValueError: there is one; the message names its key.
    """
    for key, value in flat(cfg):
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{key} is {number}; nothing was trained. Give a finite number.")
    factor = cfg.SOLVER.SCALE_LR_FACTOR  # of any type for Detectron2, since its default is None
    if factor is not None and type(factor) not in (int, float):
        raise ValueError(
            f"SOLVER.SCALE_LR_FACTOR is {brief(factor)}; nothing was trained. Give a number, or None."
        )


def check_keys(cfg, defaults) -> None:
    """Refuse changed keys that have no effect.

    Args:
        cfg: the configuration.
        defaults: Detectron2's and ours.

    Raises:
        ValueError: a key has no effect; the message names it and the one to use instead.
    """
    if cfg.MODEL.BACKBONE.NAME not in BACKBONES:
        raise ValueError(
            f"MODEL.BACKBONE.NAME is {cfg.MODEL.BACKBONE.NAME}; no detector was built. Only networks of "
            f"this suite can be loaded strictly and quantized: use one of {', '.join(BACKBONES)}."
        )
    _refuse_changed(
        cfg.MODEL.RESNETS,
        defaults.MODEL.RESNETS,
        "MODEL.RESNETS",
        "describes Detectron2's own ResNet, which is not used; name the network under "
        "MODEL.LOWBIT.ARCHITECTURE",
    )
    if not _is_one_of(cfg.DATASETS.VOC_BASE, (None, 0, 1)):
        raise ValueError(
            f"DATASETS.VOC_BASE is {brief(cfg.DATASETS.VOC_BASE)}; nothing was trained. Corners count from "
            "0 or from 1."
        )
    if not cfg.MODEL.QUANT.ENABLED:
        _refuse_changed(
            cfg.MODEL.QUANT,
            defaults.MODEL.QUANT,
            "MODEL.QUANT",
            "is set, but nothing is quantized; set MODEL.QUANT.ENABLED True, or leave it out",
        )
    _check_yolov4(cfg, defaults)
    lowbit = cfg.MODEL.LOWBIT
    if lowbit.RANDOM and (lowbit.CHECKPOINT or lowbit.DETECTOR):
        raise ValueError(
            "MODEL.LOWBIT.RANDOM requests random weights, but CHECKPOINT or DETECTOR names a file; "
            "nothing was loaded. Leave one of them out."
        )


def _check_yolov4(cfg, defaults) -> None:
    """Refuse YOLOv4's keys without it, and what it cannot be built or trained with."""
    asked = cfg.MODEL.META_ARCHITECTURE == "YOLOv4"
    if asked != (cfg.MODEL.BACKBONE.NAME == "build_lowbit_yolov4_backbone"):
        raise ValueError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE} and MODEL.BACKBONE.NAME "
            f"{cfg.MODEL.BACKBONE.NAME}; no detector was built. YOLOv4 and build_lowbit_yolov4_backbone "
            "belong together: set both or neither."
        )
    if not asked:
        known = dict(flat(defaults))
        for key, value in flat(cfg):
            if key.startswith(YOLOV4_KEYS) and value != known.get(key):
                raise ValueError(
                    f"{key} is set, which only YOLOv4 has; nothing was trained. Leave it out, or set "
                    "MODEL.META_ARCHITECTURE YOLOv4."
                )
        return
    shapes = cfg.MODEL.YOLOV4.ANCHORS
    if shapes and (cfg.MODEL.YOLOV4.KMEANS or not _are_anchors(shapes)):
        raise ValueError(
            f"MODEL.YOLOV4.ANCHORS is {brief(shapes)}; nothing was trained. Give nine [width, height] "
            "above 0 and KMEANS False, or leave it empty."
        )
    if len(cfg.MODEL.LOWBIT.OUT_FEATURES) != 3:
        raise ValueError(
            f"MODEL.LOWBIT.OUT_FEATURES is {list(cfg.MODEL.LOWBIT.OUT_FEATURES)}, and YOLOv4 has three "
            "levels; no detector was built. Name three consecutive stages."
        )
    if not 0 <= cfg.INPUT.MOSAIC <= 1 or (cfg.INPUT.MOSAIC and not all(cfg.INPUT.MIN_SIZE_TRAIN)):
        raise ValueError(
            f"INPUT.MOSAIC is {cfg.INPUT.MOSAIC} and INPUT.MIN_SIZE_TRAIN {cfg.INPUT.MIN_SIZE_TRAIN}; "
            "nothing was trained. A share is in 0..1, and a mosaic's side is one of MIN_SIZE_TRAIN."
        )


def _are_anchors(shapes: Any) -> bool:
    pairs = [s for s in shapes if isinstance(s, list | tuple) and len(s) == 2]
    sides = [side for pair in pairs for side in pair]
    return len(pairs) == len(shapes) == 9 and all(
        type(side) in (int, float) and side > 0 for side in sides
    )


def _refuse_changed(found, default, name: str, why: str) -> None:
    for key, value in flat(found):
        if value != dict(flat(default)).get(key):
            raise ValueError(f"{name}.{key} {why}. Nothing was trained.")


def flat(node, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every key of a configuration, dotted, with its value."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def check_solver(cfg, defaults) -> None:
    """Refuse an unknown optimizer or schedule, or keys that it does not use.

    Args:
        cfg: the configuration.
        defaults: Detectron2's and ours.

    Raises:
        ValueError: a key is wrong; the message names it and says what to do.
    """
    kind = cfg.SOLVER.OPTIMIZER.lower()
    _one_of("SOLVER.OPTIMIZER", cfg.SOLVER.OPTIMIZER, [name.upper() for name in OPTIMIZERS])
    _one_of("SOLVER.TARGET_SCHEDULE", cfg.SOLVER.TARGET_SCHEDULE, TARGET_SCHEDULES)
    if kind in TRANSITION and not cfg.MODEL.QUANT.ENABLED:
        raise ValueError(
            f"SOLVER.OPTIMIZER is {cfg.SOLVER.OPTIMIZER}, but no layer is quantized; nothing was "
            f"trained. Set MODEL.QUANT.ENABLED True, or SOLVER.OPTIMIZER "
            f"{'SGD' if kind == 'sgdt' else 'ADAMW'}."
        )
    if kind not in TRANSITION:
        _refuse_targets(cfg, defaults)
    if cfg.SOLVER.OSCILLATION and (kind in TRANSITION or not cfg.MODEL.QUANT.ENABLED):
        raise ValueError(
            "SOLVER.OSCILLATION is set, but "
            + (
                f"{cfg.SOLVER.OPTIMIZER} schedules transitions, of which it is a rival"
                if kind in TRANSITION
                else "no layer is quantized"
            )
            + "; nothing was trained. Leave it out, or use SGD or ADAMW with MODEL.QUANT.ENABLED True."
        )
    ignored = {
        "SOLVER.NESTEROV": cfg.SOLVER.NESTEROV,
        "SOLVER.BIAS_LR_FACTOR": cfg.SOLVER.BIAS_LR_FACTOR != 1,
        "SOLVER.WEIGHT_DECAY_BIAS": cfg.SOLVER.WEIGHT_DECAY_BIAS is not None,
    }
    for key, is_set in ignored.items():
        if is_set:
            raise ValueError(
                f"{key} is set, which the optimizers here do not use; nothing was trained. "
                "Leave it at Detectron2's default."
            )
    check_milestones(
        "SOLVER.TARGET_STEPS",
        cfg.SOLVER.TARGET_SCHEDULE,
        cfg.SOLVER.TARGET_STEPS,
        cfg.SOLVER.MAX_ITER,
    )
    if cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
        _one_of("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE, CLIP_TYPES)


def _refuse_targets(cfg, defaults) -> None:
    for key in _TARGET_KEYS:
        if cfg.SOLVER[key] != defaults.SOLVER[key]:
            raise ValueError(
                f"SOLVER.{key} is set, but {cfg.SOLVER.OPTIMIZER} follows no target rate; nothing was "
                f"trained. Use one of {', '.join(name.upper() for name in TRANSITION)}, or leave it out."
            )


def _is_one_of(value: Any, allowed: tuple) -> bool:
    """Whether a value is one of those allowed and of its type: true is not 1."""
    return any(type(value) is type(one) and value == one for one in allowed)


def _one_of(key: str, value: str, allowed) -> None:
    if value not in allowed:
        raise ValueError(
            f"{key} is {value!r}; nothing was trained. Use one of {', '.join(allowed)}."
        )
