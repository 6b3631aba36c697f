"""Jobs of the real stages that train in two processes, on the CPU."""

from pathlib import Path

import pytest
import yaml

from lowbit.backbones import create_backbone, save_backbone
from lowbit.benchmark.executors import local
from lowbit.benchmark.planning.plan import plan
from lowbit.benchmark.results.result_file import read_result
from lowbit.benchmark.scheduling.schedule import Schedule

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
DETECTOR = CONFIGS / "detection" / "detectron2" / "digit_scenes_retinanet_fp_instant_test.yaml"


@pytest.fixture
def run(tmp_path):
    """Run a suite of one job and return its result."""

    def _run(**keys):
        suite = tmp_path / "suite.yaml"
        suite.write_text(yaml.safe_dump({"name": "two", **keys}))
        schedule = Schedule(plan(suite), tmp_path / "runs")
        local.run(schedule, workers=1)
        (job,) = schedule.plan.jobs.values()
        return read_result(schedule.folder(job))

    return _run


@pytest.mark.slow
def test_two_processes_pretrain(run):
    recipe = str(CONFIGS / "pretrain" / "digits_simsiam.yaml")
    overrides = {"num_gpus": 2, "epochs": 1, "device": "cpu"}
    result = run(checkpoints=[{"name": "two", "pretrain": recipe, "overrides": overrides}])
    assert result.status == "completed", result.reason
    assert result.details["processes"] == 2
    assert result.identity["processes"] == 2  # each normalizes its share of a batch
    assert result.device == "2 x cpu"


@pytest.mark.slow
@pytest.mark.detectron2
def test_two_processes_train_a_detector(run, tmp_path):
    backbone = tmp_path / "backbone.pth"
    save_backbone(backbone, create_backbone("resnet10_slim"), {"data": "digits"})
    recipe = tmp_path / "detection.yaml"
    recipe.write_text(
        yaml.safe_dump({"config": str(DETECTOR), "opts": ["SOLVER.MAX_ITER", 2], "device": "cpu"})
    )
    result = run(
        checkpoints=[{"name": "one", "path": str(backbone)}],
        detection=[{"recipe": str(recipe), "overrides": {"num_gpus": 2}}],
    )
    assert result.status == "completed", result.reason
    assert {m.metric for m in result.measurements} >= {"AP", "AP50", "AP75"}
    assert result.identity["processes"] == 2
