"""The door for checkpoints: every layout it knows, and all that it must refuse."""

import argparse
import pickle

import pytest
import torch
from torch import nn

from backbones import CheckpointError, create_backbone, load_backbone, save_backbone
from quant import Precision, quantize

META = {"method": "SimSiam", "data": "digits"}


@pytest.fixture
def net():
    torch.manual_seed(3)
    return create_backbone("resnet10_slim")


def equal(a: nn.Module, b: nn.Module) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def prefixed(net, prefix, extra=()):
    state = {prefix + k: v for k, v in net.state_dict().items()}
    return {**state, **{k: torch.zeros(3) for k in extra}}


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


LAYOUTS = {
    "torchvision": lambda n: prefixed(n, "", ["fc.weight", "fc.bias"]),
    "MoCo": lambda n: {
        "epoch": 3,
        "state_dict": {
            **prefixed(n, "module.encoder_q.", ["module.queue", "module.encoder_q.fc.0.weight"]),
            **{f"module.encoder_k.{k}": v + 1 for k, v in n.state_dict().items()},
        },
    },
    "MoCo v3": lambda n: {
        "state_dict": prefixed(n, "module.base_encoder.", ["module.predictor.0.weight"])
    },
    "SimSiam": lambda n: {
        "state_dict": prefixed(n, "module.encoder.", ["module.encoder.fc.0.weight"])
    },
    "BYOL": lambda n: {
        **prefixed(n, "online_encoder."),
        **{f"target_encoder.{k}": v + 1 for k, v in n.state_dict().items()},
    },
    "solo-learn": lambda n: {
        "state_dict": {
            **prefixed(n, "backbone.", ["classifier.weight"]),
            **{f"momentum_backbone.{k}": v + 1 for k, v in n.state_dict().items()},
        }
    },
    "DINO": lambda n: {"teacher": prefixed(n, "module.backbone.", ["module.head.mlp.0.weight"])},
    "VISSL": lambda n: {
        "classy_state_dict": {"base_model": {"model": {"trunk": prefixed(n, "_feature_blocks.")}}}
    },
    "DataParallel": lambda n: prefixed(n, "module."),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_recognizes_foreign_layouts(net, tmp_path, layout):
    torch.save(LAYOUTS[layout](net), tmp_path / "x.pth")
    loaded, report = load_backbone(tmp_path / "x.pth", "resnet10_slim")
    assert equal(loaded, net) and report.matched == report.total


def test_refuses_a_file_whose_prefix_it_does_not_know(net, tmp_path):
    torch.save(prefixed(net, "some.other.prefix."), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"matches 0 of 72 .*nothing was loaded.*some\.other"):
        load_backbone(tmp_path / "x.pth", "resnet10_slim")


def test_refuses_when_one_tensor_is_missing_unless_told(net, tmp_path):
    state = net.state_dict()
    del state["layer4.0.bn2.running_var"]
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"layer4\.0\.bn2\.running_var"):
        load_backbone(tmp_path / "x.pth", "resnet10_slim")
    _, report = load_backbone(tmp_path / "x.pth", "resnet10_slim", allow_partial=True)
    assert report.missing == ("layer4.0.bn2.running_var",) and report.matched == report.total - 1


def test_a_missing_batch_counter_is_no_loss(net, tmp_path):
    state = {k: v for k, v in net.state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "x.pth")
    assert load_backbone(tmp_path / "x.pth", "resnet10_slim")[1].share == 1


def test_refuses_another_shape(net, tmp_path):
    state = net.state_dict()
    state["conv1.weight"] = torch.zeros(16, 3, 7, 7)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"of another shape: conv1\.weight"):
        load_backbone(tmp_path / "x.pth", "resnet10_slim")


def test_refuses_another_architecture(net, tmp_path):
    save_backbone(tmp_path / "x.pth", net, META)
    with pytest.raises(CheckpointError, match="holds a resnet10_slim, but resnet20"):
        load_backbone(tmp_path / "x.pth", "resnet20")


def test_asks_for_the_architecture_of_a_foreign_file(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="does not say which network"):
        load_backbone(tmp_path / "x.pth")


def test_refuses_nan_weights(net, tmp_path):
    net.layer1[0].conv1.weight.data[0, 0, 0, 0] = float("nan")
    save_backbone(tmp_path / "x.pth", net, META)
    with pytest.raises(CheckpointError, match=r"NaN or infinity in layer1\.0\.conv1\.weight"):
        load_backbone(tmp_path / "x.pth")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("keep", [0, 100, 0.9])
def test_refuses_damaged_files(net, tmp_path, suffix, keep):
    path = tmp_path / f"x.{suffix}"
    save_backbone(path, net, META)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    with pytest.raises(CheckpointError, match="nothing was loaded"):
        load_backbone(path)


class _Payload:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the pickle ran')",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_never_runs_what_is_in_a_pickle(tmp_path):
    torch.save({"state_dict": {}, "args": _Payload()}, tmp_path / "x.pth")
    (tmp_path / "y.pth").write_bytes(pickle.dumps(_Payload()))
    for name in ("x.pth", "y.pth"):
        with pytest.raises(CheckpointError, match="nothing was loaded"):
            load_backbone(tmp_path / name, "resnet10_slim")


def test_explains_how_to_convert_a_pickle_with_arguments(net, tmp_path):
    content = {"state_dict": net.state_dict(), "args": argparse.Namespace(lr=1)}
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="save its state_dict alone"):
        load_backbone(tmp_path / "x.pth", "resnet10_slim")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing was loaded"):
        load_backbone(tmp_path / "none.pth")
