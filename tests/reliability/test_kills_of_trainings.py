"""Real trainings that are killed at any moment end with the same bits, files and board."""

from pathlib import Path

import pytest
import yaml

from lowbit.backbones import create_backbone, save_backbone
from lowbit.benchmark.recipes.stages import STAGES
from tests.detection.conftest import TINY
from tests.reliability.blows import STOPS, Attack
from tests.reliability.runners import Runners

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

_PRETRAIN = {
    **{"architecture": "resnet10_slim", "dataset": "digits", "image_size": 16, "device": "cpu"},
    **{"dim": 64, "hidden_dim": 32, "epochs": 3, "batch_size": 256, "checkpoint_every": 1},
}
_LINEAR = {"dataset": "digits", "image_size": 16, "epochs": 3, "lr": 0.5, "device": "cpu"}
_TRAINED = {**_LINEAR, "epochs": 1, "lr": 0.02, "checkpoint_every": 5}
_QAT = {**_TRAINED, "protocol": "qat", "policy": "lsq"}
_SEMI = {**_TRAINED, "protocol": "semi", "label_fraction": 0.1, "epochs": 4}
_ADAPTIVE = {
    **{**_TRAINED, "protocol": "adaptive"},
    "adaptive": {"bits": [8, 4], "zero_shot": [6], "norm_batches": 1},
}
_DETECTOR = {name: value for name, value in TINY.items() if name != "engine"}
ENGINES = [
    "torchvision",
    pytest.param("detectron2", marks=pytest.mark.detectron2),
]
# Any process, at any time, while it writes, and while the board is built.
KILLS = (
    "runner",
    "worker",
    "runner and workers",
    "while a file is written",
    "while a file is written",
    "while the board is built",
)


def write(folder: Path, **recipes: dict) -> None:
    for name, recipe in recipes.items():
        recipe = {k: list(v) if isinstance(v, tuple) else v for k, v in recipe.items()}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, **recipe}))


def classification(folder: Path) -> None:
    """Write a suite on digits: two checkpoints, scored by a linear probe, and one trained on."""
    write(
        folder,
        pretrain=_PRETRAIN,
        linear=_LINEAR,
        finetune={**_TRAINED, "protocol": "finetune"},
        qat=_QAT,
        semi=_SEMI,
        adaptive=_ADAPTIVE,
        suite={
            "precisions": ["FP", "4w4a"],
            "checkpoints": [
                {"name": "untrained", "pretrain": "pretrain.yaml", "overrides": {"epochs": 0}},
                {"name": "SimSiam", "pretrain": "pretrain.yaml"},
            ],
            "transfer": [
                {"recipe": "linear.yaml"},
                *(
                    {"recipe": f"{name}.yaml", "checkpoints": ["SimSiam"], **more}
                    for name, more in (
                        ("finetune", {}),
                        ("qat", {"precisions": ["4w4a"]}),
                        ("semi", {"precisions": ["4w4a"]}),
                        ("adaptive", {"precisions": ["8w8a", "6w6a", "4w4a"]}),
                    )
                ),
            ],
        },
    )


def detection(folder: Path, engine: str) -> None:
    """Write a suite of a detector in full precision, and of one that is trained on from it."""
    net = create_backbone("resnet10_slim")
    save_backbone(folder / "net.pth", net, {"method": "untrained", "data": "digits"})
    more = {"method": "lsq", "precision": "4w4a"}
    write(
        folder,
        fp={**_DETECTOR, "engine": engine, "checkpoint_every": 2},
        lsq={**_DETECTOR, "engine": engine, "checkpoint_every": 2, **more},
        suite={
            "checkpoints": [{"name": "net", "path": "net.pth"}],
            "detection": [
                {"id": "fp", "recipe": "fp.yaml"},
                {"recipe": "lsq.yaml", "detector": "fp"},
            ],
        },
    )


def attack(folder, rng, kinds, count, *, span):
    runners = Runners(folder / "suite.yaml", folder / "runs", "--workers", "2", stages=STAGES)
    return Attack(runners, rng, span=span).make([rng.choice(kinds) for _ in range(count)])


def test_killed_sweeps_on_digits(tmp_path, rng, tally, rounds):
    classification(tmp_path)
    outcome = attack(tmp_path, rng, KILLS, rounds(40), span=6.0)
    hits = sum(outcome.hits.values())
    tally.add("SIGKILL, pretraining, probes, trainings on digits", hits, len(outcome.wrong))
    assert outcome.wrong == []


@pytest.mark.parametrize("engine", ENGINES)
def test_killed_sweeps_of_detectors(tmp_path, rng, tally, rounds, engine):
    detection(tmp_path, engine)
    outcome = attack(tmp_path, rng, KILLS, rounds(20), span=5.0)
    hits = sum(outcome.hits.values())
    tally.add(f"SIGKILL, detectors by {engine}", hits, len(outcome.wrong))
    assert outcome.wrong == []


def test_stopped_sweeps_on_digits(tmp_path, rng, tally, rounds):
    classification(tmp_path)
    outcome = attack(tmp_path, rng, STOPS, rounds(12), span=6.0)
    for kind, hits in sorted(outcome.hits.items()):
        tally.add(f"{kind}, on digits", hits, len(outcome.wrong))
    assert outcome.wrong == []


@pytest.mark.parametrize("engine", ENGINES)
def test_stopped_sweeps_of_detectors(tmp_path, rng, tally, rounds, engine):
    detection(tmp_path, engine)
    outcome = attack(tmp_path, rng, STOPS, rounds(6), span=5.0)
    for kind, hits in sorted(outcome.hits.items()):
        tally.add(f"{kind}, detectors by {engine}", hits, len(outcome.wrong))
    assert outcome.wrong == []
