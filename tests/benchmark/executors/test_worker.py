"""What a worker adds to a recipe."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from lowbit.benchmark.executors.worker import Task, _shared
from lowbit.transfer import Recipe


@pytest.mark.parametrize(
    ("recipe", "added"),
    [
        (Recipe(checkpoint="b.pth").model_dump(mode="json"), {"cache_dir": "runs/features"}),
        ({"cache_dir": "/of/the/user"}, {}),
        ({"lr": 0.1}, {}),  # a stage that shares nothing
    ],
)
def test_jobs_of_a_run_folder_share_features_unless_told_where(recipe, added):
    job = SimpleNamespace(recipe=recipe)
    task = Task(job, inputs={}, folder=Path("runs/0123"), token="t", threads=1)
    assert _shared(task) == added
