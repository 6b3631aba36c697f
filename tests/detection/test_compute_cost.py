"""The work of a detection recipe, against operations counted in a real detector."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lowbit.backbones import create_backbone
from lowbit.detection import Recipe, work
from lowbit.detection.detector.initial_weights import start_from_random
from lowbit.detection.engines import torchvision


def recipe(**fields):
    return Recipe(
        random_backbone=True,
        architecture="resnet10_slim",
        engine="torchvision",
        device="cpu",
        **fields,
    )


@pytest.mark.parametrize("fields", [{}, {"fpn_channels": 64, "head_convs": 3, "image_size": 128}])
def test_a_pass_is_that_of_the_real_detector(fields):
    """Count a RetinaNet's convolutions on one scene; its predictors are not in our count."""
    asked = recipe(iterations=1, test_images=1, batch_size=1, **fields)
    detector = torchvision().build(asked, start_from_random("resnet10_slim"), classes=10).eval()
    side = asked.image_size
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        detector([torch.rand(3, side, side)])
    passes = 3 + 1  # one step, one image scored
    assert work(asked).operations / passes == pytest.approx(counter.get_total_flops(), rel=0.35)


def test_work_grows_with_steps_and_images():
    base = recipe(iterations=100, test_images=50)
    double = recipe(iterations=200, test_images=100)
    assert work(double).operations == 2 * work(base).operations


def test_scoring_alone_leaves_nothing_to_resume():
    trained = recipe(iterations=100)
    scored = Recipe(
        method="ptq", precisions=("FP", "4w4a"), architecture="resnet10_slim", detector="d.pth"
    )
    assert work(scored).operations < work(trained).operations
    assert work(trained).disk == 4 * work(scored).disk > 0  # the detector, and no training state


def test_a_network_that_is_not_named_cannot_be_counted():
    assert work(Recipe(checkpoint="b.pth")) is None


def test_the_backbone_alone_is_within():
    """A detector costs more than its backbone on the same images."""
    backbone = create_backbone("resnet10_slim").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone(torch.rand(1, 3, 96, 96))
    found = work(recipe(iterations=1, batch_size=1, test_images=1))
    assert found.operations > 4 * counter.get_total_flops()
