import pytest

from lowbit.backbones import create_backbone
from lowbit.backbones.checkpoints.batch_norm_state import norm_state


def test_trained_statistics_are_sane(slim):
    state = norm_state(slim.state_dict())
    assert state.warning is None and str(state) == "sane (12)"


def test_an_untrained_network_looks_like_one():
    state = norm_state(create_backbone("resnet10_slim").state_dict())
    assert "untrained network" in state.warning and str(state) == "untrained (12 of 12)"


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_trained_weights_with_idle_statistics_are_wrong(name):
    tensors = create_backbone("resnet10_slim").state_dict()
    tensors[f"layer2.0.bn1.{name}"][0] = 0.3
    assert "will be wrong" in norm_state(tensors).warning


@pytest.mark.parametrize("name", ["running_mean", "running_var", "num_batches_tracked"])
def test_one_update_of_a_layer_is_seen(name):
    tensors = create_backbone("resnet10_slim").state_dict()
    tensors[f"bn1.{name}"] += 1
    assert norm_state(tensors).idle == 11


def test_networks_without_batch_norm():
    state = norm_state(create_backbone("vit_tiny_patch16_224").state_dict())
    assert state.warning is None and str(state) == "none"
