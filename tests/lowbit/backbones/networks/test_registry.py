import pytest
import timm
import torch

from lowbit.backbones import create_backbone, list_backbones, pyramid, pyramid_info
from lowbit.backbones.networks.registry import DEEPEST_CIFAR_BLOCKS, cifar_resnet


@pytest.mark.parametrize("name", [*list_backbones(), "resnet18", "resnet50"])
def test_maps_images_to_features(name):
    net = create_backbone(name).eval()
    assert net.architecture == name
    pixels = 224 if "vit" in name else 32
    assert net(torch.rand(2, 3, pixels, pixels)).shape == (2, net.num_features)


def test_dinov2s_places_are_resampled_to_the_image_alone():
    net = create_backbone("vit_small_dinov2").eval()
    own = net._pos_embed(torch.zeros(1, 37, 37, 384))  # 518 pixels
    assert own[:, 1:].equal(net.pos_embed[:, 1:])
    assert net(torch.rand(1, 3, 28, 42)).shape == (1, 384)


@pytest.mark.parametrize(
    ("name", "convolutions"),
    # 6n + 2 layers of weights less the classifier; option-A shortcuts have none
    [
        ("resnet8", 7),
        ("resnet20", 19),
        ("resnet56", 55),
        ("resnet74", 73),
        ("resnet110", 109),
        ("resnet26_cifar3", 25),
        ("resnet152_cifar3", 151),
    ],
)
def test_cifar_resnets_have_their_depth(name, convolutions):
    net = create_backbone(name)
    assert sum(isinstance(m, torch.nn.Conv2d) for m in net.modules()) == convolutions
    assert net.num_features == 64


@pytest.mark.parametrize(
    ("name", "millions"),  # He et al. 2016, Table 6, with the classifier of ten classes
    [("resnet20", 0.27), ("resnet32", 0.46), ("resnet44", 0.66), ("resnet56", 0.85)],
)
def test_cifar_resnets_have_the_published_size(name, millions):
    parameters = sum(p.numel() for p in create_backbone(name).parameters())
    assert round((parameters + 64 * 10 + 10) / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("resnet57", r"resnet56 \(n=9\) and resnet62 \(n=10\)\."),
        ("resnet57_cifar", r"resnet56 \(n=9\) and resnet62 \(n=10\)\."),
        ("resnet56_cifar3", r"nearest: resnet56 \(n=9\)\."),
        ("resnet49_cifar", r"resnet44 \(n=7\) and resnet50_cifar3 \(n=8\)\."),
        ("resnet2", r"nearest: resnet8 \(n=1\)\."),
    ],
)
def test_depths_that_do_not_exist_are_answered_with_those_that_do(wrong, nearest):
    with pytest.raises(
        ValueError, match=rf"{wrong}'; nothing was built.*6n \+ 2 layers.*{nearest}"
    ):
        create_backbone(wrong)


@pytest.mark.parametrize(
    "name",
    [
        "resnet10_slim",
        "resnet20",
        "resnet18_cifar",
        "resnet50",
        "mobilenetv2",
        "reactnet18",
        "mobilenetv2_kuangliu",
    ],
)
def test_pyramid_is_the_networks_own_feature_maps(name):
    net = create_backbone(name).eval()
    images = torch.rand(1, 3, 64, 64)
    levels = pyramid_info(net)
    maps = pyramid(net, images, [level.name for level in levels])
    for level in levels:
        assert maps[level.name].shape == (1, level.channels, 64 // level.stride, 64 // level.stride)
    if "mobilenetv2" not in name:  # which has one more convolution behind its last stage
        assert torch.equal(maps[levels[-1].name], net.forward_features(images))


def test_pyramid_stops_after_the_last_level_named():
    net = create_backbone("resnet10_slim").eval()
    net.layer4.register_forward_hook(lambda *_: pytest.fail("layer4 was computed"))
    assert list(pyramid(net, torch.rand(1, 3, 32, 32), ["res3", "res4"])) == ["res3", "res4"]


def test_parameters_are_named_as_in_torchvision():
    names = set(timm.create_model("resnet18", num_classes=0).state_dict())
    assert set(create_backbone("resnet18_cifar").state_dict()) == names
    slim = set(create_backbone("resnet10_slim").state_dict())
    assert {k for k in slim if ".0." not in k} <= names


def test_unknown_names_get_suggestions():
    with pytest.raises(ValueError, match="resnet10_slim"):
        create_backbone("resnet10_slm")


def test_networks_without_a_pyramid_are_refused():
    net = create_backbone("vit_tiny_patch16_224")
    with pytest.raises(ValueError, match="no feature pyramid"):
        pyramid_info(net)


def test_reactnet_has_the_published_size():
    """TR's supplement (S2.2): 11,235K parameters on CIFAR-100."""
    net = create_backbone("reactnet18_cifar")
    assert sum(p.numel() for p in net.parameters()) + 512 * 100 + 100 == 11_235_044


def test_reactnet_is_a_bi_real_resnet():
    net = create_backbone("reactnet18")
    kernels = [m.kernel_size for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert sorted(kernels) == [(1, 1)] * 3 + [(3, 3)] * 16 + [(7, 7)]
    block = create_backbone("reactnet18_cifar").layer2[0].eval()
    torch.nn.init.normal_(block.shift.bias)
    for shift in (block.act[0], block.act[2]):
        torch.nn.init.normal_(shift.bias)
    x = torch.randn(2, 64, 8, 8)
    shift, before, after = (
        s.bias.view(-1, 1, 1) for s in (block.shift, block.act[0], block.act[2])
    )
    weights = block.conv.weight, block.downsample[1].weight
    y = torch.conv2d(x + shift, weights[0], stride=2, padding=1)
    y = y + torch.conv2d(torch.nn.functional.avg_pool2d(x, 2), weights[1])
    y = y + before  # norms are the identity as they start
    y = torch.where(y > 0, y, 0.25 * y) + after
    torch.testing.assert_close(block(x), y, rtol=1e-4, atol=1e-4)


def test_coquants_mobilenet_has_the_size_of_its_source():
    """2,296,922 parameters on CIFAR-10: github.com/kuangliu/pytorch-cifar."""
    net = create_backbone("mobilenetv2_kuangliu")
    assert sum(p.numel() for p in net.parameters()) + 1280 * 10 + 10 == 2_296_922
    assert net.forward_features(torch.rand(1, 3, 32, 32)).shape == (1, 1280, 4, 4)


@pytest.mark.parametrize(
    "name", ["resnet1208", "resnet600000002", "resnet" + "9" * 5000, "x" * 10**6]
)
def test_a_name_builds_no_endless_network(name):
    with pytest.raises(ValueError, match="there is no network") as caught:
        create_backbone(name)
    assert len(str(caught.value)) < 2000
    assert cifar_resnet(DEEPEST_CIFAR_BLOCKS) == "resnet1202"
