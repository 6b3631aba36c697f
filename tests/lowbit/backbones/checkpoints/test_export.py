"""What is written for another library loads there, strictly, and gives the same features."""

import json

import pytest
import safetensors
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn

from lowbit.backbones import CheckpointError, create_backbone, load_backbone, save_backbone
from lowbit.backbones.checkpoints import export as module
from lowbit.backbones.checkpoints.export import convert

META = {"method": "SimSiam", "data": "digits"}


@pytest.fixture(scope="module")
def source(resnet18, tmp_path_factory):
    """A MoCo file of torchvision's ResNet-18."""
    path = tmp_path_factory.mktemp("source") / "moco.pth.tar"
    state = {f"module.encoder_q.{k}": v for k, v in resnet18.state_dict().items()}
    torch.save({"state_dict": state}, path)
    return path


@pytest.fixture(scope="module")
def features(resnet18, images):
    net = nn.Sequential(*list(resnet18.children())[:-1], nn.Flatten())
    with torch.no_grad():
        return net(images)


def run(net, images):
    with torch.no_grad():
        return net.eval()(images)


def close(a, b):
    return torch.allclose(a, b, rtol=1e-5, atol=1e-5 * b.abs().max())


def test_to_torchvision(source, features, images, tmp_path):
    done = convert(source, "torchvision", output=tmp_path / "x.pth")
    net = torchvision.models.resnet18()
    net.fc = nn.Identity()
    net.load_state_dict(torch.load(done.path), strict=True)
    assert close(run(net, images), features)
    assert done.report.format.startswith("MoCo")


def test_to_timm(source, features, images, tmp_path):
    done = convert(source, "timm", output=tmp_path / "x.pth")
    net = timm.create_model("resnet18", num_classes=0)
    net.load_state_dict(torch.load(done.path), strict=True)
    assert close(run(net, images), features)


def test_to_safetensors(source, features, images, tmp_path):
    done = convert(source, "safetensors", output=tmp_path / "x.safetensors")
    net = timm.create_model("resnet18", num_classes=0)
    net.load_state_dict(safetensors.torch.load_file(done.path), strict=True)
    assert close(run(net, images), features)
    _, report = load_backbone(done.path)  # which now states its network and its origin
    assert report.architecture == "resnet18" and not report.guessed
    assert report.meta["converted_from"]["sha256"] == done.report.sha256
    with safetensors.safe_open(done.path, framework="pt") as file:
        assert json.loads(file.metadata()["lowbit_bench"])["architecture"] == "resnet18"


@pytest.mark.detectron2
@pytest.mark.parametrize("depth", [18, 50])
def test_to_detectron2(depth, randomized, images, tmp_path):
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.backbone import build_resnet_backbone

    ours = randomized(create_backbone(f"resnet{depth}"))
    save_backbone(tmp_path / "x.pth", ours, META)
    done = convert(tmp_path / "x.pth", "detectron2")
    assert done.path == tmp_path / "x.detectron2.pkl"
    cfg = get_cfg()
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.STRIDE_IN_1X1 = depth, False
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth == 18 else 256
    theirs = build_resnet_backbone(cfg, ShapeSpec(channels=3)).eval()
    left = DetectionCheckpointer(theirs).load(str(done.path))
    assert not left.get("missing_keys") and not left.get("unexpected_keys")
    with torch.no_grad():
        expected = ours.forward_intermediates(images, [1, 2, 3, 4], intermediates_only=True)
        found = theirs(images)
    for name, level in zip(("res2", "res3", "res4", "res5"), expected, strict=True):
        assert close(found[name], level)
    # and back, through the door
    loaded, report = load_backbone(done.path)
    assert report.architecture == f"resnet{depth}" and report.format == "Detectron2 ResNet"
    assert close(run(loaded, images), run(ours, images))


def test_mobilenet_to_torchvision(randomized, images, tmp_path):
    ours = randomized(create_backbone("mobilenetv2"))
    save_backbone(tmp_path / "x.pth", ours, META)
    done = convert(tmp_path / "x.pth", "torchvision")
    net = torchvision.models.mobilenet_v2()
    net.classifier = nn.Identity()
    net.load_state_dict(torch.load(done.path), strict=True)
    assert close(run(net, images), run(ours, images))


def test_a_transformer_to_torchvision(vit_nano, images, tmp_path, monkeypatch):
    names = ("vit_nano", "torchvision_vit", "heads")
    monkeypatch.setitem(module._TORCHVISION, "vit_nano", names)
    torch.save(vit_nano.state_dict(), tmp_path / "x.pth")
    done = convert(tmp_path / "x.pth", "torchvision", architecture="vit_nano")
    net = torchvision.models.VisionTransformer(
        image_size=32, patch_size=16, num_layers=2, num_heads=3, hidden_dim=48, mlp_dim=192
    )
    net.heads = nn.Identity()
    net.load_state_dict(torch.load(done.path), strict=True)
    assert close(run(net, images), run(vit_nano, images))


@pytest.mark.parametrize("target", ["torchvision", "timm", "detectron2"])
def test_networks_the_target_lacks_are_refused(target, tmp_path):
    save_backbone(tmp_path / "x.pth", create_backbone("resnet20"), META)
    with pytest.raises(CheckpointError, match=r"has no resnet20; nothing was written.*safetensors"):
        convert(tmp_path / "x.pth", target)
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]
    assert convert(tmp_path / "x.pth", "safetensors").path.exists()


def test_a_cifar_stem_is_no_torchvision_network(tmp_path):
    save_backbone(tmp_path / "x.pth", create_backbone("resnet18_cifar"), META)
    with pytest.raises(CheckpointError, match="torchvision has no resnet18_cifar"):
        convert(tmp_path / "x.pth", "torchvision")


def test_nothing_is_overwritten_unless_told(tmp_path):
    save_backbone(tmp_path / "x.pth", create_backbone("resnet20"), META)
    first = convert(tmp_path / "x.pth", "safetensors")
    with pytest.raises(FileExistsError, match="Add --overwrite"):
        convert(tmp_path / "x.pth", "safetensors")
    again = convert(tmp_path / "x.pth", "safetensors", overwrite=True)
    assert again.sha256 == first.sha256
    with pytest.raises(FileExistsError, match="is the file to convert"):
        convert(first.path, "safetensors", overwrite=True)


def test_what_cannot_be_written_is_said(tmp_path):
    save_backbone(tmp_path / "x.pth", create_backbone("resnet20"), META)
    with pytest.raises(ValueError, match="no layout 'onnx'"):
        convert(tmp_path / "x.pth", "onnx")
    with pytest.raises(ValueError, match=r"Call it y\.safetensors"):
        convert(tmp_path / "x.pth", "safetensors", output=tmp_path / "y.bin")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        convert(tmp_path / "x.pth", "safetensors", output=tmp_path / "no" / "y.safetensors")


def test_the_new_files_name(tmp_path):
    assert module._default_name(tmp_path / "r-50.v1.pth.tar", "timm") == "r-50.v1.timm.pth"
    assert module._default_name(tmp_path / "x.ckpt", "safetensors") == "x.safetensors"


@pytest.mark.parametrize(
    "name", ["mobilenetv2", "vit_small_moco_v3", "vit_small_dinov2", "resnet50"]
)
def test_the_lines_for_timm_build_that_network(name):
    with torch.device("meta"):
        scope = {"timm": timm}
        exec(module._timm_line(name), scope)
        assert scope["net"].state_dict().keys() == create_backbone(name).state_dict().keys()
