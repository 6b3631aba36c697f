"""Two processes learn what one learns at the same total batch, whatever the optimizer."""

import os

import pytest
import torch

from tests.detection.distributed_training import (
    CONFIG,
    train,
    train_together,
    train_until_told_to_stop,
)
from tests.forked_ranks import launch

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.filterwarnings("ignore:torch.meshgrid"),  # in Detectron2's anchors
]

LSQ = ["MODEL.QUANT.ENABLED", True, "MODEL.QUANT.PRECISION", "4w4a", "MODEL.QUANT.SCOPE", "full"]
CLIP = ["SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model"]
CASES = {
    "full_precision": ["SOLVER.OPTIMIZER", "SGD", *CLIP],
    "sgd": [*LSQ, "SOLVER.OPTIMIZER", "SGD", *CLIP],
    "adamwt": [*LSQ, "SOLVER.OPTIMIZER", "ADAMWT", "SOLVER.BASE_LR", 1e-3, "SOLVER.LAMBDA", 5e-2],
}


@pytest.fixture
def folder(tmp_path):
    """A folder with the configuration and a detector in full precision to be quantized."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def start_file(folder, backbone_file):
    from lowbit.detection.with_detectron2.build_detector import save_trained
    from lowbit.detection.with_detectron2.config import read_config
    from lowbit.detection.with_detectron2.trainer import LowbitTrainer

    start = ["MODEL.LOWBIT.CHECKPOINT", backbone_file, "OUTPUT_DIR", str(folder)]
    cfg = read_config(folder / "config.yaml", start)
    return str(save_trained(cfg, LowbitTrainer.build_model(cfg)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="NCCL wants two GPUs")
def test_two_processes_equal_one(folder, backbone_file):
    from lowbit.detection.datasets.catalog import load_detection
    from lowbit.detection.datasets.digit_scenes import Layout
    from lowbit.detection.with_detectron2.catalog import register

    layout = Layout(64, (1, 2), (16, 32))
    register(
        "two_processes_scenes", lambda: load_detection("digit-scenes", "train", 8, layout=layout)
    )
    detector = start_file(folder, backbone_file)
    common = ["MODEL.LOWBIT.DETECTOR", detector, "SOLVER.MAX_ITER", 6]
    cases = {name: [*common, *opts] for name, opts in CASES.items()}
    train(str(folder), cases)
    launch(train_together, str(folder), cases, folder=folder)
    start = torch.load(detector, weights_only=True)["model"]
    for case in cases:
        one = torch.load(folder / f"{case}_1" / "learned_0.pth")
        first, second = (torch.load(folder / f"{case}_2" / f"learned_{r}.pth") for r in (0, 1))
        assert all(torch.equal(first["model"][n], second["model"][n]) for n in first["model"])
        assert first["rates"] == second["rates"]
        # In full precision only the order of sums differs. A low-bit code on a rounding tie may fall on either
        # side of it, and later steps differ a little: by far less than the training moved the weights.
        names = [name for name in start if name.endswith("weight")]
        learned, together, begun = (
            torch.cat([state[name].flatten() for name in names])
            for state in (one["model"], first["model"], start)
        )
        moved = torch.linalg.vector_norm(learned - begun)
        allowed = 1e-3 if case == "full_precision" else 0.1
        assert torch.linalg.vector_norm(together - learned) < allowed * moved
        assert (learned - begun).abs().max() > 1e-3, case


@pytest.mark.skipif(torch.cuda.is_available(), reason="NCCL wants two GPUs")
def test_two_processes_stop_after_the_same_iteration(folder, backbone_file):
    codes = launch(train_until_told_to_stop, str(folder), backbone_file, folder=folder)
    assert codes == [os.EX_TEMPFAIL] * 2
    newest = (folder / "stopped_2" / "last_checkpoint").read_text()
    state = torch.load(folder / "stopped_2" / newest, weights_only=True)
    assert (newest, state["iteration"]) == ("model_0000002.pth", 2)
