"""A transfer job on digits, small enough to export in every test."""

import pytest
import torch

from lowbit.backbones import create_backbone, save_backbone
from lowbit.transfer import Recipe, run
from lowbit.transfer.scoring.scored_network import FILE

PRECISIONS = ("FP", "8w8a", "4w4a")


@pytest.fixture(scope="package")
def checkpoint(tmp_path_factory):
    """A backbone file with random weights."""
    path = tmp_path_factory.mktemp("backbone") / "checkpoint.pth"
    torch.manual_seed(0)
    save_backbone(path, create_backbone("resnet10_slim"), {"method": "untrained", "data": "-"})
    return path


@pytest.fixture(scope="package")
def job(checkpoint, tmp_path_factory):
    """A finished linear job: (what it returned, its folder)."""
    folder = tmp_path_factory.mktemp("job")
    recipe = Recipe(checkpoint=str(checkpoint), precisions=PRECISIONS, epochs=10, lr=1.0)
    return run(recipe, folder), folder


@pytest.fixture(scope="package")
def networks(job):
    """The file of its networks."""
    return job[1] / FILE
