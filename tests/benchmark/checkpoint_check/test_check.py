"""What is found in a sound checkpoint, and in ones that are not."""

import json

import pytest
import torch
from torch.nn import functional as F

from lowbit.backbones import create_backbone, save_backbone
from lowbit.benchmark.checkpoint_check import check as checking
from lowbit.benchmark.checkpoint_check import network_health
from lowbit.benchmark.checkpoint_check.check import PRECISIONS, check
from lowbit.benchmark.checkpoint_check.network_health import Subject, input_size
from lowbit.data import Center, open_images
from lowbit.quant import Precision, calibrate, quantize, set_precision


def _save(path, architecture, change=lambda net: None):
    torch.manual_seed(0)
    net = create_backbone(architecture)
    with torch.no_grad():
        change(net)
    save_backbone(path, net, {"method": "untrained"})
    return path


def _by_name(findings):
    return {finding.name: finding for finding in findings}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("check") / "net.pth"
    return _by_name(check(_save(path, "resnet10_slim")))


def test_a_sound_network_passes_everything(sound):
    assert list(sound) == ["load", "quantize (ssql)", *PRECISIONS, "detection"]
    assert {finding.status for finding in sound.values()} == {"passed"}, sound
    assert sound["quantize (ssql)"].numbers["layers"] == 12
    for precision in PRECISIONS:
        numbers = sound[precision].numbers
        assert numbers["finite"] and numbers["reached"] == numbers["weights"] == 12
    cosines = [sound[p].numbers["cosine"] for p in PRECISIONS[:6]]
    assert cosines[0] == pytest.approx(1.0, abs=1e-6)
    assert cosines == sorted(cosines, reverse=True)  # fewer bits, farther away
    assert sound["FP"].numbers["digits"] > 60
    assert json.dumps([vars(finding) for finding in sound.values()])


def test_the_response_is_that_of_the_network_by_hand():
    torch.manual_seed(0)
    net = create_backbone("resnet10_slim").eval()
    subject = Subject(quantize(net, "ssql"), precisions=7)
    calibrate(net, [subject.images(32)])
    found = subject.respond("4w4a")
    images = next(
        open_images("digits", "train").batches(Center(32, 32), batch_size=16, device="cpu")
    )
    with torch.no_grad():
        set_precision(net, "FP")
        full = net(images)
        set_precision(net, "4w4a")
        low = net(images)
    assert found.cosine == pytest.approx(F.cosine_similarity(full, low).mean().item(), abs=1e-6)


def test_a_file_that_does_not_load_skips_what_stands_on_it(tmp_path):
    torch.save({"conv.weight": torch.zeros(1, 3, 1, 1)}, tmp_path / "wrong.pth")
    found = _by_name(check(tmp_path / "wrong.pth", architecture="resnet10_slim"))
    assert found["load"].status == "failed" and "nothing was loaded" in found["load"].detail
    rest = [finding for name, finding in found.items() if name != "load"]
    assert len(rest) == 9
    assert {f.status for f in rest} == {"skipped"}
    assert rest[0].detail == rest[-1].detail == "not tried: load failed"


def test_a_network_that_sees_nothing_fails_at_many_bits(tmp_path):
    def blind(net):  # every image is the same after the stem; the layers behind it could learn
        net.bn1.weight.zero_()
        net.bn1.bias.fill_(1.0)

    path = _save(tmp_path / "net.pth", "resnet10_slim", blind)
    found = _by_name(check(path, precisions=["FP", "3w3a"]))
    assert found["FP"].status == "failed"
    assert "no better than guessing" in found["FP"].detail
    assert found["3w3a"].status == "passed"  # few bits may cost everything


def test_a_network_in_which_nothing_can_learn_fails_at_any_bits(tmp_path):
    def dead(net):
        for p in net.layer4.parameters():
            p.zero_()

    path = _save(tmp_path / "net.pth", "resnet10_slim", dead)
    found = _by_name(check(path, precisions=["FP", "3w3a"]))
    assert {found[p].status for p in ("FP", "3w3a")} == {"failed"}
    assert "no weight can learn" in found["3w3a"].detail


def test_features_that_are_not_finite_are_found(tmp_path):
    def explode(net):
        for p in net.layer4.parameters():
            p.mul_(1e30)

    path = _save(tmp_path / "net.pth", "resnet10_slim", explode)
    found = _by_name(check(path, precisions=["FP", "4w4a"]))
    assert found["load"].status == "passed"
    said = [found[name].detail for name in found if found[name].status == "failed"]
    assert any("NaN or infinity" in text for text in said)


def test_a_transformer_is_told_to_have_no_pyramid(tmp_path, monkeypatch):
    monkeypatch.setattr(network_health, "_PROBE_BUDGET", 0)
    monkeypatch.setattr(network_health, "_LEARNING_BUDGET", 0)
    monkeypatch.setattr(checking, "CALIBRATION_IMAGES", 2)
    path = _save(tmp_path / "vit.pth", "vit_tiny_patch16_224")
    found = _by_name(check(path, precisions=["8w8a"]))
    assert found["detection"].status == "skipped"
    assert "has no feature pyramid" in found["detection"].detail
    assert found["8w8a"].status == "passed" and found["8w8a"].detail.endswith("no probe")
    assert found["quantize (ssql)"].numbers["image_size"] == 224


def test_networks_are_tried_at_the_size_they_are_for():
    sizes = {
        "resnet10_slim": 32,
        "resnet18_cifar": 32,
        "resnet18": 64,
        "deit_tiny_patch16_224": 224,
    }
    assert {name: input_size(create_backbone(name)) for name in sizes} == sizes


def test_an_unknown_policy_or_precision_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(ValueError, match="sqsl"):
        next(iter(check(tmp_path / "gone.pth", policy="sqsl")))
    with pytest.raises(ValueError, match="4x4"):
        next(iter(check(tmp_path / "gone.pth", precisions=["4x4"])))


def _passed_by(net):
    conv = net.layer2[0].conv2
    conv.forward = lambda x: F.conv2d(x, conv.weight, padding=1)
    return net


def test_a_layer_computed_in_full_precision_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(checking, "quantize", lambda net, policy: _passed_by(quantize(net, policy)))
    path = _save(tmp_path / "net.pth", "resnet10_slim")
    found = _by_name(check(path, policy="lsq", precisions=["4w4a"]))
    assert found["quantize (lsq)"].status == "failed"
    assert "passed by (layer2.0.conv2)" in found["quantize (lsq)"].detail
    assert found["4w4a"].status == "skipped"


def test_a_response_past_a_quantizer_is_an_error():
    net = quantize(create_backbone("resnet10_slim").eval(), "lsq")
    subject = Subject(net, precisions=7)
    calibrate(net, [subject.images(4)])
    _passed_by(net)
    assert subject.respond(Precision.parse("FP")).finite
    with pytest.raises(ValueError, match=r"passed by \(layer2\.0\.conv2\)"):
        subject.respond(Precision(4, 4))
