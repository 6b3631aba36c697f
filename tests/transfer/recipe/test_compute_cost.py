"""The work of each protocol, against counts by hand: passes over images of a known network."""

import pytest

from lowbit.backbones.counting import network_size
from lowbit.transfer import Recipe, work

TRAIN, VAL, TEST = 1_077, 180, 540  # digits
SIZE = network_size("resnet10_slim", 32)
WEIGHTS = 4 * SIZE.parameters


def counted(protocol, **fields):
    recipe = Recipe(checkpoint="b.pth", architecture="resnet10_slim", protocol=protocol, **fields)
    return work(recipe)


def test_features_are_shared_and_the_probe_is_its_own():
    found = counted("linear", epochs=10, precisions=("FP", "4w4a"), save_predictions=False)
    images = 2 * (TRAIN + VAL + TEST)
    assert found.shared_operations == images * SIZE.operations
    assert found.shared_disk == images * 128 * 4
    assert found.operations == 2 * 10 * 3 * TRAIN * (2 * 128 * 10)
    assert found.disk == 0


def test_views_and_rates_multiply():
    one = counted("linear", epochs=10)
    many = counted("linear", epochs=10, augment_views=4)
    added = 3 * TRAIN * 5 * SIZE.operations
    assert many.shared_operations == one.shared_operations + added
    assert counted("linear", epochs=10, lr=[1.0, 3.0]).operations == 2 * one.operations


def test_fine_tuning_trains_once_and_scores_at_each_precision():
    found = counted("finetune", epochs=5, precisions=("FP", "4w4a", "3w3a"))
    assert found.operations == (5 * 3 * TRAIN + 3 * (VAL + TEST)) * SIZE.operations
    assert found.shared_operations == 0
    assert found.disk == WEIGHTS + (VAL + TEST) * (8 + 2 * 3)


def test_qat_trains_at_each_precision_from_a_shared_start():
    found = counted("qat", epochs=4, precisions=("FP", "4w4a", "2w2a"), fp_start={"epochs": 7})
    epoch = (3 * TRAIN + VAL) * SIZE.operations
    assert found.operations == 2 * 4 * epoch + 3 * (VAL + TEST) * SIZE.operations
    assert found.shared_operations == 7 * 3 * TRAIN * SIZE.operations
    assert found.shared_disk == WEIGHTS


def test_val_that_is_trained_on_is_not_scored():
    found = counted("finetune", epochs=5, precisions=("FP",), train_on="trainval")
    assert found.operations == (5 * 3 * (TRAIN + VAL) + TEST) * SIZE.operations


@pytest.mark.parametrize("protocol", ["knn", "linear-exact", "semi", "adaptive"])
def test_every_protocol_is_counted(protocol):
    found = counted(protocol)
    assert found.operations > 0


def test_a_network_that_is_not_named_cannot_be_counted():
    assert work(Recipe(checkpoint="b.pth")) is None
