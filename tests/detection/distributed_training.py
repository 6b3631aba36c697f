"""A training that one or two processes can do."""

import os
import signal
from pathlib import Path

import torch
from pytest import MonkeyPatch

# Only the region proposal network, and of all anchors: its loss is a mean over images, and nothing is
# drawn. RetinaNet's is divided by an average that each process keeps of its own images' objects.
CONFIG = """
VERSION: 2
MODEL:
  DEVICE: cpu
  META_ARCHITECTURE: ProposalNetwork
  PIXEL_MEAN: [78.132, 78.132, 78.132]
  PIXEL_STD: [82.569, 82.569, 82.569]
  BACKBONE: {NAME: build_lowbit_fpn_backbone, FREEZE_AT: 0}
  LOWBIT: {ARCHITECTURE: resnet10_slim, OUT_FEATURES: [res4, res5], NORM: FrozenBN}
  FPN: {IN_FEATURES: [res4, res5], OUT_CHANNELS: 32}
  ANCHOR_GENERATOR: {SIZES: [[16], [32], [64]], ASPECT_RATIOS: [[1.0]]}
  RPN:
    IN_FEATURES: [p3, p4, p5]
    BATCH_SIZE_PER_IMAGE: 200     # of 84 anchors
    POST_NMS_TOPK_TRAIN: 10
INPUT: {FORMAT: RGB}
DATASETS: {TRAIN: [two_processes_scenes], TEST: []}
DATALOADER: {NUM_WORKERS: 0, ASPECT_RATIO_GROUPING: False}
SOLVER: {IMS_PER_BATCH: 4, WARMUP_ITERS: 2, BASE_LR: 0.01}
SEED: 0
"""


def train(folder: str, cases: dict[str, list]) -> None:
    """Train by the configuration in `folder`, once a case; each process writes what it has learned."""
    from lowbit.detection.with_detectron2.install import import_detectron2

    import_detectron2()
    from detectron2.utils import comm

    from lowbit.detection.datasets.catalog import load_detection
    from lowbit.detection.datasets.digit_scenes import Layout
    from lowbit.detection.with_detectron2.catalog import register
    from lowbit.detection.with_detectron2.config import read_config
    from lowbit.detection.with_detectron2.trainer import LowbitTrainer

    torch.set_num_threads(1)
    layout = Layout(64, (1, 2), (16, 32))
    register(
        "two_processes_scenes", lambda: load_detection("digit-scenes", "train", 8, layout=layout)
    )
    world, rank = comm.get_world_size(), comm.get_rank()
    for case, opts in cases.items():
        cfg = read_config(Path(folder) / "config.yaml", opts, processes=world)
        cfg.OUTPUT_DIR = f"{folder}/{case}_{world}"
        Path(cfg.OUTPUT_DIR).mkdir(exist_ok=True)
        trainer = LowbitTrainer(cfg)
        trainer.train()
        state = trainer.checkpointer.model.state_dict()
        rates = getattr(trainer._trainer.optimizer, "rates", dict)()
        torch.save({"model": state, "rates": rates}, f"{cfg.OUTPUT_DIR}/learned_{rank}.pth")


def train_together(folder: str, cases: dict[str, list]) -> None:
    """Train in the group that a launcher's variables describe."""
    from lowbit.detection import process_group

    with process_group():
        train(folder, cases)


def train_until_told_to_stop(folder: str, backbone: str) -> int:
    """Train so; the second process is told to stop in iteration 3."""
    from lowbit.common.preemption import Preempted
    from lowbit.training import distributed
    from lowbit.training.seeding import seed_everything
    from tests.detection.stopping import SEEDED_BY

    def seed_and_signal(seed: int, index: int) -> None:
        seed_everything(seed, index)
        if distributed.rank() == 1 and index == 3 * 2 + 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with MonkeyPatch.context() as patch:
        patch.setattr(SEEDED_BY["detectron2"], seed_and_signal)
        try:
            train_together(
                folder, {"stopped": ["SOLVER.MAX_ITER", 6, "MODEL.LOWBIT.CHECKPOINT", backbone]}
            )
        except Preempted as stop:
            assert "after iteration 3 of 6" in str(stop)
            return stop.code
    return 0
