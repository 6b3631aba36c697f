"""Videos through an image network."""

import copy

import torch
from torch import nn

from lowbit.backbones import create_backbone
from lowbit.backbones.networks.video_frames import average_frames
from lowbit.quant import calibrate, quantize, set_precision


def test_the_mean_of_frames_features_is_what_a_linear_head_needs():
    torch.manual_seed(0)
    net = create_backbone("resnet10_slim").eval()
    head = nn.Linear(net.num_features, 5)
    videos = torch.randn(3, 4, 3, 32, 32)
    logits = torch.stack([head(net(frame)) for frame in videos.unbind(1)]).mean(0)
    names = list(net.state_dict())
    average_frames(net, 4)
    torch.testing.assert_close(head(net(videos)), logits)
    assert list(net.state_dict()) == names
    torch.testing.assert_close(head(copy.deepcopy(net)(videos)), logits)


def test_quantized_networks_see_videos_and_calibrate_on_them():
    torch.manual_seed(0)
    net = average_frames(create_backbone("resnet10_slim"), 2).eval()
    videos = torch.randn(3, 2, 3, 32, 32)
    quantize(net, "tr")
    assert calibrate(net, [videos, videos], images=5) == 5  # videos are counted
    set_precision(net, "4w4a")
    net(videos).sum().backward()
    assert net(videos).shape == (3, 128)
    assert net.layer1[0].conv1.weight.grad.abs().max() > 0
