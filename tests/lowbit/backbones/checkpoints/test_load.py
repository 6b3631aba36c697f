"""The door for checkpoints: every layout it knows, and all that it must refuse."""

import pytest
import torch
from torch import nn

from lowbit.backbones import CheckpointError, create_backbone, load_backbone, save_backbone
from lowbit.quant import Precision, quantize

META = {"method": "SimSiam", "data": "digits"}


@pytest.fixture
def net():
    torch.manual_seed(3)
    return create_backbone("resnet10_slim")


def equal(a: nn.Module, b: nn.Module) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def saved(state, tmp_path):
    torch.save(state, tmp_path / "x.pth")
    return tmp_path / "x.pth"


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_round_trip(net, tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    sha256 = save_backbone(path, net, META)
    loaded, report = load_backbone(path)
    assert equal(loaded, net)
    assert report.sha256 == sha256 and report.share == 1 and report.matched == report.total
    assert report.meta["method"] == "SimSiam" and report.architecture == "resnet10_slim"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no temporary file stays


def test_equal_weights_give_equal_files(net, tmp_path):
    one = save_backbone(tmp_path / "one.pth", net, META)
    assert one == save_backbone(tmp_path / "another.pth", net, META)


def test_a_quantized_backbone_is_saved_as_plain_weights(net, tmp_path):
    plain = save_backbone(tmp_path / "plain.pth", net, META)
    quantize(net, "lsq", Precision(4, 4))
    assert save_backbone(tmp_path / "quantized.pth", net, META) == plain


def test_saved_files_load_without_executing_code(net, tmp_path):
    save_backbone(tmp_path / "x.pth", net, META)
    data = torch.load(tmp_path / "x.pth", weights_only=True)
    assert set(data["model"]) == set(net.state_dict())


def test_refuses_a_file_whose_prefix_it_does_not_know(net, tmp_path):
    path = saved({f"some.other.prefix.{k}": v for k, v in net.state_dict().items()}, tmp_path)
    with pytest.raises(CheckpointError, match=r"matches 0 of 72 .*nothing was loaded.*some\.other"):
        load_backbone(path, "resnet10_slim", allow_partial=True)  # which never means nothing


def test_refuses_when_one_tensor_is_missing_unless_told(net, tmp_path):
    state = net.state_dict()
    del state["layer4.0.bn2.running_var"]
    path = saved(state, tmp_path)
    with pytest.raises(CheckpointError, match=r"layer4\.0\.bn2\.running_var"):
        load_backbone(path, "resnet10_slim")
    _, report = load_backbone(path, "resnet10_slim", allow_partial=True)
    assert report.missing == ("layer4.0.bn2.running_var",) and report.matched == report.total - 1


def test_a_missing_batch_counter_is_no_loss(net, tmp_path):
    state = {k: v for k, v in net.state_dict().items() if "num_batches" not in k}
    assert load_backbone(saved(state, tmp_path), "resnet10_slim")[1].share == 1


def test_refuses_another_shape(net, tmp_path):
    state = net.state_dict()
    state["conv1.weight"] = torch.zeros(16, 3, 7, 7)
    with pytest.raises(CheckpointError, match=r"wrong shape: conv1\.weight"):
        load_backbone(saved(state, tmp_path), "resnet10_slim")


def test_refuses_another_architecture_than_the_file_states(net, tmp_path):
    save_backbone(tmp_path / "x.pth", net, META)
    with pytest.raises(CheckpointError, match="holds a resnet10_slim, but resnet20"):
        load_backbone(tmp_path / "x.pth", "resnet20")


def test_refuses_another_architecture_and_names_the_right_one(net, tmp_path):
    with pytest.raises(CheckpointError, match="It is a complete resnet10_slim"):
        load_backbone(saved(net.state_dict(), tmp_path), "resnet18")


def test_refuses_a_deeper_network_than_asked_for(tmp_path):
    # every tensor of resnet20 is in resnet74's file, by name and by shape
    path = saved(create_backbone("resnet74").state_dict(), tmp_path)
    with pytest.raises(CheckpointError, match=r"in the file but not in the network: layer1\.3\."):
        load_backbone(path, "resnet20")
    assert load_backbone(path)[1].architecture == "resnet74"


@pytest.mark.parametrize(
    "name", ["roi_heads.box_head.fc1.weight", "rpn.head.conv.weight", "module.bbox_head.fc.weight"]
)
def test_refuses_a_whole_detector(net, tmp_path, name):
    path = saved({"model": {**net.state_dict(), name: torch.zeros(2)}}, tmp_path)
    with pytest.raises(CheckpointError, match="holds a full detector"):
        load_backbone(path, "resnet10_slim", allow_partial=True)


def test_warns_of_statistics_that_were_never_updated(slim, tmp_path):
    state = slim.state_dict()
    for name, tensor in state.items():
        if "running" in name or "num_batches" in name:
            state[name] = torch.full_like(tensor, float(name.endswith("running_var")))
    _, report = load_backbone(saved(state, tmp_path), "resnet10_slim")
    assert "12 of 12 batch-norm layers" in report.warnings[0]
    assert "features in evaluation mode will be wrong" in str(report)


def test_refuses_nan_weights(net, tmp_path):
    net.layer1[0].conv1.weight.data[0, 0, 0, 0] = float("nan")
    save_backbone(tmp_path / "x.pth", net, META)
    with pytest.raises(CheckpointError, match=r"NaN or infinity in layer1\.0\.conv1\.weight"):
        load_backbone(tmp_path / "x.pth")
